"""The gRPC server: TensorFlow Serving's services, the Open Inference Protocol's, and health."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version as package_version
from typing import Any

import anyio
import grpc
from google.protobuf.message import DecodeError

from fraud.errors import BadInput
from fraud.serving import metrics
from fraud.serving.api import open_inference, tensorflow_serving
from fraud.serving.api.guard import REQUEST_ID, request_id
from fraud.serving.api.open_inference_messages import (
    HEALTH_SERVICE,
    INFERENCE_SERVICE,
    MESSAGES,
    NOT_SERVING,
    SERVICE_UNKNOWN,
    SERVING,
)
from fraud.serving.errors import DeadlineExceeded, NotFound, refusal
from fraud.serving.inference import Inference, check_model_name, check_names
from fraud.serving.logs import log
from fraud.serving.protos import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)
from fraud.serving.settings import MODEL, Role, Settings
from fraud.serving.tensors import from_tensor_proto, to_tensor_proto

_PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
_MODEL_SERVICE = "tensorflow.serving.ModelService"
_SIGNATURES = "signature_def"
_SERVER = "fraud-pipeline"
_MESSAGES_AT_ONCE = 64
"""So many messages may be incomplete at a time; their sizes are not known before. Others wait."""

Handler = Callable[[Any, Any], Awaitable[Any]]


def create_server(inference: Inference, settings: Settings) -> grpc.aio.Server:
    """The gRPC server, not yet bound to a port."""
    most = settings.limits.body_bytes
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", most),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(settings.workers > 1)),
            ("grpc.max_metadata_size", 16 << 10),
            ("grpc.max_concurrent_streams", settings.limits.concurrent_requests),
            ("grpc.max_connection_idle_ms", 600_000),  # clients connect again by themselves
        ],
    )
    services = _Services(inference)
    # Apart, so that those that need a token do not wait for those that need none.
    receiving = {guarded: asyncio.Semaphore(_MESSAGES_AT_ONCE) for guarded in (True, False)}
    calls: dict[str, dict[str, tuple[Any, Handler, Role | None, bool]]] = {
        _PREDICTION_SERVICE: {
            "Predict": (predict_pb2.PredictRequest, services.predict, "score", True),
            "GetModelMetadata": (
                get_model_metadata_pb2.GetModelMetadataRequest,
                services.get_model_metadata,
                None,
                True,
            ),
        },
        _MODEL_SERVICE: {
            "GetModelStatus": (
                get_model_status_pb2.GetModelStatusRequest,
                services.get_model_status,
                None,
                True,
            ),
        },
        INFERENCE_SERVICE: {
            "ServerLive": (MESSAGES["ServerLiveRequest"], services.server_live, None, False),
            "ServerReady": (MESSAGES["ServerReadyRequest"], services.server_ready, None, False),
            "ModelReady": (MESSAGES["ModelReadyRequest"], services.model_ready, None, False),
            "ServerMetadata": (
                MESSAGES["ServerMetadataRequest"],
                services.server_metadata,
                None,
                True,
            ),
            "ModelMetadata": (
                MESSAGES["ModelMetadataRequest"],
                services.model_metadata,
                None,
                True,
            ),
            "ModelInfer": (MESSAGES["ModelInferRequest"], services.model_infer, "score", True),
        },
        HEALTH_SERVICE: {
            "Check": (MESSAGES["HealthCheckRequest"], services.check_health, None, False),
        },
    }
    for service, methods in calls.items():
        handlers = {
            # As of streams, which are not read before the call is found to be allowed. To clients,
            # a stream of one message is that message.
            method: grpc.stream_unary_rpc_method_handler(
                _guarded(
                    f"{service}/{method}",
                    request,
                    handler,
                    role,
                    is_guarded,
                    inference,
                    settings,
                    receiving[is_guarded],
                ),
                response_serializer=lambda message: message.SerializeToString(),
            )
            for method, (request, handler, role, is_guarded) in methods.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    return server


class _Services:
    """One method for each method of the services."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def predict(self, request: Any, context: Any) -> Any:
        check_model_name(request.model_spec.name)
        signature = request.model_spec.signature_name
        with self._inference.versions.lease(_version(request.model_spec)) as model:
            function = self._inference.function(model, signature)
            check_names(function, request.inputs)
            most = self._inference.limits.batch_rows
            inputs = {name: from_tensor_proto(name, t, most) for name, t in request.inputs.items()}
            answer = await self._inference.call(model, signature, inputs)
            outputs = function.outputs
        response = predict_pb2.PredictResponse()
        response.model_spec.name = MODEL
        response.model_spec.version.value = int(answer.version)
        response.model_spec.signature_name = signature or "serving_default"
        wanted = list(request.output_filter) or list(answer.outputs)
        for name in wanted:
            if name not in answer.outputs:
                raise NotFound(f"output_filter: no output {name[:100]!r}")
            response.outputs[name].CopyFrom(
                to_tensor_proto(answer.outputs[name], outputs[name].type)
            )
        return response

    async def get_model_metadata(self, request: Any, context: Any) -> Any:
        check_model_name(request.model_spec.name)
        for field in request.metadata_field:
            if field != _SIGNATURES:
                raise NotFound(f"metadata_field: {field[:100]!r}; known is {_SIGNATURES!r}")
        with self._inference.versions.lease(_version(request.model_spec)) as model:
            return tensorflow_serving.metadata_message(model.version, model.signatures)

    async def get_model_status(self, request: Any, context: Any) -> Any:
        check_model_name(request.model_spec.name)
        version = _version(request.model_spec)
        statuses = [s for s in self._inference.versions.statuses if version in (None, s.version)]
        if version and not statuses:
            raise NotFound(f"there is no version {version}")
        return tensorflow_serving.status_message(statuses)

    async def server_live(self, request: Any, context: Any) -> Any:
        return MESSAGES["ServerLiveResponse"](live=True)

    async def server_ready(self, request: Any, context: Any) -> Any:
        return MESSAGES["ServerReadyResponse"](ready=self._inference.is_ready)

    async def model_ready(self, request: Any, context: Any) -> Any:
        check_model_name(request.name)
        is_live = request.version in ("", self._inference.versions.live)
        return MESSAGES["ModelReadyResponse"](ready=self._inference.is_ready and is_live)

    async def server_metadata(self, request: Any, context: Any) -> Any:
        return MESSAGES["ServerMetadataResponse"](
            name=_SERVER,
            version=package_version(_SERVER),
            extensions=open_inference.EXTENSIONS,
        )

    async def model_metadata(self, request: Any, context: Any) -> Any:
        check_model_name(request.name)
        with self._inference.versions.lease(request.version or None) as model:
            function = self._inference.function(model, open_inference.DEFAULT_SIGNATURE)
            return MESSAGES["ModelMetadataResponse"](
                name=MODEL,
                versions=[model.version],
                platform=open_inference.PLATFORM,
                inputs=open_inference.tensor_metadata(function.inputs),
                outputs=open_inference.tensor_metadata(function.outputs),
            )

    async def model_infer(self, request: Any, context: Any) -> Any:
        check_model_name(request.model_name)
        signature = open_inference.signature_of(open_inference.parameters_of(request))
        with self._inference.versions.lease(request.model_version or None) as model:
            check_names(
                self._inference.function(model, signature), [t.name for t in request.inputs]
            )
            inputs = open_inference.arrays_of_message(request, self._inference.limits.batch_rows)
            answer = await self._inference.call(model, signature, inputs)
        response = MESSAGES["ModelInferResponse"]()
        open_inference.fill_response(response, answer, request)
        return response

    async def check_health(self, request: Any, context: Any) -> Any:
        known = ("", _PREDICTION_SERVICE, _MODEL_SERVICE, INFERENCE_SERVICE)
        if request.service not in known:
            return MESSAGES["HealthCheckResponse"](status=SERVICE_UNKNOWN)
        status = SERVING if self._inference.is_ready else NOT_SERVING
        return MESSAGES["HealthCheckResponse"](status=status)


def _guarded(
    method: str,
    request_type: Any,
    handler: Handler,
    role: Role | None,
    is_guarded: bool,
    inference: Inference,
    settings: Settings,
    receiving: asyncio.Semaphore,
) -> Handler:
    """A handler of bytes with what every call passes: tokens, limits, metrics and the log."""
    seconds = metrics.SECONDS.labels("grpc", method)
    codes: dict[str, Any] = {}

    async def received(context: Any) -> Any:
        try:
            with anyio.fail_after(settings.limits.timeout_seconds):
                async with receiving:
                    content = await context.read()
        except TimeoutError:
            raise DeadlineExceeded(
                f"the message did not arrive within {settings.limits.timeout_seconds:g} s"
            ) from None
        if content is grpc.aio.EOF:
            raise BadInput("there is no message")
        try:
            return request_type.FromString(content)
        except DecodeError:
            raise BadInput(f"these bytes are no {request_type.DESCRIPTOR.name}") from None

    async def call(_: Any, context: Any) -> Any:
        started = time.perf_counter()
        metadata = dict(context.invocation_metadata() or ())
        identifier = request_id(_text(metadata.get(REQUEST_ID)))
        context.set_trailing_metadata(((REQUEST_ID, identifier),))
        code, problem = "CANCELLED", ""
        try:
            if is_guarded:
                settings.tokens.check(_text(metadata.get("authorization")), role)
                request = await received(context)
                with inference.admission():
                    response = await handler(request, context)
            else:
                response = await handler(await received(context), context)
            code = "OK"
            return response
        except Exception as error:
            _, code, problem = refusal(error)
            if code == "INTERNAL":
                log(logging.ERROR, "request failed", exc_info=error, request_id=identifier)
            await context.abort(getattr(grpc.StatusCode, code), _one_line(problem))
        finally:
            taken = time.perf_counter() - started
            seconds.observe(taken)
            if code not in codes:
                codes[code] = metrics.REQUESTS.labels("grpc", method, code)
            codes[code].inc()
            if is_guarded:
                log(
                    logging.INFO,
                    "request",
                    request_id=identifier,
                    protocol="grpc",
                    method=method,
                    status=code,
                    ms=round(taken * 1000, 3),
                    client=context.peer(),
                    **({"error": problem} if problem else {}),
                )

    return call


def _version(spec: Any) -> str | None:
    """The version that a ModelSpec names.

    Raises:
      NotFound: it names a label, which our versions have not.
    """
    if spec.HasField("version"):
        return str(spec.version.value)
    if spec.version_label:
        raise NotFound("version_label: versions have no labels here; name a version, or none")
    return None


def _text(value: Any) -> str | None:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _one_line(message: str) -> str:
    return re.sub(r"\s+", " ", message)

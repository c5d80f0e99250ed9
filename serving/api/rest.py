"""The HTTP server: TensorFlow Serving's and the Open Inference Protocol's REST, health, metrics."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from importlib.metadata import version as package_version
from inspect import signature
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from fraud.errors import BadInput, FraudPipelineError
from fraud.serving import metrics
from fraud.serving.api import documents, open_inference, tensorflow_serving
from fraud.serving.api.guard import Guard
from fraud.serving.api.values import parse_json
from fraud.serving.errors import NotFound, refusal, retry_headers
from fraud.serving.inference import Inference, check_model_name
from fraud.serving.settings import MODEL, Tokens

VERSION_HEADER = "x-model-version"

ModelName = Annotated[str, Path(description="The name of the model.", examples=[MODEL])]

_VERSION = re.compile("[0-9]{1,19}")


def create_app(
    inference: Inference,
    tokens: Tokens,
    routers: Sequence[APIRouter] = (),
    gauges: pathlib.Path | None = None,
) -> Any:
    """The HTTP server as an ASGI application.

    Args:
      inference: answers requests.
      tokens: who may send what.
      routers: further routes. What they raise of `fraud.errors` and `fraud.serving.errors` becomes
        an answer; every POST has a deadline, a limit on its size and a place among the concurrent
        requests already; see `fraud.serving.api.guard`.
      gauges: see `fraud.serving.settings.Settings`.
    """
    app = FastAPI(
        title="fraud-pipeline serve",
        version=package_version("fraud-pipeline"),
        description="Scores transactions with the live model.",
        docs_url=None,  # its page loads scripts from another host
        redoc_url=None,
        responses=documents.REFUSALS,
    )
    app.include_router(_tensorflow_serving(inference))
    app.include_router(_open_inference(inference))
    app.include_router(_operations(inference, gauges))
    for router in routers:
        app.include_router(router)
    for kind in (FraudPipelineError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _refuse)
    return Guard(_Direct(app, routers), inference, tokens)


class _Direct:
    """ASGI middleware: calls the functions of fixed paths without FastAPI, which takes longer.

    It still describes them. What they raise is answered by what calls this, the Guard.
    """

    def __init__(self, app: FastAPI, routers: Sequence[APIRouter]) -> None:
        self._app = app
        self._routes = {
            (method, route.path): route
            for router in routers
            for route in router.routes
            if isinstance(route, APIRoute)
            and [*signature(route.endpoint).parameters] == ["request"]
            for method in route.methods or ()
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        route = scope["type"] == "http" and self._routes.get((scope["method"], scope["path"]))
        if not route:
            await self._app(scope, receive, send)
            return
        scope["route"] = route  # as FastAPI does, for the metrics
        response = await route.endpoint(Request(scope, receive))
        await response(scope, receive, send)


def json_response(document: Any, headers: dict[str, str] | None = None) -> Response:
    """A response with a JSON document."""
    return Response(orjson.dumps(document), media_type="application/json", headers=headers)


def _tensorflow_serving(inference: Inference) -> APIRouter:
    router = APIRouter(tags=["TensorFlow Serving"])
    most_rows = inference.limits.batch_rows

    @router.get("/v1/models/{name}", responses=documents.STATUS)
    @router.get(
        "/v1/models/{name}/versions/{version}",
        responses=documents.STATUS,
        openapi_extra=documents.VERSION,
    )
    async def get_status(request: Request, name: ModelName) -> Response:
        """How the versions of the model are doing."""
        version = _checked(request, name)
        statuses = [s for s in inference.versions.statuses if version in (None, s.version)]
        if version and not statuses:
            raise NotFound(f"there is no version {version}")
        return json_response(tensorflow_serving.status_document(statuses))

    @router.get("/v1/models/{name}/metadata", responses=documents.METADATA)
    @router.get(
        "/v1/models/{name}/versions/{version}/metadata",
        responses=documents.METADATA,
        openapi_extra=documents.VERSION,
    )
    async def get_metadata(request: Request, name: ModelName) -> Response:
        """The signatures of the model: names, types and shapes of inputs and outputs."""
        version = _checked(request, name)
        with inference.versions.lease(version) as model:
            return json_response(
                tensorflow_serving.metadata_document(model.version, model.signatures)
            )

    @router.post("/v1/models/{name}:predict", **documents.PREDICT)
    @router.post(
        "/v1/models/{name}/versions/{version}:predict", **documents.of_version(documents.PREDICT)
    )
    async def predict(request: Request, name: ModelName) -> Response:
        """Calls a signature, with one object per transaction or one list per column."""
        version = _checked(request, name)
        document = parse_json(await request.body())
        signature = tensorflow_serving.signature_of(document)
        with inference.versions.lease(version) as model:
            function = inference.function(model, signature)
            inputs = tensorflow_serving.inputs_of(document, function, most_rows)
            answer = await inference.call(model, signature, inputs)
        body = tensorflow_serving.answer_of(answer, "instances" in document)
        return json_response(body, {VERSION_HEADER: answer.version})

    return router


def _open_inference(inference: Inference) -> APIRouter:
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    most_rows = inference.limits.batch_rows

    @router.get("/health/live", responses=documents.LIVE)
    async def get_live() -> Response:
        """Whether the process answers at all."""
        return json_response({"live": True})

    @router.get("/health/ready", responses=documents.READY)
    async def get_ready() -> Response:
        """Whether a version is loaded and requests are taken."""
        return _readiness(inference)

    @router.get("", responses=documents.SERVER)
    async def get_server() -> Response:
        """The name and version of the server."""
        document = {
            "name": "fraud-pipeline",
            "version": package_version("fraud-pipeline"),
            "extensions": open_inference.EXTENSIONS,
        }
        return json_response(document)

    @router.get("/models/{name}/ready", responses=documents.READY)
    @router.get(
        "/models/{name}/versions/{version}/ready",
        responses=documents.READY,
        openapi_extra=documents.VERSION,
    )
    async def get_model_ready(request: Request, name: ModelName) -> Response:
        """Whether the model, or this version of it, answers."""
        version = _checked(request, name)
        if version not in (None, inference.versions.live):
            raise NotFound(f"version {version} is not loaded")
        return _readiness(inference)

    @router.get("/models/{name}", responses=documents.MODEL)
    @router.get(
        "/models/{name}/versions/{version}",
        responses=documents.MODEL,
        openapi_extra=documents.VERSION,
    )
    async def get_model(request: Request, name: ModelName) -> Response:
        """Inputs and outputs of the signature `predict`."""
        version = _checked(request, name)
        with inference.versions.lease(version) as model:
            function = inference.function(model, open_inference.DEFAULT_SIGNATURE)
            document = {
                "name": MODEL,
                "versions": [model.version],
                "platform": open_inference.PLATFORM,
                "inputs": open_inference.tensor_metadata(function.inputs),
                "outputs": open_inference.tensor_metadata(function.outputs),
            }
        return json_response(document)

    @router.post("/models/{name}/infer", **documents.INFER)
    @router.post("/models/{name}/versions/{version}/infer", **documents.of_version(documents.INFER))
    async def infer(request: Request, name: ModelName) -> Response:
        """Scores transactions whose features are known."""
        version = _checked(request, name)
        document, binary = open_inference.read_http(
            await request.body(), request.headers.get(open_inference.HEADER_LENGTH)
        )
        signature = open_inference.signature_of(document.get("parameters", {}))
        with inference.versions.lease(version) as model:
            function = inference.function(model, signature)
            inputs = open_inference.arrays_of_http(document, binary, function, most_rows)
            answer = await inference.call(model, signature, inputs)
        body, json_length = open_inference.http_answer(answer, document)
        headers = {VERSION_HEADER: answer.version}
        if json_length is None:
            return Response(body, media_type="application/json", headers=headers)
        headers[open_inference.HEADER_LENGTH] = str(json_length)
        return Response(body, media_type="application/octet-stream", headers=headers)

    return router


def _operations(inference: Inference, gauges: pathlib.Path | None) -> APIRouter:
    router = APIRouter(tags=["Operation"])

    @router.get("/healthz", responses=documents.LIVE)
    async def get_healthz() -> Response:
        """Liveness: restart the server if this fails."""
        return json_response({"live": True})

    @router.get("/readyz", responses=documents.READY)
    async def get_readyz() -> Response:
        """Readiness: send requests only while this is 200."""
        return _readiness(inference)

    @router.get("/metrics", responses=documents.METRICS)
    async def get_metrics() -> Response:
        """Metrics for Prometheus."""
        text = metrics.exposition(gauges)
        return Response(text, headers={"content-type": metrics.CONTENT_TYPE})

    return router


def _checked(request: Request, name: str) -> str | None:
    """The version in the path of a request, if there is one, once the model's name is checked."""
    check_model_name(name)
    version = request.path_params.get("version")
    if version is not None and not _VERSION.fullmatch(version):
        raise BadInput(f"version: {version[:100]!r} is no number of at most 19 digits")
    return version


def _readiness(inference: Inference) -> Response:
    response = json_response({"ready": inference.is_ready, "version": inference.versions.live})
    response.status_code = 200 if inference.is_ready else 503
    return response


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        status, message = error.status_code, str(error.detail)
        headers = dict(error.headers or {})
    elif isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        status, message, headers = 400, f"{where}: {first['msg']}", {}
    else:
        status, _, message = refusal(error)
        headers = retry_headers(status)
    request.scope["problem"] = {"error": message if status < 500 else str(error)}
    response = json_response({"error": message}, headers)
    response.status_code = status
    return response

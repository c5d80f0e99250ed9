"""Whatever is sent, the server answers it, and not with a fault of its own."""

from __future__ import annotations

from contextlib import suppress

import grpc
import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.specs.openapi.checks import positive_data_acceptance
from tensorflow_serving.apis import predict_pb2
from tritonclient.grpc import service_pb2

from fraud.serving.api import rest
from fraud.serving.inference import Inference
from fraud.serving.settings import Limits, Tokens
from fraud.serving.versions import Versions, Watch
from tests.serving.conftest import push

INFER = "/inference.GRPCInferenceService/ModelInfer"
PREDICT = "/tensorflow.serving.PredictionService/Predict"
METHODS = [
    PREDICT,
    INFER,
    "/tensorflow.serving.PredictionService/GetModelMetadata",
    "/tensorflow.serving.ModelService/GetModelStatus",
    "/inference.GRPCInferenceService/ServerReady",
    "/inference.GRPCInferenceService/ModelReady",
    "/inference.GRPCInferenceService/ModelMetadata",
    "/grpc.health.v1.Health/Check",
]
REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
FUZZ = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as opened:
        yield opened


def send(channel, server, method, content):
    """The code of the answer. A fault would be in the server's log."""
    try:
        channel.unary_unary(method)(content, timeout=30)
        return grpc.StatusCode.OK
    except grpc.RpcError as error:
        assert error.code() in REFUSALS, (error.code(), error.details())
        return error.code()


@FUZZ
@given(st.sampled_from(METHODS), st.binary(max_size=200))
def test_random_bytes(channel, server, method, content):
    send(channel, server, method, content)


names = st.sampled_from(["TX_AMOUNT", "CHANNEL", "examples", "", "other", "\0", "x" * 5000])
sizes = st.sampled_from([-1, 0, 1, 2, 3, 1 << 31, (1 << 63) - 1])


@st.composite
def predict_requests(draw):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = draw(st.sampled_from(["fraud", "fraud", "fraud", "", "x"]))
    request.model_spec.signature_name = draw(st.sampled_from(["predict", "", "explain", "x"]))
    if draw(st.booleans()):
        request.model_spec.version.value = draw(st.sampled_from([7, 8, -1]))
    for name in draw(st.lists(names, max_size=3)):
        tensor = request.inputs[name]
        tensor.dtype = draw(st.integers(0, 30))
        tensor.tensor_shape.unknown_rank = draw(st.booleans()) and draw(st.booleans())
        for size in draw(st.lists(sizes, max_size=3)):
            tensor.tensor_shape.dim.add(size=size)
        tensor.float_val.extend(draw(st.lists(st.floats(width=32), max_size=3)))
        tensor.string_val.extend(draw(st.lists(st.binary(max_size=20), max_size=3)))
        tensor.int_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3)))
        if draw(st.booleans()):
            tensor.tensor_content = draw(st.binary(max_size=16))
    request.output_filter.extend(draw(st.lists(st.sampled_from(["score", "x", ""]), max_size=2)))
    return request


@st.composite
def infer_requests(draw):
    request = service_pb2.ModelInferRequest(model_name="fraud")
    request.model_version = draw(st.sampled_from(["", "7", "8", "x"]))
    types = st.sampled_from(["FP32", "BYTES", "FP64", "INT8", "BOOL", "FP16", "UINT64", "", "x"])
    count = draw(st.integers(0, 3))
    for _ in range(count):
        tensor = request.inputs.add(name=draw(names), datatype=draw(types))
        tensor.shape.extend(draw(st.lists(sizes, max_size=3)))
        contents = tensor.contents
        contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=2)))
        contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=9), max_size=2)))
        contents.int_contents.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2)))
    if draw(st.booleans()):
        raw = st.one_of(st.binary(max_size=12), st.just(np.float32(7).tobytes()))
        request.raw_input_contents.extend(draw(st.lists(raw, min_size=count, max_size=count)))
    for name in draw(st.lists(st.sampled_from(["score", "x"]), max_size=2)):
        request.outputs.add(name=name)
    if draw(st.booleans()):
        request.parameters["signature_name"].string_param = draw(st.sampled_from(["explain", "x"]))
    if draw(st.booleans()):
        request.parameters["signature_name"].int64_param = 7
    return request


@FUZZ
@given(predict_requests())
def test_odd_requests_of_tensorflow_serving(channel, server, request_):
    send(channel, server, PREDICT, request_.SerializeToString())


@FUZZ
@given(infer_requests())
def test_odd_requests_of_open_inference(channel, server, request_):
    send(channel, server, INFER, request_.SerializeToString())


@FUZZ
@given(predict_requests(), st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte(channel, server, request_, place, value):
    content = bytearray(request_.SerializeToString())
    if content:
        content[place % len(content)] = value
    send(channel, server, PREDICT, bytes(content))


def test_the_server_is_well_after_all_that(channel, server):
    """Runs last in this module."""
    assert server.lines("request failed") == []
    assert httpx.get(f"{server.url}/readyz").status_code == 200


# HTTP, from the server's own OpenAPI document


@pytest.mark.parametrize(
    "examples", [4, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.e2e])]
)
def test_http_as_the_openapi_document_describes_it(saved_models, tmp_path, examples):
    """No 500, only documented statuses and bodies: schemathesis's own checks."""
    versions = Versions()
    push(saved_models.plain[0], tmp_path / "pushed", 7)
    Watch(tmp_path / "pushed", versions).look()
    app = rest.create_app(Inference(versions, Limits()), Tokens())
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    checked = set()
    for operation in schema.get_all_operations():
        for mode in schemathesis.GenerationMode:

            @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
            @given(operation.ok().as_strategy(generation_mode=mode))
            def check(case):
                # Which inputs the live model has, the document does not say.
                is_call = case.operation.path.endswith((":predict", "/infer"))
                case.call_and_validate(excluded_checks=[positive_data_acceptance] * is_call)

            with suppress(Unsatisfiable):  # where nothing can be sent, nothing can be wrong
                check()
                checked.add((operation.ok().path, mode))
    assert {path for path, _ in checked} >= {"/v1/models/{name}:predict", "/metrics"}
    for path in ("/v1/models/{name}:predict", "/v2/models/{name}/infer"):
        assert {(path, mode) for mode in schemathesis.GenerationMode} <= checked
    versions.replace(None)

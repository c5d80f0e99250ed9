"""Whatever is sent, the server answers it, and not with a fault of its own."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import datetime

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

from fraud.codec import to_json
from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.models.columns import ModelColumns
from fraud.models.specification import EXTRA, SPECIFICATION_FILE, InputSpecification
from fraud.serving.api import rest
from fraud.serving.inference import Inference
from fraud.serving.service import ScoringService
from fraud.serving.settings import Limits, Tokens
from fraud.serving.spec import Serving
from fraud.serving.versions import Versions, Watch
from tests.serving.conftest import export, push

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
    checked = check_as_described(app, examples)
    assert {path for path, _ in checked} >= {"/v1/models/{name}:predict", "/metrics"}
    for path in ("/v1/models/{name}:predict", "/v2/models/{name}/infer"):
        assert {(path, mode) for mode in schemathesis.GenerationMode} <= checked
    versions.replace(None)


def check_as_described(app, examples, only=""):
    """Sends what the document describes, and what it does not; the (path, mode) that were sent."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    checked = set()
    for operation in schema.get_all_operations():
        if only not in operation.ok().path:
            continue
        for mode in schemathesis.GenerationMode:

            @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
            @given(operation.ok().as_strategy(generation_mode=mode))
            def check(case):
                # Which inputs the live model has, or columns the data, the document does not say.
                is_call = case.operation.path.endswith((":predict", "/infer", ":score", "/labels"))
                case.call_and_validate(excluded_checks=[positive_data_acceptance] * is_call)

            with suppress(Unsatisfiable):  # where nothing can be sent, nothing can be wrong
                check()
                checked.add((operation.ok().path, mode))
    return checked


# Raw transactions and labels


@pytest.fixture(scope="module")
def scoring_app(tmp_path_factory):
    """The server's application with the routes of raw transactions, and a state."""
    root = tmp_path_factory.mktemp("scoring")
    features = Features(calendar=("hour",), groups=(FeatureGroup(("count", "risk"), (1,)),))
    inputs = InputSpecification(Dataset(categorical=("CHANNEL",)), features, 7)
    columns = ModelColumns.of(inputs.dataset, inputs.features)
    folder = export(root / "exported", 0.6, columns.numeric, columns.categorical)
    (folder / EXTRA / SPECIFICATION_FILE).write_text(to_json(inputs))
    push(folder, root / "pushed", 7)
    versions = Versions()
    inference = Inference(versions, Limits())
    loop = asyncio.new_event_loop()
    context = ScoringService(str(root / "state"), root / "predictions", Serving())(inference)
    service = loop.run_until_complete(context.__aenter__())
    Watch(root / "pushed", versions, service.check).look()
    assert versions.live == "7"
    yield rest.create_app(inference, Tokens(), service.routers)
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    versions.replace(None)


@pytest.mark.parametrize(
    "examples", [10, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.e2e])]
)
def test_raw_transactions_and_labels_as_the_openapi_document_describes_them(scoring_app, examples):
    checked = check_as_described(scoring_app, examples, "/v1/transactions:score")
    checked |= check_as_described(scoring_app, examples, "/v1/labels")
    both = "/v1/transactions:score", "/v1/labels"
    assert checked == {(path, mode) for path in both for mode in schemathesis.GenerationMode}


odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["2026-03-01T12:00:00Z", "9999-12-31T23:59:59Z", "", "NaN", 10**400, [], {}]),
)
usual = {
    "TRANSACTION_ID": st.integers(0, 9),
    "TX_DATETIME": st.datetimes(datetime(2026, 3, 1), datetime(2026, 3, 3)).map(str),
    "CUSTOMER_ID": st.integers(0, 2),
    "TERMINAL_ID": st.sampled_from(["1", "2"]),
    "TX_AMOUNT": st.floats(0, 1000),
    "CHANNEL": st.sampled_from(["web", None]),
}


@st.composite
def nearly_good(draw, fields):
    row = {name: draw(values) for name, values in fields.items()}
    for name in draw(st.lists(st.sampled_from([*fields, "other"]), max_size=2)):
        row[name] = draw(odd)
    return row


labels = {"id": st.integers(0, 9), "label": st.integers(0, 1)}
ROUTES = [
    ("/v1/transactions:score", "transactions", usual),
    ("/v1/labels", "labels", {**labels, "known_at": st.none()}),
]


@pytest.mark.parametrize(("path", "field", "fields"), ROUTES)
def test_nearly_good_rows_are_answered_or_refused(scoring_app, path, field, fields):
    statuses = set()

    @FUZZ
    @given(st.lists(nearly_good(fields), max_size=4), st.booleans())
    def check(rows, explain):
        document = {field: rows, **({"explain": explain} if field == "transactions" else {})}
        content = json.dumps(document).encode()

        async def send():
            transport = httpx.ASGITransport(scoring_app)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return await client.post(path, content=content)

        answer = asyncio.run(send())
        statuses.add(answer.status_code)
        assert answer.status_code in (200, 400), answer.text
        if answer.status_code == 200 and field == "transactions":
            assert len(answer.json()["results"]) == len(rows)

    check()
    assert statuses == {200, 400}

"""What is refused: by which status, and naming what is wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from contextlib import suppress
from dataclasses import replace
from datetime import date
from types import SimpleNamespace

import anyio
import grpc
import httpx
import numpy as np
import psutil
import pytest
import tensorflow as tf
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tritonclient.grpc import service_pb2

from fraud.errors import BadInput, FraudPipelineError
from fraud.monitoring.checks import Check, Observation, Verdict
from fraud.monitoring.prometheus import exposition
from fraud.pipeline.commands.production_steps import ProductionSteps
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root
from fraud.serving import server as server_module
from fraud.serving.api import rest, rpc
from fraud.serving.errors import Forbidden, Unauthenticated
from fraud.serving.inference import Inference
from fraud.serving.logs import _JsonLines
from fraud.serving.settings import Limits, Settings, Tokens
from fraud.serving.versions import Versions, Watch
from tests.certificates import authority, signed
from tests.serving.conftest import Server, push

PREDICT = "/v1/models/fraud:predict"
INFER = "/v2/models/fraud/infer"
ROW = {"TX_AMOUNT": 50, "CHANNEL": "web"}


def rows(*given):
    return {"signature_name": "predict", "instances": list(given)}


def tensor(**changes):
    amount = {"name": "TX_AMOUNT", "shape": [1], "datatype": "FP32", "data": [1], **changes}
    channel = {"name": "CHANNEL", "shape": [1], "datatype": "BYTES", "data": ["web"]}
    return {"inputs": [amount, channel]}


@pytest.mark.parametrize(
    ("path", "body", "status", "names"),
    [
        (PREDICT, b"", 400, "the body is not JSON"),
        (PREDICT, b"{" * 5000, 400, "the body is not JSON"),
        (PREDICT, [1], 400, "not a JSON object"),
        (PREDICT, {}, 400, "instances"),
        (PREDICT, rows(), 400, "instances"),
        (PREDICT, {**rows(ROW), "inputs": {}}, 400, "instances"),
        (PREDICT, {**rows(ROW), "rows": 1}, 400, "rows: unknown key"),
        (PREDICT, {**rows(ROW), "signature_name": 1}, 400, "signature_name"),
        (PREDICT, {**rows(ROW), "signature_name": "x"}, 404, "no signature 'x'"),
        (PREDICT, rows({"CHANNEL": "web"}), 400, "instances[0].TX_AMOUNT: missing"),
        (PREDICT, rows(ROW, {**ROW, "AGE": 1}), 400, "instances[1].AGE"),
        (PREDICT, rows(ROW, 7), 400, "instances[1]"),
        (PREDICT, rows({**ROW, "TX_AMOUNT": "7"}), 400, "TX_AMOUNT[0]: expected a number"),
        (PREDICT, rows({**ROW, "TX_AMOUNT": True}), 400, "TX_AMOUNT[0]"),
        (PREDICT, rows({**ROW, "TX_AMOUNT": [7]}), 400, "TX_AMOUNT[0]"),
        (PREDICT, rows({**ROW, "TX_AMOUNT": 1e39}), 400, "TX_AMOUNT[0]: 1e+39 is out of range"),
        (PREDICT, rows({**ROW, "TX_AMOUNT": 10**400}), 400, "TX_AMOUNT"),
        (PREDICT, b'{"instances": [{"TX_AMOUNT": NaN}]}', 400, "instances[0].TX_AMOUNT: NaN"),
        (PREDICT, b'{"instances": [{"A": -Infinity}]}', 400, "instances[0].A: -Infinity"),
        (PREDICT, b'{"\\ud800": NaN}', 400, "\\ud800: NaN is not JSON"),
        (INFER, b'{"x": {"\\udfff": Infinity}}', 400, "x.\\udfff: Infinity is not JSON"),
        (PREDICT, b'{"instances": [' + b"1," * 600_000 + b"NaN]}", 400, "the body is not JSON"),
        (PREDICT, rows(*["x"] * 10_001), 413, "10001 transactions; send at most 10000"),
        (
            PREDICT,
            {"signature_name": "explain", "inputs": [""] * 1001},
            413,
            "explain at most 1000 at once",
        ),
        (PREDICT, {"inputs": ["x"] * 10_001}, 413, "10001 transactions; send at most 10000"),
        (INFER, tensor(data=["x"] * 10_001), 413, "10001 transactions; send at most 10000"),
        (INFER, tensor(datatype="BYTES", name="AGE", data=[1]), 400, "AGE: no input"),
        (PREDICT, rows({**ROW, "CHANNEL": 7}), 400, "CHANNEL[0]: expected text"),
        (PREDICT, rows({**ROW, "CHANNEL": {"b64": "?"}}), 400, "CHANNEL[0]: not in base64"),
        (PREDICT, b'{"inputs": ["\\ud800"]}', 400, ""),
        (PREDICT, {"instances": [{"b64": "AAAA"}]}, 400, "Could not parse example"),
        (PREDICT, {"inputs": {"examples": "x"}}, 400, "examples: expected a list"),
        ("/v1/models/fraud/versions/8:predict", rows(ROW), 404, "version 8 is not loaded"),
        ("/v1/models/fraud/versions/x:predict", rows(ROW), 400, "version"),
        ("/v1/models/other:predict", rows(ROW), 404, "no model 'other'"),
        (INFER, {}, 400, "CHANNEL, TX_AMOUNT: missing"),
        (INFER, {"inputs": 1}, 400, "inputs: expected a list"),
        (INFER, {"inputs": [1]}, 400, "inputs[0]"),
        (INFER, tensor(name=3), 400, "inputs[0].name"),
        (INFER, tensor(name="AGE"), 400, "AGE: no input"),
        (INFER, tensor(datatype="FLOAT"), 400, "TX_AMOUNT.datatype"),
        (INFER, tensor(datatype="FP64"), 400, "TX_AMOUNT: expected float32, got float64"),
        (INFER, tensor(datatype=["FP32"]), 400, "TX_AMOUNT.datatype"),
        (INFER, tensor(shape=[2]), 400, "TX_AMOUNT"),
        (INFER, tensor(shape=[-1]), 400, "TX_AMOUNT.shape"),
        (INFER, tensor(shape=[1, 1, 1]), 400, "TX_AMOUNT.shape"),
        (INFER, tensor(shape=[2], data=[1, 2]), 400, "2 values, but"),
        (INFER, tensor(data=["x"]), 400, "TX_AMOUNT[0]"),
        (INFER, tensor(data=None), 400, "TX_AMOUNT.data"),
        (INFER, tensor(parameters={"binary_data_size": 4}), 400, "binary_data_size"),
        (INFER, tensor(parameters=[]), 400, "inputs[0].parameters"),
        (INFER, {**tensor(), "outputs": [{"name": "reason"}]}, 400, "no output 'reason'"),
        (INFER, {**tensor(), "id": 7}, 400, "id: expected text"),
        ("/v1/nothing", {}, 404, "Not Found"),
        ("/healthz", {}, 405, "Method Not Allowed"),
    ],
)
def test_http(server, path, body, status, names):
    content = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = httpx.post(f"{server.url}{path}", timeout=30, **content)
    assert answer.status_code == status, answer.text
    assert names in answer.json()["error"]
    assert answer.headers["x-request-id"]


def infer_request(**changes):
    request = service_pb2.ModelInferRequest(model_name="fraud", **changes)
    amount = request.inputs.add(name="TX_AMOUNT", shape=[1], datatype="FP32")
    channel = request.inputs.add(name="CHANNEL", shape=[1], datatype="BYTES")
    return request, amount, channel


def raw_amount(content):
    request, _, _ = infer_request()
    request.raw_input_contents.extend([content, b"\3\0\0\0web"])
    return request


def raw_channel(content):
    request, _, _ = infer_request()
    request.raw_input_contents.extend([np.float32(1).tobytes(), content])
    return request


def predict_request(**inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "fraud", "predict"
    for name, array in {"TX_AMOUNT": np.float32([1]), "CHANNEL": ["web"], **inputs}.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return request


def shaped(*sizes):
    request = predict_request()
    amount = request.inputs["TX_AMOUNT"]
    del amount.tensor_shape.dim[:]
    for size in sizes:
        amount.tensor_shape.dim.add(size=size)
    return request


BAD_ARGUMENT, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("request_", "code", "names"),
    [
        (predict_request(TX_AMOUNT=np.float64([1])), BAD_ARGUMENT, "TX_AMOUNT: expected float32"),
        (predict_request(TX_AMOUNT=np.float32([np.inf])), BAD_ARGUMENT, "TX_AMOUNT: infinite"),
        (predict_request(TX_AMOUNT=np.float32([[1, 2]])), BAD_ARGUMENT, "TX_AMOUNT: expected the"),
        (predict_request(AGE=np.float32([1])), BAD_ARGUMENT, "AGE: no input"),
        (predict_request(CHANNEL=["a", "b"]), BAD_ARGUMENT, "but CHANNEL has 2"),
        (predict_request(CHANNEL=np.complex64([1])), BAD_ARGUMENT, "CHANNEL: tensors of type"),
        (shaped(1 << 62, 1 << 62), BAD_ARGUMENT, "TX_AMOUNT: the shape"),
        (shaped(-1), BAD_ARGUMENT, "TX_AMOUNT: the shape [-1] has a negative size"),
        (shaped(1 << 30), BAD_ARGUMENT, "TX_AMOUNT: the shape"),
        (shaped(10_001), BAD_ARGUMENT, "is too large; send at most 10000 values"),
        (raw_channel(b"\0\0\0\0" * 10_001), BAD_ARGUMENT, "10001 transactions; send at most"),
        (raw_amount(b"\0\0"), BAD_ARGUMENT, "TX_AMOUNT: 2 bytes"),
        (raw_channel(b"\xff\xff\xff\xffx"), BAD_ARGUMENT, "CHANNEL: the text 0 is cut short"),
        (raw_channel(b"\0"), BAD_ARGUMENT, "CHANNEL: the text 0 is cut short"),
        (infer_request(model_version="8")[0], NOT_FOUND, "version 8 is not loaded"),
        (infer_request()[0], BAD_ARGUMENT, "TX_AMOUNT: 0 values"),
    ],
)
def test_grpc(server, request_, code, names):
    with grpc.insecure_channel(server.grpc) as channel:
        if isinstance(request_, predict_pb2.PredictRequest):
            call = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        else:
            call = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                type(request_).SerializeToString,
            )
        with pytest.raises(grpc.RpcError) as refused:
            call(request_, timeout=30)
    assert refused.value.code() == code, refused.value.details()
    assert names in refused.value.details()


# Limits, in a process that is easier to slow down


@pytest.fixture
def inference(saved_models, tmp_path):
    versions = Versions()
    push(saved_models.plain[0], tmp_path / "pushed", 7)
    Watch(tmp_path / "pushed", versions).look()
    limits = Limits(body_bytes=2000, batch_rows=3, concurrent_requests=2, timeout_seconds=0.5)
    yield Inference(versions, limits)
    versions.replace(None)


def client_of(inference, tokens=Tokens(), routers=(), gauges=None):  # noqa: B008
    app = rest.create_app(inference, tokens, routers, gauges)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://here")


def test_names_are_checked_before_values_which_may_be_many(server):
    """One value may stand for 16 million, in each of any number of tensors."""
    request = predict_request()
    for number in range(1000):
        tensor = request.inputs[f"x{number}"]
        tensor.CopyFrom(shaped(1 << 24).inputs["TX_AMOUNT"])
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with grpc.insecure_channel(server.grpc) as channel:
        call = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        with pytest.raises(grpc.RpcError, match="no input of this signature"):
            call(request, timeout=30)
    assert process.memory_info().rss - before < 50 << 20


def test_paths_that_there_are_not_make_no_metrics(server):
    for path in ("/readyzz", "/healthz/x", "/v2/health/other"):
        assert httpx.get(f"{server.url}{path}").status_code == 404
    text = httpx.get(f"{server.url}/metrics").text
    assert 'method="other"' in text
    assert not any(path in text for path in ("readyzz", "healthz/x", "health/other"))


def test_metrics_have_what_the_monitor_saw_last(inference, tmp_path):
    path = tmp_path / "monitor.prom"

    async def scraped():
        async with client_of(inference, gauges=path) as client:
            return (await client.get("/metrics")).text

    assert "fraud_requests_in_progress" in asyncio.run(scraped())  # also while there is none
    checks = tuple(Check("rows", value, None, None, Verdict.OK) for value in (7.0, 8.0))
    for check in checks:
        path.write_text(exposition(Observation(date(2026, 3, 1), 7, (check,))))
        families = list(text_string_to_metric_families(asyncio.run(scraped())))
        values = {family.name: [s.value for s in family.samples] for family in families}
        assert values["fraud_check_value"] == [check.value]
        assert len(values) == len(families)  # no name is of both


@pytest.mark.parametrize("head", [b"POST /v1/labels HTTP/1.1\r\na: ", b"GET /"])
def test_a_request_that_does_not_come_to_its_body_is_431(server, head):
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head)
        with suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(b"x" * 100_000)
        answer = b""
        with suppress(ConnectionError):
            answer = connection.recv(1000)
    assert answer.startswith(b"HTTP/1.1 431 ") or not answer, answer
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_the_head_of_an_answer_is_sent_with_its_body():
    written = []
    transport = server_module._WholeAnswers(SimpleNamespace(write=written.append, close=str))
    for piece in (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"{}", b"more"):
        transport.write(piece)
    transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    transport.close()
    assert written == [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"more",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ]


def test_many_small_requests_on_one_connection_are_no_large_one(server):
    with httpx.Client() as client:
        for _ in range(100):
            headers = {"x-padding": "x" * 2000}
            assert client.get(f"{server.url}/healthz", headers=headers).status_code == 200


HEAD = b"POST /x HTTP/1.1\r\nhost: x\r\n"


@pytest.mark.parametrize(
    ("sent", "dripping"),
    [
        (b"", b""),
        (HEAD, b""),
        (HEAD + b"content-length: 100000\r\n\r\n", b"x"),
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 3, b""),
    ],
    ids=["nothing", "half a head", "a body byte by byte", "requests, and no answer is read"],
)
def test_no_connection_waits_for_its_client_for_ever(monkeypatch, tmp_path, sent, dripping):
    monkeypatch.setattr(server_module, "_SECONDS_TO_WAIT", 0.5)

    async def app(scope, receive, send):
        length = 1 << 24
        headers = [(b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(length)})

    async def run():
        made = socket.create_server(("127.0.0.1", 0))
        http = server_module._Http(server_module._http_config(app, Settings(tmp_path)))
        serving = asyncio.create_task(http.serve(sockets=[made]))
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, made.getsockname())
            await loop.sock_sendall(client, sent)
            while not http.server_state.connections:
                await asyncio.sleep(0.01)
            while http.server_state.connections:
                with suppress(ConnectionError):
                    await loop.sock_sendall(client, dripping)
                await asyncio.sleep(0.05)
        http.should_exit = True
        await serving

    asyncio.run(asyncio.wait_for(run(), 300))


def test_who_sends_slowly_takes_no_place(inference):
    async def run():
        arriving = asyncio.Event()

        async def slowly():
            yield b'{"instances": '
            arriving.set()
            await asyncio.sleep(60)

        async with client_of(inference) as client:
            slow = [asyncio.create_task(client.post(PREDICT, content=slowly())) for _ in range(9)]
            await arriving.wait()
            assert (await client.post(PREDICT, json=rows(ROW))).status_code == 200
            for answer in await asyncio.gather(*slow):
                assert answer.status_code == 504

    asyncio.run(run())


@pytest.mark.parametrize(
    ("tokens", "code", "message"),
    [
        (Tokens({b"of-the-bank-only": "score"}), "UNAUTHENTICATED", "send a token"),
        (Tokens(), "DEADLINE_EXCEEDED", "the message did not arrive within 0.5 s"),
    ],
)
def test_nobody_waits_for_a_message_that_does_not_arrive(
    inference, tmp_path, tokens, code, message
):
    """Nor is one received of somebody who may not send it."""

    async def run():
        settings = Settings(tmp_path, limits=inference.limits, tokens=tokens)
        server = rpc.create_server(inference, settings)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")(timeout=60)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
        await server.stop(None)
        assert refused.value.code() == getattr(grpc.StatusCode, code)
        assert message in refused.value.details()
        assert inference._in_progress == 0

    asyncio.run(run())


def test_a_line_of_the_log_is_json_whatever_is_in_it():
    record = logging.LogRecord("x", logging.INFO, "", 0, "request", (), None)
    error = "\ud800 \x9b31m \u202e \x7f \n"
    record.fields = {"error": error, "number": 10**30}
    line = _JsonLines().format(record)
    assert line.isascii() and line.isprintable()
    document = json.loads(line)
    assert (document["error"], document["number"]) == (error, 10**30)


def test_pages_of_other_sites_may_not_send_requests(inference):
    """With the browser of somebody on this machine, where no token is needed."""

    async def run():
        async with client_of(inference) as client:
            for origin, status in (
                ("http://here", 200),
                ("http://elsewhere", 403),
                ("https://here.elsewhere:8501", 403),
                ("null", 403),
            ):
                headers = {"origin": origin, "content-type": "text/plain"}
                answer = await client.post(PREDICT, json=rows(ROW), headers=headers)
                assert answer.status_code == status, (origin, answer.text)
        tokens = Tokens({b"of-the-bank-only": "score"})
        async with client_of(inference, tokens) as client:
            headers = {"origin": "http://elsewhere", "authorization": "Bearer of-the-bank-only"}
            assert (await client.post(PREDICT, json=rows(ROW), headers=headers)).status_code == 200

    asyncio.run(run())


def test_too_much_is_413(inference):
    async def run():
        async with client_of(inference) as client:
            answer = await client.post(PREDICT, json=rows(ROW, ROW, ROW))
            assert answer.status_code == 200
            answer = await client.post(PREDICT, json=rows(ROW, ROW, ROW, ROW))
            assert (answer.status_code, answer.json()["error"]) == (
                413,
                "4 transactions; send at most 3 in a request",
            )
            answer = await client.post(PREDICT, content=b" " * 2001)
            assert answer.status_code == 413
            assert "2001 bytes" in answer.json()["error"]

            async def endless():
                for _ in range(100):
                    yield b" " * 1000

            answer = await client.post(PREDICT, content=endless())
            assert answer.status_code == 413
            assert "2000 bytes" in answer.json()["error"]

    asyncio.run(run())


def test_too_many_at_a_time_are_429_and_too_slow_is_504(inference):
    from fastapi import APIRouter

    router = APIRouter()

    @router.post("/v1/slow:score")
    async def slow():
        await anyio.sleep(60)

    async def run():
        async with client_of(inference, routers=[router]) as client:
            waiting = [asyncio.create_task(client.post("/v1/slow:score")) for _ in range(2)]
            while inference._in_progress < 2:
                await asyncio.sleep(0)
            answer = await client.post(PREDICT, json=rows(ROW))
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "1"
            assert (await client.get("/healthz")).status_code == 200
            for answer in await asyncio.gather(*waiting):
                assert answer.status_code == 504
                assert answer.json()["error"] == "no answer within 0.5 s; try again"
            assert (await client.post(PREDICT, json=rows(ROW))).status_code == 200

    asyncio.run(run())


def test_a_fault_of_the_server_is_logged_and_not_shown(inference, caplog):
    from fastapi import APIRouter

    router = APIRouter()

    @router.post("/v1/broken:score")
    async def broken():
        raise RuntimeError("secret")

    async def run():
        async with client_of(inference, routers=[router]) as client:
            answer = await client.post("/v1/broken:score", headers={"x-request-id": "mine"})
            assert answer.status_code == 500
            assert answer.headers["x-request-id"] == "mine"
            assert "secret" not in answer.text

    asyncio.run(run())
    [line] = [record for record in caplog.records if record.message == "request failed"]
    assert line.fields["request_id"] == "mine"
    assert "secret" in str(line.exc_info[1])


SCORE, LABEL, ADMIN = "score-token-123456", "label-token-123456", "admin-token-123456"
READ = "read-token-1234567"
ENVIRONMENT = {
    "FRAUD_READ_TOKENS": READ,
    "FRAUD_SCORE_TOKENS": f"{SCORE}, another-token-12345",
    "FRAUD_LABEL_TOKENS": LABEL,
    "FRAUD_ADMIN_TOKENS": ADMIN,
}


def test_tokens_open_what_their_role_may_do():
    tokens = Tokens.from_environment(ENVIRONMENT)
    tokens.check(f"Bearer {SCORE}", "score")
    tokens.check("bearer another-token-12345", "score")
    tokens.check(f"Bearer {ADMIN}", "label")
    tokens.check(f"Bearer {LABEL}", None)
    tokens.check(f"Bearer {READ}", None)
    for role in ("score", "label", "admin"):
        with pytest.raises(Forbidden, match=f"of the role read; this request needs {role}"):
            tokens.check(f"Bearer {READ}", role)
    for role, token in (("label", SCORE), ("score", LABEL), ("admin", LABEL)):
        with pytest.raises(Forbidden, match=f"needs {role}"):
            tokens.check(f"Bearer {token}", role)
    for header in (None, "", SCORE, f"Basic {SCORE}", "Bearer ", f"Bearer {SCORE[:-1]}"):
        with pytest.raises(Unauthenticated):
            tokens.check(header, "score")
    Tokens().check(None, "admin")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FRAUD_SCORE_TOKENS": "short"}, "FRAUD_SCORE_TOKENS: a token is shorter than 16"),
        ({**ENVIRONMENT, "FRAUD_ADMIN_TOKENS": LABEL}, "FRAUD_ADMIN_TOKENS: .* of another role"),
    ],
)
def test_bad_tokens_are_refused(environment, message):
    with pytest.raises(BadInput, match=message) as refused:
        Tokens.from_environment(environment)
    assert LABEL not in str(refused.value)


def test_without_tokens_only_this_machine_may_connect(tmp_path):
    with pytest.raises(BadInput, match="FRAUD_SCORE_TOKENS"):
        Settings(tmp_path, host="0.0.0.0")
    Settings(tmp_path, host="0.0.0.0", tokens=Tokens.from_environment(ENVIRONMENT))
    for host in ("127.0.0.1", "::1", "localhost"):
        Settings(tmp_path, host=host)


def test_tokens_and_tls_over_both_protocols(saved_models, tmp_path, monkeypatch):
    """One server with all of it: encryption, and roles over HTTP and gRPC."""
    bank = authority(tmp_path, "bank")
    certificate = signed(bank, "server", "IP:127.0.0.1")
    push(saved_models.plain[0], tmp_path / "pushed", 7)
    options = ("--tls-certificate", str(certificate.path), "--tls-key", str(certificate.key))
    server = Server(tmp_path, *options, scheme="https", **ENVIRONMENT)
    try:
        trusting = {"verify": str(bank.path), "timeout": 30}
        server.wait_for_version(7, **trusting)

        def post(token):
            headers = {"authorization": f"Bearer {token}"} if token else {}
            url = f"{server.url}{PREDICT}"
            return httpx.post(url, json=rows(ROW), headers=headers, **trusting)

        statuses = {token: post(token).status_code for token in (SCORE, ADMIN, LABEL, READ, None)}
        assert statuses == {SCORE: 200, ADMIN: 200, LABEL: 403, READ: 403, None: 401}
        assert post(None).headers["www-authenticate"] == "Bearer"
        assert httpx.get(f"{server.url}/metrics", **trusting).status_code == 401
        prometheus = {"authorization": f"Bearer {READ}"}
        metrics = httpx.get(f"{server.url}/metrics", headers=prometheus, **trusting)
        assert metrics.status_code == 200 and "fraud_live_version" in metrics.text
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/readyz")  # does not trust the bank's authority

        credentials = grpc.ssl_channel_credentials(bank.path.read_bytes())
        with grpc.secure_channel(server.grpc, credentials) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            metadata = (("authorization", f"Bearer {SCORE}"), ("x-request-id", "mine"))
            _, call = stub.Predict.with_call(predict_request(), metadata=metadata, timeout=30)
            assert ("x-request-id", "mine") in call.trailing_metadata()
            with pytest.raises(grpc.RpcError) as refused:
                stub.Predict(predict_request(), timeout=30)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED

        asked = replace(Config(), loop=replace(Config().loop, server=server.url))
        loop = ProductionSteps(asked, Root(tmp_path), "", [], False)  # the loop asks it, too
        with pytest.raises(FraudPipelineError, match="CERTIFICATE_VERIFY_FAILED"):
            loop._problems_of_server("7")
        monkeypatch.setenv("SSL_CERT_FILE", str(bank.path))  # it can be added while `watch` runs
        with pytest.raises(FraudPipelineError, match="asks for a token; set FRAUD_SERVER_TOKEN"):
            loop._problems_of_server("7")
        monkeypatch.setenv("FRAUD_SERVER_TOKEN", LABEL)
        assert loop._problems_of_server("7") == ()
        assert not any(token in server.log.read_text() for token in (SCORE, ADMIN, LABEL, READ))
    finally:
        assert server.stop() == 0

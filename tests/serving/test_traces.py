"""Traces of requests to a real server."""

from __future__ import annotations

import httpx
import pytest

from tests.fraud.test_tracing import PARENT, Collector, attributes
from tests.serving.conftest import Server, push


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_request_is_a_span_of_its_clients_trace(saved_models, tmp_path, workers, free_ports):
    collector = Collector()
    push(saved_models.plain[0], tmp_path / "pushed", 7)
    options = ["--workers", workers]
    if workers == "2":
        options += ["--port", free_ports[0], "--grpc-port", free_ports[1]]
    server = Server(tmp_path, *options, **collector.environment)
    try:
        server.wait_for_version(7)
        answer = httpx.post(
            f"{server.url}/v1/models/fraud:predict",
            json={
                "instances": [{"TX_AMOUNT": 50.0, "CHANNEL": "web"}],
                "signature_name": "predict",
            },
            headers={"traceparent": PARENT},
        )
        assert answer.status_code == 200, answer.text
        httpx.get(f"{server.url}/readyz")
    finally:
        assert server.stop() == 0
    (span,) = collector.spans
    assert (span["traceId"], span["parentSpanId"]) == tuple(PARENT.split("-")[1:3])
    assert span["name"] == "POST /v1/models/fraud:predict"
    found = attributes(span)
    assert 200 in {int(v) for k, v in found.items() if "status_code" in k}
    collector.server.server_close()


@pytest.fixture
def free_ports():
    import socket

    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in (one, other)]

"""Traces, as a collector receives them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fraud import tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """An OTLP/HTTP collector that remembers the spans which it gets.

    Attributes:
      environment: makes a process send them here.
      requests: path and headers of each request.
    """

    def __init__(self):
        self.spans, self.services, self.requests = [], set(), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.requests.append((self.path, self.headers["content-type"]))
                outer.take(json.loads(body))
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{self.server.server_port}"
        self.environment = {tracing.VARIABLE: address, "OTEL_EXPORTER_OTLP_COMPRESSION": "none"}

    def take(self, document):
        for group in document["resourceSpans"]:
            for attribute in group["resource"]["attributes"]:
                if attribute["key"] == "service.name":
                    self.services.add(attribute["value"]["stringValue"])
            for scope in group["scopeSpans"]:
                self.spans += scope["spans"]

    def named(self, name):
        return [span for span in self.spans if span["name"] == name]


@pytest.fixture
def collector():
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


def attributes(span):
    return {a["key"]: next(iter(a["value"].values())) for a in span["attributes"]}


def python(code, **environment):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_without_a_collector_nothing_is_imported_or_wrapped():
    done = python(
        "import sys\nfrom fraud import tracing\napp = object()\n"
        "with tracing.span('x', {}): pass\n"
        "assert tracing.traced(app) is app\ntracing.send()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_a_collector_without_the_extra_is_bad_input(collector):
    code = (
        "import sys\nsys.modules['opentelemetry.exporter.otlp.json.http.trace_exporter'] = None\n"
        "from fraud import errors, tracing\n"
        "try:\n    with tracing.span('x', {}): pass\n"
        "except errors.BadInput as error: print(error)"
    )
    done = python(code, **collector.environment)
    assert done.stdout.startswith(f"{tracing.VARIABLE}: ")
    assert done.stdout.endswith("pip install 'fraud-pipeline[otel]'\n")


def test_spans_are_nested_and_belong_to_the_span_of_the_environment(collector):
    code = (
        "from fraud import tracing\n"
        "with tracing.span('outer', {'fraud.run': 'R'}):\n"
        "    with tracing.span('inner', {}): pass\n"
    )
    done = python(code, **collector.environment, TRACEPARENT=PARENT)
    assert done.returncode == 0, done.stderr
    (outer,), (inner,) = collector.named("outer"), collector.named("inner")
    _, trace, parent, _ = PARENT.split("-")
    assert (outer["traceId"], outer["parentSpanId"]) == (trace, parent)
    assert (inner["traceId"], inner["parentSpanId"]) == (trace, outer["spanId"])
    assert attributes(outer) == {"fraud.run": "R"}
    assert collector.services == {"fraud-pipeline"}
    assert {*collector.requests} == {("/v1/traces", "application/json")}


def test_a_failure_is_in_its_span(collector):
    done = python(
        "from fraud import tracing\nwith tracing.span('x', {}): raise ValueError('no')",
        **collector.environment,
    )
    assert done.returncode == 1
    (span,) = collector.named("x")
    assert span["status"]["code"] == 2  # ERROR
    assert "no" in span["status"]["message"]

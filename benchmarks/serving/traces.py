"""What a traced request costs: `python -m benchmarks.serving.traces`.

Requests to an application that does nothing, with spans and without, are counted by the processor
time of their process, which includes that of sending them. The collector is another process.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fraud import tracing

REQUESTS = 5000
AT_A_TIME = 200
"""Requests between two pauses, so that the queue of spans does not overflow."""
PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class _Collector(BaseHTTPRequestHandler):
    """Takes what it gets."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def collect(port: Any) -> None:
    """Runs a collector; puts its port into the queue."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Collector) as server:
        port.put(server.server_port)
        server.serve_forever()


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that answers `{}`."""
    await receive()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


async def call(app: Any, count: int) -> None:
    """Sends requests, one after another."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Any) -> None:
        pass

    for number in range(count):
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/transactions:score",
            "raw_path": b"/v1/transactions:score",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"traceparent", PARENT)],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        await app(scope, receive, send)
        if number % AT_A_TIME == 0:
            await asyncio.sleep(0.05)


def cost(app: Any) -> float:
    """Microseconds of processor time of a request."""
    asyncio.run(call(app, AT_A_TIME))
    started = time.process_time()
    asyncio.run(call(app, REQUESTS))
    tracing.send()
    return (time.process_time() - started) / REQUESTS * 1e6


def main() -> None:
    """Prints both costs."""
    port: Any = multiprocessing.Queue()
    collector = multiprocessing.Process(target=collect, args=(port,), daemon=True)
    collector.start()
    os.environ[tracing.VARIABLE] = f"http://127.0.0.1:{port.get()}"
    traced = tracing.traced(nothing)  # imports what it needs, before anything is counted
    print(f"without spans {cost(nothing):6.1f} µs")
    print(f"with spans    {cost(traced):6.1f} µs")
    collector.terminate()


if __name__ == "__main__":
    main()

"""Load on a server: one request after the other, or from many clients at once.

A process of its own, so that client and server do not share an interpreter:

    python -m benchmarks.serving.clients < plan.json

The plan has `address`, `path`, `bodies`, `clients` and `requests` (in all); each request sends the
next body, and after the last the first again. The answer is one JSON document, {"latencies":
[seconds, …], "wall": seconds, "failed": n, "problem": [the first that failed]}.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import threading
import time
from http.client import HTTPConnection
from typing import Any


def measure(plan: dict[str, Any]) -> dict[str, Any]:
    """Sends the requests of a plan."""
    per_client = -(-plan["requests"] // plan["clients"])
    bodies = itertools.cycle(plan["bodies"])  # one call of next() is atomic
    latencies: list[float] = []
    failed: list[str] = []
    headers = {"content-type": "application/json"}
    ready = threading.Barrier(plan["clients"] + 1)

    def client() -> None:
        connection = HTTPConnection(plan["address"], timeout=60)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ready.wait()
        for _ in range(per_client):
            body = next(bodies)
            started = time.perf_counter()
            connection.request("POST", plan["path"], body, headers)
            response = connection.getresponse()
            content = response.read()
            latencies.append(time.perf_counter() - started)
            if response.status != 200:
                failed.append(content[:200].decode(errors="replace"))

    threads = [threading.Thread(target=client) for _ in range(plan["clients"])]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - started
    return {"latencies": latencies, "wall": wall, "failed": len(failed), "problem": failed[:1]}


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))

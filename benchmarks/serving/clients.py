"""Load on a server: one request after the other, from many clients at once, or at a steady rate.

A process of its own, so that client and server do not share an interpreter:

    python -m benchmarks.serving.clients < plan.json

The plan has `address`, `path`, `bodies`, `clients` and `requests` (in all); each request sends the
next body, and after the last the first again. With a `rate`, so many requests are due each second,
and what waits for a client counts as latency. The answer is one JSON document, {"latencies":
[seconds, …], "wall": seconds, "failed": n, "problem": [the first that failed]}.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import threading
import time
from typing import Any, BinaryIO


def measure(plan: dict[str, Any]) -> dict[str, Any]:
    """Sends the requests of a plan."""
    per_client = -(-plan["requests"] // plan["clients"])
    requests = [_request(plan, body.encode()) for body in plan["bodies"]]
    numbered = enumerate(itertools.cycle(requests))  # one call of next() is atomic
    rate = plan.get("rate")
    latencies: list[float] = []
    failed: list[str] = []
    ready = threading.Barrier(plan["clients"] + 1)

    def client() -> None:
        host, port = plan["address"].split(":")
        connection = socket.create_connection((host, int(port)), timeout=60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = connection.makefile("rb")
        ready.wait()
        for _ in range(per_client):
            number, request = next(numbered)
            started = time.perf_counter()
            if rate:
                due = begun + number / rate
                time.sleep(max(0.0, due - started))
                started = due
            connection.sendall(request)
            status, content = _read(answers)
            latencies.append(time.perf_counter() - started)
            if status != 200:
                failed.append(content[:200].decode(errors="replace"))

    threads = [threading.Thread(target=client) for _ in range(plan["clients"])]
    for thread in threads:
        thread.start()
    begun = time.perf_counter()
    ready.wait()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - begun
    return {"latencies": latencies, "wall": wall, "failed": len(failed), "problem": failed[:1]}


def _request(plan: dict[str, Any], body: bytes) -> bytes:
    head = (
        f"POST {plan['path']} HTTP/1.1\r\nhost: {plan['address']}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _read(answers: BinaryIO) -> tuple[int, bytes]:
    """The status and body of an answer. Less than a client's work, so that the server's shows."""
    status = int(answers.readline().split()[1])
    length = 0
    while (line := answers.readline().rstrip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return status, answers.read(length)


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))

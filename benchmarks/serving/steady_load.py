"""Steady load from a process of its own.

    python -m benchmarks.serving.steady_load ADDRESS OUT RATE STOP BODY

Sends the body in the file BODY by HTTP, RATE times a second, until the file STOP exists. Then it
writes what it saw to OUT: a list of [seconds since 1970 when due, milliseconds until answered,
version, score], in which a failed request has its error instead of a version. A slow server cannot
lower the rate: what waits for a connection counts as latency.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

PATH = "/v1/models/fraud:predict"
CONNECTIONS = 8


def main(address: str, out: Path, rate: float, stop: Path, body: str) -> None:
    """Runs the load."""
    due: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    seen: list[list[Any]] = []

    def send() -> None:
        connection = HTTPConnection(address, timeout=120)
        while (at := due.get()) is not None:
            try:
                connection.request("POST", PATH, body, {"content-type": "application/json"})
                answer = connection.getresponse()
                document = json.loads(answer.read())
                if answer.status == 200:
                    version = answer.headers["x-model-version"]
                    score = document["outputs"]["score"][0]
                else:
                    version, score = f"{answer.status}: {document['error']}", None
            except Exception as error:
                version, score = repr(error), None
                connection.close()
            seen.append([at, (time.time() - at) * 1000, version, score])

    threads = [threading.Thread(target=send) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    next_one = time.time()
    while not stop.exists():
        due.put(next_one)
        next_one += 1 / rate
        time.sleep(max(0.0, next_one - time.time()))
    while not due.empty():  # what was not sent in time, by a machine that cannot keep the rate
        due.get()
    for _ in threads:
        due.put(None)
    for thread in threads:
        thread.join()
    out.write_text(json.dumps(sorted(seen)))


if __name__ == "__main__":
    main(
        sys.argv[1],
        Path(sys.argv[2]),
        float(sys.argv[3]),
        Path(sys.argv[4]),
        Path(sys.argv[5]).read_text(),
    )

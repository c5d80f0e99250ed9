"""Steady load from a process of its own.

    python -m benchmarks.serving.steady_load ADDRESS PATH BODIES RATE STOP OUT

Sends the lines of the file BODIES one after the other by HTTP, RATE a second, until the file STOP
exists; after the last line, the first again. Then it writes what it saw to OUT: a list of [seconds
since 1970 when due, milliseconds until answered, version, score], in which a failed request has its
error instead of a version. A slow server cannot lower the rate: what waits for a connection counts
as latency.
"""

from __future__ import annotations

import itertools
import json
import queue
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

CONNECTIONS = 8


def main(address: str, path: str, bodies: list[str], rate: float, stop: Path, out: Path) -> None:
    """Runs the load."""
    endless = itertools.cycle(bodies)  # one call of next() is atomic
    due: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    seen: list[list[Any]] = []

    def send() -> None:
        connection = HTTPConnection(address, timeout=120)
        while (at := due.get()) is not None:
            try:
                connection.request(
                    "POST", path, next(endless), {"content-type": "application/json"}
                )
                answer = connection.getresponse()
                document = json.loads(answer.read())
                if answer.status == 200:
                    version = answer.headers["x-model-version"]
                    score = _score(document)
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


def _score(document: dict[str, Any]) -> float:
    """The score of one transaction: of ready-made features, or of a raw one."""
    if "outputs" in document:
        return document["outputs"]["score"][0]
    return document["results"][0]["score"]


if __name__ == "__main__":
    main(
        sys.argv[1],
        sys.argv[2],
        Path(sys.argv[3]).read_text().splitlines(),
        float(sys.argv[4]),
        Path(sys.argv[5]),
        Path(sys.argv[6]),
    )

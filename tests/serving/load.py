"""Steady load from a process of its own: `python -m tests.serving.load ADDRESS OUT RATE STOP`.

Sends requests by HTTP at a rate until the file STOP exists, then writes what it saw to OUT: a list
of [seconds since 1970 when sent, milliseconds until answered, version, score], in which a failed
request has its error instead of a version. A request that is due while others wait is sent all the
same, so a slow server cannot lower the rate.
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
BODY = json.dumps({"signature_name": "predict", "instances": [{"TX_AMOUNT": 50, "CHANNEL": "web"}]})
CONNECTIONS = 8


def main(address: str, out: Path, rate: float, stop: Path, body: str = BODY) -> None:
    """Runs the load."""
    due: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    seen: list[list[Any]] = []

    def send() -> None:
        connection = HTTPConnection(address, timeout=30)
        while (at := due.get()) is not None:
            try:
                connection.request("POST", PATH, body, {"content-type": "application/json"})
                answer = connection.getresponse()
                document = json.loads(answer.read())
                if answer.status == 200:
                    version = answer.headers["x-model-version"]
                    score = document["predictions"][0]["score"]
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
    for _ in threads:
        due.put(None)
    for thread in threads:
        thread.join()
    out.write_text(json.dumps(sorted(seen)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))

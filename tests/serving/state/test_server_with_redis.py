"""The server whose state is on a Redis server that does not answer, or comes back empty."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis as client

from fraud.codec import to_json
from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.models.columns import ModelColumns
from fraud.models.specification import EXTRA, SPECIFICATION_FILE, InputSpecification
from tests import debian
from tests.serving.conftest import export, push
from tests.serving.exported import serving

ROW = {
    "TRANSACTION_ID": 1,
    "TX_DATETIME": "2026-03-22T08:15:00Z",
    "CUSTOMER_ID": 42,
    "TERMINAL_ID": 7,
    "TX_AMOUNT": 99.5,
}


@pytest.fixture
def redis(tmp_path):
    """A Redis server of this test's own: its process, and its URL."""
    path = f"/tmp/fraud-redis-own-{os.getpid()}.sock"
    command = [debian.server("redis-server", "redis-server"), "--port", "0", "--save", ""]
    process = subprocess.Popen([*command, "--unixsocket", path], stdout=subprocess.DEVNULL)
    while not os.path.exists(path):
        assert process.poll() is None
        time.sleep(0.05)
    yield process, f"unix://{path}"
    process.send_signal(signal.SIGCONT)
    process.terminate()
    process.wait(60)


def test_nothing_else_waits_for_a_state_that_does_not_answer(redis, tmp_path):
    process, url = redis
    features = Features(calendar=("hour",), groups=(FeatureGroup(("count",), (1,)),))
    inputs = InputSpecification(Dataset(), features, 7)
    columns = ModelColumns.of(inputs.dataset, inputs.features)
    folder = export(tmp_path / "exported", 0.6, columns.numeric, columns.categorical)
    (folder / EXTRA / SPECIFICATION_FILE).write_text(to_json(inputs))
    push(folder, tmp_path / "pushed", 1)
    score = "/v1/transactions:score", {"transactions": [ROW]}
    with serving(tmp_path, "--state", url) as server, ThreadPoolExecutor(8) as threads:
        assert server.post(*score).json()["results"][0]["outcome"] == "new"
        process.send_signal(signal.SIGSTOP)
        waiting = [threads.submit(server.post, *score) for _ in range(8)]
        time.sleep(1)
        started = time.monotonic()
        assert server.client.get("/healthz").status_code == 200
        assert time.monotonic() - started < 2
        assert not any(answer.done() for answer in waiting)
        for answer in waiting:
            assert answer.result().status_code in (503, 504), answer.result().text
        process.send_signal(signal.SIGCONT)
        assert server.post(*score).json()["results"][0]["outcome"] == "repeated"
        client.Redis.from_url(url).flushall()
        gone = server.post(*score)
        assert gone.status_code == 503 and "there is no state" in gone.json()["error"]
        assert gone.headers["retry-after"] == "1"

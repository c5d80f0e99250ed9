"""The server whose state is on a Redis server that does not answer, or comes back empty."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
import redis as client

from fraud.codec import to_json
from fraud.errors import BadInput
from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.models.columns import ModelColumns
from fraud.models.specification import EXTRA, SPECIFICATION_FILE, InputSpecification
from fraud.serving.state import StateDefinition, create_state, rebuild_state
from tests import debian
from tests.serving.conftest import export, push
from tests.serving.exported import serving
from tests.serving.models import of_default_features

ROW = {
    "TRANSACTION_ID": 1,
    "TX_DATETIME": "2026-03-22T08:15:00Z",
    "CUSTOMER_ID": 42,
    "TERMINAL_ID": 7,
    "TX_AMOUNT": 99.5,
}


PATH = f"/tmp/fraud-redis-own-{os.getpid()}.sock"
URL = f"unix://{PATH}"


@contextmanager
def redis_server(*options):
    """A Redis server of this test's own: its process."""
    command = [debian.server("redis-server", "redis-server"), "--port", "0", "--save", ""]
    process = subprocess.Popen(
        [*command, "--unixsocket", PATH, *options], stdout=subprocess.DEVNULL
    )
    try:
        while not os.path.exists(PATH):
            assert process.poll() is None
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(60)


def push_model(tmp_path):
    features = Features(calendar=("hour",), groups=(FeatureGroup(("count",), (1,)),))
    inputs = InputSpecification(Dataset(), features, 7)
    columns = ModelColumns.of(inputs.dataset, inputs.features)
    folder = export(tmp_path / "exported", 0.6, columns.numeric, columns.categorical)
    (folder / EXTRA / SPECIFICATION_FILE).write_text(to_json(inputs))
    push(folder, tmp_path / "pushed", 1)


SCORE = "/v1/transactions:score", {"transactions": [ROW]}


@pytest.mark.parametrize("policy", ["volatile-lru", "allkeys-random"])
def test_a_server_that_forgets_when_its_memory_is_full_is_refused(policy):
    definition = StateDefinition.of(of_default_features())
    with redis_server("--maxmemory", "50mb") as process:
        create_state(URL, definition).close()
        client.Redis.from_url(URL).config_set("maxmemory-policy", policy)
        for use in (create_state, lambda *state: rebuild_state(*state).__enter__()):
            with pytest.raises(BadInput, match=f"{policy}.*; set maxmemory-policy noeviction"):
                use(URL, definition)
        assert process.poll() is None


def test_nothing_else_waits_for_a_state_that_does_not_answer(tmp_path):
    push_model(tmp_path)
    with (
        redis_server() as process,
        serving(tmp_path, "--state", URL) as server,
        ThreadPoolExecutor(8) as threads,
    ):
        assert server.post(*SCORE).json()["results"][0]["outcome"] == "new"
        process.send_signal(signal.SIGSTOP)
        waiting = [threads.submit(server.post, *SCORE) for _ in range(8)]
        time.sleep(1)
        started = time.monotonic()
        assert server.client.get("/healthz").status_code == 200
        assert time.monotonic() - started < 2
        assert not any(answer.done() for answer in waiting)
        for answer in waiting:
            assert answer.result().status_code in (503, 504), answer.result().text
        process.send_signal(signal.SIGCONT)
        assert server.post(*SCORE).json()["results"][0]["outcome"] == "repeated"
        client.Redis.from_url(URL).flushall()
        gone = server.post(*SCORE)
        assert gone.status_code == 503 and "there is no state" in gone.json()["error"]
        assert gone.headers["retry-after"] == "1"


def test_a_server_waits_for_that_of_its_state(tmp_path):
    push_model(tmp_path)
    with ThreadPoolExecutor(1) as threads, ExitStack() as stack:
        starting = threads.submit(lambda: stack.enter_context(serving(tmp_path, "--state", URL)))
        log = tmp_path / "server.log"
        while not (log.exists() and "the state cannot be used now: " in log.read_text()):
            assert not starting.done(), starting.result()
            time.sleep(0.05)
        with redis_server():
            server = starting.result()
            assert server.post(*SCORE).json()["results"][0]["outcome"] == "new"
        stopped = server.post(*SCORE)
        assert stopped.status_code == 503 and stopped.headers["retry-after"] == "1"
        with redis_server():  # which has lost everything, and is another one to the server
            gone = server.post(*SCORE)
            assert gone.status_code == 503 and "there is no state" in gone.json()["error"]

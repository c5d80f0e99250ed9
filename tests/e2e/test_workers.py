"""A run whose Trainer trains together with a worker, which is lost the first time."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import CONFIG, REPOSITORY, SAMPLE, Bank, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SECONDS = 300


@pytest.fixture
def bank(new_bank) -> Bank:
    return new_bank(CONFIG.replace("epochs: 2,", "epochs: 30, patience: 3, workers: 2,"))


@pytest.fixture
def start(bank) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a command as one of two workers; its output goes to a file."""
    processes = []
    cluster = {"worker": [f"127.0.0.1:{free_port()}" for _ in range(2)]}

    def started(output: Path, index: int, *command: object) -> subprocess.Popen:
        task = {"type": "worker", "index": index}
        environment = {**os.environ, "TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}
        with output.open("w") as file:
            process = subprocess.Popen(
                bank.command(*command), env=environment, stdout=file, stderr=file, cwd=REPOSITORY
            )
        processes.append(process)
        return process

    yield started
    for process in processes:
        process.kill()
        process.wait()


def wait_for(text: str, folder: Path, pattern: str) -> None:
    """Waits until one of some files has a text."""
    deadline = time.monotonic() + SECONDS
    while not any(text in path.read_text(errors="replace") for path in folder.glob(pattern)):
        assert time.monotonic() < deadline, f"no {text!r} in {folder / pattern}"
        time.sleep(0.2)


def test_a_lost_worker_ends_the_run_and_the_next_run_trains_with_it(bank, start, tmp_path) -> None:
    worker = start(tmp_path / "worker", 1, "train-worker")
    run = ("run", "--data", SAMPLE, "--as-of", "2026-03-20")
    first = start(tmp_path / "first", 0, *run)
    wait_for("Epoch 2/30", bank.root, "runs/*/run.log")
    worker.kill()
    assert first.wait(SECONDS) == 1
    said = (tmp_path / "first").read_text()
    assert "Trainer failed: worker 0 (127.0.0.1:" in said and "was lost" in said
    assert "Traceback" not in said
    assert not bank.versions() and not list((bank.root / "workers").iterdir())

    start(tmp_path / "again", 1, "train-worker")
    assert start(tmp_path / "second", 0, *run).wait(SECONDS) == 0
    assert len(bank.versions()) == 1
    wait_for("has trained", tmp_path, "again")
    assert not list((bank.root / "workers").iterdir())

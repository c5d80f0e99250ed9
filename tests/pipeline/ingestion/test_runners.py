"""Ingestion on another runner than the node's own process, with equal results.

Beam's job service takes a pipeline as Flink's and Spark's do: pickled, by the network, to be run by
worker processes that import the code anew. What a worker needs from the process that submitted the
pipeline, and what only one process can see, fails here.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.ingestion import transactions

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def job_service(tmp_path_factory, repository) -> Iterator[list[str]]:
    """Beam's command line for a job service with worker processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("beam") / "log").open("w")
    module = "apache_beam.runners.portability.local_job_service_main"
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--port", str(port)], cwd=repository, stdout=log, stderr=log
    )
    try:
        deadline = time.monotonic() + 120
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        yield [
            "--runner=PortableRunner",
            f"--job_endpoint=127.0.0.1:{port}",
            "--environment_type=beam:env:harness_subprocess_python:v1",
            f"--environment_config={sys.executable} -m apache_beam.runners.worker.sdk_worker_main",
        ]
    finally:
        process.kill()
        process.wait()
        log.close()


def test_worker_processes_make_the_same_examples(job_service, tmp_path: Path) -> None:
    data = transactions.write_days(transactions.make(), tmp_path / "data")
    here = transactions.ingest(data, tmp_path / "here")
    there = transactions.ingest(data, tmp_path / "there", beam=job_service)
    assert there == here
    assert here.splits["train"].num_rows > 100

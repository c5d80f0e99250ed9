"""Runs on a real Flink cluster: the same artifacts as on one machine, whoever dies."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from deploy.flink.cluster import Cluster
from deploy.flink.compare import comparisons
from tests.e2e.conftest import SAMPLE, Bank

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TESTED_BEAM = ("2.74.0",)
"""Versions of Beam whose workers have run on the job server of deploy/flink/pom.xml."""
SECONDS = 900


@pytest.fixture(scope="module")
def cluster(repository: Path, tmp_path_factory) -> Iterator[Cluster]:
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here, which a Flink cluster needs")
    if (beam := metadata.version("apache-beam")) not in TESTED_BEAM:
        pytest.skip(f"Beam {beam}: no pinned job server; there is one for {TESTED_BEAM}")
    subprocess.run([repository / "scripts" / "setup_flink.sh"], check=True)
    with Cluster(tmp_path_factory.mktemp("flink")) as running:
        yield running


@pytest.fixture(scope="module")
def here(new_bank) -> Bank:
    """A bank whose run was on one machine."""
    bank = new_bank()
    bank.run(SAMPLE, None)
    return bank


def on_cluster(bank: Bank, cluster: Cluster, folder: Path) -> tuple[Bank, list[str]]:
    """The same configuration with another root, and the command of its run on the cluster."""
    folder.mkdir()
    shutil.copy(bank.folder / "fraud.yaml", folder)
    there = dataclasses.replace(bank, folder=folder)
    return there, there.command("run", "--config", cluster.config, "--data", SAMPLE)


def run(command: list[str], bank: Bank, meanwhile: Callable[[], None] = lambda: None) -> int:
    """Runs a command; its exit code. `meanwhile` is called while it runs."""
    with (bank.folder / "log").open("a") as log:
        process = subprocess.Popen(command, cwd=bank.code, stdout=log, stderr=log)
        try:
            meanwhile()
            return process.wait(SECONDS)
        finally:
            process.kill()
            process.wait()


def check_equal(here: Bank, there: Bank) -> None:
    compared = list(comparisons(here.root, there.root))
    assert len(compared) >= 10
    assert not [str(part) for part in compared if not part.equal]


def test_a_run_on_two_workers_is_the_same(here, cluster, tmp_path) -> None:
    there, command = on_cluster(here, cluster, tmp_path / "there")
    assert run(command, there) == 0, (there.folder / "log").read_text()
    check_equal(here, there)
    jobs = cluster.ask("/jobs/overview")["jobs"]
    assert [job["state"] for job in jobs] == ["FINISHED"] * 4
    # Both had work to do.
    for job in jobs:
        vertices = cluster.ask(f"/jobs/{job['jid']}")["vertices"]
        hosts = {
            task["taskmanager-id"]
            for vertex in vertices
            for task in cluster.ask(f"/jobs/{job['jid']}/vertices/{vertex['id']}")["subtasks"]
        }
        assert len(hosts) == 2


def test_bad_data_is_told_as_on_one_machine(here, cluster, tmp_path) -> None:
    data = tmp_path / "data"
    shutil.copytree(SAMPLE, data)
    file = next((data / "date=2026-03-21").iterdir())
    shutil.copy(file, file.with_name(f"again{file.suffix}"))
    there, command = on_cluster(here, cluster, tmp_path / "there")
    assert run([str(data) if part == str(SAMPLE) else part for part in command], there) == 2
    log = (there.folder / "log").read_text()
    assert "was already in" in log and "remove one of them" in log
    assert "Traceback" not in log and "java" not in log


def test_a_run_survives_a_task_manager(here, cluster, tmp_path) -> None:
    there, command = on_cluster(here, cluster, tmp_path / "there")
    killed = []

    def kill_one_in_the_middle() -> None:
        deadline = time.monotonic() + SECONDS
        while not any(in_the_middle(job) for job in jobs()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        victim = cluster.processes["taskmanager-1"]
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.wait())

    def in_the_middle(job: dict) -> bool:
        return job["state"] == "RUNNING" and 4 * job["tasks"]["finished"] > job["tasks"]["total"]

    def jobs() -> list[dict]:
        return cluster.ask("/jobs/overview")["jobs"]

    code = run(command, there, kill_one_in_the_middle)
    assert killed == [-signal.SIGKILL]
    # Flink restarts the job on what is left; if it gives up, the run says so and can be repeated.
    if code != 0:
        log = (there.folder / "log").read_text()
        assert "TransactionExampleGen failed" in log
        assert "Traceback" not in log
        assert run(command, there) == 0, (there.folder / "log").read_text()
    check_equal(here, there)

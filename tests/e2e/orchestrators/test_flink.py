"""Runs on a real Flink cluster: the same artifacts as on one machine, whoever dies."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from pyarrow import parquet

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


def run(
    command: list[str],
    bank: Bank,
    meanwhile: Callable[[subprocess.Popen], None] = lambda process: None,
) -> int:
    """Runs a command; its exit code. `meanwhile` is called while it runs."""
    with (bank.folder / "log").open("a") as log:
        process = subprocess.Popen(command, cwd=bank.code, stdout=log, stderr=log)
        try:
            meanwhile(process)
            return process.wait(SECONDS)
        finally:
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


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


def was_restarted(cluster: Cluster, job: str) -> bool:
    """Whether a task of a job was tried again."""
    vertices = cluster.ask(f"/jobs/{job}")["vertices"]
    return any(
        task["attempt"] > 0
        for vertex in vertices
        for task in cluster.ask(f"/jobs/{job}/vertices/{vertex['id']}")["subtasks"]
    )


def test_a_run_survives_a_task_manager_lost_in_each_node(here, cluster, tmp_path) -> None:
    """In the middle of each of the four jobs, one is killed, and a supervisor starts another."""
    there, command = on_cluster(here, cluster, tmp_path / "there")
    before = {job["jid"] for job in cluster.ask("/jobs/overview")["jobs"]}
    hit: dict[str, int] = {}

    def kill_in_the_middle(process: subprocess.Popen) -> None:
        while process.poll() is None:
            for job in cluster.ask("/jobs/overview")["jobs"]:
                if job["jid"] not in before | hit.keys() and in_the_middle(job):
                    number = 1 + len(hit) % 2
                    victim = cluster.processes[f"taskmanager-{number}"]
                    os.kill(victim.pid, signal.SIGKILL)
                    hit[job["jid"]] = victim.wait()
                    cluster.start_task_manager(number)
            time.sleep(0.1)

    def in_the_middle(job: dict) -> bool:
        return job["state"] == "RUNNING" and 4 * job["tasks"]["finished"] > job["tasks"]["total"]

    code = run(command, there, kill_in_the_middle)
    # Flink takes the jobs up again; if it gives up, the run says so and can be repeated.
    if code != 0:
        log = (there.folder / "log").read_text()
        assert " failed: " in log and "Traceback" not in log
        code = run(command, there, kill_in_the_middle)
    assert code == 0, (there.folder / "log").read_text()
    assert len(hit) >= 4 and set(hit.values()) == {-signal.SIGKILL}
    assert all(was_restarted(cluster, job) for job in hit)
    check_equal(here, there)


def test_batch_scoring_is_the_same(here, cluster, tmp_path) -> None:
    days = tmp_path / "days"
    for day in ("2026-03-18", "2026-03-19", "2026-03-20", "2026-03-21"):
        shutil.copytree(SAMPLE / f"date={day}", days / f"date={day}")
    arguments = ["score", days, "--history", SAMPLE, "--explain", "--json", "--out"]
    one_process = here.call(*arguments, tmp_path / "here.parquet")
    assert one_process.returncode == 0, one_process.stderr
    on_flink = here.call(*arguments, tmp_path / "there.parquet", "--config", cluster.config)
    assert on_flink.returncode == 0, on_flink.stderr
    assert not on_flink.stderr
    counts = [json.loads(done.stdout) for done in (one_process, on_flink)]
    assert counts[0]["alerts"] == counts[1]["alerts"] > 0
    scored = [parquet.read_table(tmp_path / f"{name}.parquet") for name in ("here", "there")]
    assert scored[0] == scored[1]
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == [
        "here.parquet",
        "there.parquet",
    ]
    assert not list(tmp_path.glob(".*"))


def test_the_job_of_a_killed_run_does_not_disturb_the_next(here, cluster, tmp_path) -> None:
    """It goes on, or ends as its files are gone, while the repeated run ingests the same data."""
    there, command = on_cluster(here, cluster, tmp_path / "there")
    before = {job["jid"] for job in cluster.ask("/jobs/overview")["jobs"]}

    def states() -> list[str]:
        jobs = cluster.ask("/jobs/overview")["jobs"]
        return [job["state"] for job in jobs if job["jid"] not in before]

    def kill(process: subprocess.Popen) -> None:
        wait_for(lambda: states() == ["RUNNING"])
        process.kill()

    def end_after_ingestion(process: subprocess.Popen) -> None:
        wait_for(
            lambda: (
                process.poll() is not None
                or "✓ TransactionExampleGen" in (there.folder / "log").read_text()
            )
        )
        process.terminate()

    assert run(command, there, kill) == -signal.SIGKILL
    assert states() == ["RUNNING"]
    run(command, there, end_after_ingestion)
    compared = list(itertools.islice(comparisons(here.root, there.root), 3))
    assert [part.part for part in compared] == [
        f"examples {s}" for s in ("eval", "recent", "train")
    ]
    assert all(part.equal for part in compared)

"""The parts of a Flink cluster on this machine; tests/e2e/orchestrators/test_flink.py runs one."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from apache_beam.portability.api import (
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
)
from tensorflow_metadata.proto.v0 import statistics_pb2

from deploy.flink import cluster as flink
from deploy.flink import compare
from deploy.flink.cluster import Cluster, Unavailable
from deploy.flink.compare import compare_records, compare_values, flat, newest
from fraud.pipeline.config import loading
from fraud.pipeline.runners import beam_worker


def test_values_are_equal_up_to_what_is_allowed() -> None:
    here = {"mean": 1.0, "name": "x", "count": 3, "missing": math.nan}
    assert compare_values("p", here, dict(here)).equal
    there = {**here, "mean": 1.0 + 1e-9}
    assert not compare_values("p", here, there).equal
    compared = compare_values("p", here, there, allowed=1e-6)
    assert (compared.equal, compared.compared, compared.different) == (True, 4, 1)
    assert compared.largest == pytest.approx(1e-9)


@pytest.mark.parametrize("other", [{"count": 4}, {"count": 3, "more": 0}, {"count": "3"}, {}])
def test_counts_names_and_texts_are_exact(other: dict) -> None:
    assert not compare_values("p", {"count": 3}, other, allowed=0.5).equal


def test_estimates_may_differ_by_so_much() -> None:
    here, there = {"edge": 100.0, "share": 0.0}, {"edge": 100.009, "share": 0.009}
    assert compare_values("p", here, there, 0.01, relative=False).equal
    assert not compare_values("p", here, there, 0.008, relative=False).equal


def test_quantiles_of_statistics_are_estimates_and_counts_are_not(tmp_path: Path) -> None:
    statistics = statistics_pb2.DatasetFeatureStatisticsList()
    feature = statistics.datasets.add(num_examples=1000).features.add(name="amount")
    numbers = feature.num_stats
    numbers.common_stats.num_missing, numbers.mean, numbers.std_dev, numbers.median = 3, 9, 50, 5
    numbers.histograms.add().buckets.add(low_value=0, high_value=10, sample_count=100)
    (tmp_path / "stats").write_bytes(statistics.SerializeToString())
    exact, estimates = compare._statistics(tmp_path / "stats")
    assert exact["/amount/numStats/commonStats/numMissing"] == "3"
    assert exact["/amount/numStats/mean"] == 9
    assert estimates == {
        "/amount/numStats/median": 0.1,
        "/amount/numStats/histograms/0/buckets/0/highValue": 0.2,
        "/amount/numStats/histograms/0/buckets/0/sampleCount": 0.1,
    }


def test_nothing_compared_is_not_equal() -> None:
    assert not compare_values("p", {}, {}).equal
    assert not compare_records("p", Counter(), Counter()).equal


def test_records_are_equal_in_any_order_but_not_in_number() -> None:
    assert compare_records("p", Counter([b"a", b"b", b"a"]), Counter([b"b", b"a", b"a"])).equal
    compared = compare_records("p", Counter([b"a", b"b"]), Counter([b"a", b"b", b"b"]))
    assert (compared.equal, compared.different, compared.compared) == (False, 1, 3)


def test_nested_values_have_paths() -> None:
    assert dict(flat({"a": [1, {"b": 2}]})) == {"/a/0": 1, "/a/1/b": 2}


def test_the_newest_artifact_has_the_largest_number(tmp_path: Path) -> None:
    for number in ("9", "10"):
        (tmp_path / "artifacts" / "Node" / "output" / number).mkdir(parents=True)
    assert newest(tmp_path, "Node", "output").name == "10"
    with pytest.raises(FileNotFoundError, match="did the run succeed"):
        newest(tmp_path, "Other", "output")


def test_a_worker_learns_from_the_runner_where_its_work_is() -> None:
    asked = []

    class Runner(beam_provision_api_pb2_grpc.ProvisionServiceServicer):
        def GetProvisionInfo(self, request, context):  # noqa: N802
            asked.append(dict(context.invocation_metadata())["worker_id"])
            answer = beam_provision_api_pb2.GetProvisionInfoResponse()
            answer.info.control_endpoint.url = "127.0.0.1:1"
            answer.info.logging_endpoint.url = "127.0.0.1:2"
            answer.info.pipeline_options["beam:option:parallelism:v1"] = 2
            answer.info.runner_capabilities.append("beam:protocol:x:v1")
            return answer

    server = grpc.server(futures.ThreadPoolExecutor(1))
    beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(Runner(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        told = beam_worker.environment("1-1", f"127.0.0.1:{port}")
    finally:
        server.stop(0)
    assert asked == ["1-1"]
    assert told["WORKER_ID"] == "1-1"
    assert told["CONTROL_API_SERVICE_DESCRIPTOR"].strip() == 'url: "127.0.0.1:1"'
    assert "127.0.0.1:2" in told["LOGGING_API_SERVICE_DESCRIPTOR"]
    assert "STATUS_API_SERVICE_DESCRIPTOR" not in told
    assert json.loads(told["PIPELINE_OPTIONS"]) == {"beam:option:parallelism:v1": 2}
    assert told["RUNNER_CAPABILITIES"] == "beam:protocol:x:v1"


def test_the_versions_fit_one_another(repository: Path) -> None:
    pom = (repository / "deploy" / "flink" / "pom.xml").read_text()
    flink_minor = re.search(r"beam-runners-flink-([\d.]+)<", pom)[1]
    beam = re.search(r"<version>(\d+\.\d+\.\d+)</version>", pom)[1]
    jars = (repository / "deploy" / "flink" / "jars.sha256").read_text()
    assert f"  beam-runners-flink-{flink_minor}-{beam}.jar\n" in jars
    pins = (repository / "requirements" / "flink.txt").read_text()
    assert pins.startswith(f"apache-flink-libraries=={flink_minor}.")


def test_the_configuration_that_it_writes_is_one(tmp_path: Path) -> None:
    written = tmp_path / "beam.yaml"
    written.write_text(json.dumps(Cluster(tmp_path).beam_config))
    beam = loading.load(written).beam
    assert beam.runner == "PortableRunner"
    assert "--parallelism=2" in beam.options


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setattr(flink, "REPOSITORY", tmp_path)
    with pytest.raises(Unavailable, match=r"run scripts/setup_flink.sh"), Cluster(home):
        pass
    assert not home.exists()


def test_a_folder_of_something_else_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flink, "_flink", lambda: tmp_path)
    monkeypatch.setattr(flink.shutil, "which", lambda program: program)
    kept = tmp_path / "home" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("years of work")
    with pytest.raises(Unavailable, match="home: is not empty"), Cluster(kept.parent):
        pass
    assert kept.exists()


@pytest.fixture
def started(tmp_path: Path):
    """A cluster of which one process runs: one that starts another, and both ignore SIGTERM."""
    cluster = Cluster(tmp_path / "home")
    (tmp_path / "home" / "log").mkdir(parents=True)
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait"
    cluster._start("stubborn", ["sh", "-c", script])
    _wait_for(pids.exists)
    return cluster, [int(pid) for pid in pids.read_text().split()]


def test_nothing_is_left_running(started) -> None:
    cluster, pids = started
    cluster.stop()
    _wait_for(lambda: not any(map(_runs, pids)))


def test_what_a_lost_process_started_is_ended_too(started) -> None:
    cluster, pids = started
    os.kill(pids[0], signal.SIGKILL)
    cluster.processes["stubborn"].wait()
    assert _runs(pids[1])
    cluster.stop()
    _wait_for(lambda: not any(map(_runs, pids)))


def test_processes_end_with_the_one_that_started_them(tmp_path: Path, repository: Path) -> None:
    """Even if that is killed, and so cannot end them."""
    (tmp_path / "log").mkdir()
    script = (
        "import pathlib, sys, time; from deploy.flink.cluster import Cluster\n"
        f"cluster = Cluster(pathlib.Path({str(tmp_path)!r}))\n"
        "cluster._start('sleeper', ['sleep', '60'])\n"
        "print(cluster.processes['sleeper'].pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=repository
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert _runs(pid)
        starter.kill()
    _wait_for(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)

"""Running one node: retries after success, failure and a kill, the data gate, and the output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest
import tiny_graph
from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.errors import BadInput, StoppedByDataGate
from fraud.pipeline import cli, lineage
from fraud.pipeline.config import Metadata
from fraud.pipeline.root import Root
from fraud.pipeline.runners import code, compiled, launch

ROOT = Path(__file__).resolve().parents[3]


class Run:
    """The tiny graph in a folder of its own."""

    def __init__(self, folder: Path, passes: bool = True, run_id: str = "monday"):
        self.folder, self.run_id = folder, run_id
        self.ir = tiny_graph.write(folder, passes)
        self.graph = compiled.for_run(compiled.read(self.ir), run_id)

    def behave(self, how: str) -> None:
        (self.folder / "behaviour").write_text(how)

    def start(self, name: str, *options: str) -> subprocess.Popen[str]:
        """Starts `fraud-pipeline node`."""
        command = [sys.executable, "-m", "fraud.pipeline.cli", "node", "--ir", str(self.ir)]
        return subprocess.Popen(
            [*command, "--node", name, "--run-id", "monday", *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def node(self, name: str) -> lineage.NodeRecord:
        return launch.run_node(self.graph, name)

    @property
    def attempts(self) -> int:
        return len((self.folder / "attempts").read_text())

    def executions(self, name: str) -> list:
        store = lineage.find_store(Metadata(), Root(self.folder))
        return lineage.executions(store, self.run_id, name)


def test_a_node_that_succeeded_is_not_repeated(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.behave("succeed")
    first = run.node("Work")
    assert (first.state, run.attempts) == ("COMPLETE", 1)
    assert run.node("Work") == first
    assert run.attempts == 1


def test_a_retry_after_a_failure_reuses_the_execution_and_removes_its_outputs(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path)
    run.behave("fail")
    with pytest.raises(ValueError, match="told to"):
        run.node("Work")
    run.behave("succeed")
    assert run.node("Work").state == "COMPLETE"
    (execution,) = run.executions("Work")
    assert "__execution_result__" not in execution.custom_properties
    assert run.attempts == 2


def test_a_retry_after_a_kill_reuses_the_execution_and_removes_its_outputs(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.behave("hang")
    process = run.start("Work")
    deadline = time.monotonic() + 120
    while not (tmp_path / "attempts").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    (killed,) = run.executions("Work")
    assert killed.last_known_state == killed.RUNNING
    assert list(tmp_path.glob("artifacts/Work/schema/*/part"))

    run.behave("succeed")
    assert run.node("Work").state == "COMPLETE"
    (execution,) = run.executions("Work")
    assert (execution.id, run.attempts) == (killed.id, 2)


def test_changed_code_runs_again_and_unchanged_code_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monday = Run(tmp_path)
    monday.behave("succeed")
    assert monday.node("Work").state == "COMPLETE"
    assert Run(tmp_path, run_id="tuesday").node("Work").state == "CACHED"
    monkeypatch.setattr(code, "fingerprint", lambda texts: "edited")
    assert Run(tmp_path, run_id="wednesday").node("Work").state == "COMPLETE"
    assert monday.attempts == 2


def test_a_retry_with_changed_code_is_recorded_with_that_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.behave("fail")
    with pytest.raises(ValueError, match="told to"):
        run.node("Work")
    monkeypatch.setattr(code, "fingerprint", lambda texts: "edited")
    run = Run(tmp_path)
    run.behave("succeed")
    run.node("Work")
    (execution,) = run.executions("Work")
    assert execution.custom_properties[lineage.CODE_FINGERPRINT].string_value == "edited"


def test_the_code_that_made_an_artifact_is_recorded_and_not_part_of_the_cache_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = lineage.Code("1.0", "abc", True, {"tfx": "1"})
    monkeypatch.setattr(code, "origin", lambda: first)
    run = Run(tmp_path)
    run.behave("succeed")
    (schema,) = run.node("Work").outputs["schema"]
    monkeypatch.setattr(code, "origin", lambda: lineage.Code("1.0", "def", False, {"tfx": "1"}))
    assert Run(tmp_path, run_id="tuesday").node("Work").state == "CACHED"
    store = lineage.find_store(Metadata(), Root(tmp_path))
    assert lineage.code_of(store, schema.id) == first
    (execution,) = run.executions("Work")
    del execution.custom_properties["package_versions"]  # as before it was recorded
    store.put_executions([execution])
    assert lineage.code_of(store, schema.id) is None


def test_a_node_whose_upstream_has_not_succeeded_is_refused_and_not_recorded(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path)
    with pytest.raises(BadInput, match="Gate: Work must succeed before it in run monday"):
        run.node("Gate")
    assert run.executions("Gate") == []
    with pytest.raises(BadInput, match="the graph has Work, Gate, Rest"):
        run.node("Pusher")


def test_a_gate_that_stops_the_run_exits_with_3_every_time_and_so_do_later_nodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path, passes=False)
    run.behave("succeed")
    run.node("Work")
    for name in ("Gate", "Gate", "Rest", "Rest"):
        arguments = ["node", "--ir", str(run.ir), "--node", name, "--run-id", "monday"]
        assert cli.main(arguments) == StoppedByDataGate.exit_code == 3
        assert "stopped run monday" in capsys.readouterr().err
    assert run.executions("Rest") == []


def test_downstream_nodes_run_after_a_gate_that_passes(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.behave("succeed")
    states = [run.node(name).state for name in ("Work", "Gate", "Rest")]
    assert states == ["COMPLETE"] * 3


def test_a_file_that_is_no_compiled_graph_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="`fraud-pipeline compile` writes it"):
        compiled.read(tmp_path / "ir.json")
    (tmp_path / "ir.json").write_text("{}")
    (tmp_path / "other.json").write_text('{"nodes": 3}')
    with pytest.raises(BadInput, match="not a compiled graph"):
        compiled.read(tmp_path / "other.json")


def test_a_node_prints_a_few_lines_and_logs_the_rest(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.behave("succeed")
    process = run.start("Work")
    stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")
    lines = stdout.splitlines()
    assert lines[0] == "Work: run monday as of the last day of the data"
    assert lines[1].split() == [
        "output",
        "schema",
        "Schema",
        "1",
        f"{tmp_path}/artifacts/Work/schema/1",
    ]
    assert lines[2].startswith("Work: COMPLETE in ")
    assert len(lines) == 3
    log = (tmp_path / "runs/monday/run.log").read_text()
    assert "Work INFO Running launcher for node_info" in log

    process = run.start("Gate", "--verbose")
    stdout, _ = process.communicate()
    assert process.returncode == 0
    assert "Gate INFO Running launcher for node_info" in stdout
    assert "  input  schema" in stdout
    assert (tmp_path / "runs/monday/run.log").read_text() == log


def test_a_failing_node_prints_the_reason_and_the_log(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.behave("fail")
    process = run.start("Work")
    stdout, stderr = process.communicate()
    log = tmp_path / "runs/monday/run.log"
    assert process.returncode == 1
    assert "Work: exit code 1 after" in stdout
    assert len(stdout.splitlines()) == 2
    assert f"Work failed: told to\nFull log: {log}." in stderr
    assert "Traceback" not in stderr
    assert "ValueError: told to" in log.read_text()


def test_without_a_writable_log_a_node_says_so_once_and_prints_everything(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.behave("succeed")
    (tmp_path / "runs/monday/run.log").mkdir(parents=True)
    process = run.start("Work")
    stdout, _ = process.communicate()
    assert process.returncode == 0
    assert stdout.count("run.log: cannot write the log: Is a directory") == 1
    assert "Work INFO Running launcher for node_info" in stdout


def test_a_run_is_of_one_day(monkeypatch):
    """Its data is read once, so for another day it would do nothing and look successful."""
    examples = mlmd.Artifact()
    examples.custom_properties["as_of"].string_value = "2026-03-07"
    monkeypatch.setattr(lineage, "artifacts_of_run", lambda *_: [examples])
    launch.check_same_day(None, "r1", date(2026, 3, 7))
    with pytest.raises(BadInput, match="run r1 is as of 2026-03-07, not 2026-03-14; give each day"):
        launch.check_same_day(None, "r1", date(2026, 3, 14))

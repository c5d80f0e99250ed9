"""One node at a time: what a retry does after success, failure and a kill; what a gate stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_graph

from fraud.errors import BadInput, StoppedByDataGate
from fraud.pipeline import cli, lineage
from fraud.pipeline.root import Root
from fraud.pipeline.runners import compiled
from fraud.pipeline.runners import launch as node

ROOT = Path(__file__).resolve().parents[3]


class Run:
    """The tiny graph in a folder of its own."""

    def __init__(self, folder: Path, passes: bool = True):
        self.folder = folder
        self.ir = tiny_graph.write(folder, passes)
        self.graph = compiled.for_run(compiled.read(self.ir), "monday")

    def behave(self, how: str) -> None:
        (self.folder / "behaviour").write_text(how)

    def node(self, name: str) -> lineage.NodeRecord:
        return node.run_node(self.graph, name)

    @property
    def attempts(self) -> int:
        return len((self.folder / "attempts").read_text())

    def executions(self, name: str) -> list:
        store = lineage.sqlite_store(Root(self.folder).metadata)
        return lineage.executions(store, "monday", name)


def test_what_succeeded_is_not_done_twice(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.behave("succeed")
    first = run.node("Work")
    assert (first.state, run.attempts) == ("COMPLETE", 1)
    assert run.node("Work") == first
    assert run.attempts == 1


def test_a_failure_is_tried_again_in_the_same_execution_without_what_it_left(
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


def test_a_killed_node_is_tried_again_without_what_it_left(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.behave("hang")
    command = [sys.executable, "-m", "fraud.pipeline.cli", "node", "--ir", str(run.ir)]
    command += ["--node", "Work", "--run-id", "monday"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "attempts").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (killed,) = run.executions("Work")
    assert killed.last_known_state == killed.RUNNING
    assert list(tmp_path.glob("artifacts/Work/schema/*/part"))

    run.behave("succeed")
    assert run.node("Work").state == "COMPLETE"
    (execution,) = run.executions("Work")
    assert (execution.id, run.attempts) == (killed.id, 2)


def test_a_node_whose_turn_has_not_come_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(BadInput, match="Gate: Work must succeed before it in run monday"):
        run.node("Gate")
    assert run.executions("Gate") == []
    with pytest.raises(BadInput, match="the graph has Work, Gate, Rest"):
        run.node("Pusher")


def test_a_gate_that_stops_ends_with_3_every_time_and_so_does_what_stands_behind_it(
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


def test_a_gate_that_passes_lets_the_rest_run(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.behave("succeed")
    states = [run.node(name).state for name in ("Work", "Gate", "Rest")]
    assert states == ["COMPLETE"] * 3


def test_what_is_no_compiled_graph_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="`fraud-pipeline compile` writes it"):
        compiled.read(tmp_path / "ir.json")
    (tmp_path / "ir.json").write_text("{}")
    (tmp_path / "other.json").write_text('{"nodes": 3}')
    with pytest.raises(BadInput, match="not a compiled graph"):
        compiled.read(tmp_path / "other.json")

import subprocess
import sys

import pytest

from fraud.pipeline import cli


@pytest.mark.parametrize(
    "run_id",
    ["../../elsewhere", "a/b", "..", ".", "", ".hidden", "a\nb", "a b", "-x", "é", "x" * 201],
)
def test_a_run_id_cannot_leave_the_root(run_id, capsys):
    assert cli.main(["node", "--ir", "absent", "--node", "Trainer", f"--run-id={run_id}"]) == 2
    assert f"run id {run_id!r}" in capsys.readouterr().err


def test_a_node_that_is_not_in_the_graph_leaves_nothing(tmp_path):
    root, graph = tmp_path / "root", tmp_path / "graph"
    assert cli.main(["compile", "--data", "d", "--root", str(root), "--out", str(graph)]) == 0
    command = [sys.executable, "-m", "fraud.pipeline.cli", "node", "--ir", graph / "ir.json"]
    command += ["--node", "../../../elsewhere", "--run-id", "r"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--node '../../../elsewhere': no such node; the graph has " in done.stderr
    assert sorted(tmp_path.iterdir()) == [graph]

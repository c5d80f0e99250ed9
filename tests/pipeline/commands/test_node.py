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


def test_a_run_id_cannot_be_one_of_the_monitors(capsys):
    """No command would show such a run, and without another one `status` would fail."""
    assert cli.main(["node", "--ir", "absent", "--node", "Trainer", "--run-id", "monitor-1"]) == 2
    assert "run id 'monitor-1': those that begin with monitor- are" in capsys.readouterr().err


def test_a_node_that_is_not_in_the_graph_leaves_nothing(tmp_path):
    root, graph = tmp_path / "root", tmp_path / "graph"
    fraud_pipeline = [sys.executable, "-m", "fraud.pipeline.cli"]
    command = [*fraud_pipeline, "compile", "--data", "d", "--root", root, "--out", graph]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # What libraries print when they start is no concern of users.
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{graph / 'ir.json'}\n", "")
    command = [*fraud_pipeline, "node", "--ir", graph / "ir.json"]
    command += ["--node", "../../../elsewhere", "--run-id", "r"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--node '../../../elsewhere': no such node; the graph has " in done.stderr
    assert sorted(tmp_path.iterdir()) == [graph]

import pytest

from fraud.pipeline import cli


@pytest.mark.parametrize("run_id", ["../../elsewhere", "a/b", "..", ".", ""])
def test_a_run_id_cannot_leave_the_root(run_id, capsys):
    assert cli.main(["node", "--ir", "absent", "--node", "Trainer", "--run-id", run_id]) == 2
    assert "--run-id" in capsys.readouterr().err

import pytest

from fraud.errors import BadInput
from fraud.names import check_run_id
from fraud.pipeline import cli, refusals
from fraud.pipeline.artifacts import SUMMARY_FILE
from fraud.pipeline.commands import status
from fraud.pipeline.root import Root


@pytest.mark.parametrize("content", ["", "[]", '{"outcome": 3}', "folder"])
def test_a_damaged_summary_is_named_and_hides_nothing_else(tmp_path, content):
    summary = Root(tmp_path).run("r") / SUMMARY_FILE
    summary.parent.mkdir(parents=True)
    summary.mkdir() if content == "folder" else summary.write_text(content)
    outcome = status._outcome(Root(tmp_path), None, "r")
    assert outcome.startswith(f"unknown: {summary}: ")


@pytest.mark.parametrize(
    ("commit", "dirty", "line"),
    [
        ("0123456789abcdef", False, "version 1.0, commit 0123456789ab"),
        ("0123456789abcdef", True, "version 1.0, commit 0123456789ab and edits"),
        ("", False, "version 1.0"),
    ],
)
def test_the_code_of_the_live_model_is_shown(commit, dirty, line):
    live = dict.fromkeys(("version", "since", "path", "run_id", "as_of"), "x")
    live |= {"windows": {}, "rollback": None, "judging_problem": None}
    code = {"version": "1.0", "commit": commit, "dirty": dirty, "packages": {}}
    document = {"root": "r", "disagreements": [], "runs": [], "loop": None}
    lines = status.render({**document, "live": {**live, "code": code}}).splitlines()
    assert f"  code    {line}" in lines
    lines = status.render({**document, "live": {**live, "code": None}}).splitlines()
    assert not any("code" in line for line in lines)


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("not_blessed", "not pushed: the model was not blessed"),
        ("gate_stopped", "stopped by the data gate"),
        ("failed in Trainer", "failed in Trainer"),
    ],
)
def test_the_outcome_of_a_run_is_shown_in_words(outcome, words):
    runs = [{"run_id": "r", "outcome": outcome}]
    document = {"root": "x", "live": None, "disagreements": [], "runs": runs, "loop": None}
    assert f"run       r  {words}" in status.render(document).splitlines()


def test_a_run_that_was_refused_before_it_began_is_shown(tmp_path, capsys):
    data = tmp_path / "none"
    assert cli.main(["run", "--data", str(data), "--root", str(tmp_path)]) == 2
    reason = f"{data}: no such file or directory"
    assert reason in capsys.readouterr().err
    assert cli.main(["status", "--root", str(tmp_path)]) == 0
    (line,) = [li for li in capsys.readouterr().out.splitlines() if li.startswith("refused")]
    assert line.endswith(reason)


def test_only_the_latest_refusals_are_kept_and_damage_hides_nothing(tmp_path):
    root = Root(tmp_path)
    for number in range(refusals.KEPT + 2):
        refusals.record(root, str(number))
    assert [r.reason for r in refusals.read(root)] == [str(n) for n in range(2, refusals.KEPT + 2)]
    (root.path / "runs" / refusals.FILE).write_text("{")
    assert refusals.read(root) == ()
    refusals.record(root, "again")
    assert [r.reason for r in refusals.read(root)] == ["again"]


def test_no_run_has_the_name_of_the_file():
    with pytest.raises(BadInput):
        check_run_id(refusals.FILE)


def test_a_refusal_creates_no_root(tmp_path):
    refusals.record(Root(tmp_path / "none"), "x")
    assert not (tmp_path / "none").exists()

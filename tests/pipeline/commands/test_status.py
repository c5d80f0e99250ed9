import pytest

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

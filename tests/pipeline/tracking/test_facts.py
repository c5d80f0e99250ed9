"""Names and numbers in a form that MLflow accepts."""

import json

import pytest

from fraud.pipeline import cli
from fraud.pipeline.artifacts import RunSummary, Training
from fraud.pipeline.root import Root
from fraud.pipeline.tracking import facts


@pytest.mark.parametrize(
    "parts, expected",
    [
        (["slices", "CHANNEL", "chip"], "slices/CHANNEL/chip"),
        (["a/b", "<script>", 'x"y\nz'], "a_b/_script_/x_y_z"),
        (["..", "."], "_/_"),
        (["café"], "café"),
        (["x" * 300], "x" * 200),
    ],
)
def test_names_have_no_characters_that_mlflow_refuses(parts, expected):
    assert facts.named(parts) == expected


def test_slices_that_differ_only_in_odd_characters_are_both_kept():
    summary = RunSummary(
        run_id="r",
        outcome="pushed",
        root="/r",
        metrics={
            "overall": {"average_precision": 0.5},
            "slices": {"shop=a?": {"recall_at_budget": 0.1}, "shop=a!": {"recall_at_budget": 0.2}},
        },
    )
    history = {"loss": [0.5, None, 0.3]}
    assert dict(facts._metrics(summary, Training(history, {}, {}))) == {
        "average_precision": [0.5],
        "slices/shop/a_/recall_at_budget": [0.1],
        "slices/shop/a_/recall_at_budget_2": [0.2],
        "training/loss": [0.5, None, 0.3],
    }


def test_what_belongs_to_a_run_is_that_of_its_root():
    key = "run r /data/root"
    assert facts.belongs(key, key) and facts.belongs(f"{key} trial 12", key)
    assert not facts.belongs("run r /data/root copy", key)
    assert not facts.belongs("run r /data/root-2", key)


def test_a_backtest_is_a_parent_of_its_folds(tmp_path):
    folder = tmp_path / "backtests" / "2026-11-01T10-00-00"
    folder.mkdir(parents=True)
    fold = {"test": ["2018-07-04", "2018-07-10"], "average_precision": 0.7, "roc_auc": None}
    result = {"folds": [fold], "mean": {"average_precision": 0.7}}
    (folder / "result.json").write_text(json.dumps(result))
    (tmp_path / "backtests" / "unfinished").mkdir()
    root = Root(tmp_path)
    ((key, status),) = facts.ended(root, None)
    assert status == facts.FINISHED
    backtest = facts.read(root, None, key)
    assert backtest.metrics == {"average_precision": [0.7]}
    (child,) = backtest.children
    assert facts.belongs(child.key, key)
    assert child.name == "fold 1: 2018-07-04 to 2018-07-10"
    assert child.metrics == {"average_precision": [0.7]}
    assert backtest.began <= backtest.ended


def test_without_a_server_track_says_how_to_name_one(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert cli.main(["track", "--root", str(tmp_path)]) == 2
    assert "tracking.uri" in capsys.readouterr().err


def test_a_root_that_is_not_there_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for folder in (tmp_path / "none", tmp_path):
        assert cli.main(["track", "--root", str(folder)]) == 2
        assert f"{folder}: nothing has run here" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

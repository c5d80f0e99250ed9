"""A backtest of the sample, as a user types it."""

import json

import pytest

from tests.e2e.conftest import CONFIG, SAMPLE

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_backtest_of_the_sample(new_bank):
    bank = new_bank(CONFIG)
    asked = ["--first-test-day", "2026-03-01", "--folds", 2, "--seeds", 2]
    done = bank.call("backtest", "--data", SAMPLE, *asked, "--json")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    result = json.loads(done.stdout)
    assert [fold["test"] for fold in result["folds"]] == [
        ["2026-03-01", "2026-03-07"],
        ["2026-03-08", "2026-03-14"],
    ]
    assert [fold["train"] for fold in result["folds"]] == [
        ["2026-02-12", "2026-02-21"],
        ["2026-02-19", "2026-02-28"],
    ]
    for fold in result["folds"]:
        assert fold["average_precision"] > 5 * fold["positives"] / fold["examples"]
        assert fold["roc_auc"] > 0.6
        assert 0 < fold["card_precision_at_15"] <= 1
        assert fold["train_cpu_seconds"] > 0
        first, second = fold["seeds"]
        assert first["average_precision"] != second["average_precision"]
    assert result["mean"]["roc_auc"] == pytest.approx(
        sum(fold["roc_auc"] for fold in result["folds"]) / 2, abs=1e-5
    )
    (kept,) = (bank.root / "backtests").glob("*/result.json")
    assert json.loads(kept.read_text()) == result

    again = bank.call("backtest", "--data", SAMPLE, *asked[:2], "--folds", 1, "--jobs", 1)
    assert again.returncode == 0, again.stderr
    figures = result["folds"][0]["seeds"][0]
    (line,) = [line for line in again.stdout.splitlines() if "2026-03-01 …" in line]
    assert f"{figures['average_precision']:.4f}" in line  # the same seed, the same model
    assert "XGBoost" in again.stdout

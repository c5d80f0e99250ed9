"""The summary of a backtest and its table."""

from __future__ import annotations

import json
from datetime import date

import numpy as np
import pytest

from fraud.pipeline.backtest.result import Outcome, is_handbook, render, summary
from tests.pipeline.backtest.reference import planned


def outcome(precisions, cpu=2.0):
    return Outcome(
        100,
        5,
        {
            seed: {
                "average_precision": value,
                "roc_auc": 0.9,
                "card_precision_at_100": 0.3,
                "train_cpu_seconds": cpu,
            }
            for seed, value in enumerate(precisions, start=7)
        },
    )


def test_the_summary_has_means_and_spreads():
    folds = planned()
    result = summary(folds, [outcome([0.7, 0.8]), outcome([0.5, 0.9], cpu=4.0)])
    assert [fold["average_precision"] for fold in result["folds"]] == [0.75, 0.7]
    assert result["folds"][0]["test"] == [str(folds[0].test.first), str(folds[0].test.last)]
    assert result["folds"][1]["seeds"][1] == {
        "seed": 8,
        "average_precision": 0.9,
        "roc_auc": 0.9,
        "card_precision_at_100": 0.3,
        "train_cpu_seconds": 4.0,
    }
    assert result["mean"]["average_precision"] == 0.725
    assert result["mean"]["train_cpu_seconds"] == 3.0
    assert (result["mean"]["examples"], result["mean"]["positives"]) == (100, 5)
    spread = result["spread"]
    assert spread["folds"]["average_precision"] == pytest.approx(
        np.std([0.75, 0.7], ddof=1), abs=1e-6
    )
    assert spread["seeds"]["average_precision"] == pytest.approx(
        np.std([0.6, 0.85], ddof=1), abs=1e-6
    )


def test_an_undefined_metric_is_null_in_json_and_a_dash_in_the_table():
    result = summary(planned(), [outcome([float("nan")]), outcome([0.5])])
    assert json.loads(json.dumps(result))["folds"][0]["average_precision"] is None
    assert result["mean"]["average_precision"] == 0.5
    assert "–" in render(result)


def test_the_table_has_the_published_figures_beside_the_mean():
    result = summary(planned(), [outcome([0.7]), outcome([0.6])])
    lines = render(result, published=True).split("\n")
    assert "XGBoost" not in render(result)
    (mean,) = [line for line in lines if line.strip().startswith("mean")]
    (boosting,) = [line for line in lines if line.strip().startswith("XGBoost")]
    assert mean.index("0.6500") == boosting.index("0.6870")
    assert not any("over seeds" in line for line in lines)


def test_only_the_handbooks_own_data_is_recognized():
    first, second = date(2018, 4, 1), date(2018, 4, 2)
    assert is_handbook({first: 9488, second: 9583, date(2018, 4, 3): 1})
    assert not is_handbook({first: 9488, second: 9582})
    assert not is_handbook({date(2018, 4, 3): 9488})

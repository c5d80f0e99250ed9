import math

import numpy as np
import pytest

from fraud.models.evaluation import intervals, metrics


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_proportion_is_as_in_table_1_of_newcombe_1998(hits, of, low, high):
    assert intervals.proportion(hits, of) == pytest.approx((low, high), abs=5e-5)


def test_roc_auc_is_as_in_the_example_of_hanley_and_mcneil():
    """109 images, 51 of them abnormal, area 0.893: they give a standard error of 0.032."""
    low, high = intervals.roc_auc(0.893, 51, 58)
    assert (high - low) / 2 / intervals.Z == pytest.approx(0.0325, abs=5e-5)
    assert (high + low) / 2 == pytest.approx(0.893)
    assert intervals.roc_auc(0.99, 3, 58)[1] == 1.0


def test_average_precision_is_symmetric_on_the_scale_of_logits():
    low, high = intervals.average_precision(0.8, 100)
    assert [math.log(x / (1 - x)) for x in (low, high)] == pytest.approx(
        [math.log(4) - 1.959964 / 4, math.log(4) + 1.959964 / 4]  # τ = 1 / √(100 × 0.8 × 0.2)
    )
    assert intervals.average_precision(0.5, 1) == pytest.approx((0.0195, 0.9805), abs=1e-4)


@pytest.mark.parametrize("area", [0.0, 1.0, math.nan])
def test_no_certainty_is_claimed_from_perfect_metrics(area):
    assert intervals.average_precision(area, 5) is None
    assert intervals.roc_auc(area, 5, 50) is None


def test_no_interval_without_transactions():
    for of in (0, math.nan):
        assert intervals.proportion(0, of) is None
        assert intervals.average_precision(0.5, of) is None
        assert intervals.roc_auc(0.5, of, 9) is None


def test_intervals_contain_the_truth_about_as_often_as_they_claim():
    """Scores of two normal distributions 1.5 apart, 60 frauds among 600: ROC AUC is Φ(1.5/√2)."""
    random = np.random.default_rng(1)
    labels = np.repeat([1, 0], [60, 540])
    population = random.normal(np.repeat([1.5, 0], [40_000, 360_000]))
    truth = metrics.average_precision(np.repeat([1, 0], [40_000, 360_000]), population)
    area = (1 + math.erf(1.5 / 2)) / 2
    covered = {"average_precision": 0, "roc_auc": 0}
    for _ in range(200):
        scores = random.normal(1.5 * labels)
        low, high = intervals.average_precision(metrics.average_precision(labels, scores), 60)
        covered["average_precision"] += low < truth < high
        low, high = intervals.roc_auc(metrics.roc_auc(labels, scores), 60, 540)
        covered["roc_auc"] += low < area < high
    assert all(170 < count <= 200 for count in covered.values()), covered

"""Curves for pictures: the same as scikit-learn's and as the metrics they illustrate."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as sklearn

from fraud.models.evaluation import curves, metrics
from fraud.models.evaluation.curves import Cards, Costs


@pytest.fixture
def examples():
    """Labels, scores with ties, alerts, days, cards and amounts of 3,000 transactions."""
    random = np.random.default_rng(7)
    labels = (random.random(3000) < 0.05).astype(np.int64)
    scores = np.round(np.clip(random.normal(0.2 + 0.3 * labels, 0.15), 0, 1), 3)
    days, cards = random.integers(17_000, 17_007, 3000), random.integers(0, 400, 3000)
    return labels, scores, scores >= 0.6, days, cards, random.exponential(50, 3000)


def described(examples) -> dict:
    labels, scores, alerts, days, cards, amounts = examples
    of_cards, costs = Cards(days, cards, 20), Costs(amounts, 5.0, 0.8)
    return curves.describe(labels, scores, alerts, of_cards, costs)


def test_curves_are_short_and_on_those_of_scikit_learn(examples):
    labels, scores, *_ = examples
    found = described(examples)
    precision, recall, _ = sklearn.precision_recall_curve(labels, scores)
    exact = {(round(r, 5), round(p, 5)) for r, p in zip(recall, precision, strict=True)}
    assert {tuple(point) for point in found["precision_recall"]} <= exact
    false, true, _ = sklearn.roc_curve(labels, scores, drop_intermediate=False)
    exact = {(round(f, 5), round(t, 5)) for f, t in zip(false, true, strict=True)}
    assert {tuple(point) for point in found["roc"]} <= exact
    assert found["roc"][0] == [0, 0] and found["roc"][-1] == [1, 1]
    assert found["precision_recall"][-1][0] == 1
    assert 50 < len(found["precision_recall"]) <= curves.POINTS
    area = np.trapezoid if hasattr(np, "trapezoid") else np.trapz
    x, y = zip(*found["roc"], strict=True)
    assert area(y, x) == pytest.approx(metrics.roc_auc(labels, scores), abs=1e-3)


def test_bins_contain_every_example_once(examples):
    labels, scores, *_ = examples
    found = described(examples)["bins"]
    assert sum(b["frauds"] for b in found) == labels.sum()
    assert sum(b["genuine"] for b in found) == (labels == 0).sum()
    for b in found:
        within = (scores >= b["low"]) & ((scores < b["high"]) | (b["high"] == 1))
        assert b["frauds"] == labels[within].sum()
        if within.any():
            assert b["mean_score"] == pytest.approx(scores[within].mean(), abs=1e-5)
        else:
            assert b["mean_score"] is None


def test_what_other_thresholds_would_have_done(examples):
    labels, scores, alerts, days, cards, amounts = examples
    found = described(examples)
    assert found["threshold"] == scores[alerts].min()
    assert 20 < len(found["thresholds"]) <= curves.THRESHOLDS
    for row in found["thresholds"]:
        would = scores >= row["threshold"]
        assert row["true_positives"] == (would & (labels == 1)).sum()
        assert row["false_positives"] == (would & (labels == 0)).sum()
        assert row["false_negatives"] == (~would & (labels == 1)).sum()
        checked = len({*zip(days[would], cards[would], strict=True)})
        assert row["cards_a_day"] == pytest.approx(checked / 7, abs=1e-5)
        saved = metrics.expected_cost_saved(labels, would, amounts, days, cards, 5.0, 0.8)
        assert row["cost_saved"] == pytest.approx(saved, abs=1e-4)


def test_counts_and_money_of_a_sample_are_those_of_all_about(examples):
    labels, scores, alerts, days, cards, amounts = examples
    given = (labels, scores, alerts, Cards(days, cards, 20), Costs(amounts, 5.0, 0.8))
    whole, sample = curves.describe(*given), curves.describe(*given, sample_share=0.25)
    assert (whole["sample_share"], sample["sample_share"]) == (1, 0.25)
    for name in ("precision_recall", "roc", "threshold"):
        assert sample[name] == whole[name]
    same = {"low", "high", "mean_score", "threshold", "day", "card_precision"}
    for name in ("bins", "thresholds", "days"):
        assert whole[name]
        for mine, other in zip(sample[name], whole[name], strict=True):
            assert mine.keys() == other.keys()
            for key, value in other.items():
                times = 1 if key in same or value is None else 4
                assert mine[key] == (value if times == 1 else pytest.approx(times * value)), key


def test_the_mean_over_the_days_is_card_precision(examples):
    labels, scores, _, days, cards, _ = examples
    found = described(examples)["days"]
    mean = np.mean([day["card_precision"] for day in found])
    whole = metrics.card_precision_at_k(labels, scores, days, cards, 20)
    assert mean == pytest.approx(whole, abs=1e-5)
    assert [day["day"] for day in found] == list(range(17_000, 17_007))
    assert sum(day["frauds"] for day in found) == labels.sum()


def test_the_order_of_the_examples_does_not_matter(examples):
    order = np.random.default_rng(1).permutation(3000)
    shuffled = described([array[order] for array in examples])
    assert json.dumps(shuffled) == json.dumps(described(examples))


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only(label):
    labels, scores = np.full(5, label), np.linspace(0, 1, 5)
    found = curves.describe(labels, scores, scores > 2)
    assert found["roc"] == [] and found["threshold"] is None and found["days"] == []
    assert bool(found["precision_recall"]) == bool(label)
    assert json.dumps(found, allow_nan=False)

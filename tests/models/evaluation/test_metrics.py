"""Each metric against a slow computation that follows its definition literally."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from fraud.models.evaluation import metrics


def transactions(seed, n=4000, cards=300, days=7, share=0.05):
    """Labels, informative scores with ties, days and cards."""
    random = np.random.default_rng(seed)
    labels = (random.random(n) < share).astype(np.int64)
    scores = np.round(random.beta(1 + 2 * labels, 4), 2)
    return labels, scores, random.integers(0, days, n), random.integers(0, cards, n)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("digits", [2, 12])
def test_areas_under_curves_are_those_of_scikit_learn(seed, digits):
    labels, scores, _, _ = transactions(seed)
    scores = np.round(scores + 1e-3 * np.random.default_rng(seed).random(scores.size), digits)
    assert metrics.average_precision(labels, scores) == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )
    assert metrics.roc_auc(labels, scores) == pytest.approx(
        roc_auc_score(labels, scores), abs=1e-12
    )


def test_equal_scores_are_as_good_as_chance():
    labels = np.array([1, 0, 0, 0])
    assert metrics.average_precision(labels, np.full(4, 0.5)) == 0.25
    assert metrics.roc_auc(labels, np.full(4, 0.5)) == 0.5


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_has_no_roc_auc(label):
    labels, scores = np.full(5, label), np.linspace(0, 1, 5)
    assert np.isnan(metrics.roc_auc(labels, scores))
    assert np.isnan(metrics.average_precision(labels, scores)) == (label == 0)


def slow_card_precisions(labels, scores, days, cards, k):
    """The handbook's procedure, a transaction at a time."""
    detected, precisions = set(), []
    for day in sorted(set(days.tolist())):
        highest, compromised = {}, set()
        for label, score, d, card in zip(labels, scores, days, cards, strict=True):
            if d != day or card in detected:
                continue
            highest[card] = max(score, highest.get(card, -1.0))
            if label == 1:
                compromised.add(card)
        top = sorted(highest, key=lambda card: (-highest[card], card))[:k]
        caught = compromised.intersection(top)
        precisions.append(len(caught) / k)
        detected |= caught
    return precisions


@pytest.mark.parametrize("k", [1, 10, 1000])
def test_card_precision_follows_the_handbook(k):
    labels, scores, days, cards = transactions(5)
    expected = np.mean(slow_card_precisions(labels, scores, days, cards, k))
    value = metrics.card_precision_at_k(labels, scores, days, cards, k)
    assert value == pytest.approx(expected)


def test_a_detected_card_is_gone_on_later_days():
    # Day 0: card a is caught. Day 1: a would be first again, but is blocked; b is checked.
    labels, scores = np.array([1, 1, 0]), np.array([0.9, 0.9, 0.5])
    cards = np.array([b"a", b"a", b"b"])
    value = metrics.card_precision_at_k(labels, scores, np.array([0, 1, 1]), cards, 1)
    assert value == np.mean([1.0, 0.0])


def test_a_compromised_card_counts_by_its_highest_score_even_of_a_genuine_transaction():
    labels, scores = np.array([1, 0, 0]), np.array([0.1, 0.9, 0.5])
    cards, day = np.array([1, 1, 2]), np.zeros(3, int)
    assert metrics.card_precision_at_k(labels, scores, day, cards, 1) == 1.0


def test_alerts_at_the_budget():
    labels, scores, _, _ = transactions(6)
    alerts = scores >= 0.6
    pairs = list(zip(labels.tolist(), alerts.tolist(), strict=True))
    caught = pairs.count((1, True))
    assert metrics.precision_at_budget(labels, alerts) == caught / sum(a for _, a in pairs)
    assert metrics.recall_at_budget(labels, alerts) == caught / sum(labels.tolist())


def test_a_metric_without_a_denominator_is_nan():
    none = np.zeros(3, bool)
    assert np.isnan(metrics.precision_at_budget(np.ones(3, int), none))
    assert np.isnan(metrics.recall_at_budget(np.zeros(3, int), none))


def test_cost_saved_pays_one_check_for_each_card_and_day():
    labels, scores, days, cards = transactions(7)
    amounts = np.random.default_rng(7).lognormal(3, 1, labels.size)
    amounts[::50] = np.nan
    alerts = scores >= 0.5
    saved, checks = 0.0, set()
    for row in range(labels.size):
        if alerts[row]:
            checks.add((days[row], cards[row]))
            if labels[row] == 1 and amounts[row] == amounts[row]:
                saved += amounts[row]
    value = metrics.expected_cost_saved(labels, alerts, amounts, days, cards, 4.0, 0.8)
    assert value == pytest.approx(0.8 * saved - 4.0 * len(checks))


def test_no_alert_saves_and_costs_nothing():
    nothing, ones = np.zeros(3, bool), np.ones(3)
    cards = np.array([b"a", b"b", b"c"])
    assert metrics.expected_cost_saved(ones, nothing, ones, ones, cards, 4, 1) == 0


def test_calibration():
    labels, scores, _, _ = transactions(8)
    scores[0] = 1.0
    assert metrics.brier(labels, scores) == pytest.approx(
        sum((s - y) ** 2 for s, y in zip(scores, labels, strict=True)) / labels.size
    )
    mean = labels.mean()
    reference = sum((mean - y) ** 2 for y in labels)
    error = sum((s - y) ** 2 for s, y in zip(scores, labels, strict=True))
    assert metrics.brier_skill(labels, scores) == pytest.approx(1 - error / reference)
    error = 0.0
    for i in range(10):
        upper = (scores < (i + 1) / 10) if i < 9 else (scores <= 1)
        rows = (scores >= i / 10) & upper
        if rows.any():
            error += rows.mean() * abs(scores[rows].mean() - labels[rows].mean())
    assert metrics.expected_calibration_error(labels, scores) == pytest.approx(error)


def test_scores_that_are_the_share_of_frauds_are_calibrated():
    labels = np.array([1, 0, 0, 0])
    assert metrics.brier_skill(labels, np.full(4, 0.25)) == 0
    assert metrics.brier_skill(labels, labels) == 1
    assert math.isnan(metrics.brier_skill(np.ones(3), np.ones(3)))
    assert metrics.expected_calibration_error(labels, np.full(4, 0.25)) == 0


def test_calibration_gaps_of_different_bins_do_not_cancel():
    scores = np.array([0.05, 0.099, 0.1, 0.85, 0.95, 1.0])  # in the bins 0, 0, 1, 8, 9, 9
    labels = np.array([1, 0, 0, 1, 1, 0])
    gaps = [1 - 0.05 - 0.099, 0.1, 1 - 0.85, 1.0 + 0.95 - 1]
    error = metrics.expected_calibration_error(labels, scores)
    assert error == pytest.approx(sum(gaps) / 6)


def test_cards_a_day_are_counted_once_a_day():
    days, cards = np.array([1, 1, 1, 4]), np.array([b"a", b"a", b"b", b"a"])
    assert metrics.cards_a_day(days, cards) == 1.5


@pytest.mark.parametrize(
    "values",
    [
        np.array([b"b", b"a", b"b", b"", b"aa", b"\xff"], object),
        np.array(["b", "é", "b", "a"], object),
        np.array([b"b", b"a", b"b"]),
        np.array([3, -1, 3, 2**62]),
        np.array([], object),
        np.array([], np.int64),
    ],
)
def test_values_are_numbered_in_their_order(values):
    distinct, numbers = metrics.numbered(values)
    expected, inverse = np.unique(values, return_inverse=True)
    assert distinct.tolist() == expected.tolist()
    assert numbers.tolist() == inverse.tolist()

"""Two models on the same transactions."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from fraud.models.evaluation.bootstrap import Outputs
from fraud.monitoring import shadow
from fraud.monitoring.checks import Kind, Verdict
from fraud.monitoring.policy import LoopSettings

POLICY = LoopSettings()
RANDOM = np.random.default_rng(0)
LABELS = (RANDOM.random(4000) < 0.02).astype(float)
CARDS = RANDOM.integers(0, 800, 4000)


def model(skill: float, level: float = 0.01, seed: int = 1) -> Outputs:
    """Scores that know of a share `skill` of the frauds."""
    random = np.random.default_rng(seed)
    known = (LABELS == 1) & (random.random(LABELS.size) < skill)
    scores = np.clip(random.exponential(level, LABELS.size) + 0.6 * known, 0, 1)
    return Outputs(scores.astype(np.float32), scores > 0.3)


def test_two_good_models_do_not_differ_suspiciously() -> None:
    assert shadow.differences(model(0.8), model(0.8, 0.012, seed=2), POLICY) == ()


def test_a_model_that_alerts_on_everything_or_nothing_does() -> None:
    good = model(0.8)
    everything = Outputs(good.scores, np.ones(LABELS.size, bool))
    nothing = Outputs(good.scores, np.zeros(LABELS.size, bool))
    (many,) = shadow.differences(everything, good, POLICY)
    assert many.startswith("4000 alerts in 4000 transactions, of which the one before has ")
    assert len(shadow.differences(nothing, good, POLICY)) == 1


def test_a_model_that_is_as_it_was_evaluated_may_differ() -> None:
    """One that has learnt a new fraud gives other scores than the one before."""
    old = model(0.8)
    learnt = Outputs(np.clip(old.scores + 0.1, 0, 1), np.ones(LABELS.size, bool))
    assert len(shadow.differences(learnt, old, POLICY, is_as_evaluated=False)) == 2
    assert shadow.differences(learnt, old, POLICY, is_as_evaluated=True) == ()
    broken = Outputs(old.scores * np.nan, old.alerts)
    assert len(shadow.differences(broken, old, POLICY, is_as_evaluated=True)) == 1


def test_few_alerts_say_nothing() -> None:
    scores = np.full(1000, 0.01, np.float32)
    one, none = np.zeros(1000, bool), np.zeros(1000, bool)
    one[:9] = True
    assert shadow.differences(Outputs(scores, one), Outputs(scores, none), POLICY) == ()


def test_scores_that_moved_are_noticed() -> None:
    old = model(0.8)
    moved = Outputs(np.clip(old.scores + 0.1, 0, 1), old.alerts)
    (found,) = shadow.differences(moved, old, POLICY)
    assert found.startswith("scores moved: population stability index")
    assert shadow.shift(old.scores, old.scores) == 0
    assert shadow.shift(old.scores, moved.scores) == pytest.approx(
        shadow.shift(moved.scores, old.scores)
    )


def test_the_index_is_that_of_shares_in_bins() -> None:
    scores, others = np.array([0.005, 0.3]), np.array([0.005, 0.0])
    expected = -1 / 5.5 * math.log(1.5 / 2.5) + 1 / 5.5 * math.log(1.5 / 0.5)
    assert shadow.shift(scores, others) == pytest.approx(expected)
    policy = replace(POLICY, max_score_shift=shadow.shift(scores, others))
    outputs = [Outputs(each, np.zeros(2, bool)) for each in (scores, others)]
    assert shadow.differences(*outputs, policy) == ()  # as much as is allowed
    closer = replace(policy, max_score_shift=policy.max_score_shift - 1e-9)
    assert len(shadow.differences(*outputs, closer)) == 1
    edges = [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    for low, high in itertools.pairwise(edges):  # each bin is one, and others are others
        inside, next_one = np.full(99, low), np.full(99, high)
        assert shadow.shift(inside, np.full(99, (low + high) / 2)) == 0
        assert (shadow.shift(inside, next_one) > 1) == (high < 1)
    assert shadow.shift(np.array([-3.0, 4.0]), np.array([0.0, 1.0])) == 0


def test_as_many_alerts_as_are_allowed_are_no_difference() -> None:
    policy = replace(POLICY, max_alert_rate_ratio=3.0)
    scores = np.full(1000, 0.01, np.float32)

    def raising(alerts: int) -> Outputs:
        return Outputs(scores, np.arange(1000) < alerts)

    for new, old, found in ((10, 3, 0), (11, 3, 1), (3, 10, 0), (3, 11, 1)):
        assert len(shadow.differences(raising(new), raising(old), policy)) == found, (new, old)
    assert len(shadow.differences(raising(10), raising(0), policy)) == 1
    assert len(shadow.differences(raising(0), raising(10), policy)) == 1


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1])
def test_scores_that_are_no_probabilities_are_noticed(bad: float) -> None:
    old = model(0.8)
    scores = old.scores.copy()
    scores[:41] = bad
    (found,) = shadow.differences(Outputs(scores, old.alerts), old, POLICY)
    assert found == "41 of 4000 scores are no probabilities"
    scores[40] = 0.0
    lenient = replace(POLICY, max_score_shift=1e9)
    assert shadow.differences(Outputs(scores, old.alerts), old, lenient) == ()
    bounds = Outputs(np.array([0.0, 1.0] * 50), np.zeros(100, bool))
    assert shadow.differences(bounds, bounds, POLICY) == ()


def test_a_worse_model_does_harm_and_an_equal_one_does_not() -> None:
    worse = shadow.harm(LABELS, CARDS, model(0.3), model(0.8, seed=2), "version 7", 0.01)
    assert worse.verdict is Verdict.ACT and worse.kind is Kind.HARM
    assert worse.name == "average_precision_change/version 7" and worse.value < -0.2
    equal = shadow.harm(LABELS, CARDS, model(0.8), model(0.8, seed=2), "version 7", 0.01)
    better = shadow.harm(LABELS, CARDS, model(0.8), model(0.3, seed=2), "version 7", 0.01)
    assert equal.verdict is better.verdict is Verdict.OK
    assert worse.interval and worse.interval[0] < worse.value < worse.interval[1] < 0
    low, high = worse.interval
    assert worse.detail == f"in 4000 transactions; 95 % {low:+.3f} … {high:+.3f}"
    assert worse.threshold == equal.threshold == -0.01


def test_a_difference_as_small_as_the_gate_allows_is_no_harm() -> None:
    found = shadow.harm(LABELS, CARDS, model(0.3), model(0.8, seed=2), "version 7", 0.0)
    assert found.interval is not None
    for allowed, verdict in ((0.0, Verdict.ACT), (-found.interval[1], Verdict.OK)):
        check = shadow.harm(LABELS, CARDS, model(0.3), model(0.8, seed=2), "7", allowed)
        assert (check.verdict, check.threshold) == (verdict, -allowed)


def test_transactions_without_labels_do_not_count() -> None:
    labels = LABELS.copy()
    labels[::2] = np.nan
    live, other = model(0.3), model(0.8, seed=2)
    half = [Outputs(each.scores[1::2], each.alerts[1::2]) for each in (live, other)]
    expected = shadow.harm(LABELS[1::2], CARDS[1::2], *half, "version 7", 0.01)
    assert shadow.harm(labels, CARDS, live, other, "version 7", 0.01) == expected
    assert expected.detail.startswith("in 2000 transactions")


def test_without_labels_nobody_knows() -> None:
    few = LABELS.copy()
    few[np.flatnonzero(LABELS)[3:]] = np.nan
    for labels in (np.full(LABELS.size, np.nan), few):
        check = shadow.harm(labels, CARDS, model(0.1), model(0.9), "version 7", 0.01)
        assert check.verdict is Verdict.CANNOT_JUDGE and check.kind is Kind.HARM
        assert check.interval is None and check.threshold == -0.01
    assert check.value is not None and check.detail == "3 independent frauds, which is too few"
    nobody = shadow.harm(np.zeros(LABELS.size), CARDS, model(0.1), model(0.9), "version 7", 0.01)
    assert nobody.value is None and nobody.detail == "no frauds known yet"

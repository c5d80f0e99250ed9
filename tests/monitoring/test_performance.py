"""The arithmetic of performance: estimates, drops and intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud.models.evaluation import curves, metrics
from fraud.monitoring import performance
from fraud.monitoring.checks import Verdict
from fraud.monitoring.performance import Measured
from fraud.monitoring.production import Promise, Scored
from fraud.monitoring.spec import Monitoring

probabilities = st.lists(
    st.floats(0, 1, width=32).map(lambda x: round(x, 3)), min_size=2, max_size=40
)


@given(probabilities, st.data())
def test_estimates_of_certain_scores_are_what_labels_say(scores, data):
    """A score of 0 or 1 leaves nothing to chance."""
    certain = np.round(np.array(scores))
    alerts = np.array(data.draw(st.lists(st.booleans(), min_size=len(scores))))[: len(scores)]
    estimate = performance.expected_confusion(certain, alerts)
    proved = performance.of_labels(certain, certain, alerts)
    assert estimate == pytest.approx(proved, nan_ok=True)


@given(probabilities)
def test_estimates_are_shares_and_do_not_depend_on_the_order(scores):
    array = np.array(scores)
    estimate = performance.expected_confusion(array, array > 0.5)
    for value in estimate.values():
        assert np.isnan(value) or 0 <= value <= 1 + 1e-9
    order = np.random.default_rng(0).permutation(len(array))
    again = performance.expected_confusion(array[order], array[order] > 0.5)
    assert again == pytest.approx(estimate, nan_ok=True)


def test_estimates_are_right_on_average_if_scores_are_probabilities():
    random = np.random.default_rng(0)
    scores = random.beta(0.05, 2, 20_000)
    alerts = scores > 0.3
    estimate = performance.expected_confusion(scores, alerts)
    proved = [
        performance.of_labels((random.random(len(scores)) < scores).astype(int), scores, alerts)
        for _ in range(40)
    ]
    for name, value in estimate.items():
        assert np.mean([p[name] for p in proved]) == pytest.approx(value, abs=0.01)


def test_intervals_of_estimates_are_those_of_drawn_labels():
    random = np.random.default_rng(0)
    scores = np.round(random.beta(0.05, 2, 5000), 3)  # many are equal
    of = scored(np.zeros(5000), scores)
    found = performance._simulated(of)
    proved = [
        performance.of_labels((random.random(5000) < of.scores).astype(int), of.scores, of.alerts)
        for _ in range(300)
    ]
    for name, (low, high) in found.items():
        drawn = np.quantile([p[name] for p in proved], [0.025, 0.975])
        assert (low, high) == pytest.approx(tuple(drawn), abs=0.02)
    assert found.keys() == proved[0].keys()


def scored(labels, scores, amounts=None, cards=None, days=None) -> Scored:
    n = len(labels)
    rows = np.arange(n)
    return Scored(
        position=rows,
        logged=rows,
        days=np.zeros(n, np.int64) if days is None else days,
        labels=np.asarray(labels, float),
        cards=rows if cards is None else cards,
        amounts=np.full(n, 10.0) if amounts is None else amounts,
        scores=np.asarray(scores, np.float32),
        alerts=np.asarray(scores) >= 0.5,
        is_live=np.ones(n, bool),
    )


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 0.3))
def test_the_threshold_is_where_the_verdict_changes(value, expected, deviation):
    settings = Monitoring()
    least = expected - settings.max_drop

    def judged(value: float):
        return performance.judged(
            "recall", Measured(value, None), least, deviation, settings, Verdict.ACT, expected
        )

    threshold = judged(value).threshold
    assert threshold is not None and threshold < least
    assert judged(threshold - 1e-6).verdict is Verdict.ACT
    assert judged(threshold + 1e-6).verdict is Verdict.WARN
    assert judged(max(least, value)).verdict is Verdict.OK
    order = [Verdict.ACT, Verdict.WARN, Verdict.OK]
    assert order.index(judged(value).verdict) <= order.index(judged(value + 0.1).verdict)


def test_a_drop_is_judged_by_both_uncertainties():
    """The same drop: certain if both are known well, chance if the Evaluator's eval was small."""
    settings = Monitoring()
    measured = Measured(0.6, (0.55, 0.65))
    verdicts = [
        performance._dropped(
            "recall", measured, {"recall": 0.8}, {"recall": interval}, 1.0, settings, Verdict.ACT
        ).verdict
        for interval in [(0.75, 0.85), (0.4, 1.0)]
    ]
    assert verdicts == [Verdict.ACT, Verdict.WARN]


def test_what_the_evaluator_did_not_measure_is_not_judged():
    settings, measured = Monitoring(), Measured(0.6, (0.55, 0.65))
    for metrics_of, intervals in [({}, {}), ({"recall": 0.8}, {}), ({"recall": None}, {})]:
        check = performance._dropped(
            "recall", measured, metrics_of, intervals, 1.0, settings, Verdict.ACT
        )
        assert check.verdict is Verdict.CANNOT_JUDGE
        assert check.value == 0.6


def test_what_is_measured_varies_as_it_would_if_nothing_had_changed():
    """Few cards with many missed frauds make the measurement uncertain, and must not hide so."""

    def verdict(interval, days: float) -> Verdict:
        of = {"recall": 0.75}, {"recall": (0.65, 0.85)}
        measured = Measured(0.55, interval)
        return performance._dropped(
            "recall", measured, *of, days, Monitoring(), Verdict.ACT
        ).verdict

    assert verdict((0.45, 0.65), 1.0) is Verdict.ACT
    assert verdict((0.15, 0.95), 1.0) is Verdict.ACT
    assert verdict((0.15, 0.95), 7.0) is Verdict.WARN  # a day alone, after seven in evaluation
    assert verdict((0.45, 0.65), 7.0) is Verdict.ACT


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_wilson_covers_the_share(share):
    random = np.random.default_rng(0)
    inside = 0
    for found in random.binomial(100, share, 2000) / 100:
        low, high = performance.wilson(found, 100)
        assert 0 <= low <= found <= high <= 1
        inside += low <= share <= high
    assert inside / 2000 == pytest.approx(0.95, abs=0.03)


def test_the_interval_of_the_calibration_covers_1():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        cards = random.integers(0, 500, 3000)
        scores = random.beta(0.1, 3, 3000)
        labels = random.random(3000) < scores
        check = performance._calibration(scored(labels, scores, cards=cards), Monitoring())
        covered += check.interval[0] <= 1 <= check.interval[1]
    assert covered / 200 == pytest.approx(0.95, abs=0.04)


def test_the_interval_of_the_cost_is_that_of_a_bootstrap_of_cards():
    from fraud.models.spec import Evaluation

    random = np.random.default_rng(0)
    n = 4000
    cards, days = random.integers(0, 400, n), random.integers(0, 7, n)
    scores = random.beta(0.2, 2, n)
    of = scored(random.random(n) < scores, scores, random.lognormal(3, 1, n), cards, days)
    evaluation = Evaluation(check_cost=5, saved_share=0.8)
    check = performance._cost(of, evaluation)
    total = metrics.expected_cost_saved(of.labels, of.alerts, of.amounts, of.days, of.cards, 5, 0.8)
    assert check.value == pytest.approx(total / 7)
    by_card = {card: np.flatnonzero(cards == card) for card in np.unique(cards)}
    values = []
    for _ in range(300):
        drawn = random.choice(list(by_card), len(by_card))
        rows = np.concatenate([by_card[c] for c in drawn])
        # A card that is drawn twice is two cards.
        copies = np.repeat(np.arange(len(drawn)), [len(by_card[c]) for c in drawn])
        values.append(
            metrics.expected_cost_saved(
                of.labels[rows], of.alerts[rows], of.amounts[rows], of.days[rows], copies, 5, 0.8
            )
            / 7
        )
    width = np.quantile(values, 0.975) - np.quantile(values, 0.025)
    assert check.interval[1] - check.interval[0] == pytest.approx(width, rel=0.2)


@given(st.lists(st.floats(0, 1, width=32), min_size=1))
def test_scores_are_counted_as_the_evaluator_counts_them(scores):
    array = np.array(scores, np.float32)
    theirs = curves.bins(np.zeros(len(array), bool), array.astype(np.float64))
    assert performance.score_counts(array).tolist() == [b["genuine"] for b in theirs]


def test_scores_of_another_distribution_act_and_of_the_same_do_not():
    random = np.random.default_rng(0)
    before = random.beta(0.1, 3, 10_000)
    promise = Promise(score_counts=tuple(performance.score_counts(before).tolist()))
    same = scored(np.zeros(3000), random.beta(0.1, 3, 3000))
    other = scored(np.zeros(3000), random.beta(0.3, 3, 3000))
    verdicts = [
        performance._distribution(of, promise, Monitoring()).verdict for of in (same, other)
    ]
    assert verdicts == [Verdict.OK, Verdict.ACT]


def test_alerts_are_compared_with_the_evaluators():
    counts = {"true_positives": 60.0, "false_positives": 40.0, "example_count": 10_000.0}
    promise = Promise(metrics=counts)
    random = np.random.default_rng(0)
    for rate, verdict in [(0.01, Verdict.OK), (0.03, Verdict.ACT), (0.001, Verdict.ACT)]:
        scores = np.where(random.random(10_000) < rate, 0.9, 0.1)
        check = performance._alert_rate(scored(np.zeros(10_000), scores), promise, Monitoring())
        assert check.verdict is verdict
    nothing = Promise(metrics={**counts, "true_positives": 0.0, "false_positives": 0.0})
    check = performance._alert_rate(scored(np.zeros(10_000), scores), nothing, Monitoring())
    assert check.verdict is Verdict.CANNOT_JUDGE

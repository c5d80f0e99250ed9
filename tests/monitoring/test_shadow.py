"""Two models on the same transactions."""

from __future__ import annotations

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


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1])
def test_scores_that_are_no_probabilities_are_noticed(bad: float) -> None:
    old = model(0.8)
    scores = old.scores.copy()
    scores[:41] = bad
    (found,) = shadow.differences(Outputs(scores, old.alerts), old, POLICY)
    assert found == "41 of 4000 scores are no probabilities"


def test_a_worse_model_does_harm_and_an_equal_one_does_not() -> None:
    worse = shadow.harm(LABELS, CARDS, model(0.3), model(0.8, seed=2), "version 7")
    assert worse.verdict is Verdict.ACT and worse.kind is Kind.HARM
    assert worse.name == "average_precision_change/version 7" and worse.value < -0.2
    equal = shadow.harm(LABELS, CARDS, model(0.8), model(0.8, seed=2), "version 7")
    better = shadow.harm(LABELS, CARDS, model(0.8), model(0.3, seed=2), "version 7")
    assert equal.verdict is better.verdict is Verdict.OK


def test_without_labels_nobody_knows() -> None:
    few = LABELS.copy()
    few[np.flatnonzero(LABELS)[3:]] = np.nan
    for labels in (np.full(LABELS.size, np.nan), few):
        check = shadow.harm(labels, CARDS, model(0.1), model(0.9), "version 7")
        assert check.verdict is Verdict.CANNOT_JUDGE and check.detail

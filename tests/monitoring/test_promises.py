"""What earlier versions promised, and whether production keeps to it."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from statistics import NormalDist

import pytest

from fraud.monitoring import promises
from fraud.monitoring.checks import Check, Kind, Observation, Verdict
from fraud.monitoring.decide import Decision
from fraud.monitoring.journal import Entry, Journal, Training
from fraud.monitoring.spec import Monitoring

DAY = date(2026, 3, 1)
SETTINGS = Monitoring()
PROMISED = "promised_average_precision/recent versions"
KEPT = "average_precision/recent versions"


def measured(name: str, value: float, width: float = 0.1) -> Check:
    interval = (value - width / 2, value + width / 2)
    return Check(name, value, interval, None, Verdict.OK, "", Kind.PERFORMANCE)


def seen(
    number: int, promise: float, own: float | None = None, of_all: float | None = None
) -> Observation:
    checks = [measured("average_precision/promised", promise)]
    unknown = Check("average_precision", None, None, None, Verdict.CANNOT_JUDGE)
    checks.append(unknown if own is None else measured("average_precision", own))
    if of_all is not None:
        checks.append(measured("average_precision/all versions", of_all))
    return Observation(DAY + timedelta(number), 1, tuple(checks))


def verdicts(
    now: Observation, *earlier: Observation, is_repaired: bool = False
) -> dict[str, Verdict]:
    found = promises.with_checks(now, earlier, is_repaired, SETTINGS)
    assert found.checks[: len(now.checks)] == now.checks
    return {check.name: check.verdict for check in found.checks[len(now.checks) :]}


def test_a_version_that_promises_less_than_those_before_is_noticed_each_day() -> None:
    """It keeps its promise, so that nothing else would tell."""
    good = seen(0, 0.8, own=0.8)
    for number in (1, 20, 42):
        assert verdicts(seen(number, 0.5, own=0.5), good)[PROMISED] is Verdict.ACT
    assert verdicts(seen(43, 0.5, own=0.5), good) == {KEPT: Verdict.OK}  # too long ago
    assert verdicts(seen(1, 0.75, own=0.75), good)[PROMISED] is Verdict.OK
    assert verdicts(seen(1, 0.9, own=0.9), good)[PROMISED] is Verdict.OK


def test_the_first_version_has_none_to_be_compared_with() -> None:
    assert verdicts(seen(1, 0.5, own=0.5), seen(0, 0.5, own=0.5)) == {KEPT: Verdict.OK}
    nothing = replace(seen(1, 0.5), checks=())
    assert verdicts(nothing) == {}
    later = seen(2, 0.9, own=0.9)
    assert verdicts(seen(1, 0.5, own=0.5), later) == {KEPT: Verdict.OK}


def test_production_is_judged_by_all_promises_of_the_last_weeks() -> None:
    """The live version promised .6 by chance or for a reason; others promised .8."""
    before = [seen(number, promise) for number, promise in enumerate((0.8, 0.81, 0.79))]
    alone = verdicts(seen(9, 0.6, own=0.55))
    assert alone[KEPT] is Verdict.OK
    assert verdicts(seen(9, 0.6, own=0.55), *before)[KEPT] is Verdict.ACT
    assert verdicts(seen(9, 0.6, own=0.74), *before)[KEPT] is Verdict.OK


def test_a_precise_promise_counts_for_more() -> None:
    vague = Observation(DAY, 1, (measured("average_precision/promised", 0.2, width=0.8),))
    exact = Observation(DAY, 1, (measured("average_precision/promised", 0.8, width=0.02),))
    now = seen(1, 0.8, own=0.8)
    (kept,) = [
        check
        for check in promises.with_checks(now, [vague, exact], False, SETTINGS).checks
        if check.name == KEPT
    ]
    assert kept.detail.startswith("0.800 in evaluation")  # not their mean, .6


@pytest.mark.parametrize(
    ("is_repaired", "verdict"), [(False, Verdict.ACT), (True, Verdict.CANNOT_JUDGE)]
)
def test_until_a_version_has_labels_it_knows_no_more_than_those_before(
    is_repaired: bool, verdict: Verdict
) -> None:
    """Unless it was trained for a change: then what earlier versions missed tells nothing."""
    now = seen(9, 0.8, of_all=0.4)
    assert verdicts(now, seen(0, 0.8), is_repaired=is_repaired)[KEPT] is verdict
    own = seen(9, 0.8, own=0.8, of_all=0.4)
    assert verdicts(own, seen(0, 0.8), is_repaired=is_repaired)[KEPT] is Verdict.OK


def test_recall_is_judged_likewise() -> None:
    def of(number: int, value: float) -> Observation:
        checks = measured("recall_at_budget/promised", 0.8), measured("recall_at_budget", value)
        return Observation(DAY + timedelta(number), 1, checks)

    name = "recall_at_budget/recent versions"
    assert verdicts(of(1, 0.4), of(0, 0.8)) == {name: Verdict.ACT}
    assert verdicts(of(1, 0.8), of(0, 0.8)) == {name: Verdict.OK}


@pytest.mark.parametrize(("changed", "verdict"), [(DAY, Verdict.CANNOT_JUDGE), (None, Verdict.ACT)])
def test_the_journal_tells_what_the_live_version_was_trained_for(
    tmp_path: Path, changed: date | None, verdict: Verdict
) -> None:
    journal = Journal(tmp_path)
    decision = Decision(DAY, "retrain", changed=changed)
    training = Training("pushed", pushed="1")
    journal.write(Entry(DAY, observation=seen(0, 0.8), decision=decision, training=training))
    now = promises.of_journal(seen(9, 0.8, of_all=0.4), journal, SETTINGS)
    assert {check.name: check.verdict for check in now.checks}[KEPT] is verdict


def checks_of(now: Observation, *earlier: Observation) -> dict[str, Check]:
    found = promises.with_checks(now, earlier, False, SETTINGS).checks
    return {check.name: check for check in found[len(now.checks) :]}


def test_thresholds_leave_room_for_the_chance_in_both_figures() -> None:
    """Promises of .8 and .6, the second twice as exact, hence with four times the weight."""
    first = Observation(DAY, 1, (measured("average_precision/promised", 0.8, width=0.2),))
    second = Observation(DAY, 1, (measured("average_precision/promised", 0.6, width=0.1),))
    own = measured("average_precision/promised", 0.64, width=0.08)
    now = replace(seen(1, 0.0, own=0.64), checks=(own, measured("average_precision", 0.64, 0.3)))
    normal = NormalDist()
    beyond, deviations = normal.inv_cdf(SETTINGS.act_probability), 2 * normal.inv_cdf(0.975)

    def threshold(pooled: float, width: float, own_width: float) -> float:
        deviation = math.hypot(width, own_width) / deviations
        return pooled - SETTINGS.max_drop - beyond * deviation

    found = checks_of(now, first, second)
    of_two = 1 / math.sqrt(1 / 0.2**2 + 1 / 0.1**2)
    assert found[PROMISED].threshold == pytest.approx(threshold(0.64, of_two, 0.08))
    assert found[PROMISED].value == 0.64 and "0.640 in evaluation" in found[PROMISED].detail
    of_three = 1 / math.sqrt(1 / 0.2**2 + 1 / 0.1**2 + 1 / 0.08**2)
    assert found[KEPT].threshold == pytest.approx(threshold(0.64, of_three, 0.3))


def test_a_promise_is_counted_once_however_often_it_was_recorded() -> None:
    often = [seen(number, 0.8) for number in range(20)]
    assert (
        checks_of(seen(21, 0.6), *often)[PROMISED]
        == checks_of(seen(21, 0.6), seen(0, 0.8))[PROMISED]
    )
    assert PROMISED not in checks_of(seen(21, 0.8), *often)  # a model that was restored


def test_what_was_recorded_of_the_day_itself_does_not_count() -> None:
    """A day may be looked at again, when another version is live."""
    assert checks_of(seen(1, 0.5, own=0.5), seen(1, 0.9)).keys() == {KEPT}


def test_a_figure_without_an_interval_tells_nothing() -> None:
    exact = Check("average_precision/promised", 0.9, None, None, Verdict.OK)
    assert PROMISED not in checks_of(seen(1, 0.5), Observation(DAY, 1, (exact,)))
    uncertain = Check("average_precision", 0.1, None, None, Verdict.CANNOT_JUDGE)
    now = replace(seen(1, 0.8), checks=(seen(1, 0.8).checks[0], uncertain))
    kept = checks_of(now)[KEPT]
    assert kept.verdict is Verdict.CANNOT_JUDGE
    assert kept.detail == "no labels of the live version's own days yet"
    certain = Observation(DAY, 1, (measured("average_precision/promised", 0.8, width=0.0),))
    assert checks_of(seen(1, 0.2, own=0.2), certain)[KEPT].verdict is Verdict.ACT


def test_a_training_of_another_version_repairs_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    decision = Decision(DAY, "retrain", changed=DAY)
    other = Training("pushed", pushed="2")
    journal.write(Entry(DAY, observation=seen(0, 0.8), decision=decision, training=other))
    now = promises.of_journal(seen(9, 0.8, of_all=0.4), journal, SETTINGS)
    assert {check.name: check.verdict for check in now.checks}[KEPT] is Verdict.ACT

"""What follows from what was observed. Nothing here takes longer than arithmetic."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud.codec import from_json, from_values, to_json
from fraud.monitoring.checks import Check, Kind, Observation, Verdict
from fraud.monitoring.decide import Decision, Lags, Past, decide, is_severe
from fraud.monitoring.policy import LoopSettings

FIRST = date(2026, 3, 1)
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "loop.md"
NO_LAGS = Lags()
SLOW = LoopSettings(consecutive_days=2, cool_down_days=5, min_changed_days=0)


def check(kind: Kind = Kind.DRIFT, name: str = "", verdict: Verdict = Verdict.ACT) -> Check:
    return Check(name or kind.value, 0.15, None, 0.1, verdict, kind=kind)


def replay(
    days: list[list[Check]],
    policy: LoopSettings = SLOW,
    version: int | None = 7,
    lags: Lags = NO_LAGS,
    outcome: str = "not_blessed",
) -> list[Decision]:
    """Decides day after day, with what was decided before as history."""
    history: list[Past] = []
    for number, checks in enumerate(days):
        as_of = FIRST + timedelta(number)
        made = decide(Observation(as_of, version, tuple(checks)), history, policy, lags)
        trained = made.action == "retrain"
        history.append(Past(made, outcome if trained else ""))
    return [past.decision for past in history]


def actions(*arguments: Any, **options: Any) -> list[str]:
    return [decision.action for decision in replay(*arguments, **options)]


# Each block of docs/loop.md that begins with "policy:" is an example, and what it says holds.
EXAMPLES = [
    yaml.safe_load(block)
    for block in re.findall(r"^```yaml\n(policy:.*?)^```", DOCUMENT.read_text("utf-8"), re.M | re.S)
]


def test_there_is_an_example_of_every_outcome() -> None:
    shown = {day["then"] for example in EXAMPLES for day in example["days"]}
    assert shown == {"nothing", "retrain", "hold", "roll_back"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["days"][-1]["then"])
def test_the_examples_of_the_document_hold(example: dict[str, Any]) -> None:
    policy = from_values(LoopSettings, example["policy"])
    lags = from_values(Lags, example.get("lags", {}))
    history: list[Past] = []
    for day in example["days"]:
        checks = from_values(
            tuple[Check, ...],
            [{"interval": None, "threshold": None, **c} for c in day.get("checks", [])],
        )
        made = decide(Observation(day["day"], day.get("live", 7), checks), history, policy, lags)
        assert made.action == day["then"], day
        assert day["because"] in "; ".join(made.reasons), made.reasons
        done = day.get("done", {})
        version = str(done.get("pushed", ""))
        history.append(
            Past(made, done.get("outcome", ""), version, day["day"] if version else None)
        )


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.SKEW, Kind.FRESHNESS])
def test_broken_data_holds_whatever_else_is_true(kind: Kind) -> None:
    everything = [check(other) for other in Kind]
    assert actions([[check(kind)], everything]) == ["hold", "hold"]
    assert actions([[check(kind, verdict=Verdict.WARN)]]) == ["nothing"]


@pytest.mark.parametrize("kind", [Kind.DRIFT, Kind.SCORES, Kind.PERFORMANCE, Kind.ESTIMATE])
def test_a_check_must_ask_twice_in_a_row(kind: Kind) -> None:
    asks, quiet = [check(kind)], [check(kind, verdict=Verdict.WARN)]
    assert actions([asks, quiet, asks, asks]) == ["nothing", "nothing", "nothing", "retrain"]
    assert actions([asks, [check(kind, "another")], asks]) == ["nothing"] * 3


def test_what_cannot_be_judged_asks_for_nothing_and_ends_a_row() -> None:
    asks, unjudged = [check()], [check(verdict=Verdict.CANNOT_JUDGE)]
    assert actions([unjudged] * 3 + [asks, unjudged, asks]) == ["nothing"] * 6


def test_a_severe_change_needs_no_second_day() -> None:
    for value in (0.2, 0.05):  # twice the threshold; half of it
        severe = replace(check(), value=value)
        assert is_severe(severe, SLOW) and actions([[severe]]) == ["retrain"]
    for value in (0.19, 0.051):
        assert not is_severe(replace(check(), value=value), SLOW)
    assert is_severe(replace(check(), value=0.0), SLOW)
    for unclear in (replace(check(), value=None), replace(check(), threshold=None)):
        assert not is_severe(unclear, SLOW)
    assert not is_severe(replace(check(), value=-1.0), SLOW)
    for beyond in (0.0, -0.1):
        assert not is_severe(replace(check(), threshold=beyond), SLOW)


def test_days_of_a_hold_neither_count_nor_end_a_row() -> None:
    asks, broken = [check()], [check(), check(Kind.DATA)]
    assert actions([asks, broken, asks]) == ["nothing", "hold", "retrain"]
    assert actions([broken, broken, asks]) == ["hold", "hold", "nothing"]


def test_after_a_training_there_is_a_cool_down_that_doubles_in_vain() -> None:
    trained = [n for n, action in enumerate(actions([[check()]] * 120)) if action == "retrain"]
    assert trained == [1, 6, 16, 36, 76, 116]  # up to eight times
    at_once = actions([[check()]] * 40, replace(SLOW, consecutive_days=1))
    assert [n for n, action in enumerate(at_once) if action == "retrain"] == [0, 5, 15, 35]
    waits = replay([[check()]] * 8)[7]
    assert waits.reasons[0] == "trained on 2026-03-07; not again before 2026-03-17"


def test_the_cool_down_does_not_double_once_its_cause_was_gone() -> None:
    days = [[check()]] * 2 + [[]] * 5 + [[check()]] * 2 + [[]] * 4 + [[check()]] * 2
    trained = [n for n, action in enumerate(actions(days)) if action == "retrain"]
    assert trained == [1, 8, 14]


def test_there_are_at_most_so_many_trainings_a_week() -> None:
    policy = replace(SLOW, consecutive_days=1, cool_down_days=1, max_trainings_per_week=2)
    days = [[check(name=str(number))] for number in range(21)]
    trained = [n for n, action in enumerate(actions(days, policy)) if action == "retrain"]
    assert trained == [0, 1, 7, 8, 14, 15]


def test_there_are_at_most_so_many_trainings_in_eight_weeks() -> None:
    policy = replace(SLOW, consecutive_days=1, cool_down_days=1, max_trainings_per_week=2)
    policy = replace(policy, max_trainings_per_eight_weeks=3)
    days = [[check(name=str(number))] for number in range(70)]
    assert trained(days, policy, NO_LAGS) == [0, 1, 7, 56, 57, 63]
    waits = replay(days, policy)[55]
    why = "no more trainings in eight weeks (limit 3); not again before 2026-04-26"
    assert waits.reasons[0] == why
    assert waits.reasons[1].startswith("55 is 0.15")


def test_the_limit_of_eight_weeks_holds_for_old_models_and_for_follow_ups() -> None:
    lags, policy = Lags(labels=2, training=6, window=10), replace(SLOW, min_changed_days=1)
    policy = replace(policy, cool_down_days=1, max_trainings_per_week=3)
    limited = replace(policy, max_trainings_per_eight_weeks=2)
    asks = [[check()]] * 7 + [[]] * 63
    assert trained(asks, policy, lags) == [6, 7, 9, 13, 21]
    assert trained(asks, limited, lags) == [6, 7, 62]
    old = [[check(Kind.AGE, "model_age")]] * 60
    assert trained(old, limited, lags) == [0, 1, 56]


def test_a_change_whose_training_has_to_wait_is_not_forgotten_on_a_silent_day() -> None:
    """It is learnable from day 26 on, but the limit holds until day 56."""
    lags, policy = Lags(labels=2, training=6), replace(SLOW, min_changed_days=1, cool_down_days=1)
    policy = replace(policy, follow_up_ratio=None, max_trainings_per_eight_weeks=1)
    old = [check(Kind.AGE, "model_age")]
    days = [old] + [[]] * 19 + [[check()]] * 35 + [[]] * 8
    assert trained(days, policy, lags) == [0, 56]
    made = replay(days, policy, lags=lags)
    assert made[40].changed == FIRST + timedelta(20)
    assert made[56].reasons == ("change of 2026-03-21, last seen on 2026-04-24",)
    assert trained([old] + [[]] * 19 + [[check()]] * 28 + [[]] * 15, policy, lags) == [0]


def test_a_change_that_a_training_had_days_of_is_not_waited_for_again() -> None:
    lags, policy = Lags(labels=2, training=6), replace(SLOW, min_changed_days=1)
    days = [[check()]] * 9 + [[]] * 20
    assert trained(days, replace(policy, follow_up_ratio=None), lags) == [6]
    assert replay(days, replace(policy, follow_up_ratio=None), lags=lags)[8].changed is None


def test_who_does_not_wait_for_labels_does_not_wait_for_a_silent_check() -> None:
    lags, policy = Lags(labels=2, training=6), replace(SLOW, max_trainings_per_eight_weeks=1)
    days = [[check(Kind.AGE, "model_age")]] + [[check()]] * 53 + [[]] * 4
    assert trained(days, policy, lags) == [0]


def test_with_nothing_live_no_limit_of_eight_weeks_holds() -> None:
    policy = replace(SLOW, max_trainings_per_eight_weeks=1)
    assert actions([[]] * 6, policy, version=None) == ["retrain"] + ["nothing"] * 4 + ["retrain"]


def test_a_lower_limit_than_trainings_there_were_waits_until_all_but_so_many_are_old() -> None:
    history = [Past(Decision(FIRST + timedelta(day), "retrain"), "failed") for day in (0, 10, 20)]
    policy = replace(SLOW, max_trainings_per_eight_weeks=2)
    old = (check(Kind.AGE, "model_age"),)
    waits = decide(Observation(FIRST + timedelta(50), 7, old), history, policy)
    why = "no more trainings in eight weeks (limit 2); not again before 2026-05-06"
    assert waits.reasons[0] == why
    assert decide(Observation(date(2026, 5, 5), 7, old), history, policy).action == "nothing"
    assert decide(Observation(date(2026, 5, 6), 7, old), history, policy).action == "retrain"


def test_a_change_is_waited_for_until_it_can_be_trained_on() -> None:
    lags, policy = Lags(labels=2, training=6), replace(SLOW, min_changed_days=3)
    of_inputs = actions([[check(Kind.DRIFT)]] * 12, policy, lags=lags)
    assert of_inputs.index("retrain") == 6 + 3 - 1
    of_labels = actions([[check(Kind.PERFORMANCE)]] * 12, policy, lags=lags)
    assert of_labels.index("retrain") == 6 + 3 - 1 - 2
    assert actions([[check(Kind.DRIFT)]] * 3, SLOW, lags=lags).index("retrain") == 1


def test_an_old_model_waits_for_a_change_that_can_be_trained_on_soon() -> None:
    lags, policy = Lags(2, 6), replace(SLOW, min_changed_days=1)
    old = check(Kind.AGE, "model_age")
    made = replay([[check(), old]] * 8, policy, lags=lags)
    assert [decision.action for decision in made].index("retrain") == 6
    assert actions([[check(), old], [old]], policy, lags=lags) == ["nothing", "retrain"]
    assert actions([[old, check()]] * 8, policy, lags=lags).index("retrain") == 6


def trained(days: list[list[Check]], policy: LoopSettings, lags: Lags) -> list[int]:
    made = actions(days, policy, lags=lags)
    return [number for number, action in enumerate(made) if action == "retrain"]


def test_a_change_is_trained_on_again_as_the_train_window_fills_with_it() -> None:
    """It can be trained on from day 6 on; days 7, 9, 13, 21 have twice as many of its days."""
    lags, policy = Lags(labels=2, training=6, window=10), replace(SLOW, min_changed_days=1)
    policy = replace(policy, cool_down_days=1, max_trainings_per_week=3)
    assert trained([[check()]] * 7 + [[]] * 40, policy, lags) == [6, 7, 9, 13, 21]
    decisions = replay([[check()]] * 7 + [[]] * 40, policy, lags=lags)
    assert {made.changed for made in decisions if made.action == "retrain"} == {FIRST}
    assert trained([[check()]] * 7 + [[]] * 40, policy, replace(lags, window=8)) == [6, 7, 9, 13]
    at_once = replace(policy, min_changed_days=0)  # the first one has none of its days
    assert trained([[check()]] * 2 + [[]] * 40, at_once, lags) == [1, 7, 9, 13, 21]
    assert decisions[9].reasons == (
        "change of 2026-03-01: 4 of its days can be trained on, of which the last model had 2",
    )


def test_a_check_that_is_silent_for_a_while_does_not_end_the_wait_for_a_change() -> None:
    policy = replace(SLOW, min_changed_days=1)
    asks: list[list[Check]] = [[check()]] * 2
    made = replay(asks + [[]] * 9, policy, lags=Lags(2, 6))
    assert [decision.action for decision in made].index("retrain") == 6
    assert made[6].reasons == ("change of 2026-03-01, last seen on 2026-03-02",)
    assert made[6].changed == FIRST
    assert made[3].reasons == (
        "change of 2026-03-01; its labels can be trained on from 2026-03-07 on",
    )
    old = [[check(Kind.AGE, "model_age")]]
    assert trained(asks + old * 5, policy, Lags(2, 6)) == [6]  # the age waits, too
    assert trained(asks + [[]] * 40, policy, Lags(2, 8)) == [8]  # silent for a week
    assert trained(asks + [[]] * 40, policy, Lags(2, 9)) == []  # longer
    assert trained(asks[:1] + [[]] * 40, policy, Lags(2, 6)) == []


def test_checks_that_begin_to_ask_later_do_not_date_a_change_anew() -> None:
    """Each asks for three days only, as if it were near its threshold."""
    policy = replace(SLOW, min_changed_days=1)
    flickering = [[check(name="abcd"[number // 3])] for number in range(12)]
    made = replay(flickering, policy, lags=Lags(2, 8))
    assert [decision.action for decision in made].index("retrain") == 8
    assert {decision.changed for decision in made[1:9]} == {FIRST, None}  # None: asks once
    assert made[8].reasons == ("change of 2026-03-01, last seen on 2026-03-08",)


def test_a_later_date_counts_once_its_check_has_been_silent_for_a_week() -> None:
    policy = replace(SLOW, min_changed_days=1)
    days = [[check(name="a")]] * 2 + [[]] * 8 + [[check(name="b")]] * 12
    assert trained(days, policy, Lags(2, 11)) == [21]
    within = [[check(name="a")]] * 2 + [[]] * 4 + [[check(name="b")]] * 12
    assert trained(within, policy, Lags(2, 11))[0] == 11


def test_a_change_is_named_once_while_its_check_asks() -> None:
    made = replay([[check()]] * 4, replace(SLOW, min_changed_days=1), lags=Lags(2, 6))
    assert [len(decision.reasons) for decision in made] == [1] * 4


def test_without_lags_a_change_can_be_trained_on_as_soon_as_it_lasts() -> None:
    policy = replace(SLOW, consecutive_days=1, min_changed_days=2)
    late = check(Kind.PERFORMANCE)
    made = replay([[late]] * 2, policy)
    assert [decision.action for decision in made] == ["nothing", "retrain"]
    assert made[1].changed == FIRST


TWO_CHANGES = [[check(name="a")]] * 7 + [[]] * 3 + [[check(name="b")]] * 2
"""The first can be trained on from day 6 on; another one begins on day 10."""


def test_a_change_is_trained_on_again_while_another_is_waited_for() -> None:
    policy = replace(SLOW, min_changed_days=1, cool_down_days=1, max_trainings_per_week=3)
    days = TWO_CHANGES + [[check(name="b")]] * 4
    assert trained(days, policy, Lags(2, 6, 10)) == [6, 7, 9, 13]
    assert replay(days, policy, lags=Lags(2, 6, 10))[13].changed == FIRST


def test_a_training_ends_the_wait_only_for_changes_that_it_reaches() -> None:
    policy = replace(SLOW, min_changed_days=1, cool_down_days=1, max_trainings_per_week=7)
    days = TWO_CHANGES + [[]] * 28
    made = replay(days, policy, lags=Lags(2, 6, 10))
    assert made[13].action == "retrain" and made[13].changed == FIRST
    assert made[16].reasons == ("change of 2026-03-11, last seen on 2026-03-12",)
    assert trained(days, policy, Lags(2, 6, 10)) == [6, 7, 9, 13, 16, 17, 19, 23, 31]


def test_a_change_that_can_be_trained_on_is_not_mistaken_for_one_that_cannot() -> None:
    """Both ask when the first can be trained on; its own trainings follow from its own date."""
    policy = replace(SLOW, min_changed_days=1, cool_down_days=1, max_trainings_per_week=3)
    days = [[check(name="a")]] * 5 + [[check(name="a"), check(name="b")]] * 3 + [[]] * 40
    made = replay(days, policy, lags=Lags(2, 6, 10))
    assert [d.changed for d in made if d.action == "retrain"][:2] == [FIRST, FIRST]


def test_trainings_for_a_change_keep_the_cool_down_which_does_not_double() -> None:
    lags, policy = Lags(labels=2, training=6, window=10), replace(SLOW, min_changed_days=1)
    assert trained([[check()]] * 60, policy, lags)[:3] == [6, 11, 17]


def test_trainings_that_could_not_know_a_change_were_not_in_vain_for_it() -> None:
    """The first change asks for trainings on days 6 and 8; the second is in reach on day 11."""
    policy = replace(SLOW, min_changed_days=1, cool_down_days=2, follow_up_ratio=None)
    policy = replace(policy, max_trainings_per_week=7)
    one, other = check(name="a"), check(name="b")
    days = [[one]] * 5 + [[one, other]] * 4 + [[other]] * 20
    assert trained(days, policy, Lags(2, 6)) == [6, 8, 11, 13, 17, 25]


def test_without_a_wait_the_cool_down_doubles_as_if_there_were_no_lags() -> None:
    assert trained([[check()]] * 80, SLOW, Lags(2, 6)) == [1, 6, 16, 36, 76]


def test_what_labels_show_is_in_reach_sooner_so_its_trainings_are_in_vain_sooner() -> None:
    """Labels show on day 0 what began on day -2; day 4 is the first one with a day of it."""
    policy = replace(SLOW, min_changed_days=1, cool_down_days=2, max_trainings_per_week=7)
    late = [[check(Kind.PERFORMANCE)]] * 20
    assert trained(late, policy, Lags(2, 6)) == [4, 6, 10, 18]


def test_a_training_before_a_check_first_asked_was_not_in_vain_for_it() -> None:
    """Labels take longer than a training: what began on day -6 was in reach on day 0."""
    policy = replace(SLOW, min_changed_days=1, cool_down_days=3, max_trainings_per_week=7)
    other, late = check(Kind.AGE, "model_age"), check(Kind.PERFORMANCE)
    assert trained([[other], [], [], *[[late]] * 12], policy, Lags(9, 6)) == [0, 4, 7, 13]


def test_the_cool_down_doubles_for_the_check_that_asked_in_vain_most_often() -> None:
    long, short = check(name="z"), check(name="a")
    both = [[long]] * 6 + [[long, short]] * 40
    assert actions(both, SLOW).count("retrain") == actions([[long]] * 46, SLOW).count("retrain")
    assert trained(both, SLOW, NO_LAGS) == trained([[long]] * 46, SLOW, NO_LAGS)
    renamed = [[replace(c, name={"z": "a", "a": "z"}[c.name]) for c in day[::-1]] for day in both]
    assert trained(renamed, SLOW, NO_LAGS) == trained(both, SLOW, NO_LAGS)


def held_back(*asked: list[Check]) -> list[Decision]:
    """An old model is replaced on day 0; the cool-down ends on day 12, the lag is of six days."""
    policy = replace(SLOW, min_changed_days=1, cool_down_days=12)
    days = [[check(Kind.AGE, "model_age")], *asked]
    return replay(days, policy, lags=Lags(2, 6))


def day(number: int) -> date:
    return FIRST + timedelta(number)


def test_a_training_is_for_the_latest_change_that_it_reaches() -> None:
    a, b = check(name="a"), check(name="b")
    made = held_back(*[[a]] * 2, *[[a, b]] * 10)
    assert [n for n, decision in enumerate(made) if decision.action == "retrain"] == [0, 12]
    assert made[12].changed == day(3)


def test_of_two_changes_that_are_waited_for_the_earlier_one_is_recorded() -> None:
    a, b = check(name="a"), check(name="b")
    assert held_back(*[[a]] * 2, *[[a, b]] * 2)[4].changed == day(1)


def test_a_change_is_waited_for_while_the_cool_down_delays_another_ones_training() -> None:
    a, b = check(name="a"), check(name="b")
    made = held_back(*[[a]] * 7, *[[a, b]] * 2, [a])
    assert made[9].reasons[0] == "trained on 2026-03-01; not again before 2026-03-13"
    assert made[9].changed == day(8)


def test_a_follow_up_that_reaches_another_change_is_for_that() -> None:
    policy = replace(SLOW, min_changed_days=1, cool_down_days=1, max_trainings_per_week=3)
    b = check(name="b")
    days = [[check(name="a")]] * 7 + [[b]] * 7
    made = replay(days, policy, lags=Lags(2, 6, 10))
    assert made[13].changed == day(7)
    assert [reason.split(" ")[0] for reason in made[13].reasons] == ["b", "change"]


def test_an_old_model_that_was_replaced_in_vain_is_waited_for_longer() -> None:
    policy = replace(SLOW, min_changed_days=1, cool_down_days=2, max_trainings_per_week=7)
    old = check(Kind.AGE, "model_age")
    assert trained([[old]] * 20, policy, Lags(2, 6)) == [0, 2, 6, 14]


def test_a_change_may_be_trained_on_once_only() -> None:
    policy = replace(SLOW, min_changed_days=1, cool_down_days=1)
    days = [[check()]] * 7 + [[]] * 40
    assert trained(days, replace(policy, follow_up_ratio=None), Lags(2, 6, 10)) == [6]
    assert trained(days, policy, Lags(2, 6)) == [6]


def test_a_change_began_in_the_middle_of_the_days_that_are_judged_together() -> None:
    lags = Lags.of(delay=7, eval_days=6, train_days=30, judged_days=7, change_eval_days=None)
    assert (lags.labels, lags.training, lags.window) == (7 + 3, 7 + 6 + 7, 30)


@pytest.mark.parametrize(("change_eval_days", "evaluated"), [(2, 2), (6, 6), (9, 6)])
def test_a_training_for_a_change_reaches_it_sooner(change_eval_days: int, evaluated: int) -> None:
    lags = Lags.of(7, 6, 30, 7, change_eval_days)
    assert lags.training == 7 + evaluated + 7


def test_an_old_model_is_no_change() -> None:
    days = [[check(Kind.AGE, "model_age")], *([[]] * 40)]
    assert trained(days, SLOW, Lags(2, 6, 10)) == [0]


def test_an_old_model_is_a_reason_at_once() -> None:
    lags, policy = Lags(7, 21), replace(SLOW, min_changed_days=5)
    asked = [[check(Kind.AGE, "model_age", verdict)] for verdict in (Verdict.WARN, Verdict.ACT)]
    assert actions(asked, policy, lags=lags) == ["nothing", "retrain"]


def test_nothing_live_is_a_reason_to_train_but_not_every_day() -> None:
    assert actions([[]] * 6, version=None) == ["retrain"] + ["nothing"] * 4 + ["retrain"]
    assert actions([[check(Kind.DATA)]], version=None) == ["hold"]
    asked = actions([[check(Kind.AGE, "model_age")]] * 11, version=None)
    assert [number for number, action in enumerate(asked) if action == "retrain"] == [0, 5, 10]


def pushed_on(day: date, version: str) -> Past:
    return Past(Decision(day, "retrain"), "pushed", version, went_live=day)


def test_a_version_that_is_new_and_harmful_is_taken_back() -> None:
    policy = replace(SLOW, roll_back_days=10)
    for days, action in ((10, "roll_back"), (11, "nothing")):
        seen = Observation(FIRST, 9, (check(Kind.HARM), check(Kind.DRIFT)))
        history = [pushed_on(FIRST - timedelta(days), "9"), pushed_on(FIRST - timedelta(30), "8")]
        assert decide(seen, history, policy).action == action
        assert decide(replace(seen, version=8), history, policy).action == "nothing"
        assert decide(replace(seen, version=None), history, policy).action != "roll_back"


def test_nothing_is_trained_while_a_model_is_on_probation() -> None:
    waiting = Past(Decision(FIRST, "retrain"), "on_probation", on_probation=True)
    seen = Observation(FIRST + timedelta(20), 7, (replace(check(), value=9.0),))
    assert decide(seen, [waiting], SLOW).reasons[0] == "the model of 2026-03-01 is on probation"
    assert decide(seen, [replace(waiting, on_probation=False)], SLOW).action == "retrain"
    broken = replace(seen, checks=(check(Kind.DATA),))
    assert decide(broken, [waiting], SLOW).action == "hold"


NAMES = st.sampled_from(["a", "b", "c"])
CHECKS = st.builds(
    lambda name, kind, verdict, value: Check(
        f"{kind.value}/{name}", value, None, 0.1, verdict, kind=kind
    ),
    NAMES,
    st.sampled_from(list(Kind)),
    st.sampled_from(list(Verdict)),
    st.sampled_from([0.11, 0.5, None]),
)
DAYS = st.lists(st.lists(CHECKS, max_size=3), max_size=40)
POLICIES = st.builds(
    LoopSettings,
    cool_down_days=st.integers(1, 10),
    max_trainings_per_week=st.integers(1, 3),
    max_trainings_per_eight_weeks=st.sampled_from([None, 1, 4]),
    consecutive_days=st.integers(1, 4),
    min_changed_days=st.integers(0, 3),
    roll_back_days=st.integers(1, 20),
)
OUTCOMES = st.sampled_from(["pushed", "not_blessed", "failed", "gate_stopped"])


@settings(max_examples=300, deadline=None)
@given(DAYS, POLICIES, OUTCOMES, st.sampled_from([None, 7]))
def test_what_always_holds(
    days: list[list[Check]], policy: LoopSettings, outcome: str, version: int | None
) -> None:
    lags = Lags(2, 6, 10)
    made = replay(days, policy, version, lags, outcome)
    trained = [decision.as_of for decision in made if decision.action == "retrain"]
    for earlier, later in itertools.pairwise(trained):
        assert (later - earlier).days >= policy.cool_down_days
    for day in trained:
        week = [other for other in trained if day - timedelta(6) <= other <= day]
        assert len(week) <= policy.max_trainings_per_week
        weeks = [other for other in trained if day - timedelta(55) <= other <= day]
        if policy.max_trainings_per_eight_weeks is not None and version is not None:
            assert len(weeks) <= policy.max_trainings_per_eight_weeks
    for decision, checks in zip(made, days, strict=True):
        kinds = {c.kind for c in checks if c.verdict is Verdict.ACT}
        is_broken = bool(kinds & {Kind.DATA, Kind.SKEW, Kind.FRESHNESS})
        assert (decision.action == "hold") == is_broken
        assert decision.action == "nothing" or decision.reasons
        if is_broken:
            assert not decision.asking
    assert made == replay(days, policy, version, lags, outcome)


@settings(max_examples=100, deadline=None)
@given(DAYS, POLICIES)
def test_a_day_may_be_decided_again_with_all_of_the_history(
    days: list[list[Check]], policy: LoopSettings
) -> None:
    made = replay(days, policy)  # without lags a change is trained on once
    history = [Past(decision, "not_blessed") for decision in reversed(made)]
    for decision, checks in zip(made, days, strict=True):
        assert decide(Observation(decision.as_of, 7, tuple(checks)), history, policy) == decision
    assert from_json(tuple[Past, ...], to_json(history)) == tuple(history)

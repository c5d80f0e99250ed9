"""The demo: what it simulates, how it counts, and a few days of it from end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.demo import page, results, story
from benchmarks.demo.bank import Bank
from benchmarks.demo.claims import claims
from benchmarks.demo.gate import refusals
from benchmarks.demo.policies import DAILY, LOOP, NEVER, WEEKLY, Course, Replay, ReplaySteps
from benchmarks.demo.results import Version
from benchmarks.demo.trainer import Model, Said
from fraud.features.spec import Dataset, Features
from fraud.models.evaluation.bootstrap import Outputs
from fraud.models.spec import Evaluation
from fraud.monitoring.checks import Check, Kind, Observation, Verdict
from fraud.monitoring.decide import Decision
from fraud.monitoring.journal import Entry
from fraud.monitoring.policy import LoopSettings
from fraud.pipeline.config import Config, WindowLengths

DAY = timedelta(days=1)
START = date(2026, 1, 1)


def days_of(seed: int, days: int, happening) -> dict[date, pa.Table]:
    return dict(story.simulated(seed, 60, days, happening))


@pytest.mark.parametrize("seed", range(8))
def test_events_are_apart_and_in_order(seed):
    happening = story.events(seed)
    assert len(happening) == 5
    new, lost, quiet, shifted, slow = happening
    assert (lost.last - lost.first).days == 3
    assert quiet.first == lost.last + DAY and quiet.last == shifted.first - DAY
    assert (quiet.last - quiet.first).days >= 14
    assert new.first < lost.first < shifted.first < slow.first
    assert slow.first + timedelta(days=slow.bound) < slow.last


def test_the_seed_moves_events_against_the_week():
    weekdays = {event.first.weekday() for seed in range(8) for event in story.events(seed)}
    assert len(weekdays) == 7


def test_an_event_changes_its_days_and_its_column_only():
    at = story.START + 4 * DAY
    event = story.Event(story.SHIFTED, "", at, at + 9 * DAY)
    plain, changed = days_of(3, 7, ()), days_of(3, 7, (event,))
    for day, table in plain.items():
        factor = story.SHIFT if day >= at else 1.0
        amounts = table["TX_AMOUNT"].to_numpy() * factor
        assert changed[day]["TX_AMOUNT"].to_numpy() == pytest.approx(amounts, abs=0.01)
        others = [name for name in table.column_names if name != "TX_AMOUNT"]
        assert changed[day].select(others) == table.select(others)


def test_the_new_fraud_costs_money():
    at = story.START + 2 * DAY
    event = story.Event(story.NEW_FRAUD, "", at, at + 60 * DAY)
    changed = dict(story.simulated(3, 1000, 4, (event,)))
    for day, table in changed.items():
        of = table["TX_AMOUNT"].to_numpy()[table["TX_FRAUD_SCENARIO"].to_numpy() == 4]
        assert (len(of) > 0) == (day >= at)
        assert ((of > 7) & (of <= 150)).all()
        assert table["TX_AMOUNT"].to_numpy()[table["TX_FRAUD"].to_numpy() == 0].max() < 300


def test_a_broken_column_is_broken_on_its_days_only():
    at = story.START + 2 * DAY
    event = story.Event(story.BROKEN, "", at, at + DAY)
    plain, changed = days_of(3, 6, ()), days_of(3, 6, (event,))
    differs = [day for day, table in plain.items() if changed[day] != table]
    assert differs == [at, at + DAY]
    assert set(changed[at]["COUNTRY"].to_pylist()) == {None, "??"}


def test_the_slow_drift_grows():
    at = story.START + 2 * DAY
    event = story.Event(story.SLOW, "", at, at + 60 * DAY)
    plain, changed = days_of(3, 42, ()), days_of(3, 42, (event,))
    moved = [
        np.mean([a != b for a, b in zip(*pair, strict=True)])
        for day in plain
        for pair in [[of[day]["CHANNEL"].to_pylist() for of in (plain, changed)]]
    ]
    assert moved[:2] == [0, 0]
    assert 0 < moved[2] < 0.03
    assert 0.1 < np.mean(moved[20:23]) < 0.25
    assert 0.25 < np.mean(moved[39:42]) < 0.45


DATASET = Dataset(entities=("CUSTOMER_ID",))
CONFIG = Config(
    dataset=DATASET,
    features=Features(calendar=(), groups=()),
    windows=WindowLengths(train_days=10, eval_days=3, label_delay_days=2),
    evaluation=Evaluation(check_cost=5.0, saved_share=0.5),
)


def bank(days: int, rows: int = 4, config: Config = CONFIG) -> Bank:
    """So many transactions a day, at six o'clock; the first one is a fraud of 100."""
    n = days * rows
    at = np.datetime64(START, "us") + np.repeat(np.arange(days), rows).astype("timedelta64[D]")
    first = np.arange(n) % rows == 0
    return Bank.of(
        pa.table(
            {
                "TRANSACTION_ID": np.arange(n),
                "TX_DATETIME": at + np.timedelta64(6, "h"),
                "CUSTOMER_ID": np.arange(n) % rows,
                "TX_AMOUNT": np.where(first, 100.0, 10.0),
                "TX_FRAUD": first.astype(np.int64),
            }
        ),
        config,
    )


def model(
    of: Bank,
    as_of: date,
    said: np.ndarray,
    excluded: tuple[date, ...] = (),
    eval_days: int | None = None,
) -> Model:
    first = of.rows(of.windows(as_of).eval.first, as_of).start
    scores = said[first:].astype(np.float32)
    said_of = Said(first, scores, lambda: pytest.fail("all scored"))
    return Model(as_of, excluded, of.windows(as_of, eval_days), 0.5, 1.0, said_of)


class Known:
    """A trainer whose models say what a function of the as-of day says."""

    def __init__(self, of: Bank, said) -> None:
        self.of, self.said, self.asked = of, said, []

    def model(self, as_of: date, excluded=(), eval_days=None) -> Model:
        self.asked.append((as_of, tuple(excluded)))
        return model(self.of, as_of, self.said(as_of), tuple(excluded), eval_days)


def test_money_and_precision_are_counted_by_week():
    of = bank(20)
    course = Course.of("x", len(of.days))
    perfect = model(of, START + 15 * DAY, of.labels * 0.9)
    course.goes_live(perfect, START + 12 * DAY)
    course.answer(of.rows(START + 12 * DAY, START + 19 * DAY))
    (week,) = results.weeks(of, course, START + 12 * DAY, START + 19 * DAY)
    assert (week.transactions, week.frauds, week.average_precision) == (28, 7, 1.0)
    day = of.rows(START + 12 * DAY, START + 12 * DAY)
    assert results.saved(of, course, day, by_alerts=True) == 0.5 * 100 - 5
    alarming = replace(perfect, threshold=0.0)
    course.goes_live(alarming, START + 12 * DAY)
    course.answer(day)
    assert results.saved(of, course, day, by_alerts=True) == 50 - 4 * 5
    assert results.cards_a_day(of, course, day) == 4


@pytest.mark.parametrize("budget", [1, 2, 9])
def test_the_most_suspicious_cards_are_checked_whether_they_alert_or_not(budget):
    of = bank(20)
    of = Bank(of.table, replace(CONFIG, evaluation=replace(CONFIG.evaluation, alert_budget=budget)))
    course = Course.of("x", len(of.days))
    course.goes_live(model(of, START + 15 * DAY, of.labels * 0.4), START + 12 * DAY)
    day = of.rows(START + 12 * DAY, START + 12 * DAY)
    course.answer(day)
    assert not course.alert[day].any()
    assert results.saved(of, course, day) == 0.5 * 100 - 5 * min(budget, 4)
    assert results.most_suspicious(of, course, day)[0]


@pytest.mark.parametrize(("policy", "days"), [(NEVER, []), (WEEKLY, [6, 13]), (DAILY, range(15))])
def test_schedules(policy, days):
    of = bank(45, rows=30)
    trainer = Known(of, lambda day: of.labels * 0.9)
    first = START + 30 * DAY
    course = Replay(of, trainer, first, first + 14 * DAY).scheduled(policy)
    assert [(a.day - first).days for a in course.attempts] == list(days)
    answered = of.days[course.version >= 0]
    assert len(set(answered.tolist())) == 15
    assert not np.isnan(course.score[course.version >= 0]).any()


def test_a_version_answers_from_the_day_after_its_training():
    of = bank(45, rows=30)
    evaluation = Evaluation(min_average_precision=0.0, min_roc_auc=0.0, min_recall_at_budget=0.0)
    of = Bank(of.table, replace(CONFIG, evaluation=evaluation))
    first = START + 30 * DAY
    course = Replay(of, Known(of, lambda day: of.labels * 0.9), first, first + 8 * DAY)
    course = course.scheduled(WEEKLY)
    if course.attempts[0].refused:  # one card has all frauds: the gate cannot tell
        assert "probability nan" in course.attempts[0].refused[0]
        assert set(course.version[course.version >= 0]) == {0}


def test_a_training_for_a_change_has_the_loops_eval_window(tmp_path):
    of = bank(45, rows=30)
    trainer = Known(of, lambda day: of.labels * 0.9)
    first = START + 30 * DAY
    replay = Replay(of, trainer, first, first + 14 * DAY)
    steps = ReplaySteps(replay, replay.begin(LOOP))
    for is_urgent, days in ((True, 3), (False, of.config.windows.eval_days)):
        steps.train(first, (), False, 1.0, is_urgent)
        windows = replay_windows(steps)
        assert windows.eval.days == days and windows == of.windows(first, days)


def replay_windows(steps: ReplaySteps):
    return steps._course.attempts[-1].model.windows


def frauds(n: int = 400, cards: int = 100, seed: int = 0):
    random = np.random.default_rng(seed)
    labels = (random.random(n) < 0.2).astype(np.int64)
    good = Outputs(labels * 0.5 + random.random(n) * 0.4, labels == 1)
    noise = random.random(n)
    return labels, np.arange(n) % cards, good, Outputs(noise, noise > 0.8)


def test_the_gate_pushes_what_is_no_worse_and_refuses_what_is():
    labels, cards, good, bad = frauds()
    lenient = Evaluation(min_average_precision=0, min_roc_auc=0, min_recall_at_budget=0)
    assert refusals(labels, cards, good, good, lenient) == ()
    assert refusals(labels, cards, good, bad, lenient) == ()
    assert refusals(labels, cards, good, None, Evaluation()) == ()
    worse = refusals(labels, cards, bad, good, lenient)
    assert any(reason.startswith("average precision is lower") for reason in worse)
    low = refusals(labels, cards, bad, None, Evaluation())
    assert any("is below 0.3" in reason for reason in low)


def test_the_gate_refuses_what_it_cannot_judge():
    labels, cards, good, _ = frauds()
    assert refusals(labels, np.zeros(len(cards)), good, good, Evaluation())


def entry(day: date, *checks: Check, action: str = "nothing") -> Entry:
    asking = tuple(check.name for check in checks)
    seen, made = Observation(day, 1, checks), Decision(day, action, (), asking)
    return Entry(day, observation=seen, decision=made)


def asks(name: str, kind: Kind = Kind.DRIFT) -> Check:
    return Check(name, 1.0, None, 0.5, Verdict.ACT, "", kind)


EVENT = story.Event("x", "it happens", START + 5 * DAY, START + 20 * DAY, ("drift/A",), 7)


def test_detection_counts_from_the_event_and_by_its_own_checks():
    early = entry(START + 4 * DAY, asks("drift/A"))
    other = entry(START + 6 * DAY, asks("drift/B"))
    seen = results.seen(EVENT, [early, other, entry(START + 8 * DAY, asks("drift/A"))])
    assert (seen.detected, seen.by, seen.bound) == (3, ("drift/A",), 7)
    assert results.seen(EVENT, [early, other]).detected is None


def test_false_alarms_are_those_before_anything_happens_and_in_the_quiet_period():
    quiet = story.Event(story.QUIET, "", START + 10 * DAY, START + 12 * DAY)
    entries = [entry(START + n * DAY, asks("drift/A")) for n in (3, 6, 10, 13)]
    found = results.of_loop(entries, (EVENT, quiet))
    assert (found.false_alarms, found.alarms_in_quiet) == (2, 1)


def version(since: int, until: int) -> Version:
    return Version(START + since * DAY, START, START + until * DAY, 0)


def test_an_old_model_is_no_alarm():
    old = entry(START + 2 * DAY, asks("model_age", Kind.AGE))
    assert results.of_loop([old], (EVENT,)).false_alarms == 0


def test_a_model_is_repaired_when_its_train_window_reaches_the_event():
    assert results.repaired(EVENT, [version(0, 0), version(9, 4), version(12, 5)]) == 7
    assert results.repaired(EVENT, [version(0, 0), version(9, 4)]) is None


def test_the_loop_trains_through_the_real_loop_and_leaves_broken_days_out(tmp_path):
    """A bank of two months whose first model decays, and which has a broken day."""
    random = np.random.default_rng(1)
    n, days = 300, 60
    labels = (random.random(n * days) < 0.1).astype(np.int64)
    day = np.repeat(np.arange(days), n)
    channel = np.where(random.random(n * days) < 0.5, "online", "chip").astype(object)
    channel[day == 40] = None
    config = Config(
        dataset=Dataset(entities=("CUSTOMER_ID",), categorical=("CHANNEL",)),
        features=Features(calendar=(), groups=()),
        windows=WindowLengths(train_days=14, eval_days=5, label_delay_days=2),
        evaluation=Evaluation(alert_budget=20),
        loop=LoopSettings(verify_rows=100),
    )
    at = np.datetime64(START, "us") + day.astype("timedelta64[D]")
    of = Bank.of(
        pa.table(
            {
                "TRANSACTION_ID": np.arange(n * days),
                "TX_DATETIME": at + random.integers(0, 86_400, n * days).astype("timedelta64[s]"),
                "CUSTOMER_ID": random.integers(0, 200, n * days),
                "TX_AMOUNT": np.round(random.lognormal(3, 1, n * days), 2),
                "CHANNEL": pa.array(channel, pa.string()),
                "TX_FRAUD": labels,
            }
        ),
        config,
    )
    noise = random.random(len(of.labels))
    good = 0.6 * of.labels + 0.4 * noise
    is_missed = (of.days >= of.days[0] + 36) & (random.random(len(noise)) < 0.6)
    decayed = np.where(is_missed, 0.4 * noise, good)
    first = START + 30 * DAY
    trainer = Known(of, lambda as_of: good if as_of > first else decayed)
    replay = Replay(of, trainer, first, first + 28 * DAY)
    said: list[str] = []
    course = replay.loop(tmp_path, said.append)
    held = [e.day for e in course.entries if e.decision and e.decision.action == "hold"]
    assert held == [START + 40 * DAY]
    trained = course.attempts
    assert trained and not trained[0].refused
    later = [attempt for attempt in trained if attempt.day > START + 40 * DAY]
    assert later and all(START + 40 * DAY in attempt.model.excluded for attempt in later)
    assert len(course.models) > 1
    assert course.entries[-1].day == first + 28 * DAY and course.entries[-1].done
    assert any("verified" in line for line in said)
    later = of.rows(course.since[1], replay.last)
    assert (course.score[later] == good[later].astype(np.float32)).all()


def document() -> page.Document:
    of = bank(45, rows=30)
    first = START + 30 * DAY
    trainer = Known(of, lambda day: of.labels * 0.9)
    replay = Replay(of, trainer, first, first + 14 * DAY)
    event = replace(EVENT, first=first + 2 * DAY, last=first + 14 * DAY, is_learnt=True)
    happening = (event, story.Event(story.QUIET, "Nothing <b>.", first, first + DAY))
    of_policies = []
    courses = {}
    for policy in (NEVER, WEEKLY, LOOP):
        course = replay.scheduled(policy) if policy != LOOP else replay.begin(policy)
        if policy == LOOP:
            course.answer(of.rows(first, replay.last))
        courses[policy] = course
        of_policies.append(results.result(of, course, first, replay.last, happening))
    noticed = results.of_loop([entry(event.first + DAY, asks("drift/A"))], happening)
    compared = results.difference(of, courses[LOOP], courses[WEEKLY], first, replay.last)
    policies = tuple(of_policies)
    return page.Document("bank", first, replay.last, happening, policies, noticed, (compared,), 1)


def test_the_page_tells_the_story_without_the_network(tmp_path):
    of = document()
    page.write(tmp_path, of)
    text = (tmp_path / "index.html").read_text("utf-8")
    assert "Detected after 1 days" in text and "Nothing &lt;b&gt;." in text
    assert "<script" not in text
    assert text.count("http") == text.count("http-equiv")
    assert "prefers-color-scheme" in text
    drawn = (tmp_path / "policies.svg").read_text("utf-8")
    assert drawn.startswith("<svg xmlns=") and drawn.count("<polyline") == 6
    saved = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert [policy["policy"] for policy in saved["policies"]] == [NEVER, WEEKLY, LOOP]


def test_the_table_has_a_row_for_each_policy_and_event():
    lines = page.table(document()).splitlines()
    assert sum(line.startswith(("| never", "| weekly", "| loop")) for line in lines) == 3
    assert "| x | 3 | 1 | 7 |" in page.table(document())
    assert "| x: detected within 7 days | after 1 days | yes |" in page.table(document())


def achieved(policy: str, **changes: object) -> results.Result:
    week = results.Week(START, START + 6 * DAY, 10, 1, 0.8, 50.0)
    of = results.Result(
        policy, (week,), 0.8, 100.0, 90.0, 15.0, 4, (), {}, (), {story.NEW_FRAUD: 20}, 0, 1.0
    )
    return replace(of, **changes)


NOTICED = results.LoopResult(
    seen=(results.Seen("x", 7, ("drift/A",), 7),),
    held=(START + 10 * DAY, START + 11 * DAY),
    alarms_in_quiet=0,
    trainings_in_quiet=2,
    false_alarms=0,
    most_in_a_week=2,
    rolled_back=(),
    decisions={},
)
HAPPENING = (
    EVENT,
    story.Event(story.BROKEN, "", START + 10 * DAY, START + 11 * DAY),
    story.Event(story.QUIET, "", START + 12 * DAY, START + 19 * DAY),
)


def failing(
    loop: results.Result,
    noticed: results.LoopResult = NOTICED,
    happening: tuple[story.Event, ...] = HAPPENING,
) -> list[str]:
    """The claims that do not hold beside the weekly policy and the never retrained model."""
    others = achieved(NEVER, trainings=0), achieved(WEEKLY)
    made = claims((*others, loop), happening, noticed)
    return [claim.text for claim in made if not claim.holds]


def test_a_claim_holds_or_not_by_its_own_figure():
    better = achieved(LOOP, saved=101.0)
    assert failing(better) == []
    for changes, text in [
        ({"saved": 100.0}, "the loop saves more money than weekly retraining"),
        ({"trainings": 5}, "with no more trainings"),
        ({"trained_on_broken": 1}, f"{story.BROKEN}: each of its days is held, no other is"),
        ({"repaired": {story.NEW_FRAUD: None}}, f"{story.NEW_FRAUD}: a model that has learnt"),
    ]:
        (found,) = failing(replace(better, **changes))
        assert found.startswith(text)
    for changes, text in [
        ({"seen": (results.Seen("x", 8, ("drift/A",), 7),)}, "x: detected within 7 days"),
        ({"seen": (results.Seen("x", None, (), 7),)}, "x: detected within 7 days"),
        ({"held": NOTICED.held[1:]}, f"{story.BROKEN}: each of its days is held, no other is"),
        ({"held": (START, *NOTICED.held)}, f"{story.BROKEN}: each of its days is held, no other"),
        ({"trainings_in_quiet": 3}, f"{story.QUIET}: no more than one training a week"),
    ]:
        (found,) = failing(better, replace(NOTICED, **changes))
        assert found.startswith(text)


def test_without_events_precision_counts_instead_of_money():
    nothing = replace(NOTICED, seen=(), held=())
    better = achieved(LOOP, average_precision=0.81, trainings=3, repaired={})
    week = better.weeks[0]

    def of(mean: float, last: float, trainings: int = 3) -> list[str]:
        weeks = (replace(week, average_precision=last),)
        loop = replace(better, average_precision=mean, weeks=weeks, trainings=trainings)
        return failing(loop, nothing, ())

    assert of(0.81, 0.81) == []
    assert of(0.8, 0.81) == ["average precision, mean of the weeks: higher than without retraining"]
    assert of(0.81, 0.8) == ["average precision, the last week: higher than without retraining"]
    assert len(of(0.79, 0.79)) == 4
    assert of(0.81, 0.81, 4) == ["with fewer trainings than weekly retraining"]


def test_without_the_loop_nothing_is_claimed():
    assert claims((achieved(WEEKLY),), HAPPENING, None) == ()


def test_policies_are_compared_on_the_same_cards():
    """The frauds of each day are on another card; one card alone could tell nothing."""
    of, first = bank(45, rows=30), START + 30 * DAY
    at = of.table.column_names.index("CUSTOMER_ID")
    cards = pa.array(np.arange(len(of.labels)) % 29)
    several = Bank(of.table.set_column(at, "CUSTOMER_ID", cards), CONFIG)

    def course(policy: str, of: Bank, quality: float) -> Course:
        said = of.labels * quality + np.random.default_rng(3).random(len(of.labels))
        begun = Replay(of, Known(of, lambda day: said), first, START).begin(policy)
        begun.answer(of.rows(first, first + 14 * DAY))
        return begun

    def compared(of: Bank, theirs: float) -> results.Difference:
        loop, other = course(LOOP, of, 0.5), course(WEEKLY, of, theirs)
        return results.difference(of, loop, other, first, first + 14 * DAY)

    assert compared(several, 0.5) == results.Difference(WEEKLY, 0.0, None, 0.0, (0.0, 0.0))
    better, worse = compared(several, 0.1), compared(several, 0.9)
    assert better.interval and better.average_precision > better.interval[0] > 0
    assert worse.interval and worse.average_precision < worse.interval[1] < 0
    assert compared(of, 0.2).interval is None


def test_money_is_compared_card_by_card():
    """Together the cards are what was saved; one card alone tells how sure that is."""
    of, first = bank(45, rows=30), START + 30 * DAY
    rows, at = of.rows(first, first + 14 * DAY), of.table.column_names.index("CUSTOMER_ID")
    cards = pa.array(np.arange(len(of.labels)) % 29)
    of = Bank(of.table.set_column(at, "CUSTOMER_ID", cards), CONFIG)

    def course(policy: str, quality: float) -> Course:
        said = of.labels * quality + np.random.default_rng(3).random(len(of.labels))
        begun = Replay(of, Known(of, lambda day: said), first, START).begin(policy)
        begun.answer(rows)
        return begun

    loop, weekly = course(LOOP, 1.0), course(WEEKLY, 0.1)
    for one in (loop, weekly):
        by_card = results.saved_by_card(of, one, rows)
        assert len(by_card) == 29
        assert by_card.sum() == pytest.approx(results.saved(of, one, rows))
    assert results.saved_by_card(of, weekly, rows).min() < 0  # checked without fraud
    compared = results.difference(of, loop, weekly, first, first + 14 * DAY)
    expected = results.saved(of, loop, rows) - results.saved(of, weekly, rows)
    assert compared.saved == pytest.approx(expected) and expected > 0
    low, high = compared.saved_interval
    of_cards = results.saved_by_card(of, loop, rows) - results.saved_by_card(of, weekly, rows)
    half = 1.96 * of_cards.std() * 29**0.5
    assert [low, high] == pytest.approx([expected - half, expected + half], abs=half / 3)

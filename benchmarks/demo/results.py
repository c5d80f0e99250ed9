"""What the policies achieved, in hindsight, when all labels are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from benchmarks.demo.bank import Bank
from benchmarks.demo.policies import Course
from benchmarks.demo.story import BROKEN, QUIET, Event
from fraud.models.evaluation import bootstrap, metrics
from fraud.monitoring.checks import Kind, Verdict
from fraud.monitoring.decide import RETRAIN
from fraud.monitoring.journal import Entry

WEEK = timedelta(days=7)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Week:
    """Some days of production, at most seven.

    Attributes:
      first, last: its days.
      transactions, frauds: how many.
      average_precision: of the scores that were answered.
      saved: by checking cards, in the currency of the amounts; see `saved`.
    """

    first: date
    last: date
    transactions: int
    frauds: int
    average_precision: float
    saved: float


@dataclass(frozen=True)
class Version:
    """A model that was live.

    Attributes:
      since: the first day on which it answered.
      trained_from, trained_until: its train window.
      broken_days: days of the broken column that it learnt from.
    """

    since: date
    trained_from: date
    trained_until: date
    broken_days: int


@dataclass(frozen=True)
class Seen:
    """What became of an event under the loop.

    Attributes:
      event: its name.
      detected: days from its first day to the first check that asked for action; None if none did.
      by: the names of the checks that did.
      bound: until when one must have.
    """

    event: str
    detected: int | None
    by: tuple[str, ...]
    bound: int


@dataclass(frozen=True)
class Result:
    """What a policy achieved.

    Attributes:
      policy: its name.
      weeks: of production.
      average_precision: mean of the weeks.
      saved: on all days; see `saved`.
      saved_by_alerts: the same if every card that alerts is checked.
      cards_a_day: cards that alerted on a day.
      trainings: how many, the first model not counted.
      trained: their days.
      refused: day → why its model was not pushed.
      versions: what was live.
      repaired: event → days from its first day until a model answers that has learnt from it; None
        if none does.
      trained_on_broken: trainings whose train window contained days of the broken column.
      cpu_seconds: of trainings, gates and looking at production.
    """

    policy: str
    weeks: tuple[Week, ...]
    average_precision: float
    saved: float
    saved_by_alerts: float
    cards_a_day: float
    trainings: int
    trained: tuple[date, ...]
    refused: dict[date, tuple[str, ...]]
    versions: tuple[Version, ...]
    repaired: dict[str, int | None]
    trained_on_broken: int
    cpu_seconds: float


@dataclass(frozen=True)
class Difference:
    """How much better the loop's scores are than those of another policy, on the same transactions.

    Attributes:
      policy: the other one.
      average_precision: the loop's less the other's, over all days together.
      interval: its 95 % interval by a paired bootstrap of cards; None if they cannot tell.
      saved: the loop's money less the other's; see `saved`.
      saved_interval: its 95 % interval, likewise.
    """

    policy: str
    average_precision: float
    interval: tuple[float, float] | None
    saved: float
    saved_interval: tuple[float, float]


@dataclass(frozen=True)
class LoopResult:
    """What the loop noticed.

    Attributes:
      seen: of each event that can be detected.
      held: the days of holds.
      alarms_in_quiet: days in the quiet period on which a check asked for a training.
      trainings_in_quiet: trainings in that period.
      false_alarms: days before the first event and in the quiet period on which a check asked.
      most_in_a_week: trainings in any seven days, at most.
      rolled_back: days on which a version was taken back.
      decisions: day → action and reasons, where the action is not "nothing".
    """

    seen: tuple[Seen, ...]
    held: tuple[date, ...]
    alarms_in_quiet: int
    trainings_in_quiet: int
    false_alarms: int
    most_in_a_week: int
    rolled_back: tuple[date, ...]
    decisions: dict[date, tuple[str, tuple[str, ...]]]


def weeks(bank: Bank, course: Course, first: date, last: date) -> tuple[Week, ...]:
    """What a policy achieved week by week; what is left at the end is no week."""
    found = []
    while (end := first + WEEK - DAY) <= last:
        rows = bank.rows(first, end)
        labels = bank.labels[rows]
        found.append(
            Week(
                first,
                end,
                len(labels),
                int(labels.sum()),
                metrics.average_precision(labels, course.score[rows]),
                saved(bank, course, rows),
            )
        )
        first += WEEK
    return tuple(found)


def saved(bank: Bank, course: Course, rows: slice, by_alerts: bool = False) -> float:
    """What analysts saved on some days by checking cards.

    Args:
      bank, course: what happened, and what was answered.
      rows: of the days.
      by_alerts: whether they check every card that alerts. Otherwise they check as many as they can
        on a day, the alert budget, those with the highest scores: then what is measured does not
        depend on how well the threshold fits, and a model gains nothing by alerting too often.
    """
    evaluation = bank.config.evaluation
    return metrics.expected_cost_saved(
        bank.labels[rows],
        course.alert[rows] if by_alerts else most_suspicious(bank, course, rows),
        bank.amounts[rows],
        bank.days[rows],
        bank.cards[rows],
        evaluation.check_cost,
        evaluation.saved_share,
    )


def most_suspicious(bank: Bank, course: Course, rows: slice) -> NDArray[np.bool_]:
    """Which rows are of the cards that are checked on their day, as in Card Precision@k."""
    days, cards, scores = bank.days[rows], bank.cards[rows], course.score[rows]
    budget = bank.config.evaluation.budget(bank.config.dataset)
    most = max(1, round(budget.cards(metrics.cards_a_day(days, cards))))
    found = np.zeros(len(days), bool)
    for day in np.unique(days):
        of_day = np.flatnonzero(days == day)
        names, card = np.unique(cards[of_day], return_inverse=True)
        highest = np.full(len(names), -np.inf)
        np.maximum.at(highest, card, scores[of_day])
        chosen = np.zeros(len(names), bool)
        chosen[np.argsort(-highest, kind="stable")[:most]] = True
        found[of_day] = chosen[card]
    return found


def cards_a_day(bank: Bank, course: Course, rows: slice) -> float:
    """How many cards alert on a day, on average."""
    days, cards = bank.days[rows], bank.cards[rows]
    alerting = np.stack([days, cards], axis=1)[course.alert[rows]]
    return len(np.unique(alerting, axis=0)) / len(np.unique(days))


def result(
    bank: Bank, course: Course, first: date, last: date, events: Sequence[Event] = ()
) -> Result:
    """What a policy achieved between two days."""
    by_week = weeks(bank, course, first, last)
    lost = days_of(events, BROKEN)
    versions = tuple(
        Version(
            since,
            (train := model.windows.train).first,
            train.last,
            sum(day in train and day not in model.excluded for day in lost),
        )
        for since, model in zip(course.since, course.models, strict=True)
    )
    trained_on = [
        any(day in a.model.windows.train and day not in a.model.excluded for day in lost)
        for a in course.attempts
    ]
    return Result(
        policy=course.policy,
        weeks=by_week,
        average_precision=sum(w.average_precision for w in by_week) / len(by_week),
        saved=saved(bank, course, bank.rows(first, last)),
        saved_by_alerts=saved(bank, course, bank.rows(first, last), by_alerts=True),
        cards_a_day=cards_a_day(bank, course, bank.rows(first, last)),
        trainings=len(course.attempts),
        trained=tuple(a.day for a in course.attempts),
        refused={a.day: a.refused for a in course.attempts if a.refused},
        versions=versions,
        repaired={e.name: repaired(e, versions) for e in events if e.is_learnt},
        trained_on_broken=sum(trained_on),
        cpu_seconds=round(course.cpu_seconds, 1),
    )


def difference(bank: Bank, loop: Course, other: Course, first: date, last: date) -> Difference:
    """Compares the loop with another policy between two days.

    The models are taken as they are: that another training would give another model does not count.
    """
    rows, name = bank.rows(first, last), "average_precision"
    outputs = {
        course.policy: bootstrap.Outputs(course.score[rows], course.alert[rows])
        for course in (loop, other)
    }
    measured = bootstrap.replicate(bank.labels[rows], outputs, bank.cards[rows])
    of_cards = saved_by_card(bank, loop, rows) - saved_by_card(bank, other, rows)
    random, n = np.random.default_rng(0), len(of_cards)
    drawn = [float(random.choice(of_cards, n).sum()) for _ in range(bootstrap.REPLICATES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Difference(
        other.policy,
        *measured.change(name, loop.policy, other.policy),
        float(of_cards.sum()),
        (float(low), float(high)),
    )


def saved_by_card(bank: Bank, course: Course, rows: slice) -> NDArray[np.float64]:
    """What checking each card saved on some days, [cards of the rows]; together, `saved`."""
    evaluation = bank.config.evaluation
    cards, card = np.unique(bank.cards[rows], return_inverse=True)
    checked = most_suspicious(bank, course, rows)
    found = checked & (bank.labels[rows] == 1)
    amounts = np.where(found, np.nan_to_num(bank.amounts[rows]), 0.0)
    checks = np.unique(np.stack([bank.days[rows][checked], card[checked]]), axis=1)[1]
    return evaluation.saved_share * np.bincount(
        card, amounts, len(cards)
    ) - evaluation.check_cost * np.bincount(checks, minlength=len(cards))


def days_of(events: Sequence[Event], name: str) -> list[date]:
    """The days of an event."""
    return [
        event.first + number * DAY
        for event in events
        if event.name == name
        for number in range((event.last - event.first).days + 1)
    ]


def repaired(event: Event, versions: Sequence[Version]) -> int | None:
    """Days from an event until a model answers whose train window reaches it."""
    for version in versions:
        if version.trained_until >= event.first and version.since > event.first:
            return (version.since - event.first).days
    return None


def of_loop(entries: Sequence[Entry], events: Sequence[Event]) -> LoopResult:
    """What the loop noticed, by its journal."""
    quiet = set(days_of(events, QUIET))
    begins = min((event.first for event in events), default=date.max)
    asked = [entry.day for entry in entries if has_asked(entry)]
    trained = [entry.day for entry in entries if entry.training]
    return LoopResult(
        seen=tuple(seen(event, entries) for event in events if event.checks),
        held=tuple(e.day for e in entries if e.decision and e.decision.action == "hold"),
        alarms_in_quiet=sum(day in quiet for day in asked),
        trainings_in_quiet=sum(day in quiet for day in trained),
        false_alarms=sum(day in quiet or day < begins for day in asked),
        most_in_a_week=max(
            (sum(day <= other < day + WEEK for other in trained) for day in trained), default=0
        ),
        rolled_back=tuple(entry.day for entry in entries if entry.restored),
        decisions={
            e.day: (e.decision.action, e.decision.reasons)
            for e in entries
            if e.decision and e.decision.action != "nothing"
        },
    )


def has_asked(entry: Entry) -> bool:
    """Whether a check asked for a training because something seemed to have changed."""
    checks = entry.observation.checks if entry.observation else ()
    return any(
        c.verdict is Verdict.ACT and c.kind in RETRAIN and c.kind is not Kind.AGE for c in checks
    )


def seen(event: Event, entries: Sequence[Entry]) -> Seen:
    """When the first check asked because of an event."""
    for entry in entries:
        if entry.observation is None or not event.first <= entry.day <= event.last:
            continue
        by = tuple(
            check.name
            for check in entry.observation.checks
            if check.verdict is Verdict.ACT and check.name in event.checks
        )
        if by:
            return Seen(event.name, (entry.day - event.first).days, by, event.bound)
    return Seen(event.name, None, (), event.bound)

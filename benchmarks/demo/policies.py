"""The policies: never, weekly and daily trainings as of a fixed day, and the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from time import process_time

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.demo.bank import Bank
from benchmarks.demo.gate import refusals
from benchmarks.demo.trainer import Model, Trainer
from fraud.models.evaluation.bootstrap import Outputs
from fraud.monitoring import shadow
from fraud.monitoring.alerts import Alerts
from fraud.monitoring.checks import Check, Observation
from fraud.monitoring.decide import Lags
from fraud.monitoring.journal import Entry, Journal, Training
from fraud.monitoring.loop import Loop
from fraud.monitoring.observe import live_of, observe, observed_days
from fraud.monitoring.production import Live, Production
from fraud.serving.prediction_log import Predictions
from fraud.time import EPOCH, day_number

NEVER, WEEKLY, DAILY, LOOP = "never", "weekly", "daily", "loop"
EVERY = {NEVER: 0, WEEKLY: 7, DAILY: 1, LOOP: 0}
"""Days from one training to the next; 0 if they are not known beforehand."""
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Attempt:
    """A training.

    Attributes:
      day: its as-of day; if it was pushed, the model answers from the next day on.
      model: what it trained.
      refused: why it was not pushed; nothing if it was.
    """

    day: date
    model: Model
    refused: tuple[str, ...]


@dataclass
class Course:
    """What a policy did, and what was answered under it.

    Attributes:
      policy: its name.
      score, alert: of each row; NaN and False before production, [rows].
      version: of each row: the number of the model in `models`; -1 before production, [rows].
      models: all models that were live, the first one first.
      since: day from which on each of them answered.
      attempts: its trainings, the first model not counted.
      entries: the loop's journal.
      cpu_seconds: of trainings, gates and, for the loop, looking at production.
    """

    policy: str
    score: NDArray[np.float32]
    alert: NDArray[np.bool_]
    version: NDArray[np.int64]
    models: list[Model] = field(default_factory=list)
    since: list[date] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    cpu_seconds: float = 0.0

    @classmethod
    def of(cls, policy: str, rows: int) -> Course:
        """One on which nothing has happened yet."""
        nothing = np.full(rows, np.nan, np.float32)
        return cls(policy, nothing, np.zeros(rows, bool), np.full(rows, -1))

    def goes_live(self, model: Model, day: date) -> None:
        """A model answers from a day on."""
        self.models.append(model)
        self.since.append(day)

    def answer(self, rows: slice) -> None:
        """The live model scores rows."""
        live = self.models[-1]
        self.score[rows] = live.scores(rows)
        self.alert[rows] = self.score[rows] >= live.threshold
        self.version[rows] = len(self.models) - 1


class Replay:
    """A bank's production, from the first model on.

    Args:
      bank: whose.
      trainer: of all models.
      first: the first day of production.
      last: its last day.
    """

    def __init__(self, bank: Bank, trainer: Trainer, first: date, last: date) -> None:
        self.bank, self.trainer, self.first, self.last = bank, trainer, first, last

    def due(self, every: int) -> list[date]:
        """The days on which a model is trained if one is every so many days; 0: never."""
        count = (self.last - self.first).days + 1
        numbers = range(every - 1, count, every) if every else ()
        return [self.first + number * DAY for number in numbers]

    def scheduled(self, policy: str) -> Course:
        """Trains every so many days, whatever the data is like; the gate decides as for all."""
        course, due = self.begin(policy), self.due(EVERY[policy])
        for number in range((self.last - self.first).days + 1):
            day = self.first + number * DAY
            course.answer(self.bank.rows(day, day))
            if day in due:
                attempt = self.attempt(course, day, ())
                if not attempt.refused:
                    course.goes_live(attempt.model, day + DAY)
        return course

    def loop(self, folder: Path, told: Callable[[str], None] = lambda line: None) -> Course:
        """The loop of `fraud.monitoring.loop`, with the configuration's policy."""
        course = self.begin(LOOP)
        config = self.bank.config
        lags = Lags.of(
            config.windows.label_delay_days,
            config.windows.eval_days,
            config.windows.train_days,
            config.monitoring.performance_days,
            config.loop.change_eval_days,
        )
        alerts, journal = Alerts(folder / "alerts"), Journal(folder / "loop")
        loop = Loop(
            journal,
            ReplaySteps(self, course),
            config.loop,
            lags,
            config.monitoring,
            alerts,
            told,
        )
        while (day := loop.next_day(self.first)) is not None:
            loop.process(day)
        alerts.close()
        course.entries = journal.entries()
        return course

    def begin(self, policy: str) -> Course:
        """The course of a policy on the first day; the first model is that of all policies."""
        course = Course.of(policy, len(self.bank.days))
        course.goes_live(self.trainer.model(self.first - DAY), self.first)
        return course

    def attempt(
        self, course: Course, day: date, broken: Sequence[date], eval_days: int | None = None
    ) -> Attempt:
        """Trains as of a day and asks the gate."""
        bank = self.bank
        model = self.trainer.model(day, broken, eval_days)
        started = process_time()
        rows = bank.without(*evaluated(bank, model))
        found = refusals(
            bank.labels[rows],
            bank.cards[rows],
            outputs(model, rows),
            outputs(course.models[-1], rows),
            bank.config.evaluation,
        )
        course.cpu_seconds += model.cpu_seconds + process_time() - started
        attempt = Attempt(day, model, found)
        course.attempts.append(attempt)
        return attempt


def outputs(model: Model, rows: NDArray[np.int64]) -> Outputs:
    """What a model says of rows."""
    scores = model.scores(rows)
    return Outputs(scores, scores >= model.threshold)


class ReplaySteps:
    """The steps of `fraud.monitoring.loop` in memory; see `fraud.monitoring.loop.Steps`.

    Versions are numbered from 1 in the order in which they go live; one that a rollback restores
    gets a new number.

    Args:
      replay: the bank and its trainer.
      course: is written.
    """

    def __init__(self, replay: Replay, course: Course) -> None:
        self._replay, self._bank, self._course = replay, replay.bank, course
        self._compared: dict[int, Live] = {}

    def next_day(self, after: date | None) -> date | None:
        """The next day of the history."""
        day = self._replay.first if after is None else after + DAY
        return day if day <= self._replay.last else None

    def files(self, day: date) -> dict[date, str]:
        """None: nothing arrives late."""
        return {}

    def changed(self, day: date, files: dict[date, str]) -> tuple[date, ...]:
        """No day."""
        return ()

    def score(self, day: date) -> None:
        """The live version answers."""
        self._course.answer(self._bank.rows(day, day))

    def observe(self, day: date) -> Observation:
        """All checks, by the labels that were known on the day."""
        started = process_time()
        config = self._bank.config
        production = self._production(observed_days(day, config).first, day)
        seen = observe(production, self._live(), config, day)
        seen = replace(seen, checks=(*seen.checks, *self._harm(day)))
        self._course.cpu_seconds += process_time() - started
        return seen

    def train(
        self, day: date, broken: Sequence[date], probation: bool, began: float, is_urgent: bool
    ) -> Training:
        """Trains, asks the gate, and pushes."""
        usual, urgent = self._bank.config.windows.eval_days, self._bank.config.loop.change_eval_days
        eval_days = min(usual, urgent) if is_urgent and urgent else None
        attempt = self._replay.attempt(self._course, day, broken, eval_days)
        run = f"as of {day}"
        if attempt.refused:
            return Training("not_blessed", run, attempt.refused)
        self._course.goes_live(attempt.model, day + DAY)
        return Training("pushed", run, pushed=self.live())

    def live(self) -> str:
        """The live version."""
        return str(len(self._course.models))

    def roll_back(self, bad: str, reason: str) -> str:
        """The model before it goes live again."""
        if self.live() == bad:
            restored = self._before()
            assert restored is not None
            answered = np.flatnonzero(self._course.version >= 0)
            today = EPOCH + timedelta(days=int(self._bank.days[answered[-1]]))
            self._course.goes_live(restored, today + DAY)
        return self.live()

    def problems(
        self, version: str, since: date, until: date, is_as_evaluated: bool
    ) -> tuple[str, ...] | None:
        """Compares what a version answered with what the one before it would have."""
        rows = np.flatnonzero(self._course.version == int(version) - 1)
        if len(rows) < self._bank.config.loop.verify_rows:
            return None
        before = self._before()
        assert before is not None
        answered = Outputs(self._course.score[rows], self._course.alert[rows])
        said, policy = outputs(before, rows), self._bank.config.loop
        return shadow.differences(answered, said, policy, is_as_evaluated)

    def judge(self, model: str, first: date, last: date) -> tuple[str, ...]:
        """Is not asked: no model is on probation here."""
        raise NotImplementedError

    def _before(self) -> Model | None:
        """The model that a rollback restores: the last one that is not the live one."""
        live = self._course.models[-1]
        others = [model for model in self._course.models if model is not live]
        return others[-1] if others else None

    def _is_restored(self) -> bool:
        live = self._course.models[-1]
        return any(model is live for model in self._course.models[:-1])

    def _harm(self, day: date) -> tuple[Check, ...]:
        """Whether the live version is worse than the one before it, by known labels."""
        before = self._before()
        if before is None or self._is_restored():
            return ()
        known = day - timedelta(days=self._bank.config.windows.label_delay_days)
        first = day - timedelta(days=self._bank.config.loop.roll_back_days)
        of_days = self._bank.rows(first, known)
        answered = np.arange(of_days.start, of_days.stop)
        rows = answered[self._course.version[of_days] == len(self._course.models) - 1]
        if not len(rows):
            return ()
        ours = Outputs(self._course.score[rows], self._course.alert[rows])
        labels = self._bank.labels[rows].astype(np.float64)
        theirs = outputs(before, rows)
        allowed = self._bank.config.evaluation.max_average_precision_drop
        cards = self._bank.cards[rows]
        return (shadow.harm(labels, cards, ours, theirs, "the one before", allowed),)

    def _production(self, first: date, day: date) -> Production:
        """What had happened when a day ended."""
        bank, dataset = self._bank, self._bank.config.dataset
        rows = bank.rows(first, day)
        known = day_number(day) - bank.config.windows.label_delay_days
        table = bank.between(first, day)
        labels = pa.array(bank.labels[rows], mask=bank.days[rows] > known)
        at = table.schema.get_field_index(dataset.label)
        arrived = table.set_column(at, dataset.label, labels).select(dataset.columns)
        scored = np.flatnonzero(self._course.version[rows] >= 0)
        today = bank.between(day, day)
        return Production(
            arrived,
            self._predictions(table.take(pa.array(scored)), rows.start + scored),
            today.select([str(dataset.id), *bank.features]),
        )

    def _predictions(self, table: pa.Table, rows: NDArray[np.int64]) -> Predictions:
        """The prediction log of some rows."""
        dataset, course, n = self._bank.config.dataset, self._course, len(rows)
        names = [name for name in dataset.columns if name != dataset.label]
        transactions = table.select(names)
        assert dataset.id is not None and dataset.timestamp is not None
        at = transactions.schema.get_field_index(dataset.id)
        ids = transactions[dataset.id].cast(pa.string())
        return Predictions(
            transactions=transactions.set_column(at, dataset.id, ids),
            features=table.select(list(self._bank.features)),
            time=table[dataset.timestamp].to_numpy(),
            version=(course.version[rows] + 1).astype(np.str_),
            score=course.score[rows],
            alert=course.alert[rows],
            outcome=np.full(n, "new"),
            canary=np.zeros(n, bool),
            shadow_version=np.full(n, ""),
            shadow_score=np.full(n, np.nan, np.float32),
            latency_ms=np.zeros(n, np.float32),
        )

    def _live(self) -> Live:
        """What the live version is compared with; that of a restored model has its aliases."""
        model, bank = self._course.models[-1], self._bank
        if id(model) not in self._compared:
            days = model.windows.train
            train = bank.without(bank.rows(days.first, days.last), model.excluded)
            self._compared[id(model)] = live_of(
                self.live(),
                bank.table.take(pa.array(train)),
                self._evaluated(model),
                bank.features,
                bank.config,
                model.as_of,
            )
        same = [n + 1 for n, other in enumerate(self._course.models) if other is model]
        return replace(
            self._compared[id(model)], version=self.live(), aliases=frozenset(map(str, same))
        )

    def _evaluated(self, model: Model) -> Production:
        """What the gate saw of a model: its eval window."""
        bank = self._bank
        rows = bank.without(*evaluated(bank, model))
        table = bank.table.take(pa.array(rows))
        said = outputs(model, rows)
        logged = replace(
            self._predictions(table, rows),
            version=np.full(len(rows), "evaluated"),
            score=said.scores,
            alert=said.alerts,
        )
        return Production(table.select(bank.config.dataset.columns), logged)


def evaluated(bank: Bank, model: Model) -> tuple[slice, tuple[date, ...]]:
    """The rows of a model's eval window, and the days that are left out of them."""
    window = model.windows.eval
    return bank.rows(window.first, window.last), model.excluded

"""A bank whose steps take no time, for tests of the loop: days, observations, models, all in files.

As a program, it replays its days, slowly enough to be killed at any point:

    python fake_bank.py FOLDER
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from fraud.errors import BadInput, FraudPipelineError
from fraud.monitoring import journal, loop
from fraud.monitoring.alerts import Alerts
from fraud.monitoring.checks import Check, Kind, Observation, Verdict
from fraud.monitoring.decide import Lags
from fraud.monitoring.journal import Entry, Journal, Training
from fraud.monitoring.loop import Heart, Loop
from fraud.monitoring.policy import LoopSettings
from fraud.monitoring.spec import Monitoring

FIRST = date(2026, 3, 1)
LOOKS_BACK = 5
"""Days before a day whose files count for it."""
POLICY = LoopSettings(
    consecutive_days=1,
    cool_down_days=3,
    min_changed_days=0,
    attempts=3,
    retry_seconds=0.01,
    poll_seconds=0.01,
)


def asks(kind: Kind, name: str = "") -> Check:
    return Check(name or kind.value, 0.15, None, 0.1, Verdict.ACT, "", kind)


@dataclass
class Bank:
    """The steps of a loop.

    Attributes:
      folder: where its files are.
      days: how many have arrived.
      checks: day number → what is observed then.
      outcomes: day number → outcome of its training; "pushed" unless given.
      bad: versions that are found to be bad after the swap.
      odd: versions whose scores are others than those of the version before.
      refused: day numbers whose models are not promoted.
      edited: day number → how often its files have changed.
      errors: (step, day number) → exceptions that it raises before it succeeds.
      pause: called before and after each effect.
    """

    folder: Path
    days: int
    checks: dict[int, list[Check]] = field(default_factory=dict)
    outcomes: dict[int, str] = field(default_factory=dict)
    bad: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    refused: tuple[int, ...] = ()
    edited: dict[int, int] = field(default_factory=dict)
    errors: dict[tuple[str, int], list[Exception]] = field(default_factory=dict)
    pause: Callable[[], None] = lambda: None

    def _do(self, step: str, day: date) -> None:
        self.pause()
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps([step, (day - FIRST).days]) + "\n")
        planned = self.errors.get((step, (day - FIRST).days), [])
        if planned:
            raise planned.pop(0)

    def log(self) -> list[tuple[str, int]]:
        """The steps in the order in which they began."""
        lines = (self.folder / "log.jsonl").read_text("utf-8").splitlines()
        return [tuple(json.loads(line)) for line in lines]

    def versions(self) -> dict[str, str]:
        """Version → what it is: "day N", or "restored V"."""
        folder = self.folder / "pushed"
        paths = sorted(folder.glob("[!.]*"), key=lambda path: int(path.name))
        return {path.name: path.read_text("utf-8") for path in paths}

    def _push(self, what: str) -> str:
        self.pause()
        (self.folder / "pushed").mkdir(parents=True, exist_ok=True)
        version = str(len(self.versions()) + 1)
        temporary = self.folder / "pushed" / f".{version}"
        temporary.write_text(what, "utf-8")
        self.pause()
        os.rename(temporary, self.folder / "pushed" / version)
        self.pause()
        return version

    def next_day(self, after: date | None) -> date | None:
        day = after + timedelta(days=1) if after else FIRST
        return day if (day - FIRST).days < self.days else None

    def files(self, day: date) -> dict[date, str]:
        last = (day - FIRST).days
        numbers = range(max(last - LOOKS_BACK, 0), last + 1)
        return {FIRST + timedelta(n): str(self.edited.get(n, 0)) for n in numbers}

    def changed(self, day: date, files: dict[date, str]) -> tuple[date, ...]:
        return tuple(other for other, now in self.files(day).items() if files[other] != now)

    def score(self, day: date) -> None:
        self._do("score", day)

    def observe(self, day: date) -> Observation:
        self._do("observe", day)
        live = self.live()
        return Observation(
            day, int(live) if live else None, tuple(self.checks.get((day - FIRST).days, ()))
        )

    def train(
        self, day: date, broken: Sequence[date], probation: bool, began: float, is_urgent: bool
    ) -> Training:
        assert began
        self._do("train", day)
        (self.folder / "broken.json").write_text(json.dumps([str(other) for other in broken]))
        if is_urgent:
            (self.folder / f"urgent-{day}").touch()
        number = (day - FIRST).days
        outcome = self.outcomes.get(number, "pushed")
        if outcome == "pushed" and probation:
            return Training(journal.ON_PROBATION, f"run-{number}", model=f"model-{number}")
        if outcome != "pushed":
            return Training(outcome, f"run-{number}", ("not good enough",))
        done = [v for v, what in self.versions().items() if what == f"day {number}"]
        return Training(
            "pushed", f"run-{number}", pushed=(done or [self._push(f"day {number}")])[0]
        )

    def live(self) -> str:
        return list(self.versions())[-1] if self.versions() else ""

    def roll_back(self, bad: str, reason: str) -> str:
        self._do("roll_back", FIRST)
        if self.live() == bad:
            earlier = [v for v in self.versions() if int(v) < int(bad)]
            if not earlier:
                raise BadInput("there is no earlier model")
            self._push(f"restored {earlier[-1]}")
        return self.live()

    def problems(
        self, version: str, since: date, until: date, is_as_evaluated: bool
    ) -> tuple[str, ...] | None:
        self._do("problems", until)
        if until <= since:
            return None
        is_odd = version in self.odd and not is_as_evaluated
        return ("9 times as many alerts",) if version in self.bad or is_odd else ()

    def judge(self, model: str, first: date, last: date) -> tuple[str, ...]:
        self._do("judge", last)
        number = (first - FIRST).days - 1
        assert model == f"model-{number}"
        return ("worse",) if number in self.refused else ()


@dataclass
class Run:
    """What a replay left.

    Attributes:
      kinds: of the alerts, oldest first.
    """

    entries: list[Entry]
    kinds: list[str]
    state: dict

    @property
    def actions(self) -> list[str]:
        return [entry.decision.action for entry in self.entries if entry.decision]


def replay(bank: Bank, policy: LoopSettings = POLICY, said: list[str] | None = None) -> Run:
    """Lets the loop process all days of a bank."""
    folder = bank.folder / "loop"
    journal, alerts = Journal(folder), Alerts(bank.folder / "alerts")
    heart = Heart(folder / "state.json")
    say = (said if said is not None else []).append
    made = Loop(journal, bank, policy, Lags(), Monitoring(), alerts, say, heart.doing)
    try:
        with loop.alone(folder):
            loop.watch(made, policy, heart, alerts, once=True, is_simulated=True)
    finally:
        heart.close()
        alerts.close()
    state = json.loads((folder / "state.json").read_text("utf-8"))
    raised = sorted(loop_alerts(bank.folder), key=lambda raised: raised.time)
    return Run(Journal(folder).entries(), [raised.alert.kind for raised in raised], state)


def loop_alerts(folder: Path) -> list:
    from fraud.monitoring.alerts import raised_in

    return raised_in(folder / "alerts")


def eventful(folder: Path) -> Bank:
    """Forty days on which everything happens."""
    drift, broken = [asks(Kind.DRIFT)], [asks(Kind.DATA), asks(Kind.DRIFT)]
    decayed = [asks(Kind.PERFORMANCE)]
    return Bank(
        folder,
        40,
        checks={
            **dict.fromkeys(range(4, 6), drift),
            **dict.fromkeys(range(8, 12), broken),
            **dict.fromkeys(range(13, 20), drift),
            25: [asks(Kind.HARM)],
            **dict.fromkeys(range(30, 33), decayed),
        },
        outcomes={16: "not_blessed"},
        bad=("5",),
    )


if __name__ == "__main__":
    here = eventful(Path(sys.argv[1]))
    here.pause = lambda: time.sleep(random.uniform(0, 0.004))
    try:
        replay(here)
    except FraudPipelineError as error:
        sys.exit(str(error))

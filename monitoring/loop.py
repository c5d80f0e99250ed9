"""The closed loop: a day arrives, is observed, and what follows is decided and done.

::

    arrived ─ scored ─ observed ─ decided ─┬─ hold
                                           └─ the newest version verified ─┬─ nothing
                                                                           ├─ trained ─ live, or
                                                                           │    on probation first
                                                                           └─ rolled back

What was done is recorded step by step in `fraud.monitoring.journal`. Whoever starts again after a
kill reads it and goes on with the step that is missing. A step that was done but not recorded is
repeated, so each step finds out what it has done already: see `Steps`.
What is done is handed in, so the loop neither knows TFX nor the server.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Protocol

from fraud.codec import to_json
from fraud.errors import BadInput, FraudPipelineError
from fraud.files import open_lock, try_lock, write_atomically
from fraud.monitoring.alerts import Alert, Alerts
from fraud.monitoring.checks import Check, Kind, Observation, Verdict
from fraud.monitoring.decide import HOLD, RETRAIN, Lags, decide
from fraud.monitoring.journal import (
    FAILED,
    ON_PROBATION,
    Entry,
    Journal,
    Look,
    Training,
    is_training_due,
)
from fraud.monitoring.policy import Kind as AlertKind
from fraud.monitoring.policy import LoopSettings
from fraud.monitoring.spec import Monitoring
from fraud.text import plain

STATE_FILE = "state.json"
"""What the loop is doing, in its folder; its heartbeat."""
LONGEST_WAIT = 3600.0
BEAT_SECONDS = 5.0


class Steps(Protocol):
    """What the loop does with the world. Each step may be repeated: after a kill, or a failure.

    Those that raise `FraudPipelineError` are repeated later; `BadInput` says that this would not
    help.
    """

    def next_day(self, after: date | None) -> date | None:
        """The first day after another that has arrived completely; None if none has yet."""

    def files(self, day: date) -> dict[date, str]:
        """The days that `observe` looks at, and what differs when the files of one do."""

    def changed(self, day: date, files: dict[date, str]) -> tuple[date, ...]:
        """The days of which there are other files now than `files` says; none while one of them is
        not complete.
        """

    def score(self, day: date) -> None:
        """Scores a day's transactions with what was live, where no server does."""

    def observe(self, day: date) -> Observation:
        """Looks at production as of a day."""

    def train(
        self, day: date, broken: Sequence[date], probation: bool, began: float, is_urgent: bool
    ) -> Training:
        """Trains as of a day without some days, or returns what a training since `began` did.

        With `probation`, a model that may be pushed is not; without, the same model is. A training
        that `is_urgent` has the eval window `loop.change_eval_days`.
        """

    def live(self) -> str:
        """The version that is live; "" if none is."""

    def roll_back(self, bad: str, reason: str) -> str:
        """Takes a version back, unless that is done; returns the one that is live then."""

    def problems(
        self, version: str, since: date, until: date, is_as_evaluated: bool
    ) -> tuple[str, ...] | None:
        """What is wrong with a version that went live, by what it scored; None: too early to say.

        `since` is the last day before it, and `until` the last day to look at. What it scores may
        differ from what the version before would if it `is_as_evaluated`.
        """

    def judge(self, model: str, first: date, last: date) -> tuple[str, ...]:
        """What speaks against promoting a model, by the days of its probation."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Locks a root for one loop, until the process ends at the latest.

    Raises:
      BadInput: another one looks after it, or the folder cannot be written to.
    """
    try:
        file = open_lock(folder / ".lock")
    except OSError as error:
        raise BadInput(f"{folder}: cannot be used: {error.strerror}") from None
    with file:
        if owner := try_lock(file):
            raise BadInput(
                f"{folder.parent}: another loop ({owner}) looks after this root; stop it first"
            )
        yield


class Loop:
    """Processes days, each exactly once.

    Args:
      journal: what was done.
      steps: what does it.
      policy: the configuration's section `loop`.
      lags: see `decide`.
      monitoring: the configuration's section, for the checks that need earlier observations.
      alerts: who is told.
      say: shows a line of progress.
      doing: told what is being done, for the heartbeat.
    """

    def __init__(
        self,
        journal: Journal,
        steps: Steps,
        policy: LoopSettings,
        lags: Lags,
        monitoring: Monitoring,
        alerts: Alerts,
        say: Callable[[str], None] = lambda line: None,
        doing: Callable[[str], None] = lambda what: None,
    ) -> None:
        self._journal, self._steps, self._policy, self._lags = journal, steps, policy, lags
        self._alerts, self._say, self._doing = alerts, say, doing
        self._monitoring = monitoring

    def next_day(self, first: date | None = None) -> date | None:
        """The day to process next: one that was begun, or the next that has arrived, or the last
        one again, because labels or other files that it depends on have arrived or changed since.

        Args:
          first: the earliest day, if none was processed yet; None for any.
        """
        entries = self._journal.entries()
        if entries and not entries[-1].done:
            return entries[-1].day
        if entries:
            last = entries[-1].day
            return self._steps.next_day(last) or (last if self.reopen(last) else None)
        return self._steps.next_day(first - timedelta(days=1) if first else None)

    def process(self, day: date, is_last_attempt: bool = False) -> Entry:
        """Does what is missing of a day.

        Args:
          day: which.
          is_last_attempt: whether a training that fails again is given up, so that the loop can
            go on.

        Raises:
          FraudPipelineError: a step failed. Call it again later.
        """
        entry = self._journal.entry(day)
        if entry.done:
            return entry
        entry = self.begin(day)
        training = None
        if is_training_due(entry):
            probation = self.is_tried_first(entry)
            training = self._train(entry, probation, entry.began, is_last_attempt)
        return self.end(day, training, is_last_attempt)

    def reopen(self, day: date) -> bool:
        """Lets the last day be observed and decided again if files that it depends on have changed.

        A day that was trained on, or on which a version was taken back, is left as it is: what has
        changed counts on the next day.
        """
        entry = self._journal.entry(day)
        if day != self.last_day() or not entry.done or entry.has_acted:
            return False
        if not (changed := self._steps.changed(day, entry.files)):
            return False
        again = Entry(day, looks=(*entry.looks, Look(_now(), changed, entry.decision)))
        self._journal.write(again)
        self._say(_line(day, "is looked at again", (_changed(changed),)))
        return True

    def _judge_again(self, before: date) -> None:
        """Looks again at days that trainings leave out, if their files have changed.

        What was done on such a day remains: only whether it may be trained on is decided anew.
        """
        for day in [day for day in self._journal.broken() if day < before]:
            entry = self._journal.entry(day)
            if changed := self._steps.changed(day, entry.files):
                self._doing(f"observing {day} again")
                files = self._steps.files(day)
                look = Look(_now(), changed, entry.decision)
                seen = self._observe(day)
                entry = self._write(
                    entry, files=files, observation=seen, looks=(*entry.looks, look)
                )
                what = "is still broken" if entry.is_broken else "may be trained on"
                self._say(_line(day, what, (_changed(changed),)))

    def begin(self, day: date) -> Entry:
        """Does what is missing of a day before its training: observe, decide, verify, roll back.

        `is_training_due` tells whether a training should follow; then `end` ends the day. An
        orchestrator calls both, and trains in between.

        Raises:
          FraudPipelineError: a step failed. Call it again later.
        """
        entry = self._journal.entry(day)
        if entry.observation is None:
            self._judge_again(day)
            self._doing(f"observing {day}")
            files = self._steps.files(day)  # before: what changes meanwhile is looked at again
            entry = self._write(entry, files=files, observation=self._observe(day))
        assert entry.observation is not None
        if entry.decision is None:
            decision = decide(entry.observation, self._journal.history(), self._policy, self._lags)
            began = time.time() if decision.action == "retrain" else 0.0
            entry = self._write(entry, decision=decision, began=began)
            self._say(_line(day, decision.action, decision.reasons))
        self._report(entry)
        assert entry.decision is not None
        if entry.decision.action != "hold":  # as then nobody can tell what the model does
            self.verify(day)
            entry = self._journal.entry(day)
        if entry.decision and entry.decision.action == "roll_back" and not entry.restored:
            version = entry.observation.version if entry.observation else None
            entry = self._roll_back(entry, str(version), "; ".join(entry.decision.reasons))
        return entry

    def end(
        self, day: date, training: Training | None = None, is_last_attempt: bool = False
    ) -> Entry:
        """Records the training of a day, if there was one, and ends the day.

        Args:
          day: which.
          training: what became of it.
          is_last_attempt: whether a promotion that fails again is given up.

        Raises:
          FraudPipelineError: a step failed. Call it again later.
        """
        entry = self._journal.entry(day)
        if training is not None and entry.training is None:
            until = None
            if training.outcome == ON_PROBATION:
                until = day + timedelta(days=self._policy.probation_days)
            entry = self._write(entry, training=training, probation_until=until)
        if entry.training is not None:
            self._tell_of(day, entry.training)
        if entry.decision is not None and entry.decision.action != "hold":
            self._promote(day, is_last_attempt)
        self._warn(day)
        return self._write(self._journal.entry(day), done=True)

    def is_tried_first(self, entry: Entry) -> bool:
        """Whether the model that a day trains is on probation before it is pushed."""
        is_live = entry.observation is not None and entry.observation.version is not None
        return is_live and self._policy.probation_days > 0

    def last_day(self) -> date | None:
        """The last day that was begun; None before the first."""
        entries = self._journal.entries()
        return entries[-1].day if entries else None

    def _write(self, entry: Entry, **changes: object) -> Entry:
        return self._journal.write(replace(entry, **changes))  # type: ignore[arg-type]

    def _observe(self, day: date) -> Observation:
        """The observation; data that cannot be read is one check, which asks for a hold."""
        try:
            self._steps.score(day)
            seen = self._steps.observe(day)
            from fraud.monitoring import promises  # which imports arrays

            return promises.of_journal(seen, self._journal, self._monitoring)
        except BadInput as error:
            problem = plain(str(error))
        live = self._steps.live()
        unreadable = Check("data/readable", 0.0, None, None, Verdict.ACT, problem, Kind.DATA)
        return Observation(day, int(live) if live else None, (unreadable,))

    def _train(
        self, entry: Entry, probation: bool, began: float, is_last_attempt: bool = False
    ) -> Training:
        self._doing(f"training as of {entry.day}")
        try:
            broken = self.broken(entry.day)
            return self._steps.train(entry.day, broken, probation, began, entry.is_urgent)
        except FraudPipelineError as error:
            if not (is_last_attempt or isinstance(error, BadInput)):
                raise
            return Training(FAILED, reasons=(plain(str(error)),))

    def broken(self, day: date) -> list[date]:
        """The days up to one that a training as of that day leaves out."""
        return [other for other in self._journal.broken() if other <= day]

    def _roll_back(self, entry: Entry, bad: str, reason: str) -> Entry:
        """Takes a version back; what is to be done is recorded first, so that it is done once."""
        if not entry.bad_version:
            entry = self._write(entry, bad_version=bad, reason=reason)
        self._doing(f"rolling back from version {bad}")
        try:
            restored = self._steps.roll_back(entry.bad_version, entry.reason)
            said = f"version {bad} was taken back; version {restored} is live"
        except BadInput as error:  # there is nothing to go back to
            restored, said = "none", f"version {bad} does harm, but stays live: {error}"
        self._say(_line(entry.day, said, (entry.reason,)))
        alert = Alert("rollback", bad, said, (entry.reason,), str(entry.day), version=restored)
        self._alerts.send(alert)
        return self._write(entry, restored=restored)

    def verify(self, day: date) -> None:
        """Judges the newest version by what it scored, unless that has been done."""
        pushed = [entry for entry in self._journal.entries() if entry.pushed]
        if not pushed or pushed[-1].verified_on is not None:
            return
        entry = pushed[-1]
        if not entry.bad_version:
            if self._steps.live() != entry.pushed:  # something else went live meanwhile
                self._write(entry, verified_on=day)
                return
            assert entry.went_live is not None
            seen = self._journal.entry(day).observation
            as_evaluated = seen is not None and is_as_evaluated(seen, entry.pushed)
            found = self._steps.problems(entry.pushed, entry.went_live, day, as_evaluated)
            if found is None:
                return
            if not found:
                self._write(entry, verified_on=day)
                self._say(_line(day, f"version {entry.pushed} verified", ()))
                return
            entry = self._write(entry, verified=found)
        reason = f"verification after the swap: {'; '.join(entry.verified)}"
        entry = self._roll_back(entry, entry.pushed, reason)
        self._write(entry, verified_on=day)

    def _promote(self, day: date, is_last_attempt: bool) -> None:
        """Ends a probation that is over: the model is pushed, or refused."""
        for entry in self._journal.entries():
            if not entry.on_probation or entry.training is None:
                continue
            assert entry.probation_until is not None
            if day < entry.probation_until:
                continue
            against = self._steps.judge(
                entry.training.model, entry.day + timedelta(days=1), entry.probation_until
            )
            if against:
                promotion = replace(entry.training, outcome="not_promoted", reasons=against)
            else:
                promotion = self._train(entry, False, time.time(), is_last_attempt)
                if promotion.outcome == FAILED and not promotion.model:
                    # The model that waited is still there, to be listed and kept.
                    promotion = replace(entry.training, outcome=FAILED, reasons=promotion.reasons)
            entry = self._write(entry, promotion=promotion, judged_on=day)
            self._tell_of(entry.day, promotion, judged_on=day)

    def _tell_of(self, day: date, training: Training, judged_on: date | None = None) -> None:
        """Tells what became of a day's training, or of the probation that it led to."""
        kinds: dict[str, AlertKind] = {
            FAILED: "failed_run",
            "gate_stopped": "gate_stop",
            "pushed": "push",
        }
        outcome = training.outcome.replace("_", " ")
        said = f"training as of {day}: {outcome}"
        if training.pushed:
            said = f"version {training.pushed} is live, trained as of {day}"
        told_on = judged_on or day
        self._say(_line(told_on, said, training.reasons))
        if kind := kinds.get(training.outcome):
            self._alerts.send(
                Alert(
                    kind,
                    f"{day} {training.run_id}",
                    said,
                    training.reasons,
                    str(told_on),
                    training.run_id,
                    training.pushed,
                    training.outcome,
                    training.log,
                )
            )

    def _report(self, entry: Entry) -> None:
        """Tells of what was observed."""
        assert entry.decision is not None and entry.observation is not None
        decision, day = entry.decision, str(entry.day)
        live = str(entry.observation.version or "")
        acting = [c for c in entry.observation.checks if c.verdict is Verdict.ACT]
        if decision.action == "hold":
            subject = " ".join(sorted(c.name for c in acting if c.kind in HOLD))
            said = f"{day} is held: nothing is trained or rolled back"
            if entry.is_broken:
                said = (
                    f"the data of {day} is broken: nothing is trained on it unless it is repaired"
                )
            is_stale = all(c.kind is Kind.FRESHNESS for c in acting if c.kind in HOLD)
            kind: AlertKind = "stale_data" if is_stale else "hold"
            self._alerts.send(Alert(kind, subject, said, decision.reasons, day, version=live))
            return
        if asking := [c for c in acting if c.kind in RETRAIN and c.kind is not Kind.AGE]:
            names = sorted({c.name for c in asking})
            said = f"{len(names)} checks ask for a training: {', '.join(names[:5])}"
            told = tuple(f"{c.name}: {c.detail}" if c.detail else c.name for c in asking)
            self._alerts.send(
                Alert("drift", f"{live} {' '.join(names)}", said, told, day, version=live)
            )
        if live and (old := [c for c in acting if c.kind is Kind.AGE]):
            said = f"version {live} is due for a successor"
            told = tuple(f"{c.name} is {c.value:g}" for c in old if c.value is not None)
            self._alerts.send(Alert("stale_model", live, said, told, day, version=live))

    def _warn(self, day: date) -> None:
        """Tells if models are trained, but none is good enough."""
        entries = [entry for entry in self._journal.entries() if entry.day <= day]
        lives = [live for entry in entries if (live := entry.went_live) is not None]
        since = max(lives, default=entries[0].day)
        trained = [e for e in entries if e.training is not None and e.day > since]
        if trained and (day - since).days >= self._policy.nothing_blessed_days:
            said = f"nothing was pushed since {since}, although {len(trained)} models were trained"
            reasons = trained[-1].training.reasons if trained[-1].training else ()
            self._alerts.send(Alert("nothing_blessed", str(since), said, reasons, str(day)))


class Heart:
    """Writes the state of the loop, `ROOT/loop/state.json`, every few seconds.

    Args:
      path: of the file.
      every: seconds between two beats.
    """

    def __init__(self, path: Path, every: float = BEAT_SECONDS) -> None:
        self._path, self._every = path, every
        self._lock = threading.Lock()
        self._state: dict[str, object] = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": _now(),
        }
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.update(doing="starting")
        self._thread.start()

    def update(self, **facts: object) -> None:
        """Changes what the file says."""
        with self._lock:
            if "doing" in facts:
                self._state["since"] = _now()
            self._state |= facts
            self._write()

    def doing(self, what: str) -> None:
        """Says what is being done."""
        self.update(doing=what)

    def close(self) -> None:
        """Stops, and says so."""
        self._closing.set()
        self._thread.join()
        self.update(doing="stopped")

    def _beat(self) -> None:
        while not self._closing.wait(self._every):
            with self._lock:
                self._write()

    def _write(self) -> None:
        with suppress(OSError):  # a full disk must not stop the loop
            write_atomically(self._path, to_json({**self._state, "beat": _now()}, indent=1))


def watch(
    loop: Loop,
    policy: LoopSettings,
    heart: Heart,
    alerts: Alerts,
    *,
    first: date | None = None,
    once: bool = False,
    until: date | None = None,
    is_simulated: bool = False,
    stopping: threading.Event | None = None,
) -> int:
    """Processes days as they arrive.

    Args:
      loop: the loop.
      policy: the configuration's section `loop`.
      heart: shows that it lives.
      alerts: told of failures and of days that do not come.
      first: the earliest day.
      once: whether to return when no day is left.
      until: the last day.
      is_simulated: whether days are replayed: then no day is late.
      stopping: set when it should stop after the current step.

    Returns:
      How many days were processed.

    Raises:
      FraudPipelineError: with `once`, when a step failed as often as the policy says.
      OSError: the same, as the disk is full.
    """
    stopping = stopping or threading.Event()
    processed = failures = 0
    while not stopping.is_set():
        day = None
        try:
            day = loop.next_day(first)
            if day is not None and (until is None or day <= until):
                loop.process(day, is_last_attempt=failures + 1 >= policy.attempts)
                processed += 1
                failures = 0
                heart.update(last_day=str(day), failures=0, problem="")
                continue
            if not is_simulated:
                loop.verify(datetime.now(timezone.utc).date())
        except (FraudPipelineError, OSError) as error:  # a disk that is full, storage that is away
            failures += 1
            wait = min(policy.retry_seconds * 2 ** (failures - 1), LONGEST_WAIT)
            problem = plain(str(error))  # which may name a file by bytes that are no text
            heart.update(doing="waiting after a failure", failures=failures, problem=problem)
            if failures >= policy.attempts:
                said = f"the loop cannot go on: {problem}"
                alerts.send(Alert("failed_run", f"{day} {problem}", said, day=str(day or "")))
                if once:
                    if isinstance(error, OSError) and error.errno not in (ENOSPC, EDQUOT):
                        raise FraudPipelineError(str(error)) from error
                    raise
            stopping.wait(wait)
            continue
        if once:
            break
        heart.update(doing="waiting for a day")
        if not is_simulated:
            _warn_of_stale_data(loop, policy, alerts)
        stopping.wait(policy.poll_seconds)
    return processed


def _warn_of_stale_data(loop: Loop, policy: LoopSettings, alerts: Alerts) -> None:
    if (last := loop.last_day()) is None:
        return
    expected = last + timedelta(days=1)
    end = datetime.combine(expected + timedelta(days=1), datetime.min.time(), timezone.utc)
    hours = (datetime.now(timezone.utc) - end).total_seconds() / 3600
    if hours >= policy.stale_data_hours:
        said = f"no data of {expected} yet, {hours:.0f} hours after its end"
        alerts.send(Alert("stale_data", str(expected), said, day=str(expected)))


def is_as_evaluated(observation: Observation, version: str) -> bool:
    """Whether a version's scores and alerts are distributed as in its own evaluation."""
    verdicts = {check.verdict for check in observation.checks if check.kind is Kind.SCORES}
    is_live = str(observation.version) == version
    return is_live and bool(verdicts) and verdicts <= {Verdict.OK, Verdict.WARN}


def _line(day: date, what: str, reasons: Sequence[str]) -> str:
    return plain(f"{day}  {what.replace('_', ' ')}{': ' if reasons else ''}{'; '.join(reasons)}")


def _changed(days: Sequence[date]) -> str:
    return f"files of {', '.join(map(str, days))} have changed"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")

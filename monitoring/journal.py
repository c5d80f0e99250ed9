"""The loop's journal: what was observed, decided and done on each day.

A day has a file in `ROOT/loop/days`, its entry, which is replaced atomically after each step. What
a person approved of is in `ROOT/loop/approved`, so that nobody needs to stop the loop for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from fraud.codec import from_json, to_json
from fraud.errors import BadInput, FraudPipelineError
from fraud.files import write_atomically
from fraud.monitoring.checks import Kind, Observation, Verdict
from fraud.monitoring.decide import Decision, Past
from fraud.time import parse_day

ON_PROBATION = "on_probation"
"""The outcome of a training whose model was blessed and is tried in the shadow first."""
FAILED = "failed"


@dataclass(frozen=True)
class Training:
    """What became of a training.

    Attributes:
      outcome: as in a run's summary; `ON_PROBATION`; or `FAILED`.
      run_id: the run; "" if none began.
      reasons: why nothing was pushed.
      pushed: the version that it pushed; "" if none.
      model: the folder of the SavedModel, if it is on probation or was refused.
      log: the file with all that the run printed.
    """

    outcome: str
    run_id: str = ""
    reasons: tuple[str, ...] = ()
    pushed: str = ""
    model: str = ""
    log: str = ""


@dataclass(frozen=True)
class Look:
    """An earlier look at a day, which another one replaced because files had changed.

    Attributes:
      at: when it was replaced, as ISO 8601.
      changed: the days whose files had changed.
      decision: what had followed from it.
    """

    at: str
    changed: tuple[date, ...]
    decision: Decision | None


@dataclass(frozen=True)
class Approval:
    """That a person wants a day to be trained on although its data was found to be broken.

    Attributes:
      day: the day.
      user: who.
      reason: why.
      at: when, as ISO 8601.
    """

    day: date
    user: str
    reason: str
    at: str


@dataclass(frozen=True)
class Entry:
    """One day in the journal: what was done, step by step.

    Attributes:
      day: the as-of day.
      files: the days that were looked at, and what differs when their files do; see `Steps.files`.
      observation: what was seen; None before.
      decision: what followed; None before.
      began: when the training or the rollback began, in seconds since 1970; 0 before.
      training: what became of the training, if there was one.
      bad_version: the version that is taken back, by decision or by verification.
      reason: why, as it is recorded.
      restored: the version that went live instead; "" before.
      probation_until: the day at whose end the model on probation is judged.
      promotion: what became of that model.
      judged_on: the day of that, later than `probation_until` if that day was held; None before.
      verified: what the verification after the swap found: problems, or nothing.
      verified_on: the day of that; None before.
      done: whether all steps are done.
      looks: what this day was taken for before its files or those of earlier days changed.
    """

    day: date
    files: dict[date, str] = field(default_factory=dict)
    observation: Observation | None = None
    decision: Decision | None = None
    began: float = 0.0
    training: Training | None = None
    bad_version: str = ""
    reason: str = ""
    restored: str = ""
    probation_until: date | None = None
    promotion: Training | None = None
    judged_on: date | None = None
    verified: tuple[str, ...] = ()
    verified_on: date | None = None
    done: bool = False
    looks: tuple[Look, ...] = ()

    @property
    def has_acted(self) -> bool:
        """Whether a training or a rollback followed, or is under way."""
        return bool(self.began or self.bad_version)

    @property
    def is_urgent(self) -> bool:
        """Whether its training is for a change, rather than because the model is old."""
        return self.decision is not None and self.decision.changed is not None

    @property
    def faults(self) -> tuple[str, ...]:
        """What is broken in its data; other holds, such as of missing predictions, are not."""
        checks = self.observation.checks if self.observation else ()
        return tuple(
            ": ".join(filter(None, (check.name, check.detail)))
            for check in checks
            if check.kind is Kind.DATA and check.verdict is Verdict.ACT
        )

    @property
    def is_broken(self) -> bool:
        """Whether its data is."""
        return bool(self.faults)

    @property
    def pushed(self) -> str:
        """The version that went live by this day's training; "" if none did."""
        return next((t.pushed for t in (self.promotion, self.training) if t and t.pushed), "")

    @property
    def on_probation(self) -> bool:
        """Whether its model still is."""
        return self.probation_until is not None and self.promotion is None

    @property
    def went_live(self) -> date | None:
        """The day on which its model did."""
        if not self.pushed:
            return None
        return (self.judged_on or self.probation_until) if self.promotion else self.day

    def past(self) -> Past:
        """For `decide`.

        Raises:
          ValueError: nothing was decided yet.
        """
        if self.decision is None:
            raise ValueError(f"{self.day}: nothing was decided yet")
        final = self.promotion or self.training
        outcome = final.outcome if final else ""
        return Past(self.decision, outcome, self.pushed, self.went_live, self.on_probation)


def is_training_due(entry: Entry) -> bool:
    """Whether the training that was decided is still missing."""
    is_decided = entry.decision is not None and entry.decision.action == "retrain"
    return is_decided and entry.training is None


class Journal:
    """The entries of the days, and the state of the loop.

    Args:
      folder: `ROOT/loop`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._days, self._approved = folder / "days", folder / "approved"
        self._cache: dict[date, Entry] = {}
        for path in self._days.glob("*.json"):
            with suppress(BadInput):
                day = parse_day(path.stem)
                try:
                    self._cache[day] = from_json(Entry, path.read_bytes())
                except BadInput as error:
                    raise FraudPipelineError(
                        f"{path}: not an entry of the loop's journal: {error}; remove it"
                    ) from None

    def entries(self) -> list[Entry]:
        """All of them, by day."""
        return [self._cache[day] for day in sorted(self._cache)]

    def entry(self, day: date) -> Entry:
        """A day's, new if there is none."""
        return self._cache.get(day, Entry(day))

    def write(self, entry: Entry) -> Entry:
        """Replaces a day's entry; returns it."""
        write_atomically(self._days / f"{entry.day}.json", to_json(entry, indent=1))
        self._cache[entry.day] = entry
        return entry

    def history(self) -> list[Past]:
        """What was decided so far, for `decide`."""
        return [entry.past() for entry in self.entries() if entry.decision is not None]

    def broken(self) -> list[date]:
        """The days that are not to be trained on, because of their data."""
        approved = {approval.day for approval in self.approvals()}
        return sorted(day for day, why in self.faults().items() if why and day not in approved)

    def faults(self) -> dict[date, tuple[str, ...]]:
        """Day → what is broken in its data, nothing if it is sound; only days that were looked at.

        A day that arrived after its successor was never an as-of day. What the last look found that
        had it among its days counts.
        """
        found: dict[date, tuple[str, ...]] = {}
        for entry in self.entries():
            for day in entry.observation.days if entry.observation else ():
                found[day.day] = tuple(f"data/{subject}" for subject in day.broken)
        return found | {e.day: e.faults for e in self.entries() if e.observation}

    def approvals(self) -> list[Approval]:
        """What persons approved of, by day; read anew, as they need not stop the loop for that.

        Raises:
          FraudPipelineError: a file is something else.
        """
        found = []
        for path in sorted(self._approved.glob("*.json")):
            try:
                found.append(from_json(Approval, path.read_bytes()))
            except BadInput as error:
                raise FraudPipelineError(f"{path}: not an approval: {error}; remove it") from None
        return found

    def approve(self, approval: Approval) -> None:
        """Records that a day may be trained on; of several approvals, the last one counts.

        Raises:
          BadInput: the day's data was not found to be broken.
        """
        if not self.faults().get(approval.day):
            raise BadInput(f"{approval.day}: its data was not found to be broken")
        write_atomically(self._approved / f"{approval.day}.json", to_json(approval, indent=1))


def refused(entries: Sequence[Entry], days: int) -> list[tuple[date, Training]]:
    """The models that are on probation, or were not pushed in the last days; the newest first.

    Args:
      entries: of the journal, by day.
      days: how many, up to the last entry's.
    """
    found = []
    for entry in reversed(entries):
        last = entry.promotion or entry.training
        is_recent = (entries[-1].day - entry.day).days < days
        if last and last.model and not last.pushed and (is_recent or entry.on_probation):
            found.append((entry.day, last))
    return found


def history(root: Path) -> list[Past]:
    """What the loop of a root decided so far, for `decide`; nothing if it never ran."""
    return Journal(root / "loop").history()

"""What one look at production found: checks, each with a verdict.

Whoever decides reads nothing else. This module imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import Enum

from fraud.codec import from_json, to_json


class Verdict(str, Enum):
    """What a check says.

    Attributes:
      OK: within what is normal.
      WARN: worth a look, but no reason to act by itself.
      ACT: something should be done; what, follows from the kind of the check.
      CANNOT_JUDGE: too little data, or none: nobody knows. It is never taken for `OK`.
    """

    OK = "ok"
    WARN = "warn"
    ACT = "act"
    CANNOT_JUDGE = "cannot_judge"


class Kind(str, Enum):
    """What a check is about, hence what could help.

    Attributes:
      DATA: whether what arrives is broken: rows, missing values, unknown categories. A person
        helps, and a retrained model would learn the damage.
      DRIFT: whether inputs are distributed differently than in training. A retrained model may
        help.
      SKEW: whether features were the same when scoring as in training. A person helps.
      SCORES: whether scores and alerts are distributed as they were in evaluation.
      PERFORMANCE: how good the scores proved, by labels that have arrived.
      HARM: whether the live version is worse than the one before it, or than its evaluation
        promised, beyond chance. Going back helps while it is new, a retrained model later.
      ESTIMATE: how good they probably are, where labels have not.
      FRESHNESS: whether transactions, labels and predictions arrive. A person helps.
      AGE: how old the model is, and how many labels it has not seen. A retrained model helps.
    """

    DATA = "data"
    DRIFT = "drift"
    SKEW = "skew"
    SCORES = "scores"
    PERFORMANCE = "performance"
    HARM = "harm"
    ESTIMATE = "estimate"
    FRESHNESS = "freshness"
    AGE = "age"


@dataclass(frozen=True)
class Check:
    """One question about production, and the answer.

    Attributes:
      name: unique in an observation; "what" or "what/of which", such as
        "average_precision/CHANNEL=online".
      value: what was measured; None if nothing was.
      interval: its 95 % interval, if it has one.
      threshold: the value beyond which the verdict is the worst that this check can have: `ACT`
        for most, `WARN` for those that are no reason to act. None if there is none.
      verdict: the answer.
      detail: in words: what changed, or why it cannot be judged.
      kind: what it is about.
    """

    name: str
    value: float | None
    interval: tuple[float, float] | None
    threshold: float | None
    verdict: Verdict
    detail: str = ""
    kind: Kind = Kind.DATA

    @property
    def subject(self) -> str:
        """What of the whole it is about: a column, a slice; "" for everything."""
        return self.name.partition("/")[2]


@dataclass(frozen=True)
class Day:
    """One day of production, as it was known on the as-of day, whichever versions were live.

    Attributes:
      day: the day.
      arrived, scored, alerts: numbers of transactions; scored counts those that arrived.
      broken: the columns that were broken on it.
      versions: the versions that scored, in the order of their numbers.
      mean_score: of what was scored; None without.
      labelled, frauds: what was scored whose label is known, and how much of it is fraud.
      average_precision, interval: of the labelled, with its 95 % interval; None where they cannot
        tell.
      precision, recall: of the alerts among the labelled; None where undefined.
      cost_saved: by the alerts among the labelled; None without labels.
      estimated_average_precision: from the scores alone; None without.
    """

    day: date
    arrived: int = 0
    scored: int = 0
    alerts: int = 0
    broken: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    mean_score: float | None = None
    labelled: int = 0
    frauds: int = 0
    average_precision: float | None = None
    interval: tuple[float, float] | None = None
    precision: float | None = None
    recall: float | None = None
    cost_saved: float | None = None
    estimated_average_precision: float | None = None


@dataclass(frozen=True)
class Observation:
    """All checks of one look at production.

    Attributes:
      as_of: the last day that was looked at; what became known later was not used.
      version: the live version; None if nothing was live.
      checks: their names are unique.
      days: the days that were looked at, the first one first.
    """

    as_of: date
    version: int | None
    checks: tuple[Check, ...]
    days: tuple[Day, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all checks; what cannot be judged does not count beside others."""
        found = {check.verdict for check in self.checks}
        for verdict in (Verdict.ACT, Verdict.WARN, Verdict.OK):
            if verdict in found:
                return verdict
        return Verdict.CANNOT_JUDGE

    def to_json(self, indent: int | None = None) -> str:
        """JSON that `from_json` reads; numbers that are not finite become null."""
        return to_json(self, indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Observation:
        """Reads the output of `to_json`.

        Raises:
          BadInput: it is something else.
        """
        return from_json(cls, text)

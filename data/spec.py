"""What is simulated: the population, the days and the drift.

Imports nothing heavy, so that the command line can show its help at once.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

#: What `--drift` can start, by name.
DRIFTS = {
    "new_fraud": "thieves test stolen cards: small online payments at night (scenario 4)",
    "amount_shift": "amounts arrive in kroner instead of euros: multiplied by 7.46",
    "new_category": "MERCHANT_CATEGORY crypto_exchange and CHANNEL mobile_wallet appear",
    "broken_column": "COUNTRY arrives empty in half of the rows, as '??' in the others",
}

#: What one day is written as, and the ending of its file.
FORMATS = ("parquet", "csv", "csv.gz")


@dataclass(frozen=True)
class Drift:
    """A change of the world, or of its recording, from the beginning of a day on.

    Attributes:
      name: a key of `DRIFTS`.
      start: the first day that is different.
    """

    name: str
    start: dt.date

    def __post_init__(self) -> None:
        if self.name not in DRIFTS:
            raise ValueError(f"Unknown drift {self.name!r}: choose one of {', '.join(DRIFTS)}.")


def parse_drift(text: str) -> Drift:
    """Read `SCENARIO@YYYY-MM-DD`, as in `new_fraud@2026-03-01`.

    Raises:
      ValueError: another form, an unknown scenario or an impossible day.
    """
    name, separator, day = text.partition("@")
    if not separator:
        raise ValueError(
            f"{text!r} is not SCENARIO@YYYY-MM-DD; the scenarios are {', '.join(DRIFTS)}."
        )
    return Drift(name, parse_day(day))


def parse_day(text: str) -> dt.date:
    """Read `YYYY-MM-DD`.

    Raises:
      ValueError: anything else.
    """
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise ValueError(f"{text!r} is not a day; write it as 2026-03-01.") from None


@dataclass(frozen=True)
class Simulation:
    """Everything that decides what is simulated: equal simulations give equal transactions.

    The world is a square of 100 by 100 in which customers buy at the terminals near them.

    Attributes:
      days: how many days. More days only add days: the first ones stay what they were.
      customers, terminals: the population; both are numbered from 0.
      start: the first day.
      seed: not negative.
      radius: how far from home a customer buys, in the unit of the square.
      drift: what changes, and when.

    Raises:
      ValueError: a value that makes no sense; the message says which.
    """

    days: int = 80
    customers: int = 1000
    terminals: int = 2000
    start: dt.date = dt.date(2026, 1, 1)
    seed: int = 0
    radius: float = 5.0
    drift: tuple[Drift, ...] = ()

    def __post_init__(self) -> None:
        for name in ("days", "customers", "terminals"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must not be negative.")
        if not 0 < self.radius <= 100:
            raise ValueError(f"radius is {self.radius}; it must lie above 0 and be at most 100.")
        if self.days > (dt.date.max - self.start).days:
            raise ValueError(f"{self.days} days from {self.start} go beyond the calendar.")
        for drift in self.drift:
            if not self.start <= drift.start <= self.end:
                raise ValueError(
                    f"Drift {drift.name} starts on {drift.start}, but the simulated days are "
                    f"{self.start} to {self.end}."
                )
        if len({drift.name for drift in self.drift}) < len(self.drift):
            raise ValueError("The same drift is given twice; each can start only once.")

    @property
    def end(self) -> dt.date:
        """The last simulated day."""
        return self.start + dt.timedelta(days=self.days - 1)

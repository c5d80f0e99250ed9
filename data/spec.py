"""The parameters of a simulation: population, days and drift.

Imports nothing heavy, so that the command line shows its help without delay.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from fraud.errors import BadInput
from fraud.time import parse_day

#: The scenarios that `--drift` accepts, by name.
DRIFTS = {
    "new_fraud": "stolen cards are tested with small online payments at night (scenario 4)",
    "amount_shift": "amounts arrive in kroner instead of euros: multiplied by 7.46",
    "new_category": "MERCHANT_CATEGORY crypto_exchange and CHANNEL mobile_wallet appear",
    "broken_column": "COUNTRY arrives empty in half of the rows and as '??' in the others",
}

#: The file formats; each is also the file extension.
FORMATS = ("parquet", "csv", "csv.gz")


@dataclass(frozen=True)
class Drift:
    """A change of the world, or of how it is recorded, from the beginning of a day.

    Attributes:
      name: a key of `DRIFTS`.
      start: the first day affected.
    """

    name: str
    start: dt.date

    def __post_init__(self) -> None:
        if self.name not in DRIFTS:
            raise BadInput(f"unknown drift {self.name!r}; choose one of {', '.join(DRIFTS)}")


def parse_drift(text: str) -> Drift:
    """Reads `SCENARIO@YYYY-MM-DD`, as in `new_fraud@2026-03-01`.

    Raises:
      BadInput: another form, an unknown scenario or no such day.
    """
    name, separator, day = text.partition("@")
    if not separator:
        raise BadInput(
            f"{text!r} is not SCENARIO@YYYY-MM-DD; the scenarios are {', '.join(DRIFTS)}"
        )
    return Drift(name, parse_day(day))


@dataclass(frozen=True)
class Simulation:
    """All parameters of a simulation: equal parameters give equal transactions.

    The world is a square of 100 by 100 in which customers buy at the terminals near them.

    Attributes:
      days: number of days. A longer simulation begins with the days of a shorter one.
      customers, terminals: sizes of the population; both are numbered from 0.
      start: the first day.
      seed: not negative.
      radius: the greatest distance between a customer's home and a terminal they use, in the
        unit of the square.
      drift: the changes and when they take effect.

    Raises:
      BadInput: a value is out of range; the message names it.
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
                raise BadInput(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.seed < 0:
            raise BadInput(f"seed is {self.seed}; it must not be negative")
        if not 0 < self.radius <= 100:
            raise BadInput(f"radius is {self.radius}; it must be above 0 and at most 100")
        if self.days > (dt.date.max - self.start).days:
            raise BadInput(f"{self.days} days from {self.start} go beyond {dt.date.max}")
        for drift in self.drift:
            if not self.start <= drift.start <= self.end:
                raise BadInput(
                    f"drift {drift.name} starts on {drift.start}, but the simulated days are "
                    f"{self.start} to {self.end}"
                )
        if len({drift.name for drift in self.drift}) < len(self.drift):
            raise BadInput("a drift is given twice; each can start only once")

    @property
    def end(self) -> dt.date:
        """The last simulated day."""
        return self.start + dt.timedelta(days=self.days - 1)

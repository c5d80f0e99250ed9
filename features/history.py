"""The past of entities, laid out so that any window of it is aggregated without a loop over rows.

Rows are sorted once by entity and time. Every window of every row is then a stretch of
consecutive rows, found by binary search, and its count or sum is a difference of two prefix sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DAY = 86_400_000_000
"""Microseconds in a day."""

UNIT = 2.0**-20
"""Amounts are summed as whole multiples of this, about a millionth of the currency."""


@dataclass(frozen=True)
class Stretch:
    """For each row, the consecutive rows `first` to `last`, without `last` itself.

    Attributes:
      first, last: positions in the sorted rows, [rows] each.
    """

    first: Ints
    last: Ints

    @property
    def count(self) -> Ints:
        """How many rows each stretch has."""
        return self.last - self.first


class Total:
    """Sums of whole numbers over stretches, exact whatever was summed before them.

    Differences of floating-point prefix sums carry the rounding of all earlier rows, so a feature
    would depend in its last bits on which other rows were loaded with it. Integer prefix sums
    wrap around at 2^64 and still have exact differences.
    """

    def __init__(self, values: NDArray[np.integer] | NDArray[np.bool_]):
        self._prefix = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])

    def over(self, rows: Stretch) -> Ints:
        """The sum over each stretch, [rows]."""
        return self._prefix[rows.last] - self._prefix[rows.first]


class History:
    """Rows of some entities, sorted by entity and time.

    A row's past is what happened strictly before it: rows of one entity with the same timestamp
    do not see each other. So values depend neither on the order nor on the grouping of the input,
    and a server that has just been asked about a transaction can compute the same ones.

    Attributes:
      order: position in the input of each sorted row, [rows].
      time: microseconds since 1970, [rows].
      amount: NaN where missing, [rows]; None if the data has no amounts.
      label: 1, 0 or NaN where unknown, [rows].
    """

    def __init__(
        self,
        keys: Ints,
        timestamps: NDArray[np.datetime64],
        amounts: Floats | None,
        labels: Floats,
        delay: np.timedelta64,
    ):
        """Sorts the rows.

        Args:
          keys: which entity, [rows].
          timestamps: when, [rows].
          amounts, labels: as the attributes say, in the order of `keys`.
          delay: how long after a transaction its label is known.

        Raises:
          ValueError: a timestamp is missing or an amount too large to be summed.
        """
        if np.isnat(timestamps).any():
            row = int(np.isnat(timestamps).argmax())
            raise ValueError(f"row {row} has no timestamp; every transaction needs one")
        time = timestamps.astype("datetime64[us]").astype(np.int64)
        self.order = np.lexsort((time, keys))
        self.time = time[self.order]
        self.label = labels[self.order]
        self.amount = None if amounts is None else amounts[self.order]
        self._delay = int(delay / np.timedelta64(1, "us"))
        self._totals: dict[str, Total] = {}
        self._starts: dict[int, Ints] = {}

        # Position in time as a rank, so that (entity, time) fits one sorted integer.
        self._moments, self._rank = np.unique(self.time, return_inverse=True)
        sorted_keys = keys[self.order]
        entity = np.cumsum(np.diff(sorted_keys, prepend=sorted_keys[:1]) != 0)
        self._entity_base = entity * (len(self._moments) + 1)
        self._position = self._entity_base + self._rank
        self._now = np.searchsorted(self._position, self._position)

    def before(self, days: int) -> Stretch:
        """The rows of the same entity in (t - days, t)."""
        return Stretch(self._first_after(days * DAY), self._now)

    def known(self, days: int) -> Stretch:
        """The rows of the same entity in (t - delay - days, t - delay]: their labels are known."""
        first = self._first_after(self._delay + days * DAY)
        # With a delay of 0 that would include the row itself.
        return Stretch(first, np.minimum(self._first_after(self._delay), self._now))

    @property
    def has_amount(self) -> NDArray[np.bool_]:
        """Which rows have an amount, [rows]."""
        assert self.amount is not None
        return np.isfinite(self.amount)

    @property
    def units(self) -> Ints:
        """Amounts as whole multiples of UNIT, 0 where missing, [rows]."""
        assert self.amount is not None
        amount = np.where(self.has_amount, self.amount, 0.0)
        if np.abs(amount).max(initial=0) > 1e9:
            raise ValueError(
                f"amount {amount[np.abs(amount).argmax()]:g} is beyond ±1e9; "
                "correct the data or state amounts in a larger unit"
            )
        return np.rint(amount / UNIT).astype(np.int64)

    def total(self, of: str, rows: Stretch) -> Ints:
        """Sums over stretches, [rows].

        Args:
          of: "units" or "has_amount" as the properties say; "frauds" or "labels" (how many are
            known to be 1, how many are known).
          rows: what to sum over.
        """
        if of not in self._totals:
            values = {
                "units": lambda: self.units,
                "has_amount": lambda: self.has_amount,
                "frauds": lambda: self.label == 1,
                "labels": lambda: ~np.isnan(self.label),
            }[of]()
            self._totals[of] = Total(values)
        return self._totals[of].over(rows)

    def _first_after(self, age: int) -> Ints:
        """The entity's first row later than t - age microseconds, [rows]."""
        if age not in self._starts:
            rank = np.searchsorted(self._moments, self._moments - age, side="right")
            start = np.searchsorted(self._position, self._entity_base + rank[self._rank])
            self._starts[age] = start
        return self._starts[age]

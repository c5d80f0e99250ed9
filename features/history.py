"""The past of entities, laid out so that any window of it is aggregated without a loop over rows.

Rows are sorted once by entity and time. Every window of every row is then a stretch of
consecutive rows, found by binary search, and its count or sum is a difference of two prefix sums.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fraud.features.wavelet_matrix import Ranks

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DAY = 86_400_000_000
"""Microseconds in a day."""

UNIT = 2.0**-20
"""Amounts are rounded to this, about a millionth of the currency, to be summed as whole numbers."""

LARGEST = 1e9
"""Amounts beyond this, up or down, are refused."""


@dataclass(frozen=True)
class Stretch:
    """For each row, some consecutive rows: `first` to `last`, without `last` itself.

    Attributes:
      first, last: positions, [rows] each.
    """

    first: Ints
    last: Ints

    @property
    def count(self) -> Ints:
        """How many rows each stretch has, [rows]."""
        return self.last - self.first


class Total:
    """Sums of whole numbers over stretches, exact whatever was summed before them.

    Differences of floating-point prefix sums carry the rounding of all earlier rows, so a feature
    would depend in its last digits on which other rows were loaded with it. Integer prefix sums
    wrap around at 2^64, and their differences stay exact.
    """

    def __init__(self, values: NDArray[np.integer] | NDArray[np.bool_]):
        self._prefix = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])

    def over(self, rows: Stretch) -> Ints:
        """The sum over each stretch, modulo 2^64, [rows]."""
        return self._prefix[rows.last] - self._prefix[rows.first]


class History:
    """Rows of some entities, sorted by entity and time.

    The past of a row is what happened strictly before it: rows of one entity with the same
    timestamp do not see each other. So values depend neither on the order nor on the grouping of
    the input, and a server that is asked about one transaction can compute the same ones.

    Attributes:
      order: position in the input of each sorted row, [rows].
      time: microseconds since 1970, [rows].
      amount: rounded to UNIT, NaN where missing, [rows].
      labelled: positions of the rows that have a label, [labelled].
      labelled_time: their `time`, [labelled].
      fraud: whether they are fraud, [labelled]; at the same moment genuine ones come first.
    """

    def __init__(
        self,
        keys: Ints,
        timestamps: NDArray[np.datetime64],
        amounts: Floats,
        labels: Floats,
        delay: np.timedelta64,
    ):
        """Sorts the rows.

        Args:
          keys: which entity, [rows].
          timestamps: when, [rows].
          amounts: NaN where missing, [rows].
          labels: 1, 0 or NaN where unknown, [rows].
          delay: how long after a transaction its label is known.

        Raises:
          ValueError: a timestamp is missing or an amount too large to be summed.
        """
        if np.isnat(timestamps).any():
            row = int(np.isnat(timestamps).argmax())
            raise ValueError(f"row {row} has no timestamp; every transaction needs one")
        if (np.abs(amounts) > LARGEST).any():
            row = int((np.abs(amounts) > LARGEST).argmax())
            raise ValueError(
                f"row {row} has the amount {amounts[row]:g}, beyond {LARGEST:g}; correct it, or "
                "state amounts in a larger unit"
            )
        time = timestamps.astype("datetime64[us]").astype(np.int64)
        self.order = np.lexsort((labels, time, keys))
        self.time = time[self.order]
        self.amount = np.rint(amounts[self.order] / UNIT) * UNIT
        label = labels[self.order]
        self.labelled = np.flatnonzero(~np.isnan(label))
        self.labelled_time = self.time[self.labelled]
        self.fraud = label[self.labelled] == 1
        self._labelled_before = np.searchsorted(self.labelled, np.arange(len(time) + 1))
        self._delay = int(delay / np.timedelta64(1, "us"))
        self._computed: dict[Hashable, NDArray] = {}

        # Time as a rank, so that entity and time fit one sorted whole number.
        self._moments, self._rank = np.unique(self.time, return_inverse=True)
        key = keys[self.order]
        entity = np.cumsum(np.diff(key, prepend=key[:1]) != 0)
        self._entity_base = entity * (len(self._moments) + 1)
        self._position = self._entity_base + self._rank
        self._now = np.searchsorted(self._position, self._position)

    def past(self, days: int) -> Stretch:
        """The rows of the same entity in (t - days, t)."""
        return Stretch(self._later_than(days * DAY), self._now)

    def known(self, days: int) -> Stretch:
        """Those of `labelled` of the same entity in (t - delay - days, t - delay]."""
        first = self._later_than(self._delay + days * DAY)
        # With a delay of 0 that would include the row itself.
        last = np.minimum(self._later_than(self._delay), self._now)
        return Stretch(self._labelled_before[first], self._labelled_before[last])

    def days_since(self, times: Ints, index: Ints, exists: NDArray[np.bool_]) -> Floats:
        """Days from another moment to each row, [rows].

        Args:
          times: `time` or `labelled_time`.
          index: which of them, [rows].
          exists: elsewhere the result is NaN, [rows].
        """
        days = np.full(len(self.time), np.nan)
        days[exists] = (self.time[exists] - times[index[exists]]) / DAY
        return days

    @cached_property
    def units(self) -> Ints:
        """Amounts as whole multiples of UNIT, 0 where missing, [rows]."""
        return (np.nan_to_num(self.amount) / UNIT).astype(np.int64)

    @cached_property
    def has_amount(self) -> NDArray[np.bool_]:
        """Which rows have an amount, [rows]."""
        return ~np.isnan(self.amount)

    @cached_property
    def total_units(self) -> Total:
        """Sums of `units`."""
        return Total(self.units)

    @cached_property
    def total_amounts(self) -> Total:
        """How many rows have an amount."""
        return Total(self.has_amount)

    @cached_property
    def total_frauds(self) -> Total:
        """How many of `labelled` are fraud."""
        return Total(self.fraud)

    @cached_property
    def total_fraud_units(self) -> Total:
        """Sums of `units` of those of `labelled` that are fraud."""
        return Total(np.where(self.fraud, self.units[self.labelled], 0))

    @cached_property
    def total_fraud_amounts(self) -> Total:
        """How many of `labelled` are fraud and have an amount."""
        return Total(self.fraud & self.has_amount[self.labelled])

    @cached_property
    def last_fraud(self) -> Ints:
        """The last of `labelled` before each of its positions that is fraud, -1 if none."""
        return _last_before(self.fraud)

    @cached_property
    def last_genuine(self) -> Ints:
        """The last of `labelled` before each of its positions that is genuine, -1 if none."""
        return _last_before(~self.fraud)

    @cached_property
    def ranks(self) -> Ranks:
        """Order statistics of the amounts of stretches of rows."""
        entity_start = np.searchsorted(self._entity_base, self._entity_base)
        return Ranks(self.amount, entity_start)

    def once(self, key: Hashable, compute: Callable[[], NDArray]) -> NDArray:
        """What `compute` gives, computed at the first call with this key."""
        if key not in self._computed:
            self._computed[key] = compute()
        return self._computed[key]

    def squared_deviations(self, rows: Stretch) -> Floats:
        """Sum of squared deviations of `units` from their mean in each stretch, [rows].

        Exact modulo 2^64 by whole numbers; the multiple of 2^64 by floating point. So amounts that
        are all the same deviate by 0, not by the rounding of a difference of large sums.
        """
        squares, approximate = self._squares
        units = self.total_units.over(rows)
        n = np.maximum(self.total_amounts.over(rows), 1)
        center = np.rint(units / n).astype(np.int64)
        exact = squares.over(rows) - 2 * center * units + n * center**2
        about = approximate[rows.last] - approximate[rows.first] - units.astype(float) ** 2 / n
        return exact + 2.0**64 * np.rint((about - exact) / 2.0**64)

    @cached_property
    def _squares(self) -> tuple[Total, Floats]:
        squares = np.cumsum(self.units.astype(float) ** 2)
        return Total(self.units**2), np.concatenate([[0.0], squares])

    def _later_than(self, age: int) -> Ints:
        """The entity's first row later than t - age microseconds, [rows]."""

        def search() -> Ints:
            rank = np.searchsorted(self._moments, self._moments - age, side="right")
            return np.searchsorted(self._position, self._entity_base + rank[self._rank])

        return self.once(("later than", age), search)


def _last_before(flags: NDArray[np.bool_]) -> Ints:
    """For positions 0 … n: the last flagged one before, -1 if none, [n + 1]."""
    position = np.where(flags, np.arange(len(flags)), -1)
    return np.concatenate([[-1], np.maximum.accumulate(position)]).astype(np.int64)

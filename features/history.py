"""The history of entities, laid out so that any window of it is aggregated without a row loop.

Rows are sorted once by entity and time. Every window of every row is then a span of consecutive
rows, located by binary search, and its count or sum is a difference of two prefix sums.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.features.spans import Floats, Ints, PrefixSum, RowSpan
from fraud.features.wavelet_matrix import WaveletMatrix
from fraud.time import MICROSECONDS_PER_DAY

UNIT = 2.0**-20
"""Amounts are rounded to multiples of this (a millionth of the currency) and summed as integers."""

LARGEST = 1e9
"""Amounts beyond ± this are rejected, because their sums would not be exact."""


class History:
    """Rows of some entities, sorted by entity and time.

    The past of a row is what happened strictly before it: rows of one entity with the same
    timestamp do not see each other. Values therefore depend neither on the order nor on the
    grouping of the input.

    Attributes:
      order: position in the input of each sorted row, [rows].
      time: microseconds since 1970-01-01, [rows].
      amount: rounded to UNIT, NaN where missing, [rows].
      labelled: positions of the rows that have a label, by entity in the order in which the labels
        became known, then of time, [labelled].
      labelled_time: `time` of the labelled rows, [labelled].
      fraud: whether each labelled row is fraud, [labelled]; among rows with the same times, genuine
        ones come first.
    """

    def __init__(
        self,
        keys: Ints,
        timestamps: NDArray[np.datetime64],
        amounts: Floats,
        labels: Floats,
        delay: np.timedelta64,
        label_times: NDArray[np.datetime64] | None = None,
    ):
        """Sorts the rows.

        Args:
          keys: codes of the entities, [rows].
          timestamps: times of the transactions, [rows].
          amounts: NaN where missing, [rows].
          labels: 1, 0 or NaN where unknown, [rows].
          delay: how long after a transaction its label is known, unless `label_times` are given.
          label_times: when each label became known, NaT where it is not, [rows].

        Raises:
          BadInput: a timestamp is missing, an amount is too large to be summed, or a label was
            known before its transaction.
        """
        if np.isnat(timestamps).any():
            row = int(np.isnat(timestamps).argmax())
            raise BadInput(f"row {row} has no timestamp; every transaction needs one")
        if label_times is not None and (early := label_times < timestamps).any():
            row = int(early.argmax())
            raise BadInput(f"row {row} has a label that was known before its transaction")
        if (np.abs(amounts) > LARGEST).any():
            row = int((np.abs(amounts) > LARGEST).argmax())
            raise BadInput(
                f"row {row} has the amount {amounts[row]:g}, which exceeds {LARGEST:g} in absolute "
                "value; correct it, or express amounts in a larger unit"
            )
        time = timestamps.astype("datetime64[us]").astype(np.int64)
        self.order = np.lexsort((labels, time, keys))
        self.time = time[self.order]
        self.amount = np.rint(amounts[self.order] / UNIT) * UNIT
        label = labels[self.order]
        self._delay = int(delay / np.timedelta64(1, "us"))
        self._computed: dict[Hashable, NDArray] = {}

        # Ranks instead of times, so that entity and time fit in one sorted integer.
        self._moments, self._rank = np.unique(self.time, return_inverse=True)
        key = keys[self.order]
        entity = np.cumsum(np.diff(key, prepend=key[:1]) != 0)
        self._entity_base = entity * (len(self._moments) + 1)
        self._position = self._entity_base + self._rank
        self._now = np.searchsorted(self._position, self._position)

        self._learned: _Learned | None = None
        if label_times is None:
            self.labelled = np.flatnonzero(~np.isnan(label))
            self._labelled_before = np.searchsorted(self.labelled, np.arange(len(time) + 1))
        else:
            self._learned = _Learned(self.time, entity, label, label_times[self.order])
            self.labelled = self._learned.labelled
        self.labelled_time = self.time[self.labelled]
        self.fraud = label[self.labelled] == 1

    def past(self, days: int) -> RowSpan:
        """The rows of the same entity in (t - days, t)."""
        return RowSpan(self._first_younger_than(days * MICROSECONDS_PER_DAY), self._now)

    def known(self, days: int) -> RowSpan:
        """The labelled rows of the same entity whose labels became known in (t - days, t].

        With a fixed delay these are the rows in (t - delay - days, t - delay].
        """
        if self._learned is not None:
            learned, moments = self._learned, (self._moments, self._rank)
            age = days * MICROSECONDS_PER_DAY
            return RowSpan(
                self.cached(("known until", age), lambda: learned.until(age, *moments)),
                self.cached(("known until", 0), lambda: learned.until(0, *moments)),
            )
        first = self._first_younger_than(self._delay + days * MICROSECONDS_PER_DAY)
        # With a delay of 0 the span would otherwise include the row itself.
        last = np.minimum(self._first_younger_than(self._delay), self._now)
        return RowSpan(self._labelled_before[first], self._labelled_before[last])

    def days_since(self, times: Ints, index: Ints, exists: NDArray[np.bool_]) -> Floats:
        """Days from an earlier row to each row, [rows].

        Args:
          times: `time` or `labelled_time`.
          index: position of the earlier row in `times`, [rows].
          exists: whether there is an earlier row, [rows]; the result is NaN where there is none.
        """
        days = np.full(len(self.time), np.nan)
        days[exists] = (self.time[exists] - times[index[exists]]) / MICROSECONDS_PER_DAY
        return days

    @cached_property
    def units(self) -> Ints:
        """Amounts as integer multiples of UNIT, 0 where missing, [rows]."""
        return (np.nan_to_num(self.amount) / UNIT).astype(np.int64)

    @cached_property
    def has_amount(self) -> NDArray[np.bool_]:
        """Which rows have an amount, [rows]."""
        return ~np.isnan(self.amount)

    @cached_property
    def total_units(self) -> PrefixSum:
        """Sums of `units`."""
        return PrefixSum(self.units)

    @cached_property
    def total_amounts(self) -> PrefixSum:
        """Counts of rows that have an amount."""
        return PrefixSum(self.has_amount)

    @cached_property
    def total_frauds(self) -> PrefixSum:
        """Counts of labelled rows that are fraud."""
        return PrefixSum(self.fraud)

    @cached_property
    def total_fraud_units(self) -> PrefixSum:
        """Sums of `units` over labelled rows that are fraud."""
        return PrefixSum(np.where(self.fraud, self.units[self.labelled], 0))

    @cached_property
    def total_fraud_amounts(self) -> PrefixSum:
        """Counts of labelled rows that are fraud and have an amount."""
        return PrefixSum(self.fraud & self.has_amount[self.labelled])

    @cached_property
    def last_fraud(self) -> Ints:
        """For each position in `labelled`, the last earlier one that is fraud; -1 if none."""
        return _last_flagged_before(self.fraud)

    @cached_property
    def last_genuine(self) -> Ints:
        """For each position in `labelled`, the last earlier one that is genuine; -1 if none."""
        return _last_flagged_before(~self.fraud)

    @cached_property
    def wavelet_matrix(self) -> WaveletMatrix:
        """Order statistics of the amounts in spans of rows."""
        entity_start = np.searchsorted(self._entity_base, self._entity_base)
        return WaveletMatrix(self.amount, entity_start)

    def cached(self, key: Hashable, compute: Callable[[], NDArray]) -> NDArray:
        """The result of `compute`, which runs only at the first call with this key."""
        if key not in self._computed:
            self._computed[key] = compute()
        return self._computed[key]

    def squared_deviations(self, spans: RowSpan) -> Floats:
        """Sum of squared deviations of `units` from their mean in each span, [rows].

        Integer arithmetic gives the sum modulo 2^64, floating point the multiple of 2^64. Amounts
        that are all equal thus deviate by exactly 0, not by the rounding error of a difference of
        large sums.
        """
        squares, approximate = self._squares
        units = self.total_units.over(spans)
        n = np.maximum(self.total_amounts.over(spans), 1)
        center = np.rint(units / n).astype(np.int64)
        exact = squares.over(spans) - 2 * center * units + n * center**2
        about = approximate[spans.last] - approximate[spans.first] - units.astype(float) ** 2 / n
        return exact + 2.0**64 * np.rint((about - exact) / 2.0**64)

    @cached_property
    def _squares(self) -> tuple[PrefixSum, Floats]:
        squares = np.cumsum(self.units.astype(float) ** 2)
        return PrefixSum(self.units**2), np.concatenate([[0.0], squares])

    def _first_younger_than(self, age: int) -> Ints:
        """Position of the entity's first row later than t - age microseconds, [rows]."""

        def search() -> Ints:
            rank = np.searchsorted(self._moments, self._moments - age, side="right")
            return np.searchsorted(self._position, self._entity_base + rank[self._rank])

        return self.cached(("first younger than", age), search)


class _Learned:
    """The labels of some entities in the order in which they became known.

    That order is not the order of the transactions, but it makes the labels that became known in
    any window a span again.
    """

    def __init__(
        self, time: Ints, entity: Ints, label: Floats, label_times: NDArray[np.datetime64]
    ):
        """Sorts the labels; all arguments are [rows], of rows sorted by entity and time."""
        rows = np.flatnonzero(~np.isnan(label) & ~np.isnat(label_times))
        known = label_times[rows].astype("datetime64[us]").astype(np.int64)
        # A label that is known at once is not known to its own transaction, nor to others at the
        # same time: it takes effect just after the labels that become known at that moment.
        effect = 2 * known + (known == time[rows])
        order = np.lexsort((effect, entity[rows]))  # stable: equal ones stay in order of time
        self.labelled = rows[order]
        self._effects, rank = np.unique(effect[order], return_inverse=True)
        self._entity_base = entity * (len(self._effects) + 1)
        self._position = self._entity_base[self.labelled] + rank

    def until(self, age: int, moments: Ints, rank: Ints) -> Ints:
        """How many labels precede, or are of the row's entity and known by t - age, [rows].

        Args:
          age: microseconds, at least 0.
          moments: the distinct times of all rows, in order.
          rank: the position of each row's time in `moments`, [rows].
        """
        limit = 2 * (moments - age) + (age > 0)
        effects = np.searchsorted(self._effects, limit, side="right")
        return np.searchsorted(self._position, self._entity_base + effects[rank])


def _last_flagged_before(flags: NDArray[np.bool_]) -> Ints:
    """For positions 0 … n, the last flagged position before each; -1 if none, [n + 1]."""
    position = np.where(flags, np.arange(len(flags)), -1)
    return np.concatenate([[-1], np.maximum.accumulate(position)]).astype(np.int64)

"""The history of entities, laid out so that any window of it is aggregated without a row loop.

Rows are sorted once by entity and time. Every window of every row is then a span of consecutive
rows, located by binary search, and its count or sum is a difference of two prefix sums.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.features.order_statistics import OrderStatistics, SortedSpans, WaveletMatrix
from fraud.features.spans import Floats, Ints, PrefixSum, RowSpan
from fraud.time import MICROSECONDS_PER_DAY

T = TypeVar("T")

UNIT = 2.0**-20
"""Amounts are rounded to multiples of this (a millionth of the currency) and summed as integers."""

FEW = 16
"""Up to this many queries, sorting their spans is faster than building a wavelet matrix."""

LARGEST = 1e9
"""Amounts beyond ± this are rejected, because their sums would not be exact."""


@dataclass(frozen=True)
class Queries:
    """What features are computed of, where it is not all rows of a history.

    A query sees the rows of its entity and is seen by none: to be part of the history, it must be
    among the rows too.

    Attributes:
      keys: codes of the entities, [queries].
      timestamps: [queries].
      amounts: NaN where missing, [queries].
    """

    keys: Ints
    timestamps: NDArray[np.datetime64]
    amounts: Floats


class History:
    """Rows of some entities, sorted by entity and time, and the queries that features are of.

    The queries are the sorted rows themselves, unless others are given. The past of a query is what
    happened strictly before it: rows of one entity with the same timestamp do not see each other.
    Values therefore depend neither on the order nor on the grouping of the input.

    Attributes:
      order: position in the input of each query, [queries].
      time: microseconds since 1970-01-01, [rows].
      amount: of the queries, rounded to UNIT, NaN where missing, [queries].
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
        queries: Queries | None = None,
    ):
        """Sorts the rows.

        Args:
          keys: codes of the entities, [rows].
          timestamps: times of the transactions, [rows].
          amounts: NaN where missing, [rows].
          labels: 1, 0 or NaN where unknown, [rows].
          delay: how long after a transaction its label is known, unless `label_times` are given.
          label_times: when each label became known, NaT where it is not, [rows].
          queries: None for the rows themselves.

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
        order = np.lexsort((labels, time, keys))
        self.time = time[order]
        self._row_amount = np.rint(amounts[order] / UNIT) * UNIT
        label = labels[order]
        self._delay = int(delay / np.timedelta64(1, "us"))
        self._computed: dict[Hashable, Any] = {}

        # Ranks instead of times, so that entity and time fit in one sorted integer.
        self._moments, rank = np.unique(self.time, return_inverse=True)
        key = keys[order]
        is_first = np.diff(key, prepend=key[:1]) != 0
        entity = np.cumsum(is_first)
        self._entity_base = entity * (len(self._moments) + 1)
        self._position = self._entity_base + rank

        self._is_of_rows = queries is None
        if queries is None:
            self.order, self.amount = order, self._row_amount
            self._query_time, self._query_entity = self.time, entity
            self._query_moments, self._query_rank = self._moments, rank
            self._now = self._position.searchsorted(self._position)
        else:
            self.order = np.arange(len(queries.keys))
            self.amount = np.rint(queries.amounts / UNIT) * UNIT
            self._query_time = queries.timestamps.astype("datetime64[us]").astype(np.int64)
            self._query_entity = _entities_of(queries.keys, key, is_first)
            self._query_moments, self._query_rank = self._query_time, self.order
            earlier = self._moments.searchsorted(self._query_time)
            self._now = self._position.searchsorted(self._query_base + earlier)

        self._learned: _Learned | None = None
        if label_times is None:
            self.labelled = np.flatnonzero(~np.isnan(label))
            self._labelled_before = self.labelled.searchsorted(np.arange(len(time) + 1))
        else:
            self._learned = _Learned(self.time, entity, label, label_times[order])
            self.labelled = self._learned.labelled
        self.labelled_time = self.time[self.labelled]
        self.fraud = label[self.labelled] == 1

    def past(self, days: int) -> RowSpan:
        """The rows of the same entity in (t - days, t), [queries]."""
        age = days * MICROSECONDS_PER_DAY
        return self.cached(
            ("past", days), lambda: RowSpan(self._first_younger_than(age), self._now)
        )

    def known(self, days: int) -> RowSpan:
        """The labelled rows of the same entity whose labels became known in (t - days, t],
        [queries].

        With a fixed delay these are the rows in (t - delay - days, t - delay].
        """
        return self.cached(("known", days), lambda: self._known(days * MICROSECONDS_PER_DAY))

    def _known(self, age: int) -> RowSpan:
        if self._learned is not None:
            learned = self._learned
            queries = self._query_entity, self._query_moments, self._query_rank
            until_now = self.cached(("known until now",), lambda: learned.until(0, *queries))
            return RowSpan(learned.until(age, *queries), until_now)
        first = self._first_younger_than(self._delay + age)
        # With a delay of 0 the span would otherwise include the row itself.
        last = np.minimum(self._first_younger_than(self._delay), self._now)
        return RowSpan(self._labelled_before[first], self._labelled_before[last])

    def days_since(self, times: Ints, index: Ints, exists: NDArray[np.bool_]) -> Floats:
        """Days from an earlier row to each query, [queries].

        Args:
          times: `time` or `labelled_time`.
          index: position of the earlier row in `times`, [queries].
          exists: whether there is an earlier row, [queries]; the result is NaN where there is none.
        """
        days = np.full(len(self._query_time), np.nan)
        days[exists] = (self._query_time[exists] - times[index[exists]]) / MICROSECONDS_PER_DAY
        return days

    @cached_property
    def units(self) -> Ints:
        """Amounts of the queries as integer multiples of UNIT, 0 where missing, [queries]."""
        return _units(self.amount)

    @cached_property
    def has_amount(self) -> NDArray[np.bool_]:
        """Which queries have an amount, [queries]."""
        return ~np.isnan(self.amount)

    @cached_property
    def total_units(self) -> PrefixSum:
        """Sums of the rows' amounts in UNIT."""
        return PrefixSum(self._row_units)

    @cached_property
    def total_amounts(self) -> PrefixSum:
        """Counts of rows that have an amount."""
        return PrefixSum(self._row_has_amount)

    @cached_property
    def total_frauds(self) -> PrefixSum:
        """Counts of labelled rows that are fraud."""
        return PrefixSum(self.fraud)

    @cached_property
    def total_fraud_units(self) -> PrefixSum:
        """Sums of amounts in UNIT over labelled rows that are fraud."""
        return PrefixSum(np.where(self.fraud, self._row_units[self.labelled], 0))

    @cached_property
    def total_fraud_amounts(self) -> PrefixSum:
        """Counts of labelled rows that are fraud and have an amount."""
        return PrefixSum(self.fraud & self._row_has_amount[self.labelled])

    @cached_property
    def last_fraud(self) -> Ints:
        """For each position in `labelled`, the last earlier one that is fraud; -1 if none."""
        return _last_flagged_before(self.fraud)

    @cached_property
    def last_genuine(self) -> Ints:
        """For each position in `labelled`, the last earlier one that is genuine; -1 if none."""
        return _last_flagged_before(~self.fraud)

    @cached_property
    def latest_frauds(self) -> Ints:
        """For each position in `labelled`, the 16 labels before it as bits, the last one highest.

        Earlier labels may be of another entity.
        """
        bits = np.concatenate([[0], self.fraud])
        for width in (1, 2, 4, 8):
            earlier = np.concatenate([np.zeros(width, np.int64), bits])[: len(bits)]
            bits = (bits << width) | earlier
        return bits

    @cached_property
    def order_statistics(self) -> OrderStatistics:
        """Order statistics of the amounts in spans of rows."""
        if len(self.order) <= FEW:
            return SortedSpans(self._row_amount)
        starts = self._entity_base.searchsorted(self._entity_base)
        of_queries = starts
        if not self._is_of_rows:
            of_queries = self._entity_base.searchsorted(self._query_base)
        return WaveletMatrix(self._row_amount, starts, of_queries)

    def cached(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The result of `compute`, which runs only at the first call with this key."""
        if key not in self._computed:
            self._computed[key] = compute()
        return self._computed[key]

    def squared_deviations(self, spans: RowSpan) -> Floats:
        """Sum of squared deviations of amounts in UNIT from their mean in each span, [queries].

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
        squares = np.cumsum(self._row_units.astype(float) ** 2)
        return PrefixSum(self._row_units**2), np.concatenate([[0.0], squares])

    @cached_property
    def _row_units(self) -> Ints:
        return self.units if self._is_of_rows else _units(self._row_amount)

    @cached_property
    def _row_has_amount(self) -> NDArray[np.bool_]:
        return self.has_amount if self._is_of_rows else ~np.isnan(self._row_amount)

    @cached_property
    def _query_base(self) -> Ints:
        return self._query_entity * (len(self._moments) + 1)

    def _first_younger_than(self, age: int) -> Ints:
        """Position of the entity's first row later than t - age microseconds, [queries]."""

        def search() -> Ints:
            rank = self._moments.searchsorted(self._query_moments - age, side="right")
            return self._position.searchsorted(self._query_base + rank[self._query_rank])

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
        self._position = entity[self.labelled] * (len(self._effects) + 1) + rank

    def until(self, age: int, entity: Ints, moments: Ints, rank: Ints) -> Ints:
        """How many labels precede, or are of the query's entity and known by t - age, [queries].

        Args:
          age: microseconds, at least 0.
          entity: of each query, [queries].
          moments: the times of all queries, some of which may occur once for several.
          rank: the position of each query's time in `moments`, [queries].
        """
        limit = 2 * (moments - age) + (age > 0)
        effects = self._effects.searchsorted(limit, side="right")
        base = entity * (len(self._effects) + 1)
        return self._position.searchsorted(base + effects[rank])


def _last_flagged_before(flags: NDArray[np.bool_]) -> Ints:
    """For positions 0 … n, the last flagged position before each; -1 if none, [n + 1]."""
    position = np.where(flags, np.arange(len(flags)), -1)
    return np.concatenate([[-1], np.maximum.accumulate(position)]).astype(np.int64)


def _units(amounts: Floats) -> Ints:
    """Amounts as integer multiples of UNIT, 0 where missing."""
    return np.where(np.isnan(amounts), 0, amounts / UNIT).astype(np.int64)


def _entities_of(keys: Ints, row_keys: Ints, is_first: NDArray[np.bool_]) -> Ints:
    """The numbers of the entities with some keys; for one without rows, a number after all others.

    Args:
      keys: [queries].
      row_keys: ascending, [rows].
      is_first: whether each row, but for the very first, is the first of its entity, [rows].
    """
    known = np.concatenate([row_keys[:1], row_keys[is_first]])
    number = known.searchsorted(keys)
    if not len(known):
        return number
    is_known = known[np.minimum(number, len(known) - 1)] == keys
    return np.where(is_known, number, len(known))

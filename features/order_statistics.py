"""Order statistics of spans of rows: medians and counts of larger values, without a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fraud.features.spans import Floats, Ints, RowSpan


class OrderStatistics(Protocol):
    """Order statistics of values in spans of rows, one span per query. NaN ranks last."""

    def smallest(self, k: Ints, spans: RowSpan) -> Floats:
        """The k-th smallest value of each span, counted from 0, [queries]; NaN if there is none."""
        ...

    def rank(self, limit: Floats) -> NDArray:
        """What `count_below` needs of a limit per query, [queries].

        A missing value exceeds every limit, and no value exceeds a missing limit.
        """
        ...

    def count_below(self, rank: NDArray, spans: RowSpan) -> Ints:
        """How many values of each span do not exceed the limit of a rank, [queries]."""
        ...


class SortedSpans:
    """Order statistics by a look at every value of every span, for few queries."""

    def __init__(self, values: Floats):
        """The values, [rows]."""
        self._values = values

    def smallest(self, k: Ints, spans: RowSpan) -> Floats:
        """See `OrderStatistics`."""

        def of_one(values: Floats, k: int) -> float:
            return np.sort(values)[k] if 0 <= k < len(values) else np.nan

        return self._each(of_one, k, spans)

    def rank(self, limit: Floats) -> Floats:
        """See `OrderStatistics`; the limit itself."""
        return limit

    def count_below(self, rank: Floats, spans: RowSpan) -> Ints:
        """See `OrderStatistics`."""

        def of_one(values: Floats, limit: float) -> int:
            return len(values) if np.isnan(limit) else int(np.count_nonzero(values <= limit))

        return self._each(of_one, rank, spans).astype(np.int64)

    def _each(
        self, of_one: Callable[[Floats, Any], float], arguments: NDArray, spans: RowSpan
    ) -> Floats:
        queries = zip(arguments.tolist(), spans.first.tolist(), spans.last.tolist(), strict=True)
        return np.array([of_one(self._values[a:b], x) for x, a, b in queries], np.float64)


class WaveletMatrix:
    """A wavelet matrix over values, each ranked among the values of its own entity.

    Level by level, from the highest bit of the ranks to the lowest, a stable partition separates
    the rows whose bit is 0 from those whose bit is 1. A span of rows remains a span in both parts,
    so an order statistic of any span takes one step per level. The number of levels is the number
    of bits in the row count of the largest entity.

    Source: Claude, Navarro, Ordóñez, "The wavelet matrix: An efficient wavelet tree for large
    alphabets", Information Systems 47 (2015).
    """

    def __init__(self, values: Floats, entity_start: Ints, query_start: Ints):
        """Builds the matrix.

        Args:
          values: the values to rank, [rows], rows sorted by entity; NaN ranks last.
          entity_start: position of the first row of each row's entity, [rows].
          query_start: the same of each query's entity, or the number of rows if that has none,
            [queries].
        """
        self._entity_start = entity_start
        self._query_start = query_start
        by_value = np.lexsort((values, entity_start))
        self._sorted = values[by_value]
        rank = np.empty(len(values), np.int64)
        rank[by_value] = np.arange(len(values)) - entity_start
        self._levels = int(rank.max(initial=0)).bit_length()
        self._zeros: list[NDArray[np.int32]] = []
        for level in reversed(range(self._levels)):
            zero = (rank >> level) & 1 == 0
            self._zeros.append(np.concatenate([[0], np.cumsum(zero, dtype=np.int32)]))
            rank = np.concatenate([rank[zero], rank[~zero]])

    def smallest(self, k: Ints, spans: RowSpan) -> Floats:
        """See `OrderStatistics`."""
        exists = (k >= 0) & (k < spans.count)
        k = np.where(exists, k, 0)
        first, last = spans.first, spans.last
        rank = np.zeros(len(k), np.int64)
        for zeros in self._zeros:
            first_zero, last_zero = zeros[first], zeros[last]
            count = last_zero - first_zero
            one = k >= count
            rank = 2 * rank + one
            k = np.where(one, k - count, k)
            first = np.where(one, zeros[-1] + first - first_zero, first_zero)
            last = np.where(one, zeros[-1] + last - last_zero, last_zero)
        values = np.full(len(k), np.nan)
        values[exists] = self._sorted[(self._query_start + rank)[exists]]
        return values

    def rank(self, limit: Floats) -> Ints:
        """See `OrderStatistics`; how many values of the query's entity do not exceed its limit."""
        rows = len(self._sorted)
        is_limit = np.repeat([False, True], [rows, len(limit)])
        value = np.concatenate([self._sorted, limit])
        # Among equal values limits sort last, so that the equal values are counted.
        start = np.concatenate([self._entity_start, self._query_start])
        order = np.lexsort((is_limit, value, start))
        count = np.empty(len(value), np.int64)
        count[order] = np.cumsum(~is_limit[order])
        return count[rows:] - self._query_start

    def count_below(self, rank: Ints, spans: RowSpan) -> Ints:
        """See `OrderStatistics`."""
        first, last = spans.first, spans.last
        beyond = rank >> self._levels > 0
        count = np.where(beyond, spans.count, 0)
        for i, zeros in enumerate(self._zeros):
            first_zero, last_zero = zeros[first], zeros[last]
            one = (rank >> (self._levels - 1 - i)) & 1 == 1
            count += np.where(one & ~beyond, last_zero - first_zero, 0)
            first = np.where(one, zeros[-1] + first - first_zero, first_zero)
            last = np.where(one, zeros[-1] + last - last_zero, last_zero)
        return count

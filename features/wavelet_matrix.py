"""Order statistics of stretches of rows: medians and counts of larger values, without a loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fraud.features.history import Floats, Ints, Stretch


class Ranks:
    """A wavelet matrix over the values of entities, each ranked among its entity's own.

    Level by level, from the highest bit of the ranks to the lowest, rows are parted, keeping their
    order, into those with bit 0 and those with bit 1. A stretch of rows stays a stretch in both
    parts, so an order statistic of any stretch takes one step per level: as many as the bits of
    the largest entity's row count.

    Source: Claude, Navarro, Ordóñez, "The wavelet matrix: An efficient wavelet tree for large
    alphabets", Information Systems 47 (2015).
    """

    def __init__(self, values: Floats, entity_start: Ints):
        """Ranks and parts the rows.

        Args:
          values: what is ranked, [rows], rows sorted by entity; NaN ranks last.
          entity_start: position of the first row of each row's entity, [rows].
        """
        self._entity_start = entity_start
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

    def smallest(self, k: Ints, rows: Stretch) -> Floats:
        """The k-th smallest value of each stretch, from 0 on, [rows]; NaN if it has none."""
        exists = (k >= 0) & (k < rows.count)
        k = np.where(exists, k, 0)
        first, last = rows.first, rows.last
        rank = np.zeros(len(k), np.int64)
        for zeros in self._zeros:
            first_zero, last_zero = zeros[first], zeros[last]
            count = last_zero - first_zero
            one = k >= count
            rank = 2 * rank + one
            k = np.where(one, k - count, k)
            first = np.where(one, zeros[-1] + first - first_zero, first_zero)
            last = np.where(one, zeros[-1] + last - last_zero, last_zero)
        found = np.full(len(k), np.nan)
        found[exists] = self._sorted[(self._entity_start + rank)[exists]]
        return found

    def rank(self, limit: Floats) -> Ints:
        """How many values of all its entity are at most each row's limit, [rows].

        NaN ranks last: a missing value is larger than every limit, a missing limit than all.
        """
        rows = len(limit)
        is_limit = np.repeat([False, True], rows)
        value = np.concatenate([self._sorted, limit])
        # After equal values, as "at most" has it.
        order = np.lexsort((is_limit, value, np.tile(self._entity_start, 2)))
        count = np.empty(2 * rows, np.int64)
        count[order] = np.cumsum(~is_limit[order])
        return count[rows:] - self._entity_start

    def ranked_below(self, rank: Ints, rows: Stretch) -> Ints:
        """How many values of each stretch have a lower rank than given, [rows]."""
        first, last = rows.first, rows.last
        beyond = rank >> self._levels > 0
        count = np.where(beyond, rows.count, 0)
        for i, zeros in enumerate(self._zeros):
            first_zero, last_zero = zeros[first], zeros[last]
            one = (rank >> (self._levels - 1 - i)) & 1 == 1
            count += np.where(one & ~beyond, last_zero - first_zero, 0)
            first = np.where(one, zeros[-1] + first - first_zero, first_zero)
            last = np.where(one, zeros[-1] + last - last_zero, last_zero)
        return count

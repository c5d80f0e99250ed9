"""Counts by day of transactions in memory, as `fraud.pipeline.drift` compares them.

StatisticsGen counts the same in TFDV's pass over the examples of a run; there, quantiles are
approximate, here they are exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fraud.pipeline.drift import REST, Cards, Categories, Column, Numbers, Profile, jensen_shannon

BUCKETS = 20  # of a day's quantile histogram
_CATEGORIES = 1000  # of a column; the rest is counted as one
_LEVELS = np.linspace(0, 1, 11)


def profile(
    table: pa.Table,
    days: NDArray[np.int64],
    counted: Sequence[int],
    columns: Iterable[str],
    card: str | None,
) -> Profile:
    """Counts transactions by day.

    Args:
      table: in the canonical form of ingestion.
      days: the day of each row, [rows].
      counted: the days to count, ascending; rows of other days are ignored.
      columns: what to count: those with numbers as numbers, the others as categories.
      card: the entity whose rows are not independent; None if there is none.
    """
    numbered = np.asarray(counted, np.int64)
    position = np.searchsorted(numbered, days).clip(0, len(numbered) - 1)
    inside = numbered[position] == days
    table, position = table.filter(pa.array(inside)), position[inside]
    return Profile(
        numbered,
        np.bincount(position, minlength=len(numbered)).astype(np.float64),
        _cards(table[card]) if card else None,
        {name: _column(table[name], position, len(numbered)) for name in columns},
    )


def _cards(column: pa.ChunkedArray) -> Cards:
    from pandas.util import hash_array

    encoded = column.combine_chunks().dictionary_encode()
    hashes = hash_array(encoded.dictionary.to_numpy(zero_copy_only=False), categorize=False)
    rows = np.bincount(encoded.indices.drop_null().to_numpy(), minlength=len(hashes))
    order = np.argsort(hashes)
    return Cards(hashes[order].astype(np.uint64), rows[order].astype(np.float64), 1.0)


def _column(column: pa.ChunkedArray, position: NDArray[np.int64], days: int) -> Column:
    whole = column.combine_chunks()
    is_null = whole.is_null().to_numpy(zero_copy_only=False)
    missing = np.bincount(position[is_null], minlength=days).astype(np.float64)
    if pa.types.is_string(whole.type) or pa.types.is_integer(whole.type):
        return _categories(whole, is_null, missing, position, days)
    numbers = whole.cast(pa.float64()).to_numpy(zero_copy_only=False)
    zeros = np.bincount(position[numbers == 0], minlength=days).astype(np.float64)
    edges, counts = [], []
    for day in range(days):
        some = numbers[(position == day) & ~is_null & (numbers != 0)]
        if len(some):
            edges.append(np.quantile(some, np.linspace(0, 1, BUCKETS + 1)))
            counts.append(np.full(BUCKETS, len(some) / BUCKETS))
        else:
            edges.append(np.zeros(0))
            counts.append(np.zeros(0))
    return Numbers(missing, zeros, edges, counts)


def _categories(
    column: pa.Array,
    is_null: NDArray[np.bool_],
    missing: NDArray[np.float64],
    position: NDArray[np.int64],
    days: int,
) -> Categories:
    encoded = column.dictionary_encode()
    labels = [str(label) for label in encoded.dictionary.to_pylist()]
    codes = encoded.indices.fill_null(0).to_numpy().astype(np.int64)[~is_null]
    cells = position[~is_null] * len(labels) + codes
    counts = np.bincount(cells, minlength=days * len(labels)).reshape(days, len(labels))
    counted = {label: counts[:, i].astype(np.float64) for i, label in enumerate(labels)}
    ranked = sorted(counted, key=lambda label: -counted[label].sum())
    if rest := ranked[_CATEGORIES:]:
        others = np.sum([counted.pop(label) for label in rest], axis=0)
        counted[REST] = counted.get(REST, np.zeros(days)) + others
    return Categories(missing, counted)


@dataclass(frozen=True)
class Shape:
    """How the values of a feature are distributed, without days.

    Attributes:
      edges: ascending and distinct, [n].
      least, most: between which the share of the values up to each edge is, ascending to 1, [n].
      missing: the share of the rows without a value.
    """

    edges: NDArray[np.float64]
    least: NDArray[np.float64]
    most: NDArray[np.float64]
    missing: float

    @classmethod
    def of(cls, values: NDArray) -> Shape:
        """The shape of values, NaN where missing, [rows]."""
        known = np.sort(values[~np.isnan(values)].astype(np.float64))
        missing = 1 - len(known) / len(values)
        if not len(known):
            return cls(known, known, known, missing)
        edges = np.unique(np.quantile(known, _LEVELS, method="inverted_cdf"))
        below = np.searchsorted(known, edges, "right") / len(known)
        return cls(edges, below, below, missing)

    @classmethod
    def of_quantiles(cls, quantiles: NDArray[np.float64], missing: float, zeros: float) -> Shape:
        """The shape of values with quantiles in equal steps of rank, the least one first.

        Args:
          quantiles: ascending, at least 2.
          missing, zeros: the shares of the rows without a value, and with the value 0.
        """
        edges, first = np.unique(quantiles[::-1], return_index=True)
        levels = np.linspace(0, 1, len(quantiles))
        # A value that many rows have may be that of any rank up to the next quantile.
        least = levels[::-1][first]
        most = np.minimum(least + levels[1], 1.0)
        if edges[0] == 0:  # most features count something; then it is known
            least[0] = most[0] = zeros / (1 - missing)
        return cls(edges, least, most, missing)

    def divergence(self, values: NDArray) -> float:
        """The least Jensen-Shannon divergence of values, NaN where missing, from this shape.

        There is a cell for missing values, for the least value, and between edges.
        """
        known = np.sort(values[~np.isnan(values)].astype(np.float64))
        below = np.searchsorted(known, self.edges, "right") / max(len(known), 1)
        missing = 1 - len(known) / max(len(values), 1)

        def cells(up_to: NDArray[np.float64], lacking: float) -> NDArray[np.float64]:
            present = (1 - lacking) * np.diff(up_to, prepend=0.0, append=1.0)
            return np.array([lacking, *present])

        before = np.maximum.accumulate(np.clip(below, self.least, self.most))
        return jensen_shannon(cells(below, missing), cells(before, self.missing))

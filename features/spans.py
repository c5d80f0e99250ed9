"""Spans of consecutive rows and exact sums over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RowSpan:
    """One span of consecutive rows per row: from `first` up to, but not including, `last`.

    Attributes:
      first, last: positions, [rows] each.
    """

    first: Ints
    last: Ints

    @property
    def count(self) -> Ints:
        """The number of rows in each span, [rows]."""
        return self.last - self.first


class PrefixSum:
    """Sums of integers over spans, exact no matter what precedes a span.

    Differences of floating-point prefix sums carry the rounding errors of all earlier rows, so the
    last digits of a feature would depend on which other rows were loaded with it. Integer prefix
    sums wrap around at 2^64, and their differences stay exact.
    """

    def __init__(self, values: NDArray[np.integer] | NDArray[np.bool_]):
        self._prefix = np.zeros(len(values) + 1, np.int64)
        np.cumsum(values, out=self._prefix[1:])

    def over(self, spans: RowSpan) -> Ints:
        """The sum over each span, modulo 2^64, [rows]."""
        return self._prefix[spans.last] - self._prefix[spans.first]

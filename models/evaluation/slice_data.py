"""What the Evaluator knows of a slice: histograms of all its examples, columns of a bounded number.

Metrics that are sums by score come from histograms, which add up in any number of workers. Others
count cards by day, or draw cards, and need columns with a value for each example in one place. A
slice with more than `MOST_ROWS` examples has those of a sample there: of whole cards, drawn by
hash, so that every model is measured on the same ones, whatever arrives first.

Source of the sampling: Gibbons, "Distinct sampling for highly-accurate answers to distinct values
queries and event reports", VLDB 2001: a level is raised, each time halving the hashes that are
kept, when the rows do not fit any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray
from tensorflow_model_analysis.metrics import calibration_histogram

BUCKETS = calibration_histogram.DEFAULT_NUM_BUCKETS
_CELLS = BUCKETS + 2  # per label: the buckets, plus one on either side

MOST_ROWS = 5_000_000
"""The examples of a slice that columns have at most."""

_MOST_PARTS = 4096  # of a slice, each with histograms of its own, before they are added up
_HIGHEST_LEVEL = 20  # of a single card with more than `MOST_ROWS` examples, all are kept


@dataclass(frozen=True)
class ScoreHistogram:
    """Examples of one slice counted by label and score bucket.

    Attributes:
      cell: int64 [k], ascending: label × 10,002 + bucket, with TFMA's numbering of buckets.
      examples: int64 [k], the number of examples in each cell.
      scores: float64 [k], the sum of their scores.
    """

    cell: NDArray[np.int64]
    examples: NDArray[np.int64]
    scores: NDArray[np.float64]

    @classmethod
    def of(cls, label: NDArray, score: NDArray) -> ScoreHistogram:
        """Counts single examples: labels [n], 0 or 1, and scores, float32 [n] in [0, 1]."""
        exact = score.astype(np.float64)
        # Same arithmetic as TFMA's histogram, so that every example falls into the same bucket.
        bucket = np.clip(exact * BUCKETS + 1, 0, BUCKETS + 1).astype(np.int64)
        return cls._summed(label.astype(np.int64) * _CELLS + bucket, np.ones_like(bucket), exact)

    @classmethod
    def sum(cls, parts: Iterable[ScoreHistogram]) -> ScoreHistogram:
        """The histogram of all parts together."""
        listed = list(parts)
        return cls._summed(
            np.concatenate([part.cell for part in listed]),
            np.concatenate([part.examples for part in listed]),
            np.concatenate([part.scores for part in listed]),
        )

    @classmethod
    def _summed(cls, cell: NDArray, examples: NDArray, scores: NDArray) -> ScoreHistogram:
        cells, index = np.unique(cell, return_inverse=True)
        summed = np.bincount(index, examples, cells.size).astype(np.int64)
        total = np.bincount(index, scores, cells.size).astype(np.float64)
        return cls(cells, summed, total)

    def share_at(self, score: float, label: int) -> float:
        """The share of the examples with this label that have this score; NaN without examples."""
        labelled = self.label == label
        if not labelled.any():
            return float("nan")
        scored = labelled & (self.mean_score == score)
        return float(self.examples[scored].sum() / self.examples[labelled].sum())

    @property
    def label(self) -> NDArray[np.float64]:
        """[k]: the label of each cell."""
        return (self.cell // _CELLS).astype(np.float64)

    @property
    def mean_score(self) -> NDArray[np.float64]:
        """[k]: the mean score of each cell, itself within the cell's bucket."""
        return self.scores / self.examples


@dataclass(frozen=True)
class Sample:
    """Which examples of a slice its columns have.

    Attributes:
      share: of the cards; 1 means all.
      examples: of the whole slice.
    """

    share: float
    examples: int


@dataclass(frozen=True)
class SliceData:
    """The examples of one slice, as far as metrics need them.

    Attributes:
      histograms: (model, output) → its scores, of all examples.
      columns: other columns that metrics require: column, or (model, output) for scores → [rows],
        of the examples whose hash is among the lowest 2^-level of all hashes.
      level: 0 means all examples.
    """

    histograms: Mapping[tuple[str, str], ScoreHistogram]
    columns: Mapping[Any, NDArray]
    level: int = 0

    @classmethod
    def sum(cls, parts: Iterable[SliceData]) -> SliceData:
        """The data of all parts together, which have the same level, whatever their order."""
        listed = sorted(parts, key=lambda part: part._content)
        first = listed[0]
        return cls(
            {k: ScoreHistogram.sum(p.histograms[k] for p in listed) for k in first.histograms},
            {k: np.concatenate([p.columns[k] for p in listed]) for k in first.columns},
            first.level,
        )

    @property
    def rows(self) -> int:
        """The number of rows that columns have."""
        return len(next(iter(self.columns.values()), ()))

    @property
    def sample(self) -> Sample:
        """What the columns are of the whole."""
        examples = next(iter(self.histograms.values())).examples.sum()
        return Sample(2.0**-self.level, int(examples))

    def at_level(self, level: int, card: str | None) -> SliceData:
        """The same with fewer rows, at a level that is no lower.

        Args:
          level: of the sample.
          card: the column whose values are hashed. None: rows are hashed as a whole, so equal rows
            are in the sample together or not at all.
        """
        if level == self.level:
            return self
        kept = _hashes(self.columns, card) < np.uint64(2 ** (64 - level))
        return replace(self, level=level, columns={k: v[kept] for k, v in self.columns.items()})

    @property
    def _content(self) -> tuple[bytes, bytes]:
        """Digests of the data, by which parts have an order that no runner changes.

        Sums of floating-point numbers and the bootstrap depend a little on the order. Scores only
        decide between parts that are otherwise equal, so that the metrics of a model do not depend
        on which other model is evaluated beside it.
        """
        scores = {k: v for k, v in self.columns.items() if isinstance(k, tuple)}
        others = [v for k, v in self.columns.items() if not isinstance(k, tuple)]
        counted = [(h.cell, h.examples, h.scores) for h in self.histograms.values()]
        return _digest(others), _digest([*(a for h in counted for a in h), *scores.values()])


def _hashes(columns: Mapping[Any, NDArray], card: str | None) -> NDArray[np.uint64]:
    """Evenly distributed numbers that depend on nothing but the values, [rows]."""
    from pandas.util import hash_array  # most processes that import this module never come here

    if card is not None:
        return hash_array(columns[card])
    hashes = np.zeros(len(next(iter(columns.values()), ())), np.uint64)
    for column in columns.values():
        hashes = hash_array(hashes ^ hash_array(column))
    return hashes


def _digest(arrays: Iterable[NDArray]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        text = array.tobytes() if array.dtype != object else repr(array.tolist()).encode()
        digest.update(text)
    return digest.digest()


@dataclass
class _Parts:
    """What a worker has seen of a slice: parts of one level, and the number of their rows."""

    parts: list[SliceData] = field(default_factory=list)
    rows: int = 0
    level: int = 0


class SumSlice(beam.CombineFn):
    """Parts of a slice → `SliceData.sum`, with at most `most_rows` rows of columns.

    Beam would combine a plain function ten parts at a time, and copy what it has so far each time;
    here parts are added up in the end, or when there are thousands.

    The level is the lowest at which the rows of the whole slice fit: none of its parts needs a
    higher one, since it has fewer rows at each. So it does not depend on who sees which part.

    Args:
      card: see `SliceData.at_level`.
      most_rows: that columns have.
    """

    def __init__(self, card: str | None = None, most_rows: int | None = None) -> None:
        self._card, self._most_rows = card, most_rows or MOST_ROWS

    def create_accumulator(self) -> _Parts:
        """See beam.CombineFn."""
        return _Parts()

    def add_input(self, seen: _Parts, part: SliceData) -> _Parts:
        """See beam.CombineFn."""
        return self._with(seen, [part])

    def merge_accumulators(self, accumulators: Iterable[_Parts]) -> _Parts:
        """See beam.CombineFn."""
        merged = _Parts()
        for seen in accumulators:
            self._raise(merged, seen.level)
            merged = self._with(merged, seen.parts)
        return merged

    def extract_output(self, seen: _Parts) -> SliceData:
        """See beam.CombineFn."""
        return SliceData.sum(seen.parts)

    def _with(self, seen: _Parts, parts: list[SliceData]) -> _Parts:
        fitting = [part.at_level(seen.level, self._card) for part in parts]
        seen.parts.extend(fitting)
        seen.rows += sum(part.rows for part in fitting)
        while seen.rows > self._most_rows and seen.level < _HIGHEST_LEVEL:
            fewer = _Parts(list(seen.parts), seen.rows, seen.level)
            self._raise(fewer, seen.level + 1)
            if not fewer.rows:
                break
            seen = fewer
        if len(seen.parts) > _MOST_PARTS:
            seen.parts = [SliceData.sum(seen.parts)]
        return seen

    def _raise(self, seen: _Parts, level: int) -> None:
        """Raises the level, if it is lower."""
        if level > seen.level:
            seen.level = level
            seen.parts = [part.at_level(level, self._card) for part in seen.parts]
            seen.rows = sum(part.rows for part in seen.parts)

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
from collections.abc import Iterable, Mapping, Sequence
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

_MOST_PARTS = 4096  # of a slice, each with histograms of its own, before they are joined
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

    def examples_of(self, label: int) -> int:
        """The number of examples with this label."""
        return int(self.examples[self.label == label].sum())

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
      hashes: uint64 [rows], evenly distributed; None: not computed so far.
    """

    histograms: Mapping[tuple[str, str], ScoreHistogram]
    columns: Mapping[Any, NDArray]
    level: int = 0
    hashes: NDArray[np.uint64] | None = None

    @classmethod
    def sum(cls, parts: Iterable[SliceData]) -> SliceData:
        """The data of all parts together, whatever their order."""
        return cls.joined(sorted(parts, key=lambda part: part._content))

    @classmethod
    def joined(cls, parts: Sequence[SliceData]) -> SliceData:
        """The data of parts one after the other.

        They have the same level, and all of them or none have hashes.
        """
        first = parts[0]
        hashes = [part.hashes for part in parts if part.hashes is not None]
        return cls(
            {k: ScoreHistogram.sum(p.histograms[k] for p in parts) for k in first.histograms},
            {k: np.concatenate([p.columns[k] for p in parts]) for k in first.columns},
            first.level,
            np.concatenate(hashes) if hashes else None,
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

    def hashed(self, card: str | None) -> SliceData:
        """The same with hashes.

        Args:
          card: the column whose values are hashed. None: each row has a hash of its own, which
            depends on the part and its place there.
        """
        if self.hashes is not None:
            return self
        if card is not None:
            return replace(self, hashes=_mixed(_hash(self.columns[card])))
        of_part = np.frombuffer(self._content[0][:8], np.uint64)
        places: NDArray[np.uint64] = np.arange(self.rows, dtype=np.uint64)
        return replace(self, hashes=_mixed(_mixed(of_part) ^ places))

    def at_level(self, level: int, card: str | None) -> SliceData:
        """The same with fewer rows, at a level that is no lower; `card` as in `hashed`."""
        if level == self.level:
            return self
        hashes = self.hashed(card).hashes
        assert hashes is not None
        kept = hashes < np.uint64(2 ** (64 - level))
        columns = {k: v[kept] for k, v in self.columns.items()}
        return replace(self, columns=columns, level=level, hashes=hashes[kept])

    def in_order(self) -> SliceData:
        """The same with rows in an order of their own, scores last; see `_content`."""
        content = np.zeros(self.rows, np.uint64)
        for name, column in self.columns.items():
            if isinstance(name, str):
                content = _mixed(content ^ _hash(column))
        scores = [column for name, column in self.columns.items() if isinstance(name, tuple)]
        order = np.lexsort([*scores, content])
        return replace(self, columns={k: v[order] for k, v in self.columns.items()}, hashes=None)

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


def _hash(values: NDArray) -> NDArray[np.uint64]:
    from pandas.util import hash_array  # most processes that import this module never come here

    return hash_array(values)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Evenly distributed, also what is 0 or in a row."""
    return _hash(numbers + np.uint64(0x9E3779B97F4A7C15))


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
    most_rows: int = 0  # before a higher level is tried; 0: as many as a slice may have


class SumSlice(beam.CombineFn):
    """Parts of a slice → `SliceData.sum`, with at most `most_rows` rows of columns.

    Beam would combine a plain function ten parts at a time, and copy what it has so far each time;
    here parts are joined in the end, or when there are thousands.

    The level is the lowest at which the rows of the whole slice fit: none of its parts needs a
    higher one, since it has fewer rows at each. So it does not depend on who sees which part.

    Args:
      card: see `SliceData.hashed`.
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
            if seen.level > merged.level:
                merged = self._at_level(merged, seen.level)
            merged = self._with(merged, seen.parts)
        return merged

    def extract_output(self, seen: _Parts) -> SliceData:
        """See beam.CombineFn."""
        seen.most_rows = 0
        seen = self._with(seen, [])
        if seen.parts[0].hashes is None:
            return SliceData.sum(seen.parts)
        # Parts were sampled, or joined in the order in which they came.
        return SliceData.joined(seen.parts).in_order()

    def _with(self, seen: _Parts, parts: list[SliceData]) -> _Parts:
        seen = self._adding(seen, parts)
        while seen.rows > (seen.most_rows or self._most_rows) and seen.level < _HIGHEST_LEVEL:
            fewer = self._at_level(seen, seen.level + 1)
            if not fewer.rows:  # a single card that is too large: try again when twice as many
                seen.most_rows = 2 * seen.rows
                break
            seen = fewer
        if len(seen.parts) > _MOST_PARTS:
            hashed = [part.hashed(self._card) for part in seen.parts]
            seen.parts = [SliceData.joined(hashed)]
        return seen

    def _adding(self, seen: _Parts, parts: list[SliceData]) -> _Parts:
        for part in parts:
            fitting = part.at_level(seen.level, self._card)
            # Once one part has hashes, all have.
            if seen.parts and seen.parts[0].hashes is not None:
                fitting = fitting.hashed(self._card)
            elif fitting.hashes is not None:
                seen.parts = [other.hashed(self._card) for other in seen.parts]
            seen.parts.append(fitting)
            seen.rows += fitting.rows
        return seen

    def _at_level(self, seen: _Parts, level: int) -> _Parts:
        parts = [part.at_level(level, self._card) for part in seen.parts]
        return _Parts(parts, sum(part.rows for part in parts), level)

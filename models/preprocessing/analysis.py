"""Analysis of the train window in one pass: quantiles and vocabularies.

TensorFlow Transform's own analyzers compute the same in a hundred Beam stages; see ADR 8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tfx_bsl import sketches

from fraud.models.columns import ModelColumns
from fraud.models.preprocessing.edges import bin_edges
from fraud.models.spec import Network

_PARTS = 1000  # quantiles estimated per column and class: the minimum, 0.1 %, … and the maximum
_COMPACT_ABOVE = 100_000  # rows; a compacted sketch of fewer is larger than it was
_EDGES_FILE = "edges.npy"


@dataclass(frozen=True)
class Analysis:
    """Bin edges and vocabularies.

    Attributes:
      edges: bin edges of each numeric column, ascending: float32 [columns, bins + 1]. A column with
        fewer distinct values has edges that coincide.
      words: the most frequent values of each categorical column, most frequent first.
    """

    edges: NDArray
    words: Mapping[str, tuple[bytes, ...]]

    def write(self, folder: Path) -> None:
        """Writes the edges, and each vocabulary as text with one word per line.

        A runner may repeat it: what the folder has is replaced.
        """
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / _EDGES_FILE, self.edges)
        for column, words in self.words.items():
            lines = words or (b"(none)",)  # TensorFlow cannot read an empty file
            vocabulary_path(folder, column).write_bytes(b"".join(line + b"\n" for line in lines))


def read_edges(folder: Path) -> NDArray:
    """Reads the edges that `Analysis.write` wrote."""
    return np.load(folder / _EDGES_FILE)


def vocabulary_path(folder: Path, column: str) -> Path:
    """The file of a column's vocabulary; its name is hex, so any column name is allowed."""
    return folder / f"vocabulary_{column.encode().hex()}"


class Analyzer:
    """Accumulates an `Analysis`. Analyzers of parts of the data can be merged.

    The quantiles of frauds and of genuine transactions are estimated apart: frauds are too rare to
    affect the quantiles of all transactions.
    """

    def __init__(self, columns: ModelColumns, network: Network) -> None:
        self._columns, self._network = columns, network
        # A sketch cannot have no columns.
        self._classes = [_Class(len(columns.numeric)) for _ in range(2 if columns.numeric else 0)]
        self._counts: dict[str, Counter[bytes]] = {c: Counter() for c in columns.categorical}

    def add(self, batch: Mapping[str, NDArray]) -> Analyzer:
        """Adds a batch.

        Args:
          batch: columns by name, [rows] each: numeric ones float32 with NaN for missing values,
            categorical ones bytes with b"" for missing values, and the label.
        """
        if self._columns.numeric:
            numbers = np.stack([batch[c] for c in self._columns.numeric], axis=1)
            label = batch[self._columns.label]
            for fraud, of_class in enumerate(self._classes):
                of_class.add(numbers[label == fraud])
        for column, counts in self._counts.items():
            values = pc.value_counts(pa.array(batch[column], pa.binary()))
            counts.update(dict(zip(*(part.to_pylist() for part in values.flatten()), strict=True)))
        return self

    def compact(self) -> Analyzer:
        """Halves the memory of an analyzer that has seen many rows, before it is sent or kept.

        The estimates may change within the error that they have anyway.
        """
        for of_class in self._classes:
            of_class.compact()
        return self

    def merge(self, others: Iterable[Analyzer]) -> Analyzer:
        """Adds the data of other analyzers."""
        for other in others:
            for own, theirs in zip(self._classes, other._classes, strict=True):
                own.merge(theirs)
            for column, counts in self._counts.items():
                counts.update(other._counts[column])
        return self

    def analysis(self) -> Analysis:
        """The analysis of all data added so far."""
        bins = self._network.bins
        edges = np.zeros((0, bins + 1), np.float32)
        if self._columns.numeric:
            genuine, fraud = self._classes
            edges = bin_edges(
                genuine.quantiles(), genuine.counts, fraud.quantiles(), fraud.counts, bins
            )
        words = {c: _frequent(n, self._network.vocabulary_size) for c, n in self._counts.items()}
        return Analysis(edges, words)


class _Class:
    """The numeric columns of the frauds or of the genuine transactions."""

    def __init__(self, columns: int) -> None:
        self._sketch = sketches.QuantilesSketch(1 / (_PARTS - 1), 1 << 32, columns)
        # An empty column has no quantiles. A row of negligible weight covers columns without any
        # value in this class; lowest and highest keep it out of the quantiles of all others.
        weight = pa.array([1e-6], pa.float32())
        self._sketch.AddValues(pa.array(np.zeros(columns, np.float32)), weight)
        self._lowest = np.full(columns, np.nan, np.float32)
        self._highest = np.full(columns, np.nan, np.float32)
        self.counts = np.zeros(columns, np.int64)

    def add(self, numbers: NDArray) -> None:
        """Adds rows: float32 [rows, columns], NaN for missing values."""
        if not numbers.size:
            return
        self._sketch.AddValues(pa.array(numbers.reshape(-1)))
        self._lowest = np.fmin(self._lowest, np.fmin.reduce(numbers))
        self._highest = np.fmax(self._highest, np.fmax.reduce(numbers))
        self.counts = self.counts + np.count_nonzero(~np.isnan(numbers), axis=0)

    def compact(self) -> None:
        """Compacts the sketch of many rows."""
        if self.counts.max() > _COMPACT_ABOVE:
            self._sketch.Compact()

    def merge(self, other: _Class) -> None:
        """Adds the rows of another."""
        self._sketch.Merge(other._sketch)
        self._lowest = np.fmin(self._lowest, other._lowest)
        self._highest = np.fmax(self._highest, other._highest)
        self.counts = self.counts + other.counts

    def quantiles(self) -> NDArray:
        """From minimum to maximum of each column, [columns, _PARTS + 1]; 0 without values."""
        values = np.array(self._sketch.GetQuantiles(_PARTS).to_pylist(), np.float32)
        lowest, highest = np.nan_to_num(self._lowest), np.nan_to_num(self._highest)
        return np.clip(values, lowest[:, np.newaxis], highest[:, np.newaxis])


def _frequent(counts: Counter[bytes], most: int) -> tuple[bytes, ...]:
    """The most frequent words; ties are broken alphabetically."""
    # TensorFlow reads a vocabulary as a file with one word per line.
    words = [w for w in counts if w and not set(w) & set(b"\r\n")]
    return tuple(sorted(words, key=lambda word: (-counts[word], word))[:most])

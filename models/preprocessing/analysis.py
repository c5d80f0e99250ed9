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
from fraud.models.spec import Network

_GRID = 999  # quantiles estimated per column: 0.1 %, 0.2 %, … 99.9 %
_POINTS = 65  # of these, how many are candidates for bin edges
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

    Half of the candidate edges are quantiles of frauds, half of genuine transactions: frauds are
    too rare to affect the quantiles of all transactions.
    """

    def __init__(self, columns: ModelColumns, network: Network) -> None:
        self._columns, self._network = columns, network
        # A sketch cannot have no columns.
        self._quantiles = [
            _sketch(len(columns.numeric)) for _ in range(2 if columns.numeric else 0)
        ]
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
            for fraud, sketch in enumerate(self._quantiles):
                of_class = numbers[label == fraud]
                if of_class.size:
                    sketch.AddValues(pa.array(of_class.reshape(-1)))
        for column, counts in self._counts.items():
            values = pc.value_counts(pa.array(batch[column], pa.binary()))
            counts.update(dict(zip(*(part.to_pylist() for part in values.flatten()), strict=True)))
        return self

    def merge(self, others: Iterable[Analyzer]) -> Analyzer:
        """Adds the data of other analyzers."""
        for other in others:
            for own, theirs in zip(self._quantiles, other._quantiles, strict=True):
                own.Merge(theirs)
            for column, counts in self._counts.items():
                counts.update(other._counts[column])
        return self

    def analysis(self) -> Analysis:
        """The analysis of all data added so far."""
        bins = self._network.bins
        edges = np.zeros((0, bins + 1), np.float32)
        if self._columns.numeric:
            quantiles = np.concatenate([_points(sketch) for sketch in self._quantiles], axis=1)
            edges = _edges(quantiles, bins)
        words = {c: _frequent(n, self._network.vocabulary_size) for c, n in self._counts.items()}
        return Analysis(edges, words)


def _sketch(columns: int) -> sketches.QuantilesSketch:
    sketch = sketches.QuantilesSketch(1 / _GRID, 1 << 32, columns)
    # An empty column has no quantiles. A row of negligible weight covers columns without any value
    # in frauds, or in all examples.
    sketch.AddValues(pa.array(np.zeros(columns, np.float32)), pa.array([1e-6], pa.float32()))
    return sketch


def _points(sketch: sketches.QuantilesSketch) -> NDArray:
    """Quantiles of each column from 0.1 % to 99.9 %, [columns, _POINTS]."""
    inner = np.linspace(1, _GRID, _POINTS).round().astype(int)
    return np.array(sketch.GetQuantiles(_GRID + 1).to_pylist(), np.float32)[:, inner]


def _edges(quantiles: NDArray, bins: int) -> NDArray:
    """Evenly spaced picks from the distinct quantiles of each column: [columns, bins + 1]."""
    values = np.sort(quantiles, axis=1)
    rank = np.cumsum(np.diff(values, axis=1, prepend=values[:, :1]) > 0, axis=1)
    wanted = np.round(rank[:, -1:] * np.linspace(0, 1, bins + 1))
    chosen = [np.searchsorted(r, w) for r, w in zip(rank, wanted, strict=True)]
    return np.take_along_axis(values, np.stack(chosen), axis=1)


def _frequent(counts: Counter[bytes], most: int) -> tuple[bytes, ...]:
    """The most frequent words; ties are broken alphabetically."""
    # TensorFlow reads a vocabulary as a file with one word per line.
    words = [w for w in counts if w and not set(w) & set(b"\r\n")]
    return tuple(sorted(words, key=lambda word: (-counts[word], word))[:most])

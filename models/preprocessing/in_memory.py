"""Transform's preprocessing of arrays in memory, for the backtest and benchmarks.

The Transform component learns from files of examples; here the same is learned from arrays and
applied to them. The results are inputs of `fraud.models.network.training`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from numpy.typing import NDArray

from fraud.codec import to_json
from fraud.models.columns import ModelColumns
from fraud.models.preprocessing.analysis import Analyzer
from fraud.models.preprocessing.transform_fn import vocabulary_sizes
from fraud.models.preprocessing.transform_graph import TransformGraph, write_transform_graph
from fraud.models.spec import Network

BATCH = 8192


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing learned from a train window, for a network with these settings."""

    transform: tft.TFTransformOutput
    columns: ModelColumns
    spec: Network

    @property
    def vocabularies(self) -> dict[str, int]:
        """The number of indices of each categorical column."""
        return vocabulary_sizes(self.transform, self.columns, self.spec)

    def __call__(self, columns: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Computes the network's inputs from columns as in `learn`, without the label.

        See `transform_fn.preprocessing_fn`.
        """
        graph = TransformGraph(self.transform)
        names = (*self.columns.numeric, *self.columns.categorical)
        whole = {name: columns[name].reshape(-1, 1) for name in names}
        batches = tf.data.Dataset.from_tensor_slices(whole).batch(BATCH)
        parts = list(batches.map(graph, tf.data.AUTOTUNE).as_numpy_iterator())
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def learn(
    columns: Mapping[str, NDArray], model_columns: ModelColumns, spec: Network, directory: str
) -> Preprocessing:
    """Learns quantiles and vocabularies.

    Args:
      columns: the train window, [rows] each: numeric columns float32 with NaN for missing values;
        categorical ones object arrays of bytes with b"" for missing values; the label int64.
      model_columns: the roles of the columns.
      spec: sets the number of bins and words.
      directory: an empty folder for the graph; it must exist as long as the result is used.
    """
    analyzer = Analyzer(model_columns, spec)
    for start in range(0, len(columns[model_columns.label]), BATCH):
        analyzer.add({name: values[start : start + BATCH] for name, values in columns.items()})
    config = {"columns": to_json(model_columns), "network": to_json(spec)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "analysis")
        analyzer.analysis().write(folder)
        transform = write_transform_graph(directory, folder, config)
    return Preprocessing(transform, model_columns, spec)

"""Transform's preprocessing of columns that lie in memory: for the backtest and comparisons.

The Transform component learns from files of examples. Here the same is learned from arrays, and
applied to them: the arrays that `fraud.models.network.training` reads.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from numpy.typing import NDArray

from fraud.models.columns import ModelColumns
from fraud.models.preprocessing import transform_fn as preprocessing
from fraud.models.preprocessing.analysis import Analyzer
from fraud.models.preprocessing.transform_graph import TransformGraph, write_transform_graph
from fraud.models.spec import Network

BATCH = 8192


@dataclass(frozen=True)
class Preprocessing:
    """What Transform learned of a train window.

    Attributes:
      transform: its output.
      columns: what the model reads.
      spec: the network it is made for.
    """

    transform: tft.TFTransformOutput
    columns: ModelColumns
    spec: Network

    @property
    def vocabularies(self) -> dict[str, int]:
        """How many indices each categorical column has."""
        return preprocessing.vocabulary_sizes(self.transform, self.columns, self.spec)

    def __call__(self, columns: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """The network's inputs: see `fraud.models.preprocessing.transform_fn.preprocessing_fn`.

        Args:
          columns: the model's numeric and categorical columns, as `learn` has them.
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
      columns: those of the train window, [rows] each: numeric ones float32, NaN where missing;
        categorical ones bytes in an object array, b"" where missing; the label int64.
      model_columns: which is which.
      spec: how many bins and words.
      directory: an empty one, for what is learned; it must stay as long as the result.
    """
    analyzer = Analyzer(model_columns, spec)
    for start in range(0, len(columns[model_columns.label]), BATCH):
        analyzer.add({name: values[start : start + BATCH] for name, values in columns.items()})
    config = {"columns": dumps(asdict(model_columns)), "network": dumps(asdict(spec))}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "analysis")
        analyzer.analysis().write(folder)
        transform = write_transform_graph(directory, folder, config)
    return Preprocessing(transform, model_columns, spec)

"""What Transform puts into the served graph.

Every numeric column becomes its position among its own quantiles, every categorical column an
index of a vocabulary; a missing value is a signal of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from numpy.typing import NDArray
from tensorflow.lookup import TextFileIndex

from models.analysis import read_edges, vocabulary_path
from models.columns import ModelColumns
from models.spec import Network

NUMERIC = "numeric"
CATEGORICAL = "categorical"
MISSING = -1.0


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, str]) -> dict[str, tf.Tensor]:
    """Transform's function from raw columns to the network's inputs.

    Args:
      inputs: tensors by column, each [batch, 1] or sparse.
      custom_config: `columns`, JSON of `ModelColumns`, `network`, JSON of `Network`, and
        `analysis`, the folder of a `models.analysis.Analysis`.

    Returns:
      `numeric`: float32 [batch, n], each in [0, bins], or -1 where the value is missing. The whole
      part is the quantile bin, the fraction the position within it.
      `categorical`: int64 [batch, m], present if there are categorical columns. Index 0 is
      "missing", then come the vocabulary and the buckets of unseen values.
    """
    columns = ModelColumns.from_json(custom_config["columns"])
    network = Network.from_json(custom_config["network"])
    folder = Path(custom_config["analysis"])
    values = [_dense(inputs[c], float("nan")) for c in columns.numeric]
    x = tf.cast(tf.concat(values, 1), tf.float32)
    outputs = {NUMERIC: positions(x, read_edges(folder))}
    if columns.categorical:
        outputs[CATEGORICAL] = tf.concat(
            [
                _index(_dense(inputs[c], b""), c, vocabulary_path(folder, c), network)
                for c in columns.categorical
            ],
            axis=1,
        )
    return outputs


def vocabulary_sizes(
    transform: tft.TFTransformOutput, columns: ModelColumns, network: Network
) -> dict[str, int]:
    """How many indices each categorical column has: missing, vocabulary, unseen."""
    return {
        column: 1
        + int(transform.vocabulary_size_by_name(vocabulary_name(column)))
        + network.out_of_vocabulary
        for column in columns.categorical
    }


def vocabulary_name(column: str) -> str:
    """The name under which Transform keeps a column's vocabulary."""
    return f"vocabulary_{column}"


def _dense(tensor: Any, default: Any) -> tf.Tensor:
    """[batch, 1], with `default` where there is no value."""
    if isinstance(tensor, tf.SparseTensor):
        tensor = tft.sparse_tensor_to_dense_with_shape(tensor, [None, 1], default)
    return tf.reshape(tensor, [-1, 1])


def positions(x: tf.Tensor, edges: NDArray) -> tf.Tensor:
    """Where each value lies among the quantiles of its column in the train window.

    Args:
      x: float32 [batch, n], NaN where missing.
      edges: float32 [n, bins + 1], see `models.analysis`.

    Returns:
      float32 [batch, n]: k + f for the value that lies at fraction f of bin k; -1 where missing.
    """
    # A bin without width is a step.
    low, width = edges[:, :-1], np.maximum(np.diff(edges, axis=1), 1e-9)
    share = (x[:, :, tf.newaxis] - low) / width
    position = tf.reduce_sum(tf.clip_by_value(share, 0.0, 1.0), axis=2)
    return tf.where(tf.math.is_nan(x), MISSING, position)


def _index(x: tf.Tensor, column: str, vocabulary: Path, network: Network) -> tf.Tensor:
    """Index of each text: int64 [batch, 1]; 0 where it is missing."""
    words = tf.lookup.TextFileInitializer(
        str(vocabulary), tf.string, TextFileIndex.WHOLE_LINE, tf.int64, TextFileIndex.LINE_NUMBER
    )
    table = tft.make_and_track_object(
        lambda: tf.lookup.StaticVocabularyTable(words, network.out_of_vocabulary)
    )
    tft.annotate_asset(vocabulary_name(column), vocabulary.name)
    return tf.where(tf.strings.length(x) > 0, table.lookup(x) + 1, 0)

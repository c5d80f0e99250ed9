"""What Transform learns from the train window and puts into the served graph.

Every numeric column becomes its position among its own quantiles, every categorical column an
index of a vocabulary; a missing value is a signal of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from models.columns import ModelColumns
from models.spec import Network

NUMERIC = "numeric"
CATEGORICAL = "categorical"
MISSING = -1.0
_GRID = 999  # quantiles learned of each column: 0.1 %, 0.2 %, … 99.9 %
_POINTS = 65  # and how many of them are candidates for edges


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, str]) -> dict[str, tf.Tensor]:
    """Transform's entry point.

    Args:
      inputs: tensors by column, each [batch, 1] or sparse.
      custom_config: `columns`, JSON of `ModelColumns`, and `network`, JSON of `Network`.

    Returns:
      `numeric`: float32 [batch, n], each in [0, bins], or -1 where the value is missing. The whole
      part is the quantile bin, the fraction the position within it.
      `categorical`: int64 [batch, m], present if there are categorical columns. Index 0 is
      "missing", then come the vocabulary and the buckets of unseen values.
    """
    columns = ModelColumns.from_json(custom_config["columns"])
    network = Network.from_json(custom_config["network"])
    values = [_dense(inputs[c], float("nan")) for c in columns.numeric]
    label = _dense(inputs[columns.label], 0)
    outputs = {NUMERIC: positions(tf.cast(tf.concat(values, 1), tf.float32), label, network.bins)}
    if columns.categorical:
        outputs[CATEGORICAL] = tf.concat(
            [_index(c, _dense(inputs[c], b""), network) for c in columns.categorical], 1
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


def positions(x: tf.Tensor, label: tf.Tensor, bins: int) -> tf.Tensor:
    """Where each value lies among the quantiles of its column in the train window.

    Half of the edges between bins come from the quantiles of frauds, half from those of genuine
    transactions: frauds are so few that the quantiles of all would hardly notice them.

    Args:
      x: float32 [batch, n], NaN where missing.
      label: [batch, 1], 1 for fraud; only read while edges are learned.
      bins: how many bins.

    Returns:
      float32 [batch, n]: k + f for the value that lies at fraction f of bin k; -1 where missing.
    """
    is_fraud = tf.cast(label, tf.float32)
    edges = _edges([_quantiles(x, is_fraud), _quantiles(x, 1 - is_fraud)], bins)
    low, width = edges[:, :-1], edges[:, 1:] - edges[:, :-1]
    # A bin without width is a step.
    share = (x[:, :, tf.newaxis] - low) / tf.maximum(width, 1e-9)
    position = tf.reduce_sum(tf.clip_by_value(share, 0.0, 1.0), axis=2)
    return tf.where(tf.math.is_nan(x), MISSING, position)


def _quantiles(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Quantiles of each column from 0.1 % to 99.9 %, [n, _POINTS]; missing values do not count."""
    # One row of next to no weight, for columns without a value in any fraud, or in any example: of
    # nothing there are no quantiles.
    found = tft.quantiles(
        tf.pad(x, [[0, 1], [0, 0]]),
        _GRID + 1,
        epsilon=0.1 / _GRID,
        weights=tf.pad(weight, [[0, 1], [0, 0]], constant_values=1e-6),
        reduce_instance_dims=False,
    )
    points = np.linspace(0, _GRID - 1, _POINTS).round().astype(int)
    return tf.gather(found, points, axis=1)


def _edges(quantiles: list[tf.Tensor], bins: int) -> tf.Tensor:
    """Of all distinct quantiles, evenly chosen ones: [n, bins + 1], ascending.

    A column with fewer distinct values has edges that coincide.
    """
    values = tf.sort(tf.concat(quantiles, axis=1), axis=1)
    is_new = tf.cast(values[:, 1:] > values[:, :-1], tf.float32)
    rank = tf.pad(tf.cumsum(is_new, axis=1), [[0, 0], [1, 0]])
    wanted = rank[:, -1:] * tf.linspace(0.0, 1.0, bins + 1)[tf.newaxis, :]
    return tf.gather(values, tf.searchsorted(rank, tf.round(wanted)), axis=1, batch_dims=1)


def _index(column: str, x: tf.Tensor, network: Network) -> tf.Tensor:
    """Index of each text: int64 [batch, 1]; 0 where it is missing."""
    present = tf.strings.length(x) > 0
    vocabulary = tft.vocabulary(
        tf.boolean_mask(x, present),
        top_k=network.vocabulary,
        vocab_filename=vocabulary_name(column),
    )
    index = tft.apply_vocabulary(
        x, vocabulary, num_oov_buckets=network.out_of_vocabulary, default_value=None
    )
    return tf.where(present, index + 1, 0)

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
    outputs = {NUMERIC: positions(tf.cast(tf.concat(values, 1), tf.float32), network.bins)}
    if columns.categorical:
        outputs[CATEGORICAL] = tf.concat(
            [_index(c, _dense(inputs[c], b""), network) for c in columns.categorical], 1
        )
    return outputs


def vocabulary_name(column: str) -> str:
    """The name under which Transform keeps a column's vocabulary."""
    return f"vocabulary_{column}"


def _dense(tensor: Any, default: Any) -> tf.Tensor:
    """[batch, 1], with `default` where there is no value."""
    if isinstance(tensor, tf.SparseTensor):
        tensor = tft.sparse_tensor_to_dense_with_shape(tensor, [None, 1], default)
    return tf.reshape(tensor, [-1, 1])


def positions(x: tf.Tensor, bins: int) -> tf.Tensor:
    """Where each value lies among the quantiles of its column in the train window.

    Args:
      x: float32 [batch, n], NaN where missing.
      bins: quantile bins between the 0.1 % and the 99.9 % quantile.

    Returns:
      float32 [batch, n]: k + f for the value that lies at fraction f of bin k; -1 where missing.
    """
    quantiles = tft.quantiles(x, _GRID + 1, epsilon=0.1 / _GRID, reduce_instance_dims=False)
    edges = tf.gather(quantiles, np.linspace(0, _GRID - 1, bins + 1).round().astype(int), axis=1)
    low, width = edges[:, :-1], edges[:, 1:] - edges[:, :-1]
    # A bin without width (a value that is more common than a bin is large) is a step.
    share = (x[:, :, tf.newaxis] - low) / tf.maximum(width, 1e-9)
    position = tf.reduce_sum(tf.clip_by_value(share, 0.0, 1.0), axis=2)
    return tf.where(tf.math.is_nan(x), MISSING, position)


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

"""The preprocessing that Transform puts into the served graph.

Every numeric column becomes its position among the edges of its bins, every categorical column an
index into its vocabulary; missing values get a code of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from numpy.typing import NDArray
from tensorflow.lookup import TextFileIndex

from fraud.codec import from_json
from fraud.models.columns import ModelColumns
from fraud.models.preprocessing.analysis import read_edges, vocabulary_path
from fraud.models.spec import Network

NUMERIC = "numeric"
CATEGORICAL = "categorical"
MISSING = -1.0


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, str]) -> dict[str, tf.Tensor]:
    """Computes the network's inputs from raw columns. Called by Transform.

    Args:
      inputs: tensors by column, [batch, 1]: float32 with NaN for missing values, or strings with ""
        for missing values.
      custom_config: `columns` (JSON of `ModelColumns`), `network` (JSON of `Network`) and
        `analysis` (the folder of an `analysis.Analysis`).

    Returns:
      `numeric`: float32 [batch, n], only if there are numeric columns. Each is in [0, bins], or -1
      if the value is missing. The integer part is the bin, the fraction the position
      within it.
      `categorical`: int64 [batch, m], only if there are categorical columns. Index 0 means missing;
      the vocabulary and the buckets of unseen values follow.
    """
    columns = from_json(ModelColumns, custom_config["columns"])
    network = from_json(Network, custom_config["network"])
    folder = Path(custom_config["analysis"])
    outputs = {}
    if columns.numeric:
        x = tf.concat([inputs[column] for column in columns.numeric], axis=1)
        outputs[NUMERIC] = positions(x, read_edges(folder))
    if columns.categorical:
        outputs[CATEGORICAL] = tf.concat(
            [
                _index(inputs[c], c, vocabulary_path(folder, c), network)
                for c in columns.categorical
            ],
            axis=1,
        )
    return outputs


def vocabulary_sizes(
    transform: tft.TFTransformOutput, columns: ModelColumns, network: Network
) -> dict[str, int]:
    """The number of indices of each categorical column: missing, vocabulary and unseen."""
    return {
        column: 1
        + int(transform.vocabulary_size_by_name(vocabulary_name(column)))
        + network.oov_buckets
        for column in columns.categorical
    }


def vocabulary_name(column: str) -> str:
    """The name of a column's vocabulary in Transform's output, which allows no slashes in it."""
    return f"vocabulary_{column.encode().hex()}"


def positions(x: tf.Tensor, edges: NDArray) -> tf.Tensor:
    """Computes the position of each value among the edges of its column's bins.

    Args:
      x: float32 [batch, n], NaN for missing values.
      edges: float32 [n, bins + 1], see `fraud.models.preprocessing.analysis`.

    Returns:
      float32 [batch, n]: k + f for a value at fraction f of bin k; -1 for missing values.
    """
    of_columns = tf.transpose(x)
    # The bin (low, high] of each value, so a bin between coinciding edges is never chosen.
    bins = edges.shape[1] - 1
    above = tf.clip_by_value(tf.searchsorted(edges, of_columns), 1, bins)
    low = tf.gather(edges, above - 1, axis=1, batch_dims=1)
    high = tf.gather(edges, above, axis=1, batch_dims=1)
    # Halves, because the width of a bin may be more than the largest float32.
    share = tf.math.divide_no_nan(of_columns / 2 - low / 2, high / 2 - low / 2)
    share = tf.clip_by_value(share, 0.0, 1.0)
    share = tf.where(of_columns > high, 1.0, share)  # beyond the last edge
    position = tf.transpose(tf.cast(above - 1, tf.float32) + share)
    return tf.where(tf.math.is_nan(x), MISSING, position)


def _index(x: tf.Tensor, column: str, vocabulary: Path, network: Network) -> tf.Tensor:
    """The index of each string: int64 [batch, 1]; 0 if it is missing."""
    words = tf.lookup.TextFileInitializer(
        str(vocabulary), tf.string, TextFileIndex.WHOLE_LINE, tf.int64, TextFileIndex.LINE_NUMBER
    )
    table = tft.make_and_track_object(
        lambda: tf.lookup.StaticVocabularyTable(words, network.oov_buckets)
    )
    tft.annotate_asset(vocabulary_name(column), vocabulary.name)
    return tf.where(tf.strings.length(x) > 0, table.lookup(x) + 1, 0)

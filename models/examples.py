"""Examples: from files to tensors, and in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from fraud.models.columns import ModelColumns
from fraud.models.preprocessing.transform_graph import TransformGraph

READ_BATCH = 4096


@dataclass(frozen=True)
class Examples:
    """Examples in memory.

    Attributes:
      inputs: the network's inputs: `numeric` float32 and `categorical` int64, [n, columns].
      labels: 0 or 1, [n].
      timestamps: epoch seconds, [n]; all 0 if the data has no time.
      cards: the card of each example, int64 or bytes [n]; the row number if the data has no
        entities.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray
    timestamps: np.ndarray
    cards: np.ndarray

    def at(self, rows: np.ndarray) -> Examples:
        """The examples at the given rows: indices, or a boolean mask [n]."""
        return Examples(
            {name: array[rows] for name, array in self.inputs.items()},
            self.labels[rows],
            self.timestamps[rows],
            self.cards[rows],
        )


def parsed(
    files: Sequence[str], transform: tft.TFTransformOutput, columns: ModelColumns
) -> tf.data.Dataset:
    """Reads examples and applies Transform's graph, in parallel, a batch at a time.

    Args:
      files: gzipped TFRecord files of serialized tf.train.Example.
      transform: Transform's output.
      columns: the model's columns.

    Returns:
      A dataset of (transformed features, side columns "label", "timestamp" and "card"). Side
      columns are [batch] each, and zeros if the data has no such column.
    """
    spec = model_feature_spec(transform, columns)
    raw = transform.raw_feature_spec()
    side = {name: raw[name] for name in (columns.label, columns.timestamp, columns.card) if name}
    graph = TransformGraph(transform)

    # There is no Python control flow to convert, and AutoGraph takes seconds to find that out.
    @tf.autograph.experimental.do_not_convert
    def parse(records: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        example = tf.io.parse_example(records, {**spec, **side})
        label, timestamp, card = (
            _flat(example.pop(name)) if name else tf.zeros_like(records, tf.int64)
            for name in (columns.label, columns.timestamp, columns.card)
        )
        return graph(example), {"label": label, "timestamp": timestamp, "card": card}

    # Files are read one by one: parallel reads hand over single records, at three times the cost.
    records = tf.data.TFRecordDataset(list(files), "GZIP")
    return records.batch(READ_BATCH).map(parse, tf.data.AUTOTUNE).prefetch(2)


def load_split(
    patterns: Sequence[str], transform: tft.TFTransformOutput, columns: ModelColumns
) -> Examples:
    """Reads the split that the file patterns name; see `load`."""
    files = [file for pattern in patterns for file in tf.io.gfile.glob(pattern)]
    return load(parsed(files, transform, columns))


def load(dataset: tf.data.Dataset) -> Examples:
    """Reads a `parsed` dataset into memory, in an order that does not depend on the files'."""
    batches = list(dataset.as_numpy_iterator())
    inputs, side = _joined(x for x, _ in batches), _joined(y for _, y in batches)
    numbers = [np.nan_to_num(column) for column in inputs["numeric"].T[:3]]
    order = np.lexsort([*numbers, side["card"], side["timestamp"]])
    loaded = Examples(inputs, side["label"], side["timestamp"], side["card"]).at(order)
    if np.unique(loaded.cards).size > 1:
        return loaded
    return replace(loaded, cards=np.arange(order.size))


def model_feature_spec(transform: tft.TFTransformOutput, columns: ModelColumns) -> dict[str, Any]:
    """The parsing specification of the model's inputs in a serialized example."""
    raw = transform.raw_feature_spec()
    return {c: raw[c] for c in (*columns.numeric, *columns.categorical)}


def _flat(tensor: Any) -> tf.Tensor:
    return tf.reshape(
        tf.sparse.to_dense(tensor) if isinstance(tensor, tf.SparseTensor) else tensor, [-1]
    )


def _joined(parts: Iterator[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    collected: dict[str, list[np.ndarray]] = {}
    for part in parts:
        for name, array in part.items():
            collected.setdefault(name, []).append(array)
    return {name: np.concatenate(arrays) for name, arrays in collected.items()}

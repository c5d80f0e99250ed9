"""Examples on disk → tensors, a batch at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from fraud.models.columns import ModelColumns
from fraud.models.network.training import Examples
from fraud.models.preprocessing.transform_graph import TransformGraph

READ_BATCH = 4096


def parsed(
    files: Sequence[str], transform: tft.TFTransformOutput, columns: ModelColumns
) -> tf.data.Dataset:
    """Reads examples and applies Transform's graph, in parallel, a batch at a time.

    Args:
      files: gzipped TFRecord files of serialized tf.train.Example.
      transform: Transform's output.
      columns: what the model reads.

    Returns:
      A dataset of (transformed features, side columns "label", "timestamp" and
      "card", [batch] each; zeros where the data has none).
    """
    spec = model_feature_spec(transform, columns)
    raw = transform.raw_feature_spec()
    side = {name: raw[name] for name in (columns.label, columns.timestamp, columns.card) if name}
    graph = TransformGraph(transform)

    # There is no Python control flow to convert, and looking for it takes seconds.
    @tf.autograph.experimental.do_not_convert
    def parse(records: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        example = tf.io.parse_example(records, {**spec, **side})
        label, timestamp, card = (
            _flat(example.pop(name)) if name else tf.zeros_like(records, tf.int64)
            for name in (columns.label, columns.timestamp, columns.card)
        )
        return graph(example), {"label": label, "timestamp": timestamp, "card": card}

    # One file after the other: parallel reads pass on record by record, at three times the cost.
    records = tf.data.TFRecordDataset(list(files), "GZIP")
    return records.batch(READ_BATCH).map(parse, tf.data.AUTOTUNE).prefetch(2)


def load_split(
    patterns: Sequence[str], transform: tft.TFTransformOutput, columns: ModelColumns
) -> Examples:
    """Reads a split, named by file patterns, as `load` gives it."""
    files = [file for pattern in patterns for file in tf.io.gfile.glob(pattern)]
    return load(parsed(files, transform, columns))


def load(dataset: tf.data.Dataset) -> Examples:
    """Everything of a `parsed` dataset in memory, in an order that reading has no part in."""
    batches = list(dataset.as_numpy_iterator())
    inputs, side = _joined(x for x, _ in batches), _joined(y for _, y in batches)
    numbers = [np.nan_to_num(column) for column in inputs["numeric"].T[:3]]
    order = np.lexsort([*numbers, side["card"], side["timestamp"]])
    loaded = Examples(inputs, side["label"], side["timestamp"], side["card"]).at(order)
    if np.unique(loaded.cards).size > 1:
        return loaded
    return dataclasses.replace(loaded, cards=np.arange(order.size))


def model_feature_spec(transform: tft.TFTransformOutput, columns: ModelColumns) -> dict[str, Any]:
    """How the model's inputs are parsed from a serialized example."""
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

"""Examples: from files to tensors, and in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from fraud.models.columns import ModelColumns
from fraud.models.preprocessing.transform_fn import CATEGORICAL, NUMERIC
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

    @property
    def categories(self) -> int:
        """The number of categorical columns that the network reads."""
        categorical = self.inputs.get(CATEGORICAL)
        return 0 if categorical is None else categorical.shape[1]

    def at(self, rows: np.ndarray) -> Examples:
        """The examples at the given rows: indices, or a boolean mask [n]."""
        return Examples(
            {name: array[rows] for name, array in self.inputs.items()},
            self.labels[rows],
            self.timestamps[rows],
            self.cards[rows],
        )


def load_split(
    patterns: Sequence[str], transform: tft.TFTransformOutput, columns: ModelColumns
) -> Examples:
    """Reads a split and applies Transform's graph, in parallel, a batch at a time.

    The patterns name gzipped TFRecord files of serialized tf.train.Example. The order of the result
    does not depend on that of the files.
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
        return graph(example), {"labels": label, "timestamps": timestamp, "cards": card}

    # Files are read one by one: parallel reads hand over single records, at three times the cost.
    files = [file for pattern in patterns for file in tf.io.gfile.glob(pattern)]
    records = tf.data.TFRecordDataset(files, "GZIP").batch(READ_BATCH)
    batches = list(records.map(parse, tf.data.AUTOTUNE).prefetch(2).as_numpy_iterator())
    inputs, others = (_joined(parts) for parts in zip(*batches, strict=True))
    # Transactions of one card at one time, or all without either, by what else they have.
    values = (
        [np.nan_to_num(column) for column in inputs[NUMERIC].T[:3]]
        if columns.numeric
        else [others["labels"], *inputs[CATEGORICAL].T]
    )
    order = np.lexsort([*values, others["cards"], others["timestamps"]])
    loaded = Examples(inputs, **others).at(order)
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


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

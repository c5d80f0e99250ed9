"""Examples: from files to tensors, in memory or streamed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from fraud.models import example_columns
from fraud.models.columns import ModelColumns
from fraud.models.preprocessing.transform_fn import CATEGORICAL, NUMERIC
from fraud.models.preprocessing.transform_graph import TransformGraph
from fraud.models.streamed import Streamed

READ_BATCH = 4096


@dataclass(frozen=True)
class Examples:
    """Examples in memory, except that inputs may be in a file.

    Attributes:
      inputs: the network's inputs: `numeric` float32 and `categorical` int64, [n, columns].
      labels: 0 or 1, [n].
      timestamps: epoch seconds, [n]; all 0 if the data has no time.
      cards: the card of each example, int64 or bytes [n]; the row number if the data has no
        entities.
    """

    inputs: Mapping[str, np.ndarray | Streamed]
    labels: np.ndarray
    timestamps: np.ndarray
    cards: np.ndarray

    @property
    def categories(self) -> int:
        """The number of categorical columns that the network reads."""
        categorical = self.inputs.get(CATEGORICAL)
        return 0 if categorical is None else categorical.shape[1]

    def at(self, rows: np.ndarray) -> Examples:
        """The examples at the given rows, in memory: indices, or a boolean mask [n]."""
        return Examples(
            {name: array[rows] for name, array in self.inputs.items()},
            self.labels[rows],
            self.timestamps[rows],
            self.cards[rows],
        )


def load_split(
    patterns: Sequence[str],
    transform: tft.TFTransformOutput,
    columns: ModelColumns,
    rows_in_memory: int,
) -> Examples:
    """Reads a split and applies Transform's graph, in parallel, a batch at a time.

    Args:
      patterns: of gzipped TFRecord files of serialized tf.train.Example.
      transform: Transform's output.
      columns: the columns that the model reads.
      rows_in_memory: up to so many rows, the inputs are in memory, in an order that does not depend
        on that of the files; those of more rows are in a temporary file, in the order of the files.
    """
    parts: deque[dict[str, np.ndarray]] = deque()
    others: list[dict[str, np.ndarray]] = []
    rows = 0
    batches = _batches(patterns, transform, columns)
    for inputs, other in batches:
        parts.append(inputs)
        others.append(other)
        rows += other["labels"].size
        if rows > rows_in_memory:
            break
    streamed = {name: Streamed() for name in parts[0]} if rows > rows_in_memory else {}
    while streamed:
        for name, stream in streamed.items():
            stream.append(parts[0][name])
        parts.popleft()
        if not parts:
            if (batch := next(batches, None)) is None:
                break
            parts.append(batch[0])
            others.append(batch[1])
    joined = _joined(others)
    del others
    if streamed:
        loaded = Examples(streamed, **joined)
    else:
        order = _order(parts, joined, columns)
        in_order = {name: values[order] for name, values in joined.items()}
        loaded = Examples(_placed(parts, order), **in_order)
    if np.unique(loaded.cards).size > 1:
        return loaded
    return replace(loaded, cards=np.arange(loaded.labels.size))


def _batches(
    patterns: Sequence[str], transform: tft.TFTransformOutput, columns: ModelColumns
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """The inputs, and labels, timestamps and cards, of one batch after the other."""
    spec = model_feature_spec(transform, columns)
    raw = transform.raw_feature_spec()
    side = {name: raw[name] for name in (columns.label, columns.timestamp, columns.card) if name}
    graph = TransformGraph(transform)

    files = sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
    if (parsed := example_columns.parsed(files, {**spec, **side}, READ_BATCH)) is not None:
        apply = tf.function(graph, autograph=False, reduce_retracing=True)
        for example in parsed:
            rows = len(next(iter(example.values())))
            label, timestamp, card = (
                example.pop(name).reshape(-1) if name else np.zeros(rows, np.int64)
                for name in (columns.label, columns.timestamp, columns.card)
            )
            inputs = {name: array.numpy() for name, array in apply(example).items()}
            yield inputs, {"labels": label, "timestamps": timestamp, "cards": card}
        return

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
    records = tf.data.TFRecordDataset(files, "GZIP").batch(READ_BATCH)
    yield from records.map(parse, tf.data.AUTOTUNE).prefetch(2).as_numpy_iterator()


def _order(
    parts: Sequence[dict[str, np.ndarray]], others: dict[str, np.ndarray], columns: ModelColumns
) -> np.ndarray:
    """The rows by time and card.

    Transactions of one card at one time, or all without either, are ordered by what else they have.
    """
    if columns.numeric:
        first = np.concatenate([part[NUMERIC][:, :3] for part in parts])
        values = [np.nan_to_num(column) for column in first.T]
    else:
        values = [others["labels"], *np.concatenate([part[CATEGORICAL] for part in parts]).T]
    return np.lexsort([*values, others["cards"], others["timestamps"]])


def _placed(parts: deque[dict[str, np.ndarray]], order: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs in a given order. Takes the parts away, so that they are not in memory twice."""
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    placed = {
        name: np.empty((order.size, part.shape[1]), part.dtype) for name, part in parts[0].items()
    }
    begin = 0
    while parts:
        part = parts.popleft()
        for name, values in part.items():
            placed[name][place[begin : begin + len(values)]] = values
        begin += len(values)
    return placed


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

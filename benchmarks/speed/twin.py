"""What a user of stock TFX would write: preprocessing_fn and run_fn, around our network."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx_bsl.public.tfxio import TensorFlowDatasetOptions

from fraud.codec import from_json
from fraud.models.columns import ModelColumns
from fraud.models.entry_point import train
from fraud.models.examples import Examples
from fraud.models.preprocessing.transform_fn import CATEGORICAL, NUMERIC, positions, vocabulary_name
from fraud.models.spec import Network

_READ_BATCH = 4096
_GRID = 999  # as in fraud.models.preprocessing.analysis
_POINTS = 65


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, str]) -> dict[str, tf.Tensor]:
    """Our preprocessing, learned by TFT's analyzers, plus the side columns of training.

    Transform writes both to files.
    """
    columns = from_json(ModelColumns, custom_config["columns"])
    network = from_json(Network, custom_config["network"])
    label = tf.cast(_dense(inputs[columns.label], 0), tf.float32)
    x = tf.concat([_dense(inputs[name], float("nan")) for name in columns.numeric], 1)
    edges = _edges([_quantiles(x, label), _quantiles(x, 1 - label)], network.bins)
    outputs = {NUMERIC: positions(x, edges)}
    indices = []
    for name in columns.categorical:
        words = _dense(inputs[name], b"")
        index = tft.compute_and_apply_vocabulary(
            words,
            top_k=network.vocabulary_size,
            num_oov_buckets=network.oov_buckets,
            vocab_filename=vocabulary_name(name),
        )
        indices.append(tf.where(tf.strings.length(words) > 0, index + 1, 0))
    if indices:
        outputs[CATEGORICAL] = tf.concat(indices, 1)
    for side in (columns.label, columns.timestamp, columns.card):
        assert side is not None
        outputs[f"side_{side}"] = tf.reshape(inputs[side], [-1, 1])
    return outputs


def _dense(tensor: Any, default: Any) -> tf.Tensor:
    """[batch, 1], with `default` where there is no value."""
    if isinstance(tensor, tf.SparseTensor):
        tensor = tft.sparse_tensor_to_dense_with_shape(tensor, [None, 1], default)
    return tf.reshape(tensor, [-1, 1])


def _quantiles(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Quantiles of each column from 0.1 % to 99.9 %, [n, _POINTS]; missing values do not count."""
    # An empty column has no quantiles. A row of negligible weight covers columns without any value
    # in frauds, or in all examples.
    quantiles = tft.quantiles(
        tf.pad(x, [[0, 1], [0, 0]]),
        _GRID + 1,
        epsilon=1 / _GRID,
        weights=tf.pad(weight, [[0, 1], [0, 0]], constant_values=1e-6),
        reduce_instance_dims=False,
    )
    points = np.linspace(0, _GRID - 1, _POINTS).round().astype(int)
    return tf.gather(quantiles, points, axis=1)


def _edges(quantiles: list[tf.Tensor], bins: int) -> tf.Tensor:
    """Evenly spaced picks from the distinct quantiles: [n, bins + 1], ascending.

    A column with fewer distinct values has edges that coincide.
    """
    values = tf.sort(tf.concat(quantiles, axis=1), axis=1)
    is_new = tf.cast(values[:, 1:] > values[:, :-1], tf.float32)
    rank = tf.pad(tf.cumsum(is_new, axis=1), [[0, 0], [1, 0]])
    wanted = rank[:, -1:] * tf.linspace(0.0, 1.0, bins + 1)[tf.newaxis, :]
    return tf.gather(values, tf.searchsorted(rank, tf.round(wanted)), axis=1, batch_dims=1)


def run_fn(fn_args: Any) -> None:
    """Reads the transformed examples once, then trains and exports as our Trainer does."""
    columns = from_json(ModelColumns, fn_args.custom_config["columns"])
    transform = tft.TFTransformOutput(fn_args.transform_output)
    batches = fn_args.data_accessor.tf_dataset_factory(
        fn_args.train_files,
        TensorFlowDatasetOptions(batch_size=_READ_BATCH, shuffle=False, num_epochs=1),
        transform.transformed_metadata.schema,
    )
    parts = list(batches.as_numpy_iterator())
    columns_read = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    label, timestamp, card = (
        columns_read.pop(f"side_{name}").reshape(-1)
        for name in (columns.label, columns.timestamp, columns.card)
    )
    train(fn_args, Examples(columns_read, label, timestamp, card), transform)

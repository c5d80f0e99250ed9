"""Requests with which a server warms a model up before it answers.

TensorFlow Serving and `fraud-pipeline serve` send the requests in the file
`assets.extra/tf_serving_warmup_requests` of a SavedModel when they load it, because TensorFlow
prepares a signature for its inputs only when it is called.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from fraud.models.specification import EXTRA, INPUTS_FILE
from fraud.names import input_name

WARMUP_FILE = "tf_serving_warmup_requests"
EXAMPLES = 32


def first_examples(patterns: Sequence[str], count: int = EXAMPLES) -> list[bytes]:
    """The first serialized examples of a split.

    Args:
      patterns: of names of gzipped TFRecord files.
      count: how many, if there are that many.
    """
    files = sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
    records = tf.data.TFRecordDataset(files, "GZIP").take(count)
    return [record.numpy() for record in records]


def write_warmup_requests(
    directory: Path, examples: Sequence[bytes], types: dict[str, tf.DType]
) -> None:
    """Writes requests for all signatures: with one example, and except for `explain`, with all.

    Args:
      directory: the SavedModel.
      examples: serialized tf.train.Examples, at least one.
      types: of the model's inputs, by column.
    """
    one = np.array(examples[:1], object)
    with tf.io.TFRecordWriter(str(directory / EXTRA / WARMUP_FILE)) as file:
        file.write(_log("explain", {"examples": one}))
        for batch in (one, np.array(examples, object)):
            by_column = _columns([tf.train.Example.FromString(e) for e in batch], types)
            file.write(_log("serving_default", {"examples": batch}))
            file.write(_log("predict", by_column))


def example_row(directory: Path) -> dict[str, float | str]:
    """The first example in the requests of a SavedModel, by column; NaN or "" where it is missing.

    Args:
      directory: the SavedModel.
    """
    names = json.loads((directory / EXTRA / INPUTS_FILE).read_text(encoding="utf-8"))
    for record in tf.data.TFRecordDataset(str(directory / EXTRA / WARMUP_FILE)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        if request.model_spec.signature_name == "predict":
            values = {c: tf.make_ndarray(request.inputs[name])[0] for c, name in names.items()}
            return {c: v.decode() if isinstance(v, bytes) else float(v) for c, v in values.items()}
    raise ValueError(f"{directory}: no request of the signature predict")


def _columns(
    examples: Sequence[tf.train.Example], types: dict[str, tf.DType]
) -> dict[str, np.ndarray]:
    """The inputs of the signature `predict`, [n] each."""
    inputs = {}
    for column, type_ in types.items():
        missing: Any = b"" if type_ == tf.string else np.nan
        values = [_value(example, column, missing) for example in examples]
        inputs[input_name(column)] = np.array(values, type_.as_numpy_dtype)
    return inputs


def _value(example: tf.train.Example, column: str, missing: Any) -> Any:
    feature = example.features.feature.get(column)
    kind = feature.WhichOneof("kind") if feature is not None else None
    values = getattr(feature, kind).value if kind else ()
    return values[0] if values else missing


def _log(signature: str, inputs: dict[str, np.ndarray]) -> bytes:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "fraud"
    request.model_spec.signature_name = signature
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    return log.SerializeToString(deterministic=True)  # maps have no order of their own

"""The SavedModel: preprocessing, network and alert threshold in one graph."""

from __future__ import annotations

import re
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from fraud.models.columns import ModelColumns
from fraud.models.examples import model_feature_spec
from fraud.models.network.explain import Explainer
from fraud.models.network.training import Fitted
from fraud.models.preprocessing.transform_graph import TransformGraph


class ServedModel(tf.Module):
    """What is exported.

    Signatures, all giving `score` (fraud probability) and `alert` (1.0 where the score reaches the
    threshold of the alert budget), float32 [batch] each:

    * `serving_default`: `examples`, serialized tf.train.Example, [batch].
    * `predict`: one tensor [batch] for each column, by its `input_name`; NaN and "" mean missing.
    * `explain`: `examples` again; also `reason` and `contribution`, see `fraud.models.network.explain`.

    Args:
      fitted: the trained network and its threshold.
      explainer: of the same network.
      transform: Transform's output.
      columns: what the model reads.
    """

    def __init__(
        self,
        fitted: Fitted,
        explainer: Explainer,
        transform: tft.TFTransformOutput,
        columns: ModelColumns,
    ) -> None:
        super().__init__()
        self._network = fitted.model
        self._explainer = explainer
        self._transform = TransformGraph(transform)
        self._spec = model_feature_spec(transform, columns)
        self._threshold = tf.constant(fitted.threshold, tf.float32)

    def save(self, directory: str) -> None:
        """Writes the SavedModel with its signatures."""
        by_name = {
            input_name(column): tf.TensorSpec([None], spec.dtype, name=input_name(column))
            for column, spec in self._spec.items()
        }
        examples = [tf.TensorSpec([None], tf.string, name="examples")]
        signatures = {
            "serving_default": tf.function(self._from_examples, input_signature=examples),
            "explain": tf.function(self._explained, input_signature=examples),
            "predict": tf.function(self._from_columns).get_concrete_function(**by_name),
        }
        tf.saved_model.save(self, directory, signatures=signatures)

    def _from_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._score(self._transform(tf.io.parse_example(examples, self._spec)))

    def _explained(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = self._transform(tf.io.parse_example(examples, self._spec))
        return {**self._score(inputs), **self._explainer.reasons(inputs)}

    def _from_columns(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        raw = {c: _as_parsed(inputs[input_name(c)], spec) for c, spec in self._spec.items()}
        return self._score(self._transform(raw))

    def _score(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        score = tf.reshape(self._network(inputs, training=False), [-1])
        return {"score": score, "alert": tf.cast(score >= self._threshold, tf.float32)}


def input_name(column: str) -> str:
    """The name of a column as an input of `predict`: TensorFlow allows letters, digits and _ only.

    "age of account" becomes "age_of_account".
    """
    name = re.sub(r"[^A-Za-z0-9_]", "_", column)
    return name if name[0].isalpha() else f"column_{name}"


def _as_parsed(tensor: tf.Tensor, spec: Any) -> Any:
    """A dense [batch] tensor as tf.io.parse_example would have given it."""
    if isinstance(spec, tf.io.FixedLenFeature):
        return tf.reshape(tensor, [-1, *spec.shape])
    present = tensor != "" if tensor.dtype == tf.string else tensor == tensor  # NaN ≠ NaN
    index = tf.where(present)
    index = tf.concat([index, tf.zeros_like(index)], axis=1)
    shape = tf.stack([tf.shape(tensor, tf.int64)[0], 1])
    return tf.SparseTensor(index, tf.boolean_mask(tensor, present), shape)

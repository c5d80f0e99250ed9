"""The SavedModel: preprocessing, network and alert threshold in one graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from fraud.codec import to_json
from fraud.models.columns import ModelColumns
from fraud.models.examples import model_feature_spec
from fraud.models.network.explain import Explainer
from fraud.models.network.training import Fitted
from fraud.models.preprocessing.transform_graph import TransformGraph
from fraud.models.specification import EXTRA, INPUTS_FILE
from fraud.names import input_name


class ServedModel(tf.Module):
    """The module that is exported.

    All signatures return `score` (fraud probability) and `alert` (1.0 if the score reaches the
    threshold of the alert budget, else 0.0), float32 [batch] each. Their inputs:

    * `serving_default`: `examples`, serialized tf.train.Example, [batch].
    * `predict`: one tensor [batch] for each column, by its `input_name`; NaN and "" mean missing.
    * `explain`: `examples`; also returns `reason` and `contribution`, see `Explainer.reasons`.
    """

    def __init__(
        self,
        fitted: Fitted,
        explainer: Explainer,
        transform: tft.TFTransformOutput,
        columns: ModelColumns,
    ) -> None:
        super().__init__()
        # Not the Keras objects: for a Keras variable, tf.saved_model.save writes two; one is
        # restored and the other read. Python's loader mends that; TensorFlow Serving fails.
        network = fitted.model
        self._variables = [variable.value for variable in network.variables]
        self._network = lambda inputs: network(inputs, training=False)
        self._reasons = explainer.reasons
        self._transform = TransformGraph(transform)
        self._spec = model_feature_spec(transform, columns)
        self._threshold = tf.constant(fitted.threshold, tf.float32)

    def save(self, directory: str) -> None:
        """Writes the SavedModel with its signatures, and `INPUTS_FILE`: input names by column."""
        names = {column: input_name(column) for column in self._spec}
        by_name = {
            name: tf.TensorSpec([None], self._spec[column].dtype, name=name)
            for column, name in names.items()
        }
        examples = [tf.TensorSpec([None], tf.string, name="examples")]
        signatures = {
            "serving_default": tf.function(self._from_examples, input_signature=examples),
            "explain": tf.function(self._explained, input_signature=examples),
            "predict": tf.function(self._from_columns).get_concrete_function(**by_name),
        }
        tf.saved_model.save(self, directory, signatures=signatures)
        extra = Path(directory, EXTRA)
        extra.mkdir()
        (extra / INPUTS_FILE).write_text(to_json(names, indent=1), encoding="utf-8")

    def _from_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._score(self._transform(tf.io.parse_example(examples, self._spec)))

    def _explained(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = self._transform(tf.io.parse_example(examples, self._spec))
        return {**self._score(inputs), **self._reasons(inputs)}

    def _from_columns(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        raw = {c: _as_parsed(inputs[input_name(c)], spec) for c, spec in self._spec.items()}
        return self._score(self._transform(raw))

    def _score(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        score = tf.reshape(self._network(inputs), [-1])
        return {"score": score, "alert": tf.cast(score >= self._threshold, tf.float32)}


def _as_parsed(tensor: tf.Tensor, spec: Any) -> Any:
    """Converts a dense [batch] tensor to what tf.io.parse_example returns for it."""
    if isinstance(spec, tf.io.FixedLenFeature):
        return tf.reshape(tensor, [-1, *spec.shape])
    present = tensor != "" if tensor.dtype == tf.string else tensor == tensor  # NaN ≠ NaN
    index = tf.where(present)
    index = tf.concat([index, tf.zeros_like(index)], axis=1)
    shape = tf.stack([tf.shape(tensor, tf.int64)[0], 1])
    return tf.SparseTensor(index, tf.boolean_mask(tensor, present), shape)

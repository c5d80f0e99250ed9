"""What the other servers share: the model, called with columns that came as JSON lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def load(model: str) -> Callable[[Mapping[str, list[Any]]], dict[str, list[float]]]:
    """The signature `predict` of a SavedModel as a function of lists; None is missing."""
    import tensorflow as tf

    loaded = tf.saved_model.load(model)
    predict = loaded.signatures["predict"]
    types = {name: spec.dtype for name, spec in predict.structured_input_signature[1].items()}

    def call(columns: Mapping[str, list[Any]]) -> dict[str, list[float]]:
        inputs = {}
        for name, type_ in types.items():
            missing = "" if type_ == tf.string else float("nan")
            values = [missing if value is None else value for value in columns[name]]
            inputs[name] = tf.constant(values, type_)
        outputs = predict(**inputs)
        return {name: tensor.numpy().tolist() for name, tensor in outputs.items()}

    call.model = loaded  # type: ignore[attr-defined]  # or it would be freed
    return call

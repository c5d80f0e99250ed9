"""Loads one of our models for `mlflow.pyfunc.load_model`.

MLflow keeps a copy of this file with each model, so it needs TensorFlow and nothing else of ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf


class FraudModel:
    """A SavedModel that scores rows of its columns."""

    def __init__(self, path: str) -> None:
        self._model = tf.saved_model.load(path)  # whose variables the signature needs
        self._predict = self._model.signatures["predict"]
        self._types = {
            name: spec.dtype for name, spec in self._predict.structured_input_signature[1].items()
        }
        names = Path(path, "assets.extra", "inputs.json").read_text(encoding="utf-8")
        self._inputs: dict[str, str] = json.loads(names)

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Scores rows.

        Args:
          data: the columns that the model reads, [n] each; one that is left out is missing.
          params: none are known.

        Returns:
          `score`, the probability of fraud, and `alert`, 1 if it reaches the threshold: [n] each.
        """
        tensors = {
            name: tf.constant(self._values(data, column, self._types[name]))
            for column, name in self._inputs.items()
        }
        outputs = self._predict(**tensors)
        columns = {name: outputs[name].numpy() for name in ("score", "alert")}
        return pd.DataFrame(columns, index=data.index)

    def _values(self, data: pd.DataFrame, column: str, type_: tf.DType) -> np.ndarray:
        is_text = type_ == tf.string
        if column not in data:
            return np.full(len(data), "" if is_text else np.nan, object if is_text else np.float32)
        if not is_text:
            return pd.to_numeric(data[column]).to_numpy(np.float32)
        present = data[column].notna()
        return data[column].astype(object).where(present, "").astype(str).to_numpy(object)


def _load_pyfunc(path: str) -> FraudModel:
    """What MLflow calls with the folder of the SavedModel."""
    return FraudModel(path)

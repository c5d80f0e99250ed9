"""The model in MLflow's format: `python -m benchmarks.serving.others.mlflow_model MODEL OUT`."""

from __future__ import annotations

import sys
from typing import Any

import mlflow
from mlflow.models import set_model

from benchmarks.serving.others import tensors


class SavedModel(mlflow.pyfunc.PythonModel):
    """Calls the signature `predict`."""

    def load_context(self, context: Any) -> None:
        """Loads the artifact."""
        self._call = tensors.load(context.artifacts["model"])

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        """Answers a request whose inputs are lists."""
        return self._call({name: list(values) for name, values in model_input.items()})


if __name__ == "__main__":
    mlflow.pyfunc.save_model(
        sys.argv[2], python_model=__file__, artifacts={"model": sys.argv[1]}, pip_requirements=[]
    )
else:
    set_model(SavedModel())

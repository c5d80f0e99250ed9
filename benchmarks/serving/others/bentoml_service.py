"""The model as a service of BentoML."""

from __future__ import annotations

import os
from typing import Any

import bentoml

from benchmarks.serving.others import tensors


@bentoml.service(workers=1, traffic={"timeout": 60})
class Fraud:
    """Calls the signature `predict` of the model that FRAUD_BENCHMARK_MODEL names."""

    def __init__(self) -> None:
        self._call = tensors.load(os.environ["FRAUD_BENCHMARK_MODEL"])

    @bentoml.api
    def predict(self, columns: dict[str, list[Any]]) -> dict[str, list[float]]:
        """Answers a request whose columns are lists."""
        return self._call(columns)

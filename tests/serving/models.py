"""A model without TensorFlow, for the tests of what surrounds models."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fraud.features.spec import Dataset, Features
from fraud.models.columns import ModelColumns
from fraud.models.specification import InputSpecification


@dataclass(frozen=True)
class Said:
    score: np.ndarray
    alert: np.ndarray


@dataclass(frozen=True)
class Explained:
    scores: Said
    columns: list[list[str]]
    contributions: np.ndarray


@dataclass
class LinearModel:
    """Scores by a random weight of each column; so any column that differs shows in the score."""

    specification: InputSpecification | None
    version: str = "1"
    threshold: float = 0.5
    seed: int = 0
    fails: bool = False
    received: list = field(default_factory=list)

    @property
    def columns(self) -> ModelColumns:
        return ModelColumns.of(self.specification.dataset, self.specification.features)

    def score(self, columns):
        if self.fails:
            raise RuntimeError("out of order")
        self.received.append(columns)
        names = (*self.columns.numeric, *self.columns.categorical)
        assert set(columns) == set(names)
        random = np.random.default_rng(self.seed)
        total = np.zeros(len(columns[names[0]]))
        for name in self.columns.numeric:
            assert columns[name].dtype == np.float32
            values = columns[name].astype(float)
            missing, weight = random.normal(size=2)
            total += np.where(np.isnan(values), missing, weight * np.tanh(values / 20))
        for name in self.columns.categorical:
            total += [len(value) * 0.1 for value in columns[name]]
        score = (1 / (1 + np.exp(-total))).astype(np.float32)
        return Said(score, score >= self.threshold)

    def explain(self, columns):
        said = self.score(columns)
        names = [self.columns.numeric[0], *self.columns.categorical][:2]
        contributions = np.tile(np.float32([0.5, 0.25][: len(names)]), (len(said.score), 1))
        return Explained(said, [names] * len(said.score), contributions)

    def close(self) -> None:
        self.fails = True


def of_default_features(**dataset) -> InputSpecification:
    return InputSpecification(Dataset(**dataset), Features(), 7)

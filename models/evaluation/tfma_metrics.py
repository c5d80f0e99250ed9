"""Metrics that TFMA lacks, as TFMA metrics; `fraud.models.evaluation.metrics` computes them.

Each names the columns it needs and receives them from `fraud.models.evaluation.extractors` as
arrays with one value per example of the slice. A metric of a slice sees only that slice: its Card
Precision@k is that of analysts who check k of the slice's cards a day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.metrics import metric_types

from fraud.models.evaluation import metrics
from fraud.models.evaluation.extractors import OVERALL, SCORES
from fraud.models.evaluation.registry import ALERT, SCORE
from fraud.time import SECONDS_PER_DAY

UNJUDGED = -np.inf
"""The gap of a slice with too few examples; it passes every upper limit."""

Columns = Mapping[str, Any]


class _SliceMetric(metric_types.Metric):
    """A metric computed from the columns of a slice, once for each model.

    Attributes:
      columns: the arguments that name columns; `_compute` receives the columns themselves.
      _compute: (columns by argument, outputs of the model on the slice, the model's
        `ScoreHistogram`s of all examples by output, the other arguments by name) → value.
    """

    columns: tuple[str, ...]
    _compute: Callable[..., float]

    def __init__(self, name: str, **arguments: Any) -> None:
        super().__init__(_computations, kind=type(self), arguments=arguments, name=name)


class CardPrecisionAtK(_SliceMetric):
    """Formula and source: `fraud.models.evaluation.metrics.daily_card_precision_at_k`.

    Args:
      k: cards checked a day.
      label, timestamp, card: columns.
    """

    columns = ("label", "timestamp", "card")

    @staticmethod
    def _compute(columns: Columns, outputs: Columns, overall: Columns, k: int) -> float:
        days = columns["timestamp"] // SECONDS_PER_DAY
        return metrics.card_precision_at_k(
            columns["label"], outputs[SCORE], days, columns["card"], k
        )


class ExpectedCostSaved(_SliceMetric):
    """Formula and source: `fraud.models.evaluation.metrics.expected_cost_saved`.

    Args:
      check_cost: of checking a card, in the currency of the amounts.
      saved_share: the share of a fraud's amount that an alert saves.
      label, amount, timestamp, card: columns.
    """

    columns = ("label", "amount", "timestamp", "card")

    @staticmethod
    def _compute(
        columns: Columns, outputs: Columns, overall: Columns, check_cost: float, saved_share: float
    ) -> float:
        days = columns["timestamp"] // SECONDS_PER_DAY
        label, alerts = columns["label"], outputs[ALERT] == 1
        return metrics.expected_cost_saved(
            label, alerts, columns["amount"], days, columns["card"], check_cost, saved_share
        )


class ExpectedCalibrationError(_SliceMetric):
    """Formula and source: `fraud.models.evaluation.metrics.expected_calibration_error`."""

    columns = ("label",)

    @staticmethod
    def _compute(columns: Columns, outputs: Columns, overall: Columns) -> float:
        return metrics.expected_calibration_error(columns["label"], outputs[SCORE])


class RecallGap(_SliceMetric):
    """Recall overall − recall of the slice, at the budget: the larger share of its frauds missed.

    A gap of 0 is "equality of opportunity" (Hardt, Price, Srebro, "Equality of opportunity in
    supervised learning", NIPS 2016).

    Args:
      label: column.
      min_examples: the frauds a slice must have; with fewer, its gap is `UNJUDGED`.
    """

    columns = ("label",)

    @staticmethod
    def _compute(columns: Columns, outputs: Columns, overall: Columns, min_examples: int) -> float:
        label, rate_overall = columns["label"], overall[ALERT].share_at(1.0, label=1)
        if np.sum(label == 1) < min_examples or np.isnan(rate_overall):
            return UNJUDGED
        return rate_overall - metrics.recall_at_budget(label, outputs[ALERT] == 1)


class FalsePositiveRateGap(_SliceMetric):
    """False-positive rate of the slice − overall, at the budget: its larger burden of false alerts.

    This gap and `RecallGap` both 0 is "equalized odds" (Hardt, Price, Srebro, NIPS 2016).

    Args:
      label: column.
      min_examples: the genuine transactions a slice must have; with fewer, its gap is `UNJUDGED`.
    """

    columns = ("label",)

    @staticmethod
    def _compute(columns: Columns, outputs: Columns, overall: Columns, min_examples: int) -> float:
        label, rate_overall = columns["label"], overall[ALERT].share_at(1.0, label=0)
        if np.sum(label == 0) < min_examples or np.isnan(rate_overall):
            return UNJUDGED
        return metrics.false_positive_rate(label, outputs[ALERT] == 1) - rate_overall


def _computations(
    kind: type[_SliceMetric],
    arguments: Mapping[str, Any],
    name: str,
    model_names: Sequence[str],
    example_weighted: bool,
) -> list[metric_types.MetricComputation]:
    """One computation for each model; TFMA passes the last two arguments."""
    features = (*(arguments[column] for column in kind.columns), SCORES, OVERALL)
    preprocessor = metric_types.StandardMetricInputsPreprocessor(
        {constants.FEATURES_KEY: {feature: {} for feature in features}},
        include_default_inputs=False,
    )
    compute = partial(_value, kind, arguments)
    keys = [metric_types.MetricKey(name, m, example_weighted=example_weighted) for m in model_names]
    return [
        metric_types.MetricComputation([key], [preprocessor], _SliceCombiner(key, compute))
        for key in keys
    ]


def _value(
    kind: type[_SliceMetric], arguments: Mapping[str, Any], features: Columns, model: str
) -> float:
    """The metric of one model on one slice."""
    columns = {column: features[arguments[column]] for column in kind.columns}
    others = {key: value for key, value in arguments.items() if key not in kind.columns}
    return kind._compute(
        columns, features[SCORES][model], features[OVERALL].get(model, {}), **others
    )


class _SliceCombiner(beam.CombineFn):
    """Computes from the one extract that is a slice (see `fraud.models.evaluation.extractors`)."""

    def __init__(
        self, key: metric_types.MetricKey, compute: Callable[[Columns, str], float]
    ) -> None:
        self._key, self._compute = key, compute

    def create_accumulator(self) -> list[Columns]:
        return []

    def add_input(
        self, accumulator: list[Columns], element: metric_types.StandardMetricInputs
    ) -> list[Columns]:
        return [*accumulator, element.features]

    def merge_accumulators(self, accumulators: Iterable[list[Columns]]) -> list[Columns]:
        return [columns for accumulator in accumulators for columns in accumulator]

    def extract_output(self, accumulator: list[Columns]) -> dict[metric_types.MetricKey, float]:
        (columns,) = accumulator
        return {self._key: self._compute(columns, self._key.model_name)}

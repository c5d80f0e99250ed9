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
from numpy.typing import NDArray
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.metrics import metric_types

from fraud.models.evaluation import metrics
from fraud.models.evaluation.extractors import OVERALL, SCORES
from fraud.models.evaluation.registry import ALERT, SCORE
from fraud.time import SECONDS_PER_DAY

UNJUDGED = -np.inf
"""The gap of a slice with too few examples; it passes every upper limit."""

Columns = Mapping[str, Any]


class CardPrecisionAtK(metric_types.Metric):
    """Compromised cards among the k most suspicious ones of a day / k, averaged over the days.

    Formula and source: `fraud.models.evaluation.metrics.daily_card_precision_at_k`.

    Args:
      k: cards checked a day.
      label, timestamp, card: columns.
      name: of the metric.
    """

    def __init__(self, k: int, label: str, timestamp: str, card: str, name: str) -> None:
        compute = partial(_card_precision, k, label, timestamp, card)
        columns = (label, timestamp, card, SCORES)
        super().__init__(_computations, compute=compute, columns=columns, name=name)


class ExpectedCostSaved(metric_types.Metric):
    """saved_share × Σ amounts of frauds that alert − check_cost × cards checked.

    Formula and source: `fraud.models.evaluation.metrics.expected_cost_saved`.

    Args:
      check_cost: of checking a card, in the currency of the amounts.
      saved_share: the share of a fraud's amount that an alert saves.
      label, amount, timestamp, card: columns.
      name: of the metric.
    """

    def __init__(
        self,
        check_cost: float,
        saved_share: float,
        label: str,
        amount: str,
        timestamp: str,
        card: str,
        name: str,
    ) -> None:
        compute = partial(_cost_saved, check_cost, saved_share, label, amount, timestamp, card)
        columns = (label, amount, timestamp, card, SCORES)
        super().__init__(_computations, compute=compute, columns=columns, name=name)


class ExpectedCalibrationError(metric_types.Metric):
    """Σ over ten bins of scores of (share of examples) × |mean score − share of frauds|.

    Formula and source: `fraud.models.evaluation.metrics.expected_calibration_error`.

    Args:
      label: column.
      name: of the metric.
    """

    def __init__(self, label: str, name: str) -> None:
        compute = partial(_calibration_error, label)
        super().__init__(_computations, compute=compute, columns=(label, SCORES), name=name)


class RecallGap(metric_types.Metric):
    """Recall overall − recall of the slice, at the budget: the larger share of its frauds missed.

    A gap of 0 is "equality of opportunity" (Hardt, Price, Srebro, "Equality of opportunity in
    supervised learning", NIPS 2016).

    Args:
      label: column.
      min_examples: the frauds a slice must have; with fewer, its gap is `UNJUDGED`.
      name: of the metric.
    """

    def __init__(self, label: str, min_examples: int, name: str) -> None:
        compute = partial(_recall_gap, label, min_examples)
        super().__init__(
            _computations, compute=compute, columns=(label, SCORES, OVERALL), name=name
        )


class FalsePositiveRateGap(metric_types.Metric):
    """False-positive rate of the slice − overall, at the budget: its larger burden of false alerts.

    This gap and `RecallGap` both 0 is "equalized odds" (Hardt, Price, Srebro, NIPS 2016).

    Args:
      label: column.
      min_examples: the genuine transactions a slice must have; with fewer, its gap is `UNJUDGED`.
      name: of the metric.
    """

    def __init__(self, label: str, min_examples: int, name: str) -> None:
        compute = partial(_false_positive_rate_gap, label, min_examples)
        super().__init__(
            _computations, compute=compute, columns=(label, SCORES, OVERALL), name=name
        )


def _card_precision(
    k: int, label: str, timestamp: str, card: str, columns: Columns, model: str
) -> float:
    score = columns[SCORES][model][SCORE]
    days = columns[timestamp] // SECONDS_PER_DAY
    return metrics.card_precision_at_k(columns[label], score, days, columns[card], k)


def _cost_saved(
    check_cost: float,
    saved_share: float,
    label: str,
    amount: str,
    timestamp: str,
    card: str,
    columns: Columns,
    model: str,
) -> float:
    return metrics.expected_cost_saved(
        columns[label],
        _alerts(columns, model),
        columns[amount],
        columns[timestamp] // SECONDS_PER_DAY,
        columns[card],
        check_cost,
        saved_share,
    )


def _calibration_error(label: str, columns: Columns, model: str) -> float:
    return metrics.expected_calibration_error(columns[label], columns[SCORES][model][SCORE])


def _recall_gap(label: str, min_examples: int, columns: Columns, model: str) -> float:
    labels, overall = columns[label], columns[OVERALL][model][ALERT]
    rate_overall = overall.share_at(1.0, label=1)
    if np.sum(labels == 1) < min_examples or np.isnan(rate_overall):
        return UNJUDGED
    return rate_overall - metrics.recall_at_budget(labels, _alerts(columns, model))


def _false_positive_rate_gap(label: str, min_examples: int, columns: Columns, model: str) -> float:
    labels, overall = columns[label], columns[OVERALL][model][ALERT]
    rate_overall = overall.share_at(1.0, label=0)
    if np.sum(labels == 0) < min_examples or np.isnan(rate_overall):
        return UNJUDGED
    return metrics.false_positive_rate(labels, _alerts(columns, model)) - rate_overall


def _alerts(columns: Columns, model: str) -> NDArray[np.bool_]:
    return columns[SCORES][model][ALERT] == 1


def _computations(
    compute: Callable[[Columns, str], float],
    columns: Sequence[str],
    name: str,
    model_names: Sequence[str],
    example_weighted: bool,
) -> list[metric_types.MetricComputation]:
    """One computation for each model.

    Args:
      compute: (columns of a slice, model name) → value of the metric.
      columns: the columns it needs.
      name: of the metric.
      model_names, example_weighted: passed by TFMA.
    """
    preprocessor = metric_types.StandardMetricInputsPreprocessor(
        {constants.FEATURES_KEY: {column: {} for column in columns}}, include_default_inputs=False
    )
    keys = [
        metric_types.MetricKey(name, model, example_weighted=example_weighted)
        for model in model_names
    ]
    return [
        metric_types.MetricComputation(
            keys=[key], preprocessors=[preprocessor], combiner=_SliceCombiner(key, compute)
        )
        for key in keys
    ]


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

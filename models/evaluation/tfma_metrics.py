"""Metrics that TFMA lacks, as TFMA metrics; `fraud.models.evaluation.metrics` computes them.

Each names the columns it needs and receives them from `fraud.models.evaluation.extractors` as
arrays with one value per example of the slice. A metric of a slice sees only that slice: its Card
Precision@k is that of analysts who check k of the slice's cards a day. Of a slice with millions of
examples it sees a sample of the cards, and estimates: with a share of the cards, analysts check
that share of k, and money is that share of the whole.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from apache_beam.transforms import combiners
from numpy.typing import NDArray
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.metrics import metric_types

from fraud.models.evaluation import bootstrap, curves, metrics
from fraud.models.evaluation.extractors import HISTOGRAMS, OVERALL, SAMPLE, SCORES
from fraud.models.evaluation.registry import (
    ALERT,
    CHAMPION,
    CURVES,
    DROP_PROBABILITY,
    SCORE,
)
from fraud.models.evaluation.slice_data import Sample, ScoreHistogram
from fraud.models.spec import AlertBudget
from fraud.time import local_days

UNJUDGED = -np.inf
"""The gap of a slice with too few examples, and the probability of a drop from a champion that does
not exist, or where too few cards have a fraud to tell; it passes every upper limit."""

LEAST_CHECKED = 10
"""The cards of a sample that Card Precision@k must look at; it is not told by fewer."""

Columns = Mapping[str, Any]


@dataclass(frozen=True)
class Histograms:
    """How a model scores all examples: output → histogram.

    Attributes:
      of_slice: the examples of the slice.
      overall: all of them; empty if the overall slice is not evaluated.
    """

    of_slice: Mapping[str, ScoreHistogram]
    overall: Mapping[str, ScoreHistogram]


class _OfOneExtract(combiners.ToListCombineFn, ABC):
    """Computes from the one extract that is a slice (see `fraud.models.evaluation.extractors`).

    It does so as soon as it sees the extract. An accumulator with the extract itself would be
    pickled with all columns of the slice, for each computation of each model, at each exchange of
    data between Beam's stages.
    """

    def add_input(
        self, accumulator: list[dict[Any, Any]], element: metric_types.StandardMetricInputs
    ) -> list[dict[Any, Any]]:
        """See beam.CombineFn; with what `measure` says instead of the element."""
        return super().add_input(accumulator, self.measure(element))

    def extract_output(
        self, accumulator: list[dict[Any, Any]]
    ) -> dict[metric_types.MetricKey, Any]:
        """See beam.CombineFn."""
        (measured,) = accumulator
        return measured

    @abstractmethod
    def measure(
        self, inputs: metric_types.StandardMetricInputs
    ) -> dict[metric_types.MetricKey, Any]:
        """The metrics of a slice."""


class _SliceMetric(metric_types.Metric):
    """A metric computed from the columns of a slice, once for each model.

    Attributes:
      columns: the arguments that name columns; `_compute` receives the columns themselves.
      _compute: (columns by argument, outputs of the model on the slice, its `Histograms`, the
        `Sample` that the columns are, the other arguments by name) → value.
    """

    columns: tuple[str, ...]
    _compute: Callable[..., float]

    def __init__(self, name: str, **arguments: Any) -> None:
        super().__init__(_computations, kind=type(self), arguments=arguments, name=name)


class CardPrecisionAtK(_SliceMetric):
    """Formula and source: `fraud.models.evaluation.metrics.card_precision_at_k`.

    Args:
      k: cards checked a day; 0 means `share` of those of the slice, at most `MOST_CARDS`.
      share: see there.
      timezone: of the days.
      label, timestamp, card: columns.
    """

    columns = ("label", "timestamp", "card")

    @staticmethod
    def _compute(
        columns: Columns,
        outputs: Columns,
        histograms: Histograms,
        sample: Sample,
        k: int,
        share: float,
        timezone: str,
    ) -> float:
        days = local_days(columns["timestamp"], timezone)
        checked = _cards_checked(k, share, days, columns["card"], sample)
        if not checked:
            return float("nan")
        return metrics.card_precision_at_k(
            columns["label"], outputs[SCORE], days, columns["card"], checked
        )


def _cards_checked(k: int, share: float, days: NDArray, cards: NDArray, sample: Sample) -> int:
    """The cards of the sample that are checked a day; 0 if these are too few to tell anything.

    Of all cards, k are, or with k = 0 `share` of those of a day, at most `MOST_CARDS`.
    """
    budget = AlertBudget(None, share=share)
    of_all = k or max(1, round(budget.cards(metrics.cards_a_day(days, cards) / sample.share)))
    checked = round(of_all * sample.share)
    return checked if sample.share == 1 or checked >= LEAST_CHECKED else 0


class ExpectedCostSaved(_SliceMetric):
    """Formula and source: `fraud.models.evaluation.metrics.expected_cost_saved`.

    Args:
      check_cost: of checking a card, in the currency of the amounts.
      saved_share: the share of a fraud's amount that an alert saves.
      timezone: of the days.
      label, amount, timestamp, card: columns.
    """

    columns = ("label", "amount", "timestamp", "card")

    @staticmethod
    def _compute(
        columns: Columns,
        outputs: Columns,
        histograms: Histograms,
        sample: Sample,
        check_cost: float,
        saved_share: float,
        timezone: str,
    ) -> float:
        days = local_days(columns["timestamp"], timezone)
        label, alerts = columns["label"], outputs[ALERT] == 1
        saved = metrics.expected_cost_saved(
            label, alerts, columns["amount"], days, columns["card"], check_cost, saved_share
        )
        return saved / sample.share


class ExpectedCalibrationError(_SliceMetric):
    """Formula and source: `fraud.models.evaluation.metrics.expected_calibration_error`."""

    columns = ("label",)

    @staticmethod
    def _compute(
        columns: Columns, outputs: Columns, histograms: Histograms, sample: Sample
    ) -> float:
        return metrics.expected_calibration_error(columns["label"], outputs[SCORE])


class BrierSkill(_SliceMetric):
    """Formula and source: `fraud.models.evaluation.metrics.brier_skill`."""

    columns = ("label",)

    @staticmethod
    def _compute(
        columns: Columns, outputs: Columns, histograms: Histograms, sample: Sample
    ) -> float:
        return metrics.brier_skill(columns["label"], outputs[SCORE])


class Curves(metric_types.Metric):
    """`fraud.models.evaluation.curves.describe` of each model over all examples, as JSON.

    It is one value of the challenger, `curves`: model name → description. Slices have none.

    Args:
      label, timestamp, card, amount: columns; without timestamp and card, cards are not counted,
        and without an amount as well, no costs.
      timezone: of the days.
      k, share: see `CardPrecisionAtK`.
      check_cost, saved_share: see `curves.Costs`.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(_curves_computations, **arguments)


def _curves_computations(
    model_names: Sequence[str], **arguments: Any
) -> list[metric_types.MetricComputation]:
    """One computation for all models; TFMA passes their names."""
    (challenger,) = set(model_names) - {CHAMPION}
    columns = [arguments[name] for name in ("label", "timestamp", "card", "amount")]
    preprocessor = _of_columns(*filter(None, columns), SCORES, OVERALL, SAMPLE)
    combiner = _CurvesCombiner(arguments, challenger)
    return [metric_types.MetricComputation([], [preprocessor], combiner)]


class _CurvesCombiner(_OfOneExtract):
    """Computes `Curves`."""

    def __init__(self, arguments: Mapping[str, Any], challenger: str) -> None:
        self._arguments, self._challenger = arguments, challenger

    def measure(
        self, inputs: metric_types.StandardMetricInputs
    ) -> dict[metric_types.MetricKey, bytes]:
        features, of = inputs.features, self._arguments
        labels, models, sample = features[of["label"]], features[SCORES], features[SAMPLE]
        whole = features[OVERALL].get(self._challenger, {}).get(SCORE)
        if whole is None or whole.examples.sum() != sample.examples:
            return {}
        cards = costs = None
        if of["timestamp"] and of["card"]:
            days = local_days(features[of["timestamp"]], of["timezone"])
            checked = _cards_checked(of["k"], of["share"], days, features[of["card"]], sample)
            cards = curves.Cards(days, features[of["card"]], checked)
        if of["amount"]:
            costs = curves.Costs(features[of["amount"]], of["check_cost"], of["saved_share"])
        described = {
            name: curves.describe(
                labels, outputs[SCORE], outputs[ALERT] == 1, cards, costs, sample.share
            )
            for name, outputs in models.items()
        }
        key = metric_types.MetricKey(CURVES, self._challenger, example_weighted=None)
        return {key: json.dumps(described, sort_keys=True, allow_nan=False).encode()}


class _AlertRateGap(_SliceMetric):
    """How much worse a slice's share of alerts among the examples of one label is than overall.

    Args:
      label: column.
      min_examples: the examples of that label a slice must have; with fewer, its gap is `UNJUDGED`.
    """

    columns = ("label",)
    of_label: int
    worse: int
    """1 if more alerts are worse, -1 if fewer are."""

    @classmethod
    def _compute(
        cls,
        columns: Columns,
        outputs: Columns,
        histograms: Histograms,
        sample: Sample,
        min_examples: int,
    ) -> float:
        of_slice, overall = histograms.of_slice[ALERT], histograms.overall[ALERT]
        rate_overall = overall.share_at(1.0, cls.of_label)
        if of_slice.examples_of(cls.of_label) < min_examples or np.isnan(rate_overall):
            return UNJUDGED
        return cls.worse * of_slice.share_at(1.0, cls.of_label) - cls.worse * rate_overall


class RecallGap(_AlertRateGap):
    """Recall overall − recall of the slice, at the budget: the larger share of its frauds missed.

    A gap of 0 is "equality of opportunity" (Hardt, Price, Srebro, "Equality of opportunity in
    supervised learning", NIPS 2016).
    """

    of_label, worse = 1, -1


class FalsePositiveRateGap(_AlertRateGap):
    """False-positive rate of the slice − overall, at the budget: its larger burden of false alerts.

    This gap and `RecallGap` both 0 is "equalized odds" (Hardt, Price, Srebro, NIPS 2016).
    """

    of_label, worse = 0, 1


def _computations(
    kind: type[_SliceMetric],
    arguments: Mapping[str, Any],
    name: str,
    model_names: Sequence[str],
    example_weighted: bool,
) -> list[metric_types.MetricComputation]:
    """One computation for each model; TFMA passes the last two arguments."""
    columns = [arguments[column] for column in kind.columns]
    preprocessor = _of_columns(*columns, SCORES, HISTOGRAMS, OVERALL, SAMPLE)
    keys = [metric_types.MetricKey(name, m, example_weighted=example_weighted) for m in model_names]
    return [
        metric_types.MetricComputation([key], [preprocessor], _SliceCombiner(kind, arguments, key))
        for key in keys
    ]


def _of_columns(*columns: str) -> metric_types.StandardMetricInputsPreprocessor:
    """The preprocessor of metrics that read these columns."""
    return metric_types.StandardMetricInputsPreprocessor(
        {constants.FEATURES_KEY: {column: {} for column in columns}}, include_default_inputs=False
    )


class _SliceCombiner(_OfOneExtract):
    """Computes a `_SliceMetric` of one model."""

    def __init__(
        self, kind: type[_SliceMetric], arguments: Mapping[str, Any], key: metric_types.MetricKey
    ) -> None:
        self._kind, self._arguments, self._key = kind, arguments, key

    def measure(
        self, inputs: metric_types.StandardMetricInputs
    ) -> dict[metric_types.MetricKey, float]:
        features, model, names = inputs.features, self._key.model_name, self._kind.columns
        columns = {name: features[self._arguments[name]] for name in names}
        others = {name: v for name, v in self._arguments.items() if name not in names}
        outputs = features[SCORES][model]
        histograms = Histograms(features[HISTOGRAMS][model], features[OVERALL].get(model, {}))
        computed = self._kind._compute(columns, outputs, histograms, features[SAMPLE], **others)
        return {self._key: computed}


class Bootstrap(metric_types.Metric):
    """How certain the metrics of `bootstrap.METRICS` are, and their changes from the champion's.

    Of a slice that is sampled, it is how certain the sample is: less than all examples.

    For each metric M of the challenger: `M:low` and `M:high`, the limits of its 95 % interval; with
    a champion also `M:change`, `M:change_low` and `M:change_high`. They are NaN where the examples
    cannot tell. For the metrics in `max_drops` also `M:drop_probability`: `UNJUDGED` without a
    champion or where the examples cannot tell; NaN, which no limit admits, if the change is
    undefined.

    Args:
      label: column.
      card: the column of the cards; None: examples are drawn one by one.
      max_drops: metric → the largest drop allowed.
    """

    def __init__(self, label: str, card: str | None, max_drops: Mapping[str, float]) -> None:
        super().__init__(_bootstrap_computations, label=label, card=card, max_drops=max_drops)


def _bootstrap_computations(
    label: str, card: str | None, max_drops: Mapping[str, float], model_names: Sequence[str]
) -> list[metric_types.MetricComputation]:
    """One computation for all models; TFMA passes their names."""
    (challenger,) = set(model_names) - {CHAMPION}
    preprocessor = _of_columns(label, *([card] if card else []), SCORES)
    combiner = _BootstrapCombiner(label, card, max_drops, challenger)
    return [metric_types.MetricComputation([], [preprocessor], combiner)]


class _BootstrapCombiner(_OfOneExtract):
    """Computes `Bootstrap`."""

    def __init__(
        self, label: str, card: str | None, max_drops: Mapping[str, float], challenger: str
    ) -> None:
        self._label, self._card, self._max_drops = label, card, max_drops
        self._challenger = challenger

    def measure(
        self, inputs: metric_types.StandardMetricInputs
    ) -> dict[metric_types.MetricKey, float]:
        features, models, challenger = inputs.features, inputs.features[SCORES], self._challenger
        replicates = bootstrap.replicate(
            features[self._label],
            {name: bootstrap.Outputs(of[SCORE], of[ALERT] == 1) for name, of in models.items()},
            features[self._card] if self._card else None,
        )
        told, unknown = {}, (np.nan, np.nan)
        for metric in bootstrap.METRICS:
            interval = replicates.interval(metric, challenger)
            told[f"{metric}:low"], told[f"{metric}:high"] = interval or unknown
            if CHAMPION in models:
                change, interval = replicates.change(metric, challenger, CHAMPION)
                told[f"{metric}:change"] = change
                low, high = interval or unknown
                told[f"{metric}:change_low"], told[f"{metric}:change_high"] = low, high
        for metric, max_drop in self._max_drops.items():
            probability = None
            if CHAMPION in models:
                probability = replicates.drop_probability(metric, challenger, CHAMPION, max_drop)
            told[DROP_PROBABILITY.format(metric)] = UNJUDGED if probability is None else probability
        # None as in thresholds that a MetricsSpec has by metric name.
        weighted = {"example_weighted": None}
        return {metric_types.MetricKey(n, challenger, **weighted): v for n, v in told.items()}

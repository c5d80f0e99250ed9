"""Every metric of the evaluation, each defined once.

The EvalConfig, the summary of a run and the model card are all derived from `METRICS`; see
docs/extending.md. This module loads neither TensorFlow nor TFMA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

SCORE, ALERT = "score", "alert"
"""The outputs of a model: the probability of fraud, and whether it reaches the model's threshold
(1.0 or 0.0)."""

CHALLENGER, CHAMPION = "challenger", "champion"
"""The names of the models."""

CURVES = "curves"
"""The name of what `fraud.models.evaluation.curves` describes, among the Evaluator's results."""

DROP_PROBABILITY = "{}:drop_probability"
"""The name of a metric's probability of a drop larger than allowed."""


MIN_FRAUD_CARDS = 10
"""Cards with a fraud that intervals and the comparison with the champion require. With fewer, the
replicates of a bootstrap hardly differ: intervals would be far too narrow, and the better of two
equal models almost certain."""


@dataclass(frozen=True)
class Metric:
    """The definition of one metric.

    Attributes:
      name: in results. `{setting}` in it is replaced by a setting of `Evaluation`.
      title: the same in words.
      tfma_class: the class that computes it: TFMA's own if `output` is given, otherwise one of
        `fraud.models.evaluation.tfma_metrics`.
      output: the output of the model that TFMA's own class reads: `SCORE` or `ALERT`.
      arguments: argument of the class → where its value is configured, as a path from `dataset` or
        `evaluation`. A metric is left out if the dataset lacks one of its columns.
      minimum: the setting of `Evaluation` with the lowest value a challenger may have.
      max_drop: the setting with the most it may be below the champion's value; needs `interval`.
      max_gap: the setting with the largest gap allowed; makes the metric a slice gap: how far a
        slice is worse than all transactions together.
      interval: whether it has a 95 % interval: `fraud.models.evaluation.bootstrap` replicates it.
      headline: whether the summary and the model card show it for every slice.
      is_count: whether it only counts transactions and says nothing about quality.
    """

    name: str
    title: str
    tfma_class: str
    output: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    minimum: str | None = None
    max_drop: str | None = None
    max_gap: str | None = None
    interval: bool = False
    headline: bool = False
    is_count: bool = False


_CARD_DAYS = {
    "label": "dataset.label",
    "timestamp": "dataset.timestamp",
    "timezone": "dataset.timezone",
    "card": "dataset.card_entity",
}
_GAP = {"label": "dataset.label", "min_examples": "evaluation.min_slice_examples"}

METRICS = (
    Metric(
        "average_precision",
        "average precision",
        "AUCPrecisionRecall",
        SCORE,
        minimum="min_average_precision",
        max_drop="max_average_precision_drop",
        interval=True,
        headline=True,
    ),
    Metric(
        "roc_auc",
        "ROC AUC",
        "AUC",
        SCORE,
        minimum="min_roc_auc",
        max_drop="max_roc_auc_drop",
        interval=True,
        headline=True,
    ),
    Metric("calibration", "calibration", "Calibration", SCORE),
    Metric("brier", "Brier", "MeanSquaredError", SCORE),
    Metric("example_count", "examples", "ExampleCount", SCORE, is_count=True),
    Metric(
        "precision_at_budget",
        "precision at budget",
        "Precision",
        ALERT,
        interval=True,
        headline=True,
    ),
    Metric(
        "recall_at_budget",
        "recall at budget",
        "Recall",
        ALERT,
        minimum="min_recall_at_budget",
        max_drop="max_recall_at_budget_drop",
        interval=True,
        headline=True,
    ),
    Metric("false_positive_rate", "false positive rate", "FallOut", ALERT),
    Metric("true_positives", "true positives", "TruePositives", ALERT, is_count=True),
    Metric("false_positives", "false positives", "FalsePositives", ALERT, is_count=True),
    Metric("false_negatives", "false negatives", "FalseNegatives", ALERT, is_count=True),
    Metric(
        "brier_skill",
        "Brier skill",
        "BrierSkill",
        arguments={"label": "dataset.label"},
        max_drop="max_brier_skill_drop",
        interval=True,
    ),
    Metric(
        "expected_calibration_error",
        "expected calibration error",
        "ExpectedCalibrationError",
        arguments={"label": "dataset.label"},
    ),
    Metric(
        "card_precision_at_{alert_budget}",
        "precision of daily checks at {alert_budget}",
        "CardPrecisionAtK",
        arguments={
            "k": "evaluation.cards_checked",
            "share": "evaluation.alert_share",
            **_CARD_DAYS,
        },
    ),
    Metric(
        "expected_cost_saved",
        "expected cost saved",
        "ExpectedCostSaved",
        arguments={
            "check_cost": "evaluation.check_cost",
            "saved_share": "evaluation.saved_share",
            "amount": "dataset.amount",
            **_CARD_DAYS,
        },
    ),
    Metric("recall_gap", "recall gap", "RecallGap", arguments=_GAP, max_gap="max_slice_recall_gap"),
    Metric(
        "false_positive_rate_gap",
        "false positive rate gap",
        "FalsePositiveRateGap",
        arguments=_GAP,
        max_gap="max_slice_fpr_gap",
    ),
)
HEADLINE = tuple(metric.name for metric in METRICS if metric.headline)
GAPS = tuple(metric.name for metric in METRICS if metric.max_gap)


def named_for(evaluation: Mapping[str, Any]) -> tuple[Metric, ...]:
    """`METRICS` with names and titles completed by the settings of `Evaluation`.

    An alert budget that is not a number of cards is called "budget".
    """
    settings = {k: "budget" if value is None else value for k, value in evaluation.items()}
    return tuple(
        replace(m, name=m.name.format_map(settings), title=m.title.format_map(settings))
        for m in METRICS
    )

"""What the Evaluator measures and demands, as a TFMA EvalConfig."""

from __future__ import annotations

import json
from typing import Any

# TFMA 0.52 no longer shows these at its top.
from tensorflow_model_analysis.proto import config_pb2

from fraud.features.spec import Dataset
from fraud.models.evaluation import tfma_metrics as evaluation_metrics
from fraud.models.evaluation.tfma_metrics import ALERT, SCORE
from fraud.models.spec import Evaluation

RECALL_GAP, FPR_GAP = "recall_gap", "false_positive_rate_gap"


def eval_config(dataset: Dataset, evaluation: Evaluation) -> config_pb2.EvalConfig:
    """Metrics overall and by slice, absolute thresholds, change thresholds against the champion.

    `score` is judged as a probability, `alert` (the score at the alert budget's threshold, each
    model at its own) as a decision. Thresholds count for the overall slice, those of the gaps for
    every slice.
    """
    labels = {SCORE: dataset.label, ALERT: dataset.label}
    models = [
        config_pb2.ModelSpec(
            name=name,
            is_baseline=is_baseline,
            model_type="tf_generic",
            signature_name="serving_default",
            label_keys=labels,
        )
        for name, is_baseline in (("challenger", False), ("champion", True))
    ]
    # An example weight is a number of examples: see fraud.models.evaluation.extractors.
    counted = config_pb2.ExampleWeightOptions(weighted=True)
    slices = [config_pb2.SlicingSpec()] + [
        config_pb2.SlicingSpec(feature_keys=[c]) for c in dataset.slices
    ]
    return config_pb2.EvalConfig(
        model_specs=models,
        slicing_specs=slices,
        metrics_specs=[
            config_pb2.MetricsSpec(
                output_names=[SCORE],
                example_weights=counted,
                metrics=[
                    _metric(
                        "AUCPrecisionRecall",
                        "average_precision",
                        evaluation.min_average_precision,
                        evaluation.max_average_precision_drop,
                    ),
                    _metric("AUC", "roc_auc", evaluation.min_roc_auc, evaluation.max_roc_auc_drop),
                    _metric("Calibration", "calibration"),
                    _metric("MeanSquaredError", "brier"),
                    _metric("ExampleCount", "example_count"),
                ],
            ),
            config_pb2.MetricsSpec(
                output_names=[ALERT],
                example_weights=counted,
                metrics=[
                    _metric("Precision", "precision_at_budget"),
                    _metric(
                        "Recall",
                        "recall_at_budget",
                        evaluation.min_recall_at_budget,
                        evaluation.max_recall_at_budget_drop,
                    ),
                    _metric("FallOut", "false_positive_rate"),
                    # From these a reader knows how many transactions a figure rests on.
                    _metric("TruePositives", "true_positives"),
                    _metric("FalsePositives", "false_positives"),
                    _metric("FalseNegatives", "false_negatives"),
                ],
            ),
            config_pb2.MetricsSpec(metrics=_own_metrics(dataset, evaluation)),
        ],
    )


def _own_metrics(dataset: Dataset, evaluation: Evaluation) -> list[config_pb2.MetricConfig]:
    """Those of `fraud.models.evaluation.tfma_metrics` that the dataset has the columns for."""
    label, timestamp, card = dataset.label, dataset.timestamp, dataset.card_entity
    metrics = [_own("ExpectedCalibrationError", "expected_calibration_error", label=label)]
    if timestamp and card:
        when_and_who = {"label": label, "timestamp": timestamp, "card": card}
        k = evaluation.alert_budget
        metrics.append(_own("CardPrecisionAtK", f"card_precision_at_{k}", k=k, **when_and_who))
        if dataset.amount:
            metrics.append(
                _own(
                    "ExpectedCostSaved",
                    "expected_cost_saved",
                    check_cost=evaluation.check_cost,
                    saved_share=evaluation.saved_share,
                    amount=dataset.amount,
                    **when_and_who,
                )
            )
    if dataset.slices:
        gaps = (
            ("RecallGap", RECALL_GAP, evaluation.max_slice_recall_gap),
            ("FalsePositiveRateGap", FPR_GAP, evaluation.max_slice_fpr_gap),
        )
        for class_name, name, most in gaps:
            least = evaluation.min_slice_examples
            gap = _own(class_name, name, label=label, min_examples=least)
            limited = gap.per_slice_thresholds.add(
                slicing_specs=[config_pb2.SlicingSpec(feature_keys=[c]) for c in dataset.slices]
            )
            limited.threshold.value_threshold.upper_bound.value = most
            metrics.append(gap)
    return metrics


def _own(class_name: str, name: str, **settings: Any) -> config_pb2.MetricConfig:
    """A metric of `fraud.models.evaluation.tfma_metrics`."""
    return config_pb2.MetricConfig(
        class_name=class_name,
        module=evaluation_metrics.__name__,
        config=json.dumps({"name": name, **settings}),
    )


def _metric(
    class_name: str, name: str, least: float | None = None, drop: float | None = None
) -> config_pb2.MetricConfig:
    """A metric, with thresholds for the overall slice alone: a small slice varies by chance."""
    config = config_pb2.MetricConfig(class_name=class_name, config=f'{{"name": "{name}"}}')
    if least is None and drop is None:
        return config
    overall = config.per_slice_thresholds.add(slicing_specs=[config_pb2.SlicingSpec()])
    if least is not None:
        overall.threshold.value_threshold.lower_bound.value = least
    if drop is not None:
        overall.threshold.change_threshold.direction = config_pb2.MetricDirection.HIGHER_IS_BETTER
        overall.threshold.change_threshold.absolute.value = -drop
    return config

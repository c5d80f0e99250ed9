"""What the Evaluator measures and demands, as a TFMA EvalConfig."""

from __future__ import annotations

import tensorflow_model_analysis as tfma

from features.spec import Dataset
from models.spec import Evaluation

SCORE, ALERT = "score", "alert"


def eval_config(dataset: Dataset, evaluation: Evaluation) -> tfma.EvalConfig:
    """Metrics overall and by slice, absolute thresholds, change thresholds against the champion.

    `score` is judged as a probability, `alert` (the score at the alert budget's threshold, each
    model at its own) as a decision. Thresholds count for the overall slice.
    """
    labels = {SCORE: dataset.label, ALERT: dataset.label}
    models = [
        tfma.ModelSpec(
            name=name,
            is_baseline=is_baseline,
            model_type="tf_generic",
            signature_name="serving_default",
            label_keys=labels,
        )
        for name, is_baseline in (("challenger", False), ("champion", True))
    ]
    # An example weight is a number of examples: see models.evaluation_extractors.
    counted = tfma.ExampleWeightOptions(weighted=True)
    slices = [tfma.SlicingSpec()] + [tfma.SlicingSpec(feature_keys=[c]) for c in dataset.slices]
    return tfma.EvalConfig(
        model_specs=models,
        slicing_specs=slices,
        metrics_specs=[
            tfma.MetricsSpec(
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
                    _metric("ExampleCount", "example_count"),
                ],
            ),
            tfma.MetricsSpec(
                output_names=[ALERT],
                example_weights=counted,
                metrics=[
                    _metric("Precision", "precision_at_budget"),
                    _metric("Recall", "recall_at_budget"),
                    # From these a reader knows how many transactions a figure rests on.
                    _metric("TruePositives", "true_positives"),
                    _metric("FalsePositives", "false_positives"),
                    _metric("FalseNegatives", "false_negatives"),
                ],
            ),
        ],
    )


def _metric(
    class_name: str, name: str, least: float | None = None, drop: float | None = None
) -> tfma.MetricConfig:
    """A metric, with thresholds for the overall slice alone: a small slice varies by chance."""
    config = tfma.MetricConfig(class_name=class_name, config=f'{{"name": "{name}"}}')
    if least is None and drop is None:
        return config
    overall = config.per_slice_thresholds.add(slicing_specs=[tfma.SlicingSpec()])
    if least is not None:
        overall.threshold.value_threshold.lower_bound.value = least
    if drop is not None:
        overall.threshold.change_threshold.direction = tfma.MetricDirection.HIGHER_IS_BETTER
        overall.threshold.change_threshold.absolute.value = -drop
    return config

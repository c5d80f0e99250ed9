"""What the Evaluator measures and demands, as a TFMA EvalConfig."""

from __future__ import annotations

# TFMA 0.52 no longer shows these at its top.
from tensorflow_model_analysis.proto import config_pb2

from features.spec import Dataset
from models.spec import Evaluation

SCORE, ALERT = "score", "alert"


def eval_config(dataset: Dataset, evaluation: Evaluation) -> config_pb2.EvalConfig:
    """Metrics overall and by slice, absolute thresholds, change thresholds against the champion.

    `score` is judged as a probability, `alert` (the score at the alert budget's threshold, each
    model at its own) as a decision. Thresholds count for the overall slice.
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
    # An example weight is a number of examples: see models.evaluation_extractors.
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
                    _metric("ExampleCount", "example_count"),
                ],
            ),
            config_pb2.MetricsSpec(
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

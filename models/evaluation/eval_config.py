"""What the Evaluator measures and requires, as a TFMA EvalConfig."""

from __future__ import annotations

import json
from collections.abc import Iterable
from operator import attrgetter
from types import SimpleNamespace

# TFMA 0.52 no longer exports these at its top level.
from tensorflow_model_analysis.proto import config_pb2

from fraud.features.spec import Dataset
from fraud.models.evaluation import registry, tfma_metrics
from fraud.models.evaluation.registry import ALERT, CHALLENGER, CHAMPION, SCORE
from fraud.models.spec import Evaluation


def eval_config(dataset: Dataset, evaluation: Evaluation) -> config_pb2.EvalConfig:
    """The metrics of the registry overall and by slice, with their thresholds.

    `score` is evaluated as a probability; `alert`, whether the score reaches the model's own
    threshold for the alert budget, as a decision. Minima, and the probabilities of drops, apply to
    all transactions together, because a small slice varies by chance; the limits of gaps apply to
    every slice.
    """
    models = [
        config_pb2.ModelSpec(
            name=name,
            is_baseline=is_baseline,
            model_type="tf_generic",
            signature_name="serving_default",
            label_keys={SCORE: dataset.label, ALERT: dataset.label},
        )
        for name, is_baseline in ((CHALLENGER, False), (CHAMPION, True))
    ]
    slices = [config_pb2.SlicingSpec(feature_keys=[c]) for c in dataset.slices]
    metrics = registry.named_for(vars(evaluation))
    specs = []
    for output in (SCORE, ALERT, None):
        configs = [_config(m, dataset, evaluation, slices) for m in metrics if m.output == output]
        spec = config_pb2.MetricsSpec(metrics=[config for config in configs if config])
        if output:
            spec.output_names.append(output)
            # An example weight is a number of examples: see fraud.models.evaluation.extractors.
            spec.example_weights.weighted = True
        specs.append(spec)
    specs.append(_comparison(dataset, evaluation, metrics))
    specs.append(_curves(dataset, evaluation))
    return config_pb2.EvalConfig(
        model_specs=models,
        slicing_specs=[config_pb2.SlicingSpec(), *slices],
        metrics_specs=specs,
    )


def _config(
    metric: registry.Metric,
    dataset: Dataset,
    evaluation: Evaluation,
    slices: list[config_pb2.SlicingSpec],
) -> config_pb2.MetricConfig | None:
    """One metric with its thresholds; None if the dataset lacks its columns or has no slices."""
    settings = SimpleNamespace(dataset=dataset, evaluation=evaluation)
    arguments = {name: attrgetter(path)(settings) for name, path in metric.arguments.items()}
    lacks_column = not {None, ""}.isdisjoint(arguments.values())
    if lacks_column or (metric.max_gap and not slices):
        return None
    config = config_pb2.MetricConfig(
        class_name=metric.tfma_class,
        module="" if metric.output else tfma_metrics.__name__,
        config=json.dumps({"name": metric.name, **arguments}),
    )
    if metric.max_gap:
        limit = config.per_slice_thresholds.add(slicing_specs=slices).threshold
        limit.value_threshold.upper_bound.value = getattr(evaluation, metric.max_gap)
    if metric.minimum:
        limit = config.per_slice_thresholds.add(slicing_specs=[config_pb2.SlicingSpec()]).threshold
        limit.value_threshold.lower_bound.value = getattr(evaluation, metric.minimum)
    return config


def _comparison(
    dataset: Dataset, evaluation: Evaluation, metrics: Iterable[registry.Metric]
) -> config_pb2.MetricsSpec:
    """The bootstrap, and the limit of the probability that a metric drops too far."""
    max_drops = {m.name: getattr(evaluation, m.max_drop) for m in metrics if m.max_drop}
    arguments = {"label": dataset.label, "card": dataset.card_entity, "max_drops": max_drops}
    spec = config_pb2.MetricsSpec()
    spec.metrics.add(
        class_name=tfma_metrics.Bootstrap.__name__,
        module=tfma_metrics.__name__,
        config=json.dumps(arguments),
    )
    for name in max_drops:
        limits = spec.per_slice_thresholds[registry.DROP_PROBABILITY.format(name)].thresholds
        limit = limits.add(slicing_specs=[config_pb2.SlicingSpec()]).threshold.value_threshold
        limit.upper_bound.value = evaluation.max_drop_probability
    return spec


def _curves(dataset: Dataset, evaluation: Evaluation) -> config_pb2.MetricsSpec:
    """The curves for reports."""
    spec = config_pb2.MetricsSpec()
    arguments = {
        "label": dataset.label,
        "timestamp": dataset.timestamp,
        "timezone": dataset.timezone,
        "card": dataset.card_entity,
        "amount": dataset.amount,
        "k": evaluation.cards_checked,
        "share": evaluation.alert_share,
        "check_cost": evaluation.check_cost,
        "saved_share": evaluation.saved_share,
    }
    spec.metrics.add(
        class_name=tfma_metrics.Curves.__name__,
        module=tfma_metrics.__name__,
        config=json.dumps(arguments),
    )
    return spec

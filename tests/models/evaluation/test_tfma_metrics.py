"""TFMA reports what `fraud.models.evaluation.metrics` computes, overall and by slice."""

from __future__ import annotations

import dataclasses
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.metrics import metric_specs
from tensorflow_model_analysis.metrics.metric_types import StandardMetricInputs

from fraud.models.evaluation import curves, metrics, slice_data, tfma_metrics
from fraud.models.evaluation import eval_config as evaluation
from fraud.models.evaluation.extractors import HISTOGRAMS, OVERALL, SAMPLE, SCORES
from fraud.models.evaluation.registry import ALERT, SCORE
from fraud.models.evaluation.slice_data import Sample, ScoreHistogram
from fraud.models.evaluation.tfma_metrics import UNJUDGED, CardPrecisionAtK, ExpectedCostSaved
from fraud.models.spec import Evaluation
from fraud.pipeline import artifacts
from fraud.pipeline.components.batched_reading import EvaluatorExecutor
from fraud.time import SECONDS_PER_DAY
from tests.models.evaluation.test_extractors import DATASET, ROWS, evaluate, world

__all__ = ["world"]

SPEC = Evaluation(
    alert_budget=7, check_cost=3.0, saved_share=0.6, min_slice_examples=20, max_slice_fpr_gap=0.5
)
WHOLE = Sample(1.0, ROWS)
NONE = tfma_metrics.Histograms({}, {})
LIMITS = {"challenger": (0.5, np.float32(0.6)), "champion": (1.0, np.float32(0.3))}


def false_positive_rate(labels, alerts):
    return np.mean(alerts[labels == 0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def results(world, folder):
    config = evaluation.eval_config(DATASET, SPEC)
    return evaluate(world, folder, EvaluatorExecutor, config)[0]


def rows_of(world, where):
    """The rows of a slice.

    Args:
      where: the slice's key as JSON.
    """
    keys = json.loads(where).get("singleSliceKeys", [])
    if not keys:
        return np.ones(ROWS, bool)
    (key,) = keys
    if key["column"] == "BAND":
        return np.arange(ROWS) % 3 == int(key["int64Value"])
    import base64

    return world.channel == base64.b64decode(key["bytesValue"])


def values(results, name):
    """(slice, model) → value of a metric, without differences to the champion."""
    return {
        (where, model): value
        for (where, model, metric, is_diff), value in results.items()
        if metric == name and not is_diff
    }


def predictions(world, where, model):
    """Labels, scores, alerts and rows of a slice, computed directly."""
    rows = rows_of(world, where)
    power, limit = LIMITS[model]
    score = world.risk**power
    return world.label[rows], score[rows], (score >= limit)[rows], rows


@pytest.mark.parametrize(
    ("name", "direct"),
    [
        ("brier", lambda w, y, s, a, r: metrics.brier(y, s)),
        ("brier_skill", lambda w, y, s, a, r: metrics.brier_skill(y, s)),
        (
            "expected_calibration_error",
            lambda w, y, s, a, r: metrics.expected_calibration_error(y, s),
        ),
        ("recall_at_budget", lambda w, y, s, a, r: metrics.recall_at_budget(y, a)),
        ("precision_at_budget", lambda w, y, s, a, r: metrics.precision_at_budget(y, a)),
        ("false_positive_rate", lambda w, y, s, a, r: false_positive_rate(y, a)),
        (
            "card_precision_at_7",
            lambda w, y, s, a, r: metrics.card_precision_at_k(
                y, s, w.time[r] // SECONDS_PER_DAY, w.card[r], 7
            ),
        ),
        (
            "expected_cost_saved",
            lambda w, y, s, a, r: metrics.expected_cost_saved(
                y, a, w.spent[r], w.time[r] // SECONDS_PER_DAY, w.card[r], 3.0, 0.6
            ),
        ),
    ],
)
def test_a_metric_is_the_direct_computation(world, results, name, direct):
    reported = values(results, name)
    assert len(reported) == 2 * 6  # two models; overall, two channels, three bands
    assert len(set(reported.values())) >= 6  # slices differ; both models may rank alike
    for (where, model), value in reported.items():
        labels, scores, alerts, rows = predictions(world, where, model)
        expected = direct(world, labels, scores, alerts, rows)
        assert value == pytest.approx(expected, abs=1e-5), (where, model)


def test_what_is_exchanged_between_stages_does_not_contain_the_columns_of_a_slice(world):
    """Beam pickles each accumulator of each computation by itself."""
    config = evaluation.eval_config(DATASET, SPEC)
    for spec in config.metrics_specs:
        spec.model_names.extend(LIMITS)
    rows = np.tile(np.arange(ROWS), 200)
    score = world.risk[rows]
    outputs = {SCORE: score, ALERT: (score >= 0.3).astype(np.float32)}
    histograms = {
        name: ScoreHistogram.of(world.label[rows], values) for name, values in outputs.items()
    }
    inputs = StandardMetricInputs(
        features={
            "FRAUD": world.label[rows],
            "TIME": world.time[rows],
            "CARD": world.card.astype(object)[rows],
            "SPENT": world.spent[rows],
            SCORES: dict.fromkeys(LIMITS, outputs),
            HISTOGRAMS: dict.fromkeys(LIMITS, histograms),
            OVERALL: dict.fromkeys(LIMITS, histograms),
            SAMPLE: Sample(1.0, rows.size),
        }
    )
    measured = set()
    for computation in metric_specs.to_computations(config.metrics_specs, config):
        if type(computation).__name__ != "MetricComputation" or not computation.preprocessors:
            continue
        if constants.FEATURES_KEY not in computation.preprocessors[0].include_filter:
            continue
        combiner = computation.combiner
        accumulator = combiner.add_input(combiner.create_accumulator(), inputs)
        assert len(pickle.dumps(accumulator)) < rows.size / 2, combiner
        accumulator = combiner.merge_accumulators([combiner.create_accumulator(), accumulator])
        measured |= {key.name for key in combiner.extract_output(accumulator)}
    assert {"card_precision_at_7", "recall_gap", "curves", "roc_auc:low"} <= measured


def test_curves_of_both_models_are_in_a_file_of_their_own(world, results, folder):
    found = artifacts.curves(SimpleNamespace(uri=str(folder / "evaluation")))
    assert found.keys() == LIMITS.keys()
    for model, of_model in found.items():
        labels, scores, alerts, _ = predictions(world, "{}", model)
        cards = curves.Cards(world.time // SECONDS_PER_DAY, world.card, SPEC.alert_budget)
        costs = curves.Costs(world.spent, SPEC.check_cost, SPEC.saved_share)
        expected = curves.describe(labels, scores, alerts, cards, costs)
        assert of_model["threshold"] == pytest.approx(expected["threshold"], abs=1e-4)
        assert of_model["bins"] == [pytest.approx(row, abs=1e-4) for row in expected["bins"]]
        assert of_model["days"] == [pytest.approx(row, abs=1e-4) for row in expected["days"]]
        assert np.array(of_model["roc"]) == pytest.approx(np.array(expected["roc"]), abs=1e-4)
        saved = [row["cost_saved"] for row in of_model["thresholds"]]
        assert saved == pytest.approx([r["cost_saved"] for r in expected["thresholds"]], abs=1e-2)


def test_a_slice_with_too_many_examples_is_measured_on_a_sample_of_its_cards(
    world, results, tmp_path, monkeypatch
):
    """Scores by bucket have all examples; cards, costs, intervals and curves are estimates."""
    monkeypatch.setattr(slice_data, "MOST_ROWS", 400)
    monkeypatch.setattr(tfma_metrics, "LEAST_CHECKED", 4)
    config = evaluation.eval_config(DATASET, SPEC)
    sampled, _, _ = evaluate(world, tmp_path, EvaluatorExecutor, config)
    gaps = {"recall_gap", "false_positive_rate_gap"}
    exact = gaps | {"average_precision", "roc_auc", "recall_at_budget", "example_count", "brier"}
    for key, value in results.items():
        where, _, metric, _ = key
        if metric in exact or where != "{}":  # no other slice has more than 400
            assert sampled[key] == pytest.approx(value, nan_ok=True), key
    data = slice_data.SliceData({}, {"CARD": world.card.astype(object)}).hashed("CARD")
    rows = np.flatnonzero(data.hashes < np.uint64(2**63))
    assert 200 < rows.size <= 400
    found = artifacts.curves(SimpleNamespace(uri=str(tmp_path / "evaluation")))
    for model in LIMITS:
        labels, scores, alerts, _ = predictions(world, "{}", model)
        days = world.time[rows] // SECONDS_PER_DAY
        of_rows = labels[rows], scores[rows], alerts[rows]
        cards, spent = world.card[rows], world.spent[rows]
        four_of_seven = metrics.card_precision_at_k(*of_rows[:2], days, cards, 4)
        assert sampled["{}", model, "card_precision_at_7", False] == pytest.approx(four_of_seven)
        saved = metrics.expected_cost_saved(of_rows[0], of_rows[2], spent, days, cards, 3.0, 0.6)
        assert sampled["{}", model, "expected_cost_saved", False] == pytest.approx(2 * saved)
        assert found[model]["sample_share"] == 0.5
        assert sum(day["transactions"] for day in found[model]["days"]) == 2 * rows.size
    low = sampled["{}", "challenger", "average_precision:low", False]
    high = sampled["{}", "challenger", "average_precision:high", False]
    assert low < sampled["{}", "challenger", "average_precision", False] < high


def test_the_days_of_metrics_are_local():
    """Two alerts on one card at 23:00 and 01:00 UTC are one check in Tokyo, two in UTC."""
    columns = {
        "label": np.array([0, 0]),
        "timestamp": np.array([23, 25]) * 3600,
        "card": np.array([1, 1]),
        "amount": np.ones(2),
    }
    outputs = {ALERT: np.ones(2), SCORE: np.ones(2)}
    for zone, checks in (("Asia/Tokyo", 1), ("UTC", 2)):
        costs = {"check_cost": 3.0, "saved_share": 1.0, "timezone": zone}
        assert ExpectedCostSaved._compute(columns, outputs, NONE, WHOLE, **costs) == -3.0 * checks
        fraud = {**columns, "label": np.array([0, 1])}
        caught = CardPrecisionAtK._compute(fraud, outputs, NONE, WHOLE, 1, 0.5, zone)
        assert caught == 1 / checks


@pytest.mark.parametrize(
    ("name", "rate", "sign", "of"),
    [
        ("recall_gap", metrics.recall_at_budget, -1, 1),
        ("false_positive_rate_gap", false_positive_rate, 1, 0),
    ],
)
def test_a_gap_is_how_much_worse_a_slice_is(world, results, name, rate, sign, of):
    reported = values(results, name)
    unjudged = 0
    for (where, model), value in reported.items():
        labels, _, alerts, _ = predictions(world, where, model)
        every_label, _, every_alert, _ = predictions(world, "{}", model)
        if np.sum(labels == of) < SPEC.min_slice_examples:
            assert value == UNJUDGED
            unjudged += 1
        else:
            gap = sign * (rate(labels, alerts) - rate(every_label, every_alert))
            assert value == pytest.approx(gap, abs=1e-6)
    assert unjudged < len(reported)
    assert (unjudged > 0) == (of == 1)  # some slices have fewer than 20 frauds


def verdict(world, tmp_path, **requirements):
    no_minimum = Evaluation(
        min_average_precision=0, min_roc_auc=0, min_recall_at_budget=0, alert_budget=7
    )
    config = evaluation.eval_config(DATASET, dataclasses.replace(no_minimum, **requirements))
    _, result, files = evaluate(world, tmp_path, EvaluatorExecutor, config, with_champion=False)
    failed = {
        (of_slice["sliceKey"]["singleSliceKeys"][0]["column"], failure["metricKey"]["name"])
        for of_slice in result.get("metricValidationsPerSlice", [])
        for failure in of_slice["failures"]
    }
    return files, failed


def test_a_large_gap_prevents_blessing(world, tmp_path):
    files, failed = verdict(
        world, tmp_path, max_slice_recall_gap=0.0, max_slice_fpr_gap=0.0, min_slice_examples=1
    )
    assert files == ["NOT_BLESSED"]
    assert {("BAND", "recall_gap"), ("BAND", "false_positive_rate_gap")} <= failed


def test_gaps_within_the_limits_are_blessed(world, tmp_path):
    files, failed = verdict(
        world, tmp_path, max_slice_recall_gap=1.0, max_slice_fpr_gap=1.0, min_slice_examples=1
    )
    assert files == ["BLESSED"]
    assert not failed


def test_small_slices_do_not_prevent_blessing(world, tmp_path):
    files, _ = verdict(
        world, tmp_path, max_slice_recall_gap=0.0, max_slice_fpr_gap=0.0, min_slice_examples=ROWS
    )
    assert files == ["BLESSED"]


def test_recall_at_budget_is_required(world, tmp_path):
    files, _ = verdict(world, tmp_path / "low", min_recall_at_budget=0.01)
    assert files == ["BLESSED"]
    config = evaluation.eval_config(DATASET, Evaluation(min_recall_at_budget=0.999))
    _, result, files = evaluate(world, tmp_path / "high", EvaluatorExecutor, config, False)
    assert files == ["NOT_BLESSED"]
    failed = [f["metricKey"]["name"] for f in result["metricValidationsPerSlice"][0]["failures"]]
    assert "recall_at_budget" in failed


def test_metrics_without_their_columns_are_left_out():
    dataset = dataclasses.replace(DATASET, entities=(), slices=())
    config = evaluation.eval_config(dataset, SPEC)
    left = [m.class_name for m in config.metrics_specs[2].metrics]
    assert left == ["BrierSkill", "ExpectedCalibrationError"]


@pytest.mark.parametrize(
    ("k", "share", "sampled", "checked"),
    [(100, 0.5, 0.125, 12), (100, 0.5, 0.0625, None), (0, 0.05, 0.5, 20), (0, 0.9, 0.5, 50)],
)
def test_card_precision_of_a_sample_checks_its_share_of_the_cards(k, share, sampled, checked):
    """Of 400 cards a day in the sample, 5 % of all are 40 or 20; at most 100 are checked."""
    random = np.random.default_rng(3)
    columns = {
        "label": (random.random(400) < 0.3).astype(int),
        "timestamp": np.zeros(400, int),
        "card": np.arange(400),
    }
    outputs = {SCORE: random.random(400)}
    sample = Sample(sampled, int(400 / sampled))
    value = CardPrecisionAtK._compute(columns, outputs, NONE, sample, k, share, "UTC")
    if checked is None:
        assert np.isnan(value)
    else:
        days = columns["timestamp"]
        expected = metrics.card_precision_at_k(
            columns["label"], outputs[SCORE], days, columns["card"], checked
        )
        assert value == expected


@pytest.mark.parametrize(("k", "share", "same_as"), [(7, 0.05, 7), (0, 0.1, 5), (0, 0.9, 45)])
def test_card_precision_of_a_budget_that_is_a_share_of_the_cards(k, share, same_as):
    random = np.random.default_rng(2)
    cards = np.tile(np.arange(50), 2)
    columns = {
        "label": (random.random(100) < 0.3).astype(int),
        "timestamp": np.repeat([0, SECONDS_PER_DAY], 50),
        "card": cards,
    }
    outputs = {SCORE: random.random(100)}
    value = CardPrecisionAtK._compute(columns, outputs, NONE, WHOLE, k, share, "UTC")
    expected = metrics.card_precision_at_k(
        columns["label"], outputs[SCORE], columns["timestamp"], cards, same_as
    )
    assert value == expected

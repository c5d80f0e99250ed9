"""Counting examples before TFMA sees them does not change its results."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from google.protobuf import json_format
from tensorflow_model_analysis.metrics import metric_types
from tfx.components.evaluator import executor as stock
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from fraud.codec import to_json
from fraud.features.spec import Dataset, Features
from fraud.models.evaluation import eval_config as evaluation
from fraud.models.evaluation import extractors as evaluation_extractors
from fraud.models.evaluation.extractors import SCORES
from fraud.models.evaluation.slice_data import ScoreHistogram, SliceData, SumSlice
from fraud.models.spec import Evaluation
from fraud.models.specification import EXTRA, SPECIFICATION_FILE, InputSpecification
from fraud.pipeline.components.batched_reading import EvaluatorExecutor
from fraud.time import SECONDS_PER_DAY

ROWS = 600
DATASET = Dataset(
    label="FRAUD", timestamp="TIME", entities=("CARD",), amount="SPENT", slices=("CHANNEL", "BAND")
)


class Model(tf.Module):
    """Raises the column RISK to a power and alerts from a limit on."""

    def __init__(self, power: float, limit: float) -> None:
        super().__init__()
        self.power, self.limit = tf.Variable(power), tf.Variable(limit)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def score(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        risk = tf.io.parse_example(examples, {"RISK": tf.io.FixedLenFeature([], tf.float32)})
        score = risk["RISK"] ** self.power
        return {"score": score, "alert": tf.cast(score >= self.limit, tf.float32)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Examples in two files, two models, and the columns of the examples as arrays."""
    directory = tmp_path_factory.mktemp("evaluation")
    rng = np.random.default_rng(3)
    label = (rng.random(ROWS) < 0.1).astype(int)
    risk = np.clip(rng.beta(1, 9, ROWS) + 0.35 * label * rng.random(ROWS), 0, 1)
    risk = risk.astype(np.float32)
    risk[:4] = 0, 1, 0.5, 0.5  # edges of buckets
    channel = rng.choice([b"web", "café".encode(), b""], ROWS)  # "": no value
    amount = rng.gamma(2, 30, ROWS).astype(np.float32)
    spent = np.where(rng.random(ROWS) < 0.1, np.nan, amount).astype(np.float32)
    time = 1_700_000_000 + rng.integers(0, 5 * SECONDS_PER_DAY, ROWS)
    card = rng.choice([b"a%d" % i for i in range(150)], ROWS)
    split = directory / "examples" / "Split-eval"
    split.mkdir(parents=True)
    for part in range(2):
        name = str(split / f"data_tfrecord-{part:05d}-of-00002.gz")
        with tf.io.TFRecordWriter(name, "GZIP") as writer:
            for i in range(part * ROWS // 2, (part + 1) * ROWS // 2):
                example = tf.train.Example()
                feature = example.features.feature
                feature["FRAUD"].int64_list.value.append(label[i])
                feature["RISK"].float_list.value.append(risk[i])
                feature["AMOUNT"].float_list.value.append(amount[i])
                feature["SPENT"].float_list.value.extend([spent[i]] if spent[i] >= 0 else [])
                feature["TIME"].int64_list.value.append(time[i])
                feature["CARD"].bytes_list.value.append(card[i])
                feature["BAND"].int64_list.value.append(i % 3)
                feature["CHANNEL"].bytes_list.value.extend([channel[i]] if channel[i] else [])
                writer.write(example.SerializeToString())
    for name, model in (("champion", Model(1.0, 0.3)), ("challenger", Model(0.5, 0.6))):
        tf.saved_model.save(model, str(directory / name / "Format-Serving"))
    return SimpleNamespace(
        directory=directory,
        label=label,
        risk=risk,
        channel=channel,
        amount=amount,
        spent=spent,
        time=time,
        card=card,
    )


def evaluate(
    world: SimpleNamespace,
    to: Path,
    executor: Any,
    config: tfma.EvalConfig,
    with_champion: bool = True,
) -> tuple[dict[Any, float], dict[str, Any], list[str]]:
    """Runs the Evaluator's executor.

    Returns:
      (slice, model, metric, is difference) → value; the validation result; the blessing's files.
    """

    def artifact(kind: Any, path: Path) -> Any:
        new = kind()
        new.uri, new.id = str(path), 1
        return new

    examples = artifact(standard_artifacts.Examples, world.directory / "examples")
    examples.split_names = '["eval"]'
    model = artifact(standard_artifacts.Model, world.directory / "challenger")
    baseline = artifact(standard_artifacts.Model, world.directory / "champion")
    ours = executor is EvaluatorExecutor
    executor().Do(
        {
            "examples": [examples],
            "model": [model],
            "baseline_model": [baseline] if with_champion else [],
        },
        {
            "evaluation": [artifact(standard_artifacts.ModelEvaluation, to / "evaluation")],
            "blessing": [artifact(standard_artifacts.ModelBlessing, to / "blessing")],
        },
        {
            "eval_config": proto_utils.proto_to_json(config),
            "example_splits": json.dumps(["eval"]),
            "module_path": evaluation_extractors.__name__ if ours else None,
        },
    )
    results = {}
    for of_slice in tfma.load_metrics(str(to / "evaluation")):
        where = json_format.MessageToJson(of_slice.slice_key)
        for pair in of_slice.metric_keys_and_values:
            key = pair.key
            results[where, key.model_name, key.name, key.is_diff] = pair.value.double_value.value
    validation = json_format.MessageToDict(tfma.load_validation_result(str(to / "evaluation")))
    return results, validation, sorted(file.name for file in (to / "blessing").iterdir())


@pytest.mark.parametrize(
    ("with_champion", "requirements", "blessing"),
    [
        (True, Evaluation(min_roc_auc=0.999), "NOT_BLESSED"),
        (False, Evaluation(min_average_precision=0.1, min_recall_at_budget=0), "BLESSED"),
    ],
)
def test_results_are_those_of_stock_tfma(
    world: SimpleNamespace,
    tmp_path: Path,
    with_champion: bool,
    requirements: Evaluation,
    blessing: str,
) -> None:
    config = evaluation.eval_config(DATASET, requirements)
    del config.metrics_specs[-3:]  # the metrics that TFMA lacks
    ours, verdict, files = evaluate(
        world, tmp_path / "ours", EvaluatorExecutor, config, with_champion
    )
    theirs, their_verdict, their_files = evaluate(
        world, tmp_path / "stock", stock.Executor, config, with_champion
    )
    assert files == their_files == [blessing]
    assert len({where for where, *_ in theirs}) == 6  # overall, two channels, three bands
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        exact = key[2] == "example_count"
        assert ours[key] == (value if exact else pytest.approx(value, abs=1e-6)), key
    assert _without_figures(verdict) == _without_figures(their_verdict)


def _without_figures(document: Any) -> Any:
    """The same document without its floating-point numbers."""
    if isinstance(document, dict):
        return {k: _without_figures(v) for k, v in document.items() if not isinstance(v, float)}
    if isinstance(document, list):
        # TFMA lists failures in arbitrary order.
        return sorted((_without_figures(v) for v in document), key=json.dumps)
    return document


class AlertedAmount(tfma.metrics.Metric):
    """Σ of a column over alerts: a metric that needs more than scores."""

    def __init__(self, column: str, name: str = "alerted_amount") -> None:
        super().__init__(_alerted_amount, column=column, name=name)


def _alerted_amount(
    column: str, name: str, model_names: list[str], example_weighted: bool
) -> list[Any]:
    preprocessor = metric_types.StandardMetricInputsPreprocessor(
        {tfma.FEATURES_KEY: {column: {}, SCORES: {}}}, include_default_inputs=False
    )
    return [
        metric_types.MetricComputation(
            keys=[key],
            preprocessors=[preprocessor],
            combiner=_SumAlerted(key, column),
        )
        for model in model_names
        for key in [metric_types.MetricKey(name, model, example_weighted=example_weighted)]
    ]


class _SumAlerted(beam.CombineFn):
    def __init__(self, key: Any, column: str) -> None:
        self.key, self.column = key, column

    def create_accumulator(self) -> float:
        return 0.0

    def add_input(self, accumulator: float, element: Any) -> float:
        alert = element.features[SCORES][self.key.model_name]["alert"]
        return accumulator + float(element.features[self.column] @ alert)

    def merge_accumulators(self, accumulators: Any) -> float:
        return sum(accumulators)

    def extract_output(self, accumulator: float) -> dict[Any, float]:
        return {self.key: accumulator}


def test_a_metric_gets_the_columns_it_requires(world: SimpleNamespace, tmp_path: Path) -> None:
    config = evaluation.eval_config(dataclasses.replace(DATASET, slices=("CHANNEL",)), Evaluation())
    custom = tfma.MetricConfig(
        class_name="AlertedAmount", module=__name__, config='{"column": "AMOUNT"}'
    )
    config.metrics_specs.append(tfma.MetricsSpec(metrics=[custom]))
    results, _, _ = evaluate(world, tmp_path, EvaluatorExecutor, config)
    sums = {
        (where, model): value
        for (where, model, name, is_diff), value in results.items()
        if name == "alerted_amount" and not is_diff
    }
    assert len(sums) == 6
    for (where, model), value in sums.items():
        alert = world.risk >= 0.3 if model == "champion" else world.risk**0.5 >= np.float32(0.6)
        if where != "{}":
            held = json.loads(where)["singleSliceKeys"][0]["bytesValue"]
            alert = alert & (world.channel == base64.b64decode(held))
        assert value == pytest.approx(world.amount[alert].sum(), rel=1e-5)


def test_an_example_without_label_is_an_error(world: SimpleNamespace, tmp_path: Path) -> None:
    dataset = dataclasses.replace(DATASET, label="CHANNEL")
    config = evaluation.eval_config(dataset, Evaluation())
    with pytest.raises(Exception, match=r"CHANNEL: \d+ values in 300 examples"):
        evaluate(world, tmp_path, EvaluatorExecutor, config)


def test_each_model_scores_the_inputs_it_was_trained_on(
    world: SimpleNamespace, tmp_path: Path
) -> None:
    """The champion's risks are the squares of the challenger's; they are within its examples."""
    ours, theirs = (InputSpecification(DATASET, Features(), delay) for delay in (7, 3))

    def squared(example: tf.train.Example) -> None:
        example.features.feature["RISK"].float_list.value[0] **= 2

    def embedded(example: tf.train.Example) -> None:
        own = tf.train.Example.FromString(example.SerializeToString())
        squared(own)
        inner = example.features.feature[theirs.column].bytes_list
        inner.value.append(own.SerializeToString())

    results = {}
    for name, change in (("plain", None), ("squared", squared), ("embedded", embedded)):
        directory = tmp_path / name
        shutil.copytree(world.directory, directory)
        for model, inputs in (("challenger", ours), ("champion", theirs)):
            extra = directory / model / "Format-Serving" / EXTRA
            extra.mkdir()
            (extra / SPECIFICATION_FILE).write_text(to_json(inputs))
        for file in (directory / "examples" / "Split-eval").iterdir():
            records = tf.data.TFRecordDataset(str(file), "GZIP").as_numpy_iterator()
            examples = [tf.train.Example.FromString(record) for record in records]
            with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
                for example in examples:
                    if change:
                        change(example)
                    writer.write(example.SerializeToString())
        config = evaluation.eval_config(DATASET, Evaluation())
        evaluated, _, _ = evaluate(
            SimpleNamespace(directory=directory), directory / "out", EvaluatorExecutor, config
        )
        results[name] = {key: value for key, value in evaluated.items() if not key[-1]}

    def of(name: str, model: str) -> dict[Any, float]:
        """The metrics of one model, without how they differ from the other's."""
        differences = (":change", ":drop")
        return {
            key: value
            for key, value in results[name].items()
            if key[1] == model and not any(of_both in key[2] for of_both in differences)
        }

    assert of("plain", "champion") != of("squared", "champion")
    assert of("embedded", "champion") == pytest.approx(of("squared", "champion"), nan_ok=True)
    assert of("embedded", "challenger") == pytest.approx(of("plain", "challenger"), nan_ok=True)


def test_parts_of_a_slice_sum_up_to_the_same_in_any_order() -> None:
    """Exactly, although floating-point sums and the order of rows depend on what comes first."""
    random = np.random.default_rng(5)
    parts = []
    for rows in (5, 300, 40, 40, 1000, 1):
        label, score = random.integers(0, 2, rows), random.random(rows).astype(np.float32) ** 9
        histogram = ScoreHistogram.of(label, score)
        columns = {"CARD": random.integers(0, 9, rows).astype(str).astype(object), "SPENT": score}
        histograms = {("", "score"): histogram}
        parts.append(SliceData(histograms, columns))
    results = []
    for order, first in (([0, 1, 2, 3, 4, 5], 3), ([5, 3, 1, 0, 2, 4], 1), ([4, 2, 0, 1, 3, 5], 6)):
        combine = SumSlice()
        bundles = []
        for bundle in (order[:first], order[first:]):
            accumulator = combine.create_accumulator()
            for number in bundle:
                accumulator = combine.add_input(accumulator, parts[number])
            bundles.append(accumulator)
        summed = combine.extract_output(combine.merge_accumulators(bundles))
        results.append(summed)
    one, *others = results
    assert len(one.columns["CARD"]) == 1386
    assert one.histograms["", "score"].examples.sum() == 1386
    for other in others:
        np.testing.assert_array_equal(one.columns["CARD"], other.columns["CARD"])
        assert one.columns["SPENT"].tobytes() == other.columns["SPENT"].tobytes()
        mine, theirs = one.histograms["", "score"], other.histograms["", "score"]
        assert mine.scores.tobytes() == theirs.scores.tobytes()


def test_scores_do_not_change_the_order_of_rows() -> None:
    """Else the metrics of a champion would depend a little on its challenger."""
    random = np.random.default_rng(6)
    cards = [random.integers(0, 9, 40).astype(str).astype(object) for _ in range(8)]
    orders = []
    for _ in range(2):
        parts = []
        for of_part in cards:
            score = random.random(40).astype(np.float32)
            histogram = ScoreHistogram.of(np.zeros(40), score)
            columns = {"CARD": of_part, ("challenger", "score"): score}
            parts.append(SliceData({("", "score"): histogram}, columns))
        orders.append(SliceData.sum(parts).columns["CARD"].tolist())
    assert orders[0] == orders[1]

"""ServingCheck with the real server: what it blesses, and what it refuses."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from fraud.codec import to_json
from fraud.features.batch import calendar_features
from fraud.features.spec import Dataset, Features
from fraud.models.specification import EXTRA, SPECIFICATION_FILE, InputSpecification
from fraud.pipeline.components.serving_check import check_serving
from tests.fraud.test_tracing import collector
from tests.serving.exported import export_model
from tests.serving.models import of_default_features

__all__ = ["collector"]  # a fixture
TIMES = 2_000_000_000  # in the year 2033: such data may be simulated


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checked") / "model"
    return export_model(folder, of_default_features(categorical=("CHANNEL",), slices=("COUNTRY",)))


def write_examples(path, rows):
    with tf.io.TFRecordWriter(str(path), "GZIP") as file:
        for row in rows:
            example = tf.train.Example()
            for name, value in row.items():
                feature = example.features.feature[name]
                if isinstance(value, bytes):
                    feature.bytes_list.value.append(value)
                elif isinstance(value, int):
                    feature.int64_list.value.append(value)
                elif value is not None:
                    feature.float_list.value.append(value)
            file.write(example.SerializeToString())
    return str(path)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    random = np.random.default_rng(1)
    times = (TIMES + random.integers(0, 3 * 86_400, 60)).astype("datetime64[s]")
    calendar = calendar_features(Features(), Dataset(), times.astype("datetime64[us]"))
    rows = [
        {
            "TRANSACTION_ID": number,
            "TX_DATETIME": int(times[number].astype(int)),
            **{name: float(values[number]) for name, values in calendar.items()},
            "CUSTOMER_ID": int(random.integers(0, 5)),
            "TERMINAL_ID": b"00%d" % random.integers(0, 5),
            "TX_AMOUNT": None if number % 9 == 0 else float(random.lognormal(3)),
            "CHANNEL": b"web" if number % 3 else None,
            "COUNTRY": b"CH",
            "CUSTOMER_ID_count_1d": 3.0,
            "TX_FRAUD": 0,
        }
        for number in range(60)
    ]
    return write_examples(tmp_path_factory.mktemp("examples") / "examples.gz", rows)


def test_a_model_that_answers_as_it_must_is_blessed_and_no_client_is_traced(
    model, examples, collector, monkeypatch
):
    for name, value in collector.environment.items():
        monkeypatch.setenv(name, value)
    inputs = to_json(InputSpecification.read(model))
    answer = check_serving(str(model), examples, 50, 60_000, inputs)
    assert answer.keys() == {"examples", "seconds", "latency_ms"}, answer
    assert answer["examples"] == 50
    assert 0 < answer["latency_ms"] < 60_000
    assert collector.spans == []


def test_data_may_have_label_times_and_a_format_of_times(tmp_path, examples):
    specification = of_default_features(
        categorical=("CHANNEL",), label_time="KNOWN_AT", time_format="%d.%m.%Y %H:%M:%S"
    )
    model = export_model(tmp_path / "model", specification)
    answer = check_serving(str(model), examples, 30, 60_000)
    assert answer.get("examples") == 30, answer


def test_a_model_that_records_other_definitions_than_those_of_its_examples_is_refused(
    model, examples, tmp_path
):
    fooling = tmp_path / "fooling"
    shutil.copytree(model, fooling)
    path = fooling / EXTRA / SPECIFICATION_FILE
    changed = json.loads(path.read_text())
    changed["dataset"]["timezone"] = "Asia/Tokyo"
    path.write_text(json.dumps(changed))
    answer = check_serving(str(fooling), examples, 30, 60_000)
    assert "is not that of the examples" in answer["error"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_delay_days": 3}, "another label_delay_days than its examples .*: 7 instead of 3"),
        ({"features": Features(normal_days=7)}, "another features than its examples"),
    ],
)
def test_a_model_that_records_another_delay_than_that_of_its_examples_is_refused(
    model, change, message
):
    used = replace(InputSpecification.read(model), **change)
    answer = check_serving(str(model), "none.gz", 30, 60_000, to_json(used))
    assert re.search(message, answer["error"])


def test_a_slow_model_is_refused(model, examples):
    answer = check_serving(str(model), examples, 3, 0.001)
    assert "more than serving.max_latency_ms, 0.001" in answer["error"]


def test_a_file_without_examples_is_reported(model, tmp_path):
    answer = check_serving(str(model), write_examples(tmp_path / "none.gz", []), 50, 1000)
    assert answer["error"].endswith("has no examples")


def simple_model(folder, by_example, by_name, explained):
    """A model of one number without time, whose signatures are the given functions of it."""
    spec = {"a": tf.io.FixedLenFeature([1], tf.float32)}
    from_examples = [tf.TensorSpec([None], tf.string, name="examples")]

    def of_examples(function):
        def parsed(examples):
            return function(tf.reshape(tf.io.parse_example(examples, spec)["a"], [-1]))

        return tf.function(parsed, input_signature=from_examples)

    signatures = {
        "serving_default": of_examples(by_example),
        "explain": of_examples(explained),
        "predict": tf.function(by_name).get_concrete_function(
            a=tf.TensorSpec([None], tf.float32, name="a")
        ),
    }
    tf.saved_model.save(tf.Module(), str(folder), signatures)
    (folder / EXTRA).mkdir()
    (folder / EXTRA / "inputs.json").write_text('{"a": "a"}')
    dataset = Dataset(timestamp=None, amount="a", id="n", entities=())
    inputs = InputSpecification(dataset, Features(calendar=(), groups=()), 7)
    (folder / EXTRA / SPECIFICATION_FILE).write_text(to_json(inputs))
    return str(folder)


def score(a):
    share = tf.where(tf.math.is_nan(a), 0.5, tf.sigmoid(a / 100))
    return {"score": share, "alert": tf.cast(share > 0.6, tf.float32)}


def reasons(a):
    rows = tf.shape(a)[0]
    return {"reason": tf.fill([rows, 1], "a"), "contribution": tf.ones([rows, 1])}


def explained(a):
    return {**score(a), **reasons(a)}


@pytest.fixture
def few(tmp_path):
    rows = [{"n": number, "a": float(number)} for number in range(5)]
    return write_examples(tmp_path / "few.gz", rows)


def test_data_without_times_needs_no_state(tmp_path, few):
    folder = simple_model(tmp_path / "model", score, score, explained)
    answer = check_serving(folder, few, 5, 60_000)
    assert answer.get("examples") == 5, answer


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda a: {**score(a), "score": a * float("nan")}, "the server refuses it: warm-up of"),
        (
            lambda a: {**score(a), "score": tf.random.uniform(tf.shape(a))},
            "raw transactions: the server's scores differ from the model's by up to",
        ),
    ],
)
def test_scores_that_are_not_those_of_the_model_are_refused(tmp_path, few, broken, message):
    folder = simple_model(tmp_path / "model", score, broken, explained)
    assert message in check_serving(folder, few, 5, 60_000).get("error", "")


def test_reasons_of_another_score_are_refused(tmp_path, few):
    def other(a):
        return {"score": score(a)["score"] * 0.9, "alert": a, **reasons(a)}

    folder = simple_model(tmp_path / "model", score, score, other)
    assert "explain: the score is" in check_serving(folder, few, 5, 60_000).get("error", "")

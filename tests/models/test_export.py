"""The exported model, loaded by a new process, compared with the scores of training."""

import base64
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata
from tensorflow_transform.tf_metadata.metadata_io import write_metadata

from fraud.models.columns import ModelColumns
from fraud.models.examples import Examples
from fraud.models.export import ServedModel
from fraud.models.network import training
from fraud.models.network.explain import Explainer, typical_genuine
from fraud.models.preprocessing import in_memory
from fraud.models.spec import AlertBudget, Network
from fraud.models.warmup import WARMUP_FILE, first_examples, write_warmup_requests
from fraud.names import input_name
from fraud.serving.models import LoadedModel
from fraud.serving.session import Session

COLUMNS = ModelColumns(("3ds", "age of account"), ("channel",), "fraud", "time", "card")
SPEC = Network(
    bins=8, towers=((32, 16),), epochs=3, batch_size=64, learning_rate=0.02, vocabulary_size=2
)

SCORE = """
import base64, json, sys
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
rows = json.load(open(sys.argv[2]))
examples = [base64.b64decode(example) for example in rows["examples"]]
by_example = model.signatures["serving_default"]
predict = model.signatures["predict"]
columns = {name: rows[name] for name in predict.structured_input_signature[1]}
def scores(function, **inputs):
    return function(**inputs)["score"].numpy().tolist()
def by_name(some):
    return scores(predict, **{name: tf.constant(values[some]) for name, values in columns.items()})
all_rows = slice(None)
print(json.dumps({
    "examples, one batch": scores(by_example, examples=tf.constant(examples)),
    "examples, one by one": [scores(by_example, examples=tf.constant([e]))[0] for e in examples],
    "columns, one batch": by_name(all_rows),
    "columns, one by one": [by_name(slice(i, i + 1))[0] for i in range(len(examples))],
}))
"""


def transactions(rows, seed):
    random = np.random.default_rng(seed)
    amount = random.uniform(0, 100, rows).astype(np.float32)
    risk = random.exponential(1, rows).astype(np.float32)
    risk[random.random(rows) < 0.2] = np.nan
    channels = np.array([b"shop", b"web", b"phone", b""], object)
    frauds = random.random(rows) < 0.3 * (amount > 80) + 0.3 * (risk > 2)
    return {
        "3ds": amount,
        "age of account": risk,
        "channel": channels[random.integers(0, 4, rows)],
        "fraud": frauds.astype(np.int64),
    }


def as_example(columns, row):
    example = tf.train.Example()
    for name in ("3ds", "age of account"):
        example.features.feature[name].float_list.value.append(columns[name][row])
    example.features.feature["channel"].bytes_list.value.append(columns["channel"][row])
    return example.SerializeToString()


def _write_input_columns(directory):
    """Writes the raw metadata as the component Transform does."""
    types = {
        "3ds": tf.float32,
        "age of account": tf.float32,
        "channel": tf.string,
        "fraud": tf.int64,
    }
    spec = {name: tf.io.FixedLenFeature([1], type_) for name, type_ in types.items()}
    path = directory / tft.TFTransformOutput.RAW_METADATA_DIR
    write_metadata(DatasetMetadata.from_feature_spec(spec), str(path))


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A folder with the exported model, and the scores of new transactions: of the network in this
    process, and of the exported model by each way of calling it.
    """
    folder = tmp_path_factory.mktemp("served")
    old, new = transactions(5000, 0), transactions(300, 1)
    preprocessing = in_memory.learn(old, COLUMNS, SPEC, str(folder / "transform"))
    _write_input_columns(folder / "transform")
    number = np.arange(5000)
    train = Examples(preprocessing(old), old["fraud"], number * 60, number % 400)
    fitted = training.fit(SPEC, train, preprocessing.vocabularies, AlertBudget(20))
    typical = typical_genuine(train.inputs, train.labels)
    explainer = Explainer(fitted.model, typical, COLUMNS.numeric, COLUMNS.categorical)
    model = ServedModel(fitted, explainer, preprocessing.transform, COLUMNS)
    model.save(str(folder / "model"))
    examples = [as_example(new, row) for row in range(300)]
    rows = {"examples": [base64.b64encode(example).decode() for example in examples]}
    for column in ("3ds", "age of account"):
        rows[input_name(column)] = new[column].tolist()
    rows["channel"] = [channel.decode() for channel in new["channel"]]
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    command = [sys.executable, "-I", "-c", SCORE, str(folder / "model"), str(folder / "rows.json")]
    process = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert process.returncode == 0, process.stderr
    with tf.io.TFRecordWriter(str(folder / "examples.gz"), "GZIP") as file:
        for example in examples:
            file.write(example)
    return folder, fitted.scores(preprocessing(new)), json.loads(process.stdout)


def test_a_new_process_scores_as_training_did_one_by_one_and_in_a_batch(scored):
    _, expected, by_way = scored
    assert expected.std() > 0.05
    assert len(by_way) == 4
    for way, scores in by_way.items():
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5, err_msg=way)


def test_tensorflow_servings_loader_restores_the_same_model(scored):
    """Unlike Python's, it reads the graph alone: a variable that is not restored is missed."""
    folder, expected, _ = scored
    rows = json.loads((folder / "rows.json").read_text())
    examples = np.array([base64.b64decode(example) for example in rows["examples"]], object)
    session = Session(folder / "model")
    try:
        by_example = session.function("serving_default")(examples=examples)["score"]
        np.testing.assert_allclose(by_example, expected, rtol=0, atol=1e-5)
        columns = {
            name: np.array([v.encode() for v in rows[name]], object)
            if tensor.is_text
            else np.array(rows[name], np.float32)
            for name, tensor in session.function("predict").inputs.items()
        }
        by_column = session.function("predict")(**columns)["score"]
        np.testing.assert_allclose(by_column, expected, rtol=0, atol=1e-5)
        explained = session.function("explain")(examples=examples[:3])
        assert set(explained["reason"].ravel()) <= {b"3ds", b"age of account", b"channel"}
    finally:
        session.close()


def test_warm_up_requests_are_of_real_examples_and_for_all_signatures(scored, tmp_path):
    folder, *_ = scored
    model = shutil.copytree(folder / "model", tmp_path / "7")
    examples = first_examples([str(folder / "examples.g*")], 5)
    assert len(examples) == 5
    types = {"3ds": tf.float32, "age of account": tf.float32, "channel": tf.string}
    write_warmup_requests(model, examples, types)
    records = tf.data.TFRecordDataset(str(model / "assets.extra" / WARMUP_FILE))
    logs = [prediction_log_pb2.PredictionLog.FromString(r.numpy()) for r in records]
    requests = [log.predict_log.request for log in logs]
    signatures = [request.model_spec.signature_name for request in requests]
    assert signatures == ["explain", *["serving_default", "predict"] * 2]
    rows = json.loads((folder / "rows.json").read_text())
    sent = tf.make_ndarray(requests[-1].inputs["age_of_account"])
    np.testing.assert_array_equal(sent, np.float32(rows["age_of_account"][:5]))
    sent = tf.make_ndarray(requests[-1].inputs["channel"])
    assert [text.decode() for text in sent] == rows["channel"][:5]
    loaded = LoadedModel(model)
    assert loaded.warm_up() == 5
    loaded.close()


def test_the_input_names_of_the_columns_are_beside_the_graph(scored):
    folder, *_ = scored
    names = json.loads((folder / "model" / "assets.extra" / "inputs.json").read_text())
    assert names == {"age of account": "age_of_account", "3ds": "column_3ds", "channel": "channel"}

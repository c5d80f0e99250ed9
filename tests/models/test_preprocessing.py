"""Preprocessing as Transform runs it: analysed by Beam, applied as a graph."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from models import preprocessing
from models.columns import ModelColumns
from models.spec import Network
from pipeline.config import to_json

COLUMNS = ModelColumns(
    ("amount", "rate", "genuine_only", "never"), ("channel",), "fraud", None, None
)
NETWORK = Network(bins=8, vocabulary=2, out_of_vocabulary=3)


@pytest.fixture(scope="module")
def transactions():
    random = np.random.default_rng(5)
    fraud = (random.random(4000) < 0.02).astype(int)
    amount = np.exp(random.normal(3 + 2 * fraud, 1))
    rate = np.where(random.random(4000) < 0.9, 0.0, random.random(4000))
    channel = random.choice(["chip", "online", "rare"], 4000, p=[0.6, 0.35, 0.05])
    rows = [
        {
            **{"fraud": [int(f)], "amount": [a], "rate": [r], "channel": [c]},
            **{"genuine_only": [] if f else [a], "never": []},
        }
        for f, a, r, c in zip(fraud, amount, rate, channel, strict=True)
    ]
    rows[0]["amount"], rows[1]["channel"] = [], []
    return rows


@pytest.fixture(scope="module")
def transform(transactions, tmp_path_factory):
    spec = {
        "fraud": tf.io.VarLenFeature(tf.int64),
        "amount": tf.io.VarLenFeature(tf.float32),
        "rate": tf.io.VarLenFeature(tf.float32),
        "genuine_only": tf.io.VarLenFeature(tf.float32),
        "never": tf.io.VarLenFeature(tf.float32),
        "channel": tf.io.VarLenFeature(tf.string),
    }
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    custom = {"columns": to_json(COLUMNS), "network": to_json(NETWORK)}
    folder = tmp_path_factory.mktemp("transform")
    with tft_beam.Context(temp_dir=str(folder / "tmp")):
        function = (transactions, metadata) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing.preprocessing_fn(inputs, custom)
        )
        function | tft_beam.WriteTransformFn(str(folder))
    return tft.TFTransformOutput(str(folder))


def applied(transform, rows):
    def sparse(name, dtype):
        index = [[i, 0] for i, row in enumerate(rows) if row.get(name)]
        values = [row[name][0] for row in rows if row.get(name)]
        return tf.SparseTensor(
            np.array(index, np.int64).reshape(-1, 2), tf.constant(values, dtype), [len(rows), 1]
        )

    columns = {**dict.fromkeys(COLUMNS.numeric, tf.float32), "channel": tf.string}
    layer = transform.transform_features_layer()
    out = layer({name: sparse(name, dtype) for name, dtype in columns.items()})
    return {name: tensor.numpy() for name, tensor in out.items()}


def test_positions_rise_with_the_value_and_span_the_bins(transform, transactions):
    found = applied(transform, transactions)["numeric"]
    amounts = np.array([row["amount"][0] if row["amount"] else np.nan for row in transactions])
    order = np.argsort(amounts[1:]) + 1
    assert (np.diff(found[order, 0]) >= 0).all()
    assert found[order[0], 0] == 0
    assert found[order[-1], 0] == NETWORK.bins


def test_a_column_without_a_value_in_any_fraud_or_any_row_is_no_obstacle(transform, transactions):
    found = applied(transform, transactions)["numeric"]
    has_value = np.array([bool(row["genuine_only"]) for row in transactions])
    assert set(found[~has_value, 2]) == {preprocessing.MISSING}
    assert len(set(found[has_value, 2])) > 1000
    assert set(found[:, 3]) == {preprocessing.MISSING}


def test_half_of_the_bins_are_spent_on_frauds(transform, transactions):
    """2 % of the rows, but far more than 2 % of the bins lie where their amounts are."""
    found = applied(transform, transactions)["numeric"][:, 0]
    fraud = np.array([row["fraud"][0] for row in transactions], bool)
    assert np.median(found[fraud]) > 0.6 * NETWORK.bins


def test_a_common_value_does_not_swallow_the_bins(transform, transactions):
    """Nine in ten rates are 0; the others still spread over the bins."""
    found = applied(transform, transactions)["numeric"][:, 1]
    rates = np.array([row["rate"][0] for row in transactions])
    assert (found[rates == 0] == found[rates == 0][0]).all()
    assert np.unique(np.floor(found[rates > 0])).size >= NETWORK.bins - 2


def test_missing_is_a_signal_of_its_own(transform):
    found = applied(transform, [{"channel": ["chip"]}, {"amount": [3.0], "rate": [0.5]}])
    assert found["numeric"][0].tolist() == [-1] * 4
    assert (found["numeric"][1, :2] >= 0).all()
    assert found["categorical"][1].tolist() == [0]


def test_categories_are_vocabulary_then_buckets_of_the_unseen(transform):
    rows = [{"channel": [c]} for c in ("chip", "online", "rare", "never seen")]
    index = applied(transform, rows)["categorical"][:, 0]
    assert sorted(index[:2]) == [1, 2]
    assert (index[2:] > 2).all()
    size = preprocessing.vocabulary_sizes(transform, COLUMNS, NETWORK)["channel"]
    assert size == 1 + 2 + 3
    assert (index < size).all()


def test_edges_need_no_label_where_the_model_is_served(transform):
    assert dataclasses.asdict(COLUMNS)["label"] == "fraud"
    assert applied(transform, [{"amount": [20.0]}])["numeric"].shape == (1, 4)

"""Preprocessing: learned, saved as by Transform, and applied as a graph."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from fraud.codec import to_json
from fraud.models.columns import ModelColumns
from fraud.models.preprocessing.analysis import Analyzer
from fraud.models.preprocessing.transform_fn import MISSING, positions, vocabulary_sizes
from fraud.models.preprocessing.transform_graph import TransformGraph, write_transform_graph
from fraud.models.spec import Network

COLUMNS = ModelColumns(
    ("amount", "rate", "genuine_only", "never"), ("channel",), "fraud", None, None
)
NETWORK = Network(bins=8, vocabulary_size=2, oov_buckets=3)


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


def columns_of(rows):
    """The rows as columns of the model."""
    return {
        **{
            c: np.array([(row.get(c) or [np.nan])[0] for row in rows], np.float32)
            for c in COLUMNS.numeric
        },
        "channel": np.array([(row.get("channel") or [""])[0].encode() for row in rows], object),
        "fraud": np.array([(row.get("fraud") or [0])[0] for row in rows]),
    }


def write(folder, rows, columns=COLUMNS):
    Analyzer(columns, NETWORK).add(columns_of(rows)).analysis().write(folder / "analysis")
    config = {"columns": to_json(columns), "network": to_json(NETWORK)}
    return write_transform_graph(str(folder / "graph"), folder / "analysis", config)


@pytest.fixture(scope="module")
def transform(transactions, tmp_path_factory):
    return write(tmp_path_factory.mktemp("transform"), transactions)


def applied(transform, rows):
    columns = columns_of(rows)
    inputs = {
        name: tf.constant(columns[name].reshape(-1, 1)) for name in (*COLUMNS.numeric, "channel")
    }
    outputs = TransformGraph(transform)(inputs)
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def test_positions_rise_with_the_value_and_span_the_bins(transform, transactions):
    outputs = applied(transform, transactions)["numeric"]
    amounts = np.array([row["amount"][0] if row["amount"] else np.nan for row in transactions])
    order = np.argsort(amounts[1:]) + 1
    assert (np.diff(outputs[order, 0]) >= 0).all()
    assert outputs[order[0], 0] == 0
    assert outputs[order[-1], 0] == NETWORK.bins


def test_a_column_may_lack_values_in_all_frauds_or_all_rows(transform, transactions):
    outputs = applied(transform, transactions)["numeric"]
    has_value = np.array([bool(row["genuine_only"]) for row in transactions])
    assert set(outputs[~has_value, 2]) == {MISSING}
    assert len(set(outputs[has_value, 2])) > 1000
    assert set(outputs[:, 3]) == {MISSING}


def test_half_of_the_bins_are_spent_on_frauds(transform, transactions):
    """Frauds are 2 % of the rows, but their amounts span far more than 2 % of the bins."""
    outputs = applied(transform, transactions)["numeric"][:, 0]
    fraud = np.array([row["fraud"][0] for row in transactions], bool)
    assert np.median(outputs[fraud]) > 0.5 * NETWORK.bins


def test_a_common_value_does_not_use_up_the_bins(transform, transactions):
    """Nine in ten rates are 0; the others still spread over the bins."""
    outputs = applied(transform, transactions)["numeric"][:, 1]
    rates = np.array([row["rate"][0] for row in transactions])
    assert (outputs[rates == 0] == outputs[rates == 0][0]).all()
    assert np.unique(np.floor(outputs[rates > 0])).size >= NETWORK.bins - 2


def test_missing_values_have_codes_of_their_own(transform):
    outputs = applied(transform, [{"channel": ["chip"]}, {"amount": [3.0], "rate": [0.5]}])
    assert outputs["numeric"][0].tolist() == [-1] * 4
    assert (outputs["numeric"][1, :2] >= 0).all()
    assert outputs["categorical"][1].tolist() == [0]


def test_categories_are_vocabulary_then_buckets_of_the_unseen(transform):
    rows = [{"channel": [c]} for c in ("chip", "online", "rare", "never seen")]
    index = applied(transform, rows)["categorical"][:, 0]
    assert sorted(index[:2]) == [1, 2]
    assert (index[2:] > 2).all()
    size = vocabulary_sizes(transform, COLUMNS, NETWORK)["channel"]
    assert size == 1 + 2 + 3
    assert (index < size).all()


def test_the_graph_needs_no_label(transform):
    assert dataclasses.asdict(COLUMNS)["label"] == "fraud"
    assert applied(transform, [{"amount": [20.0]}])["numeric"].shape == (1, 4)


def test_a_column_may_have_no_words(transactions, tmp_path):
    silent = write(tmp_path, [{**row, "channel": []} for row in transactions[:50]])
    rows = [{"channel": []}, {"channel": ["chip"]}]
    index = applied(silent, rows)["categorical"][:, 0]
    size = vocabulary_sizes(silent, COLUMNS, NETWORK)["channel"]
    assert index[0] == 0
    assert 0 < index[1] < size


def test_positions_are_the_share_of_bins_below_where_edges_coincide_too():
    """By definition, a position is the sum over all bins of the share of each below the value."""
    random = np.random.default_rng(0)
    edges = np.sort(random.integers(0, 6, (5, 9)).astype(np.float32), axis=1)
    edges[3] = 2
    x = random.integers(-1, 8, (3000, 5)).astype(np.float32)
    x[::2] += random.random((1500, 5))
    x[:3] = [[np.nan], [np.inf], [-np.inf]]
    low, width = edges[:, :-1], np.maximum(np.diff(edges, axis=1), 1e-9)
    expected = np.clip((x[:, :, np.newaxis] - low) / width, 0, 1).sum(axis=2)
    expected[0] = MISSING
    actual = positions(tf.constant(x), edges).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_a_column_wider_than_the_largest_float32_has_positions():
    """The width of its only bin overflows, so no number of the network's may depend on it."""
    largest = np.finfo(np.float32).max
    edges = np.array([[-largest, largest]], np.float32)
    x = np.array([[-np.inf], [-largest], [0], [largest / 2], [largest], [np.inf]], np.float32)
    actual = positions(tf.constant(x), edges).numpy()
    np.testing.assert_allclose(actual[:, 0], [0, 0, 0.5, 0.75, 1, 1])

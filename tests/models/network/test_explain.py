import keras
import numpy as np
import pytest
import tensorflow as tf

from fraud.models.network import explain
from fraud.models.network.architecture import LOGIT, build_network
from fraud.models.spec import ResolvedNetwork


@pytest.fixture(scope="module")
def explainer():
    spec = ResolvedNetwork(bins=6, towers=((16, 8), (4,)), members=2, embedding_dim=3)
    model = build_network(spec, 3, {"channel": 5, "country": 40})
    random = np.random.default_rng(2)
    model.set_weights([random.normal(0, 0.5, w.shape) for w in model.get_weights()])
    typical = {"numeric": np.full((1, 3), 2.0, np.float32), "categorical": np.array([[1, 1]])}
    names = ("amount", "rate", "count"), ("channel", "country")
    return model, explain.Explainer(model, typical, *names)


@pytest.fixture(scope="module")
def transactions():
    random = np.random.default_rng(7)
    numeric = random.uniform(0, 6, (200, 3)).astype(np.float32)
    numeric[random.random((200, 3)) < 0.1] = -1
    categorical = np.stack([random.integers(0, 5, 200), random.integers(0, 4, 200)], 1)
    return {"numeric": tf.constant(numeric), "categorical": tf.constant(categorical)}


def test_contributions_add_up_to_the_difference_of_the_logits(explainer, transactions):
    model, explained = explainer
    contributions, typical = explained.contributions(transactions)
    assert contributions.shape == (200, 5)
    logit = keras.Model(model.inputs, model.get_layer(LOGIT).output)
    difference = logit(transactions)[:, 0] - typical
    np.testing.assert_allclose(tf.reduce_sum(contributions, 1), difference, atol=0.02)
    assert np.abs(difference).max() > 0.5


def test_a_column_as_in_the_typical_transaction_contributes_nothing(explainer):
    _, explained = explainer
    one = {"numeric": tf.constant([[2.0, 5.5, 2.0]]), "categorical": tf.constant([[1, 3]])}
    contributions = explained.contributions(one)[0].numpy()[0]
    assert contributions[[0, 2, 3]].tolist() == [0, 0, 0]
    assert (contributions[[1, 4]] != 0).all()


def test_reasons_name_the_strongest_columns_first(explainer, transactions):
    _, explained = explainer
    reasons = explained.reasons(transactions)
    contributions = explained.contributions(transactions)[0].numpy()
    names = np.array(["amount", "rate", "count", "channel", "country"])
    expected = names[np.argsort(-contributions, axis=1)]
    assert (reasons["reason"].numpy().astype(str) == expected).all()
    assert (np.diff(reasons["contribution"].numpy(), axis=1) <= 0).all()


def test_the_typical_transaction_is_genuine_and_ordinary():
    inputs = {
        "numeric": np.array([[1.0, 9], [2, 9], [3, 9], [100, 0]]),
        "categorical": np.array([[2], [2], [0], [1]]),
    }
    typical = explain.typical_genuine(inputs, np.array([0, 0, 0, 1]))
    assert typical["numeric"].tolist() == [[2.0, 9.0]]
    assert typical["categorical"].tolist() == [[2]]

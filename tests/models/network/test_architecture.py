import keras
import numpy as np
import pytest

from fraud.models.network import architecture as network
from fraud.models.spec import Network

SMALL = Network(bins=4, towers=((8,),), embedding_dim=2)


def test_piecewise_linear_encoding_of_positions():
    layer = network.PiecewiseLinear(3)
    encoded = keras.ops.convert_to_numpy(layer(np.array([[0.0], [1.25], [3.0], [-1.0]], "float32")))
    expected = [[0, 0, 0, 0], [1, 0.25, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(encoded, expected)


def test_a_network_scores_numeric_and_categorical_columns():
    model = network.build(SMALL, 3, {"channel": 7, "country": 9})
    inputs = {
        "numeric": np.array([[0.5, 1, -1], [4, 0, 2]], "float32"),
        "categorical": np.array([[0, 8], [6, 0]]),
    }
    scores = keras.ops.convert_to_numpy(model(inputs))
    assert scores.shape == (2, 1)
    assert ((scores > 0) & (scores < 1)).all()


@pytest.mark.parametrize("towers", [((),), ((4, 4, 4),), ((4,), (8, 2))])
def test_sizes_come_from_the_configuration(towers):
    model = network.build(Network(bins=4, towers=towers), 2, {})
    hidden = [layer.units for layer in model.layers if "hidden" in layer.name]
    assert sorted(hidden) == sorted(units for tower in towers for units in tower)


def test_calibration_brings_probabilities_to_what_happens():
    random = np.random.default_rng(1)
    model = network.build(SMALL, 1, {})
    logit = random.normal(0, 2, 200_000)
    labels = (random.random(logit.size) < 1 / (1 + np.exp(-(0.5 * logit - 2)))).astype(int)
    network.calibrate(model, logit, labels)
    slope, intercept = (float(w) for w in model.get_layer("score").get_weights())
    assert slope == pytest.approx(0.5, abs=0.02)
    assert intercept == pytest.approx(-2, abs=0.03)


@pytest.mark.parametrize("labels", [np.zeros(50), np.ones(50), np.arange(50) < 25])
def test_calibration_never_turns_the_ranking_round_and_stays_finite(labels):
    model = network.build(SMALL, 1, {})
    network.calibrate(model, np.linspace(-3, 3, 50), labels.astype(int))
    slope, intercept = model.get_layer("score").get_weights()
    assert slope > 0
    assert np.isfinite([slope, intercept]).all()

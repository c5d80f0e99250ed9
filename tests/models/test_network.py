import keras
import numpy as np
import pytest

from models import network
from models.spec import Network

SMALL = Network(bins=4, layers=(8,), embedding=2)


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


@pytest.mark.parametrize("layers", [(), (4, 4, 4)])
def test_sizes_come_from_the_configuration(layers):
    model = network.build(Network(bins=4, layers=layers), 2, {})
    hidden = [layer for layer in model.layers if layer.name.startswith("hidden")]
    assert [layer.units for layer in hidden] == list(layers)

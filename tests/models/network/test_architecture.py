import keras
import numpy as np
import pytest

from fraud.models.network.architecture import PiecewiseLinear, build_network
from fraud.models.spec import Network

SMALL = Network(bins=4, towers=((8,),), embedding_dim=2)


def test_piecewise_linear_encoding_of_positions():
    layer = PiecewiseLinear(3)
    encoded = keras.ops.convert_to_numpy(layer(np.array([[0.0], [1.25], [3.0], [-1.0]], "float32")))
    expected = [[0, 0, 0, 0], [1, 0.25, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(encoded, expected)


def test_a_network_scores_numeric_and_categorical_columns():
    model = build_network(SMALL, 3, {"channel": 7, "country": 9})
    inputs = {
        "numeric": np.array([[0.5, 1, -1], [4, 0, 2]], "float32"),
        "categorical": np.array([[0, 8], [6, 0]]),
    }
    scores = keras.ops.convert_to_numpy(model(inputs))
    assert scores.shape == (2, 1)
    assert ((scores > 0) & (scores < 1)).all()


@pytest.mark.parametrize("towers", [((),), ((4, 4, 4),), ((4,), (8, 2))])
def test_sizes_come_from_the_configuration(towers):
    model = build_network(Network(bins=4, towers=towers), 2, {})
    hidden = [layer.units for layer in model.layers if "hidden" in layer.name]
    assert sorted(hidden) == sorted(units for tower in towers for units in tower)

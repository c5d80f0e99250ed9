import dataclasses

import keras
import numpy as np
import pytest

from fraud.models.network.architecture import (
    ENCODED,
    ColumnDropout,
    Members,
    PiecewiseLinear,
    build_network,
    category_layer,
    member_logits,
)
from fraud.models.spec import ResolvedNetwork

SMALL = ResolvedNetwork(bins=4, towers=((8,),), embedding_dim=2)


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


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("towers", [((),), ((4, 4, 4),), ((4,), (8, 2))])
def test_sizes_come_from_the_configuration(towers, members):
    model = build_network(ResolvedNetwork(bins=4, towers=towers, members=members), 2, {})
    built = [layer for layer in model.layers if isinstance(layer, Members)]
    for hidden, layer in zip(towers, built, strict=True):
        units = (*hidden, 1)
        assert [kernel.shape[-1] for kernel in layer.kernels] == list(units)
        assert layer.kernels[0].shape == (10, members, units[0])


def test_members_are_separate_networks_and_their_mean_probability_is_the_score():
    model = build_network(ResolvedNetwork(bins=4, towers=((8, 4),), members=3), 2, {})
    inputs = {"numeric": np.random.default_rng(0).uniform(0, 4, (50, 2)).astype("float32")}
    layer = model.get_layer("tower_0")
    encoded = PiecewiseLinear(4)(inputs["numeric"]).numpy()
    probabilities = []
    for member in range(3):
        x = encoded
        for i, (kernel, bias) in enumerate(zip(layer.kernels, layer.biases, strict=True)):
            weights = kernel.numpy()[:, member] if i == 0 else kernel.numpy()[member]
            x = x @ weights + bias.numpy()[member]
            x = np.maximum(x, 0) if i < 2 else x
        probabilities.append(1 / (1 + np.exp(-x)))
    assert np.ptp(probabilities, axis=0).max() > 0.01
    scores = keras.ops.convert_to_numpy(model(inputs))
    np.testing.assert_allclose(scores, np.mean(probabilities, axis=0), rtol=1e-5)


def test_small_vocabularies_are_one_hot_and_large_ones_embedded():
    model = build_network(SMALL, 1, {"channel": 32, "country": 33})
    # And each has its fraud rate.
    assert model.get_layer(ENCODED).output.shape[1] == 5 + 33 + SMALL.embedding_dim + 1


@pytest.mark.parametrize("numeric", [0, 2])
def test_each_member_has_embeddings_of_its_own(numeric):
    spec = ResolvedNetwork(bins=4, towers=((8,), (4, 4)), members=3, embedding_dim=2)
    model = build_network(spec, numeric, {"zip": 50, "channel": 5, "shop": 60})
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
    inputs = {"categorical": random.integers(0, 5, (40, 3))}
    if numeric:
        inputs["numeric"] = random.uniform(0, 4, (40, numeric)).astype("float32")
    logits = member_logits(model)
    before = logits.predict(inputs, verbose=0)
    assert before.shape == (40, 3) and (np.ptp(before, axis=1) > 0.01).all()
    embedding = model.get_layer(category_layer(2)).embeddings
    changed = embedding.numpy()
    changed[:, 2:4] += 1  # the second member's
    embedding.assign(changed)
    after = logits.predict(inputs, verbose=0)
    np.testing.assert_array_equal((after != before).any(axis=0), [False, True, False])
    # The layer is saved with the parts of the input that it divides.
    again = Members.from_config(model.get_layer("tower_0").get_config())
    assert again.own == model.get_layer("tower_0").own


def test_column_dropout_drops_all_numbers_of_a_column_together_and_keeps_the_mean():
    layer = ColumnDropout(0.25, (3, 1, 2), seed=1)
    encoded = np.full((4000, 6), 3, "float32")
    dropped = keras.ops.convert_to_numpy(layer(encoded, training=True))
    np.testing.assert_allclose(np.unique(dropped), [0, 4])
    columns = dropped[:, [0, 3, 4]]
    np.testing.assert_array_equal(dropped, np.repeat(columns, (3, 1, 2), axis=1))
    np.testing.assert_allclose((columns == 0).mean(axis=0), 0.25, atol=0.04)
    # Each column is drawn by itself.
    np.testing.assert_allclose((columns == 0).all(axis=1).mean(), 0.25**3, atol=0.01)


def test_a_network_drops_columns_in_training_and_never_when_it_scores():
    inputs = {"numeric": np.ones((64, 3), "float32"), "categorical": np.full((64, 2), 1)}
    for share in (0.0, 0.5):
        spec = dataclasses.replace(SMALL, column_dropout=share)
        model = build_network(spec, 3, {"channel": 7, "country": 50})
        scores = keras.ops.convert_to_numpy(model(inputs))
        assert np.unique(scores.round(5)).size == 1
        trained = keras.ops.convert_to_numpy(model(inputs, training=True))
        assert (np.unique(trained.round(5)).size > 5) == (share > 0)

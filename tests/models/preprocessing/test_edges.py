"""Bin edges at quantiles and around jumps of the fraud rate."""

import numpy as np
import pytest

from fraud.models.preprocessing.edges import bin_edges

SHARES = np.linspace(0, 1, 1001)


def edges_of(values, fraud, bins=16):
    """The edges of one column, from exact quantiles."""
    classes = [values[fraud == label] for label in (0, 1)]
    genuine, of_frauds = (
        np.quantile(c, SHARES, method="lower").astype(np.float32)[np.newaxis] for c in classes
    )
    counts = [np.array([c.size]) for c in classes]
    [edges] = bin_edges(genuine, counts[0], of_frauds, counts[1], bins)
    return edges


def amounts(count, seed=5):
    random = np.random.default_rng(seed)
    return random.uniform(0, 250, count), random


def is_enclosed(place, edges, width):
    """Whether there is an edge on both sides of a place, and at most `width` between them."""
    at = np.searchsorted(edges, place)
    return 0 < at < edges.size and edges[at] - edges[at - 1] <= width


def test_a_limit_above_which_all_are_frauds_is_a_step():
    values, random = amounts(100_000)
    fraud = (values > 220) | (random.random(values.size) < 0.01)
    # A tenth of a percent of the values above the limit, and the gap between two of the others.
    assert is_enclosed(220, edges_of(values, fraud), 0.2)


def test_a_range_in_which_frauds_are_frequent_is_enclosed_on_both_sides():
    values, random = amounts(100_000)
    fraud = random.random(values.size) < np.where((values > 100) & (values < 110), 0.5, 0.01)
    edges = edges_of(values, fraud)
    assert is_enclosed(100, edges, 0.5)
    assert is_enclosed(110, edges, 0.5)


@pytest.mark.parametrize("rates", [(0.01, 0.3, 0.9), (0.9, 0.3, 0.01)])
def test_a_split_is_followed_by_splits_on_both_of_its_sides(rates):
    values, random = amounts(100_000)
    fraud = random.random(values.size) < np.select([values < 30, values < 220], rates[:2], rates[2])
    edges = edges_of(values, fraud)
    for place in (30, 220):
        # To within a quantile: chance moves the best split a little.
        assert np.count_nonzero(np.abs(edges - place) < 1) >= 2


def test_without_jumps_the_edges_are_evenly_spaced_among_the_quantiles_of_both_classes():
    values, random = amounts(50_000)
    values = values**2  # quantiles are not evenly spaced values
    fraud = random.random(values.size) < 0.05
    edges = edges_of(values, fraud)
    rank = np.searchsorted(np.sort(values), edges) / values.size
    np.testing.assert_allclose(rank, np.linspace(0.001, 0.999, 17), atol=0.02)


def test_few_frauds_that_chance_has_put_together_are_no_jump():
    values, _ = amounts(2_000)
    fraud = np.zeros(values.size, bool)
    fraud[np.argsort(values)[[5, 400, 402, 405, 900, 1500]]] = True
    rank = np.searchsorted(np.sort(values), edges_of(values, fraud))
    assert np.diff(rank).min() > 30


def test_at_most_an_eighth_of_the_bins_are_steps():
    values, random = amounts(200_000)
    # 25 stairs up and down
    fraud = random.random(values.size) < np.where((values // 10).astype(int) % 2, 0.3, 0.01)
    edges = edges_of(values, fraud)
    assert np.count_nonzero(np.diff(edges) < 0.6) == 2
    assert np.diff(edges).max() < 40


@pytest.mark.parametrize("bins", [1, 2, 3, 8, 9, 32])
def test_every_number_of_bins_has_ascending_edges_from_one_end_to_the_other(bins):
    values, random = amounts(20_000)
    fraud = (values > 220) | (random.random(values.size) < 0.01)
    edges = edges_of(values, fraud, bins)
    assert edges.shape == (bins + 1,)
    assert edges.dtype == np.float32
    assert (np.diff(edges) >= 0).all()
    assert edges[0] < 1
    assert edges[-1] > 245


def test_a_count_is_split_between_its_values():
    random = np.random.default_rng(2)
    values = random.poisson(1.0, 50_000).astype(float)
    fraud = random.random(values.size) < np.where(values > 2, 0.5, 0.01)
    edges = edges_of(values, fraud)
    assert {0, 1, 2, 3, 4} <= set(edges)


def test_an_edge_of_a_step_is_not_picked_again_as_a_quantile():
    random = np.random.default_rng(2)
    values = random.integers(0, 20, 50_000).astype(float)
    fraud = random.random(values.size) < np.select([values < 2, values > 17], [0.3, 0.5], 0.01)
    edges = edges_of(values, fraud)
    assert np.unique(edges).size == edges.size
    assert {1, 2, 17, 18} <= set(edges)


@pytest.mark.parametrize("other", [5, -5])
def test_two_values_around_a_jump_are_the_only_edges(other):
    random = np.random.default_rng(2)
    values = np.where(random.random(20_000) < 0.1, other, 1)
    fraud = random.random(values.size) < np.where(values == other, 0.5, 0.01)
    assert set(edges_of(values, fraud)) == {1, other}


def test_one_class_alone_has_no_jumps():
    values, _ = amounts(1_000)
    genuine = np.quantile(values, SHARES, method="lower").astype(np.float32)[np.newaxis]
    nothing = np.zeros_like(genuine)
    edges = bin_edges(genuine, np.array([1_000]), nothing, np.array([0]), 8)
    assert np.diff(edges[0]).min() > 20

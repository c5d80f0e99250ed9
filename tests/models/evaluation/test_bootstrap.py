"""The bootstrap is that of its definition, and as wide as theory says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fraud.models.evaluation import bootstrap, metrics, registry
from fraud.models.evaluation.bootstrap import Outputs, Replicates, replicate

SLOW = {
    "average_precision": lambda labels, of: metrics.average_precision(labels, of.scores),
    "roc_auc": lambda labels, of: metrics.roc_auc(labels, of.scores),
    "precision_at_budget": lambda labels, of: metrics.precision_at_budget(labels, of.alerts),
    "recall_at_budget": lambda labels, of: metrics.recall_at_budget(labels, of.alerts),
    "brier_skill": lambda labels, of: metrics.brier_skill(labels, of.scores),
}


def world(seed=0, rows=300):
    """Labels, cards and the outputs of two models with many equal scores."""
    random = np.random.default_rng(seed)
    labels = (random.random(rows) < 0.15).astype(int)
    cards = random.choice([f"card-{i}".encode() for i in range(60)], rows)
    models = {}
    for name, limit in (("a", 0.5), ("b", 0.6)):
        scores = np.round(random.beta(1 + 2 * labels, 3), 1).astype(np.float32)
        models[name] = Outputs(scores, scores >= limit)
    return labels, cards, models


def equal(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-9)  # NaN where NaN is expected


def test_every_replicate_is_the_metric_of_the_cards_drawn():
    labels, cards, models = world()
    told = replicate(labels, models, cards, replicates=230)
    random = np.random.default_rng(0)
    rows_of = [np.flatnonzero(cards == card) for card in np.unique(cards)]
    draws = [np.arange(len(rows_of))]
    draws += [random.integers(0, len(rows_of), len(rows_of)) for _ in range(230)]
    for (model, metric), values in told.values.items():
        of = models[model]
        for value, draw in zip(values, draws, strict=True):
            rows = np.concatenate([rows_of[card] for card in draw])
            drawn = Outputs(of.scores[rows], of.alerts[rows])
            equal(value, SLOW[metric](labels[rows], drawn))
    assert told.values.keys() == {(model, metric) for model in models for metric in SLOW}
    assert told.fraud_clusters == np.unique(cards[labels == 1]).size


def test_examples_are_counted_as_often_as_their_card_is_drawn():
    """Exactly: the same data are to have the same metrics to the last bit."""
    labels, cards, models = world()
    names, cluster = np.unique(cards, return_inverse=True)
    fraud, scores = labels == 1, models["a"].scores
    ranking = bootstrap._Ranking(fraud, models["a"], cluster, names.size)
    draws = [np.random.default_rng(1).integers(0, 4, names.size).astype(float) for _ in range(3)]
    counts = ranking.counts(draws)
    steps = np.unique(scores[fraud])
    at_step = [np.flatnonzero(scores == step) for step in steps]
    for drawn, frauds, genuine in zip(draws, counts.frauds, counts.genuine, strict=True):
        times = drawn[cluster]
        assert frauds[1::2].tolist() == [times[rows][fraud[rows]].sum() for rows in at_step]
        assert genuine[1::2].tolist() == [times[rows][~fraud[rows]].sum() for rows in at_step]
        assert not frauds[::2].any()
        assert frauds.sum() + genuine.sum() == times.sum()
    assert counts.frauds.base.flags.c_contiguous  # else sums of floats have another order


def test_without_cards_every_transaction_is_drawn_by_itself():
    labels, _, models = world()
    one_by_one = replicate(labels, models, None, replicates=50)
    equal(one_by_one.values["a", "roc_auc"][0], metrics.roc_auc(labels, models["a"].scores))
    assert one_by_one.fraud_clusters == labels.sum()
    recall = one_by_one.values["a", "recall_at_budget"][1:]
    assert len(set(recall)) > 20


@pytest.mark.parametrize("with_cards", [True, False])
def test_the_order_of_examples_does_not_matter(with_cards):
    labels, cards, models = world()
    order = np.random.default_rng(9).permutation(labels.size)
    shuffled = {name: Outputs(of.scores[order], of.alerts[order]) for name, of in models.items()}
    one = replicate(labels, models, cards if with_cards else None, 20)
    other = replicate(labels[order], shuffled, cards[order] if with_cards else None, 20)
    for key, values in one.values.items():
        equal(other.values[key], values)


def series(of_a, of_b, frauds=4):
    """Cards with the same number of frauds and as many genuine transactions.

    Args:
      of_a, of_b: for each card, whether the model alerts on all of its frauds.
    """
    cards = np.repeat(np.arange(len(of_a)), 2 * frauds)
    labels = np.tile(np.repeat([1, 0], frauds), len(of_a))
    models = {}
    for name, of in (("a", of_a), ("b", of_b)):
        alerts = np.repeat(np.array(of, bool), 2 * frauds) & (labels == 1)
        models[name] = Outputs(alerts.astype(np.float32), alerts)
    return labels, cards, models


def test_series_of_frauds_on_one_card_count_once():
    """Recall is a share p of m cards: its standard deviation is √(p (1 − p) / m)."""
    caught = [1] * 60 + [0] * 40
    labels, cards, models = series(caught, caught)
    values = replicate(labels, models, cards, 4000).values["a", "recall_at_budget"]
    assert values[0] == 0.6
    assert np.std(values[1:]) == pytest.approx(math.sqrt(0.6 * 0.4 / 100), rel=0.05)
    alone = replicate(labels, models, None, 4000).values["a", "recall_at_budget"]
    assert np.std(alone[1:]) == pytest.approx(math.sqrt(0.6 * 0.4 / 400), rel=0.05)


def test_models_are_measured_on_the_same_cards():
    """McNemar: with shares b and c of cards that only one model catches, the variance of the
    difference is (b + c − (b − c)²) / m, whatever both catch or miss."""
    both, neither = [1] * 55, [0] * 32
    labels, cards, models = series(
        [*both, *[1] * 3, *[0] * 10, *neither], [*both, *[0] * 3, *[1] * 10, *neither]
    )
    told = replicate(labels, models, cards, 4000)
    change, interval = told.change("recall_at_budget", "a", "b")
    assert change == pytest.approx(-0.07)
    deviation = math.sqrt((0.03 + 0.10 - 0.07**2) / 100)
    expected = (-0.07 - 1.96 * deviation, -0.07 + 1.96 * deviation)
    assert interval == pytest.approx(expected, abs=0.011)  # the difference has steps of 0.01
    normal = 0.5 * math.erfc((0.055 - 0.07) / deviation / math.sqrt(2))
    dropped = told.drop_probability("recall_at_budget", "a", "b", 0.055)
    assert dropped == pytest.approx(normal, abs=0.03)


def test_a_drop_is_counted_if_it_exceeds_what_is_allowed_or_is_undefined():
    champion = np.full(6, 0.5)
    challenger = np.array([0.5, np.nan, 0.5, 0.25, 0.125, 0.75])
    told = Replicates({("a", "m"): challenger, ("b", "m"): champion}, 50)
    assert told.drop_probability("m", "a", "b", 0.25) == 2 / 5
    assert told.drop_probability("m", "a", "b", 0.2) == 3 / 5
    assert told.drop_probability("m", "b", "a", 0.0) == 2 / 5
    undefined = Replicates({("a", "m"): np.array([np.nan, *[0.5] * 5]), ("b", "m"): champion}, 50)
    assert math.isnan(undefined.drop_probability("m", "a", "b", 0.25))


@pytest.mark.parametrize(("fraud_clusters", "dropped"), [(0, None), (9, None), (10, 1.0)])
def test_a_drop_is_not_judged_on_fewer_than_ten_cards_with_a_fraud(fraud_clusters, dropped):
    values = {("a", "m"): np.array([0.4, 0.4, 0.4]), ("b", "m"): np.array([0.5, 0.5, 0.5])}
    told = Replicates(values, fraud_clusters)
    assert told.drop_probability("m", "a", "b", 0.05) == dropped


def test_what_is_undefined_is_a_drop_however_few_cards_have_a_fraud():
    values = {("a", "m"): np.array([np.nan, 0.4]), ("b", "m"): np.array([0.5, 0.5])}
    assert math.isnan(Replicates(values, 3).drop_probability("m", "a", "b", 0.05))


def test_intervals_are_the_middle_95_percent_of_defined_replicates():
    values = np.concatenate([[100.0], np.arange(201.0), [np.nan]])
    told = Replicates({("a", "m"): values, ("b", "m"): np.zeros(203)}, 10)
    assert told.interval("m", "a") == pytest.approx((5, 195))
    assert told.change("m", "a", "b") == (100.0, pytest.approx((5, 195)))
    assert told.change("m", "b", "a") == (-100.0, pytest.approx((-195, -5)))


def test_two_different_replicates_make_an_interval():
    told = Replicates({("a", "m"): np.array([0.5, 0.4, 0.6])}, 50)
    assert told.interval("m", "a") == pytest.approx((0.405, 0.595))


@pytest.mark.parametrize("replicates", [1, 24, 25, 26])
def test_there_are_as_many_replicates_as_asked_for(replicates):
    labels, cards, models = world()
    told = replicate(labels, models, cards, replicates)
    assert {values.size for values in told.values.values()} == {1 + replicates}


@pytest.mark.parametrize(
    ("values", "fraud_clusters"),
    [
        ([0.5, 0.4, 0.6], 9),  # too few frauds
        ([0.5, 0.5, 0.5], 50),  # all replicates agree
        ([np.nan, 0.4, 0.6], 50),
        ([np.nan, np.nan, np.nan], 0),
        ([0.5, np.nan, np.nan], 50),
    ],
)
def test_no_interval_where_the_examples_cannot_tell(values, fraud_clusters):
    told = Replicates({("a", "m"): np.array(values)}, fraud_clusters)
    assert told.interval("m", "a") is None


def test_without_frauds_genuine_transactions_or_alerts_metrics_are_undefined():
    labels, cards, models = world()
    silent = {"a": Outputs(models["a"].scores, np.zeros(labels.size, bool))}
    assert np.isnan(replicate(labels, silent, cards, 5).values["a", "precision_at_budget"]).all()
    none = replicate(np.zeros_like(labels), models, cards, 5)
    assert np.isnan(none.values["a", "average_precision"]).all()
    assert np.isnan(none.values["a", "recall_at_budget"]).all()
    for of_one in (np.zeros_like(labels), np.ones_like(labels)):
        values = replicate(of_one, models, cards, 5).values
        assert np.isnan([values["a", "roc_auc"], values["a", "brier_skill"]]).all()


def test_intervals_cover_the_truth_as_often_as_they_claim_only_if_cards_are_drawn():
    """Scores of frauds are N(1.5, 1), plus N(0, 1) for each card: the AUC is Φ(1.5 / √3)."""
    truth = (1 + math.erf(1.5 / math.sqrt(3) / math.sqrt(2))) / 2
    covered = {"cards": 0, "transactions": 0}
    random = np.random.default_rng(3)
    labels = np.repeat([1, 0], [200, 400])
    cards = np.concatenate([np.arange(200) // 5, 40 + np.arange(400)])
    for _ in range(100):
        scores = random.normal(1.5 * labels) + labels * random.normal(size=440)[cards]
        models = {"a": Outputs(scores, scores > 1)}
        for name, clusters in (("cards", cards), ("transactions", None)):
            low, high = replicate(labels, models, clusters, 200).interval("roc_auc", "a")
            covered[name] += low < truth < high
    assert covered["cards"] >= 88, covered
    assert covered["transactions"] < 85, covered


def test_it_replicates_every_metric_that_has_an_interval_or_may_drop():
    assert {m.name for m in registry.METRICS if m.interval} == set(bootstrap.METRICS)
    assert all(m.interval for m in registry.METRICS if m.max_drop)

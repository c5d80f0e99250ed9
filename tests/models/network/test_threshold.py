import numpy as np
import pytest

from fraud.models.network import threshold


def alerted(scores, days, cards, limit):
    """Cards with an alert per day at a threshold, computed naively."""
    pairs = {(d, c) for s, d, c in zip(scores, days, cards, strict=True) if s >= limit}
    return len(pairs) / len(set(days))


@pytest.mark.parametrize("budget", [1, 3, 10])
def test_the_cards_with_an_alert_per_day_equal_the_budget(budget):
    random = np.random.default_rng(3)
    scores = random.random(5000)
    days = random.integers(0, 7, 5000)
    cards = random.integers(0, 300, 5000)
    limit = threshold.for_budget(scores, days, cards, budget)
    assert alerted(scores, days, cards, limit) == budget
    assert alerted(scores, days, cards, np.nextafter(limit, 2)) < budget


def test_a_card_with_several_alerts_on_one_day_counts_once():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    cards = np.array([b"a", b"a", b"a", b"b"])
    assert threshold.for_budget(scores, np.zeros(4), cards, 2) == 0.0
    assert threshold.for_budget(scores, np.zeros(4), cards, 1) == 0.9


def test_a_budget_for_all_cards_sets_no_threshold():
    assert threshold.for_budget(np.array([0.1, 0.2]), np.zeros(2), np.arange(2), 5) == 0.0


def test_a_share_of_the_cards_gets_its_share_of_the_budget():
    scores, days, cards = np.linspace(0, 1, 100), np.zeros(100), np.arange(100)
    all_cards = threshold.for_budget(scores, days, cards, 10)
    assert threshold.for_budget(scores, days, cards, 100, share=0.1) == all_cards

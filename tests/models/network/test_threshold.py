from dataclasses import replace

import numpy as np
import pytest

from fraud.features.spec import Dataset
from fraud.models.network import threshold
from fraud.models.spec import AlertBudget, Evaluation
from fraud.time import SECONDS_PER_DAY

INSURER = Dataset(entities=("policy_nr", "HOLDER"))


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


@pytest.mark.parametrize("later", [1, 2, 17_000])
def test_a_card_and_another_one_on_a_later_day_count_twice(later):
    scores, cards = np.array([0.1, 0.9, 0.8, 0.2]), np.array([1, 2, 1, 2])
    days = np.array([0, 0, later, later])
    assert threshold.for_budget(scores, days, cards, 1) == 0.8


def test_few_cards_with_a_small_share_of_the_budget_may_raise_one_alert():
    cards = np.arange(20)
    assert threshold.for_budget(cards / 20, np.zeros(20), cards, 10, share=0.01) == 19 / 20


def test_a_budget_for_all_cards_sets_no_threshold():
    assert threshold.for_budget(np.array([0.1, 0.2]), np.zeros(2), np.arange(2), 5) == 0.0


def test_a_share_of_the_cards_gets_its_share_of_the_budget():
    scores, days, cards = np.linspace(0, 1, 100), np.zeros(100), np.arange(100)
    all_cards = threshold.for_budget(scores, days, cards, 10)
    assert threshold.for_budget(scores, days, cards, 100, share=0.1) == all_cards


def test_without_timestamps_a_perfect_ranker_finds_the_frauds_at_the_default_budget():
    """The whole file counted as one day: 100 alerts for 5,000 frauds, a recall of .02."""
    labels = np.arange(500_000) % 100 == 0
    scores = np.where(labels, 0.9, 0.1) + np.arange(labels.size) / labels.size / 1e3
    budget = Evaluation().budget(Dataset(timestamp=None))
    nowhere_in_time = np.zeros(labels.size, int)
    limit = threshold.alert_threshold(budget, scores, nowhere_in_time, np.arange(labels.size))
    assert (scores[labels] >= limit).all()
    assert (scores >= limit).mean() == 100 / 2000


@pytest.mark.parametrize(
    ("alerts", "transactions", "count"), [(1, 40, 5), (3, 10, 60), (1, 999, 1)]
)
def test_a_budget_per_transactions_counts_alerts_whatever_cards_and_share(
    alerts, transactions, count
):
    scores = np.random.default_rng(0).random(200)
    budget = AlertBudget(alerts, transactions)
    cards = np.zeros(200)
    limit = threshold.alert_threshold(budget, scores, np.zeros(200, int), cards, share=0.1)
    assert (scores >= limit).sum() == count


def test_a_budget_for_all_transactions_sets_no_threshold():
    one = np.zeros(2, int)
    assert threshold.alert_threshold(AlertBudget(9, 9), np.array([0.1, 0.2]), one, one) == 0.0


def test_a_budget_per_day_counts_cards_on_days():
    seconds = np.array([0, SECONDS_PER_DAY - 1, SECONDS_PER_DAY, SECONDS_PER_DAY + 1])
    scores, cards = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 2, 1, 2])
    assert threshold.alert_threshold(AlertBudget(1), scores, seconds, cards) == 0.8


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (AlertBudget(1500), "1,500 cards a day"),
        (AlertBudget(5, 2000), "5 alerts per 2,000 rows"),
        (AlertBudget(None, share=0.05), "5 % of the cards of a day, at most 100"),
        (Evaluation().budget(INSURER), "5 % of the policies of a day, at most 100"),
        (Evaluation(alert_budget=9).budget(INSURER), "9 policies a day"),
        (Evaluation(alert_budget=9).budget(replace(INSURER, card="HOLDER")), "9 holders a day"),
        (Evaluation().budget(replace(INSURER, entities=())), "5 % of the transactions of a day"),
        (Evaluation().budget(replace(INSURER, timestamp=None)), "100 alerts per 2,000 rows"),
    ],
)
def test_a_budget_in_words(budget, words):
    assert str(budget).startswith(words)


def test_the_days_of_a_budget_are_local():
    """23:00 and 01:00 UTC are one day in Tokyo, on which a card is checked once."""
    seconds, cards = np.array([23, 25, 26]) * 3600, np.array([1, 1, 2])
    scores = np.array([0.9, 0.8, 0.7])
    for zone, limit in (("Asia/Tokyo", 0.9), ("UTC", 0.8)):
        budget = AlertBudget(1, timezone=zone)
        assert threshold.alert_threshold(budget, scores, seconds, cards) == limit


@pytest.mark.parametrize(("cards", "checked"), [(200, 10), (2000, 100), (4000, 100)])
@pytest.mark.parametrize("held_out", [1.0, 0.5])
def test_by_default_the_budget_is_a_share_of_the_cards_of_a_day_with_a_limit(
    cards, checked, held_out
):
    """Two days with as many cards; with every second card held out, they get half of the alerts."""
    budget = Evaluation().budget(Dataset())
    count = int(cards * held_out)
    seconds = np.repeat([0, SECONDS_PER_DAY], count)
    scores = np.random.default_rng(0).random(2 * count)
    limit = threshold.alert_threshold(
        budget, scores, seconds, np.tile(np.arange(count), 2), share=held_out
    )
    assert (scores >= limit).sum() == 2 * checked * held_out


def test_the_default_budget_never_covers_everything():
    budget = Evaluation().budget(Dataset())
    scores, cards = np.array([0.2, 0.4, 0.6]), np.arange(3)
    assert threshold.alert_threshold(budget, scores, np.zeros(3, int), cards) == 0.6

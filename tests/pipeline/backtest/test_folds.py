"""The protocol, compared with a slow implementation of the handbook's wording."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from fraud.errors import BadInput
from fraud.pipeline.backtest.folds import Fold, plan_folds, rows_to_test
from fraud.pipeline.windows import Window
from fraud.time import day_number
from tests.pipeline.backtest.reference import planned, slow_rows_to_test


def test_the_label_delay_separates_train_and_test():
    (fold,) = plan_folds(date(2018, 7, 25), 1, test_days=7, train_days=30, delay_days=7)
    assert str(fold.test) == "2018-07-25 … 2018-07-31"
    assert str(fold.train) == "2018-06-18 … 2018-07-17"
    between = (fold.test.first - fold.train.last).days - 1
    assert between == 7


def test_folds_follow_each_other_without_a_gap():
    first, second, third = planned(count=3)
    assert second.test.first - first.test.last == timedelta(days=1)
    for attribute in ("train", "test"):
        firsts = [getattr(fold, attribute).first for fold in (first, second, third)]
        assert np.diff(firsts).tolist() == [timedelta(days=3)] * 2


@pytest.mark.parametrize("delay", [0, 2, 4])
@pytest.mark.parametrize("known_days", [1, 4])
def test_cards_with_a_known_fraud_are_not_tested(delay, known_days):
    random = np.random.default_rng(delay)
    days = np.sort(
        random.integers(day_number(date(2024, 1, 1)), day_number(date(2024, 1, 25)), 3000)
    )
    cards = random.integers(0, 120, 3000)
    labels = (random.random(3000) < 0.03).astype(np.int64)
    for fold in planned(date(2024, 1, 15), count=2, delay_days=delay, known_days=known_days):
        tested = np.flatnonzero(rows_to_test(fold, days, cards, labels, days + delay))
        expected = slow_rows_to_test(fold, days.tolist(), cards.tolist(), labels.tolist(), delay)
        assert tested.tolist() == expected
        assert 0 < len(expected) < np.sum((days >= days[tested[0]]) & (days <= days[tested[-1]]))


def test_one_fold_of_fixed_days():
    fold = Fold(
        Window(date(2024, 1, 1), date(2024, 1, 3)),
        Window(date(2024, 1, 5), date(2024, 1, 6)),
        date(2024, 1, 2),
    )
    day = day_number(date(2024, 1, 1))
    #        before  known   in delay        first test day     second test day
    days = np.array([day, day + 1, day + 3, day + 4, day + 4, day + 5, day + 5, day + 5])
    cards = np.array(["a", "b", "c", "a", "b", "a", "b", "c"])
    labels = np.array([1, 1, 1, 0, 0, 0, 1, 0])
    # a: its fraud is too old; b: blocked; c: blocked on the last day, when its label is known.
    tested = rows_to_test(fold, days, cards, labels, days + 1)
    assert cards[tested].tolist() == ["a", "a"]


def test_a_card_is_blocked_from_the_day_after_its_fraud_became_known():
    (fold,) = planned(count=1, known_days=1)
    day = day_number(fold.test.first)
    days = np.array([day - 3, day, day + 1, day + 2])
    cards, labels = np.zeros(4), np.array([1, 0, 0, 0])
    for known, tested in ((day - 1, []), (day, [1]), (day + 1, [1, 2]), (day + 9, [1, 2, 3])):
        known_days = np.array([known, *[day + 99] * 3])
        rows = rows_to_test(fold, days, cards, labels, known_days)
        assert np.flatnonzero(rows).tolist() == tested


@pytest.mark.parametrize("name", ["count", "test_days", "train_days", "known_days"])
def test_folds_beyond_the_calendar_are_refused(name):
    numbers = {"count": 2, "test_days": 7, "train_days": 30, "known_days": 7, name: 10**10}
    with pytest.raises(BadInput, match="do not fit in the calendar"):
        plan_folds(date(2024, 1, 1), **numbers, delay_days=7)

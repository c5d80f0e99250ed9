"""Folds of a small table, and a slow reference for which rows are tested."""

from __future__ import annotations

from datetime import timedelta

from fraud.pipeline.backtest.folds import plan_folds
from fraud.time import day_number
from tests.pipeline.ingestion.transactions import FIRST_DAY


def planned(first=FIRST_DAY + timedelta(days=6), count=2, **lengths):
    lengths = {"test_days": 3, "train_days": 3, "delay_days": 2, "known_days": 2, **lengths}
    return plan_folds(first, count, **lengths)


def slow_rows_to_test(fold, days, cards, labels, delay):
    """The handbook's get_train_test_set: the set of known defrauded cards grows each test day."""
    known = {
        card
        for day, card, label in zip(days, cards, labels, strict=True)
        if label and day_number(fold.known_since) <= day <= day_number(fold.train.last)
    }
    kept = []
    for test_day in map(day_number, fold.test):
        for day, card, label in zip(days, cards, labels, strict=True):
            if label and day == test_day - delay - 1:
                known.add(card)
        kept += [
            row for row in range(len(days)) if days[row] == test_day and cards[row] not in known
        ]
    return kept

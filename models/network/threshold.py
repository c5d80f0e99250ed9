"""The alert threshold that an alert budget implies."""

from __future__ import annotations

import numpy as np

from fraud.models.evaluation.metrics import cards_a_day
from fraud.models.spec import AlertBudget
from fraud.time import local_days


def alert_threshold(
    budget: AlertBudget,
    scores: np.ndarray,
    timestamps: np.ndarray,
    cards: np.ndarray,
    share: float = 1.0,
) -> float:
    """The lowest score that raises an alert, within the budget.

    Args:
      budget: cards per day, or their share (`for_budget`), or alerts per number of transactions
        (`for_share`).
      scores, cards, share: see `for_budget`.
      timestamps: epoch seconds, [n]; not read by a budget per number of transactions.
    """
    if budget.transactions is not None and budget.size is not None:
        return for_share(scores, budget.size / budget.transactions)
    days = local_days(timestamps, budget.timezone)
    size = budget.cards(cards_a_day(days, cards) / share)
    return for_budget(scores, days, cards, size, share)


def for_share(scores: np.ndarray, share: float) -> float:
    """The threshold that a share of the transactions reaches, at least one.

    Returns:
      The lowest score that raises an alert; 0 if all may. Ties may exceed the share.
    """
    return _lowest_of_highest(scores, max(1, round(share * scores.size)))


def for_budget(
    scores: np.ndarray, days: np.ndarray, cards: np.ndarray, budget: float, share: float = 1.0
) -> float:
    """The threshold at which, on average, as many cards a day raise an alert as the budget allows.

    A card that raises several alerts on one day is checked, and counted, once.

    Args:
      scores: float [n], of transactions that the model was not trained on.
      days: int [n], the day of each transaction.
      cards: [n], the card of each transaction, of any sortable type.
      budget: cards per day.
      share: the fraction of all cards that these are; they get that fraction of the budget.

    Returns:
      The lowest score that raises an alert; 0 if the budget covers every card of every day. Scores
      equal to the threshold all raise one, so ties may exceed the budget.
    """
    _, card = np.unique(cards, return_inverse=True)
    _, group = np.unique(days.astype(np.int64) * (card.max() + 1) + card, return_inverse=True)
    highest = np.zeros(group.max() + 1)
    np.maximum.at(highest, group, scores)
    return _lowest_of_highest(highest, max(1, round(budget * share * np.unique(days).size)))


def _lowest_of_highest(scores: np.ndarray, count: int) -> float:
    """The lowest of the `count` highest scores; 0 if that is all of them."""
    return 0.0 if count >= scores.size else float(np.partition(scores, -count)[-count])

"""The alert threshold that an alert budget implies."""

from __future__ import annotations

import numpy as np


def for_budget(
    scores: np.ndarray, days: np.ndarray, cards: np.ndarray, budget: int, share: float = 1.0
) -> float:
    """The threshold at which, on average, as many cards a day raise an alert as the budget allows.

    A card that raises several alerts on one day is checked, and counted, once.

    Args:
      scores: float [n], of transactions that the model was not trained on.
      days: int [n], the day of each transaction.
      cards: [n], the card of each transaction, of any sortable type.
      budget: cards per day, at least 1.
      share: the fraction of all cards that these are; they get that fraction of the budget.

    Returns:
      The lowest score that raises an alert; 0 if the budget covers every card of every day. Scores
      equal to the threshold all raise one, so ties may exceed the budget.
    """
    _, card = np.unique(cards, return_inverse=True)
    _, group = np.unique(days.astype(np.int64) * (card.max() + 1) + card, return_inverse=True)
    highest = np.zeros(group.max() + 1)
    np.maximum.at(highest, group, scores)
    alerts = max(1, round(budget * share * np.unique(days).size))
    if alerts >= highest.size:
        return 0.0
    return float(np.partition(highest, -alerts)[-alerts])

"""The operating threshold of the alert budget."""

from __future__ import annotations

import numpy as np


def for_budget(
    scores: np.ndarray, days: np.ndarray, cards: np.ndarray, budget: int, share: float = 1.0
) -> float:
    """The threshold at which as many cards a day raise an alert, on average, as analysts can check.

    A card that alerts several times on one day is checked once.

    Args:
      scores: float [n], of transactions that the model was not fitted on.
      days: int [n], the day of each.
      cards: [n], the card of each, of any type that compares.
      budget: cards a day, at least 1.
      share: which part of all cards these are; they get that part of the budget.

    Returns:
      The lowest score that alerts; 0 where the budget covers every card of every day. Equal scores
      at the edge all alert, so ties may exceed the budget.
    """
    _, card = np.unique(cards, return_inverse=True)
    _, group = np.unique(days.astype(np.int64) * (card.max() + 1) + card, return_inverse=True)
    highest = np.zeros(group.max() + 1)
    np.maximum.at(highest, group, scores)
    alerts = max(1, round(budget * share * np.unique(days).size))
    if alerts >= highest.size:
        return 0.0
    return float(np.partition(highest, -alerts)[-alerts])

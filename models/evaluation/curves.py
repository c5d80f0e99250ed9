"""What a single number does not show: curves, histograms and days, for pictures.

The functions and their arguments are as in `fraud.models.evaluation.metrics`; `describe` collects
them as plain lists, rounded, in the same form whatever the order of the examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fraud.models.evaluation import metrics

POINTS = 160
"""The most points of a curve."""

THRESHOLDS = 60
"""The most thresholds of a table."""

EDGES = (
    *(0.0, 0.0003, 0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2),
    *(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
"""The boundaries of bins of scores: finer where most scores of rare events are."""

_DIGITS = 5

_COUNTS = frozenset(
    {"frauds", "genuine", "transactions", "true_positives", "false_positives", "false_negatives"}
)
_SUMS = frozenset({"cards_a_day", "cost_saved"})


@dataclass(frozen=True)
class Cards:
    """What is needed to count cards a day.

    Attributes:
      days, cards: see `fraud.models.evaluation.metrics`.
      k: the alert budget; 0 if a sample cannot tell what it would be worth.
    """

    days: NDArray
    cards: NDArray
    k: int


@dataclass(frozen=True)
class Costs:
    """What is needed to know what alerts save; see `metrics.expected_cost_saved`."""

    amounts: NDArray
    check_cost: float
    saved_share: float


def describe(
    labels: NDArray,
    scores: NDArray,
    alerts: NDArray[np.bool_],
    cards: Cards | None = None,
    costs: Costs | None = None,
    sample_share: float = 1.0,
) -> dict:
    """Everything about one model, as JSON can contain it.

    Args:
      labels, scores, alerts: see `fraud.models.evaluation.metrics`.
      cards, costs: where they are known.
      sample_share: the share of all cards that these examples are of. What counts or adds up is
        divided by it; `cards.k` is of the sample.

    Returns:
      `precision_recall`: [recall, precision] and `roc`: [false positive rate, recall], from the
      highest score down. `bins`: of `EDGES`, each with `low`, `high`, `frauds`, `genuine` and
      `mean_score` (None in an empty bin). `threshold`: the lowest score that alerts; None without
      alerts. `thresholds`: what alerting at other scores would have done, from the highest down,
      each with `threshold`, `true_positives`, `false_positives`, `false_negatives`, and, where
      they are known, `cards_a_day` and `cost_saved`. `days`: with cards, each with its `day` (days
      since 1970), `card_precision`, `frauds` and `transactions`. `sample_share`.
    """
    labels, exact = labels == 1, scores.astype(np.float64)
    of_days = by_day(labels, exact, cards) if cards is not None and cards.k else []
    return {
        "precision_recall": precision_recall(labels, exact),
        "roc": roc(labels, exact),
        "bins": [_of_all(row, sample_share) for row in bins(labels, exact)],
        "threshold": _rounded(exact[alerts].min()) if alerts.any() else None,
        "thresholds": [
            _of_all(row, sample_share) for row in thresholds(labels, exact, cards, costs)
        ],
        "days": [_of_all(row, sample_share) for row in of_days],
        "sample_share": sample_share,
    }


def _of_all(row: dict, sample_share: float) -> dict:
    """A row about a sample with counts and sums as all examples have them, about."""
    counts = {name: round(row[name] / sample_share) for name in _COUNTS & row.keys()}
    sums = {name: _rounded(row[name] / sample_share) for name in _SUMS & row.keys()}
    return {**row, **counts, **sums}


def precision_recall(labels: NDArray[np.bool_], scores: NDArray) -> list[list[float]]:
    """[recall, precision] of alerting at a score or above; empty without frauds."""
    caught, alerted = metrics.cumulative(labels, scores)
    if not caught[-1]:
        return []
    # Recall changes only at frauds, and precision only falls in between.
    kept = np.flatnonzero(np.diff(caught, prepend=0))
    kept = kept[_spread(caught[kept])]
    return _pairs(caught[kept] / caught[-1], caught[kept] / alerted[kept])


def roc(labels: NDArray[np.bool_], scores: NDArray) -> list[list[float]]:
    """[false positive rate, recall] of alerting at a score or above; empty without both classes."""
    caught, alerted = metrics.cumulative(labels, scores)
    false = alerted - caught
    if not caught[-1] or not false[-1]:
        return []
    kept = np.union1d(_spread(caught), _spread(false))
    rates = _pairs(false[kept] / false[-1], caught[kept] / caught[-1])
    return [[0.0, 0.0], *rates]


def bins(labels: NDArray[np.bool_], scores: NDArray) -> list[dict]:
    """The examples by score; the last bin includes its upper boundary."""
    index = np.clip(np.searchsorted(EDGES, scores, "right") - 1, 0, len(EDGES) - 2)
    size = len(EDGES) - 1
    frauds = np.bincount(index[labels], minlength=size)
    total = np.bincount(index, minlength=size)
    sums = np.bincount(index, scores, size)
    return [
        {
            "low": EDGES[i],
            "high": EDGES[i + 1],
            "frauds": int(frauds[i]),
            "genuine": int(total[i] - frauds[i]),
            "mean_score": _rounded(sums[i] / total[i]) if total[i] else None,
        }
        for i in range(size)
    ]


def thresholds(
    labels: NDArray[np.bool_], scores: NDArray, cards: Cards | None, costs: Costs | None
) -> list[dict]:
    """What alerting at a score or above would have done, for scores that frauds have."""
    caught, alerted = metrics.cumulative(labels, scores)
    steps = np.unique(scores)[::-1]
    if cards is not None:  # numbers, since there are many thresholds
        number, days = metrics.numbered(cards.cards)[1], np.unique(cards.days).size
    at_frauds = np.flatnonzero(np.diff(caught, prepend=0))
    result = []
    for i in at_frauds[_spread(caught[at_frauds], THRESHOLDS)]:
        alerts = scores >= steps[i]
        row: dict = {
            "threshold": _rounded(steps[i]),
            "true_positives": int(caught[i]),
            "false_positives": int(alerted[i] - caught[i]),
            "false_negatives": int(caught[-1] - caught[i]),
        }
        if cards is not None:
            checked = metrics.card_days(cards.days[alerts], number[alerts])
            row["cards_a_day"] = _rounded(checked / days)
            if costs is not None:
                row["cost_saved"] = _rounded(
                    metrics.expected_cost_saved(
                        labels,
                        alerts,
                        costs.amounts,
                        cards.days,
                        number,
                        costs.check_cost,
                        costs.saved_share,
                    )
                )
        result.append(row)
    return result


def by_day(labels: NDArray[np.bool_], scores: NDArray, cards: Cards) -> list[dict]:
    """Card Precision@k of each day, with the blocking of cards that were caught before."""
    of_days = metrics.card_precision_by_day(labels, scores, cards.days, cards.cards, cards.k)
    return [
        {
            "day": int(day),
            "card_precision": _rounded(precision),
            "frauds": int(labels[cards.days == day].sum()),
            "transactions": int((cards.days == day).sum()),
        }
        for day, precision in of_days.items()
    ]


def _spread(values: NDArray, count: int = POINTS) -> NDArray[np.int64]:
    """Indices of at most `count` values, ascending, evenly spread over them, with both ends."""
    if not values.size:
        return np.zeros(0, np.int64)
    wanted = np.linspace(values[0], values[-1], min(count, values.size))
    return np.unique(np.searchsorted(values, wanted).clip(0, values.size - 1))


def _pairs(x: NDArray, y: NDArray) -> list[list[float]]:
    return [[_rounded(a), _rounded(b)] for a, b in zip(x, y, strict=True)]


def _rounded(number: float) -> float:
    return round(float(number), _DIGITS)

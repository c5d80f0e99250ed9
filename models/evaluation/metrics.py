"""What a model's scores are worth, each metric a function of arrays.

The Evaluator's metrics and the backtest both reduce to these functions. Their arguments:

* labels: [n], 1 for fraud, 0 for genuine;
* scores: float [n], higher is more suspicious;
* alerts: bool [n], whether the transaction's score reaches the threshold that
  `fraud.models.network.threshold` computes;
* days: int [n], any numbering that increases with time;
* cards: [n], the card of each transaction, of any comparable type.

A metric without a denominator (no fraud, no genuine transaction, no alert) is NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CALIBRATION_BINS = 10


def average_precision(labels: NDArray, scores: NDArray) -> float:
    """Σ (Rᵢ − Rᵢ₋₁) Pᵢ over the distinct scores from the highest down, with Pᵢ precision and Rᵢ
    recall of alerting at that score or above.

    The area under the precision-recall curve without interpolation. Equal scores form one step.

    Source: Zhu, "Recall, precision and average precision", University of Waterloo (2004);
    handbook, chapter 4, "Precision-recall curve".
    """
    caught, alerted = cumulative(labels, scores)
    if not caught[-1]:
        return float("nan")
    return float(np.sum(np.diff(caught, prepend=0) / caught[-1] * caught / alerted))


def roc_auc(labels: NDArray, scores: NDArray) -> float:
    """P(score of a fraud > score of a genuine transaction) + ½ P(they are equal).

    The area under the ROC curve, equal to the Mann-Whitney statistic U over its maximum.

    Source: Hanley, McNeil, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve", Radiology 143 (1982).
    """
    caught, alerted = cumulative(labels, scores)
    frauds, genuine = caught[-1], alerted[-1] - caught[-1]
    if not frauds or not genuine:
        return float("nan")
    of_step, false_of_step = np.diff(caught, prepend=0), np.diff(alerted - caught, prepend=0)
    above = (caught - of_step) + of_step / 2
    return float(np.sum(false_of_step * above) / (frauds * genuine))


def card_precision_at_k(
    labels: NDArray, scores: NDArray, days: NDArray, cards: NDArray, k: int
) -> float:
    """Compromised cards among the k most suspicious ones of a day / k, averaged over the days.

    A card's score is the highest of its transactions of the day, and the card is compromised if
    any of them is a fraud. A compromised card among the k is blocked: its transactions on later
    days do not count. Ties are broken in the order of the cards' values.

    Source: handbook, chapter 4, "Precision top-k metrics".
    """
    return float(np.mean([*card_precision_by_day(labels, scores, days, cards, k).values()]))


def card_precision_by_day(
    labels: NDArray, scores: NDArray, days: NDArray, cards: NDArray, k: int
) -> dict[int, float]:
    """Day → its Card Precision@k; see `card_precision_at_k`."""
    names, card = numbered(cards)
    blocked = np.zeros(names.size, bool)
    precisions = {}
    for day in np.unique(days):
        rows = (days == day) & ~blocked[card]
        of_day, group = np.unique(card[rows], return_inverse=True)
        highest = np.full(of_day.size, -np.inf)
        np.maximum.at(highest, group, scores[rows])
        compromised = np.zeros(of_day.size, bool)
        compromised[group[labels[rows] == 1]] = True
        checked = np.argsort(-highest, kind="stable")[:k]
        caught = of_day[checked[compromised[checked]]]
        precisions[int(day)] = caught.size / k
        blocked[caught] = True
    return precisions


def cards_a_day(days: NDArray, cards: NDArray) -> float:
    """The number of cards with transactions on a day, on average over the days that have any."""
    return float(card_days(days, cards) / np.unique(days).size)


def card_days(days: NDArray, cards: NDArray) -> int:
    """On how many days each card has transactions, added up over the cards."""
    names, card = numbered(cards)
    day = np.unique(days, return_inverse=True)[1].reshape(-1)
    return np.unique(day * names.size + card).size


def numbered(values: NDArray) -> tuple[NDArray, NDArray[np.int64]]:
    """`np.unique` with the inverse, of which bytes and texts take a tenth of the time."""
    if values.dtype != object:
        distinct, number = np.unique(values, return_inverse=True)
        return distinct, number.reshape(-1)
    import pandas as pd  # most processes that import this module never come here

    number, distinct = pd.factorize(values, sort=True)
    return distinct, number


def precision_at_budget(labels: NDArray, alerts: NDArray[np.bool_]) -> float:
    """Frauds that alert / transactions that alert."""
    return _ratio(np.sum(labels[alerts] == 1), np.sum(alerts))


def recall_at_budget(labels: NDArray, alerts: NDArray[np.bool_]) -> float:
    """Frauds that alert / frauds."""
    return _ratio(np.sum(labels[alerts] == 1), np.sum(labels == 1))


def expected_cost_saved(
    labels: NDArray,
    alerts: NDArray[np.bool_],
    amounts: NDArray,
    days: NDArray,
    cards: NDArray,
    check_cost: float,
    saved_share: float,
) -> float:
    """saved_share × Σ amounts of frauds that alert − check_cost × cards checked.

    The savings from acting on the alerts compared with not acting, in the currency of the amounts.
    A card that alerts several times on one day is checked once. Missing amounts count as 0.

    Source: the cost matrix with amounts of Bahnsen, Stojanovic, Aouada, Ottersten, "Cost sensitive
    credit card fraud detection using Bayes minimum risk", ICMLA 2013, with one check per card and
    day.

    Args:
      labels, alerts, days, cards: see the module docstring.
      amounts: float [n], the amount of each transaction; NaN where missing.
      check_cost: the cost of checking one card, in the currency of the amounts.
      saved_share: the share of a fraud's amount that an alert saves, in [0, 1].
    """
    saved = np.nansum(amounts[alerts & (labels == 1)])
    checks = card_days(days[alerts], cards[alerts])
    return float(saved_share * saved - check_cost * checks)


def brier(labels: NDArray, scores: NDArray) -> float:
    """Mean of (score − label)².

    Source: Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather
    Review 78 (1950).
    """
    return float(np.mean(np.square(scores.astype(np.float64) - labels)))


def brier_skill(labels: NDArray, scores: NDArray) -> float:
    """1 − Brier / (p (1 − p)), with p the share of frauds: 1 is perfect, 0 is p for every example.

    Unlike ranks it drops when scores are not the probabilities they claim to be. No lower bound.

    Source: Murphy, "Hedging and skill scores for probability forecasts", Journal of Applied
    Meteorology 12 (1973).
    """
    frauds = np.sum(labels == 1)
    reference = frauds * (labels.size - frauds) / labels.size**2
    return float(1 - brier(labels, scores) / reference) if reference else float("nan")


def expected_calibration_error(labels: NDArray, scores: NDArray) -> float:
    """Σ over bins of (bin's share of the transactions) × |mean score − share of frauds|.

    Ten bins of equal width over [0, 1].

    Source: Naeini, Cooper, Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning", AAAI 2015.
    """
    bins = np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, scores.astype(np.float64) - labels)
    return float(np.sum(np.abs(gaps)) / labels.size)


def cumulative(labels: NDArray, scores: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Frauds and transactions at each distinct score or above, from the highest score down."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last_of_step = np.append(np.flatnonzero(np.diff(ordered)), ordered.size - 1)
    return np.cumsum(labels[order] == 1)[last_of_step], last_of_step + 1


def _ratio(part: np.integer, whole: np.integer) -> float:
    return float(part / whole) if whole else float("nan")

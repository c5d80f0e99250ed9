"""95 % intervals of metrics, from the metric's value and the numbers of transactions behind it.

All assume that transactions are independent. The result is None where a formula is undefined (no
transactions) or would claim certainty (an area of 0 or 1).
"""

from __future__ import annotations

import math

Z = 1.959963984540054
"""The normal distribution's 97.5 % quantile."""

Interval = tuple[float, float]


def proportion(hits: float, of: float) -> Interval | None:
    """Wilson's score interval of a proportion p = hits / of.

    With n = of: (p + z²/2n ± z √(p (1 − p) / n + z²/4n²)) / (1 + z²/n)

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", Journal
    of the American Statistical Association 22 (1927).

    Args:
      hits: how many of them count, for example the frauds that alert.
      of: how many there are: for precision the alerts, for recall the frauds.
    """
    if not of > 0:
        return None
    p = hits / of
    middle = p + Z**2 / (2 * of)
    margin = Z * math.sqrt(p * (1 - p) / of + (Z / (2 * of)) ** 2)
    low, high = (middle - margin) / (1 + Z**2 / of), (middle + margin) / (1 + Z**2 / of)
    return max(low, 0.0), min(high, 1.0)


def roc_auc(area: float, frauds: float, genuine: float) -> Interval | None:
    """Hanley and McNeil's interval of the area A under a ROC curve: A ± z SE, within [0, 1].

    SE² = (A (1 − A) + (frauds − 1)(Q₁ − A²) + (genuine − 1)(Q₂ − A²)) / (frauds × genuine),
    Q₁ = A / (2 − A), Q₂ = 2 A² / (1 + A)

    Source: Hanley, McNeil, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve", Radiology 143 (1982).
    """
    if not (0 < area < 1 and frauds > 0 and genuine > 0):
        return None
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (frauds - 1) * (q1 - area**2) + (genuine - 1) * (q2 - area**2)
    margin = Z * math.sqrt(variance / (frauds * genuine))
    return max(area - margin, 0.0), min(area + margin, 1.0)


def average_precision(area: float, frauds: float) -> Interval | None:
    """The logit interval of the area A under a precision-recall curve.

    σ(logit(A) ± z τ), τ = 1 / √(frauds × A (1 − A)), σ the logistic function.

    Source: Boyd, Eng, Page, "Area under the precision-recall curve: point estimates and confidence
    intervals", ECML PKDD 2013.
    """
    if not (0 < area < 1 and frauds > 0):
        return None
    centre = math.log(area / (1 - area))
    margin = Z / math.sqrt(frauds * area * (1 - area))
    return _logistic(centre - margin), _logistic(centre + margin)


def _logistic(x: float) -> float:
    return (1 + math.tanh(x / 2)) / 2

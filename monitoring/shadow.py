"""Two models on the same transactions: what one answered, and what another would have.

The prediction log has what a model read, so another model can score the same rows afterwards.
Broken data hits both alike, so what differs is the models.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fraud.models.evaluation.bootstrap import Outputs, replicate
from fraud.monitoring.checks import Check, Kind, Verdict
from fraud.monitoring.policy import LoopSettings

EDGES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of bins of scores. Most transactions have scores near 0, where two good models may differ by
much without any decision depending on it."""
_FEW_ALERTS = 10
"""Alerts of both models together below which their ratio says nothing."""
_METRIC = "average_precision"


def shift(scores: NDArray, others: NDArray) -> float:
    """The population stability index of two samples of scores: Σ (p − q) ln(p / q).

    A bin counts half a transaction more than it has, so that empty ones are no division by 0.
    """
    shares = []
    for sample in (scores, others):
        counts = np.histogram(np.clip(sample, 0, 1), EDGES)[0] + 0.5
        shares.append(counts / counts.sum())
    p, q = shares
    return float(np.sum((p - q) * np.log(p / q)))


def differences(
    new: Outputs, old: Outputs, policy: LoopSettings, is_as_evaluated: bool = False
) -> tuple[str, ...]:
    """What is suspicious about a model, compared with the one before it on the same transactions.

    Args:
      new, old: what they say of the same transactions.
      policy: the limits.
      is_as_evaluated: whether the new one's scores and alerts are distributed as when it was
        evaluated. Then it may differ from the old one, as a model must that has learnt something.
    """
    rows, found = len(new.scores), []
    bad = int((~((new.scores >= 0) & (new.scores <= 1))).sum())  # also those that are no number
    if bad > policy.max_errors * rows:
        found.append(f"{bad} of {rows} scores are no probabilities")
        return tuple(found)
    if is_as_evaluated:
        return ()
    alerts, others = int(new.alerts.sum()), int(old.alerts.sum())
    ratio = (alerts + 0.5) / (others + 0.5)
    limit = policy.max_alert_rate_ratio
    if alerts + others >= _FEW_ALERTS and not 1 / limit <= ratio <= limit:
        found.append(
            f"{alerts} alerts in {rows} transactions, of which the one before has {others}"
        )
    if (moved := shift(new.scores, old.scores)) > policy.max_score_shift:
        found.append(
            f"scores moved: population stability index {moved:.2f} (limit {policy.max_score_shift})"
        )
    return tuple(found)


def harm(
    labels: NDArray[np.float64],
    cards: NDArray,
    live: Outputs,
    other: Outputs,
    than: str,
    allowed: float,
) -> Check:
    """Whether a model is worse than another by more than allowed and beyond chance, by labels.

    A difference too small for the gate to refuse a model is too small to take one back: some are
    found in any two models, sooner or later, if one looks each day.

    Args:
      labels: 1, 0, or NaN where not known, [n].
      cards: the card of each, [n].
      live, other: what they say of the same transactions.
      than: what the other one is, such as "version 7".
      allowed: how much worse it may be, `evaluation.max_average_precision_drop`.
    """
    name = f"{_METRIC}_change/{than}"
    known = ~np.isnan(labels)
    outputs = {
        model: Outputs(of.scores[known].astype(np.float64), of.alerts[known])
        for model, of in (("live", live), ("other", other))
    }
    if not (labels[known] == 1).any():
        return Check(
            name, None, None, -allowed, Verdict.CANNOT_JUDGE, "no frauds known yet", Kind.HARM
        )
    measured = replicate(labels[known].astype(np.int64), outputs, cards[known])
    change, interval = measured.change(_METRIC, "live", "other")
    if interval is None:
        few = f"{measured.fraud_clusters} independent frauds, which is too few"
        return Check(name, change, None, -allowed, Verdict.CANNOT_JUDGE, few, Kind.HARM)
    verdict = Verdict.ACT if interval[1] < -allowed else Verdict.OK
    detail = f"in {int(known.sum())} transactions; 95 % {interval[0]:+.3f} … {interval[1]:+.3f}"
    return Check(name, change, interval, -allowed, verdict, detail, Kind.HARM)

"""How far chance alone moves a metric: a bootstrap that draws whole cards.

Frauds come in series on one card, so transactions are not independent; cards nearly are. A
replicate draws as many cards as there are, with replacement, each with all of its transactions, and
every model is measured on the same replicates. The spread of a metric over the replicates is its
uncertainty. The difference of two models spreads far less than either of them, because the easy and
the difficult cards of a replicate are the same for both.

Source: Efron, Tibshirani, "An introduction to the bootstrap" (1993), chapter 13 (percentile
intervals); Davison, Hinkley, "Bootstrap methods and their application" (1997), section 3.8 (groups
drawn as a whole).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fraud.models.evaluation.metrics import numbered
from fraud.models.evaluation.registry import MIN_FRAUD_CARDS

REPLICATES = 1000
"""A probability of .95 has the standard error √(.95 × .05 / 1000) = .007 then."""

CONFIDENCE = 0.95
"""Of the intervals."""

_SEED = 0
_CHUNK = 25  # replicates in memory at once

Interval = tuple[float, float]


@dataclass(frozen=True)
class Outputs:
    """What a model says of each example.

    Attributes:
      scores: float [n], higher is more suspicious.
      alerts: bool [n], whether the score reaches the model's own threshold.
    """

    scores: NDArray
    alerts: NDArray[np.bool_]


@dataclass(frozen=True)
class Replicates:
    """The metrics of several models on the same replicates.

    Attributes:
      values: (model, metric) → float64 [1 + replicates], the value on the examples themselves and
        then on each replicate; NaN where the metric is undefined.
      fraud_clusters: the number of clusters that have a fraud.
    """

    values: Mapping[tuple[str, str], NDArray[np.float64]]
    fraud_clusters: int

    @property
    def can_tell(self) -> bool:
        """Whether enough clusters have a fraud for the spread of replicates to mean anything."""
        return self.fraud_clusters >= MIN_FRAUD_CARDS

    def interval(self, metric: str, model: str) -> Interval | None:
        """The 95 % percentile interval of a metric.

        None if the examples cannot tell: too few clusters have a fraud, or all replicates agree,
        which would be claimed as certainty.
        """
        return self._interval(self.values[model, metric])

    def change(self, metric: str, challenger: str, champion: str) -> tuple[float, Interval | None]:
        """The challenger's metric − the champion's, and its interval as in `interval`."""
        changes = self._changes(metric, challenger, champion)
        return float(changes[0]), self._interval(changes)

    def drop_probability(
        self, metric: str, challenger: str, champion: str, tolerance: float
    ) -> float | None:
        """The share of replicates on which the challenger is worse by more than `tolerance`.

        A replicate on which the metric is undefined counts among them: what cannot be measured must
        not pass. NaN if the metric is undefined on the examples themselves; None if it is not and
        the examples cannot tell.
        """
        changes = self._changes(metric, challenger, champion)
        if np.isnan(changes[0]):
            return float("nan")
        if not self.can_tell:
            return None
        return float(np.mean(~(changes[1:] >= -tolerance)))

    def _changes(self, metric: str, challenger: str, champion: str) -> NDArray[np.float64]:
        return self.values[challenger, metric] - self.values[champion, metric]

    def _interval(self, values: NDArray[np.float64]) -> Interval | None:
        drawn = values[1:][~np.isnan(values[1:])]
        if not self.can_tell or np.isnan(values[0]) or np.unique(drawn).size < 2:
            return None
        low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return float(low), float(high)


@dataclass(frozen=True)
class _Counts:
    """Weighted examples of several replicates, as one model ranks them.

    Attributes:
      frauds, genuine: [replicates, steps], by score, from the lowest step up. A step is the score
        of a fraud, or all scores between two of them: the finest that any metric distinguishes.
      caught, alerts: [replicates], frauds that alert, and transactions that alert.
      squares: [replicates], Σ (score − label)².
    """

    frauds: NDArray
    genuine: NDArray
    caught: NDArray
    alerts: NDArray
    squares: NDArray

    def average_precision(self) -> NDArray[np.float64]:
        caught = np.cumsum(self.frauds[:, ::-1], axis=1)
        alerted = np.cumsum((self.frauds + self.genuine)[:, ::-1], axis=1)
        precision = caught / np.maximum(alerted, 1)
        return _ratio((self.frauds[:, ::-1] * precision).sum(axis=1), caught[:, -1])

    def roc_auc(self) -> NDArray[np.float64]:
        above = np.cumsum(self.frauds[:, ::-1], axis=1)[:, ::-1] - self.frauds / 2
        frauds, genuine = self.frauds.sum(axis=1), self.genuine.sum(axis=1)
        return _ratio((self.genuine * above).sum(axis=1), frauds * genuine)

    def precision(self) -> NDArray[np.float64]:
        return _ratio(self.caught, self.alerts)

    def recall(self) -> NDArray[np.float64]:
        return _ratio(self.caught, self.frauds.sum(axis=1))

    def brier_skill(self) -> NDArray[np.float64]:
        frauds, genuine = self.frauds.sum(axis=1), self.genuine.sum(axis=1)
        return 1 - _ratio(self.squares * (frauds + genuine), frauds * genuine)


METRICS: Mapping[str, Callable[[_Counts], NDArray[np.float64]]] = {
    "average_precision": _Counts.average_precision,
    "roc_auc": _Counts.roc_auc,
    "precision_at_budget": _Counts.precision,
    "recall_at_budget": _Counts.recall,
    "brier_skill": _Counts.brier_skill,
}
"""The metrics of `fraud.models.evaluation.metrics` that can be replicated, by name."""


def replicate(
    labels: NDArray,
    outputs: Mapping[str, Outputs],
    clusters: NDArray | None,
    replicates: int = REPLICATES,
) -> Replicates:
    """Measures models on replicates of the examples, the same ones in every call.

    Args:
      labels: [n], 1 for fraud, 0 for genuine.
      outputs: model → what it says of the examples.
      clusters: [n], the card of each example, of any comparable type; None: each example is drawn
        by itself.
      replicates: how many.
    """
    fraud = labels == 1
    if clusters is None:
        # Numbered by content, because Beam delivers examples in any order.
        keys = [array for of in outputs.values() for array in (of.scores, of.alerts)]
        cluster = np.empty(fraud.size, np.int64)
        cluster[np.lexsort([*keys, fraud])] = np.arange(fraud.size)
    else:
        cluster = numbered(clusters)[1]
    size = int(cluster.max(initial=-1)) + 1
    rankings = {model: _Ranking(fraud, of, cluster, size) for model, of in outputs.items()}
    measured: dict[tuple[str, str], list[NDArray[np.float64]]] = {
        (model, metric): [] for model in outputs for metric in METRICS
    }
    random = np.random.default_rng(_SEED)
    draws = [np.ones(size)]  # how often each cluster is drawn; the examples themselves: once
    for start in range(0, replicates + 1, _CHUNK):
        while len(draws) < min(_CHUNK, replicates + 1 - start):
            drawn = random.integers(0, size, size)
            draws.append(np.bincount(drawn, minlength=size).astype(np.float64))
        for model, ranking in rankings.items():
            counts = ranking.counts(draws)
            for metric, measure in METRICS.items():
                measured[model, metric].append(measure(counts))
        draws = []
    values = {key: np.concatenate(parts) for key, parts in measured.items()}
    return Replicates(values, np.unique(cluster[fraud]).size)


class _Ranking:
    """The steps and alerts of one model, ready to be counted.

    Args:
      fraud: bool [n].
      outputs: of the model.
      cluster: [n], from 0 to `size` - 1.
      size: the number of clusters.
    """

    def __init__(
        self,
        fraud: NDArray[np.bool_],
        outputs: Outputs,
        cluster: NDArray[np.int64],
        size: int,
    ) -> None:
        scores, alerts = outputs.scores, outputs.alerts
        of_frauds = np.unique(scores[fraud])
        # Even between scores of frauds, odd at one of them.
        step = np.searchsorted(of_frauds, scores) + np.searchsorted(of_frauds, scores, "right")
        self._steps = 2 * of_frauds.size + 1
        cell, ones = fraud * self._steps + step, np.ones(fraud.size)
        from scipy import sparse  # most processes that import this module never come here

        # Counts are whole numbers, so their sums are exact in any order.
        self._cells = sparse.csr_matrix((ones, (cell, cluster)), (2 * self._steps, size))
        self._caught = np.bincount(cluster, fraud & alerts, size)
        self._alerts = np.bincount(cluster, alerts, size)
        self._squares = np.bincount(cluster, np.square(scores.astype(np.float64) - fraud), size)

    def counts(self, draws: list[NDArray[np.float64]]) -> _Counts:
        """Counts the examples of replicates, given how often each cluster is drawn for each."""
        # The sums over steps depend on how the array lies in memory, a little.
        counts = np.ascontiguousarray((self._cells @ np.stack(draws, axis=1)).T)
        caught = np.array([drawn @ self._caught for drawn in draws])
        alerts = np.array([drawn @ self._alerts for drawn in draws])
        squares = np.array([drawn @ self._squares for drawn in draws])
        return _Counts(counts[:, self._steps :], counts[:, : self._steps], caught, alerts, squares)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """A part of a whole / the whole; NaN where the whole is 0."""
    return part / np.where(whole == 0, np.nan, whole)

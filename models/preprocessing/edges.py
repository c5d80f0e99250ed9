"""Where the bins of a numeric column begin and end: at quantiles, and where the fraud rate jumps.

The piecewise-linear encoding is continuous, so inside a wide bin the network cannot tell a value
just below a limit from one just above it. Where the share of frauds jumps, two edges next to each
other enclose the jump: the bin between them is a step. The jumps are the splits of a decision tree
on the column alone (Gorishniy, Rubachev, Babenko, "On embeddings for numerical features in tabular
deep learning", NeurIPS 2022, section 3.2.2, use such a tree for all edges, one for each split).
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

QUANTILES = 65  # of each class: candidates for the edges at quantiles
BINS_PER_JUMP = 8
SIGNIFICANT = 30.0
"""The least likelihood-ratio statistic of a jump.

For a given place, chance alone exceeds 30 once in 2 · 10⁷ times (χ² with one degree of freedom);
there are up to 2,000 places in a column, and some tens of columns. This is for rows that are
independent. Frauds come in series on one card, so in a column that hardly varies on a card, a few
cards with many frauds each exceed it, too.
"""


def bin_edges(
    genuine: NDArray, genuine_counts: NDArray, fraud: NDArray, fraud_counts: NDArray, bins: int
) -> NDArray:
    """Chooses the edges of the bins of each column.

    At most an eighth of the bins are steps at the largest significant jumps. The other edges are
    evenly spaced picks from the distinct quantiles, half of them of frauds.

    Args:
      genuine, fraud: quantiles of the genuine transactions and of the frauds, evenly spaced from
        the minimum to the maximum: float32 [columns, parts + 1] each.
      genuine_counts, fraud_counts: the number of values they describe, int64 [columns] each.
      bins: number of bins.

    Returns:
      float32 [columns, bins + 1], ascending; a column with fewer distinct values has edges that
      coincide.
    """
    rows = []
    for column in range(len(genuine)):
        quantiles = (genuine[column], fraud[column])
        counts = (int(genuine_counts[column]), int(fraud_counts[column]))
        steps = np.unique(_jumps(quantiles, counts, bins // BINS_PER_JUMP))
        edges = np.union1d(steps, _spread(quantiles, steps, bins + 1 - steps.size))
        rows.append(np.pad(edges, (0, bins + 1 - edges.size), mode="edge"))
    return np.stack(rows).astype(np.float32)


def _spread(quantiles: tuple[NDArray, NDArray], steps: NDArray, count: int) -> NDArray:
    """Evenly spaced picks from the distinct quantiles of both classes, in all `count`.

    What is an edge already, of a step, is none of them: it would be an edge lost.
    """
    inner = np.linspace(1, quantiles[0].size - 2, QUANTILES).round().astype(int)
    values = np.unique(np.concatenate([of_class[inner] for of_class in quantiles]))
    values = np.setdiff1d(values, steps)
    if not values.size:
        return values
    return values[np.round((values.size - 1) * np.linspace(0, 1, count)).astype(int)]


def _jumps(
    quantiles: tuple[NDArray, NDArray], counts: tuple[int, int], most: int
) -> NDArray[np.float32]:
    """The two values around each of at most `most` jumps, unsorted.

    A tree that splits best first: the next split is the one that the likelihood gains most by.
    """
    values = np.unique(np.concatenate(quantiles))
    # Estimated numbers of genuine and fraudulent values that are at most values[i], [2, values].
    below = np.stack(
        [
            count
            * (np.maximum(np.searchsorted(of_class, values, "right") - 1, 0))
            / (of_class.size - 1)
            for of_class, count in zip(quantiles, counts, strict=True)
        ]
    )
    edges: list[float] = []
    nodes = [_best_split(below, 0, values.size - 1)]
    while nodes and len(edges) < 2 * most:
        gain, first, split, last = heapq.heappop(nodes)
        if -gain < SIGNIFICANT:
            break
        edges += [values[split], values[split + 1]]
        heapq.heappush(nodes, _best_split(below, first, split))
        heapq.heappush(nodes, _best_split(below, split + 1, last))
    return np.array(edges, np.float32)


def _best_split(below: NDArray, first: int, last: int) -> tuple[float, int, int, int]:
    """The best split of the values first … last: (- statistic, first, last value before it, last).

    The statistic is G = 2 Σ observed · ln (observed / expected) over both sides and classes.
    """
    if first >= last:
        return 0.0, first, first, last
    before = below[:, first - 1 : first] if first else np.zeros((2, 1))
    left = below[:, first:last] - before
    whole = below[:, last : last + 1] - before
    total = max(float(whole.sum()), 1.0)
    statistic = np.zeros(last - first)
    for observed in (left, whole - left):
        expected = whole * observed.sum(axis=0) / total
        ratio = np.divide(observed, expected, out=np.ones_like(observed), where=observed > 0)
        statistic += 2 * (observed * np.log(ratio)).sum(axis=0)
    split = int(statistic.argmax())
    return -float(statistic[split]), first, first + split, last

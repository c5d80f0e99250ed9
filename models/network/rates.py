"""The fraud rate of each category, estimated without the rows that it is an input for.

Target encoding (Micci-Barreca, "A preprocessing scheme for high-cardinality categorical attributes
in classification and prediction problems", SIGKDD Explorations 3, 2001). A rate that counts the
label of the row at hand gives that label away, so the rates that a member of the network is trained
with leave out the fold of the row's card. They also leave out all cards that the member holds out:
otherwise the difference between the rates of two folds would tell it their labels.

A category whose rows are all in one fold, such as an entity that is also read as a category, has no
rate in training, and so it has none later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fraud.models.streamed import Streamed

FOLDS = 5
PRIOR_FRAUDS = 3
"""A category counts as having so many frauds more, among as many rows as have these on average."""
_ROWS = 1 << 18  # read at once


@dataclass(frozen=True)
class Groups:
    """Groups of cards within which all rates are the same.

    Attributes:
      of_rows: the group of each row, [n].
      held_out: which members hold out each group, bool [groups, members].
      folds: the fold of each group, 0 … FOLDS − 1.
    """

    of_rows: np.ndarray
    held_out: np.ndarray
    folds: np.ndarray

    @classmethod
    def of(cls, held_out: np.ndarray, card_of_rows: np.ndarray) -> Groups:
        """Divides cards in order into folds, and these where other members hold cards out.

        Args:
          held_out: which members hold out each card, bool [cards, members].
          card_of_rows: the card of each row, [n].
        """
        folds = np.arange(len(held_out)) * FOLDS // max(1, len(held_out))
        differs = (held_out[1:] != held_out[:-1]).any(axis=1) | (folds[1:] != folds[:-1])
        first = np.flatnonzero(np.concatenate([[True], differs]))
        group = np.cumsum(np.concatenate([[0], differs]))
        return cls(group[card_of_rows], held_out[first], folds[first])

    @property
    def counted(self) -> np.ndarray:
        """Which groups a rate counts, bool [1 + groups, members, groups].

        The first are the rates that new transactions get: they count all groups. The others are
        those of each group's rows.
        """
        count = self.folds.size
        counted = np.ones((1 + count, self.held_out.shape[1], count), bool)
        other_fold = self.folds[:, np.newaxis] != self.folds
        for group in range(count):
            for member, held_out in enumerate(self.held_out[group]):
                kept = ~self.held_out[:, member]
                counted[1 + group, member] = kept if held_out else kept & other_fold[group]
        return counted


def log_odds(
    categorical: np.ndarray | Streamed, labels: np.ndarray, groups: Groups, sizes: Sequence[int]
) -> list[np.ndarray]:
    """Estimates by how much each category raises the log-odds of fraud above the average.

    Args:
      categorical: the index of each row's category, int64 [n, columns].
      labels: 0 or 1, [n].
      groups: of the rows.
      sizes: number of indices of each column.

    Returns:
      For each column float32 [1 + groups, size, members]: for new transactions, and for the rows of
      each group. 0 where nothing is known.
    """
    count = groups.folds.size
    rows_of = [np.zeros((count, size)) for size in sizes]
    frauds_of = [np.zeros((count, size)) for size in sizes]
    for begin in range(0, labels.size, _ROWS):
        rows = np.arange(begin, min(begin + _ROWS, labels.size))
        for i, (index, size) in enumerate(zip(categorical[rows].T, sizes, strict=True)):
            cell = groups.of_rows[rows] * size + index
            cells = count * size
            rows_of[i] += np.bincount(cell, minlength=cells).reshape(count, size)
            frauds_of[i] += np.bincount(cell, labels[rows], minlength=cells).reshape(count, size)
    counted = groups.counted.astype(float)
    tables = []
    for of_rows, of_frauds in zip(rows_of, frauds_of, strict=True):
        rows, frauds = (np.einsum("gmk,ks->gsm", counted, each) for each in (of_rows, of_frauds))
        table = _above_average(rows, frauds)
        # Training sees no rate of a category of one fold; the network has not learned to read it.
        in_folds = sum(of_rows[groups.folds == fold].any(axis=0) for fold in range(FOLDS))
        table[0, in_folds < 2] = 0
        tables.append(table)
    return tables


def _above_average(rows: np.ndarray, frauds: np.ndarray) -> np.ndarray:
    """The smoothed log-odds of fraud minus that of all categories together, of axis 1."""
    average = frauds.sum(axis=1, keepdims=True) / np.maximum(1, rows.sum(axis=1, keepdims=True))
    known = (average > 0) & (average < 1)
    average = np.where(known, average, 0.5)
    rate = (frauds + PRIOR_FRAUDS) / (rows + PRIOR_FRAUDS / average)
    return np.where(known, _logit(rate) - _logit(average), 0).astype(np.float32)


def for_group(categorical: np.ndarray, groups: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Moves the indices of categories to the rates of their row's group.

    See `architecture.FraudRate`.

    Args:
      categorical: int64 [n, columns].
      groups: [n].
      sizes: number of indices of each column.

    Returns:
      int64 [n, columns].
    """
    return categorical + (groups[:, np.newaxis] + 1) * np.asarray(sizes)


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)

"""The population: customers with their habits, terminals with their trade, and which terminals
are within a customer's reach.

Based on chapter 3 of *Reproducible Machine Learning for Credit Card Fraud Detection, Practical
Handbook* (Le Borgne, Siblini, Lebichot, Bontempi); merchant categories and age bands are additions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: The world is a square with sides of this length.
SIDE = 100.0


class Category(NamedTuple):
    """A trade.

    Attributes:
      name: the value in MERCHANT_CATEGORY.
      share: fraction of the terminals.
      online: fraction of the payments that are made online.
      risk: risk of being compromised, relative to other trades.
    """

    name: str
    share: float
    online: float
    risk: float


CATEGORIES = (
    Category("groceries", 0.22, 0.05, 0.7),
    Category("restaurants", 0.17, 0.05, 0.8),
    Category("clothing", 0.12, 0.35, 1.0),
    Category("fuel", 0.09, 0.00, 1.8),
    Category("transport", 0.08, 0.30, 0.8),
    Category("home", 0.07, 0.25, 0.8),
    Category("pharmacy", 0.06, 0.10, 0.6),
    Category("electronics", 0.05, 0.40, 1.6),
    Category("entertainment", 0.05, 0.40, 1.2),
    Category("digital_goods", 0.04, 1.00, 2.0),
    Category("travel", 0.03, 0.60, 1.6),
    Category("utilities", 0.02, 0.70, 0.4),
)


class AgeBand(NamedTuple):
    """Customers of similar age.

    Attributes:
      name: the value in CUSTOMER_AGE_BAND.
      share: fraction of the customers.
      risk: risk of losing the card's details, relative to other bands.
    """

    name: str
    share: float
    risk: float


AGE_BANDS = (
    AgeBand("18-25", 0.13, 1.3),
    AgeBand("26-35", 0.20, 0.9),
    AgeBand("36-50", 0.28, 0.8),
    AgeBand("51-65", 0.23, 0.9),
    AgeBand("66+", 0.16, 1.4),
)

#: Fraction of the customers whose age band is unknown to the bank.
UNKNOWN_AGE = 0.01


@dataclass(frozen=True)
class Customers:
    """One entry per customer in every array.

    Attributes:
      x, y: coordinates of the home.
      mean_amount: mean amount of a purchase; the standard deviation is half of it.
      per_day: mean number of purchases a day.
      age_band: index into `AGE_BANDS`; -1 where unknown.
      risk: relative probability of being compromised; sums to 1.
    """

    x: Floats
    y: Floats
    mean_amount: Floats
    per_day: Floats
    age_band: Ints
    risk: Floats

    @classmethod
    def drawn(cls, count: int, rng: np.random.Generator) -> Customers:
        """Draws `count` random customers."""
        x, y = rng.uniform(0, SIDE, (2, count))
        mean_amount = rng.uniform(5, 100, count)
        per_day = rng.uniform(0, 4, count)
        age_band = choose(rng.random(count), [band.share for band in AGE_BANDS])
        risk = np.array([band.risk for band in AGE_BANDS])[age_band]
        age_band[rng.random(count) < UNKNOWN_AGE] = -1
        return cls(x, y, mean_amount, per_day, age_band, risk / risk.sum())


@dataclass(frozen=True)
class Terminals:
    """One entry per terminal in every array.

    Attributes:
      x, y: coordinates of the terminal.
      category: index into `CATEGORIES`.
      risk: relative probability of being compromised; sums to 1.
    """

    x: Floats
    y: Floats
    category: Ints
    risk: Floats

    @classmethod
    def drawn(cls, count: int, rng: np.random.Generator) -> Terminals:
        """Draws `count` random terminals."""
        x, y = rng.uniform(0, SIDE, (2, count))
        category = choose(rng.random(count), [category.share for category in CATEGORIES])
        risk = np.array([category.risk for category in CATEGORIES])[category]
        return cls(x, y, category, risk / risk.sum())


def choose(uniform: Floats, shares: list[float]) -> Ints:
    """Maps uniform numbers in [0, 1) to indices with probabilities `shares`, which sum to 1."""
    # The last bound is infinite, because a rounded sum of shares may be below a number near 1.
    bounds = np.append(np.cumsum(shares[:-1]), np.inf)
    return np.searchsorted(bounds, uniform, side="right")


class Reach:
    """The terminals within `radius` of a customer's home, without a list of pairs.

    100,000 customers and 100,000 terminals have 80 million pairs within reach, too many to store.
    Instead, the square is divided into cells at least `radius` wide, and terminals are sorted by
    cell, row by row. A customer's *candidates* are the terminals of the 3 by 3 cells around the
    home, which form three slices. A terminal within reach is drawn by rejection sampling from the
    candidates; about one in three is accepted.
    """

    def __init__(self, customers: Customers, terminals: Terminals, radius: float) -> None:
        self._customers, self._radius = customers, radius
        cells = max(1, int(SIDE / radius))

        row, column = _cells(terminals, cells)
        cell = row * cells + column
        self._terminal = np.argsort(cell, kind="stable")
        self._x, self._y = terminals.x[self._terminal], terminals.y[self._terminal]
        first_of_cell = np.searchsorted(cell[self._terminal], np.arange(cells * cells + 1))

        row, column = _cells(customers, cells)
        rows = row[:, None] + np.array([-1, 0, 1])
        inside = (rows >= 0) & (rows < cells)
        rows = np.clip(rows, 0, cells - 1) * cells
        left, right = np.maximum(column - 1, 0), np.minimum(column + 1, cells - 1)
        first = first_of_cell[rows + left[:, None]]
        count = np.where(inside, first_of_cell[rows + right[:, None] + 1] - first, 0)
        self._ends = count.cumsum(axis=1)
        # The k-th candidate of a customer is at position k + shift of the slice that contains k.
        self._shift = first - (self._ends - count)

    def any(self) -> Bools:
        """For each customer, whether any terminal is within reach."""
        total = self._ends[:, 2]
        reaches = np.zeros(len(total), bool)
        open_, tried = np.arange(len(total)), 0
        while len(open_ := open_[tried < total[open_]]):
            # Start with the middle candidates: they are in the home's cell, so most likely near.
            k = (total[open_] // 2 + tried) % total[open_]
            near = self._near(open_, self._candidate(open_, k))
            reaches[open_[near]] = True
            open_, tried = open_[~near], tried + 1
        return reaches

    def draw(self, customer: Ints, rng: np.random.Generator) -> Ints:
        """Draws one terminal within reach, uniformly, for each entry of `customer`.

        Every customer must have a terminal within reach (see `any`).
        """
        terminal = np.empty(len(customer), np.int64)
        open_ = np.arange(len(customer))
        while len(open_):
            who = customer[open_]
            candidate = self._candidate(who, rng.integers(self._ends[who, 2]))
            near = self._near(who, candidate)
            terminal[open_[near]] = self._terminal[candidate[near]]
            open_ = open_[~near]
        return terminal

    def _candidate(self, customer: Ints, k: Ints) -> Ints:
        """Position of each customer's `k`-th candidate in the sorted terminals."""
        ends = self._ends[customer]
        piece = (k >= ends[:, 0]).astype(np.int64) + (k >= ends[:, 1])
        return k + self._shift[customer, piece]

    def _near(self, customer: Ints, candidate: Ints) -> Bools:
        dx = self._customers.x[customer] - self._x[candidate]
        dy = self._customers.y[customer] - self._y[candidate]
        return dx * dx + dy * dy < self._radius**2


def _cells(places: Customers | Terminals, cells: int) -> tuple[Ints, Ints]:
    """Row and column of each place in a grid of `cells` by `cells`."""
    row, column = (np.array([places.y, places.x]) / SIDE * cells).astype(np.int64)
    return row, column

"""Drift: how far days of transactions differ from earlier ones, and how far they normally do.

Pure arithmetic on counts by day, so that other data than a run's can be judged by the same rules. A
window is compared with a baseline by these measures, all between 0 and 1:

- distribution: Jensen-Shannon divergence (base 2) of the shares of cells. Numbers have a cell for 0
  and up to ten with equal shares of the baseline's other numbers; categories have one for each
  frequent category and one for the rest.
- missing rate, zero rate: the difference of the rates.
- unseen categories: the share of the rows whose category the baseline lacks.
- rows per day, rows of a day: 1 − smaller / larger.

A threshold is the larger of a fixed minimum, below which a change does not matter, and what the
baseline's own variation makes plausible. Let v be the variance of a share from day to day, after
removing the effect of the weekday, or seven times that from week to week if it is larger, because
the rows of one week are not independent. Without drift, the shares p of c days and q of
b days differ by a variance of v (1/c + 1/b), and for small differences the divergence is
Σ (p − q)² / (8 ln 2 · q) (Lin 1991, Divergence measures based on the Shannon entropy). Its mean
follows from v, and relative to it, it is distributed approximately as F: as a mean of squares, with
Satterthwaite's degrees of freedom (1946), relative to an estimate of it.
Cards that only one of the windows has add to the variance as if all rows of a card were alike (see
`Cards.without`); cards that stay are in v.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DISTRIBUTION, MISSING, ZERO = "distribution", "missing rate", "zero rate"
UNSEEN, ROWS_PER_DAY, ROWS_OF_DAY = "unseen categories", "rows per day", "rows of a day"
ROWS = "rows_per_day"
"""The name under which thresholds and measurements refer to the number of rows."""

LEAST = {
    DISTRIBUTION: 0.002,
    MISSING: 0.005,
    ZERO: 0.005,
    UNSEEN: 0.005,
    ROWS_PER_DAY: 0.25,
    ROWS_OF_DAY: 0.45,
}
"""Changes up to these are too small to matter, however certain they are."""

UNCALIBRATED = {DISTRIBUTION: 0.02, MISSING: 0.05, ZERO: 0.05, UNSEEN: 0.05}
"""The thresholds where the baseline has too few days to measure its variation.

A divergence of .02 is a population stability index of .1, by convention a moderate change.
"""

CELLS = 10
_FREQUENT = 0.01  # categories with a smaller share have a common cell
_WEEK = 7
_CALIBRATION_DAYS = 7  # the least from which a variation is estimated
_CHANCE = 1e-5  # the probability of exceeding a threshold without drift
_DEVIATIONS = 5.0  # standard deviations between weeks that are still plausible
_EXACT = 1e6  # degrees of freedom of a variance that is not estimated


@dataclass(frozen=True)
class Numbers:
    """A numeric column by day.

    Attributes:
      missing, zeros: rows without a value, rows with the value 0, [days].
      edges: the boundaries of a histogram of the other values, ascending, [days][buckets + 1].
      counts: its rows, [days][buckets].
    """

    missing: Floats
    zeros: Floats
    edges: Sequence[Floats]
    counts: Sequence[Floats]


@dataclass(frozen=True)
class Categories:
    """A categorical column by day.

    Attributes:
      missing: rows without a value, [days].
      counts: category → rows, [days].
    """

    missing: Floats
    counts: Mapping[str, Floats]


Column = Numbers | Categories


@dataclass(frozen=True)
class Cards:
    """A sample of the cards of a window: those whose hash is among the smallest.

    Attributes:
      hashes: ascending, [cards].
      rows: the transactions of each, [cards].
      sampled: the share of all hash values that the sample covers, 0 to 1.
    """

    hashes: NDArray[np.uint64]
    rows: Floats
    sampled: float

    def without(self, other: Cards) -> float:
        """What the cards that another window lacks contribute to the variance of a share.

        If a window's rows come from cards with r rows each, and those of one card are all alike, a
        share p varies by p (1 − p) Σ r² / (Σ r)² when the cards are replaced by others.
        """
        sampled = min(self.sampled, other.sampled)
        inside = self.hashes <= np.uint64(min(sampled * 2.0**64, 2.0**64 - 2048))
        alone = inside & ~np.isin(self.hashes, other.hashes)
        total = self.rows[inside].sum()
        return float(sampled * np.sum(self.rows[alone] ** 2) / total**2) if total else 0.0

    @property
    def effective(self) -> float:
        """The number of equally active cards whose rows would be as informative."""
        return float(self.rows.sum() ** 2 / np.sum(self.rows**2) / self.sampled)


@dataclass(frozen=True)
class Profile:
    """What is counted of a window.

    Attributes:
      days: days since 1970, ascending and without gaps; a single 0 if the data has no timestamp.
      rows: transactions, [days].
      cards: a sample of its cards; None if the data has none.
      columns: the columns, by name.
    """

    days: NDArray[np.int64]
    rows: Floats
    cards: Cards | None
    columns: Mapping[str, Column]

    def at(self, chosen: NDArray) -> Profile:
        """The profile of some of the days, given by a mask or by positions."""
        positions = np.arange(len(self.days))[chosen]
        columns: dict[str, Column] = {}
        for name, column in self.columns.items():
            if isinstance(column, Numbers):
                columns[name] = Numbers(
                    column.missing[positions],
                    column.zeros[positions],
                    [column.edges[i] for i in positions],
                    [column.counts[i] for i in positions],
                )
            else:
                counts = {label: days[positions] for label, days in column.counts.items()}
                columns[name] = Categories(column.missing[positions], counts)
        return Profile(self.days[positions], self.rows[positions], self.cards, columns)


@dataclass(frozen=True)
class Measurement:
    """One comparison of a window with a baseline.

    Attributes:
      column: the column; `ROWS` for the number of rows.
      measure: one of the measures above.
      value: how large the difference is, 0 to 1.
      threshold: how large it may be.
      change: what changed, in words.
      against: first and last day of the baseline; empty if the data has no timestamp.
      configured: whether the threshold is configured; otherwise it is derived.
    """

    column: str
    measure: str
    value: float
    threshold: float
    change: str
    against: str = ""
    configured: bool = False

    @property
    def drifted(self) -> bool:
        """Whether the difference is larger than it may be."""
        return self.value > self.threshold

    @property
    def description(self) -> str:
        """A sentence on what changed, by how much, and how much is allowed."""
        name = "Jensen-Shannon divergence" if self.measure == DISTRIBUTION else "difference"
        allowed = "as configured" if self.configured else "by its own variation"
        against = f" (against {self.against})" if self.against else ""
        numbers = f"{name} {self.value:.4f}, at most {self.threshold:.4f} {allowed}"
        return f"{self.change}{against}; {numbers}."


def compare(
    current: Profile, baseline: Profile, configured: Mapping[str, float]
) -> list[Measurement]:
    """Compares a window with a baseline.

    Args:
      current: the window to judge.
      baseline: what it is compared with.
      configured: thresholds that replace the derived ones, by column or `ROWS`.

    Returns:
      The measurements of the number of rows and of every column that both have.
    """
    current, baseline = _comparable(current, baseline)
    found = _of_rows(current, baseline) if len(baseline.days) > 1 else []
    for name, column in current.columns.items():
        before = baseline.columns.get(name)
        if before is not None and type(column) is not type(before):
            column, before = _as_categories(column), _as_categories(before)
        if isinstance(column, Numbers) and isinstance(before, Numbers):
            found += _of_numbers(name, column, before, current, baseline)
        elif isinstance(column, Categories) and isinstance(before, Categories):
            found += _of_categories(name, column, before, current, baseline)
    first, *_, last = [*baseline.days, baseline.days[-1]]
    against = f"{_day(first)} … {_day(last)}" if last else ""
    return [
        replace(
            measured,
            threshold=configured.get(measured.column, measured.threshold),
            against=against,
            configured=measured.column in configured,
        )
        for measured in found
    ]


def _as_categories(column: Column) -> Column:
    """A column without any value as categories: its counts do not tell its type."""
    if not isinstance(column, Numbers) or column.zeros.any() or any(map(np.any, column.counts)):
        return column
    return Categories(column.missing, {})


def _day(number: int) -> str:
    return str(np.datetime64(int(number), "D"))


def jensen_shannon(p: Floats, q: Floats) -> float:
    """Jensen-Shannon divergence of two distributions, base 2: from 0 (equal) to 1 (disjoint)."""
    middle = (p + q) / 2

    def divergence(of: Floats) -> float:
        some = of > 0
        return float(np.sum(of[some] * np.log2(of[some] / middle[some])))

    return max(0.0, (divergence(p) + divergence(q)) / 2)


def _comparable(current: Profile, baseline: Profile) -> tuple[Profile, Profile]:
    """Restricts both to whole weeks, or the baseline to the weekdays of a shorter window.

    Weekends differ from working days, and windows start on any weekday.
    """
    if len(current.days) < _WEEK:
        same = np.isin(baseline.days % _WEEK, current.days % _WEEK)
        return current, baseline.at(same) if same.any() else baseline
    return tuple(  # type: ignore[return-value]
        p.at(np.arange(len(p.days)) >= len(p.days) % _WEEK) if len(p.days) >= _WEEK else p
        for p in (current, baseline)
    )


def _covariance(daily: Floats, days: NDArray[np.int64]) -> tuple[Floats, int] | None:
    """How values vary from day to day: covariance, [n, n], and its degrees of freedom.

    It is that of weeks if these vary more than their days explain.

    Args:
      daily: values by day, [days, n]; NaN where a day has none.
      days: days since 1970, [days].

    Returns:
      None if there are too few days.
    """
    known = ~np.isnan(daily).any(axis=1)
    daily, days = daily[known], days[known]
    if len(days) < _CALIBRATION_DAYS:
        return None
    weeks = len(days) // _WEEK
    groups = days % _WEEK if weeks >= 3 else np.zeros(len(days))
    residuals, freedom = daily.copy(), len(days)
    for group in np.unique(groups):
        residuals[groups == group] -= residuals[groups == group].mean(axis=0)
        freedom -= 1
    of_days = residuals.T @ residuals / freedom
    if weeks < 3:
        return of_days, freedom
    by_week = daily[-weeks * _WEEK :].reshape(weeks, _WEEK, -1).mean(axis=1)
    by_week -= by_week.mean(axis=0)
    of_weeks = _WEEK * by_week.T @ by_week / (weeks - 1)
    return (of_weeks if np.trace(of_weeks) > np.trace(of_days) else of_days), freedom


def _per_days(current: Profile, baseline: Profile) -> float:
    """1/c + 1/b for windows of c and b days; days with fewer rows count for less."""
    fewer = min(1.0, current.rows.mean() / max(baseline.rows.mean(), 1.0))
    return 1 / max(len(current.days) * fewer, 1e-9) + 1 / len(baseline.days)


def _replaced_cards(current: Profile, baseline: Profile) -> float:
    """The variance of a share p due to cards that only one of both has, divided by p (1 − p)."""
    if current.cards is None or baseline.cards is None:
        return 0.0
    return current.cards.without(baseline.cards) + baseline.cards.without(current.cards)


def _of_shares(
    name: str, now: Floats, before: Floats, labels: Sequence[str], c: Profile, b: Profile
) -> Measurement:
    """Compares the distributions over cells, given their rows by day, [days, cells]."""
    p, q = (cells.sum(axis=0) / max(cells.sum(), 1.0) for cells in (now, before))
    value = jensen_shannon(p, q)
    with np.errstate(invalid="ignore"):
        daily = before / before.sum(axis=1, keepdims=True)
    # As if rows were independent, or replaced together with their cards.
    of_rows = np.diag(q) - np.outer(q, q)
    estimated = _covariance(daily, b.days)
    least = (UNCALIBRATED if estimated is None else LEAST)[DISTRIBUTION]
    covariance, freedom = estimated or (of_rows / max(b.rows.mean(), 1.0), _EXACT)
    covariance = covariance * _per_days(c, b) + of_rows * _replaced_cards(c, b)
    some = q > 0
    scaled = (covariance / np.sqrt(np.outer(q, q).clip(1e-300)))[np.ix_(some, some)]
    mean = np.trace(scaled) / (8 * math.log(2))
    threshold = max(least, mean * _plausible(scaled, freedom))
    largest = int(np.argmax(np.abs(p - q)))
    change = f"{labels[largest]} {q[largest]:.1%} → {p[largest]:.1%}"
    return Measurement(name, DISTRIBUTION, value, min(threshold, 1.0), change)


def _plausible(covariance: Floats, freedom: float) -> float:
    """How far a sum of squares plausibly exceeds its mean.

    Args:
      covariance: of the terms, [n, n].
      freedom: its degrees of freedom: as it is estimated, the sum follows an F instead of a χ².
    """
    from scipy.special import fdtri

    if not covariance.any():
        return 1.0
    terms = np.trace(covariance) ** 2 / np.sum(covariance**2)
    return float(fdtri(terms, terms * freedom, 1 - _CHANCE))


def _of_rate(
    name: str, measure: str, now: Floats, before: Floats, c: Profile, b: Profile
) -> Measurement:
    """Compares a rate, given the rows it counts by day, [days]."""
    rate, rate_before = now.sum() / max(c.rows.sum(), 1), before.sum() / max(b.rows.sum(), 1)
    threshold = _rate_threshold(measure, before, c, b)
    change = f"{rate_before:.2%} → {rate:.2%}"
    return Measurement(name, measure, abs(rate - rate_before), threshold, change)


def _rate_threshold(measure: str, before: Floats, c: Profile, b: Profile) -> float:
    with np.errstate(invalid="ignore", divide="ignore"):
        estimated = _covariance((before / b.rows)[:, None], b.days)
    # What no card had so far, one more of them may have.
    units = b.cards.effective if b.cards else b.rows.sum()
    rate = before.sum() / max(b.rows.sum(), 1.0)
    likely = (rate * units + 1) / (units + 2)
    variance = likely * (1 - likely) * _replaced_cards(c, b)
    if estimated is None or not before.any():
        units_now = c.cards.effective if c.cards else c.rows.sum()
        variance += likely * (1 - likely) * (1 / max(units_now, 1.0) + 1 / max(units, 1.0))
    daily, freedom = estimated or (np.zeros((1, 1)), _EXACT)
    variance += daily.item() * _per_days(c, b)
    least = UNCALIBRATED if estimated is None else LEAST
    plausible = variance * _plausible(np.ones((1, 1)), freedom)
    return min(1.0, max(least[measure], math.sqrt(plausible)))


def _of_numbers(name: str, now: Numbers, before: Numbers, c: Profile, b: Profile) -> list:
    measured = [
        _of_rate(name, MISSING, now.missing, before.missing, c, b),
        _of_rate(name, ZERO, now.zeros, before.zeros, c, b),
    ]
    edges = quantiles(before, np.arange(1, CELLS) / CELLS)
    edges = np.unique(edges)
    cells_now, cells_before = (np.column_stack([x.zeros, _cells(x, edges)]) for x in (now, before))
    if cells_now.sum() and cells_before.sum():
        labels = ["0", *(f"cell {i + 1}" for i in range(len(edges) + 1))]
        distance = _of_shares(name, cells_now, cells_before, labels, c, b)
        medians = [float(quantiles(x, np.array([0.5]))[0]) for x in (before, now)]
        change = "median {:.4g} → {:.4g}".format(*medians)
        measured.append(Measurement(name, DISTRIBUTION, distance.value, distance.threshold, change))
    return measured


def quantiles(column: Numbers, levels: Floats) -> Floats:
    """Quantiles of all numbers but 0, [levels]; they are edges of the days' histograms."""
    edges = np.unique(np.concatenate([*column.edges, [0.0]]))
    below = _cumulative(column, edges).sum(axis=0)
    # Histograms are approximate; a level that an edge nearly reaches is that edge's.
    return edges[np.searchsorted(below, (levels - 0.01) * below[-1])]


def _cumulative(column: Numbers, at: Floats) -> Floats:
    """Rows with a number ≤ each of `at`, without zeros, [days, at]; linear within a bucket."""
    result = np.zeros((len(column.edges), len(at)))
    for day, (edges, counts) in enumerate(zip(column.edges, column.counts, strict=True)):
        if not len(counts):
            continue
        bucket = np.searchsorted(edges, at, side="right") - 1
        inside = np.clip(bucket, 0, len(counts) - 1)
        width = edges[inside + 1] - edges[inside]
        part = np.divide(at - edges[inside], width, out=np.ones(len(at)), where=width > 0)
        sums = np.concatenate([[0.0], np.cumsum(counts)])
        part = np.where(bucket < 0, 0.0, np.minimum(part, 1.0))
        result[day] = sums[inside] + counts[inside] * part
    return result


def _cells(column: Numbers, edges: Floats) -> Floats:
    """Rows in each cell between edges, [days, edges + 1]."""
    below = _cumulative(column, edges)
    total = np.array([[counts.sum()] for counts in column.counts])
    return np.diff(np.column_stack([np.zeros(len(total)), below, total]), axis=1)


def _of_categories(
    name: str, now: Categories, before: Categories, c: Profile, b: Profile
) -> list[Measurement]:
    measured = [_of_rate(name, MISSING, now.missing, before.missing, c, b)]
    known = {label for label, days in before.counts.items() if days.any()}
    new = {label: days.sum() for label, days in now.counts.items() if label not in known}
    unseen = sum(new.values()) / max(c.rows.sum(), 1)
    largest = sorted((label for label in new if new[label]), key=lambda label: -new[label])[:3]
    measured.append(
        Measurement(
            name,
            UNSEEN,
            float(unseen),
            _unseen_threshold(before, c, b),
            f"{unseen:.2%} of the rows: {', '.join(map(repr, largest))}" if largest else "none",
        )
    )
    total = sum(days.sum() for days in before.counts.values())
    frequent = [label for label in known if before.counts[label].sum() >= _FREQUENT * total]
    frequent.sort()
    cells = []
    for column, days in ((now, c.days), (before, b.days)):
        nothing = np.zeros(len(days))
        all_rows = sum(column.counts.values(), nothing)
        chosen = [column.counts.get(label, nothing) for label in frequent]
        cells.append(np.column_stack([*chosen, all_rows - sum(chosen, nothing)]))
    if cells[0].sum() and cells[1].sum():
        labels = [*map(repr, frequent), "rarer ones"]
        measured.append(_of_shares(name, cells[0], cells[1], labels, c, b))
    return measured


def _unseen_threshold(before: Categories, c: Profile, b: Profile) -> float:
    """From the share of each week of the baseline whose categories no other week has."""
    threshold = _rate_threshold(UNSEEN, np.zeros(len(b.days)), c, b)
    weeks = len(b.days) // _WEEK
    if weeks < 3 or not before.counts:
        return threshold
    last = slice(-weeks * _WEEK, None)
    by_week = np.array(list(before.counts.values()))[:, last].reshape(-1, weeks, _WEEK).sum(axis=2)
    alone = np.where((by_week > 0).sum(axis=1, keepdims=True) == 1, by_week, 0).sum(axis=0)
    shares = alone / np.maximum(b.rows[last].reshape(weeks, _WEEK).sum(axis=1), 1)
    likely = shares.mean() + _DEVIATIONS * shares.std(ddof=1) * math.sqrt(1 + 1 / weeks)
    return min(1.0, max(threshold, float(likely)))


def _of_rows(c: Profile, b: Profile) -> list[Measurement]:
    """Compares the number of rows, of all days together and of each."""
    usual = max(b.rows.mean(), 1e-9)
    # Where it cannot be estimated, any number of rows is plausible.
    variance, freedom = _covariance(b.rows[:, None] / usual, b.days) or (np.ones((1, 1)), 1)
    deviation = math.sqrt(variance.item() * _plausible(np.ones((1, 1)), freedom))
    together = deviation * math.sqrt(1 / len(c.days) + 1 / len(b.days))
    measured = [
        Measurement(
            ROWS,
            ROWS_PER_DAY,
            _gap(c.rows.mean(), usual),
            min(1.0, max(LEAST[ROWS_PER_DAY], together)),
            f"{usual:,.0f} → {c.rows.mean():,.0f}",
        )
    ]
    alone = min(1.0, max(LEAST[ROWS_OF_DAY], deviation * math.sqrt(1.25)))
    worst, expected = 0, usual
    for i, day in enumerate(c.days):
        same = b.rows[b.days % _WEEK == day % _WEEK]
        of_day = same.mean() if len(same) > 1 else usual
        if i == 0 or _gap(c.rows[i], of_day) > _gap(c.rows[worst], expected):
            worst, expected = i, of_day
    change = f"{_day(c.days[worst])}: {c.rows[worst]:,.0f} instead of {expected:,.0f}"
    measured.append(Measurement(ROWS, ROWS_OF_DAY, _gap(c.rows[worst], expected), alone, change))
    return measured


def _gap(a: float, b: float) -> float:
    return 1 - min(a, b) / max(a, b, 1e-9)

"""Drift: how far days of transactions differ from earlier ones, and how far they normally do.

Pure arithmetic on counts by day, so that other data than a run's can be judged by the same rules. A
window is compared with a baseline by these measures, all between 0 and 1:

- distribution: Jensen-Shannon divergence (base 2) of the shares of cells. Numbers have a cell for 0
  and up to ten with equal shares of the baseline's other numbers; categories have one for each
  frequent category, and the others share up to ten.
- missing rate, zero rate: the difference of the rates.
- unseen categories: the share of the rows whose category the baseline lacks; largest new category:
  that of the most frequent one of them.
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

v comes from all days of the baseline, even where a window of less than a week is compared with the
same weekdays alone. A baseline of less than a week has no v, and nothing is judged by it; only data
without days has conventional thresholds. What cannot be judged is a measurement as well.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DISTRIBUTION, MISSING, ZERO = "distribution", "missing rate", "zero rate"
UNSEEN, NEW = "unseen categories", "largest new category"
ROWS_PER_DAY, ROWS_OF_DAY = "rows per day", "rows of a day"
ROWS = "rows_per_day"
"""The name under which thresholds and measurements refer to the number of rows."""

LEAST = {
    DISTRIBUTION: 0.002,
    MISSING: 0.005,
    ZERO: 0.005,
    UNSEEN: 0.005,
    NEW: 0.005,
    ROWS_PER_DAY: 0.25,
    ROWS_OF_DAY: 0.45,
}
"""Changes up to these are too small to matter, however certain they are."""

UNCALIBRATED = {DISTRIBUTION: 0.02, MISSING: 0.05, ZERO: 0.05, UNSEEN: 0.05, NEW: 0.05}
"""The thresholds for data without days, whose variation cannot be measured.

A divergence of .02 is a population stability index of .1, by convention a moderate change.
"""

CELLS = 10
REST = "(rest)"
"""The label of the categories that a day has beyond those that are counted one by one."""

_FREQUENT = 0.01  # categories with a smaller share have common cells
_WEEK = 7
_CHANCE = 1e-5  # the probability of exceeding a threshold without drift
_TIMES = 3  # how much larger than any before a new rare category may be
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
        alone, total = self._alone(other)
        return float(sampled * np.sum(alone**2) / total**2) if total else 0.0

    def share_without(self, other: Cards) -> float:
        """The share of the rows that are of cards that another window lacks."""
        alone, total = self._alone(other)
        return float(alone.sum() / total) if total else 0.0

    def _alone(self, other: Cards) -> tuple[Floats, float]:
        """The rows of the cards that the other lacks, and of all, where both samples are whole."""
        sampled = min(self.sampled, other.sampled)
        inside = self.hashes <= np.uint64(min(sampled * 2.0**64, 2.0**64 - 2048))
        alone = inside & ~np.isin(self.hashes, other.hashes)
        return self.rows[alone], float(self.rows[inside].sum())

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

    @property
    def has_days(self) -> bool:
        """Whether the data has timestamps."""
        return bool(self.days[-1])

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
    """One comparison of a window with a baseline, or why it is not possible.

    Attributes:
      column: the column; `ROWS` for the number of rows.
      measure: one of the measures above.
      value: how large the difference is, 0 to 1.
      threshold: how large it may be.
      change: what changed, in words.
      against: first and last day of the baseline; empty if the data has no timestamp.
      configured: whether the threshold is configured; otherwise it is derived.
      unjudged: why the change cannot be judged; empty if it can.
    """

    column: str
    measure: str
    value: float
    threshold: float
    change: str
    against: str = ""
    configured: bool = False
    unjudged: str = ""

    @property
    def drifted(self) -> bool:
        """Whether the difference is larger than it may be."""
        return not self.unjudged and self.value > self.threshold

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
      The measurements of the number of rows and of every column of the two. What cannot be judged
      says why, once for all measures of a column; with a configured threshold, all can be.
    """
    windows = _Windows.of(current, baseline)
    found = _of_rows(windows) if baseline.has_days else []
    for name in dict.fromkeys([*current.columns, *baseline.columns]):
        found += _of_column(name, windows)
    first, last = baseline.days[0], baseline.days[-1]
    against = f"{_day(first)} … {_day(last)}" if baseline.has_days else ""
    return _once_unjudged(
        replace(
            measured,
            threshold=configured.get(measured.column, measured.threshold),
            against=against,
            configured=measured.column in configured,
            unjudged=""
            if measured.column in configured and not math.isnan(measured.value)
            else measured.unjudged,
        )
        for measured in found
    )


def _once_unjudged(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Leaves out what repeats why a column cannot be judged."""
    told: dict[tuple, Measurement] = {}
    for number, measured in enumerate(measurements):
        key = (measured.column, measured.unjudged) if measured.unjudged else (number,)
        told.setdefault(key, measured)
    return list(told.values())


def _unjudged(column: str, why: str, measure: str = DISTRIBUTION) -> Measurement:
    """A comparison that has no value."""
    return Measurement(column, measure, math.nan, 1.0, "", unjudged=why)


def _of_column(name: str, windows: _Windows) -> list[Measurement]:
    column, before = windows.now.columns.get(name), windows.before.columns.get(name)
    if column is None or before is None:
        return [_unjudged(name, f"the {'window' if column is None else 'baseline'} lacks it")]
    if type(column) is not type(before):
        column, before = _as_categories(column), _as_categories(before)
    if isinstance(column, Numbers) and isinstance(before, Numbers):
        return _of_numbers(name, column, before, windows)
    if isinstance(column, Categories) and isinstance(before, Categories):
        return _of_categories(name, column, before, windows)
    kinds = {Numbers: "numbers", Categories: "categories"}
    changed = f"{kinds[type(before)]} became {kinds[type(column)]}"
    return [_unjudged(name, changed)]


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


@dataclass(frozen=True)
class _Windows:
    """A window and its baseline, and the days of both that are compared.

    Weekends differ from working days, and windows start on any weekday. So both are compared in
    whole weeks, or, if the window is shorter, on its weekdays in whole weeks of the baseline.

    Attributes:
      now, before: all days of the window, and of the baseline.
      days_now, days_before: the positions of those that are compared.
    """

    now: Profile
    before: Profile
    days_now: NDArray[np.int64]
    days_before: NDArray[np.int64]

    @classmethod
    def of(cls, now: Profile, before: Profile) -> _Windows:
        compared_now, compared_before = map(_whole_weeks, (now, before))
        if len(now.days) < _WEEK <= len(before.days):
            weekdays = before.days[compared_before] % _WEEK
            compared_before = compared_before[np.isin(weekdays, now.days % _WEEK)]
        return cls(now, before, compared_now, compared_before)

    @property
    def rows_now(self) -> Floats:
        """The rows of the days that are compared."""
        return self.now.rows[self.days_now]

    @property
    def rows_before(self) -> Floats:
        """The same of the baseline."""
        return self.before.rows[self.days_before]

    @property
    def per_days(self) -> float:
        """1/c + 1/b for windows of c and b days; days with fewer rows count for less."""
        fewer = min(1.0, self.rows_now.mean() / max(self.rows_before.mean(), 1.0))
        return 1 / max(len(self.days_now) * fewer, 1e-9) + 1 / len(self.days_before)

    @cached_property
    def replaced_cards(self) -> float:
        """The variance of a share p due to cards that only one has, divided by p (1 − p)."""
        now, before = self.now.cards, self.before.cards
        return 0.0 if now is None or before is None else now.without(before) + before.without(now)

    @property
    def too_few(self) -> str:
        """Why the baseline's variation is unknown; empty if it is known, or nothing has days."""
        days = len(self.before.days)
        if days >= _WEEK or not self.before.has_days:
            return ""
        return f"the baseline has {days} of the {_WEEK} days from which variation is measured"


def _whole_weeks(profile: Profile) -> NDArray[np.int64]:
    """The positions of the last whole weeks of a profile; of all days if it has less than one."""
    days = len(profile.days)
    return np.arange(days % _WEEK if days >= _WEEK else 0, days)


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
    if len(days) < _WEEK:
        return None
    weeks = len(days) // _WEEK
    # With fewer, the effect of the weekday cannot be told from the rest, and counts as variance.
    groups = days % _WEEK if weeks >= 2 else np.zeros(len(days))
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


def _of_shares(
    name: str, now: Floats, before: Floats, labels: Sequence[str], windows: _Windows
) -> Measurement:
    """Compares the distributions over cells, given their rows by day, [days, cells]."""
    compared = now[windows.days_now], before[windows.days_before]
    if not compared[0].any() or not compared[1].any():
        empty = "window" if compared[1].any() else "baseline"
        return _unjudged(name, f"the {empty} has no value on the days that are compared")
    p, q = (cells.sum(axis=0) / cells.sum() for cells in compared)
    value = jensen_shannon(p, q)
    with np.errstate(invalid="ignore"):
        daily = before / before.sum(axis=1, keepdims=True)
    # As if rows were independent, or replaced together with their cards.
    of_rows = np.diag(q) - np.outer(q, q)
    estimated = _covariance(daily, windows.before.days)
    least, unjudged = _least(DISTRIBUTION, estimated is not None, windows)
    covariance, freedom = estimated or (of_rows / max(windows.rows_before.mean(), 1.0), _EXACT)
    covariance = covariance * windows.per_days + of_rows * windows.replaced_cards
    some = q > 0
    scaled = (covariance / np.sqrt(np.outer(q, q).clip(1e-300)))[np.ix_(some, some)]
    mean = np.trace(scaled) / (8 * math.log(2))
    threshold = max(least, mean * _plausible(scaled, freedom))
    largest = int(np.argmax(np.abs(p - q)))
    change = f"{labels[largest]} {q[largest]:.1%} → {p[largest]:.1%}"
    return Measurement(name, DISTRIBUTION, value, min(threshold, 1.0), change, unjudged=unjudged)


def _least(measure: str, is_estimated: bool, windows: _Windows) -> tuple[float, str]:
    """The smallest threshold of a measure, and why its variation is unknown."""
    if is_estimated:
        return LEAST[measure], ""
    if not windows.before.has_days:
        return UNCALIBRATED[measure], ""
    few = "the baseline has values on fewer than the 7 days from which variation is measured"
    return UNCALIBRATED[measure], windows.too_few or few


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
    name: str, measure: str, now: Floats, before: Floats, windows: _Windows
) -> Measurement:
    """Compares a rate, given the rows it counts by day, [days]."""
    rate = now[windows.days_now].sum() / max(windows.rows_now.sum(), 1)
    rate_before = before[windows.days_before].sum() / max(windows.rows_before.sum(), 1)
    threshold, unjudged = _rate_threshold(measure, before, windows)
    change = f"{rate_before:.2%} → {rate:.2%}"
    value = float(abs(rate - rate_before))
    return Measurement(name, measure, value, threshold, change, unjudged=unjudged)


def _rate_threshold(measure: str, before: Floats, windows: _Windows) -> tuple[float, str]:
    """How far a rate may change, and why that is unknown, given its rows by day, [days]."""
    b = windows.before
    with np.errstate(invalid="ignore", divide="ignore"):
        estimated = _covariance((before / b.rows)[:, None], b.days)
    # What no card had so far, one more of them may have.
    units = b.cards.effective if b.cards else windows.rows_before.sum()
    rate = before.sum() / max(b.rows.sum(), 1.0)
    likely = (rate * units + 1) / (units + 2)
    variance = likely * (1 - likely) * windows.replaced_cards
    if estimated is None or not before.any():
        c = windows.now.cards
        units_now = c.effective if c else windows.rows_now.sum()
        variance += likely * (1 - likely) * (1 / max(units_now, 1.0) + 1 / max(units, 1.0))
    daily, freedom = estimated or (np.zeros((1, 1)), _EXACT)
    variance += daily.item() * windows.per_days
    least, unjudged = _least(measure, estimated is not None, windows)
    plausible = variance * _plausible(np.ones((1, 1)), freedom)
    return min(1.0, max(least, math.sqrt(plausible))), unjudged


def _of_numbers(name: str, now: Numbers, before: Numbers, windows: _Windows) -> list[Measurement]:
    measured = [
        _of_rate(name, MISSING, now.missing, before.missing, windows),
        _of_rate(name, ZERO, now.zeros, before.zeros, windows),
    ]
    edges = np.unique(quantiles(before, np.arange(1, CELLS) / CELLS))
    cells_now, cells_before = (np.column_stack([x.zeros, _cells(x, edges)]) for x in (now, before))
    labels = ["0", *(f"cell {i + 1}" for i in range(len(edges) + 1))]
    distance = _of_shares(name, cells_now, cells_before, labels, windows)
    medians = [float(quantiles(x, np.array([0.5]))[0]) for x in (before, now)]
    change = "median {:.4g} → {:.4g}".format(*medians)
    return [*measured, replace(distance, change=change)]


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
    name: str, now: Categories, before: Categories, windows: _Windows
) -> list[Measurement]:
    measured = [_of_rate(name, MISSING, now.missing, before.missing, windows)]
    days = windows.days_now
    known = {label for label, rows in before.counts.items() if rows.any()} | {REST}
    new = {label: rows[days].sum() for label, rows in now.counts.items() if label not in known}
    ranked = sorted((label for label in new if new[label]), key=lambda label: -new[label])
    rows = max(windows.rows_now.sum(), 1)
    shares = {UNSEEN: sum(new.values()) / rows, NEW: new[ranked[0]] / rows if ranked else 0.0}
    for measure, (threshold, unjudged) in _unseen_thresholds(before, windows).items():
        if measure == NEW and measured[-1].drifted:
            break  # the same once more
        told = ranked[: 3 if measure == UNSEEN else 1]
        change = f"{shares[measure]:.2%} of the rows: {', '.join(map(repr, told))}"
        change = change if ranked else "none"
        share = float(shares[measure])
        measured.append(Measurement(name, measure, share, threshold, change, unjudged=unjudged))
    total = sum(rows.sum() for rows in before.counts.values())
    frequent = [
        label for label in known - {REST} if before.counts[label].sum() >= _FREQUENT * total
    ]
    frequent.sort()
    others = 1 - sum(before.counts[label].sum() for label in frequent) / max(total, 1)
    shared = max(1, round(others * CELLS))
    cells = [
        _category_cells(column, frequent, shared, len(profile.days))
        for column, profile in ((now, windows.now), (before, windows.before))
    ]
    labels = [*map(repr, frequent), *["rarer ones" if shared == 1 else "some rarer ones"] * shared]
    return [*measured, _of_shares(name, cells[0], cells[1], labels, windows)]


def _category_cells(column: Categories, frequent: list[str], shared: int, days: int) -> Floats:
    """Rows by day of frequent categories and of groups of others, [days, frequent + shared].

    The groups follow from the labels alone: groups by frequency would depend on the chance of the
    baseline, and differ from any other window.
    """
    position = {label: i for i, label in enumerate(frequent)}
    cells = np.zeros((days, len(frequent) + shared))
    for label, rows in column.counts.items():
        group = len(frequent) + zlib.crc32(label.encode()) % shared
        cells[:, position.get(label, group)] += rows
    return cells


def _unseen_thresholds(before: Categories, windows: _Windows) -> dict[str, tuple[float, str]]:
    """From the categories that one week of the baseline has and no other, as if it were judged.

    Weeks and not days, because a category that comes and goes stays for some days. A single one
    may be `_TIMES` as frequent as the most frequent one of any day.
    """
    b, days = windows.before, len(windows.before.days)
    never, unjudged = _rate_threshold(UNSEEN, np.zeros(days), windows)
    counts = np.array([rows for label, rows in before.counts.items() if label != REST])
    counts = counts.reshape(-1, days)
    if not b.has_days:
        # The share of unseen categories is likely that of those seen once (Good 1953, The
        # population frequencies of species and the estimation of population parameters).
        once = counts.sum(axis=1) == 1
        likely = once.sum() / max(b.rows.sum(), 1)
        return {UNSEEN: (min(1.0, never + likely), ""), NEW: (never, "")}
    size = max(1, min(_WEEK, days // 2))
    block = np.arange(days)[::-1] // size
    in_block = np.array([counts[:, block == i].any(axis=1) for i in range(block.max() + 1)])
    own = counts * (in_block.sum(axis=0) == 1)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = own.sum(axis=0) / b.rows
        largest = own.max(axis=0, initial=0) / b.rows
    variance, freedom = _covariance(shares[:, None], b.days) or (np.zeros((1, 1)), _EXACT)
    plausible = variance.item() * windows.per_days * _plausible(np.ones((1, 1)), freedom)
    likely = np.nan_to_num(shares).mean() + math.sqrt(plausible)
    if own.any() and windows.now.cards and b.cards:
        likely += windows.now.cards.share_without(b.cards)  # such cards may bring their own
    most = _TIMES * np.nan_to_num(largest).max()
    return {
        UNSEEN: (min(1.0, max(never, float(likely))), unjudged),
        NEW: (min(1.0, max(never, float(most))), unjudged),
    }


def _of_rows(windows: _Windows) -> list[Measurement]:
    """Compares the number of rows, of all days together and of each."""
    now, before, b = windows.rows_now, windows.rows_before, windows.before
    usual = max(before.mean(), 1e-9)
    unjudged = windows.too_few
    variance, freedom = _covariance(b.rows[:, None] / usual, b.days) or (np.ones((1, 1)), 1)
    deviation = math.sqrt(variance.item() * _plausible(np.ones((1, 1)), freedom))
    together = deviation * math.sqrt(1 / len(now) + 1 / len(before))
    measured = [
        Measurement(
            ROWS,
            ROWS_PER_DAY,
            _gap(now.mean(), usual),
            min(1.0, max(LEAST[ROWS_PER_DAY], together)),
            f"{usual:,.0f} → {now.mean():,.0f}",
            unjudged=unjudged,
        )
    ]
    alone = min(1.0, max(LEAST[ROWS_OF_DAY], deviation * math.sqrt(1.25)))
    worst, expected, days = 0, usual, windows.now.days[windows.days_now]
    for i, day in enumerate(days):
        same = b.rows[b.days % _WEEK == day % _WEEK]
        of_day = same.mean() if len(same) > 1 else usual
        if i == 0 or _gap(now[i], of_day) > _gap(now[worst], expected):
            worst, expected = i, of_day
    change = f"{_day(days[worst])}: {now[worst]:,.0f} instead of {expected:,.0f}"
    gap = _gap(now[worst], expected)
    measured.append(Measurement(ROWS, ROWS_OF_DAY, gap, alone, change, unjudged=unjudged))
    return measured


def _gap(a: float, b: float) -> float:
    return 1 - min(a, b) / max(a, b, 1e-9)

"""Counts by day in TFDV's statistics: what drift is measured on.

TFDV computes them in its own pass, by a generator of ours, so they cost little; by its slices they
would cost as much for each day as for a whole window. They are custom statistics of the features in
`FeatureStats.pb`, named by their day:

| of | custom statistic |
|---|---|
| a numeric column | by day: histogram; first the zeros; missing is `num_undefined` |
| a categorical column | by day: rank histogram; missing has the label "" |
| the timestamp | `rows by day`: rank histogram |
| the card | `cards`: rows of those with the smallest hashes; `cards sampled`: share of hashes |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pandas.util import hash_array
from tensorflow_data_validation.statistics.generators.stats_generator import CombinerStatsGenerator
from tensorflow_data_validation.utils.quantiles_util import generate_quantiles_histogram
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx_bsl.sketches import QuantilesSketch

from fraud.pipeline.drift import REST, Cards, Categories, Column, Numbers, Profile
from fraud.time import local_days

COUNTS_BY_DAY = "counts_by_day"
"""The execution property of StatisticsGen with `ToCount` as JSON."""

BUCKETS = 20  # of a day's quantile histogram
CATEGORIES = 1000  # of a day's rank histogram; the rest is counted as one
_ERROR = 0.002  # of a quantile's rank
_MOST_VALUES = 2**32
_ROWS, _CARDS, _SAMPLED = "rows by day", "cards", "cards sampled"
_MOST_CARDS = 1000


@dataclass(frozen=True)
class ToCount:
    """What to count.

    Attributes:
      columns: numeric and categorical columns and features.
      timestamp: None counts all rows as one day, 1970-01-01.
      card: the entity that analysts check; its rows are not independent.
      timezone: IANA name; it defines the days.
    """

    columns: tuple[str, ...]
    timestamp: str | None
    card: str | None
    timezone: str


@dataclass
class _Counted:
    """One column on one day: either `sketch` or `categories` is used."""

    missing: int = 0
    zeros: int = 0
    sketch: QuantilesSketch | None = None
    categories: Counter[bytes] = field(default_factory=Counter)


@dataclass
class _Counts:
    rows: Counter[int] = field(default_factory=Counter)
    columns: dict[tuple[str, int], _Counted] = field(default_factory=dict)
    cards: Counter[int] = field(default_factory=Counter)
    largest_hash: int = 2**64 - 1  # of a card that is sampled

    def sample(self, cards: Counter[int], largest_hash: int) -> None:
        """Adds the rows of cards, by hash, and keeps the cards with the smallest hashes."""
        self.cards.update(cards)
        self.largest_hash = min(self.largest_hash, largest_hash)
        if len(self.cards) > _MOST_CARDS:
            self.largest_hash = min(self.largest_hash, sorted(self.cards)[_MOST_CARDS - 1])
        self.cards = Counter({h: n for h, n in self.cards.items() if h <= self.largest_hash})

    def of(self, column: str, day: int) -> _Counted:
        return self.columns.setdefault((column, day), _Counted())


class DailyCounts(CombinerStatsGenerator):
    """The generator that TFDV runs."""

    def __init__(self, to_count: ToCount) -> None:
        super().__init__("DailyCounts")
        self._to_count = to_count

    def create_accumulator(self) -> _Counts:
        """See CombinerStatsGenerator."""
        return _Counts()

    def add_input(self, accumulator: _Counts, batch: pa.RecordBatch) -> _Counts:
        """See CombinerStatsGenerator; every list has at most one value."""
        days = self._days(batch)
        numbers, starts = np.unique(days, return_index=True)
        order = None
        if len(numbers) > 1:
            order = np.argsort(days, kind="stable")
            starts = np.searchsorted(days[order], numbers)
        bounds = [*starts.tolist(), len(days)]
        spans = list(zip(numbers.tolist(), bounds, bounds[1:], strict=False))
        for day, first, stop in spans:
            accumulator.rows[day] += stop - first
        for name in self._to_count.columns:
            values = _one_value(batch, name)
            if order is not None:
                values = values.take(pa.array(order))
            for day, first, stop in spans:
                _count(accumulator.of(name, day), values.slice(first, stop - first))
        if self._to_count.card is not None:
            cards = _one_value(batch, self._to_count.card).drop_null().dictionary_encode()
            hashes = hash_array(cards.dictionary.to_numpy(zero_copy_only=False), categorize=False)
            rows = np.bincount(cards.indices.to_numpy(), minlength=len(hashes))
            near = hashes <= np.uint64(accumulator.largest_hash)
            of_batch = dict(zip(hashes[near].tolist(), rows[near].tolist(), strict=True))
            accumulator.sample(Counter(of_batch), accumulator.largest_hash)
        return accumulator

    def _days(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        if self._to_count.timestamp is None:
            return np.zeros(batch.num_rows, np.int64)
        seconds = _one_value(batch, self._to_count.timestamp)
        return local_days(seconds.to_numpy(zero_copy_only=False), self._to_count.timezone)

    def merge_accumulators(self, accumulators: Iterable[_Counts]) -> _Counts:
        """See CombinerStatsGenerator."""
        first, *others = accumulators
        for other in others:
            first.rows.update(other.rows)
            first.sample(other.cards, other.largest_hash)
            for (name, day), counted in other.columns.items():
                merged = first.of(name, day)
                merged.missing += counted.missing
                merged.zeros += counted.zeros
                merged.categories.update(counted.categories)
                if merged.sketch is None:
                    merged.sketch = counted.sketch
                elif counted.sketch is not None:
                    merged.sketch.Merge(counted.sketch)
        return first

    def extract_output(self, accumulator: _Counts) -> statistics_pb2.DatasetFeatureStatistics:
        """See CombinerStatsGenerator."""
        result = statistics_pb2.DatasetFeatureStatistics()
        if self._to_count.timestamp is not None:
            rows = _feature(result, self._to_count.timestamp).custom_stats.add(name=_ROWS)
            for day, count in sorted(accumulator.rows.items()):
                rows.rank_histogram.buckets.add(label=_name(day), sample_count=count)
        if self._to_count.card is not None:
            card = _feature(result, self._to_count.card)
            sample = card.custom_stats.add(name=_CARDS).rank_histogram
            for hashed, count in sorted(accumulator.cards.items()):
                sample.buckets.add(label=str(hashed), sample_count=count)
            card.custom_stats.add(name=_SAMPLED, num=(accumulator.largest_hash + 1) / 2**64)
        features = {name: _feature(result, name) for name in self._to_count.columns}
        for (name, day), counted in sorted(accumulator.columns.items()):
            _describe(counted, features[name].custom_stats.add(name=_name(day)))
        return result


def profile(statistics: statistics_pb2.DatasetFeatureStatistics) -> Profile | None:
    """What was counted of a window; None if nothing was: without rows, or by earlier versions."""
    rows: dict[int, float] = {}
    by_day: dict[str, dict[int, statistics_pb2.CustomStatistic]] = {}
    cards = None
    for feature in statistics.features:
        named = {custom.name: custom for custom in feature.custom_stats}
        if counted := named.pop(_ROWS, None):
            rows = {_number(b.label): b.sample_count for b in counted.rank_histogram.buckets}
        if sample := named.pop(_CARDS, None):
            cards = _cards(sample, named.pop(_SAMPLED))
        if named:
            by_day[feature.path.step[0]] = {_number(day): of for day, of in named.items()}
    if not rows and not by_day:
        return None
    rows = rows or {0: float(statistics.num_examples)}
    days = np.arange(min(rows), max(rows) + 1)
    columns = {
        name: _column([of_days.get(day) for day in days.tolist()])
        for name, of_days in by_day.items()
    }
    of_each = np.array([rows.get(day, 0.0) for day in days.tolist()])
    return Profile(days, of_each, cards, columns)


def _cards(
    sample: statistics_pb2.CustomStatistic, sampled: statistics_pb2.CustomStatistic
) -> Cards:
    buckets = sample.rank_histogram.buckets
    return Cards(
        np.array([int(b.label) for b in buckets], np.uint64),
        np.array([b.sample_count for b in buckets]),
        sampled.num,
    )


def _column(of_days: list[statistics_pb2.CustomStatistic | None]) -> Column:
    """The statistics of a column by day; None for a day without rows."""
    counts: dict[str, NDArray[np.float64]] = {}
    for day, custom in enumerate(of_days):
        for bucket in custom.rank_histogram.buckets if custom else ():
            counts.setdefault(bucket.label, np.zeros(len(of_days)))[day] = bucket.sample_count
    histograms = [c.histogram if c else statistics_pb2.Histogram() for c in of_days]
    missing = np.array([h.num_undefined for h in histograms], np.float64)
    if counts:
        # A day without any category is described as one without any number.
        return Categories(missing + counts.pop("", np.zeros(len(of_days))), counts)
    zeros, edges, others = zip(*map(_split, histograms), strict=True)
    return Numbers(missing, np.array(zeros), edges, others)


def _split(histogram: statistics_pb2.Histogram) -> tuple[float, NDArray, NDArray]:
    """Zeros, and edges and counts of the other numbers."""
    zeros, *buckets = histogram.buckets or [statistics_pb2.Histogram.Bucket()]
    edges = [buckets[0].low_value, *(b.high_value for b in buckets)] if buckets else []
    return zeros.sample_count, np.array(edges), np.array([b.sample_count for b in buckets])


def _count(counted: _Counted, values: pa.Array) -> None:
    counted.missing += values.null_count
    values = values.drop_null()
    if pa.types.is_large_binary(values.type) or pa.types.is_binary(values.type):
        for entry in values.value_counts().to_pylist():
            counted.categories[entry["values"]] += entry["counts"]
        return
    numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
    some = numbers[numbers != 0]
    counted.zeros += len(numbers) - len(some)
    if len(some):
        if counted.sketch is None:
            counted.sketch = QuantilesSketch(_ERROR, _MOST_VALUES, 1)
        counted.sketch.AddValues(pa.array(some))


def _describe(counted: _Counted, custom: statistics_pb2.CustomStatistic) -> None:
    if counted.categories:
        buckets = custom.rank_histogram.buckets
        ranked = counted.categories.most_common()
        rest = sum(count for _, count in ranked[CATEGORIES:])
        labelled = [(label.decode(errors="replace"), n) for label, n in ranked[:CATEGORIES]]
        for label, count in [*labelled, (REST, rest), ("", counted.missing)]:
            if count:
                buckets.add(label=label, sample_count=count)
        return
    if counted.sketch is not None:
        quantiles, weights = counted.sketch.GetQuantilesAndCumulativeWeights(BUCKETS)
        custom.histogram.CopyFrom(
            generate_quantiles_histogram(
                quantiles.flatten().to_numpy(), weights.flatten().to_numpy()
            )
        )
    custom.histogram.num_undefined = counted.missing
    zeros = statistics_pb2.Histogram.Bucket(sample_count=counted.zeros)
    others = list(custom.histogram.buckets)
    del custom.histogram.buckets[:]
    custom.histogram.buckets.extend([zeros, *others])


def _one_value(batch: pa.RecordBatch, name: str) -> pa.Array:
    """The value of each row, null where it has none."""
    column = batch.column(batch.schema.names.index(name))
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), pa.float32())
    if not pa.types.is_nested(column.type):
        return column
    present = column.is_valid().to_numpy(zero_copy_only=False)
    positions = np.where(present, np.cumsum(present) - 1, 0)
    return column.flatten().take(pa.array(positions, mask=~present))


def _feature(
    result: statistics_pb2.DatasetFeatureStatistics, name: str
) -> statistics_pb2.FeatureNameStatistics:
    feature = result.features.add()
    feature.path.step.append(name)
    return feature


def _name(day: int) -> str:
    return str(np.datetime64(day, "D"))


def _number(name: str) -> int:
    return int(np.datetime64(name, "D").astype(np.int64))

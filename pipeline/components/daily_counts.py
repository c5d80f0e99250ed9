"""Counts by day in TFDV's statistics: what drift is measured on.

TFDV runs them beside its own statistics, by a generator of ours, so they cost little; by its slices
they would cost as much for each day as for a whole window. Each column is counted on each day by
itself, so that what Beam's workers exchange stays small: TFDV's own combination has one accumulator
for all columns, which would need gigabytes for the days of a window with a million rows each. The
counts are custom statistics of the features in `FeatureStats.pb`, named by their day:

| of | custom statistic |
|---|---|
| a numeric column | by day: histogram; first the zeros; missing is `num_undefined` |
| a categorical column | by day: rank histogram; missing has the label "" |
| the timestamp | `rows by day`: rank histogram |
| the card | `cards`: rows of those with the smallest hashes; `cards sampled`: share of hashes |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pandas.util import hash_array
from tensorflow_data_validation.statistics.generators.stats_generator import TransformStatsGenerator
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
_COMPACT_ABOVE = 50_000  # numbers; a compacted sketch of fewer is larger than it was

SliceKey = str | None
"""A slice of TFDV's; without slices there is one key."""


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
    numbers: int = 0  # in the sketch
    categories: Counter[bytes] = field(default_factory=Counter)

    def add(self, values: pa.Array) -> None:
        """Counts values: numbers or categories, null where missing."""
        self.missing += values.null_count
        values = values.drop_null()
        if pa.types.is_large_binary(values.type) or pa.types.is_binary(values.type):
            for entry in values.value_counts().to_pylist():
                self.categories[entry["values"]] += entry["counts"]
            return
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
        some = numbers[numbers != 0]
        self.zeros += len(numbers) - len(some)
        self.numbers += len(some)
        if len(some):
            if self.sketch is None:
                self.sketch = QuantilesSketch(_ERROR, _MOST_VALUES, 1)
            self.sketch.AddValues(pa.array(some))

    def merge(self, other: _Counted) -> None:
        """Adds what was counted elsewhere."""
        self.missing += other.missing
        self.zeros += other.zeros
        self.numbers += other.numbers
        self.categories.update(other.categories)
        if self.sketch is None:
            self.sketch = other.sketch
        elif other.sketch is not None:
            self.sketch.Merge(other.sketch)


@dataclass
class _Sample:
    """Rows of the cards with the smallest hashes, by hash."""

    rows: Counter[int] = field(default_factory=Counter)
    largest_hash: int = 2**64 - 1  # of a card that is sampled

    def merge(self, rows: Counter[int], largest_hash: int) -> None:
        """Adds the rows of cards, of which those up to `largest_hash` are known."""
        self.rows.update(rows)
        self.largest_hash = min(self.largest_hash, largest_hash)
        if len(self.rows) > _MOST_CARDS:
            self.largest_hash = min(self.largest_hash, sorted(self.rows)[_MOST_CARDS - 1])
        self.rows = Counter({h: n for h, n in self.rows.items() if h <= self.largest_hash})


class DailyCounts(TransformStatsGenerator):
    """The generator that TFDV runs."""

    def __init__(self, to_count: ToCount) -> None:
        super().__init__("DailyCounts", _CountDays(to_count))


class _CountDays(beam.PTransform):
    """(slice, batch) → (slice, statistics); every list in a batch has at most one value."""

    def __init__(self, to_count: ToCount) -> None:
        super().__init__()
        self._to_count = to_count

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        """See beam.PTransform."""
        to_count = self._to_count
        statistics = [
            batches
            | "ByColumnAndDay" >> beam.FlatMap(by_column_and_day, to_count)
            | "Count" >> beam.CombinePerKey(CountDay())
            | "OfColumn" >> beam.MapTuple(lambda key, counted: (key[0], (*key[1:], counted)))
        ]
        if to_count.card is not None:
            statistics.append(
                batches
                | "Cards" >> beam.MapTuple(lambda key, batch: (key, hashed(batch, to_count.card)))
                | "Sample" >> beam.CombinePerKey(SampleCards())
                | "OfCard" >> beam.MapTuple(lambda key, sample: (key, (to_count.card, 0, sample)))
            )
        return (
            statistics
            | beam.Flatten()
            | beam.GroupByKey()
            | "Describe" >> beam.MapTuple(lambda key, of: (key, describe(of, to_count)))
        )


def by_column_and_day(
    sliced: tuple[SliceKey, pa.RecordBatch], to_count: ToCount
) -> Iterator[tuple[tuple[SliceKey, str, int], pa.Array]]:
    """(slice, batch) → ((slice, column, day), values), without the values of the timestamp."""
    slice_key, batch = sliced
    days = _days(batch, to_count)
    numbers, starts = np.unique(days, return_index=True)
    order = None
    if len(numbers) > 1:
        order = np.argsort(days, kind="stable")
        starts = np.searchsorted(days[order], numbers)
    bounds = [*starts.tolist(), len(days)]
    spans = list(zip(numbers.tolist(), bounds, bounds[1:], strict=False))
    for name in to_count.columns:
        values = _one_value(batch, name)
        if order is not None:
            values = values.take(pa.array(order))
        for day, first, stop in spans:
            yield (slice_key, name, day), values.slice(first, stop - first)
    if to_count.timestamp is not None:
        for day, first, stop in spans:
            yield (slice_key, to_count.timestamp, day), pa.nulls(stop - first, pa.int64())


def hashed(batch: pa.RecordBatch, card: str) -> Counter[int]:
    """The rows of each card of a batch, by its hash."""
    cards = _one_value(batch, card).drop_null().dictionary_encode()
    hashes = hash_array(cards.dictionary.to_numpy(zero_copy_only=False), categorize=False)
    rows = np.bincount(cards.indices.to_numpy(), minlength=len(hashes))
    return Counter(dict(zip(hashes.tolist(), rows.tolist(), strict=True)))


class CountDay(beam.CombineFn):
    """Values of a column on a day → their description, which is small."""

    def create_accumulator(self) -> _Counted:
        """See beam.CombineFn."""
        return _Counted()

    def add_input(self, counted: _Counted, values: pa.Array) -> _Counted:
        """See beam.CombineFn."""
        counted.add(values)
        return counted

    def merge_accumulators(self, accumulators: Iterable[_Counted]) -> _Counted:
        """See beam.CombineFn."""
        first, *others = accumulators
        for other in others:
            first.merge(other)
        return first

    def compact(self, counted: _Counted) -> _Counted:
        """See beam.CombineFn; a large sketch has 0.8 instead of up to 3 MB then."""
        if counted.sketch is not None and counted.numbers > _COMPACT_ABOVE:
            counted.sketch.Compact()
        return counted

    def extract_output(self, counted: _Counted) -> statistics_pb2.CustomStatistic:
        """See beam.CombineFn."""
        description = statistics_pb2.CustomStatistic()
        _describe(counted, description)
        return description


class SampleCards(beam.CombineFn):
    """Rows by hash of a card → `_Sample`."""

    def create_accumulator(self) -> _Sample:
        """See beam.CombineFn."""
        return _Sample()

    def add_input(self, sample: _Sample, rows: Counter[int]) -> _Sample:
        """See beam.CombineFn."""
        near = {h: n for h, n in rows.items() if h <= sample.largest_hash}
        sample.merge(Counter(near), sample.largest_hash)
        return sample

    def merge_accumulators(self, accumulators: Iterable[_Sample]) -> _Sample:
        """See beam.CombineFn."""
        first, *others = accumulators
        for other in others:
            first.merge(other.rows, other.largest_hash)
        return first

    def extract_output(self, sample: _Sample) -> _Sample:
        """See beam.CombineFn."""
        return sample


def describe(
    counted: Iterable[tuple[str, int, statistics_pb2.CustomStatistic | _Sample]], to_count: ToCount
) -> statistics_pb2.DatasetFeatureStatistics:
    """The statistics of (column, day, description), in an order of their own.

    The day of the sample of cards, which all days have in common, means nothing.
    """
    result = statistics_pb2.DatasetFeatureStatistics()
    names = (to_count.timestamp, to_count.card, *to_count.columns)
    features = {name: _feature(result, name) for name in names if name is not None}
    for name, day, of in sorted(counted, key=lambda one: one[:2]):
        statistics = features[name].custom_stats
        if isinstance(of, _Sample):
            sample = statistics.add(name=_CARDS).rank_histogram
            for card, count in sorted(of.rows.items()):
                sample.buckets.add(label=str(card), sample_count=count)
            statistics.add(name=_SAMPLED, num=(of.largest_hash + 1) / 2**64)
        elif name == to_count.timestamp:
            if not statistics:
                statistics.add(name=_ROWS)
            rows = statistics[0].rank_histogram
            # Its values are left out: each row of it counts as missing.
            rows.buckets.add(label=_name(day), sample_count=of.histogram.num_undefined)
        else:
            statistics.add().CopyFrom(of)
            statistics[-1].name = _name(day)
    return result


def _days(batch: pa.RecordBatch, to_count: ToCount) -> NDArray[np.int64]:
    if to_count.timestamp is None:
        return np.zeros(batch.num_rows, np.int64)
    seconds = _one_value(batch, to_count.timestamp)
    return local_days(seconds.to_numpy(zero_copy_only=False), to_count.timezone)


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

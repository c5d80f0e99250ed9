"""How the values of each column were distributed, and how far they had drifted, as recorded.

The records are TFDV's: statistics of each split, and the anomalies of two splits compared. Reading
them takes none of TFX.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

STATISTICS_FILE = "FeatureStats.pb"
ANOMALIES_FILE = "SchemaDiff.pb"

MOST_CATEGORIES = 8
"""Of a column; the others are counted together."""

OTHERS = "(others)"


@dataclass(frozen=True)
class Numbers:
    """A numeric column in one split.

    Attributes:
      missing, zeros: shares of the rows.
      quantiles: from the least to the largest value in equal steps of rank, deciles as a rule;
        empty without values.
      mean, deviation: of the values.
    """

    missing: float
    zeros: float
    quantiles: tuple[float, ...]
    mean: float
    deviation: float


@dataclass(frozen=True)
class Categories:
    """A categorical column in one split.

    Attributes:
      missing: share of the rows.
      distinct: the number of categories.
      shares: category → its share of the values, the most frequent first.
    """

    missing: float
    distinct: int
    shares: dict[str, float]


@dataclass(frozen=True)
class Divergence:
    """How far the distribution of a column had moved.

    Attributes:
      value: Jensen-Shannon divergence, base 2.
      threshold: from which it is drift.
    """

    value: float
    threshold: float


Distribution = Numbers | Categories


def columns(statistics: Any) -> dict[str, dict[str, Distribution]]:
    """Column → split → distribution: an ExampleStatistics artifact."""
    result: dict[str, dict[str, Distribution]] = {}
    for folder in sorted(Path(statistics.uri).glob("Split-*")):
        content = (folder / STATISTICS_FILE).read_bytes()
        (of_split,) = statistics_pb2.DatasetFeatureStatisticsList.FromString(content).datasets
        for feature in of_split.features:
            if feature.WhichOneof("stats"):  # others have only custom statistics
                distribution = _distribution(feature, of_split.num_examples)
                name = feature.path.step[0]
                result.setdefault(name, {})[folder.name.removeprefix("Split-")] = distribution
    return result


def divergences(anomalies: Any) -> dict[str, dict[str, Divergence]]:
    """Split → column → divergence from the baseline's train: a DistributionValidator's artifact."""
    result: dict[str, dict[str, Divergence]] = {}
    for folder in sorted(Path(anomalies.uri).glob("SplitPair-*")):
        content = (folder / ANOMALIES_FILE).read_bytes()
        of_pair = result.setdefault(folder.name.removeprefix("SplitPair-").split("_", 1)[0], {})
        for info in anomalies_pb2.Anomalies.FromString(content).drift_skew_info:
            for measured in info.drift_measurements:
                of_pair[info.path.step[0]] = Divergence(measured.value, measured.threshold)
    return result


def _distribution(feature: statistics_pb2.FeatureNameStatistics, rows: int) -> Distribution:
    if feature.HasField("string_stats"):
        strings = feature.string_stats
        present = strings.common_stats.num_non_missing
        ranked = [(b.label, b.sample_count) for b in strings.rank_histogram.buckets]
        shares = {label: count / max(present, 1) for label, count in ranked[:MOST_CATEGORIES]}
        rest = 1 - sum(shares.values())
        if len(ranked) > MOST_CATEGORIES:
            shares[OTHERS] = rest
        return Categories(1 - present / max(rows, 1), int(strings.unique), shares)
    numbers = feature.num_stats
    present = numbers.common_stats.num_non_missing
    quantiles: tuple[float, ...] = ()
    for histogram in numbers.histograms:
        if histogram.type == statistics_pb2.Histogram.QUANTILES and histogram.buckets:
            buckets = histogram.buckets
            quantiles = (buckets[0].low_value, *(bucket.high_value for bucket in buckets))
    return Numbers(
        missing=1 - present / max(rows, 1),
        zeros=numbers.num_zeros / max(rows, 1),
        quantiles=quantiles,
        mean=numbers.mean,
        deviation=numbers.std_dev,
    )

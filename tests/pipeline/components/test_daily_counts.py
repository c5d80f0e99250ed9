"""Counts by day: what they count, whether in one part or in several."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import statistics_pb2

from fraud.pipeline.components import daily_counts
from fraud.pipeline.components.daily_counts import DailyCounts, ToCount, profile
from fraud.pipeline.drift import Categories, Numbers, Profile, quantiles
from fraud.time import UTC

DAY = 86_400
TO_COUNT = ToCount(("AMOUNT", "CHANNEL"), "TIME", "CARD", UTC)


def batch(
    days: Sequence[int],
    amounts: Sequence[float | None],
    channels: Sequence[bytes | None] | None = None,
    cards: Sequence[int] | None = None,
) -> pa.RecordBatch:
    """Rows as TFDV's generators get them: lists of at most one value."""
    rows = len(days)
    columns: dict[str, tuple[Sequence[Any], pa.DataType]] = {
        "TIME": ([day * DAY + 3600 for day in days], pa.int64()),
        "AMOUNT": (amounts, pa.float32()),
        "CHANNEL": (channels or [b"chip"] * rows, pa.large_binary()),
        "CARD": (cards or list(range(rows)), pa.int64()),
    }
    return pa.RecordBatch.from_arrays(
        [
            pa.array([None if v is None else [v] for v in values], pa.large_list(of))
            for values, of in columns.values()
        ],
        list(columns),
    )


def counted(*parts: pa.RecordBatch, to_count: ToCount = TO_COUNT) -> Profile:
    """What is counted if each part has accumulators of its own, as on several workers."""
    combine_fns = daily_counts.CountDay(), daily_counts.SampleCards()
    accumulators: dict[Any, list[Any]] = {}

    def add(key: tuple[str, int], values: Any, combine_fn: beam.CombineFn) -> None:
        accumulator = combine_fn.add_input(combine_fn.create_accumulator(), values)
        sent = pickle.loads(pickle.dumps(combine_fn.compact(accumulator)))
        accumulators.setdefault((key, combine_fn), []).append(sent)

    for part in parts:
        for (_, *key), values in daily_counts.by_column_and_day((None, part), to_count):
            add(tuple(key), values, combine_fns[0])
        if to_count.card is not None:
            add((to_count.card, 0), daily_counts.hashed(part, to_count.card), combine_fns[1])
    merged = [
        (*key, combine_fn.extract_output(combine_fn.merge_accumulators(of_parts)))
        for (key, combine_fn), of_parts in accumulators.items()
    ]
    return profile_of(daily_counts.describe(merged, to_count), *parts)


def profile_of(
    statistics: statistics_pb2.DatasetFeatureStatistics, *parts: pa.RecordBatch
) -> Profile:
    statistics.num_examples = sum(part.num_rows for part in parts)
    found = profile(statistics)
    assert found is not None
    return found


def test_tfdv_counts_the_same_in_its_own_pass(tmp_path: Path) -> None:
    """With its statistics, whose features have the counts beside them."""
    rng = np.random.default_rng(4)
    parts = [
        batch(
            rng.integers(3, 6, 300).tolist(),
            [None, *rng.gamma(2, 30, 299).tolist()],
            rng.choice([b"a", b"b"], 300).tolist(),
            rng.integers(0, 40, 300).tolist(),
        )
        for _ in range(3)
    ]
    options = tfdv.StatsOptions(generators=[DailyCounts(TO_COUNT)])
    path = str(tmp_path / "FeatureStats.pb")
    with beam.Pipeline() as pipeline:
        statistics = pipeline | beam.Create(parts) | tfdv.GenerateStatistics(options)
        _ = statistics | tfdv.WriteStatisticsToBinaryFile(path)
    (one,) = tfdv.load_stats_binary(path).datasets
    theirs, ours = profile_of(one, *parts), counted(*parts)
    assert theirs.rows.tolist() == ours.rows.tolist()
    assert theirs.cards is not None and ours.cards is not None
    assert theirs.cards.hashes.tolist() == ours.cards.hashes.tolist()
    for name in TO_COUNT.columns:
        for a, b in zip(_listed(theirs.columns[name]), _listed(ours.columns[name]), strict=True):
            np.testing.assert_array_equal(a, b)
    of_amount = next(f for f in one.features if f.path.step[0] == "AMOUNT")
    assert of_amount.num_stats.common_stats.num_missing == 3
    assert [custom.name for custom in of_amount.custom_stats] == [
        "1970-01-04",
        "1970-01-05",
        "1970-01-06",
    ]


def _listed(column: Categories | Numbers) -> list[Any]:
    if isinstance(column, Categories):
        return [column.missing, *(column.counts[name] for name in sorted(column.counts))]
    return [column.missing, column.zeros, *column.edges, *column.counts]


def test_what_workers_exchange_of_a_column_and_day_stays_small() -> None:
    """Records of many megabytes do not fit into what a cluster sorts with."""
    values = np.random.default_rng(5).random(400_000)
    parts = [batch([3] * 100_000, values[i::4].tolist()) for i in range(4)]
    combine_fn = daily_counts.CountDay()
    accumulator = combine_fn.create_accumulator()
    for part in parts:
        for (_, name, _), of_day in daily_counts.by_column_and_day((None, part), TO_COUNT):
            if name == "AMOUNT":
                accumulator = combine_fn.add_input(accumulator, of_day)
    assert len(pickle.dumps(combine_fn.compact(accumulator))) < 1_000_000
    found = counted(*parts).columns["AMOUNT"]
    assert isinstance(found, Numbers)
    assert found.counts[0].sum() == pytest.approx(400_000)
    levels = np.linspace(0.05, 0.95, 19)
    below = [np.mean(values <= edge) for edge in quantiles(found, levels)]
    assert below == pytest.approx(levels.tolist(), abs=0.005)


def test_the_timezone_defines_the_days() -> None:
    """The rows are at 01:00 UTC, when it is still the day before in New York."""
    there = replace(TO_COUNT, timezone="America/New_York")
    assert counted(batch([3, 4], [1.0, 2.0]), to_count=there).days.tolist() == [2, 3]


def test_rows_zeros_and_missing_values_are_counted_by_day() -> None:
    found = counted(batch([5, 3, 5, 5], [2.0, 0.0, None, 7.0]))
    assert found.days.tolist() == [3, 4, 5]
    assert found.rows.tolist() == [1, 0, 3]
    amount = found.columns["AMOUNT"]
    assert isinstance(amount, Numbers)
    assert amount.missing.tolist() == [0, 0, 1]
    assert amount.zeros.tolist() == [1, 0, 0]
    assert [counts.sum() for counts in amount.counts] == pytest.approx([0, 0, 2])
    assert (amount.edges[2][0], amount.edges[2][-1]) == (2, 7)


def test_categories_are_counted_by_day() -> None:
    channels = [b"chip", None, "é".encode(), b"chip"]
    found = counted(batch([3, 3, 4, 4], [1.0] * 4, channels)).columns["CHANNEL"]
    assert isinstance(found, Categories)
    assert found.missing.tolist() == [1, 0]
    assert {label: days.tolist() for label, days in found.counts.items()} == {
        "chip": [1, 1],
        "é": [0, 1],
    }


def test_the_quantiles_of_a_day_are_those_of_its_values() -> None:
    values = np.random.default_rng(2).gamma(2, 30, 4000)
    found = counted(batch([3] * 4000, values.tolist())).columns["AMOUNT"]
    assert isinstance(found, Numbers)
    levels = np.linspace(0.05, 0.95, 19)
    below = [np.mean(values <= edge) for edge in quantiles(found, levels)]
    assert below == pytest.approx(levels.tolist(), abs=0.01)


def test_parts_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(3)
    days, amounts = rng.integers(3, 6, 900).tolist(), rng.gamma(2, 30, 900).tolist()
    channels, cards = rng.choice([b"a", b"b"], 900).tolist(), rng.integers(0, 40, 900).tolist()
    whole = counted(batch(days, amounts, channels, cards))
    cut = [slice(0, 10), slice(10, 500), slice(500, 900)]
    parts = counted(*(batch(days[s], amounts[s], channels[s], cards[s]) for s in cut))
    assert parts.rows.tolist() == whole.rows.tolist()
    for name, column in whole.columns.items():
        other = parts.columns[name]
        if isinstance(column, Categories):
            assert {n: c.tolist() for n, c in column.counts.items()} == {
                n: c.tolist() for n, c in other.counts.items()
            }
        else:
            for edges, counts in zip(column.edges, other.edges, strict=True):
                assert edges == pytest.approx(counts, rel=0.1)
    assert whole.cards is not None and parts.cards is not None
    assert parts.cards.hashes.tolist() == whole.cards.hashes.tolist()
    assert parts.cards.rows.sum() == 900


def test_a_sample_of_cards_is_the_same_however_they_arrive(monkeypatch: Any) -> None:
    monkeypatch.setattr(daily_counts, "_MOST_CARDS", 50)
    cards = [card for card in range(400) for _ in range(card % 3 + 1)]
    whole = counted(batch([3] * len(cards), [1.0] * len(cards), None, cards)).cards
    cut = [cards[i : i + 80] for i in range(0, len(cards), 80)]
    parts = counted(*(batch([3] * len(c), [1.0] * len(c), None, c) for c in cut)).cards
    assert whole is not None and parts is not None
    assert len(whole.hashes) == 50
    assert 50 / whole.sampled == pytest.approx(400, rel=0.4)
    assert parts.hashes.tolist() == whole.hashes.tolist()
    assert parts.sampled == whole.sampled
    assert set(whole.rows) <= {1, 2, 3}


def test_a_column_without_any_value_is_missing() -> None:
    found = counted(batch([3, 4], [None, None]), batch([4], [None])).columns["AMOUNT"]
    assert isinstance(found, Numbers)
    assert found.missing.tolist() == [1, 2]


def test_without_a_timestamp_all_rows_are_one_day() -> None:
    found = counted(batch([3, 4], [1.0, 2.0]), to_count=ToCount(("AMOUNT",), None, None, UTC))
    assert found.days.tolist() == [0]
    assert found.rows.tolist() == [2]
    assert found.cards is None


def test_the_rarest_of_many_categories_are_counted_together(monkeypatch: Any) -> None:
    monkeypatch.setattr(daily_counts, "CATEGORIES", 1)
    found = counted(batch([3] * 4, [1.0] * 4, [b"a", b"a", b"b", b"c"])).columns["CHANNEL"]
    assert isinstance(found, Categories)
    assert {label: days.tolist() for label, days in found.counts.items()} == {
        "a": [2],
        daily_counts.REST: [2],
    }


def test_days_without_any_category_are_missing() -> None:
    found = counted(batch([3, 3, 4, 4], [1.0] * 4, [b"chip", None, None, None])).columns["CHANNEL"]
    assert isinstance(found, Categories)
    assert found.missing.tolist() == [1, 2]

"""Counts by day: what they count, whether in one part or in several."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

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
    """What is counted if each part has an accumulator of its own, as on several workers."""
    generator = DailyCounts(to_count)
    accumulators = []
    for part in parts:
        accumulator = generator.add_input(generator.create_accumulator(), part)
        accumulators.append(pickle.loads(pickle.dumps(accumulator)))
    statistics = generator.extract_output(generator.merge_accumulators(accumulators))
    statistics.num_examples = sum(part.num_rows for part in parts)
    found = profile(statistics)
    assert found is not None
    return found


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

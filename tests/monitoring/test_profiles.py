"""Counts in memory are those that StatisticsGen makes of examples."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud.monitoring.profiles import Shape, profile
from fraud.pipeline.drift import DISTRIBUTION, LEAST, ROWS, Categories, Numbers, compare
from fraud.time import SECONDS_PER_DAY


def table(rows: int = 4000, days: int = 14) -> tuple[pa.Table, np.ndarray]:
    random = np.random.default_rng(0)
    day = np.sort(random.integers(100, 100 + days, rows))
    amounts = np.round(random.lognormal(2, 1, rows), 2) * (random.random(rows) > 0.1)
    channels = random.choice(["a", "b", "ü"], rows, p=[0.6, 0.3, 0.1])
    return (
        pa.table(
            {
                "time": day * SECONDS_PER_DAY + random.integers(0, SECONDS_PER_DAY, rows),
                "card": random.integers(0, 300, rows),
                "amount": pa.array(amounts, mask=random.random(rows) < 0.05),
                "channel": pa.array(channels, mask=random.random(rows) < 0.02),
            }
        ),
        day,
    )


def test_counts_are_those_of_the_examples():
    """The reference is the generator that runs inside TFDV."""
    pytest.importorskip("tensorflow_data_validation")
    from fraud.pipeline.components import daily_counts

    rows, days = table()
    to_count = daily_counts.ToCount(("amount", "channel"), "time", "card", "UTC")
    combine_fns = daily_counts.CountDay(), daily_counts.SampleCards()
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([[v] if v is not None else None for v in values.to_pylist()])
            if name != "channel"
            else pa.array(
                [[v.encode()] if v is not None else None for v in values.to_pylist()],
                pa.large_list(pa.large_binary()),
            )
            for name, values in zip(rows.column_names, rows.columns, strict=True)
        ],
        names=rows.column_names,
    )
    counted = [
        (*key, combine_fns[0].apply([values]))
        for (_, *key), values in daily_counts.by_column_and_day((None, batch), to_count)
    ]
    cards = daily_counts.hashed(batch, "card")
    counted.append(("card", 0, combine_fns[1].apply([cards])))
    theirs = daily_counts.profile(daily_counts.describe(counted, to_count))
    ours = profile(rows, days, range(100, 114), ["amount", "channel"], "card")
    assert theirs is not None
    assert ours.days.tolist() == theirs.days.tolist()
    assert ours.rows.tolist() == theirs.rows.tolist()
    assert ours.cards.hashes.tolist() == theirs.cards.hashes.tolist()
    assert ours.cards.rows.tolist() == theirs.cards.rows.tolist()
    a, b = ours.columns["amount"], theirs.columns["amount"]
    assert isinstance(a, Numbers) and isinstance(b, Numbers)
    assert a.missing.tolist() == b.missing.tolist()
    assert a.zeros.tolist() == b.zeros.tolist()
    a, b = ours.columns["channel"], theirs.columns["channel"]
    assert isinstance(a, Categories) and isinstance(b, Categories)
    assert a.missing.tolist() == b.missing.tolist()
    assert {k: v.tolist() for k, v in a.counts.items()} == {
        k: v.tolist() for k, v in b.counts.items()
    }
    # TFDV's quantiles are approximate; no comparison may tell the two apart.
    measured = [m for m in compare(ours, theirs, {}) if m.column != ROWS]
    assert len(measured) == 7
    assert max(m.value for m in measured) < LEAST[DISTRIBUTION]


def test_days_without_rows_count_nothing():
    rows, days = table(days=3)
    found = profile(rows, days, [99, 101, 110], ["amount", "channel"], None)
    assert found.rows[[0, 2]].tolist() == [0, 0]
    assert found.rows[1] == (days == 101).sum()
    assert found.cards is None
    assert found.columns["channel"].counts["a"][[0, 2]].tolist() == [0, 0]
    assert len(found.columns["amount"].counts[0]) == 0


def test_a_column_without_values_is_missing():
    rows = pa.table({"amount": pa.nulls(5, pa.float64()), "channel": pa.nulls(5, pa.string())})
    found = profile(rows, np.full(5, 7), [7], ["amount", "channel"], None)
    assert found.columns["amount"].missing.tolist() == [5]
    assert found.columns["channel"].missing.tolist() == [5]


def test_rare_categories_are_counted_together():
    names = [str(i) for i in range(1500)] + ["often"] * 100
    rows = pa.table({"channel": names})
    found = profile(rows, np.zeros(1600, np.int64), [0], ["channel"], None)
    counts = found.columns["channel"].counts
    assert sum(v.sum() for v in counts.values()) == 1600
    assert counts["often"][0] == 100
    assert len(counts) == 1001


values = st.lists(st.floats(-1e6, 1e6) | st.just(0.0) | st.just(float("nan")), min_size=1)


@given(values, st.integers(2, 11))
def test_a_feature_does_not_differ_from_itself(numbers, count):
    array = np.array(numbers)
    assert Shape.of(array).divergence(array) == pytest.approx(0, abs=1e-9)
    assert 0 <= Shape.of(array).divergence(array[::-1] + 1) <= 1
    known = array[~np.isnan(array)]
    if len(known):
        quantiles = np.quantile(known, np.linspace(0, 1, count), method="inverted_cdf")
        zeros = float((array == 0).mean())
        shape = Shape.of_quantiles(quantiles, 1 - len(known) / len(array), zeros)
        assert shape.divergence(array) == pytest.approx(0, abs=1e-9)


def test_a_shape_knows_many_equal_values_and_missing_ones():
    random = np.random.default_rng(0)
    numbers = np.where(random.random(20_000) < 0.55, 0.0, random.normal(5, 1, 20_000))
    shape = Shape.of(numbers)
    again = np.where(random.random(20_000) < 0.55, 0.0, random.normal(5, 1, 20_000))
    assert shape.divergence(again) < 0.001
    assert shape.divergence(np.where(again == 0, 5.0, again)) > 0.1
    assert shape.divergence(np.where(random.random(20_000) < 0.5, np.nan, again)) > 0.1
    assert shape.divergence(np.full(100, np.nan)) > 0.5
    assert Shape.of(np.full(9, np.nan)).divergence(np.full(9, np.nan)) == 0
    assert Shape.of(np.full(9, np.nan)).divergence(again) == pytest.approx(1)


def test_a_shape_of_quantiles_notices_what_they_can_tell():
    random = np.random.default_rng(0)
    numbers = np.where(random.random(20_000) < 0.55, 0.0, random.exponential(5, 20_000))
    quantiles = np.quantile(numbers, np.linspace(0, 1, 11))
    shape = Shape.of_quantiles(quantiles, 0.0, float((numbers == 0).mean()))
    assert shape.divergence(numbers) < 0.001
    assert shape.divergence(np.where(numbers == 0, 5.0, numbers)) > 0.1
    assert shape.divergence(numbers * 3) > 0.02

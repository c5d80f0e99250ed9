"""Features of queries are those of the same rows in batch, for few queries and for many."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from fraud.features.batch import add_features, feature_names
from fraud.features.definitions import CALENDAR, FAMILIES
from fraud.features.history import FEW
from fraud.features.online import EntityRows, online_features
from fraud.features.order_statistics import SortedSpans, WaveletMatrix
from fraud.features.spans import RowSpan
from fraud.features.spec import Dataset, FeatureGroup, Features

EVERYTHING = Features(
    calendar=tuple(CALENDAR), groups=(FeatureGroup(tuple(FAMILIES), windows=(1, 3, 10)),)
)
DATASET = Dataset(entities=("CARD",))


@pytest.mark.parametrize("count", [1, FEW, FEW + 1, 200])
@pytest.mark.parametrize("label_time", [None, "KNOWN"])
def test_queries_have_the_features_of_rows(count, label_time):
    rng = np.random.default_rng(count)
    rows = 400
    time = np.datetime64("2024-01-01", "us") + rng.integers(0, 480, rows) * np.timedelta64(1, "h")
    amount = np.where(rng.random(rows) < 0.1, np.nan, rng.lognormal(3, 1, rows))
    label = np.where(rng.random(rows) < 0.2, np.nan, rng.random(rows) < 0.4)
    learned = time + rng.integers(0, 200, rows) * np.timedelta64(1, "h")
    card = rng.integers(0, 12, rows)
    dataset = Dataset(entities=("CARD",), label_time=label_time)
    columns = {"TX_DATETIME": time, "CARD": card, "TX_AMOUNT": amount, "TX_FRAUD": label}
    batch = add_features(pa.table(columns | {"KNOWN": learned}), dataset, EVERYTHING, 7)
    asked = rng.choice(rows, count, replace=False)
    history = EntityRows(card, time, amount, label, learned, {"CARD": card[asked]})
    online = online_features(EVERYTHING, dataset, 7, time[asked], amount[asked], history)
    assert tuple(online) == feature_names(EVERYTHING, dataset)
    for name, values in online.items():
        np.testing.assert_array_equal(values, batch[name].to_numpy()[asked], err_msg=name)


@pytest.mark.parametrize("count", [3, FEW + 3])
def test_each_entity_has_its_own_features(count):
    """Two entities whose values have the same codes in batch, and families of one of them only."""
    rng = np.random.default_rng(count)
    rows = 300
    time = np.datetime64("2024-01-01", "us") + rng.integers(0, 480, rows) * np.timedelta64(1, "h")
    amount, label = rng.lognormal(3, 1, rows), (rng.random(rows) < 0.3).astype(float)
    card, shop = rng.integers(0, 9, rows), rng.integers(0, 5, rows)
    dataset = Dataset(entities=("CARD", "SHOP"))
    spec = Features(
        groups=(
            FeatureGroup(("count", "median", "risk"), windows=(3,), entities=("CARD",)),
            FeatureGroup(("risk", "known_count"), windows=(3, 10)),
        )
    )
    columns = {"TX_DATETIME": time, "CARD": card, "SHOP": shop}
    table = pa.table({**columns, "TX_AMOUNT": amount, "TX_FRAUD": label})
    batch = add_features(table, dataset, spec, 2)
    asked = rng.choice(rows, count, replace=False)
    history = EntityRows(
        np.concatenate([card, shop + 100]),
        np.concatenate([time, time]),
        np.concatenate([amount, amount]),
        np.concatenate([label, label]),
        np.full(2 * rows, np.datetime64("NaT"), "datetime64[us]"),
        {"CARD": card[asked], "SHOP": shop[asked] + 100},
    )
    online = online_features(spec, dataset, 2, time[asked], amount[asked], history)
    assert tuple(online) == feature_names(spec, dataset)
    for name, values in online.items():
        np.testing.assert_array_equal(values, batch[name].to_numpy()[asked], err_msg=name)


@pytest.mark.parametrize("count", [2, FEW + 2])
def test_queries_of_unknown_or_missing_entities_have_no_past(count):
    rows = 40
    time = np.datetime64("2024-01-01", "us") + np.arange(rows) * np.timedelta64(1, "h")
    keys = np.arange(rows) % 3 * 2  # 0, 2 and 4
    asked = np.resize([-1, 1, 3, 5], count)
    now = np.full(count, time[-1] + 1)
    nat = np.full(rows, np.datetime64("NaT"), "datetime64[us]")
    for known in (slice(0), slice(rows)):
        history = EntityRows(
            keys[known],
            time[known],
            np.ones(rows)[known],
            np.ones(rows)[known],
            nat[known],
            {"CARD": asked},
        )
        amounts = np.full(count, 2.0)
        online = online_features(EVERYTHING, DATASET, 0, now, amounts, history)
        counts = online["CARD_count_10d"]
        assert np.isnan(counts[asked < 0]).all() and (counts[asked >= 0] == 1).all()
        assert np.isnan(online["CARD_median_10d"]).all()
        assert (online["CARD_high_count_10d"][asked >= 0] == 0).all()


def test_both_order_statistics_agree():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 9, 60).astype(float)
    values[rng.random(60) < 0.2] = np.nan
    start = np.repeat([0, 20], [20, 40])
    first = np.concatenate([rng.integers(0, 20, 30), rng.integers(20, 60, 30)])
    last = np.minimum(first + rng.integers(0, 20, 60), np.repeat([20, 60], 30))
    query_start = np.repeat([0, 20], 30)
    spans = RowSpan(first, last)
    both = SortedSpans(values), WaveletMatrix(values, start, query_start)
    for k in (np.full(60, -1), np.zeros(60, int), (last - first) // 2, last - first):
        np.testing.assert_array_equal(*(each.smallest(k, spans) for each in both))
    limit = np.where(rng.random(60) < 0.2, np.nan, rng.integers(-1, 10, 60))
    np.testing.assert_array_equal(*(each.count_below(each.rank(limit), spans) for each in both))


def test_queries_do_not_see_each_other():
    now = np.array(["2024-01-01", "2024-01-02"], "datetime64[us]")
    none = np.empty(0)
    times = np.empty(0, "datetime64[us]")
    history = EntityRows(np.empty(0, int), times, none, none, times, {"CARD": np.zeros(2, int)})
    online = online_features(EVERYTHING, DATASET, 7, now, np.ones(2), history)
    assert online["CARD_count_10d"].tolist() == [1, 1]

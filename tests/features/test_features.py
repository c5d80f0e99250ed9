"""Features against an obviously correct naive computation, and what must not affect them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.features import batch as features
from fraud.features.definitions import CALENDAR, FAMILIES
from fraud.features.spec import Dataset, FeatureGroup, Features

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # undefined values are intended

EVERYTHING = Features(
    calendar=tuple(CALENDAR),
    groups=(FeatureGroup(tuple(FAMILIES), windows=(1, 3, 10)),),
    normal_days=12,
    max_label_delay_days=25,
)
WINDOWS = EVERYTHING.groups[0].windows
ROOT = Path(__file__).parents[2]
DATASET = Dataset()
DELAY = 7
WITH_LABEL_TIME = Dataset(label_time="LABELLED_AT")
DAY = np.timedelta64(1, "D")


class Past:
    """What a naive formula may use; missing amounts and labels are already removed.

    Attributes:
      amount: of the row itself.
      count: number of rows in (t - w, t).
      amounts: amounts in (t - w, t).
      since: days since the latest row in (t - w, t), NaN if there is none.
      normal: amounts in (t - normal_days, t).
      labels: labels of earlier rows that became known in (t - w, t], oldest first, then by
        timestamp; genuine ones come first among rows with the same timestamp.
      ages: days since the rows of `labels`.
      fraud_amounts: amounts of the frauds among `labels`.
    """

    def __init__(self, rows: dict[str, NDArray], entity: str, row: int, window: int):
        time, now = rows["TX_DATETIME"], rows["TX_DATETIME"][row]
        amount, label = rows["TX_AMOUNT"], rows["TX_FRAUD"]
        before = (rows[entity] == rows[entity][row]) & (time < now)
        past = before & (time > now - window * DAY)
        normal = before & (time > now - EVERYTHING.normal_days * DAY)
        learned = rows.get("LABELLED_AT", time + DELAY * DAY)
        known = before & (learned <= now) & (learned > now - window * DAY)
        known &= learned - time <= EVERYTHING.max_label_delay_days * DAY
        known = np.flatnonzero(known & ~np.isnan(label))
        known = known[np.lexsort((label[known], time[known], learned[known]))]

        self.amount = amount[row]
        self.count = past.sum()
        self.amounts = present(amount[past])
        self.since = ((now - time[past]) / DAY).min() if past.any() else np.nan
        self.normal = present(amount[normal])
        self.labels = label[known]
        self.ages = (now - time[known]) / DAY
        self.fraud_amounts = present(amount[known][label[known] == 1])


def present(values: NDArray) -> NDArray:
    return values[~np.isnan(values)]


def mean(values: NDArray) -> float:
    return values.mean() if len(values) else np.nan


def std(values: NDArray) -> float:
    if len(values) > 1 and (values == values[0]).all():
        return 0.0  # where rounding would make numpy's a little more
    return values.std(ddof=1) if len(values) > 1 else np.nan


def lower_median(values: NDArray) -> float:
    return np.quantile(values, 0.5, method="lower") if len(values) else np.nan


def largest(values: NDArray) -> float:
    return max(values, default=np.nan)


def ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else np.nan


def streak(labels: NDArray) -> int:
    return len("".join("01"[int(label)] for label in labels).split("0")[-1])


NAIVE: dict[str, Callable[[Past], float]] = {
    "count": lambda p: p.count + 1,
    "sum": lambda p: np.nansum([*p.amounts, p.amount]),
    "mean": lambda p: mean(present(np.array([*p.amounts, p.amount]))),
    "std": lambda p: std(p.amounts),
    "max": lambda p: largest(p.amounts),
    "median": lambda p: lower_median(p.amounts),
    "since_last": lambda p: p.since,
    "amount_to_mean": lambda p: ratio(p.amount, mean(p.amounts)),
    "amount_to_median": lambda p: ratio(p.amount, lower_median(p.amounts)),
    "amount_to_max": lambda p: ratio(p.amount, largest(p.amounts)),
    "amount_z": lambda p: ratio(p.amount - mean(p.amounts), std(p.amounts)),
    "high_count": lambda p: sum(p.amounts > 3 * lower_median(p.normal)),
    "known_count": lambda p: len(p.labels),
    "fraud_count": lambda p: sum(p.labels),
    "risk": lambda p: p.labels.mean() if len(p.labels) else 0.0,
    "smoothed_risk": lambda p: np.mean([*p.labels, *[0.01] * 10]),
    "fraud_amount": lambda p: mean(p.fraud_amounts),
    "since_fraud": lambda p: p.ages[p.labels == 1][-1] if sum(p.labels) else np.nan,
    "fraud_streak": lambda p: streak(p.labels),
    "streak_age": lambda p: p.ages[-streak(p.labels)] if streak(p.labels) else np.nan,
    "last_labels": lambda p: (
        sum(label / 2**i for i, label in enumerate(p.labels[::-1][:16], 1))
        if len(p.labels)
        else np.nan
    ),
}


def test_every_formula_has_its_family() -> None:
    assert FAMILIES.keys() == NAIVE.keys()


def transactions(rows: int, seed: int, entities: int = 20, days: int = 40) -> dict[str, NDArray]:
    """Random transactions with ties in time, missing amounts and unknown labels."""
    rng = np.random.default_rng(seed)
    seconds = rng.integers(0, days * 24, rows) * 3600
    amount = np.round(rng.lognormal(3, 1, rows), 2)
    amount[rng.random(rows) < 0.02] = np.nan
    label = (rng.random(rows) < 0.3).astype(float)
    label[rng.random(rows) < 0.1] = np.nan
    return {
        "TX_DATETIME": np.datetime64("2024-02-20", "us") + seconds.astype("timedelta64[s]"),
        "CUSTOMER_ID": rng.integers(0, entities, rows),
        "TERMINAL_ID": rng.zipf(1.5, rows) % (2 * entities),
        "TX_AMOUNT": amount,
        "TX_FRAUD": label,
    }


def handbook() -> dict[str, NDArray]:
    """The handbook's transactions, from $FRAUD_HANDBOOK or beside the checkout."""
    beside = ROOT.parent / "shared" / "data" / "handbook"
    folder = Path(os.environ.get("FRAUD_HANDBOOK", beside))
    if not folder.is_dir():
        pytest.skip("handbook data absent; set FRAUD_HANDBOOK to its folder")
    columns = ["TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD"]
    table = pa.dataset.dataset(folder, partitioning="hive").to_table(columns=columns)
    rows = {name: table[name].to_numpy() for name in columns}
    rows["TX_DATETIME"] = rows["TX_DATETIME"].astype("datetime64[us]")
    return rows | {"TX_FRAUD": rows["TX_FRAUD"].astype(float)}


def derived(
    rows: dict[str, NDArray],
    spec: Features = EVERYTHING,
    dataset: Dataset = DATASET,
    delay_days: int = DELAY,
) -> dict[str, NDArray]:
    """Only the features, by name."""
    columns = {name: pa.array(values, from_pandas=True) for name, values in rows.items()}
    table = features.add_features(pa.table(columns), dataset, spec, delay_days)
    return {name: table[name].to_numpy() for name in features.feature_names(spec, dataset)}


def assert_equal(one: dict[str, NDArray], other: dict[str, NDArray]) -> None:
    """To the last bit."""
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def assert_naive(
    values: dict[str, NDArray],
    rows: dict[str, NDArray],
    entity: str,
    sample: NDArray,
) -> None:
    """Compares the features of some rows; `rows` has all rows of every entity value in it."""
    for window in WINDOWS:
        pasts = [Past(rows, entity, row, window) for row in sample]
        for family in FAMILIES:
            name = f"{entity}_{family}_{window}d"
            naive = np.array([NAIVE[family](past) for past in pasts], float)
            np.testing.assert_allclose(
                values[name][sample], naive, rtol=1e-4, atol=1e-4, err_msg=name
            )


def test_equals_naive_computation_on_synthetic_transactions() -> None:
    rows = transactions(3000, seed=0)
    for entity in DATASET.entities:
        assert_naive(derived(rows), rows, entity, np.arange(0, 3000, 3))


def test_equals_naive_computation_on_the_handbook() -> None:
    rows = handbook()
    for entity in DATASET.entities:
        some = rows[entity] % 500 == 7  # a few values with all their rows
        few = {name: values[some] for name, values in rows.items()}
        sample = np.random.default_rng(0).choice(some.sum(), 1500, replace=False)
        assert_naive(derived(few), few, entity, sample)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),  # entity
            st.integers(0, 20 * 4),  # quarters of a day
            st.one_of(st.just(np.nan), st.integers(-(10**8), 10**8).map(lambda cents: cents / 100)),
            st.sampled_from([0.0, 1.0, np.nan]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_equals_naive_computation_whatever_the_rows(drawn: list[tuple]) -> None:
    entity, quarter, amount, label = map(np.array, zip(*drawn, strict=True))
    rows = {
        "TX_DATETIME": np.datetime64("2024-01-01", "us") + quarter * np.timedelta64(6, "h"),
        "CUSTOMER_ID": entity,
        "TERMINAL_ID": entity % 2,
        "TX_AMOUNT": amount,
        "TX_FRAUD": label,
    }
    values = derived(rows)
    for name in DATASET.entities:
        assert_naive(values, rows, name, np.arange(len(drawn)))


def labelled_late(rows: dict[str, NDArray], seed: int) -> dict[str, NDArray]:
    """The rows with a label time: often equal ones, often at once, sometimes very late or never."""
    rng = np.random.default_rng(seed)
    count = len(rows["TX_DATETIME"])
    delay = rng.choice([0, 0, 6, 12, 24, 7 * 24, 30 * 24], count) + rng.integers(0, 3, count)
    learned = rows["TX_DATETIME"] + delay * np.timedelta64(1, "h")
    learned[rng.random(count) < 0.1] = np.datetime64("NaT")
    return rows | {"LABELLED_AT": learned}


def test_label_times_equal_naive_computation() -> None:
    rows = labelled_late(transactions(3000, seed=0), seed=21)
    values = derived(rows, dataset=WITH_LABEL_TIME)
    for entity in DATASET.entities:
        assert_naive(values, rows, entity, np.arange(0, 3000, 3))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),  # entity
            st.integers(0, 20 * 4),  # quarters of a day
            st.integers(-2, 110),  # until the label is known; never if negative
            st.sampled_from([0.0, 1.0, np.nan]),
            st.sampled_from([1.0, 2.5, np.nan]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_label_times_equal_naive_computation_whatever_the_rows(drawn: list[tuple]) -> None:
    entity, quarter, delay, label, amount = map(np.array, zip(*drawn, strict=True))
    time = np.datetime64("2024-01-01", "us") + quarter * np.timedelta64(6, "h")
    learned = time + delay * np.timedelta64(6, "h")
    learned[delay < 0] = np.datetime64("NaT")
    rows = {
        "TX_DATETIME": time,
        "CUSTOMER_ID": entity,
        "TERMINAL_ID": entity % 2,
        "TX_AMOUNT": amount,
        "TX_FRAUD": label,
        "LABELLED_AT": learned,
    }
    values = derived(rows, dataset=WITH_LABEL_TIME)
    for name in DATASET.entities:
        assert_naive(values, rows, name, np.arange(len(drawn)))


@pytest.mark.parametrize("delay", [0, 1, 7])
def test_a_label_time_after_the_delay_gives_the_features_of_the_delay(delay: int) -> None:
    rows = transactions(3000, seed=22)
    late = rows | {"LABELLED_AT": rows["TX_DATETIME"] + delay * DAY}
    fixed = derived(rows, delay_days=delay)
    assert_equal(derived(late, dataset=WITH_LABEL_TIME, delay_days=3), fixed)


def test_a_label_counts_from_its_label_time_on() -> None:
    start = np.datetime64("2024-01-01", "us")
    learned = start + 20 * DAY
    rows = {
        "TX_DATETIME": np.array([start, learned - 1, learned, learned + DAY - 1, learned + DAY]),
        "CUSTOMER_ID": np.ones(5, int),
        "TERMINAL_ID": np.ones(5, int),
        "TX_AMOUNT": np.ones(5),
        "TX_FRAUD": np.array([1, *[np.nan] * 4]),
        "LABELLED_AT": np.array([learned, *["NaT"] * 4], "datetime64[us]"),
    }
    values = derived(rows, dataset=WITH_LABEL_TIME)
    assert values["CUSTOMER_ID_fraud_count_1d"].tolist() == [0, 0, 1, 1, 0]
    assert values["CUSTOMER_ID_since_fraud_1d"][2] == 20


@pytest.mark.parametrize(("more", "counted"), [(0, 1), (1, 0)])
def test_a_label_that_took_longer_than_the_longest_delay_does_not_count(
    more: int, counted: int
) -> None:
    start = np.datetime64("2024-01-01", "us")
    learned = start + EVERYTHING.max_label_delay_days * DAY + more
    rows = {
        "TX_DATETIME": np.array([start, learned]),
        "CUSTOMER_ID": np.ones(2, int),
        "TERMINAL_ID": np.ones(2, int),
        "TX_AMOUNT": np.ones(2),
        "TX_FRAUD": np.array([1, np.nan]),
        "LABELLED_AT": np.array([learned, "NaT"], "datetime64[us]"),
    }
    values = derived(rows, dataset=WITH_LABEL_TIME)
    assert values["CUSTOMER_ID_fraud_count_1d"].tolist() == [0, counted]


def test_more_history_than_needed_changes_nothing_with_label_times() -> None:
    rows = labelled_late(transactions(3000, seed=23, days=80), seed=24)
    days = features.history_days(EVERYTHING, WITH_LABEL_TIME, DELAY)
    assert days == 25 + 10
    first = rows["TX_DATETIME"].min() + days * DAY + DAY
    later = rows["TX_DATETIME"] >= first
    enough = rows["TX_DATETIME"] >= first - days * DAY
    assert not enough.all()
    whole = derived(rows, dataset=WITH_LABEL_TIME)
    short = derived({n: v[enough] for n, v in rows.items()}, dataset=WITH_LABEL_TIME)
    assert_equal(
        {n: v[later] for n, v in whole.items()}, {n: v[later[enough]] for n, v in short.items()}
    )


def test_a_label_known_before_its_transaction_is_rejected() -> None:
    rows = labelled_late(transactions(3, seed=25), seed=26)
    rows["LABELLED_AT"][1] = rows["TX_DATETIME"][1] - 1
    with pytest.raises(BadInput, match="row 1 has a label that was known before its transaction"):
        derived(rows, dataset=WITH_LABEL_TIME)


def test_labels_younger_than_the_delay_change_nothing() -> None:
    rows = transactions(3000, seed=1)
    cut = np.datetime64("2024-03-15")
    young = rows["TX_DATETIME"] > cut - DELAY * DAY
    noise = np.random.default_rng(2).choice([0, 1, np.nan], young.sum())
    changed = rows | {"TX_FRAUD": rows["TX_FRAUD"].copy()}
    changed["TX_FRAUD"][young] = noise

    until = rows["TX_DATETIME"] <= cut
    before, after = derived(rows), derived(changed)
    assert_equal({n: v[until] for n, v in before.items()}, {n: v[until] for n, v in after.items()})
    changed_names = [n for n in before if not np.array_equal(before[n], after[n], equal_nan=True)]
    assert changed_names, "later rows must see the changed labels, or this test proves nothing"


def test_a_label_is_known_exactly_after_the_delay() -> None:
    """At t - delay it counts, a microsecond later it does not; a delay of 0 hides a row's own."""
    start = np.datetime64("2024-01-01", "us")
    rows = {
        "TX_DATETIME": np.array(
            [start, start + 7 * DAY, start + 7 * DAY - np.timedelta64(1, "us")]
        ),
        "CUSTOMER_ID": np.array([1, 1, 1]),
        "TERMINAL_ID": np.array([1, 1, 1]),
        "TX_AMOUNT": np.ones(3),
        "TX_FRAUD": np.ones(3),
    }
    assert derived(rows)["CUSTOMER_ID_known_count_1d"].tolist() == [0, 1, 0]
    columns = derived(rows, delay_days=0)
    assert columns["CUSTOMER_ID_known_count_10d"].tolist() == [0, 2, 1]


def test_neither_order_nor_other_entities_matter() -> None:
    rows = transactions(3000, seed=3)
    whole = derived(rows)
    shuffled = np.random.default_rng(4).permutation(3000)
    mixed = derived({n: v[shuffled] for n, v in rows.items()})
    assert_equal({n: v[shuffled] for n, v in whole.items()}, mixed)

    for entity in DATASET.entities:
        for part in range(3):
            mine = rows[entity] % 3 == part
            apart = derived({n: v[mine] for n, v in rows.items()})
            for name in apart:
                if name.startswith(entity):
                    np.testing.assert_array_equal(apart[name], whole[name][mine], err_msg=name)


def test_more_history_than_needed_changes_nothing() -> None:
    rows = transactions(3000, seed=5)
    first = np.datetime64("2024-03-20")
    days = features.history_days(EVERYTHING, DATASET, DELAY)
    enough = rows["TX_DATETIME"] >= first - days * DAY
    assert not enough.all()
    later = rows["TX_DATETIME"] >= first
    whole = derived(rows)
    short = derived({n: v[enough] for n, v in rows.items()})
    assert_equal(
        {n: v[later] for n, v in whole.items()}, {n: v[later[enough]] for n, v in short.items()}
    )


def test_history_days_covers_the_longest_lookback() -> None:
    entity = FeatureGroup(("count",), windows=(1, 30))
    risk = FeatureGroup(("risk",), windows=(1, 14))
    high = FeatureGroup(("high_count",), windows=(2,))
    assert features.history_days(Features(groups=(entity,)), DATASET, 7) == 30
    assert features.history_days(Features(groups=(risk,)), DATASET, 7) == 21
    assert features.history_days(Features(groups=(high,), normal_days=25), DATASET, 7) == 25
    assert features.history_days(Features(groups=(entity, risk)), DATASET, 20) == 34
    assert features.history_days(Features(groups=()), DATASET, 7) == 0
    local = Dataset(timezone="Europe/Berlin")  # where 21 days may have an hour more
    assert features.history_days(Features(groups=(risk,)), local, 7) == 22
    day = FeatureGroup(("count",), windows=(1,))
    assert features.history_days(Features(groups=(day,)), local, 7) == 2
    assert features.history_days(Features(groups=()), local, 7) == 0


def test_equal_amounts_have_zero_deviation() -> None:
    rows = transactions(500, seed=10) | {"TX_AMOUNT": np.full(500, 12_345_678.9)}
    std = derived(rows)["CUSTOMER_ID_std_10d"]
    assert set(std[~np.isnan(std)]) == {0}


def test_large_amounts_keep_their_spread() -> None:
    rows = transactions(500, seed=11)
    shifted = rows | {"TX_AMOUNT": rows["TX_AMOUNT"] + 9e8}
    name = "CUSTOMER_ID_std_10d"
    np.testing.assert_allclose(derived(shifted)[name], derived(rows)[name], rtol=1e-5)


def test_groups_apply_to_all_entities_to_named_ones_or_to_the_card() -> None:
    groups = (
        FeatureGroup(("count",), (1,)),
        FeatureGroup(("mean",), (2,), ("card",)),
        FeatureGroup(("risk",), (3,), ("TERMINAL_ID",)),
    )
    spec = Features(calendar=(), groups=groups)
    count = ("CUSTOMER_ID_count_1d", "TERMINAL_ID_count_1d")
    assert features.feature_names(spec, DATASET) == (
        *(count[0], "CUSTOMER_ID_mean_2d"),
        *(count[1], "TERMINAL_ID_risk_3d"),
    )
    assert features.feature_names(spec, Dataset(card="TERMINAL_ID")) == (
        *(count[0],),
        *(count[1], "TERMINAL_ID_mean_2d", "TERMINAL_ID_risk_3d"),
    )


def test_calendar() -> None:
    stamps = ["2024-03-01T06:59:59", "2024-03-02T07:00", "2024-03-03T23:59", "2024-03-04T00:00"]
    values = features.calendar_features(EVERYTHING, DATASET, np.array(stamps, "datetime64[us]"))
    assert values["weekend"].tolist() == [0, 1, 1, 0]
    assert values["night"].tolist() == [1, 0, 0, 1]
    assert values["weekday"].tolist() == [4, 5, 6, 0]
    np.testing.assert_allclose(values["hour"], [6 + 3599 / 3600, 7, 23 + 59 / 60, 0], rtol=1e-6)


def test_two_o_clock_on_a_sunday_in_tokyo_is_night_and_sunday() -> None:
    """In UTC it is Saturday, 17:00."""
    instant = np.array(["2024-03-02T17:00"], "datetime64[us]")
    for zone, expected in (("Asia/Tokyo", [2, 6, 1, 1]), ("UTC", [17, 5, 1, 0])):
        local = dataclasses.replace(DATASET, timezone=zone)
        values = features.calendar_features(EVERYTHING, local, instant)
        names = ("hour", "weekday", "weekend", "night")
        assert [float(values[name][0]) for name in names] == expected
    rows = transactions(500, seed=12)
    shifted = rows | {"TX_DATETIME": rows["TX_DATETIME"] - np.timedelta64(9, "h")}
    tokyo = dataclasses.replace(DATASET, timezone="Asia/Tokyo")
    assert_equal(derived(shifted, dataset=tokyo), derived(rows))


def test_features_are_added_under_their_names_in_order() -> None:
    rows = transactions(10, seed=6)
    names = features.feature_names(EVERYTHING, DATASET)
    table = features.add_features(pa.table(rows), DATASET, EVERYTHING, DELAY)
    assert table.column_names == [*rows, *names]
    assert all(table[name].type == pa.float32() for name in names)


def test_a_missing_entity_has_no_features() -> None:
    rows = transactions(4, seed=7) | {"CUSTOMER_ID": np.array(["a", None, "a", None], object)}
    values = derived(rows)
    for name in values:
        if name.startswith("CUSTOMER_ID"):
            assert np.isnan(values[name][[1, 3]]).all()
    assert not np.isnan(values["CUSTOMER_ID_count_1d"][[0, 2]]).any()
    assert not np.isnan(values["TERMINAL_ID_count_1d"]).any()


def test_datasets_without_amount_labels_entities_or_time() -> None:
    rows = transactions(50, seed=8)
    whole = derived(rows)

    bare = Dataset(amount=None)
    names = features.feature_names(EVERYTHING, bare)
    assert not any(FAMILIES[family].needs_amount for family in families_of(names))
    columns = derived({n: v for n, v in rows.items() if n != "TX_AMOUNT"}, dataset=bare)
    assert_equal(columns, {n: whole[n] for n in names})

    unlabelled = derived({n: v for n, v in rows.items() if n != "TX_FRAUD"})
    assert not unlabelled["CUSTOMER_ID_known_count_10d"].any()

    assert features.feature_names(EVERYTHING, Dataset(entities=())) == EVERYTHING.calendar
    timeless = Dataset(timestamp=None)
    assert features.feature_names(EVERYTHING, timeless) == ()
    table = pa.table(rows)
    assert features.add_features(table, timeless, EVERYTHING, DELAY) == table


def families_of(names: tuple[str, ...]) -> set[str]:
    """The entity and risk families of feature columns."""
    return {f for f in FAMILIES for n in names if any(f"{e}_{f}_" in n for e in DATASET.entities)}


def group(**different: tuple) -> Features:
    risk = FeatureGroup(("risk",))
    return Features(groups=(dataclasses.replace(risk, **different),))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (Features(calendar=("moon",)), ["features.calendar", "'moon'", "weekend"]),
        (group(families=("rate",)), ["features.groups[0].families", "'rate'", "risk"]),
        (group(entities=("SHOP",)), ["features.groups[0].entities", "'SHOP'", "TERMINAL_ID"]),
        (group(windows=()), ["features.groups[0].windows", "empty"]),
        (group(families=()), ["features.groups[0].families", "empty", "risk"]),
    ],
)
def test_check_names_key_value_and_fix(spec: Features, words: list[str]) -> None:
    with pytest.raises(BadInput) as error:
        features.check_features(spec, DATASET)
    assert all(word in str(error.value) for word in words)


def test_impossible_values_are_rejected() -> None:
    rows = transactions(3, seed=9)
    stamps = rows["TX_DATETIME"].copy()
    stamps[1] = np.datetime64("NaT")
    with pytest.raises(BadInput, match="row 1 has no timestamp"):
        derived(rows | {"TX_DATETIME": stamps})
    with pytest.raises(BadInput, match=r"row 1 has the amount 1e\+12"):
        derived(rows | {"TX_AMOUNT": np.array([1.0, 1e12, 2.0])})
    assert derived(rows | {"TX_AMOUNT": np.array([-1e9, 1e9, 2.0])})


def test_features_are_checked_before_they_are_added() -> None:
    with pytest.raises(BadInput, match="'rate'"):
        derived(transactions(3, seed=9), group(families=("rate",)))


def test_timestamps_may_be_finer_than_a_microsecond() -> None:
    rows = transactions(50, seed=13)
    finer = rows["TX_DATETIME"].astype("datetime64[ns]") + np.timedelta64(999, "ns")
    assert_equal(derived(rows | {"TX_DATETIME": finer}), derived(rows))


def test_frauds_of_nothing_are_worth_nothing_whatever_genuine_rows_are_worth() -> None:
    start = np.datetime64("2024-01-01", "us")
    rows = {
        "TX_DATETIME": np.array([start, start + DAY, start + 8 * DAY]),
        "CUSTOMER_ID": np.ones(3, int),
        "TERMINAL_ID": np.ones(3, int),
        "TX_AMOUNT": np.array([5.0, 0, 5]),
        "TX_FRAUD": np.array([0.0, 1, 0]),
    }
    assert derived(rows)["CUSTOMER_ID_fraud_amount_3d"][2] == 0


def test_the_curated_schema_lists_every_default_feature() -> None:
    schema = (ROOT / "schema" / "schema.pbtxt").read_text()
    names = features.feature_names(Features(), DATASET)
    assert [name for name in names if f'name: "{name}"' not in schema] == []


def test_every_family_is_documented() -> None:
    page = (ROOT / "docs" / "features.md").read_text()
    assert [name for name in (*FAMILIES, *CALENDAR) if f"`{name}`" not in page] == []

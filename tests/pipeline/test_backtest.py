"""The protocol, on a small made-up table, against a slow computation that follows its words."""

from __future__ import annotations

import dataclasses
import json
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from fraud.errors import BadInput
from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.pipeline import backtest
from fraud.pipeline.backtest import Fold, Outcome
from fraud.pipeline.config import Config, WindowLengths
from fraud.pipeline.ingestion import source
from fraud.pipeline.ingestion.values import day_number
from fraud.pipeline.windows import Window
from tests.pipeline.ingestion import transactions
from tests.pipeline.ingestion.transactions import DAYS, FIRST_DAY

CONFIG = Config(
    dataset=Dataset(numeric=("AGE",), categorical=("MCC",)),
    windows=WindowLengths(train_days=3, label_delay_days=2),
    features=Features(groups=(FeatureGroup(("count",), (1,)), FeatureGroup(("risk",), (2,)))),
)


def planned(first=FIRST_DAY + timedelta(days=6), count=2, **lengths):
    given = {"test_days": 3, "train_days": 3, "delay_days": 2, "known_days": 2, **lengths}
    return backtest.folds(first, count, **given)


def test_as_many_full_days_as_labels_are_delayed_lie_between_train_and_test():
    (fold,) = backtest.folds(date(2018, 7, 25), 1, test_days=7, train_days=30, delay_days=7)
    assert str(fold.test) == "2018-07-25 … 2018-07-31"
    assert str(fold.train) == "2018-06-18 … 2018-07-17"
    between = (fold.test.first - fold.train.last).days - 1
    assert between == 7


def test_folds_follow_each_other_without_a_gap():
    first, second, third = planned(count=3)
    assert second.test.first - first.test.last == timedelta(days=1)
    for attribute in ("train", "test"):
        firsts = [getattr(fold, attribute).first for fold in (first, second, third)]
        assert np.diff(firsts).tolist() == [timedelta(days=3)] * 2


@pytest.mark.parametrize("length", ["count", "test_days", "train_days", "known_days"])
def test_a_length_of_nothing_is_refused(length):
    with pytest.raises(BadInput, match="0 is too small"):
        planned(**{length: 0})


def slow_tested(fold, days, cards, labels, delay):
    """The handbook's get_train_test_set: known defrauded customers grow test day by test day."""
    known = {
        card
        for day, card, label in zip(days, cards, labels, strict=True)
        if label and day_number(fold.known_since) <= day <= day_number(fold.train.last)
    }
    kept = []
    for test_day in map(day_number, fold.test):
        for day, card, label in zip(days, cards, labels, strict=True):
            if label and day == test_day - delay - 1:
                known.add(card)
        kept += [
            row for row in range(len(days)) if days[row] == test_day and cards[row] not in known
        ]
    return kept


@pytest.mark.parametrize("delay", [0, 2, 4])
@pytest.mark.parametrize("known_days", [1, 4])
def test_cards_with_a_known_fraud_are_not_tested(delay, known_days):
    random = np.random.default_rng(delay)
    days = np.sort(
        random.integers(day_number(date(2024, 1, 1)), day_number(date(2024, 1, 25)), 3000)
    )
    cards = random.integers(0, 120, 3000)
    labels = (random.random(3000) < 0.03).astype(np.int64)
    for fold in planned(date(2024, 1, 15), count=2, delay_days=delay, known_days=known_days):
        found = np.flatnonzero(backtest.tested(fold, days, cards, labels, delay))
        expected = slow_tested(fold, days.tolist(), cards.tolist(), labels.tolist(), delay)
        assert found.tolist() == expected
        assert 0 < len(expected) < np.sum((days >= days[found[0]]) & (days <= days[found[-1]]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return transactions.write_days(transactions.make(), tmp_path_factory.mktemp("data"))


def read(folder, config=CONFIG, **lengths):
    folds = planned(**lengths)
    found = source.discover(str(folder), config.dataset)
    return folds, backtest.read(found, backtest.check_covered(found, folds, config), config)


def test_train_and_test_rows_of_a_fold(folder):
    folds, table = read(folder)
    made = transactions.make()
    day = made["TX_DATETIME"].to_numpy().astype("datetime64[D]").astype(int)
    for fold in folds:
        train, test = backtest.split(table, fold, CONFIG)
        in_train = (day >= day_number(fold.train.first)) & (day <= day_number(fold.train.last))
        np.testing.assert_array_equal(train.cards, made["CUSTOMER_ID"].to_numpy()[in_train])
        np.testing.assert_array_equal(train.labels, made["TX_FRAUD"].to_numpy()[in_train])
        kept = slow_tested(
            fold, day, made["CUSTOMER_ID"].to_pylist(), made["TX_FRAUD"].to_pylist(), 2
        )
        np.testing.assert_array_equal(test.cards, made["CUSTOMER_ID"].to_numpy()[kept])
        seconds = made["TX_DATETIME"].to_numpy()[kept].astype("datetime64[s]").astype(int)
        np.testing.assert_array_equal(test.timestamps, seconds)


def test_columns_are_what_the_model_reads(folder):
    folds, table = read(folder)
    train, _ = backtest.split(table, folds[0], CONFIG)
    assert set(train.columns) == {
        *("TX_AMOUNT", "AGE", "weekend", "night", "CUSTOMER_ID_count_1d", "TERMINAL_ID_count_1d"),
        *("CUSTOMER_ID_risk_2d", "TERMINAL_ID_risk_2d", "MCC", "TX_FRAUD"),
    }
    assert {values.dtype for values in train.columns.values()} == {
        np.dtype(t) for t in (np.float32, np.int64, object)
    }
    assert np.isnan(train.columns["TX_AMOUNT"]).any()
    assert set(train.columns["MCC"]) == {b"5411", b"5812", b"742"}


def test_what_is_read_reaches_back_as_far_as_features_look(folder):
    _, table = read(folder, first=FIRST_DAY + timedelta(days=9), count=1)
    # Train begins on the fifth day, with risk over 2 days of labels that are 2 days late.
    assert first_day(table) == FIRST_DAY
    without = dataclasses.replace(CONFIG, features=Features(groups=()))
    folds, table = read(folder, without)
    assert first_day(table) == folds[0].train.first == FIRST_DAY + timedelta(days=1)


def first_day(table):
    return table["TX_DATETIME"].to_numpy().min().astype("datetime64[D]").astype(date)


def test_without_entities_nobody_is_blocked_and_no_card_counted(folder):
    config = dataclasses.replace(CONFIG, dataset=Dataset(entities=(), numeric=("AGE",)))
    folds, table = read(folder, config)
    _, test = backtest.split(table, folds[0], config)
    day = transactions.make()["TX_DATETIME"].to_numpy().astype("datetime64[D]").astype(int)
    in_test = (day >= day_number(folds[0].test.first)) & (day <= day_number(folds[0].test.last))
    assert test.labels.size == in_test.sum()
    found = backtest.judged(test, np.linspace(0, 1, test.labels.size), config)
    assert set(found) == {"average_precision", "roc_auc"}


@pytest.mark.parametrize(
    ("first", "count", "message"),
    [
        (FIRST_DAY + timedelta(days=4), 1, f"--first-test-day {FIRST_DAY + timedelta(days=5)}"),
        (FIRST_DAY + timedelta(days=6), 3, "choose fewer --folds"),
    ],
)
def test_days_that_are_not_there_are_named(folder, first, count, message):
    with pytest.raises(BadInput, match=message):
        read(folder, first=first, count=count)


def test_a_day_without_transactions_is_refused(tmp_path):
    folder = transactions.write_days(transactions.make(), tmp_path)
    gone = FIRST_DAY + timedelta(days=8)
    (folder / f"date={gone}" / "transactions.parquet").unlink()
    with pytest.raises(BadInput, match=f"no transactions on {gone}"):
        read(folder)


def test_the_order_of_the_rows_is_that_of_time(tmp_path):
    table = transactions.make()
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(table.num_rows)))
    _, found = read(transactions.write_file(shuffled, tmp_path / "all.parquet"))
    times = found["TX_DATETIME"].to_numpy()
    assert (np.diff(times) >= np.timedelta64(0)).all()
    assert len(times) == table.num_rows
    assert len(set(times.astype("datetime64[D]"))) == DAYS


def outcome(precisions, cpu=2.0):
    return Outcome(
        100,
        5,
        {
            seed: {
                "average_precision": value,
                "roc_auc": 0.9,
                "card_precision_at_100": 0.3,
                "train_cpu_seconds": cpu,
            }
            for seed, value in enumerate(precisions, start=7)
        },
    )


def test_the_summary_has_means_and_spreads():
    folds = planned()
    result = backtest.summary(folds, [outcome([0.7, 0.8]), outcome([0.5, 0.9], cpu=4.0)])
    assert [fold["average_precision"] for fold in result["folds"]] == [0.75, 0.7]
    assert result["folds"][0]["test"] == [str(folds[0].test.first), str(folds[0].test.last)]
    assert result["folds"][1]["seeds"][1] == {
        "seed": 8,
        "average_precision": 0.9,
        "roc_auc": 0.9,
        "card_precision_at_100": 0.3,
        "train_cpu_seconds": 4.0,
    }
    assert result["mean"]["average_precision"] == 0.725
    assert result["mean"]["train_cpu_seconds"] == 3.0
    assert (result["mean"]["examples"], result["mean"]["positives"]) == (100, 5)
    spread = result["spread"]
    assert spread["folds"]["average_precision"] == pytest.approx(
        np.std([0.75, 0.7], ddof=1), abs=1e-6
    )
    assert spread["seeds"]["average_precision"] == pytest.approx(
        np.std([0.6, 0.85], ddof=1), abs=1e-6
    )


def test_what_is_undefined_is_null_and_a_dash():
    result = backtest.summary(planned(), [outcome([float("nan")]), outcome([0.5])])
    assert json.loads(json.dumps(result))["folds"][0]["average_precision"] is None
    assert result["mean"]["average_precision"] == 0.5
    assert "–" in backtest.render(result)


def test_the_table_has_the_published_figures_beside_the_mean():
    lines = backtest.render(backtest.summary(planned(), [outcome([0.7]), outcome([0.6])])).split(
        "\n"
    )
    (mean,) = [line for line in lines if line.strip().startswith("mean")]
    (boosting,) = [line for line in lines if line.strip().startswith("XGBoost")]
    assert mean.index("0.6500") == boosting.index("0.6870")
    assert not any("over seeds" in line for line in lines)


def test_one_fold_of_fixed_days():
    fold = Fold(
        Window(date(2024, 1, 1), date(2024, 1, 3)),
        Window(date(2024, 1, 5), date(2024, 1, 6)),
        date(2024, 1, 2),
    )
    day = day_number(date(2024, 1, 1))
    #        before  known   in delay        first test day     second test day
    days = np.array([day, day + 1, day + 3, day + 4, day + 4, day + 5, day + 5, day + 5])
    cards = np.array(["a", "b", "c", "a", "b", "a", "b", "c"])
    labels = np.array([1, 1, 1, 0, 0, 0, 1, 0])
    # a: its fraud is too long ago; b: known; c: known on the last day only, when it is 1 day old.
    found = backtest.tested(fold, days, cards, labels, delay_days=1)
    assert cards[found].tolist() == ["a", "a"]

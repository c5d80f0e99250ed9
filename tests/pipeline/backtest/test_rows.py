"""Reading and splitting the rows of folds."""

from __future__ import annotations

import dataclasses
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from fraud.errors import BadInput
from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.pipeline.backtest import rows
from fraud.pipeline.backtest.result import evaluate
from fraud.pipeline.config import Config, WindowLengths
from fraud.pipeline.ingestion.source import discover
from fraud.time import day_number
from tests.pipeline.backtest.reference import planned, slow_rows_to_test
from tests.pipeline.ingestion import transactions
from tests.pipeline.ingestion.transactions import DAYS, FIRST_DAY

CONFIG = Config(
    dataset=Dataset(numeric=("AGE",), categorical=("MCC",)),
    windows=WindowLengths(train_days=3, label_delay_days=2),
    features=Features(groups=(FeatureGroup(("count",), (1,)), FeatureGroup(("risk",), (2,)))),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return transactions.write_days(transactions.make(), tmp_path_factory.mktemp("data"))


def read(folder, config=CONFIG, **lengths):
    folds = planned(**lengths)
    source = discover(str(folder), config.dataset)
    return folds, rows.read(source, rows.check_covered(source, folds, config), config)


def test_train_and_test_rows_of_a_fold(folder):
    folds, table = read(folder)
    source = transactions.make()
    day = source["TX_DATETIME"].to_numpy().astype("datetime64[D]").astype(int)
    for fold in folds:
        train, test = rows.split(table, fold, CONFIG)
        in_train = (day >= day_number(fold.train.first)) & (day <= day_number(fold.train.last))
        np.testing.assert_array_equal(train.cards, source["CUSTOMER_ID"].to_numpy()[in_train])
        np.testing.assert_array_equal(train.labels, source["TX_FRAUD"].to_numpy()[in_train])
        kept = slow_rows_to_test(
            fold, day, source["CUSTOMER_ID"].to_pylist(), source["TX_FRAUD"].to_pylist(), 2
        )
        np.testing.assert_array_equal(test.cards, source["CUSTOMER_ID"].to_numpy()[kept])
        seconds = source["TX_DATETIME"].to_numpy()[kept].astype("datetime64[s]").astype(int)
        np.testing.assert_array_equal(test.timestamps, seconds)


def test_columns_are_those_the_model_reads(folder):
    folds, table = read(folder)
    train, _ = rows.split(table, folds[0], CONFIG)
    assert set(train.columns) == {
        *("TX_AMOUNT", "AGE", "weekend", "night", "CUSTOMER_ID_count_1d", "TERMINAL_ID_count_1d"),
        *("CUSTOMER_ID_risk_2d", "TERMINAL_ID_risk_2d", "MCC", "TX_FRAUD"),
    }
    assert {values.dtype for values in train.columns.values()} == {
        np.dtype(t) for t in (np.float32, np.int64, object)
    }
    assert np.isnan(train.columns["TX_AMOUNT"]).any()
    assert set(train.columns["MCC"]) == {b"5411", b"5812", b"742"}


def test_reading_starts_where_the_features_history_starts(folder):
    _, table = read(folder, first=FIRST_DAY + timedelta(days=9), count=1)
    # Training starts on the fifth day; the risk feature covers 2 days, with labels 2 days late.
    assert first_day(table) == FIRST_DAY
    without = dataclasses.replace(CONFIG, features=Features(groups=()))
    folds, table = read(folder, without)
    assert first_day(table) == folds[0].train.first == FIRST_DAY + timedelta(days=1)


def first_day(table):
    return table["TX_DATETIME"].to_numpy().min().astype("datetime64[D]").astype(date)


def test_label_times_decide_what_a_fold_knows(tmp_path):
    """A train row needs a label known before the test begins, a test row one known at all."""
    config = dataclasses.replace(
        CONFIG, dataset=dataclasses.replace(CONFIG.dataset, label_time="KNOWN_AT", entities=())
    )
    source = transactions.make()
    random = np.random.default_rng(0)
    hours = random.choice([1, 30, 80], source.num_rows).astype("timedelta64[h]")
    known = source["TX_DATETIME"].to_numpy() + hours
    missing = random.random(source.num_rows) < 0.2
    source = source.append_column("KNOWN_AT", pa.array(known, mask=missing))
    data = transactions.write_days(source, tmp_path / "data")
    folds, table = read(data, config)
    day = source["TX_DATETIME"].to_numpy().astype("datetime64[D]").astype(int)
    frauds = source["TX_FRAUD"].to_numpy()
    left_out = 0
    for fold in folds:
        train, test = rows.split(table, fold, config)
        in_train = (day >= day_number(fold.train.first)) & (day <= day_number(fold.train.last))
        in_time = ~missing & (known < np.datetime64(fold.test.first))
        assert train.labels.tolist() == frauds[in_train & in_time].tolist()
        assert 0 < np.sum(in_train & in_time) < np.sum(in_train & ~missing)
        in_test = (day >= day_number(fold.test.first)) & (day <= day_number(fold.test.last))
        assert test.labels.tolist() == frauds[in_test & ~missing].tolist()
        left_out += np.sum(in_test & missing)
    assert rows.count_unlabelled(table, folds, config) == left_out
    assert rows.count_unlabelled(*reversed(read(data)), CONFIG) == 0


def test_the_days_of_a_fold_are_local(tmp_path):
    source = transactions.make()
    tokyo = dataclasses.replace(CONFIG.dataset, timezone="Asia/Tokyo")
    ahead = dataclasses.replace(CONFIG, dataset=tokyo)
    utc = source["TX_DATETIME"].to_numpy() - np.timedelta64(9, "h")
    at = source.schema.get_field_index("TX_DATETIME")
    shifted = source.set_column(at, "TX_DATETIME", pa.array(utc, pa.timestamp("us", "UTC")))
    folds, table = read(transactions.write_file(shifted, tmp_path / "all.parquet"), ahead)
    _, in_utc = read(transactions.write_file(source, tmp_path / "utc" / "all.parquet"))
    for fold in folds:
        for local, expected in zip(
            rows.split(table, fold, ahead), rows.split(in_utc, fold, CONFIG), strict=True
        ):
            assert local.cards.tolist() == expected.cards.tolist()
            assert local.timestamps.tolist() == (expected.timestamps - 9 * 3600).tolist()
            scores = np.linspace(0, 1, local.labels.size)
            assert evaluate(local, scores, ahead) == evaluate(expected, scores, CONFIG)


def test_without_entities_no_card_is_blocked_or_counted(folder):
    config = dataclasses.replace(CONFIG, dataset=Dataset(entities=(), numeric=("AGE",)))
    folds, table = read(folder, config)
    _, test = rows.split(table, folds[0], config)
    day = transactions.make()["TX_DATETIME"].to_numpy().astype("datetime64[D]").astype(int)
    in_test = (day >= day_number(folds[0].test.first)) & (day <= day_number(folds[0].test.last))
    assert test.labels.size == in_test.sum()
    metrics = evaluate(test, np.linspace(0, 1, test.labels.size), config)
    assert set(metrics) == {"average_precision", "roc_auc"}


@pytest.mark.parametrize(
    ("first", "count", "message"),
    [
        (FIRST_DAY + timedelta(days=4), 1, f"--first-test-day {FIRST_DAY + timedelta(days=5)}"),
        (FIRST_DAY + timedelta(days=6), 3, "choose fewer --folds"),
    ],
)
def test_missing_days_are_named(folder, first, count, message):
    with pytest.raises(BadInput, match=message):
        read(folder, first=first, count=count)


def test_a_day_without_transactions_is_refused(tmp_path):
    folder = transactions.write_days(transactions.make(), tmp_path)
    missing = FIRST_DAY + timedelta(days=8)
    (folder / f"date={missing}" / "transactions.parquet").unlink()
    with pytest.raises(BadInput, match=f"no transactions on {missing}"):
        read(folder)


def test_rows_are_ordered_by_time(tmp_path):
    table = transactions.make()
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(table.num_rows)))
    _, ordered = read(transactions.write_file(shuffled, tmp_path / "all.parquet"))
    times = ordered["TX_DATETIME"].to_numpy()
    assert (np.diff(times) >= np.timedelta64(0)).all()
    assert len(times) == table.num_rows
    assert len(set(times.astype("datetime64[D]"))) == DAYS

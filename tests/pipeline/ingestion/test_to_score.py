"""Transactions to be scored have the features of ingestion, whatever lies beside them."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from fraud.errors import BadInput
from fraud.features.batch import add_features, feature_names
from fraud.features.spec import FeatureGroup, Features
from fraud.models.specification import InputSpecification
from fraud.pipeline.ingestion import to_score
from tests.pipeline.ingestion import transactions
from tests.pipeline.ingestion.transactions import AS_OF, CONFIG, FIRST_DAY, by_day

FEATURES = Features(groups=(FeatureGroup(("count", "mean", "risk", "known_count"), (1, 4)),))
INPUTS = InputSpecification(CONFIG.dataset, FEATURES, 2)
NAMES = feature_names(FEATURES, CONFIG.dataset)


@pytest.fixture
def table():
    return transactions.make()


@pytest.fixture
def history(table, tmp_path):
    return transactions.write_days(table, tmp_path / "history")


def last_days(table, days):
    parts = by_day(table)
    return pa.concat_tables(parts[AS_OF - timedelta(days=i)] for i in reversed(range(days)))


def expected(table, days):
    """The features of batch for the last days, all labels being known after the delay."""
    drop = ("COUNTRY", "NOTE")
    known = table.drop(list(drop))
    known = known.set_column(
        known.schema.get_field_index("TX_FRAUD"), "TX_FRAUD", known["TX_FRAUD"].cast(pa.float64())
    )
    return last_days(add_features(known, CONFIG.dataset, FEATURES, 2), days)


def check(read, table, days):
    whole = expected(table, days)
    assert read["TRANSACTION_ID"].cast(pa.string()).to_pylist() == [
        str(number) for number in whole["TRANSACTION_ID"].to_pylist()
    ]
    for name in NAMES:
        np.testing.assert_array_equal(read[name].to_numpy(), whole[name].to_numpy(), err_msg=name)
    assert "TX_FRAUD" not in read.column_names


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
@pytest.mark.parametrize("days", [1, 6])
def test_features_are_those_of_ingestion(table, history, tmp_path, suffix, days):
    """The history holds the transactions to be scored, too."""
    path = transactions.write_file(last_days(table, days), tmp_path / f"today{suffix}")
    read, missing = to_score.read_with_history(str(path), str(history), INPUTS)
    check(read, table, days)
    assert missing == ""


def test_a_transaction_that_is_there_twice_is_refused(table, history, tmp_path):
    today = last_days(table, 1)
    path = transactions.write_file(pa.concat_tables([today, today.slice(3, 1)]), tmp_path / "t.csv")
    id_ = today["TRANSACTION_ID"][3].as_py()
    message = f"TRANSACTION_ID {id_} occurs twice, as transactions 4 and {len(today) + 1:,}"
    with pytest.raises(BadInput, match=message):
        to_score.read_with_history(str(path), str(history), INPUTS)
    with pytest.raises(BadInput, match=message):
        to_score.read(str(path), INPUTS.dataset)


@pytest.mark.parametrize("days", [2, 6])
def test_labels_need_not_be_beside_what_is_scored(table, history, tmp_path, days):
    """Those of the history are used: of six days, the first are known when the last is scored."""
    unlabelled = last_days(table, days).drop(["TX_FRAUD", "COUNTRY"])
    path = transactions.write_file(unlabelled, tmp_path / "today.parquet")
    read, _ = to_score.read_with_history(str(path), str(history), INPUTS)
    check(read, table, days)


def test_labels_that_are_not_yet_known_are_not_read(table, history, tmp_path):
    """Neither beside what is scored nor in the history: a day later they may be different."""
    first_unknown = np.datetime64(AS_OF - timedelta(days=1))
    known = pa.array(table["TX_DATETIME"].to_numpy() < first_unknown)
    labels = pc.if_else(known, table["TX_FRAUD"], 7)
    changed = table.set_column(table.schema.get_field_index("TX_FRAUD"), "TX_FRAUD", labels)
    folder = transactions.write_days(changed, tmp_path / "changed")
    path = transactions.write_file(last_days(changed, 1), tmp_path / "today.parquet")
    read, _ = to_score.read_with_history(str(path), str(folder), INPUTS)
    check(read, table, 1)


def test_identifiers_may_be_text_on_one_side_only(table, history, tmp_path):
    today = last_days(table, 1)
    path = transactions.write_file(
        transactions.replaced(today, "CUSTOMER_ID", 0, "0001"), tmp_path / "today.csv"
    )
    read, _ = to_score.read_with_history(str(path), str(history), INPUTS)
    assert read["CUSTOMER_ID"].to_pylist()[0] == "0001"
    whole = expected(table, 1)
    names = whole["CUSTOMER_ID"].to_numpy()
    same = names != names[0]
    counts = read["TERMINAL_ID_count_4d"].to_numpy()
    np.testing.assert_array_equal(counts, whole["TERMINAL_ID_count_4d"].to_numpy())
    of_cards = read["CUSTOMER_ID_count_4d"].to_numpy()
    assert of_cards[0] == 1
    before = whole["CUSTOMER_ID_count_4d"].to_numpy()
    np.testing.assert_array_equal(of_cards[same], before[same])


def test_without_ids_the_history_ends_where_the_transactions_begin(table, history, tmp_path):
    inputs = replace(INPUTS, dataset=replace(CONFIG.dataset, id=None))
    today = last_days(table, 1)
    path = transactions.write_file(today, tmp_path / "today.parquet")
    read, _ = to_score.read_with_history(str(path), str(history), inputs)
    whole = expected(table, 1)
    for name in NAMES:
        np.testing.assert_array_equal(read[name].to_numpy(), whole[name].to_numpy(), err_msg=name)


def test_missing_days_of_history_are_told(table, tmp_path):
    parts = by_day(table)
    few = pa.concat_tables([parts[FIRST_DAY + timedelta(days=i)] for i in (8, 10)])
    folder = transactions.write_days(few, tmp_path / "few")
    path = transactions.write_file(last_days(table, 1), tmp_path / "today.parquet")
    _, missing = to_score.read_with_history(str(path), str(folder), INPUTS)
    days = f"{AS_OF - timedelta(days=6)} … {AS_OF - timedelta(days=1)}"
    assert missing == f"history has 2 of the 6 days that features look back on, {days}"


def test_a_history_of_other_days_is_no_failure(table, history, tmp_path):
    later = last_days(table, 1)
    times = pc.add(later["TX_DATETIME"], pa.scalar(timedelta(days=400)))
    later = later.set_column(later.schema.get_field_index("TX_DATETIME"), "TX_DATETIME", times)
    path = transactions.write_file(later, tmp_path / "later.parquet")
    read, missing = to_score.read_with_history(str(path), str(history), INPUTS)
    assert len(read) == len(later)
    assert "0 of the 6 days" in missing


def test_a_bad_value_is_named(table, history, tmp_path):
    today = transactions.replaced(last_days(table, 1), "TX_AMOUNT", 3, 1e12)
    path = transactions.write_file(today, tmp_path / "today.parquet")
    with pytest.raises(BadInput, match=r"today.parquet, row 4: TX_AMOUNT is 1e\+12"):
        to_score.read_with_history(str(path), str(history), INPUTS)


def test_transactions_are_read_as_they_are_for_a_model_without_features(table, tmp_path):
    rows = table.drop(["TX_DATETIME", "TX_FRAUD", "COUNTRY"])
    path = transactions.write_file(rows, tmp_path / "all.csv")
    read = to_score.read(str(path), replace(CONFIG.dataset, timestamp=None))
    assert read["TX_AMOUNT"].to_pylist() == table["TX_AMOUNT"].to_pylist()
    assert read["MCC"].to_pylist() == [str(code) for code in table["MCC"].to_pylist()]
    with_time = transactions.write_file(table, tmp_path / "times.parquet")
    assert to_score.read(str(with_time), CONFIG.dataset).num_rows == len(table)

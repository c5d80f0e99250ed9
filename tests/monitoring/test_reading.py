"""What the monitor reads of the data folder: what was known on the day, and no more."""

from __future__ import annotations

import dataclasses
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from fraud.errors import BadInput
from fraud.features.batch import add_features
from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.monitoring import reading
from fraud.monitoring.spec import Monitoring
from fraud.pipeline.config import Config, WindowLengths

DAYS, FIRST = 24, date(2026, 3, 1)
AS_OF = FIRST + timedelta(days=DAYS - 1)
FEATURES = Features(
    calendar=("night",), groups=(FeatureGroup(("count", "known_count", "risk"), (3,)),)
)
CONFIG = Config(
    dataset=Dataset(),
    windows=WindowLengths(label_delay_days=4),
    features=FEATURES,
    monitoring=Monitoring(recent_days=3, performance_days=3, skew_rows=15),
)


def of_day(index: int, **changed) -> pa.Table:
    random = np.random.default_rng(index)
    n = 40
    seconds = np.datetime64(FIRST + timedelta(days=index), "us") + np.sort(
        random.integers(0, 86_400, n)
    ).astype("timedelta64[s]")
    columns = {
        "TRANSACTION_ID": np.arange(n) + 1000 * index,
        "TX_DATETIME": seconds.astype("datetime64[us]"),
        "CUSTOMER_ID": random.integers(0, 12, n),
        "TERMINAL_ID": random.integers(0, 9, n),
        "TX_AMOUNT": random.uniform(1, 100, n),
        "TX_FRAUD": (random.random(n) < 0.1).astype(np.int8),
    }
    return pa.table({**columns, **changed})


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for index in range(DAYS):
        write(folder, index, of_day(index))
    return folder


def write(folder, index: int, table: pa.Table) -> None:
    day = folder / f"date={FIRST + timedelta(days=index)}"
    day.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, day / "transactions.parquet")


def read(data, config=CONFIG, as_of=AS_OF, **more):
    return reading.read(str(data), data / "no-log", config, as_of, **more)


def days(table: pa.Table) -> np.ndarray:
    return table["TX_DATETIME"].to_numpy().astype("datetime64[D]")


def test_labels_are_those_known_when_the_day_ends(data):
    table = read(data).transactions
    known = table["TX_FRAUD"].is_valid().to_numpy()
    assert np.array_equal(known, days(table) <= np.datetime64(AS_OF - timedelta(days=4)))
    assert days(table).max() == np.datetime64(AS_OF)
    earlier = read(data, as_of=AS_OF - timedelta(days=2)).transactions
    assert days(earlier).max() == np.datetime64(AS_OF - timedelta(days=2))


def test_only_the_days_that_are_looked_at_are_read(data):
    assert days(read(data).transactions).min() == np.datetime64(AS_OF - timedelta(days=6))
    until = AS_OF - timedelta(days=12)
    longer = read(data, labels_until=until).transactions
    assert days(longer).min() == np.datetime64(until + timedelta(days=1))


def test_features_are_computed_as_for_training(data):
    production = read(data, inputs=CONFIG.inputs)
    again = production.recomputed
    assert again.column_names == [
        "TRANSACTION_ID",
        "night",
        *(
            f"{e}_{f}_3d"
            for e in ("CUSTOMER_ID", "TERMINAL_ID")
            for f in ("count", "known_count", "risk")
        ),
    ]
    assert len(again) == 15
    whole = pa.concat_tables([of_day(i) for i in range(DAYS)])
    expected = add_features(whole, CONFIG.dataset, FEATURES, 4).to_pandas()
    expected = expected.set_index("TRANSACTION_ID")
    for row in again.to_pylist():
        identity = row.pop("TRANSACTION_ID")
        assert row == pytest.approx(expected.loc[identity, list(row)].to_dict(), nan_ok=True)
        assert identity // 1000 == DAYS - 1


def test_without_inputs_nothing_is_computed(data):
    assert read(data).recomputed is None
    assert len(read(data).predictions) == 0


@pytest.mark.parametrize("labels", [[None] * 40, [7] * 40])
def test_labels_that_cannot_be_used_are_told_and_not_guessed(data, labels):
    late = DAYS - 6
    write(data, late, of_day(late, TX_FRAUD=pa.array(labels, pa.int64())))
    production = read(data)
    assert "TX_FRAUD is" in production.label_problem
    table = production.transactions
    of_late = days(table) == np.datetime64(FIRST + timedelta(days=late))
    assert of_late.sum() == 40
    assert table["TX_FRAUD"].is_null().to_numpy()[of_late].all()
    assert read(data, as_of=AS_OF - timedelta(days=2)).label_problem == ""  # not due yet


def test_other_damage_is_an_error(data):
    write(data, DAYS - 6, of_day(DAYS - 6, TX_AMOUNT=np.full(40, np.inf)))
    with pytest.raises(BadInput, match="TX_AMOUNT"):
        read(data)


def test_moments_of_labels_decide_where_there_are_any(tmp_path):
    dataset = Dataset(label_time="KNOWN")
    config = dataclasses.replace(CONFIG, dataset=dataset)
    for index in range(DAYS):
        table = of_day(index)
        known = table["TX_DATETIME"].to_numpy() + np.timedelta64(index % 8, "D")
        write(tmp_path, index, table.append_column("KNOWN", pa.array(known)))
    table = reading.read(str(tmp_path), tmp_path / "no-log", config, AS_OF).transactions
    known = days(table).astype(int) + ((days(table) - np.datetime64(FIRST)).astype(int) % 8) <= int(
        np.datetime64(AS_OF).astype(int)
    )
    assert np.array_equal(table["TX_FRAUD"].is_valid().to_numpy(), known)
    assert np.array_equal(table["KNOWN"].is_valid().to_numpy(), known)


def test_the_day_is_the_last_one_of_the_data_unless_it_is_given(data, tmp_path):
    assert reading.as_of_day(str(data), CONFIG, None) == AS_OF
    soon = AS_OF + timedelta(days=2)  # nothing has arrived since
    assert reading.as_of_day(str(data), CONFIG, soon) == soon
    assert days(read(data, as_of=soon).transactions).max() == np.datetime64(AS_OF)
    with pytest.raises(BadInput, match=r"no transactions in .* the days of data are 2026-03-01 …"):
        reading.as_of_day(str(data), CONFIG, date(2027, 1, 1))
    without = dataclasses.replace(CONFIG, dataset=Dataset(timestamp=None))
    with pytest.raises(BadInput, match="timestamp is null"):
        reading.as_of_day(str(data), without, None)

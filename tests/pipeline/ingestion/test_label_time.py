"""Label times: what is known when, in windows, examples and features."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from fraud.errors import BadInput
from fraud.features.batch import add_features, feature_names
from tests.pipeline.ingestion import transactions
from tests.pipeline.ingestion.test_stages import EVAL, RECENT, TRAIN, single_values
from tests.pipeline.ingestion.transactions import AS_OF, day_file, ingest, read, with_dataset

CONFIG = with_dataset(label_time="KNOWN_AT")
DATASET = CONFIG.dataset
DELAY = CONFIG.windows.label_delay_days


def labelled(seed: int = 0, delays: tuple[int, ...] = (0, 5, 40, 60, 100)) -> pa.Table:
    """Transactions with label times some hours later, some of them missing."""
    table = transactions.make()
    random = np.random.default_rng(seed)
    hours = random.choice(delays, table.num_rows).astype("timedelta64[h]")
    missing = random.random(table.num_rows) < 0.1 * (len(delays) > 1)
    known = pa.array(table["TX_DATETIME"].to_numpy() + hours, mask=missing)
    return table.append_column("KNOWN_AT", known)


def known_by(table: pa.Table, day) -> list[bool]:
    """Whether each label was known when the day ended."""
    end = datetime.combine(day + timedelta(days=1), datetime.min.time())
    return [time is not None and time < end for time in table["KNOWN_AT"].to_pylist()]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_examples_have_the_labels_that_were_known(tmp_path: Path, suffix: str) -> None:
    table = labelled()
    ingested = ingest(transactions.write_days(table, tmp_path / "data", suffix), tmp_path, CONFIG)
    full = add_features(table, DATASET, CONFIG.features, DELAY)
    days = np.array([time.date() for time in table["TX_DATETIME"].to_pylist()])
    before_eval = EVAL.first - timedelta(days=1)
    for split, window, deadline in (
        ("train", TRAIN, before_eval),
        ("eval", EVAL, AS_OF),
        ("recent", RECENT, None),
    ):
        within = (days >= window.first) & (days <= window.last)
        usable = within & (known_by(table, deadline) if deadline else True)
        want = full.filter(pa.array(usable))
        got = single_values(ingested.splits[split])
        assert "KNOWN_AT" not in got
        assert got["TRANSACTION_ID"] == want["TRANSACTION_ID"].to_pylist()
        for name in feature_names(CONFIG.features, DATASET):
            values = [None if np.isnan(v) else v for v in want[name].to_pylist()]
            assert got[name] == values, name
        assert ingested.properties["rows"][split] == usable.sum()
        if split == "recent":
            assert "TX_FRAUD" not in got
        else:
            assert got["TX_FRAUD"] == want["TX_FRAUD"].to_pylist()
            unlabelled = within.sum() - usable.sum()
            assert unlabelled > 0
            assert ingested.properties["unlabelled"][split] == unlabelled
    assert "recent" not in ingested.properties["unlabelled"]


def test_label_times_after_the_delay_give_the_examples_of_the_delay(tmp_path: Path) -> None:
    table = labelled(delays=(24 * DELAY,))
    data = transactions.write_days(table, tmp_path / "data")
    with_times = ingest(data, tmp_path / "1", CONFIG)
    fixed = ingest(data, tmp_path / "2")
    assert with_times.splits == fixed.splits
    assert with_times.properties["unlabelled"] == {"train": 0, "eval": 0}
    assert fixed.properties["unlabelled"] == {}


def test_labels_learned_later_change_nothing(tmp_path: Path) -> None:
    table = labelled()
    first = ingest(transactions.write_days(table, tmp_path / "a"), tmp_path / "1", CONFIG)
    known = pa.array(known_by(table, AS_OF))
    for column, value in (("TX_FRAUD", pc.subtract(1, table["TX_FRAUD"])), ("KNOWN_AT", None)):
        changed = pc.if_else(known, table[column], value)
        table = table.set_column(table.schema.get_field_index(column), column, changed)
    second = ingest(transactions.write_days(table, tmp_path / "b"), tmp_path / "2", CONFIG)
    assert (first.splits, first.properties) == (second.splits, second.properties)


def test_no_label_is_known_while_the_column_is_empty(tmp_path: Path) -> None:
    table = labelled()
    data = transactions.write_days(table, tmp_path / "data")
    for day, rows in transactions.by_day(table).items():
        if day in RECENT:
            at = rows.schema.get_field_index("KNOWN_AT")
            empty = rows.set_column(at, "KNOWN_AT", pa.nulls(rows.num_rows))
            transactions.write_file(empty, day_file(data, day))
    assert read(data, CONFIG)["KNOWN_AT"].null_count > table["KNOWN_AT"].null_count


def damaged(tmp_path: Path, suffix: str, column: str, value: object) -> Path:
    table = labelled(delays=(30, 31))
    data = transactions.write_days(table, tmp_path / "data", suffix)
    day = AS_OF - timedelta(days=7)
    rows = transactions.by_day(table)[day]
    present = rows["KNOWN_AT"].is_valid().to_pylist().index(True)
    at = rows.schema.get_field_index(column)
    values = rows[column].to_pylist()
    values[present] = value
    changed = rows.set_column(at, column, pa.array(values, rows[column].type))
    transactions.write_file(changed, day_file(data, day))
    return data


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_label_known_before_its_transaction_is_refused(tmp_path: Path, suffix: str) -> None:
    data = damaged(tmp_path, suffix, "KNOWN_AT", datetime(2024, 2, 1))
    message = rf"date=.*{suffix}, (row|line) \d+: KNOWN_AT is 2024-02-01 00:00:00, before TX_DATETI"
    with pytest.raises(BadInput, match=message):
        read(data, CONFIG)


def test_an_empty_label_with_a_label_time_is_refused(tmp_path: Path) -> None:
    data = damaged(tmp_path, ".parquet", "TX_FRAUD", None)
    with pytest.raises(BadInput, match=r"TX_FRAUD is empty.*because KNOWN_AT says that it is"):
        read(data, CONFIG)


def test_a_label_time_that_is_no_time_is_refused(tmp_path: Path) -> None:
    data = transactions.write_days(labelled(), tmp_path / "data", ".csv")
    path = day_file(data)
    lines = path.read_text().splitlines()
    lines[1] = lines[1].rpartition(",")[0] + ",soon"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(BadInput, match="line 2: KNOWN_AT is 'soon', not a time"):
        read(data, CONFIG)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [(".parquet", pa.date32()), (".parquet", pa.large_string()), (".csv", pa.date32())],
)
def test_a_label_date_is_the_end_of_that_day(
    tmp_path: Path, suffix: str, kind: pa.DataType
) -> None:
    """A label of the day of its transaction is not known before it, and known to the next day."""
    table = transactions.make()
    days = pc.cast(table["TX_DATETIME"], pa.date32())
    written = days.cast(pa.string()).cast(kind) if pa.types.is_large_string(kind) else days
    data = transactions.write_days(table.append_column("KNOWN_AT", written), tmp_path, suffix)
    for zone, ahead in (("UTC", 0), ("Asia/Tokyo", 9)):
        local = with_dataset(CONFIG, timezone=zone)
        known = read(data, local)["KNOWN_AT"].to_numpy() + np.timedelta64(ahead, "h")
        assert known.tolist() == [
            datetime.combine(day, datetime.max.time()) for day in days.to_pylist()
        ]

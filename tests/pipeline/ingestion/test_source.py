"""Checks of the data from names, headers and footers, before values are read."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from fraud.errors import BadInput
from fraud.pipeline.ingestion import reader
from fraud.pipeline.ingestion import source as source_module
from fraud.pipeline.ingestion.reader import File
from fraud.pipeline.ingestion.source import (
    Source,
    check_columns,
    content_id,
    discover,
    plan,
    plan_ingestion,
)
from fraud.pipeline.windows import Window
from tests.pipeline.ingestion import transactions
from tests.pipeline.ingestion.transactions import (
    AS_OF,
    CONFIG,
    DAYS,
    FIRST_DAY,
    day_file,
    with_dataset,
    with_windows,
)


@pytest.fixture
def table() -> pa.Table:
    return transactions.make()


@pytest.fixture
def data(tmp_path: Path, table: pa.Table) -> Path:
    return transactions.write_days(table, tmp_path / "data")


def source_at(data: Path | str) -> Source:
    return discover(str(data), CONFIG.dataset)


def test_day_folders_are_found_in_order(data: Path) -> None:
    (data / "README.md").write_text("beside the folders")
    (data / f"date={AS_OF}" / "_SUCCESS").write_text("")
    (data / f"date={AS_OF}" / ".transactions.parquet.crc").write_text("x")
    (data / "_temporary").mkdir()
    source = source_at(data)
    assert source.days == tuple(FIRST_DAY + timedelta(days=i) for i in range(DAYS))
    assert [file.name for file in source.all_files] == [
        f"date={day}/transactions.parquet" for day in source.days
    ]
    window = Window(FIRST_DAY + timedelta(days=2), FIRST_DAY + timedelta(days=3))
    assert [file.days for file in source.files(window)] == [(day,) for day in window]


def test_the_days_of_a_single_file_are_read_once(
    tmp_path: Path, table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read = reader.read

    def counted(
        file: File, columns: dict[str, pa.DataType]
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        reads.append(file)
        return read(file, columns)

    parquet.write_table(table, tmp_path / "all.parquet")
    monkeypatch.setattr(reader, "read", counted)
    planned = [plan_ingestion(str(tmp_path / "all.parquet"), CONFIG, AS_OF) for _ in range(2)]
    assert planned[0] == planned[1]
    assert len(reads) == 1


def test_data_may_be_a_uri_or_a_relative_path(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = source_at(data)
    assert [f.name for f in source_at(data.as_uri()).all_files] == [f.name for f in here.all_files]
    monkeypatch.chdir(data)
    assert source_at(".").days == here.days
    monkeypatch.chdir(data.parent)
    assert source_at("data/").days == here.days
    windows = plan(source_at("data/"), CONFIG, None)
    assert check_columns(source_at(data.as_uri()), windows, CONFIG.dataset)["MCC"] == pa.string()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
def test_days_of_one_file_are_those_of_its_timestamps(
    tmp_path: Path, table: pa.Table, suffix: str
) -> None:
    days = transactions.by_day(table)
    without = [day for day in days if day != FIRST_DAY + timedelta(days=1)]
    path = transactions.write_file(
        pa.concat_tables(days[day] for day in without), tmp_path / f"all{suffix}"
    )
    assert source_at(path).days == tuple(without)
    folder = tmp_path / "several"
    for number, day in enumerate(without):
        transactions.write_file(days[day], folder / f"{number}.parquet")
    assert source_at(folder).days == tuple(without)


def test_nothing_there_is_said(tmp_path: Path, data: Path) -> None:
    with pytest.raises(BadInput, match="nowhere: no such file or directory"):
        source_at(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="empty: no transactions here; expected day folders"):
        source_at(tmp_path / "empty")
    (tmp_path / "table.xlsx").write_text("x")
    with pytest.raises(BadInput, match=r"table\.xlsx: neither .*convert it"):
        source_at(tmp_path / "table.xlsx")
    with pytest.raises(BadInput, match="nosuch://x: cannot be opened"):
        source_at("nosuch://x")
    (data / "date=2024-02-30").mkdir()
    transactions.write_file(transactions.make(10), data / "date=2024-02-30" / "x.csv")
    with pytest.raises(BadInput, match="date=2024-02-30: not a day"):
        source_at(data)


def test_a_time_that_cannot_be_read_is_said_while_looking_for_days(
    tmp_path: Path, table: pa.Table
) -> None:
    broken = transactions.replaced(table, "TX_DATETIME", 7, "soon")
    path = transactions.write_file(broken, tmp_path / "all.csv")
    with pytest.raises(BadInput, match=r"all\.csv, line 9: TX_DATETIME is 'soon', not a time"):
        source_at(path)
    path = transactions.write_file(table.drop(["TX_DATETIME"]), tmp_path / "other.csv")
    with pytest.raises(BadInput, match=r"no column 'TX_DATETIME'.*dataset\.timestamp"):
        source_at(path)


def test_the_as_of_day_is_the_last_day_of_data_by_default(data: Path) -> None:
    windows = plan(source_at(data), CONFIG, None)
    assert windows is not None and windows.as_of == AS_OF
    assert windows.train == Window(AS_OF - timedelta(days=8), AS_OF - timedelta(days=6))
    assert windows.all_days.first < FIRST_DAY


def test_an_as_of_day_after_the_data_is_refused(data: Path) -> None:
    late = AS_OF + timedelta(days=1)
    with pytest.raises(BadInput, match=f"{late} is after the last day.*choose --as-of {AS_OF}"):
        plan(source_at(data), CONFIG, late)


@pytest.mark.parametrize(
    ("lengths", "as_of", "fixes"),
    [
        ({"train_days": 8}, AS_OF, ["lower windows.train_days from 8 to 6"]),
        (
            {"train_days": 5},
            AS_OF - timedelta(days=2),
            [
                "lower windows.train_days from 5 to 4",
                f"or choose --as-of {AS_OF - timedelta(days=1)} or later",
            ],
        ),
        ({}, FIRST_DAY, [f"; choose --as-of {FIRST_DAY + timedelta(days=8)} or later"]),
        (
            {"eval_days": 20},
            AS_OF,
            ["; lower windows.eval_days (20), windows.label_delay_days (2) and windows.train_days"],
        ),
    ],
)
def test_windows_longer_than_the_data_name_what_to_change(
    data: Path, lengths: dict[str, int], as_of: date, fixes: list[str]
) -> None:
    with pytest.raises(BadInput) as raised:
        plan(source_at(data), with_windows(**lengths), as_of)
    message = str(raised.value)
    assert f"begins before the first day of data, {FIRST_DAY}" in message
    assert all(fix in message for fix in fixes), message


@pytest.mark.parametrize("train_days", [10**6, 10**10])
def test_windows_that_would_begin_before_the_calendar_are_refused(
    data: Path, train_days: int
) -> None:
    with pytest.raises(BadInput, match=r"before the year 1; lower windows\.train_days"):
        plan(source_at(data), with_windows(train_days=train_days), None)


def test_what_a_message_says_to_lower_is_enough(data: Path) -> None:
    assert plan(source_at(data), with_windows(train_days=6), AS_OF) is not None
    early = AS_OF - timedelta(days=2)
    assert plan(source_at(data), with_windows(train_days=4), early) is not None
    assert plan(source_at(data), with_windows(train_days=5), early + timedelta(days=1)) is not None
    assert plan(source_at(data), CONFIG, FIRST_DAY + timedelta(days=8)) is not None


@pytest.mark.parametrize(
    ("days_ago", "window"), [(0, "recent"), (3, "eval"), (6, "train"), (9, "history")]
)
def test_days_without_transactions_are_refused_beyond_what_is_tolerated(
    data: Path, table: pa.Table, days_ago: int, window: str
) -> None:
    day = AS_OF - timedelta(days=days_ago)
    path = day_file(data, day)
    transactions.write_file(table.slice(0, 0), path)
    with pytest.raises(
        BadInput,
        match=f"no transactions on {day} in the {window} window.*max_empty_days from 0 to 1",
    ):
        plan(source_at(data), CONFIG, AS_OF)
    assert plan(source_at(data), with_windows(max_empty_days=1), AS_OF) is not None
    if days_ago:
        path.unlink()
        with pytest.raises(BadInput, match=f"no transactions on {day}"):
            plan(source_at(data), CONFIG, AS_OF)


def test_a_gap_between_train_and_eval_would_be_a_gap_of_features(data: Path) -> None:
    day_file(data, AS_OF - timedelta(days=4)).unlink()
    with pytest.raises(BadInput, match="in the days between the train and eval windows"):
        plan(source_at(data), CONFIG, AS_OF)
    assert plan(source_at(data), with_dataset(entities=()), AS_OF) is not None


def test_without_a_timestamp_there_are_no_windows(tmp_path: Path, table: pa.Table) -> None:
    config = with_dataset(timestamp=None)
    path = transactions.write_file(table, tmp_path / "all.csv")
    source = discover(str(path), config.dataset)
    assert plan(source, config, None) is None
    assert source.days == () and len(source.files(None)) == 1
    path = transactions.write_file(table.slice(0, 0), tmp_path / "none.csv")
    with pytest.raises(BadInput, match="there are no transactions"):
        plan(discover(str(path), config.dataset), config, None)


def test_a_missing_column_is_named_with_its_key_and_what_is_close(data: Path) -> None:
    config = with_dataset(amount="TX_AMONT", categorical=("MCC", "CHANNEL"))
    windows = plan(source_at(data), config, None)
    with pytest.raises(
        BadInput, match=r"no column 'TX_AMONT'; perhaps dataset\.amount should be TX_AMOUNT"
    ):
        check_columns(source_at(data), windows, config.dataset)
    config = with_dataset(categorical=("MCC", "ZZZ"))
    with pytest.raises(BadInput, match=r"'ZZZ'; set dataset\.categorical to one of TRANSACTION_ID"):
        check_columns(source_at(data), windows, config.dataset)


def test_columns_are_checked_in_the_files_of_the_windows_only(data: Path, table: pa.Table) -> None:
    config = with_windows(train_days=1, eval_days=1)
    as_of = AS_OF - timedelta(days=2)
    windows = plan(source_at(data), config, as_of)
    transactions.write_file(table.select(["TX_DATETIME"]), day_file(data, AS_OF))
    assert "MCC" in check_columns(source_at(data), windows, config.dataset)


def test_keys_are_text_as_soon_as_one_file_has_text(data: Path, table: pa.Table) -> None:
    windows = plan(source_at(data), CONFIG, None)
    assert check_columns(source_at(data), windows, CONFIG.dataset)["CUSTOMER_ID"] == pa.int64()
    path = day_file(data)
    rows = transactions.by_day(table)[source_at(data).days[4]]
    transactions.write_file(transactions.replaced(rows, "CUSTOMER_ID", 0, "C17"), path)
    assert check_columns(source_at(data), windows, CONFIG.dataset)["CUSTOMER_ID"] == pa.string()


def test_the_fingerprint_is_of_the_files_of_the_windows(data: Path, table: pa.Table) -> None:
    config = with_windows(train_days=1, eval_days=1)
    as_of = AS_OF - timedelta(days=2)

    def fingerprint() -> str:
        return plan_ingestion(str(data), config, as_of).fingerprint

    first = fingerprint()
    transactions.write_file(table.slice(0, 5), day_file(data, AS_OF))
    assert fingerprint() == first
    path = day_file(data, as_of)
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content)
    assert fingerprint() == first
    path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fingerprint() != first
    path.write_bytes(content)
    assert fingerprint() == first
    planned = plan_ingestion(str(data), config, as_of)
    assert planned.contents == tuple(content_id(file) for file in planned.files)


@pytest.mark.parametrize("key", ["ETag", "etag", "generation"])
def test_the_fingerprint_of_objects_needs_only_their_headers(
    data: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Their times lack fractions of a second, and reading them twice would cost too much."""
    version = b"1"

    class Object:
        def metadata(self) -> dict[str, bytes]:
            return {key: version, "Content-Length": b"7"}

    class Store:
        def open_input_file(self, path: str) -> Object:
            return Object()

    file = source_at(data).all_files[0]
    monkeypatch.setattr(reader, "filesystem", lambda path: (Store(), path))
    first = content_id(file)
    assert content_id(file) == first
    version = b"2"
    assert content_id(file) != first
    key = "Content-Type"  # a store without versions
    assert content_id(file) == str(file.modified)


@pytest.mark.parametrize("name", ["count_rows", "content_id"])
def test_several_files_are_looked_at_at_a_time(
    data: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Each waits for another one, which never comes if they take turns."""
    module = reader if name == "count_rows" else source_module
    look, two = getattr(module, name), threading.Barrier(2)

    def with_another(file: File) -> object:
        two.wait(timeout=30)
        return look(file)

    expected = plan_ingestion(str(data), CONFIG, AS_OF)
    assert len(expected.files) % 2 == 0
    monkeypatch.setattr(module, name, with_another)
    assert plan_ingestion(str(data), CONFIG, AS_OF) == expected


def test_the_first_of_several_damaged_files_is_named(data: Path) -> None:
    for day in (AS_OF, AS_OF - timedelta(days=3), AS_OF - timedelta(days=1)):
        day_file(data, day).write_bytes(b"no Parquet")
    with pytest.raises(BadInput, match=f"^date={AS_OF - timedelta(days=3)}/"):
        plan_ingestion(str(data), CONFIG, AS_OF)


def test_looking_at_the_data_imports_nothing_heavy(data: Path) -> None:
    code = f"""
import sys
from fraud.pipeline.config import Config
from tests.pipeline.ingestion.transactions import CONFIG
from fraud.pipeline.ingestion.source import *
source = discover({str(data)!r}, CONFIG.dataset)
check_columns(source, plan(source, CONFIG, None), CONFIG.dataset)
heavy = ["tfx", "tensorflow", "apache_beam", "tfx_bsl", "pandas"]
print([name for name in heavy if name in sys.modules])
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout == "[]\n", shown.stderr

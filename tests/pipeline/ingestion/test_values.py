"""Identifiers and times keep their meaning, whatever form the files give them."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import parquet

from fraud.errors import BadInput
from fraud.features import values
from fraud.pipeline.ingestion import reader
from fraud.pipeline.ingestion.source import discover
from tests.pipeline.ingestion import transactions
from tests.pipeline.ingestion.transactions import CONFIG, FIRST_DAY, day_file, replaced

SUFFIXES = pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])


@pytest.fixture
def table() -> pa.Table:
    return transactions.make()


def customers(data: Path) -> pa.ChunkedArray:
    return transactions.read(data)["CUSTOMER_ID"]


def as_csv(table: pa.Table, folder: Path, spell: dict[int, str], suffix: str = ".csv") -> Path:
    """Day folders whose first customers, of row 0, 1, … of one day, are spelled otherwise."""
    transactions.write_days(table, folder, suffix)
    path = day_file(folder)
    rows = transactions.by_day(table)[
        next(d for d in transactions.by_day(table) if str(d) in str(path))
    ]
    for row, text in spell.items():
        rows = replaced(rows, "CUSTOMER_ID", row, text)
    transactions.write_file(rows, path)
    return folder


@SUFFIXES
def test_leading_zeros_distinguish_identifiers(
    tmp_path: Path, table: pa.Table, suffix: str
) -> None:
    spelled = {0: "00123", 1: "123", 2: "0123"}
    found = customers(as_csv(table, tmp_path, spelled, suffix))
    assert found.type == pa.string()
    assert {"00123", "123", "0123"} <= set(found.to_pylist())


@pytest.mark.parametrize(
    "text",
    ["1.5", "1e5", "+1", "0x1F", "-0", "123456789012345678901234567890", "9223372036854775808"],
)
def test_what_is_no_plain_whole_number_is_text(tmp_path: Path, table: pa.Table, text: str) -> None:
    found = customers(as_csv(table, tmp_path, {0: text}))
    assert found.type == pa.string() and text in found.to_pylist()


def test_a_leading_zero_far_into_a_file_counts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LONGEST_LINE", 1 << 16)  # many batches
    found = customers(as_csv(transactions.make(60_000), tmp_path, {4_000: "007"}))
    assert day_file(tmp_path).stat().st_size > 4 * (1 << 16)
    assert found.type == pa.string() and "007" in found.to_pylist()


def test_plain_whole_numbers_stay_numbers(tmp_path: Path, table: pa.Table) -> None:
    spelled = {0: " 7", 1: "7.0", 2: "-7", 3: "1234567890123456789", 4: "0"}
    found = customers(as_csv(table, tmp_path, spelled))
    assert found.type == pa.int64()
    assert {-7, 7, 1234567890123456789, 0} <= set(found.to_pylist())
    assert transactions.read(tmp_path)["TERMINAL_ID"].type == pa.int64()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_entity_that_is_also_a_category_is_text(
    tmp_path: Path, table: pa.Table, suffix: str
) -> None:
    transactions.write_days(table, tmp_path, suffix)
    dataset = replace(CONFIG.dataset, categorical=("TERMINAL_ID",))
    found = transactions.read(tmp_path, replace(CONFIG, dataset=dataset))
    assert found["TERMINAL_ID"].type == pa.string()
    assert found["CUSTOMER_ID"].type == pa.int64()
    as_numbers = transactions.read(tmp_path)["TERMINAL_ID"]
    assert sorted(found["TERMINAL_ID"].cast(pa.int64()).to_pylist()) == sorted(
        as_numbers.to_pylist()
    )


def test_numbers_in_parquet_are_spelled_as_in_the_csv_next_to_them(
    tmp_path: Path, table: pa.Table
) -> None:
    """Floats are how pandas stores whole numbers where one is missing."""
    index = table.schema.get_field_index("CUSTOMER_ID")
    plain = pc.add(table["CUSTOMER_ID"], 10**15)
    table = table.set_column(index, "CUSTOMER_ID", plain)
    as_csv(table, tmp_path, {0: "007"})
    days = list(transactions.by_day(table))
    for day, type_ in ((days[-1], pa.int64()), (days[-2], pa.float64())):
        path = day_file(tmp_path, day)
        rows = transactions.by_day(table)[day]
        rows = rows.set_column(index, "CUSTOMER_ID", rows["CUSTOMER_ID"].cast(type_))
        transactions.write_file(rows, path.with_suffix(".parquet"))
        path.unlink()
    path = day_file(tmp_path, days[-3])
    floats = re.sub(r",(10{12}\d{3}),", r",\1.0,", path.read_text())
    assert floats != path.read_text()
    path.write_text(floats)
    found = customers(tmp_path).to_pylist()
    assert set(found) == {"007"} | {str(value) for value in plain.to_pylist()}


def test_whole_numbers_as_text_in_parquet_are_spelled_as_in_csv(
    tmp_path: Path, table: pa.Table
) -> None:
    """As the server spells them, which cannot know where a client read them."""
    transactions.write_days(table, tmp_path)
    path = day_file(tmp_path)
    rows = parquet.read_table(path)
    index = rows.schema.get_field_index("CUSTOMER_ID")
    texts = ["4711.0", " 4712", *map(str, range(10, 8 + rows.num_rows))]
    parquet.write_table(rows.set_column(index, "CUSTOMER_ID", pa.array(texts)), path)
    found = customers(tmp_path)
    assert found.type == pa.string() and {"4711", "4712"} <= set(found.to_pylist())


def test_floats_that_have_lost_digits_are_no_identifiers(tmp_path: Path, table: pa.Table) -> None:
    transactions.write_days(table, tmp_path)
    path = day_file(tmp_path)
    rows = parquet.read_table(path)
    index = rows.schema.get_field_index("CUSTOMER_ID")
    rows = rows.set_column(index, "CUSTOMER_ID", rows["CUSTOMER_ID"].cast(pa.float64()))
    parquet.write_table(replaced(rows, "CUSTOMER_ID", 3, 2.0**53 + 2), path)
    with pytest.raises(
        BadInput, match=r"row 4: CUSTOMER_ID is .*more digits.*whole number or text"
    ):
        transactions.read(tmp_path)


@pytest.mark.parametrize("digits", [12, 30])
def test_decimals_are_the_numbers_that_a_client_would_send(digits: int) -> None:
    """To the last bit, so that a transaction that is sent again is recognised."""
    amounts = [Decimal(cents).scaleb(-2) for cents in range(-3000, 100_000, 7)]
    if digits == 30:
        amounts.append(Decimal("123456789.123456789012345678"))
    given = pa.array([None, *amounts], pa.decimal128(digits, 2 if digits == 12 else 18))
    for part in (given, given.slice(1), given.slice(0, 0)):
        found = values.numbers(part, 1e9, "AMOUNT", Nowhere())
        assert found.to_pylist() == [v if v is None else float(v) for v in part.to_pylist()]


def test_decimals_are_names_as_numbers_are(tmp_path: Path, table: pa.Table) -> None:
    """Databases hand out identifiers as decimals without a fraction."""
    index = table.schema.get_field_index("CUSTOMER_ID")
    decimals = table["CUSTOMER_ID"].cast(pa.decimal128(38, 0))
    transactions.write_days(table.set_column(index, "CUSTOMER_ID", decimals), tmp_path)
    found = customers(tmp_path)
    assert sorted(found.to_pylist()) == sorted(map(str, table["CUSTOMER_ID"].to_pylist()))
    rates = pa.array([Decimal("5.50"), None, Decimal("-7.00"), Decimal("120.00")])
    names = values.names(rates, pa.string(), False, "RATE", Nowhere())
    assert names.to_pylist() == ["5.5", None, "-7", "120"]
    huge = pa.array([Decimal(10**37 + 1)], pa.decimal128(38, 0))
    assert values.names(huge, pa.string(), False, "ID", Nowhere()).to_pylist() == [str(10**37 + 1)]


class Nowhere:
    def refuse(self, row: int, problem: str) -> NoReturn:
        raise BadInput(problem)


def test_unsigned_numbers_beyond_63_bits_are_text(tmp_path: Path, table: pa.Table) -> None:
    transactions.write_days(table, tmp_path)
    path = day_file(tmp_path)
    rows = parquet.read_table(path)
    index = rows.schema.get_field_index("CUSTOMER_ID")
    hashes = pa.array(np.full(rows.num_rows, 2**64 - 1, np.uint64))
    parquet.write_table(rows.set_column(index, "CUSTOMER_ID", hashes), path)
    assert str(2**64 - 1) in customers(tmp_path).to_pylist()


@pytest.mark.parametrize("per_second", [1, 10**3, 10**6, 10**9])
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_the_unit_of_times_as_numbers_is_told_by_their_size(
    tmp_path: Path, table: pa.Table, per_second: int, suffix: str
) -> None:
    index = table.schema.get_field_index("TX_DATETIME")
    seconds = pc.divide(table["TX_DATETIME"].cast(pa.int64()), 10**6)
    numbers = pc.multiply(seconds, per_second)
    path = transactions.write_file(
        table.set_column(index, "TX_DATETIME", numbers), tmp_path / f"all{suffix}"
    )
    days = tuple(transactions.by_day(table))
    assert discover(str(path), CONFIG.dataset).days == days
    assert transactions.read(path)["TX_DATETIME"][0] == pa.scalar(
        min(t for t in table["TX_DATETIME"].to_pylist() if t.date() >= FIRST_DAY),
        pa.timestamp("us"),
    )


@pytest.mark.parametrize("value", [20180401134500, 10**11 - 1, -(10**14) + 1, 2**63 - 1])
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_number_that_is_no_time_in_any_unit_is_refused(
    tmp_path: Path, table: pa.Table, value: int, suffix: str
) -> None:
    index = table.schema.get_field_index("TX_DATETIME")
    seconds = pc.divide(table["TX_DATETIME"].cast(pa.int64()), 10**6)
    numbers = replaced(table.set_column(index, "TX_DATETIME", seconds), "TX_DATETIME", 2, value)
    path = transactions.write_file(numbers, tmp_path / f"all{suffix}")
    with pytest.raises(BadInput, match=rf"(line 4|row 3): TX_DATETIME is '?{value}'?, not a time"):
        discover(str(path), CONFIG.dataset)


def test_a_stored_time_beyond_the_calendar_is_refused(tmp_path: Path, table: pa.Table) -> None:
    """Milliseconds that some program took for seconds."""
    index = table.schema.get_field_index("TX_DATETIME")
    far = pc.multiply(table["TX_DATETIME"].cast(pa.int64()), 1000).cast(pa.timestamp("us"))
    path = transactions.write_file(
        table.set_column(index, "TX_DATETIME", far), tmp_path / "all.parquet"
    )
    with pytest.raises(BadInput, match=r"row 1: TX_DATETIME is beyond the year 9999, not a time"):
        discover(str(path), CONFIG.dataset)


@pytest.mark.parametrize("nanoseconds", ["", ".123456789"])
def test_a_last_day_of_the_calendar_does_not_wrap_around(
    tmp_path: Path, table: pa.Table, nanoseconds: str
) -> None:
    table = replaced(table, "TX_DATETIME", 1, f"{FIRST_DAY} 00:00:00{nanoseconds}")
    path = transactions.write_file(
        replaced(table, "TX_DATETIME", 2, "9999-12-31 00:00:00"), tmp_path / "all.csv"
    )
    assert discover(str(path), CONFIG.dataset).days[-1] == datetime(9999, 12, 31).date()

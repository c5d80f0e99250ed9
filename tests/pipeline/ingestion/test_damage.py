"""Damaged input: one message that names file, place and fix; nothing is published."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fraud.errors import BadInput
from tests.pipeline.ingestion import transactions
from tests.pipeline.ingestion.transactions import AS_OF, day_file, ingest, read, replaced

DAY = AS_OF - timedelta(days=7)
NEXT_DAY = DAY + timedelta(days=1)
FILE = rf"date={DAY}/transactions\.(parquet|csv|csv\.gz)"

Damage = Callable[[Path, pa.Table], None]
Case = tuple[str, tuple[str, ...], Damage, str]
"""Name, kinds of files, damage to one file, what the message must say."""


def with_value(column: str, value: object, row: int = 3) -> Damage:
    def damage(path: Path, table: pa.Table) -> None:
        transactions.write_file(replaced(table, column, row, value), path)

    return damage


def with_text(change: Callable[[list[str]], list[str]]) -> Damage:
    def damage(path: Path, table: pa.Table) -> None:
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(change(lines)))

    return damage


def with_bytes(change: Callable[[bytes], bytes]) -> Damage:
    def damage(path: Path, table: pa.Table) -> None:
        path.write_bytes(change(path.read_bytes()))

    return damage


def without_column(path: Path, table: pa.Table) -> None:
    transactions.write_file(table.rename_columns([
        "CUSTOMER" if name == "CUSTOMER_ID" else name for name in table.column_names
    ]), path)  # fmt: skip


def broken_pages(data: bytes) -> bytes:
    return data[:200] + bytes(400) + data[600:]


def other_day(path: Path, table: pa.Table) -> None:
    time = table["TX_DATETIME"].to_pylist()
    time[3] += timedelta(days=1)
    index = table.schema.get_field_index("TX_DATETIME")
    transactions.write_file(table.set_column(index, "TX_DATETIME", pa.array(time)), path)


def repeated_id(path: Path, table: pa.Table) -> None:
    """The id of a row of the next day."""
    other = transactions.by_day(transactions.make())[NEXT_DAY]
    value = other["TRANSACTION_ID"][5].as_py()
    transactions.write_file(replaced(table, "TRANSACTION_ID", 3, value), path)


def header_only(path: Path, table: pa.Table) -> None:
    transactions.write_file(table.slice(0, 0), path)


def with_long_row(data: bytes) -> bytes:
    return data + b"9" * 10_000_000 + b"\n"


ANY = (".parquet", ".csv")

CASES: list[Case] = [
    (
        "missing column",
        ANY,
        without_column,
        r"no column 'CUSTOMER_ID'.*dataset\.entities.*CUSTOMER",
    ),
    (
        "text in a number",
        (".csv",),
        with_value("TX_AMOUNT", "12,50"),
        "line 5: TX_AMOUNT is '12,50', not a number",
    ),
    (
        "text in an optional number",
        (".csv",),
        with_value("AGE", "old"),
        "line 5: AGE is 'old', not a number",
    ),
    (
        "numbers stored as text",
        (".parquet",),
        with_value("TX_AMOUNT", "x"),
        r"TX_AMOUNT \(dataset\.amount\) holds .*numbers",
    ),
    (
        "fraction in a key",
        (".parquet",),
        with_value("CUSTOMER_ID", 1.5),
        "row 4: CUSTOMER_ID is 1.5, not a whole number",
    ),
    (
        "truncated",
        (".parquet",),
        with_bytes(lambda b: b[: len(b) // 2]),
        "damaged or not Parquet.*write the file again",
    ),
    (
        "damaged pages",
        (".parquet",),
        with_bytes(broken_pages),
        "damaged or not Parquet.*write the file again",
    ),
    (
        "not Parquet",
        (".parquet",),
        with_bytes(lambda b: b"hello\n" * 100),
        "damaged or not Parquet",
    ),
    (
        "truncated",
        (".csv.gz",),
        with_bytes(lambda b: b[: len(b) // 2]),
        "damaged or not gzipped CSV",
    ),
    (
        "corrupt",
        (".csv.gz",),
        with_bytes(lambda b: b[:100] + b"\0" * 8 + b[108:]),
        "damaged or not gzipped CSV|is .*, not a|fields, but",
    ),
    ("not gzip", (".csv.gz",), with_bytes(gzip.decompress), "damaged or not gzipped CSV"),
    ("zero bytes", ANY, with_bytes(lambda b: b""), r"the file is empty \(0 bytes\)"),
    ("no header", (".csv",), with_bytes(lambda b: b"\n"), "no header line"),
    (
        "twice in the header",
        (".csv",),
        with_text(lambda ls: [ls[0].replace("NOTE", "TX_AMOUNT"), *ls[1:]]),
        "2 columns 'TX_AMOUNT'",
    ),
    (
        "other separator",
        (".csv",),
        with_text(lambda ls: [line.replace(",", ";") for line in ls]),
        "dataset.csv_delimiter",
    ),
    (
        "missing field",
        (".csv",),
        with_text(lambda ls: [*ls[:4], "1,2,3\n", *ls[4:]]),
        "line 5: 3 fields, but the header has 10",
    ),
    (
        "one line of 10 MB",
        (".csv",),
        with_bytes(lambda b: b"9" * 10_000_000),
        "no end of line within the first 1 MB",
    ),
    ("a row of 10 MB", (".csv",), with_bytes(with_long_row), "a line is longer than 1 MB"),
    (
        "not UTF-8",
        (".csv",),
        with_bytes(lambda b: b.replace(b'"CH"', b'"C\xe9"')),
        r"line \d+: COUNTRY is not UTF-8",
    ),
    (
        "UTF-16",
        (".csv",),
        with_bytes(lambda b: b.decode().encode("utf-16")),
        "this is UTF-16; write the file as UTF-8",
    ),
    (
        "no rows",
        ANY,
        header_only,
        rf"no transactions on {DAY} in the train window.*max_empty_days from 0 to 1",
    ),
    (
        "id missing",
        ANY,
        with_value("TRANSACTION_ID", None),
        r"(row 4|line 5): TRANSACTION_ID is empty.*dataset\.id",
    ),
    (
        "label 2",
        ANY,
        with_value("TX_FRAUD", 2),
        r"(row 4|line 5): TX_FRAUD is '?2'?; it must be 1 \(fraud\) or 0 \(genuine\)",
    ),
    (
        "label a word",
        (".csv",),
        with_value("TX_FRAUD", "yes"),
        "line 5: TX_FRAUD is 'yes'; it must be 1",
    ),
    (
        "label .5",
        (".parquet",),
        with_value("TX_FRAUD", 0.5),
        r"row 4: TX_FRAUD is 0\.5; it must be 1",
    ),
    (
        "label missing",
        ANY,
        with_value("TX_FRAUD", None),
        "(row 4|line 5): TX_FRAUD is empty; it must be 1",
    ),
    ("time missing", ANY, with_value("TX_DATETIME", None), "(row 4|line 5): TX_DATETIME is empty"),
    (
        "time unreadable",
        (".csv",),
        with_value("TX_DATETIME", "noon"),
        "line 5: TX_DATETIME is 'noon', not a time; write times as",
    ),
    (
        "times with and without zone",
        (".csv",),
        with_value("TX_DATETIME", f"{DAY} 12:00:00Z"),
        "line 5: TX_DATETIME is '.*Z', not a time; write times as",
    ),
    (
        "time of another day",
        ANY,
        other_day,
        rf"(row 4|line 5): TX_DATETIME is {NEXT_DAY}.*but its folder is for {DAY}",
    ),
    (
        "entity missing",
        ANY,
        with_value("TERMINAL_ID", None),
        r"(row 4|line 5): TERMINAL_ID is empty.*dataset\.entities",
    ),
    (
        "amount infinite",
        ANY,
        with_value("TX_AMOUNT", float("inf")),
        "(row 4|line 5): TX_AMOUNT is inf, beyond",
    ),
    (
        "amount beyond sums",
        ANY,
        with_value("TX_AMOUNT", -1e12),
        r"(row 4|line 5): TX_AMOUNT is -1e\+12, beyond ±1e\+09",
    ),
    (
        "number infinite",
        (".parquet",),
        with_value("AGE", float("-inf")),
        "row 4: AGE is -inf, beyond",
    ),
]


def damaged(folder: Path, suffix: str, damage: Damage) -> Path:
    table = transactions.make()
    data = transactions.write_days(table, folder / "data", suffix)
    damage(day_file(data), transactions.by_day(table)[DAY])
    return data


def as_parameters(cases: list[Any]) -> list[Any]:
    return [
        pytest.param(suffix, damage, message, id=f"{name}{suffix}")
        for name, suffixes, damage, message in cases
        for suffix in suffixes
    ]


@pytest.mark.parametrize(("suffix", "damage", "message"), as_parameters(CASES))
def test_damage_is_one_clear_message(
    tmp_path: Path, suffix: str, damage: Damage, message: str
) -> None:
    data = damaged(tmp_path, suffix, damage)
    with pytest.raises(BadInput, match=message) as raised:
        read(data)
    text = str(raised.value)
    assert re.search(FILE, text) or str(data) in text, text
    assert len(text) < 400 and "\n" not in text


THROUGH_BEAM: list[Case] = [
    (
        "id in another file",
        ANY,
        repeated_id,
        rf"TRANSACTION_ID \d+ was already in date={DAY}/.*, (row 4|line 5); remove one",
    ),
    (
        "id twice in a file",
        (".parquet",),
        lambda p, t: transactions.write_file(pa.concat_tables([t, t.slice(0, 1)]), p),
        r"row \d+: TRANSACTION_ID \d+ was already in .*, row 1;",
    ),
    ("label 2", ANY, with_value("TX_FRAUD", 2), r"(row 4|line 5): TX_FRAUD is"),
]


@pytest.mark.parametrize(("suffix", "damage", "message"), as_parameters(THROUGH_BEAM))
def test_the_message_of_a_worker_arrives_as_it_is(
    tmp_path: Path, suffix: str, damage: Damage, message: str
) -> None:
    data = damaged(tmp_path, suffix, damage)
    with pytest.raises(BadInput, match=rf"{message}") as raised:
        ingest(data, tmp_path)
    assert re.match(FILE.replace(str(DAY), r"\S+"), str(raised.value))
    assert "Traceback" not in str(raised.value) and "running" not in str(raised.value)

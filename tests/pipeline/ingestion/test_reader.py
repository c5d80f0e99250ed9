"""The same transactions, stored in different formats and types."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import parquet

from fraud.pipeline.ingestion import reader
from tests.pipeline.ingestion import transactions
from tests.pipeline.ingestion.transactions import AS_OF, read

Change = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return transactions.make(300)


@pytest.fixture(scope="module")
def plain(table: pa.Table) -> pa.Table:
    with tempfile.TemporaryDirectory() as folder:
        return read(transactions.write_file(table, Path(folder) / "all.parquet"))


def test_values_keep_their_meaning(table: pa.Table, plain: pa.Table) -> None:
    known = pc.less_equal(pc.cast(table["TX_DATETIME"], pa.date32()), AS_OF - timedelta(days=2))
    assert plain["TX_FRAUD"].to_pylist() == pc.if_else(known, table["TX_FRAUD"], None).to_pylist()
    for name in ("TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT"):
        assert plain[name].to_pylist() == table[name].to_pylist()
    assert plain["AGE"].to_pylist() == table["AGE"].cast(pa.float64()).to_pylist()
    assert plain["MCC"].to_pylist() == [str(code) for code in table["MCC"].to_pylist()]
    assert plain["COUNTRY"].to_pylist() == table["COUNTRY"].to_pylist()


CSV_FORMS: dict[str, Change] = {
    "as pyarrow writes it": lambda data: data,
    "with byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "with CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "without last end of line": lambda data: data.rstrip(b"\n"),
    "with empty lines": lambda data: data.replace(b"\n", b"\n\n"),
    "everything quoted": lambda data: b"\n".join(
        b'"' + line.replace(b'"', b"").replace(b"a, b", b"a; b").replace(b",", b'","') + b'"'
        for line in data.splitlines()
    ),
    "line breaks in a quoted field": lambda data: data.replace(b'"unused"', b'"two\nlines"'),
    "numbers missing in words": lambda data: data.replace(b",,", b",NaN,"),
    "two gzip members": lambda data: data,
}


@pytest.mark.parametrize("form", CSV_FORMS)
def test_csv_reads_as_parquet_does(
    tmp_path: Path, table: pa.Table, plain: pa.Table, form: str
) -> None:
    path = transactions.write_file(table, tmp_path / "all.csv")
    data = CSV_FORMS[form](path.read_bytes())
    path.write_bytes(data)
    if form == "two gzip members":
        path = tmp_path / "packed.csv.gz"
        path.write_bytes(gzip.compress(data[:5000]) + gzip.compress(data[5000:]))
    rows_read = read(path)
    if form == "everything quoted":
        rows_read = rows_read.drop(["COUNTRY"])
        plain = plain.drop(["COUNTRY"])
    assert rows_read.equals(plain)


@pytest.mark.parametrize(
    "form",
    ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%SZ", "%Y-%m-%dT%H:%M:%S+00:00", " %Y-%m-%d %H:%M:%S ",
     "%s"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_times_may_be_written_in_many_ways(
    tmp_path: Path, table: pa.Table, plain: pa.Table, form: str, suffix: str
) -> None:
    def written(time: datetime) -> str:
        seconds = (time - datetime(1970, 1, 1)).total_seconds()
        return time.strftime(form.replace("%s", f"{seconds:.0f}"))

    text = pa.array([written(time) for time in table["TX_DATETIME"].to_pylist()])
    index = table.schema.get_field_index("TX_DATETIME")
    path = transactions.write_file(
        table.set_column(index, "TX_DATETIME", text), tmp_path / f"all{suffix}"
    )
    assert read(path).equals(plain)


@pytest.mark.parametrize(
    "type_",
    [pa.timestamp("ns"), pa.timestamp("ms"), pa.timestamp("us", "Europe/Zurich"), pa.int64()],
)
def test_times_may_be_stored_in_many_types(
    tmp_path: Path, table: pa.Table, plain: pa.Table, type_: pa.DataType
) -> None:
    index = table.schema.get_field_index("TX_DATETIME")
    time = table["TX_DATETIME"].cast(pa.timestamp("s") if type_ == pa.int64() else type_)
    stored = table.set_column(index, "TX_DATETIME", time.cast(type_))
    path = tmp_path / "all.parquet"
    parquet.write_table(stored, path, version="2.6")
    assert read(path).equals(plain)


def test_numbers_and_names_may_be_stored_in_many_types(
    tmp_path: Path, table: pa.Table, plain: pa.Table
) -> None:
    other = {
        "TRANSACTION_ID": table["TRANSACTION_ID"].cast(pa.int32()),
        "CUSTOMER_ID": table["CUSTOMER_ID"].cast(pa.float64()),
        "TERMINAL_ID": table["TERMINAL_ID"].cast(pa.int16()),
        "AGE": table["AGE"].cast(pa.float32()),
        "MCC": table["MCC"].cast(pa.string()).dictionary_encode(),
        "COUNTRY": table["COUNTRY"].cast(pa.large_string()),
        "TX_FRAUD": table["TX_FRAUD"].cast(pa.bool_()),
    }
    for name, column in other.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    assert read(transactions.write_file(table, tmp_path / "all.parquet")).equals(plain)


def test_empty_text_and_nan_are_missing(tmp_path: Path, table: pa.Table) -> None:
    for column, value in (("COUNTRY", ""), ("TX_AMOUNT", float("nan")), ("MCC", None)):
        table = transactions.replaced(table, column, 0, value)
    for suffix in (".parquet", ".csv"):
        row = read(transactions.write_file(table, tmp_path / f"all{suffix}")).slice(0, 1)
        assert row.select(["COUNTRY", "TX_AMOUNT", "MCC"]).to_pylist() == [
            {"COUNTRY": None, "TX_AMOUNT": None, "MCC": None}
        ]


def test_batches_are_small_and_know_where_they_begin(tmp_path: Path) -> None:
    rows = 3 * reader.BATCH_ROWS + 5
    table = pa.table({"number": np.arange(rows)})
    for suffix in (".parquet", ".csv"):
        path = transactions.write_file(table, tmp_path / f"all{suffix}")
        file = reader.File(str(path), path.name, path.stat().st_size, 0)
        seen = 0
        for first, batch in reader.read(file, {"number": pa.int64()}):
            assert first == seen and 0 < batch.num_rows <= reader.BATCH_ROWS
            assert batch.column(0)[0].as_py() == first
            seen += batch.num_rows
        assert seen == rows


def test_rows_are_counted(tmp_path: Path, table: pa.Table) -> None:
    for suffix, tolerance in ((".parquet", 0), (".csv", 0), (".csv.gz", 0.5)):
        path = transactions.write_file(table, tmp_path / f"all{suffix}")
        file = reader.File(str(path), path.name, path.stat().st_size, 0)
        assert reader.count_rows(file) == pytest.approx(300, rel=tolerance)
        empty = transactions.write_file(table.slice(0, 0), tmp_path / f"none{suffix}")
        assert reader.count_rows(reader.File(str(empty), "none", empty.stat().st_size, 0)) == 0


def test_a_line_is_the_one_an_editor_shows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,"x\ny"\n\n2,z\n')
    file = reader.File(str(path), "a.csv", path.stat().st_size, 0)
    assert [reader.place(file, row) for row in (0, 1)] == ["line 3", "line 5"]

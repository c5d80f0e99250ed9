"""Files written in other ways: delimiters, decimals, encodings, times, labels."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from fraud.errors import BadInput
from fraud.features.spec import Dataset
from fraud.pipeline.ingestion import reader, values
from fraud.pipeline.ingestion.source import check_columns, discover
from fraud.pipeline.windows import Window, Windows

GERMAN = Dataset(
    timestamp="Buchung",
    amount="Betrag",
    label="Betrug",
    id=None,
    entities=("Händler",),
    time_format="%d.%m.%Y %H:%M",
    label_values=("nein", "ja"),
    csv_delimiter=";",
    csv_decimal=",",
    csv_encoding="cp1252",
)
ROWS = [
    ("03.01.2026 10:30", "1234,56", "ja", "00017"),
    ("04.01.2026 00:00", "7,5", " nein", "Müller; Söhne"),
]


def read(path, dataset):
    """The cleaned rows of a file, all of whose days are in eval."""
    source = discover(str(path), dataset)
    day = Window(date(1970, 1, 1), date(2030, 1, 1))
    windows = Windows(day.last, None, day, day, None) if dataset.timestamp else None
    layout = values.Layout(dataset, check_columns(source, windows, dataset), windows)
    (file,) = source.all_files
    batches = []
    for first, raw in reader.read(file, layout.to_read(file)):
        origins = values.RowOrigins(file, np.arange(first, first + raw.num_rows))
        batches.append(values.clean(raw, origins, layout)[1])
    return pa.Table.from_batches(batches), source


def write(path, rows=ROWS, encoding="cp1252"):
    lines = ["Buchung;Betrag;Betrug;Händler"]
    lines += [";".join(f'"{cell}"' if ";" in cell else cell for cell in row) for row in rows]
    path.write_bytes("\n".join([*lines, ""]).encode(encoding))
    return path


def test_a_semicolon_file_with_german_dates_numbers_labels_and_names(tmp_path):
    table, source = read(write(tmp_path / "a.csv"), GERMAN)
    assert source.days == (date(2026, 1, 3), date(2026, 1, 4))
    assert [str(t) for t in table["Buchung"].to_pylist()] == [
        "2026-01-03 10:30:00",
        "2026-01-04 00:00:00",
    ]
    assert table["Betrag"].to_pylist() == [1234.56, 7.5]
    assert table["Betrug"].to_pylist() == [1, 0]
    assert table["Händler"].to_pylist() == ["00017", "Müller; Söhne"]


def test_large_files_in_other_encodings_are_read_to_the_end(tmp_path):
    path = write(tmp_path / "a.csv", [(*ROWS[0][:3], f"Müller {i}") for i in range(20_000)])
    table, _ = read(path, GERMAN)
    assert table.num_rows == 20_000 and table["Händler"][-1].as_py() == "Müller 19999"
    # Arrow's own decoding had a race: one in ten of these never ended.
    look = """
import sys
from fraud.pipeline.ingestion import reader
format_ = reader.CsvFormat(";", ",", "cp1252")
file = reader.File(sys.argv[1], "a.csv", 1_000_000, 0, csv=format_)
for _ in range(60):
    assert reader.schema(file).names[-1] == "Händler"
"""
    subprocess.run([sys.executable, "-c", look, str(path)], check=True, timeout=60)


def test_bytes_that_an_encoding_does_not_know_are_named(tmp_path):
    path = write(tmp_path / "a.csv")
    path.write_bytes(path.read_bytes() + b"05.01.2026 00:00;1;nein;\x81\n")
    with pytest.raises(BadInput, match=r"a\.csv: byte 0x81 is no text in cp1252; .*csv_encoding"):
        read(path, GERMAN)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, "2026-01-05", "Buchung is '2026-01-05', not written as dataset.time_format, %d.%m.%Y"),
        (0, "", "Buchung is empty"),
        (1, "1.234,56", "Betrag is '1.234,56', not a number"),
        (2, "vielleicht", "Betrug is 'vielleicht'; it must be ja (fraud) or nein (genuine)"),
    ],
)
def test_a_value_of_another_form_is_named_with_its_line(tmp_path, column, value, message):
    bad = list(ROWS[1])
    bad[column] = value
    with pytest.raises(BadInput) as error:
        read(write(tmp_path / "a.csv", [ROWS[0], tuple(bad)]), GERMAN)
    assert "a.csv, line 3: " in str(error.value) and message in str(error.value)


@pytest.mark.parametrize(
    ("unit", "steps", "times"),
    [
        ("hours", "0\n25\n", ["1970-01-01 00:00:00", "1970-01-02 01:00:00"]),
        ("minutes", "1\n1.5\n", ["1970-01-01 00:01:00", "1970-01-01 00:01:30"]),
        ("days", "0\n31\n", ["1970-01-01 00:00:00", "1970-02-01 00:00:00"]),
    ],
)
def test_times_counted_from_the_beginning(tmp_path, unit, steps, times):
    path = tmp_path / "steps.csv"
    path.write_text("step,fraud\n" + steps.replace("\n", ",0\n"))
    dataset = Dataset("step", None, "fraud", None, (), time_format=unit)
    assert [str(t) for t in read(path, dataset)[0]["step"].to_pylist()] == times


def test_a_step_that_is_no_number_is_named(tmp_path):
    path = tmp_path / "steps.csv"
    path.write_text("step,fraud\n1,0\nx,0\n")
    with pytest.raises(BadInput, match=r"line 3: step is 'x', not written as .*, hours"):
        read(path, Dataset("step", None, "fraud", None, (), time_format="hours"))


def test_decimals_as_steps_and_labels(tmp_path):
    """Databases hand out whole numbers as decimals, which Arrow 10 does not cast to text."""
    decimals = pa.table({
        "step": pa.array([Decimal(0), Decimal(25)], pa.decimal128(38, 0)),
        "fraud": pa.array([Decimal("1.00"), Decimal("2.00")], pa.decimal128(5, 2)),
    })  # fmt: skip
    parquet.write_table(decimals, tmp_path / "a.parquet")
    dataset = Dataset("step", None, "fraud", None, (), time_format="hours", label_values=("1", "2"))
    table, source = read(tmp_path / "a.parquet", dataset)
    assert source.days == (date(1970, 1, 1), date(1970, 1, 2))
    assert table["fraud"].to_pylist() == [0, 1]

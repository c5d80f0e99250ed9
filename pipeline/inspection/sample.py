"""Reads a sample of data whose format is not known yet."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import math
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from fraud.errors import BadInput
from fraud.features.spec import Dataset
from fraud.features.values import texts
from fraud.pipeline.ingestion import reader
from fraud.pipeline.ingestion.source import discover

MOST_ROWS = 200_000
"""A larger table is sampled evenly."""

_DELIMITERS = ",;\t|"
_LINES = 100
_DECIMAL_COMMA = r"^\s*[-+]?\d+,\d+\s*$"
_NUMBER_OR_EMPTY = r"^\s*([-+]?\d+(,\d+)?)?\s*$"


@dataclass(frozen=True)
class Sample:
    """Some rows of all columns.

    Attributes:
      table: the rows in the order of the files; columns from CSV are text.
      rows: the number of rows of the whole data, estimated for CSV that is sampled.
      csv: how CSV files are written.
    """

    table: pa.Table
    rows: int
    csv: reader.CsvFormat


def read(data: str) -> Sample:
    """Reads a sample of a file or folder.

    Raises:
      BadInput: there are no files, or they cannot be read, or have no rows or one column only.
    """
    files = discover(data, Dataset(timestamp=None)).all_files
    of_csv = [file for file in files if not file.is_parquet]
    format_ = detect_format(of_csv[0]) if of_csv else reader.CsvFormat()
    files = tuple(dataclasses.replace(file, csv=format_) for file in files)
    names = reader.schema(files[0]).names
    for name in names:
        if names.count(name) > 1:
            raise BadInput(
                f"{files[0].name}: {names.count(name)} columns are called {name!r}; rename all but "
                "one"
            )
    for file in files:
        if lacking := [name for name in names if name not in reader.schema(file).names]:
            raise BadInput(
                f"{file.name}: no column {lacking[0]!r}, which {files[0].name} has; write all "
                "files with the same columns"
            )
    rows = sum(reader.count_rows(file) for file in files)
    if not rows:
        raise BadInput(f"{data}: there are no transactions")
    step = math.ceil(rows / MOST_ROWS)
    parts: list[pa.RecordBatch] = []
    number = 0
    for file in files:
        for _, batch in reader.read(file, dict.fromkeys(names, pa.string())):
            if number % step == 0:
                parts.append(batch)
            number += 1
    table = _joined(parts, names)
    if step == 1:
        rows = table.num_rows
    if not of_csv:
        return Sample(table.combine_chunks(), rows, format_)
    decimal: Literal[".", ","] = "."
    if format_.delimiter != "," and _has_decimal_commas(table):
        decimal = ","
    return Sample(table.combine_chunks(), rows, dataclasses.replace(format_, decimal=decimal))


def detect_format(file: reader.File) -> reader.CsvFormat:
    """Encoding and delimiter of a CSV file, by its beginning.

    Raises:
      BadInput: it has no header line, or no delimiter occurs in it.
    """
    block = reader.first_block(file)
    if b"\0" in block:
        raise BadInput(
            f"{file.name}: not text, or UTF-16 or UTF-32; write the file as UTF-8, or as Parquet"
        )
    encoding = "utf-8" if _is_utf8(file) else "cp1252"
    text = block.decode("utf-8-sig" if encoding == "utf-8" else encoding, errors="replace")
    lines = text.splitlines()[: _LINES + 1]
    if len(lines) > 1 and not text.endswith("\n") and len(lines) <= _LINES:
        lines = lines[:-1] or lines  # perhaps cut off
    best, most = ",", 1
    for delimiter in _DELIMITERS:
        rows = csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter)
        widths = {len(row) for row in rows if row}
        if len(widths) == 1 and max(widths) > most:
            best, most = delimiter, max(widths)
    if most == 1:  # fields with line breaks, or a line that is damaged: go by the header
        best = max(_DELIMITERS, key=lines[0].count)
        most = lines[0].count(best) + 1
    if most == 1:
        raise BadInput(
            f"{file.name}: the header is a single column, {lines[0][:40]!r}; separate fields by "
            "commas, semicolons, tabs or |"
        )
    return reader.CsvFormat(best, ".", encoding)


def _is_utf8(file: reader.File) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for block in reader.blocks(file):
            decoder.decode(block)
    except UnicodeDecodeError:
        return False
    return True


def _has_decimal_commas(table: pa.Table) -> bool:
    """Whether a column holds numbers with a decimal comma, and nothing else."""
    return any(
        pa.types.is_string(column.type)
        and pc.any(pc.match_substring_regex(column, _DECIMAL_COMMA)).as_py()
        and pc.all(pc.match_substring_regex(column, _NUMBER_OR_EMPTY)).as_py()
        for column in table.columns
    )


def _joined(parts: list[pa.RecordBatch], names: list[str]) -> pa.Table:
    """One table; columns whose types differ between files as numbers, or else as text."""
    columns = {}
    for name in names:
        arrays = [part.column(part.schema.get_field_index(name)) for part in parts]
        types = {array.type for array in arrays if not pa.types.is_null(array.type)}
        if len(types) > 1:
            are_numbers = all(map(_is_number, types))
            arrays = [a.cast(pa.float64()) if are_numbers else texts(a) for a in arrays]
        elif types:
            arrays = [a.cast(next(iter(types))) for a in arrays]
        columns[name] = pa.chunked_array(arrays)
    return pa.table(columns)


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)

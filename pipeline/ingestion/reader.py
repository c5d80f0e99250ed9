"""Reads one file of transactions, Parquet or CSV, as Arrow batches."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import functools
import io
import itertools
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, NoReturn

import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import fs as arrow_fs
from pyarrow import parquet

from fraud.errors import BadInput
from fraud.files import is_uri

SUFFIXES = (".parquet", ".csv", ".csv.gz")

BATCH_ROWS = 32_768
"""Batches have at most this many rows."""

LONGEST_LINE = 1 << 20
"""In bytes; a file with a longer line counts as damaged. Also the block size for reading CSV."""

_FIRST_BLOCK = 1 << 16
"""In bytes; the start of a CSV file from which the types of its columns are inferred."""

_GZIP_RATIO = 4
"""Rough compression ratio of a gzipped CSV file."""

_DAMAGE = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError, OSError)


@dataclass(frozen=True)
class CsvFormat:
    """How CSV files are written; see the keys `csv_…` of `fraud.features.spec.Dataset`."""

    delimiter: str = ","
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8"


@dataclass(frozen=True)
class File:
    """One input file.

    Attributes:
      path: a local path or a URI, in the form given to `discover`.
      name: path below the data directory, used in messages.
      size: in bytes.
      modified: nanoseconds since 1970.
      days: the days its rows may belong to; empty if the data has no timestamp.
      in_day_folder: whether every row must belong to the one day in `days`.
      csv: how it is written if it is CSV.
    """

    path: str
    name: str
    size: int
    modified: int
    days: tuple[date, ...] = ()
    in_day_folder: bool = False
    csv: CsvFormat = CsvFormat()

    @property
    def is_parquet(self) -> bool:
        """Whether it is Parquet; otherwise it is CSV."""
        return self.path.endswith(".parquet")

    @property
    def is_gzip(self) -> bool:
        """Whether it is gzipped CSV."""
        return self.path.endswith(".gz")


def filesystem(path: str) -> tuple[arrow_fs.FileSystem, str]:
    """The file system of a local path or a URI (file:, s3:, gs:, hdfs:), and the path within it.

    Raises:
      BadInput: the URI cannot be opened.
    """
    if not is_uri(path):
        return arrow_fs.LocalFileSystem(), path
    try:
        system, within = arrow_fs.FileSystem.from_uri(path)
    except (*_DAMAGE, ValueError) as error:
        raise BadInput(f"{path}: cannot be opened: {_first_line(error)}") from None
    return system, within


def schema(file: File) -> pa.Schema:
    """Names and types of all columns: as stored in Parquet, inferred from the start of a CSV file.

    Raises:
      BadInput: the file is damaged.
    """
    if file.is_parquet:
        return _footer(file)[0]
    header = _csv_header(file)
    try:
        return _open_csv(file, {}, _FIRST_BLOCK, start_only=True).schema
    except _DAMAGE:
        # Perhaps a line is longer than the block.
        try:
            return _open_csv(file, {}, LONGEST_LINE, start_only=True).schema
        except _DAMAGE as error:
            _refuse_csv(file, header, error)


def count_rows(file: File) -> int:
    """The number of rows: exact for Parquet; an estimate for CSV, 0 only if there are none.

    Raises:
      BadInput: the file is damaged.
    """
    if file.is_parquet:
        return _footer(file)[1]
    _csv_header(file)
    block = first_block(file)
    _, _, rows = block.partition(b"\n")
    lines = [line for line in rows.splitlines() if line.strip()]
    packing = _GZIP_RATIO if file.is_gzip else 1
    return len(lines) * max(file.size * packing, len(block)) // len(block)


def read(file: File, types: dict[str, pa.DataType]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Reads columns of a file.

    Args:
      file: the file.
      types: the columns to read. CSV columns are read as the given type, Parquet columns as the
        type they are stored in.

    Yields:
      (index of the first row in the file, batch of at most BATCH_ROWS rows).

    Raises:
      BadInput: the file is damaged, or a CSV file has text where a number is expected.
    """
    first = 0
    batches = _read_parquet(file, list(types)) if file.is_parquet else _read_csv(file, types)
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            part = batch.slice(start, BATCH_ROWS)
            yield first, part
            first += part.num_rows


def place(file: File, row: int) -> str:
    """Describes a row, given from 0: "line N" in CSV, "row N", counted from 1, in Parquet."""
    if not file.is_parquet:
        try:
            rows = (line for line, fields in _csv_rows(file) if fields)
            return f"line {next(itertools.islice(rows, row + 1, None))}"
        except (StopIteration, csv.Error, OSError):
            pass
    return f"row {row + 1}"


def _footer(file: File) -> tuple[pa.Schema, int]:
    """Schema, dictionaries decoded, and number of rows. Opens each version of a file once."""
    # The days of a file become known later; its footer does not depend on them.
    return _read_footer(dataclasses.replace(file, days=(), in_day_folder=False))


@functools.cache
def _read_footer(file: File) -> tuple[pa.Schema, int]:
    opened = _parquet(file)
    columns = [(field.name, _plain(field.type)) for field in opened.schema_arrow]
    return pa.schema(columns), opened.metadata.num_rows


def _parquet(file: File) -> parquet.ParquetFile:
    _check_size(file)
    system, path = filesystem(file.path)
    try:
        return parquet.ParquetFile(system.open_input_file(path))
    except _DAMAGE as error:
        _refuse(file, error)


def _read_parquet(file: File, names: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        for batch in _parquet(file).iter_batches(BATCH_ROWS, columns=names, use_threads=False):
            columns = [
                column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
                for column in batch.columns
            ]
            yield pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    except _DAMAGE as error:
        _refuse(file, error)


def _read_csv(file: File, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    header = _csv_header(file)
    try:
        yield from _open_csv(file, types, LONGEST_LINE)
    except _DAMAGE as error:
        _refuse_csv(file, header, error)


def _open_csv(
    file: File, types: dict[str, pa.DataType], block: int, start_only: bool = False
) -> arrow_csv.CSVStreamingReader:
    """Opens a file for reading columns as given types; without types, all, with inferred types.

    With `start_only`, no more than the first block may be read.
    """
    return arrow_csv.open_csv(
        _utf8_stream(file, 4 * block if start_only else None),
        # Only with a single thread do Arrow's messages have row numbers.
        arrow_csv.ReadOptions(block_size=block, use_threads=False),
        arrow_csv.ParseOptions(delimiter=file.csv.delimiter, newlines_in_values=True),
        arrow_csv.ConvertOptions(
            column_types=types or None,
            include_columns=list(types) or None,
            decimal_point=file.csv.decimal,
        ),
    )


def _utf8_stream(file: File, most: int | None) -> pa.NativeFile:
    """The content of a CSV file as UTF-8, or about its first `most` bytes.

    Arrow could decode it, too, but by calling Python from a thread of its own. When a reader is
    dropped, it waits for that thread, which waits for the interpreter's lock: both for ever.

    Raises:
      BadInput: the file has bytes that its encoding does not know.
    """
    encoding = file.csv.encoding
    if codecs.lookup(encoding).name in ("utf-8", "ascii"):
        return _stream(file)
    decoder = codecs.getincrementaldecoder(encoding)()
    with tempfile.NamedTemporaryFile(prefix="fraud-utf8-") as copy, _stream(file) as stream:
        try:
            while block := stream.read(LONGEST_LINE if most is None else most):
                copy.write(decoder.decode(block).encode())
                if most is not None:
                    break
            else:
                copy.write(decoder.decode(b"", final=True).encode())
        except UnicodeDecodeError as error:
            raise BadInput(
                f"{file.name}: byte {error.object[error.start]:#04x} is no text in {encoding}; "
                "name the file's encoding as dataset.csv_encoding"
            ) from None
        copy.flush()
        return pa.OSFile(copy.name)  # stays readable without its name


def _stream(file: File) -> pa.NativeFile:
    system, path = filesystem(file.path)
    return system.open_input_stream(path, compression="gzip" if file.is_gzip else None)


def blocks(file: File) -> Iterator[bytes]:
    """The content of a CSV file, unpacked, piece by piece."""
    try:
        with _stream(file) as stream:
            while block := stream.read(LONGEST_LINE):
                yield block
    except _DAMAGE as error:
        _refuse(file, error)


def first_block(file: File) -> bytes:
    """The start of a file, at least one whole line.

    Raises:
      BadInput: the file is empty, its first line has no end, or it cannot be read.
    """
    _check_size(file)
    try:
        with _stream(file) as stream:
            block = stream.read(_FIRST_BLOCK)
            if b"\n" not in block:
                block += stream.read(LONGEST_LINE)
    except _DAMAGE as error:
        _refuse(file, error)
    if len(block) > LONGEST_LINE and b"\n" not in block:
        raise BadInput(
            f"{file.name}: no end of line within the first {LONGEST_LINE >> 20} MB; "
            "write a header line and one line per transaction"
        )
    if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadInput(f"{file.name}: this is UTF-16; write the file as UTF-8")
    if not block.strip():
        raise BadInput(f"{file.name}: there is no header line; write the file again")
    return block


def _csv_header(file: File) -> list[str]:
    """The column names in the first line.

    Raises:
      BadInput: there is no header line, or the file cannot be read.
    """
    first_block(file)
    try:
        return next(fields for _, fields in _csv_rows(file) if fields)
    except (*_DAMAGE, csv.Error) as error:
        _refuse(file, error)


def _check_size(file: File) -> None:
    if file.size == 0:
        raise BadInput(f"{file.name}: the file is empty (0 bytes); write it again or remove it")


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _csv_rows(file: File) -> Iterator[tuple[int, list[str]]]:
    """(number of its last line, fields) of each row, header included. Slow: by Python's reader."""
    encoding = file.csv.encoding
    if codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"
    reader = csv.reader(
        io.TextIOWrapper(_stream(file), encoding=encoding, errors="replace", newline=""),
        delimiter=file.csv.delimiter,
    )
    for fields in reader:
        yield reader.line_num, fields


def _refuse_csv(file: File, header: list[str], error: Exception) -> NoReturn:
    """Explains an error of Arrow's CSV reader by line and column.

    Raises:
      BadInput: always.
    """
    text = str(error)
    row = re.search(r"Row #(\d+)", text)
    at = f"{file.name}, {place(file, int(row[1]) - 2)}" if row else file.name
    if bad := re.search(r"CSV column #(\d+).*CSV conversion error to (\w+)", text, re.DOTALL):
        column, expected = header[int(bad[1])], bad[2]
        if "UTF8" in text:
            raise BadInput(
                f"{at}: {column} is not UTF-8 text; name its encoding, such as cp1252, as "
                "dataset.csv_encoding"
            ) from None
        value = re.search(r"invalid value '(.*)", text, re.DOTALL)
        kind = "a whole number" if expected.startswith("int") else "a number"
        raise BadInput(
            f"{at}: {column} is {_shortened(value)}, not {kind}; correct it, or leave it empty "
            "if it is unknown"
        ) from None
    if fields := re.search(r"Expected (\d+) columns, got (\d+)", text):
        raise BadInput(
            f"{at}: {fields[2]} fields, but the header has {fields[1]}; "
            "quote fields that contain a comma"
        ) from None
    if "straddling" in text:
        raise BadInput(
            f"{file.name}: a line is longer than {LONGEST_LINE >> 20} MB; "
            "look for a missing end of line or an unclosed quote"
        ) from None
    _refuse(file, error)


def _refuse(file: File, error: Exception) -> NoReturn:
    """Reports a file that cannot be read at all.

    Raises:
      BadInput: always.
    """
    if isinstance(error, (FileNotFoundError, PermissionError)):
        raise BadInput(f"{file.name}: cannot be read: {_first_line(error)}") from None
    kind = "Parquet" if file.is_parquet else "gzipped CSV" if file.is_gzip else "CSV"
    raise BadInput(
        f"{file.name}: damaged or not {kind} ({_first_line(error)}); write the file again"
    ) from None


def _shortened(match: re.Match[str] | None) -> str:
    value = match[1].rstrip("'") if match else ""
    return repr(value if len(value) <= 40 else value[:40] + "…")


def _first_line(error: Any) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__

"""What the values of a column must be, and their one form from here on.

| columns | form |
|---|---|
| timestamp | timestamp[us], UTC |
| id, entities | int64, or text where any file has text |
| amount, numeric | float64, null where missing |
| categorical, slices | text, null where missing or empty |
| label | int8, null where not known yet |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.features.spec import Dataset
from fraud.pipeline.ingestion.reader import File, place
from fraud.pipeline.windows import Window, Windows

SINGLE_ROLES = ("timestamp", "amount", "label", "id")

_TIME = pa.timestamp("us")
_TEXT_FORMS = [pa.timestamp("ns"), pa.timestamp("ns", "UTC"), pa.int64()]
_DAY = 86_400_000_000
_EPOCH = date(1970, 1, 1)
_LARGEST_AMOUNT = 1e9  # Beyond it, sums of amounts are not exact (fraud.features.history).
_LARGEST_NUMBER = float(np.finfo(np.float32).max)  # Examples hold 32-bit floats.


@dataclass(frozen=True)
class Rows:
    """Where rows of a batch come from.

    Attributes:
      file: of which file.
      positions: how many rows of the file are before each, [rows].
    """

    file: File
    positions: NDArray[np.int64]

    def refuse(self, row: int, problem: str) -> NoReturn:
        """Raises BadInput that names the file and the row."""
        at = place(self.file, int(self.positions[row]))
        raise BadInput(f"{self.file.name}, {at}: {problem}") from None


@dataclass(frozen=True)
class Layout:
    """What is read, the same for every file of a run.

    Attributes:
      dataset: which column is what.
      types: name → type, of `source.check_columns`.
      windows: the days that are read; None where the data has no timestamp.
    """

    dataset: Dataset
    types: Mapping[str, pa.DataType]
    windows: Windows | None

    def to_read(self, file: File) -> dict[str, pa.DataType]:
        """Name → type of the columns to read of a file."""
        names = columns_of(file, self.dataset, self.windows)
        # In CSV, timestamps are written in many ways, and what is not a label yet is not parsed.
        as_text = (self.dataset.timestamp, self.dataset.label)
        return {name: pa.string() if name in as_text else self.types[name] for name in names}


def columns_of(file: File, dataset: Dataset, windows: Windows | None) -> tuple[str, ...]:
    """The columns read of a file. Where no label can be known yet, the label is not."""
    known = windows is None or any(day <= windows.eval.last for day in file.days)
    return tuple(name for name in dataset.columns if known or name != dataset.label)


def wanted_type(column: str, dataset: Dataset) -> pa.DataType:
    """The type of a column as far as it does not depend on the data."""
    if column == dataset.timestamp:
        return _TIME
    if column in (dataset.label, dataset.amount, *dataset.numeric):
        return pa.float64()
    return pa.string()


def wrong_type(column: str, type_: pa.DataType, dataset: Dataset) -> str | None:
    """Why a stored type does not do for a column, or None."""
    is_number = pa.types.is_integer(type_) or pa.types.is_floating(type_)
    is_number |= pa.types.is_decimal(type_) or pa.types.is_boolean(type_)
    is_time = pa.types.is_timestamp(type_) or pa.types.is_date(type_)
    if pa.types.is_null(type_):
        return None
    if column == dataset.timestamp:
        good, words = is_time or _is_text(type_) or pa.types.is_integer(type_), "times"
    elif column in (dataset.amount, *dataset.numeric):
        good, words = is_number, "numbers"
    else:
        good, words = is_number or _is_text(type_) or is_time, "text or numbers"
    return None if good else f"holds {type_}; it must hold {words}"


def types_of(dataset: Dataset, seen: Mapping[str, set[pa.DataType]]) -> dict[str, pa.DataType]:
    """The type of every column over all files: see the table above.

    Args:
      dataset: which column is what.
      seen: column → the types found.
    """
    types = {column: wanted_type(column, dataset) for column in dataset.columns}
    for column in (dataset.id, *dataset.entities):
        if column and all(
            pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_null(t)
            for t in seen[column]
        ):
            types[column] = pa.int64()
    return types


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def day_number(day: date) -> int:
    """Days since 1970, as `days_of` counts."""
    return (day - _EPOCH).days


def days_of(times: pa.Array) -> NDArray[np.int64]:
    """Days since 1970 of timestamps without nulls, [rows]."""
    return np.floor_divide(times.cast(pa.int64()).to_numpy(), _DAY)


def is_within(window: Window, days: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which days, as `days_of` counts, are in a window."""
    return (days >= day_number(window.first)) & (days <= day_number(window.last))


def times(column: pa.Array, name: str, rows: Rows) -> pa.Array:
    """Timestamps in any form → timestamp[us].

    Accepted are timestamps and dates, ISO 8601 text, and whole seconds since 1970, as number or
    text. What has a zone becomes UTC; what has none is taken as it is.

    Raises:
      BadInput: one is missing or is no timestamp.
    """
    is_text = _is_text(column.type)
    if is_text:
        column = pc.utf8_trim_whitespace(column)
    forms = _TEXT_FORMS if is_text else [column.type]
    for form in forms:
        if (parsed := _as_time(column, form)) is not None:
            return parsed
    # The form that reads furthest is the one meant.
    bad = max(_first_not(column, partial(_as_time, form=form)) for form in forms)
    value = column[bad].as_py()
    if value in (None, ""):
        rows.refuse(bad, f"{name} is empty; every transaction needs a time")
    shown = repr(value[:40]) if is_text else value
    rows.refuse(bad, f"{name} is {shown}, not a time; write all like 2018-04-01 13:45:00")


def clean(batch: pa.RecordBatch, rows: Rows, layout: Layout) -> tuple[Rows, pa.RecordBatch]:
    """Checks the values of a batch and brings them into their form.

    Args:
      batch: the columns of `layout.to_read(file)` as they were read.
      rows: where they come from.
      layout: what the columns are.

    Returns:
      The rows and the columns of the dataset. From a file that is not of one day, rows outside
      the windows are dropped.

    Raises:
      BadInput: names file, row, column and fix.
    """
    dataset, windows = layout.dataset, layout.windows
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    known = np.ones(len(rows.positions), bool)
    if windows is not None and dataset.timestamp is not None:
        columns[dataset.timestamp] = times(columns[dataset.timestamp], dataset.timestamp, rows)
        days = days_of(columns[dataset.timestamp])
        if rows.file.in_day_folder:
            _check_day(columns[dataset.timestamp], days, dataset.timestamp, rows)
        keep = is_within(windows.all_days, days)
        known = days <= day_number(windows.eval.last)
        if not keep.all():
            mask = pa.array(keep)
            columns = {name: column.filter(mask) for name, column in columns.items()}
            rows, known = Rows(rows.file, rows.positions[keep]), known[keep]
    cleaned = {}
    for name in dataset.columns:
        if name == dataset.label:
            cleaned[name] = _label(columns.get(name), known, name, rows)
        elif name == dataset.timestamp:
            cleaned[name] = columns[name]
        elif layout.types[name] == pa.float64():
            largest = _LARGEST_AMOUNT if name == dataset.amount else _LARGEST_NUMBER
            cleaned[name] = _numbers(columns[name], largest, name, rows)
        else:
            cleaned[name] = _names(columns[name], layout.types[name], name, rows)
            if cleaned[name].null_count and name in (dataset.id, *dataset.entities):
                key = "id" if name == dataset.id else "entities"
                rows.refuse(
                    _first(pc.is_null(cleaned[name]).to_numpy(zero_copy_only=False)),
                    f"{name} is empty; fill it in, or take the column out of dataset.{key}",
                )
    return rows, pa.RecordBatch.from_arrays(list(cleaned.values()), names=list(cleaned))


def _check_day(time: pa.Array, days: NDArray[np.int64], name: str, rows: Rows) -> None:
    """Refuses rows that are not of the day their folder is named after."""
    (day,) = rows.file.days
    wrong = days != day_number(day)
    if wrong.any():
        row = _first(wrong)
        rows.refuse(
            row,
            f"{name} is {time[row].as_py()} (UTC), not of {day} as the folder says; "
            "move the row to the folder of its day",
        )


def _as_time(column: pa.Array, form: pa.DataType) -> pa.Array | None:
    """Values of a form as timestamp[us], or None if some are missing or not of that form."""
    if column.null_count:
        return None
    try:
        values = column.cast(form)
        if pa.types.is_integer(form):
            values = pc.multiply_checked(values.cast(pa.int64()), 1_000_000)
        return values.cast(_TIME, safe=False)
    except pa.ArrowInvalid:
        return None


def _label(column: pa.Array | None, known: NDArray[np.bool_], name: str, rows: Rows) -> pa.Array:
    """0 and 1 where the label is known by the as-of day, null where it is not.

    Whatever the file says of labels that nobody can know yet is not looked at.
    """
    if column is None or not known.any():
        return pa.nulls(len(known), pa.int8())
    if _is_text(column.type):
        words = pa.array(["0", "1", "0.0", "1.0"])
        found = pc.index_in(pc.utf8_trim_whitespace(column), words)
        labels = found.cast(pa.float64()).to_numpy(zero_copy_only=False) % 2
    else:
        labels = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    wrong = known & (labels != 0) & (labels != 1)
    if wrong.any():
        row = _first(wrong)
        value = column[row].as_py()
        value = "empty" if value in (None, "") else repr(value)
        rows.refuse(
            row,
            f"{name} is {value}; it must be 1 (fraud) or 0 (genuine): the label delay is over",
        )
    return pa.array(np.where(known, labels, 0).astype(np.int8), mask=~known)


def _numbers(column: pa.Array, largest: float, name: str, rows: Rows) -> pa.Array:
    numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    wrong = np.abs(numbers) > largest
    if wrong.any():
        row = _first(wrong)
        rows.refuse(
            row,
            f"{name} is {numbers[row]:g}, beyond ±{largest:g}; correct it, or leave it empty "
            "where it is not known",
        )
    return pa.array(numbers, from_pandas=True)


def _names(column: pa.Array, type_: pa.DataType, name: str, rows: Rows) -> pa.Array:
    """Keys and categories: whole numbers or text, null where missing or empty."""

    def cast(values: pa.Array) -> pa.Array | None:
        try:
            return values.cast(type_)
        except pa.ArrowInvalid:
            return None

    if pa.types.is_floating(column.type):
        column = pa.array(column.to_numpy(zero_copy_only=False), from_pandas=True)
    names = cast(column)
    if names is None:
        row = _first_not(column, cast)
        rows.refuse(
            row,
            f"{name} is {column[row].as_py()!r}, not a whole number as elsewhere; correct it, or "
            "store the column as text",
        )
    if pa.types.is_string(type_):
        empty = pc.equal(names, "")
        if pc.any(empty).as_py():
            names = pc.if_else(empty, pa.scalar(None, type_), names)
    return names


def _first(mask: NDArray[np.bool_]) -> int:
    return int(np.argmax(mask))


def _first_not(column: pa.Array, convert: Callable[[pa.Array], pa.Array | None]) -> int:
    """The first row that cannot be converted, given that there is one."""
    return next(row for row in range(len(column)) if convert(column.slice(row, 1)) is None)

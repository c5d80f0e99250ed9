"""Checks the values of each column and converts them to one canonical form.

| columns | canonical form |
|---|---|
| timestamp | timestamp[us], UTC |
| id, entities | int64; text where a file has other values than plain whole numbers |
| entities that are also categorical | text |
| amount, numeric | float64, null where missing |
| categorical, slices | text, null where missing or empty |
| label | int8, null where not yet known |
| label_time | timestamp[us], UTC, null where the label is not yet known |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.features.history import LARGEST
from fraud.features.spec import Dataset
from fraud.features.values import (
    LARGEST_NUMBER,
    TIME,
    days_of,
    ends_of_dates,
    first,
    formatted,
    identifiers,
    is_text,
    names,
    numbers,
    texts,
    times,
)
from fraud.features.values import whole_numbers as whole_numbers
from fraud.pipeline.ingestion.reader import File, place
from fraud.pipeline.windows import Window, Windows
from fraud.time import day_number, local_times

SINGLE_ROLES = ("timestamp", "amount", "label", "label_time", "id")


@dataclass(frozen=True)
class RowOrigins:
    """Where the rows of a batch come from.

    Attributes:
      file: the file that all of them were read from.
      positions: the index of each row in that file, from 0, [rows].
    """

    file: File
    positions: NDArray[np.int64]

    def refuse(self, row: int, problem: str) -> NoReturn:
        """Raises a BadInput that names the file and the row."""
        at = place(self.file, int(self.positions[row]))
        raise BadInput(f"{self.file.name}, {at}: {problem}") from None


@dataclass(frozen=True)
class Layout:
    """The columns and days to read, the same for every file of a run.

    Attributes:
      dataset: the role of each column.
      types: column → type, as returned by `source.check_columns`.
      windows: the days to read; None if the data has no timestamp.
      labelled: whether to read labels.
    """

    dataset: Dataset
    types: Mapping[str, pa.DataType]
    windows: Windows | None
    labelled: bool = True

    def to_read(self, file: File) -> dict[str, pa.DataType]:
        """The columns to read from a file, with their types."""
        names = columns_of(file, self.dataset, self.windows, self.labelled)
        # In CSV, times have many formats, labels that are not yet known are not parsed, and
        # identifiers are not always the numbers that they look like.
        times = (self.dataset.timestamp, self.dataset.label_time)
        as_text = (*times, self.dataset.label, *identifiers(self.dataset))
        return {name: pa.string() if name in as_text else self.types[name] for name in names}


def columns_of(
    file: File, dataset: Dataset, windows: Windows | None, labelled: bool = True
) -> tuple[str, ...]:
    """The columns to read from a file, without the label if none can be known yet."""
    known = labelled and (
        windows is None
        or dataset.label_time is not None
        or any(day <= windows.eval.last for day in file.days)
    )
    return tuple(name for name in dataset.columns if known or name != dataset.label)


def wanted_type(column: str, dataset: Dataset) -> pa.DataType:
    """The canonical type of a column, before looking at the data."""
    if column in (dataset.timestamp, dataset.label_time):
        return TIME
    if column in (dataset.label, dataset.amount, *dataset.numeric):
        return pa.float64()
    return pa.string()


def wrong_type(column: str, type_: pa.DataType, dataset: Dataset) -> str | None:
    """Why a stored type is unsuitable for a column, or None if it is suitable."""
    is_number = pa.types.is_integer(type_) or pa.types.is_floating(type_)
    is_number |= pa.types.is_decimal(type_) or pa.types.is_boolean(type_)
    is_time = pa.types.is_timestamp(type_) or pa.types.is_date(type_)
    if pa.types.is_null(type_):
        return None
    if column in (dataset.timestamp, dataset.label_time):
        suitable, expected = is_time or is_text(type_) or pa.types.is_integer(type_), "times"
        suitable |= is_number and dataset.time_format is not None
    elif column in (dataset.amount, *dataset.numeric):
        suitable, expected = is_number, "numbers"
    else:
        suitable, expected = is_number or is_text(type_) or is_time, "text or numbers"
    return None if suitable else f"holds {type_}; it must hold {expected}"


def types_of(dataset: Dataset, seen: Mapping[str, set[pa.DataType]]) -> dict[str, pa.DataType]:
    """The canonical type of every column, by the types `seen` in all files; see the table above."""
    types = {column: wanted_type(column, dataset) for column in dataset.columns}
    for column in set(identifiers(dataset)) - set(dataset.categorical):
        if all(
            (pa.types.is_integer(t) and t != pa.uint64())
            or pa.types.is_floating(t)
            or pa.types.is_null(t)
            for t in seen[column]
        ):
            types[column] = pa.int64()
    return types


def times_of(column: pa.Array, name: str, dataset: Dataset, origins: RowOrigins) -> pa.Array:
    """Converts timestamps, written as a dataset's are, to timestamp[us] in UTC; see `times`."""
    written = formatted(column, name, dataset.time_format, origins)
    return times(written, name, dataset.timezone, origins)


def known_days(label_times: pa.Array, timezone: str) -> NDArray[np.int64]:
    """The days on which labels became known, as `days_of`; later than any day where not yet."""
    days = days_of(label_times.fill_null(0), timezone)
    days[label_times.is_null().to_numpy(zero_copy_only=False)] = np.iinfo(np.int64).max
    return days


def is_within(window: Window, days: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which days, counted from 1970-01-01, are in a window, [rows]."""
    return (days >= day_number(window.first)) & (days <= day_number(window.last))


def clean(
    batch: pa.RecordBatch, origins: RowOrigins, layout: Layout
) -> tuple[RowOrigins, pa.RecordBatch]:
    """Checks the values of a batch and converts them to their canonical form.

    Args:
      batch: the columns of `layout.to_read(file)`, as read.
      origins: where its rows come from.
      layout: the columns and days to read.

    Returns:
      The origins and the cleaned columns of the rows that are in the windows. Only files outside
      day folders may have other rows.

    Raises:
      BadInput: an unusable value; names file, row, column and fix.
    """
    dataset, windows = layout.dataset, layout.windows
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    known = np.full(len(origins.positions), layout.labelled)
    if windows is not None and dataset.timestamp is not None:
        time = times_of(columns[dataset.timestamp], dataset.timestamp, dataset, origins)
        columns[dataset.timestamp] = time
        if dataset.label_time is not None:
            learned = _label_times(columns[dataset.label_time], time, dataset, origins)
            columns[dataset.label_time] = learned
        days = days_of(time, dataset.timezone)
        if origins.file.in_day_folder:
            _check_day(time, days, dataset, origins)
        keep = is_within(windows.all_days, days)
        known &= days <= day_number(windows.eval.last)
        if dataset.label_time is not None:
            known = learned.is_valid().to_numpy(zero_copy_only=False)
        if not keep.all():
            mask = pa.array(keep)
            columns = {name: column.filter(mask) for name, column in columns.items()}
            origins, known = RowOrigins(origins.file, origins.positions[keep]), known[keep]
    cleaned = {}
    for name in dataset.columns:
        if name == dataset.label:
            cleaned[name] = _label(columns.get(name), known, dataset, origins)
        elif name in (dataset.timestamp, dataset.label_time):
            cleaned[name] = columns[name]
        elif layout.types[name] == pa.float64():
            largest = LARGEST if name == dataset.amount else LARGEST_NUMBER
            cleaned[name] = numbers(columns[name], largest, name, origins)
        else:
            is_identifier = name in identifiers(dataset)
            spelled = is_identifier and is_text(columns[name].type)
            cleaned[name] = names(columns[name], layout.types[name], spelled, name, origins)
            if cleaned[name].null_count and is_identifier:
                key = "id" if name == dataset.id else "entities"
                origins.refuse(
                    first(pc.is_null(cleaned[name]).to_numpy(zero_copy_only=False)),
                    f"{name} is empty; fill it in, or remove the column from dataset.{key}",
                )
    return origins, pa.RecordBatch.from_arrays(list(cleaned.values()), names=list(cleaned))


def _check_day(
    time: pa.Array, days: NDArray[np.int64], dataset: Dataset, origins: RowOrigins
) -> None:
    """Refuses rows of another day than the one their folder is named after."""
    (day,) = origins.file.days
    wrong = days != day_number(day)
    if wrong.any():
        row = first(wrong)
        (local,) = local_times(time[row : row + 1].to_numpy(), dataset.timezone).tolist()
        origins.refuse(
            row,
            f"{dataset.timestamp} is {local} ({dataset.timezone}), but its folder is for {day}; "
            "move the row to the folder of its day, or correct dataset.timezone",
        )


def _label_times(
    column: pa.Array, time: pa.Array, dataset: Dataset, origins: RowOrigins
) -> pa.Array:
    """When each label became known as timestamp[us], null where it is not yet.

    A date means the end of its day: a label learned that day was not known before.

    Raises:
      BadInput: a value is not a time or before its transaction, at `time`.
    """
    name = str(dataset.label_time)
    column = ends_of_dates(column)
    given = column.is_valid().to_numpy(zero_copy_only=False)
    learned = np.full(len(column), np.datetime64("NaT"), "datetime64[us]")
    if given.any():
        present = RowOrigins(origins.file, origins.positions[given])
        parsed = times_of(column.filter(pa.array(given)), name, dataset, present)
        learned[given] = parsed.to_numpy()
    early = learned < time.to_numpy()
    if early.any():
        row = first(early)
        moments = np.array([learned[row], time[row].as_py()], "datetime64[us]")
        shown, transaction = local_times(moments, dataset.timezone).tolist()
        origins.refuse(
            row,
            f"{name} is {shown}, before {dataset.timestamp}, {transaction}; a label becomes known "
            "after its transaction: correct one of them",
        )
    return pa.array(learned)


def _label(
    column: pa.Array | None, known: NDArray[np.bool_], dataset: Dataset, origins: RowOrigins
) -> pa.Array:
    """0 or 1 where the label is known, null elsewhere.

    Values that the file holds for labels that cannot be known yet are ignored.
    """
    if column is None or not known.any():
        return pa.nulls(len(known), pa.int8())
    genuine, fraud = dataset.label_values or ("0", "1")
    if dataset.label_values:
        text = pc.utf8_trim_whitespace(texts(column))
        index = pc.index_in(text, pa.array([genuine, fraud]))
        labels = index.cast(pa.float64()).to_numpy(zero_copy_only=False)
    elif is_text(column.type):
        spellings = pa.array(["0", "1", "0.0", "1.0"])
        index = pc.index_in(pc.utf8_trim_whitespace(column), spellings)
        labels = index.cast(pa.float64()).to_numpy(zero_copy_only=False) % 2
    else:
        labels = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    wrong = known & (labels != 0) & (labels != 1)
    if wrong.any():
        row = first(wrong)
        value = column[row].as_py()
        value = "empty" if value in (None, "") else repr(value)
        over = "the label delay is over"
        why = f"{dataset.label_time} says that it is known" if dataset.label_time else over
        origins.refuse(
            row,
            f"{dataset.label} is {value}; it must be {fraud} (fraud) or {genuine} (genuine), "
            f"because {why}",
        )
    return pa.array(np.where(known, labels, 0).astype(np.int8), mask=~known)

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
from fraud.features.history import LARGEST
from fraud.features.spec import Dataset
from fraud.pipeline.ingestion.reader import File, place
from fraud.pipeline.windows import Window, Windows
from fraud.time import MICROSECONDS_PER_DAY, UTC, day_number, local_times

SINGLE_ROLES = ("timestamp", "amount", "label", "label_time", "id")

_TIME = pa.timestamp("us")
# Nanoseconds last: they would wrap around in the year 2262.
_TEXT_FORMS = [pa.timestamp(unit, zone) for unit in ("us", "ns") for zone in (None, "UTC")]
_TEXT_FORMS.append(pa.int64())
_FIRST_TIME, _LAST_TIME = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 and 9999
_YEAR_2200 = 7_258_118_400  # in seconds
_PLAIN = r"^\s*(-?[1-9]\d*|0)(\.0)?\s*$"  # pandas writes 7.0 where a column misses a value
_LARGEST_NUMBER = float(np.finfo(np.float32).max)  # Examples hold 32-bit floats.


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
    """

    dataset: Dataset
    types: Mapping[str, pa.DataType]
    windows: Windows | None

    def to_read(self, file: File) -> dict[str, pa.DataType]:
        """The columns to read from a file, with their types."""
        names = columns_of(file, self.dataset, self.windows)
        # In CSV, times have many formats, labels that are not yet known are not parsed, and
        # identifiers are not always the numbers that they look like.
        times = (self.dataset.timestamp, self.dataset.label_time)
        as_text = (*times, self.dataset.label, *identifiers(self.dataset))
        return {name: pa.string() if name in as_text else self.types[name] for name in names}


def columns_of(file: File, dataset: Dataset, windows: Windows | None) -> tuple[str, ...]:
    """The columns to read from a file, without the label if none can be known yet."""
    known = (
        windows is None
        or dataset.label_time is not None
        or any(day <= windows.eval.last for day in file.days)
    )
    return tuple(name for name in dataset.columns if known or name != dataset.label)


def identifiers(dataset: Dataset) -> tuple[str, ...]:
    """The columns that identify something: id and entities."""
    return tuple(name for name in (dataset.id, *dataset.entities) if name)


def whole_numbers(text: pa.Array) -> pa.Array | None:
    """Identifiers from a CSV file as int64; None unless each is written as a plain whole number.

    00123, +1, 1e5 and numbers of more than 63 bits are no such numbers: as int64 they would be
    mistaken for others, or lose digits.
    """
    for spelled in (text, _plain(text)):
        try:
            numbers = spelled.cast(pa.int64())
        except pa.ArrowInvalid:
            continue
        if numbers.cast(spelled.type).equals(spelled):
            return numbers
    return None


def wanted_type(column: str, dataset: Dataset) -> pa.DataType:
    """The canonical type of a column, before looking at the data."""
    if column in (dataset.timestamp, dataset.label_time):
        return _TIME
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
        suitable, expected = is_time or _is_text(type_) or pa.types.is_integer(type_), "times"
    elif column in (dataset.amount, *dataset.numeric):
        suitable, expected = is_number, "numbers"
    else:
        suitable, expected = is_number or _is_text(type_) or is_time, "text or numbers"
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


def _plain(text: pa.Array) -> pa.Array:
    """Plain whole numbers without blanks around them and without ".0"; other text as it is."""
    return pc.replace_substring_regex(text, pattern=_PLAIN, replacement=r"\1")


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _is_zoned(type_: pa.DataType) -> bool:
    return pa.types.is_timestamp(type_) and type_.tz is not None


def days_of(times: pa.Array, timezone: str) -> NDArray[np.int64]:
    """Days since 1970-01-01, in a timezone, of timestamps without nulls, [rows]."""
    if timezone != UTC:
        times = pa.array(local_times(times.to_numpy(), timezone))
    return np.floor_divide(times.cast(pa.int64()).to_numpy(), MICROSECONDS_PER_DAY)


def known_days(label_times: pa.Array, timezone: str) -> NDArray[np.int64]:
    """The days on which labels became known, as `days_of`; later than any day where not yet."""
    days = days_of(label_times.fill_null(0), timezone)
    days[label_times.is_null().to_numpy(zero_copy_only=False)] = np.iinfo(np.int64).max
    return days


def is_within(window: Window, days: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which days, counted from 1970-01-01, are in a window, [rows]."""
    return (days >= day_number(window.first)) & (days <= day_number(window.last))


def times(column: pa.Array, name: str, timezone: str, origins: RowOrigins) -> pa.Array:
    """Converts timestamps of any accepted form to timestamp[us] in UTC.

    Accepted are timestamps and dates, ISO 8601 text, and whole seconds, milliseconds, microseconds
    or nanoseconds since 1970 UTC as numbers or text. Times without an offset are those of
    `timezone`: of two moments that clocks show alike, when they are put back, it is the earlier
    one.

    Raises:
      BadInput: a value is missing, is not a timestamp, or is skipped when clocks are put forward.
    """
    is_text = _is_text(column.type)
    if is_text:
        column = pc.utf8_trim_whitespace(column)
    forms = _TEXT_FORMS if is_text else [column.type]
    for form in forms:
        if (parsed := _as_time(column, form, timezone)) is not None:
            return parsed
    # Report the first error of the form that parses the most rows: it is the intended one.
    parse = partial(_as_time, timezone=timezone)
    bad = max(_first_not(column, partial(parse, form=form)) for form in forms)
    try:
        value = column[bad].as_py()
    except OverflowError:
        value = f"beyond the year {date.max.year}"
    if value in (None, ""):
        origins.refuse(bad, f"{name} is empty; every transaction needs a time")
    shown = repr(value[:40]) if is_text else value
    one, local = column.slice(bad, 1), forms[0]
    if _as_time(one, local, timezone) is None and _as_time(one, local, UTC) is not None:
        origins.refuse(
            bad,
            f"{name} is {shown}, which clocks in {timezone} skip; correct it, write the time with "
            "its offset, or correct dataset.timezone",
        )
    origins.refuse(bad, f"{name} is {shown}, not a time; write times as 2018-04-01 13:45:00")


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
    known = np.ones(len(origins.positions), bool)
    if windows is not None and dataset.timestamp is not None:
        time = times(columns[dataset.timestamp], dataset.timestamp, dataset.timezone, origins)
        columns[dataset.timestamp] = time
        if dataset.label_time is not None:
            learned = _label_times(columns[dataset.label_time], time, dataset, origins)
            columns[dataset.label_time] = learned
        days = days_of(time, dataset.timezone)
        if origins.file.in_day_folder:
            _check_day(time, days, dataset, origins)
        keep = is_within(windows.all_days, days)
        known = days <= day_number(windows.eval.last)
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
            largest = LARGEST if name == dataset.amount else _LARGEST_NUMBER
            cleaned[name] = _numbers(columns[name], largest, name, origins)
        else:
            is_identifier = name in identifiers(dataset)
            spelled = is_identifier and not origins.file.is_parquet
            cleaned[name] = _names(columns[name], layout.types[name], spelled, name, origins)
            if cleaned[name].null_count and is_identifier:
                key = "id" if name == dataset.id else "entities"
                origins.refuse(
                    _first(pc.is_null(cleaned[name]).to_numpy(zero_copy_only=False)),
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
        row = _first(wrong)
        (local,) = local_times(time[row : row + 1].to_numpy(), dataset.timezone).tolist()
        origins.refuse(
            row,
            f"{dataset.timestamp} is {local} ({dataset.timezone}), but its folder is for {day}; "
            "move the row to the folder of its day, or correct dataset.timezone",
        )


def _as_time(column: pa.Array, form: pa.DataType, timezone: str) -> pa.Array | None:
    """Parses values of one form as timestamp[us] in UTC.

    None if any is missing, of another form or no time in `timezone`.
    """
    if column.null_count:
        return None
    try:
        values = column.cast(form)
        if pa.types.is_integer(form):
            return _since_1970(values.cast(pa.int64()).to_numpy())
        # Only truncation to microseconds is allowed, not an overflow.
        values = pc.cast(
            values, options=pc.CastOptions(target_type=_TIME, allow_time_truncate=True)
        )
    except pa.ArrowInvalid:
        return None
    range_ = pc.min_max(values.cast(pa.int64())).as_py() if len(values) else {}
    in_calendar = not range_ or _FIRST_TIME <= range_["min"] <= range_["max"] <= _LAST_TIME
    if not in_calendar:
        return None
    if timezone == UTC or _is_zoned(form):
        return values
    # A date means the beginning of its day, even where clocks skip midnight.
    skipped = "latest" if pa.types.is_date(form) else "raise"
    try:
        zoned = pc.assume_timezone(values, timezone, ambiguous="earliest", nonexistent=skipped)
    except pa.ArrowInvalid:
        return None
    return zoned.cast(_TIME)


def _since_1970(numbers: NDArray[np.int64]) -> pa.Array | None:
    """Times since 1970 in a unit that is told by their size, as timestamp[us].

    Seconds are before the year 2200; milliseconds, microseconds and nanoseconds are also after
    1973-03-03, so no number has two meanings. None if a number has none, like 20180401134500.
    """
    size = np.abs(numbers.astype(np.float64))  # the smallest int64 has no positive counterpart
    times, unknown = np.zeros_like(numbers), np.ones(len(numbers), bool)
    for digits in (0, 3, 6, 9):
        least = 10.0 ** (8 + digits) if digits else 0
        of_unit = (least <= size) & (size < _YEAR_2200 * 10.0**digits)
        times[of_unit] = numbers[of_unit] * 10 ** max(6 - digits, 0) // 10 ** max(digits - 6, 0)
        unknown &= ~of_unit
    return None if unknown.any() else pa.array(times, _TIME)


def _label_times(
    column: pa.Array, time: pa.Array, dataset: Dataset, origins: RowOrigins
) -> pa.Array:
    """When each label became known as timestamp[us], null where it is not yet.

    A date means the end of its day: a label learned that day was not known before.

    Raises:
      BadInput: a value is not a time or before its transaction, at `time`.
    """
    name = str(dataset.label_time)
    if pa.types.is_date(column.type):
        column = column.cast(pa.date32()).cast(pa.string())
    if _is_text(column.type):
        column = pc.utf8_trim_whitespace(column.cast(pa.string()))
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
        is_date = pc.match_substring_regex(column, r"^\d{4}-\d\d-\d\d$")
        end = pc.binary_join_element_wise(column, "23:59:59.999999", " ")
        column = pc.if_else(is_date, end, column)
    given = column.is_valid().to_numpy(zero_copy_only=False)
    learned = np.full(len(column), np.datetime64("NaT"), "datetime64[us]")
    if given.any():
        present = RowOrigins(origins.file, origins.positions[given])
        parsed = times(column.filter(pa.array(given)), name, dataset.timezone, present)
        learned[given] = parsed.to_numpy()
    early = learned < time.to_numpy()
    if early.any():
        row = _first(early)
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
    if _is_text(column.type):
        spellings = pa.array(["0", "1", "0.0", "1.0"])
        index = pc.index_in(pc.utf8_trim_whitespace(column), spellings)
        labels = index.cast(pa.float64()).to_numpy(zero_copy_only=False) % 2
    else:
        labels = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    wrong = known & (labels != 0) & (labels != 1)
    if wrong.any():
        row = _first(wrong)
        value = column[row].as_py()
        value = "empty" if value in (None, "") else repr(value)
        over = "the label delay is over"
        why = f"{dataset.label_time} says that it is known" if dataset.label_time else over
        origins.refuse(
            row,
            f"{dataset.label} is {value}; it must be 1 (fraud) or 0 (genuine), because {why}",
        )
    return pa.array(np.where(known, labels, 0).astype(np.int8), mask=~known)


def _numbers(column: pa.Array, largest: float, name: str, origins: RowOrigins) -> pa.Array:
    numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    wrong = np.abs(numbers) > largest
    if wrong.any():
        row = _first(wrong)
        origins.refuse(
            row,
            f"{name} is {numbers[row]:g}, beyond ±{largest:g}; correct it, or leave it empty "
            "if it is unknown",
        )
    return pa.array(numbers, from_pandas=True)


def _names(
    column: pa.Array, type_: pa.DataType, spelled: bool, name: str, origins: RowOrigins
) -> pa.Array:
    """Converts keys and categories to whole numbers or text, null where missing or empty.

    Args:
      column: the values.
      type_: the type to convert to.
      spelled: whether they are identifiers from CSV, where numbers are text.
      name, origins: for messages.

    Raises:
      BadInput: a key is not a whole number, or lost digits when it was stored as a float.
    """

    def cast(values: pa.Array) -> pa.Array | None:
        if spelled:
            return whole_numbers(values) if pa.types.is_integer(type_) else _plain(values)
        try:
            return values.cast(type_)
        except pa.ArrowInvalid:
            return None

    if pa.types.is_floating(column.type):
        column = _exact(column, name, origins)
    names = cast(column)
    if names is None:
        row = _first_not(column, cast)
        origins.refuse(
            row,
            f"{name} is {column[row].as_py()!r}, not a whole number as in other rows; correct it, "
            "or store the column as text",
        )
    if pa.types.is_string(type_):
        empty = pc.equal(names, "")
        if pc.any(empty).as_py():
            names = pc.if_else(empty, pa.scalar(None, type_), names)
    return names


def _exact(column: pa.Array, name: str, origins: RowOrigins) -> pa.Array:
    """Floats, as int64 if all are whole numbers: 7.0 has the name 7. Null where NaN."""
    floats = column.to_numpy(zero_copy_only=False)
    inexact = np.abs(floats) >= 2.0 ** (np.finfo(floats.dtype).nmant + 1)
    if inexact.any():
        row = _first(inexact)
        origins.refuse(
            row,
            f"{name} is {floats[row]:.0f}, a float of more digits than it can hold exactly; store "
            "the column as whole number or text",
        )
    column = pa.array(floats, from_pandas=True)
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column


def _first(mask: NDArray[np.bool_]) -> int:
    return int(np.argmax(mask))


def _first_not(column: pa.Array, convert: Callable[[pa.Array], pa.Array | None]) -> int:
    """The first row that cannot be converted; at least one must exist."""
    return next(row for row in range(len(column)) if convert(column.slice(row, 1)) is None)

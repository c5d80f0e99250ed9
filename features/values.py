"""The canonical form of a column's values, whatever form they come in.

Ingestion and the server share these rules, so that equal transactions have equal features.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import NoReturn, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fraud.features.spec import Dataset
from fraud.time import MICROSECONDS_PER_DAY, TIME_UNITS, UTC, local_times

TIME = pa.timestamp("us")
_TEXT_FORMS = [pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.int64()]
# Nanoseconds are cut off, not parsed: as such they wrap around before 1677 and after 2262.
_LONGEST_IN_MICROSECONDS = len("2018-04-01T13:45:00.123456")
_NANOSECONDS = r"(:\d\d\.\d{6})\d{1,3}([^\d]|$)"
# Only truncation to microseconds is allowed, not an overflow.
_TO_MICROSECONDS = pc.CastOptions(target_type=TIME, allow_time_truncate=True)
_FIRST_TIME, _LAST_TIME = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 and 9999
_YEAR_2200 = 7_258_118_400  # in seconds
# pandas writes 7.0 where a column misses a value. What is a blank differs between Arrow and Python.
_PLAIN = r"^[\t\n\f\r ]*(-?[1-9][0-9]*|0)(\.0)?[\t\n\f\r ]*$"
LARGEST_NUMBER = float(np.finfo(np.float32).max)  # Examples hold 32-bit floats.


class Origins(Protocol):
    """Where rows come from, for messages."""

    def refuse(self, row: int, problem: str) -> NoReturn:
        """Raises a BadInput that says where the row, counted from 0, is."""


def identifiers(dataset: Dataset) -> tuple[str, ...]:
    """The columns that identify something: id and entities."""
    return tuple(name for name in (dataset.id, *dataset.entities) if name)


def whole_numbers(text: pa.Array) -> pa.Array | None:
    """Identifiers in text as int64; None unless each is written as a plain whole number.

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


def days_of(times: pa.Array, timezone: str) -> NDArray[np.int64]:
    """Days since 1970-01-01, in a timezone, of timestamps without nulls, [rows]."""
    if timezone != UTC:
        times = pa.array(local_times(times.to_numpy(), timezone))
    return np.floor_divide(times.cast(pa.int64()).to_numpy(), MICROSECONDS_PER_DAY)


def times(column: pa.Array, name: str, timezone: str, origins: Origins) -> pa.Array:
    """Converts timestamps of any accepted form to timestamp[us] in UTC.

    Accepted are timestamps and dates, ISO 8601 text, and whole seconds, milliseconds, microseconds
    or nanoseconds since 1970 UTC as numbers or text. Times without an offset are those of
    `timezone`: of two moments that clocks show alike, when they are put back, it is the earlier
    one.

    Raises:
      BadInput: a value is missing, is not a timestamp, or is skipped when clocks are put forward.
    """
    as_text = is_text(column.type)
    if as_text:
        column = pc.utf8_trim_whitespace(column)
    given = column
    if as_text and (pc.max(pc.binary_length(column)).as_py() or 0) > _LONGEST_IN_MICROSECONDS:
        column = pc.replace_substring_regex(column, _NANOSECONDS, r"\1\2")
    forms = _TEXT_FORMS if as_text else [column.type]
    for form in forms:
        if (parsed := _as_time(column, form, timezone)) is not None:
            return parsed
    # Report the first error of the form that parses the most rows: it is the intended one.
    parse = partial(_as_time, timezone=timezone)
    bad = max(_first_not(column, partial(parse, form=form)) for form in forms)
    try:
        value = given[bad].as_py()
    except OverflowError:
        value = f"beyond the year {date.max.year}"
    if value in (None, ""):
        origins.refuse(bad, f"{name} is empty; every transaction needs a time")
    shown = repr(value[:40]) if as_text else value
    one, local = column.slice(bad, 1), forms[0]
    if _as_time(one, local, timezone) is None and _as_time(one, local, UTC) is not None:
        origins.refuse(
            bad,
            f"{name} is {shown}, which clocks in {timezone} skip; correct it, write the time with "
            "its offset, or correct dataset.timezone",
        )
    origins.refuse(bad, f"{name} is {shown}, not a time; write times as 2018-04-01 13:45:00")


def formatted(column: pa.Array, name: str, time_format: str | None, origins: Origins) -> pa.Array:
    """Times written in a format of their own, as timestamp[us] without an offset.

    Args:
      column: the values; timestamps and dates are returned as they are, as is everything if there
        is no format.
      name, origins: for messages.
      time_format: see `fraud.features.spec.Dataset`.

    Raises:
      BadInput: a value is missing or has another format.
    """
    if time_format is None or pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return column
    text = pc.utf8_trim_whitespace(texts(column))
    if time_format in TIME_UNITS:
        is_number = pc.match_substring_regex(text, r"^\d+(\.\d*)?$")
        numbers = pc.if_else(is_number, text, pa.scalar(None, pa.string())).cast(pa.float64())
        steps = pc.multiply(numbers, float(TIME_UNITS[time_format]))
        parsed = pc.floor(steps).cast(pa.int64()).cast(TIME)
    else:
        parsed = pc.strptime(text, format=time_format, unit="us", error_is_null=True)
    if parsed.null_count:
        row = first(parsed.is_null().to_numpy(zero_copy_only=False))
        value = text[row].as_py()
        if not value:
            origins.refuse(row, f"{name} is empty; every transaction needs a time")
        origins.refuse(
            row, f"{name} is {value[:40]!r}, not written as dataset.time_format, {time_format}"
        )
    return parsed


def ends_of_dates(column: pa.Array) -> pa.Array:
    """Dates as the last moment of their day, in text, and empty text as null, for label times.

    A label learned on a day was not known before that day.
    """
    if pa.types.is_date(column.type):
        column = column.cast(pa.date32()).cast(pa.string())
    if not is_text(column.type):
        return column
    column = pc.utf8_trim_whitespace(column.cast(pa.string()))
    column = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
    is_date = pc.match_substring_regex(column, r"^\d{4}-\d\d-\d\d$")
    end = pc.binary_join_element_wise(column, "23:59:59.999999", " ")
    return pc.if_else(is_date, end, column)


def numbers(column: pa.Array, largest: float, name: str, origins: Origins) -> pa.Array:
    """Converts numbers to float64, null where missing or NaN.

    Raises:
      BadInput: a number is beyond ± `largest`.
    """
    if pa.types.is_decimal(column.type):
        numbers = _floats(column)
    else:
        numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    wrong = np.abs(numbers) > largest
    if wrong.any():
        row = first(wrong)
        origins.refuse(
            row,
            f"{name} is {numbers[row]:g}, beyond ±{largest:g}; correct it, or leave it empty "
            "if it is unknown",
        )
    return pa.array(numbers, from_pandas=True)


def names(
    column: pa.Array, type_: pa.DataType, spelled: bool, name: str, origins: Origins
) -> pa.Array:
    """Converts keys and categories to whole numbers or text, null where missing or empty.

    Args:
      column: the values.
      type_: the type to convert to.
      spelled: whether they are identifiers in text, some of which may be numbers.
      name, origins: for messages.

    Raises:
      BadInput: a key is not a whole number, or lost digits when it was stored as a float.
    """

    def cast(values: pa.Array) -> pa.Array | None:
        if spelled:
            text = values.cast(pa.string())
            return whole_numbers(text) if pa.types.is_integer(type_) else _plain(text)
        try:
            return values.cast(type_)
        except pa.ArrowInvalid:
            return None

    if pa.types.is_floating(column.type):
        column = _exact(column, name, origins)
    elif pa.types.is_decimal(column.type):
        column = texts(column)
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


def _exact(column: pa.Array, name: str, origins: Origins) -> pa.Array:
    """Floats, as int64 if all are whole numbers: 7.0 has the name 7. Null where NaN."""
    floats = column.to_numpy(zero_copy_only=False)
    inexact = np.abs(floats) >= 2.0 ** (np.finfo(floats.dtype).nmant + 1)
    if inexact.any():
        row = first(inexact)
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


def _floats(decimals: pa.Array) -> NDArray[np.float64]:
    """The floats nearest to decimals, NaN where null; those of Arrow are off by their last bit."""
    scale = decimals.type.scale
    if pa.types.is_decimal128(decimals.type) and len(decimals) and 0 <= scale <= 22:
        words = np.frombuffer(decimals.buffers()[1], "<i8").reshape(-1, 2)
        low, high = words[decimals.offset : decimals.offset + len(decimals)].T
        missing = decimals.is_null().to_numpy(zero_copy_only=False)
        # Then both numbers are exact as floats, and their quotient is rounded once.
        is_exact = (high == low >> 63) & (low > -(2**53)) & (low < 2**53)
        if (is_exact | missing).all():
            return np.where(missing, np.nan, low / 10.0**scale)
    return np.array([np.nan if v is None else float(v) for v in decimals.to_pylist()], float)


def texts(column: pa.Array) -> pa.Array:
    """Values as text; decimals as JSON and CSV have them, without zeros at the end of a fraction.

    Arrow 10 does not cast decimals to text.
    """
    if not pa.types.is_decimal(column.type):
        return column.cast(pa.string())
    encoded = column.dictionary_encode()
    texts = [f"{value:f}" for value in encoded.dictionary.to_pylist()]
    texts = [text.rstrip("0").rstrip(".") if "." in text else text for text in texts]
    return pa.array(texts, pa.string()).take(encoded.indices)


def _plain(text: pa.Array) -> pa.Array:
    """Plain whole numbers without blanks around them and without ".0"; other text as it is."""
    return pc.replace_substring_regex(text, pattern=_PLAIN, replacement=r"\1")


def identifier(text: str) -> str:
    """The canonical form of one identifier in text, as `names` has it: "7.0" and " 7" are "7"."""
    if text[-2:] != ".0" and text == text.strip():
        return text
    match = re.fullmatch(_PLAIN, text)
    return match[1] if match else text


def is_text(type_: pa.DataType) -> bool:
    """Whether values of a type are text."""
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _is_zoned(type_: pa.DataType) -> bool:
    return pa.types.is_timestamp(type_) and type_.tz is not None


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
        values = pc.cast(values, options=_TO_MICROSECONDS)
    except pa.ArrowInvalid:
        return None
    numbers = values.cast(pa.int64()).to_numpy()
    if ((numbers < _FIRST_TIME) | (numbers > _LAST_TIME)).any():
        return None
    if timezone == UTC or _is_zoned(form):
        return values
    # A date means the beginning of its day, even where clocks skip midnight.
    skipped = "latest" if pa.types.is_date(form) else "raise"
    try:
        zoned = pc.assume_timezone(values, timezone, ambiguous="earliest", nonexistent=skipped)
    except pa.ArrowInvalid:
        return None
    return zoned.cast(TIME)


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
    return None if unknown.any() else pa.array(times, TIME)


def first(mask: NDArray[np.bool_]) -> int:
    """The first row where a mask, [rows], is true; there must be one."""
    return int(np.argmax(mask))


def _first_not(column: pa.Array, convert: Callable[[pa.Array], pa.Array | None]) -> int:
    """The first row that cannot be converted; at least one must exist."""
    return next(row for row in range(len(column)) if convert(column.slice(row, 1)) is None)

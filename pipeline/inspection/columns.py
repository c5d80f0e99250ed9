"""Describes each column of a sample: what its values are, how many differ, and how it is named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from fraud.features.values import texts

NUMBER, TEXT, TIME, FLAG, OTHER = "number", "text", "time", "flag", "other"

_MISSING = pa.array(arrow_csv.ConvertOptions().null_values)
"""What Arrow reads as a missing number in CSV."""
_DATES: tuple[str, ...] = (
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%Y/%m/%d",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d.%m.%y",
)
_DATES += ("%d/%m/%y", "%m/%d/%y", "%Y%m%d", "%d %b %Y", "%d-%b-%Y", "%b %d %Y", "%b %d, %Y")
_CLOCKS = ("", " %H:%M:%S", " %H:%M", "T%H:%M:%S", " %I:%M:%S %p", " %I:%M %p")
_EARLIEST, _LATEST = np.datetime64("1900-01-01", "us"), np.datetime64("2101-01-01", "us")
_LIKE_TIME = r"^\s*\w{1,4}[-./ ]\w{1,3}[-./, ]+\d{2,4}|^\s*(19|20)\d{6}\s*$"


@dataclass(frozen=True)
class Column:
    """A column of the sample.

    Attributes:
      name: its name.
      kind: `NUMBER`, `TEXT`, `TIME`, `FLAG` (true or false) or `OTHER`.
      text: the values as text, null where missing.
      numbers: the values of a number, NaN where missing; else None.
      times: the values of a time, datetime64[us]; else None.
      time_format: how they are written, if that is not as `fraud.features.values.times` reads.
      from_csv: whether it was read from CSV, where everything is text.
      decimal: the decimal point of its numbers in CSV.
      is_integer: whether it is stored as integers, outside CSV.
    """

    name: str
    kind: str
    text: pa.Array
    numbers: NDArray[np.float64] | None = None
    times: NDArray[np.datetime64] | None = None
    time_format: str | None = None
    from_csv: bool = False
    decimal: str = "."
    is_integer: bool = False

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of the name: ("is", "fraud") of isFraud, is_fraud or IS-FRAUD."""
        spaced = re.sub(r"([a-zäöü0-9])([A-ZÄÖÜ])", r"\1 \2", self.name)
        spaced = re.sub(r"([A-ZÄÖÜ])([A-ZÄÖÜ][a-zäöü])", r"\1 \2", spaced)  # IPAddress
        return tuple(word for word in re.split(r"[\W_]+", spaced.lower()) if word)

    @cached_property
    def missing(self) -> int:
        """The number of rows without a value."""
        return int(self.text.null_count)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Value → number of rows, most frequent first."""
        table = pc.value_counts(self.text.drop_null()).flatten()
        pairs = zip(table[0].to_pylist(), table[1].to_pylist(), strict=True)
        return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))

    @property
    def distinct(self) -> int:
        """The number of different values."""
        return len(self.counts)

    @property
    def is_unique(self) -> bool:
        """Whether there is a value in every row, and none twice."""
        return self.distinct == len(self.text) > 1

    @cached_property
    def is_whole(self) -> bool:
        """Whether all numbers are whole."""
        if self.numbers is None:
            return False
        present = self.numbers[~np.isnan(self.numbers)]
        return bool(np.all(present == np.floor(present)))

    @cached_property
    def digits(self) -> NDArray[np.float64] | None:
        """Text that is whole numbers alone, as numbers, NaN where missing."""
        text = self.text.drop_null()
        if not len(text) or not pc.all(pc.match_substring_regex(text, r"^\d{1,19}$")).as_py():
            return None
        return self.text.cast(pa.float64()).to_numpy(zero_copy_only=False)

    @cached_property
    def has_leading_zeros(self) -> bool:
        """Whether it is written with digits that a number would lose, as 00123."""
        return self.kind != TIME and bool(
            pc.any(pc.match_substring_regex(self.text, r"^0\d+$")).as_py()
        )


def describe(table: pa.Table, decimal: str = ".", from_csv: bool = False) -> list[Column]:
    """Describes the columns of a table, in order."""
    return [
        _describe(name, table[name].combine_chunks(), decimal, from_csv)
        for name in table.column_names
    ]


def _describe(name: str, values: pa.Array, decimal: str, from_csv: bool) -> Column:
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.nulls(0, pa.string())
    type_ = values.type
    if pa.types.is_null(type_):
        return Column(name, TEXT, pa.nulls(len(values), pa.string()), from_csv=from_csv)
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        moments = values.cast(pa.timestamp("us"), safe=False)
        return Column(name, TIME, moments.cast(pa.string()), times=moments.to_numpy(False))
    if pa.types.is_boolean(type_):
        return Column(name, FLAG, values.cast(pa.string()))
    if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        missing = pa.array(np.isnan(numbers))
        text = pc.if_else(missing, pa.scalar(None, pa.string()), texts(values))
        return Column(name, NUMBER, text, numbers, is_integer=pa.types.is_integer(type_))
    if not (pa.types.is_string(type_) or pa.types.is_large_string(type_)):
        return Column(name, OTHER, pa.nulls(len(values), pa.string()))
    text = pc.utf8_trim_whitespace(values.cast(pa.string()))
    text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    return _of_text(name, text, decimal, from_csv)


def _of_text(name: str, text: pa.Array, decimal: str, from_csv: bool) -> Column:
    """A column of text, which in CSV may be anything."""
    some = text.drop_null()
    if len(some) == 0:
        return Column(name, TEXT, text, from_csv=from_csv)
    if from_csv:
        present = pc.if_else(pc.is_in(text, _MISSING), pa.scalar(None, pa.string()), text)
        plain = present
        if decimal == ",":  # then a point separates thousands, which a run does not read
            plain = pc.replace_substring(pc.replace_substring(present, ".", "_"), ",", ".")
        try:
            numbers = plain.cast(pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            pass
        else:
            compact = _of_compact_dates(name, present, numbers)
            return compact or Column(name, NUMBER, present, numbers, from_csv=True)
        if set(pc.unique(pc.utf8_lower(some)).to_pylist()) == {"true", "false"}:
            return Column(name, FLAG, text, from_csv=True)
    for type_ in (pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("ns")):
        try:
            moments = text.cast(type_).cast(pa.timestamp("us"), safe=False)
        except pa.ArrowInvalid:
            continue
        return Column(name, TIME, text, times=moments.to_numpy(False), from_csv=from_csv)
    looks = pc.match_substring_regex(some.slice(0, 100), _LIKE_TIME)
    if pc.all(looks).as_py() and (times := _with_format(name, text, from_csv)):
        return times
    return Column(name, TEXT, text, from_csv=from_csv, decimal=decimal)


def _of_compact_dates(name: str, text: pa.Array, numbers: NDArray) -> Column | None:
    """Dates such as 20260131, which are numbers, too; None if these are none."""
    present = numbers[~np.isnan(numbers)]
    if not present.size or present.min() < 19_700_101 or present.max() > 21_001_231:
        return None
    parsed = pc.strptime(text, format="%Y%m%d", unit="us", error_is_null=True)
    if parsed.null_count > text.null_count:
        return None
    return Column(name, TIME, text, None, parsed.to_numpy(False), "%Y%m%d", from_csv=True)


def _with_format(name: str, text: pa.Array, from_csv: bool) -> Column | None:
    """Times in the first format that fits all; of two, the one in which they span fewer days."""
    fitting: list[tuple[np.timedelta64, int, str, NDArray]] = []
    head = text.drop_null().slice(0, 50)
    for date in _DATES:
        for clock in _CLOCKS:
            format_ = date + clock
            if pc.strptime(head, format=format_, unit="us", error_is_null=True).null_count:
                continue
            parsed = pc.strptime(text, format=format_, unit="us", error_is_null=True)
            if parsed.null_count > text.null_count:
                continue
            times = parsed.to_numpy(zero_copy_only=False)
            present = times[~np.isnat(times)]
            if present.min() >= _EARLIEST and present.max() < _LATEST:
                span = present.max() - present.min()
                fitting.append((span, len(fitting), format_, times))
    if not fitting:
        return None
    _, _, format_, times = min(fitting, key=lambda found: found[:2])
    return Column(name, TIME, text, None, times, format_, from_csv)

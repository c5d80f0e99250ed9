"""Raw transactions and labels as clients send them → checked columns.

Values have the canonical form that ingestion gives them (`fraud.features.values`), so that a
transaction has the same features here and there. A message about a value names its index and
field: `transactions[3].TX_AMOUNT: …`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.features import values
from fraud.features.history import LARGEST
from fraud.features.spec import Dataset
from fraud.features.values import LARGEST_NUMBER
from fraud.serving.state import Labels, Transactions
from fraud.time import TIME_UNITS, UTC

_ISO = re.compile(r"\s*\d{4}-\d\d-\d\d")
_ISO_UTC = re.compile(
    r"(?!0000)[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(\.[0-9]{1,6})?Z?"
)
_ISO_Z = re.compile(_ISO_UTC.pattern.removesuffix("?"))

_NULL_IF_UNKNOWN = "send it, or null if it is unknown"

LONGEST_TEXT = 1000
"""Characters in a value of a transaction; a longer one is taken for a mistake."""


@dataclass(frozen=True)
class RawTransactions:
    """Transactions of one request, checked: the dataset's columns in their canonical form.

    They are kept as lists and numpy arrays: of a single transaction, Arrow arrays take as long to
    make as everything else here.

    Attributes:
      ids: as they were sent, for the answer; None where the data has no ids, [n].
      times: of the transactions, datetime64[us] in UTC, [n]; None if the data has no timestamp.
      numbers: amount and numeric columns, NaN where missing, [n] each.
      texts: all other columns but for the label, None where missing, [n] each.
      dataset: the roles of the columns.
    """

    ids: list[Any]
    times: NDArray[np.datetime64] | None
    numbers: dict[str, NDArray[np.float64]]
    texts: dict[str, list[str | None]]
    dataset: Dataset

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def columns(self) -> dict[str, pa.Array]:
        """The columns as Arrow arrays, null where missing."""
        columns = {name: pa.array(values, pa.string()) for name, values in self.texts.items()}
        for name, numbers in self.numbers.items():
            columns[name] = pa.array(numbers, from_pandas=True)
        if self.dataset.timestamp is not None:
            columns[self.dataset.timestamp] = pa.array(self.times, values.TIME)
        return columns

    def for_state(self, others: Mapping[str, list[str | None]] | None = None) -> Transactions:
        """What the state remembers of them. The data has a timestamp.

        Args:
          others: entities besides those of the dataset.
        """
        dataset = self.dataset
        assert self.times is not None
        return Transactions(
            timestamps=self.times,
            amounts=self.numbers[dataset.amount] if dataset.amount else None,
            entities={name: self.texts[name] for name in dataset.entities} | dict(others or {}),
            ids=self.texts[dataset.id] if dataset.id else None,
        )

    def inputs(self) -> dict[str, NDArray]:
        """The columns that a model reads as they are: float32, or bytes as objects, [n] each."""
        dataset = self.dataset
        numeric = (dataset.amount, *dataset.numeric) if dataset.amount else dataset.numeric
        read: dict[str, NDArray] = {name: self.numbers[name].astype(np.float32) for name in numeric}
        for name in dataset.categorical:
            texts = [(text or "").encode() for text in self.texts[name]]
            read[name] = np.array(texts, object)
        return read

    def only(self, mask: NDArray[np.bool_]) -> RawTransactions:
        """Those in a mask, [n]."""
        rows = np.flatnonzero(mask).tolist()
        return RawTransactions(
            [self.ids[row] for row in rows],
            None if self.times is None else self.times[mask],
            {name: numbers[mask] for name, numbers in self.numbers.items()},
            {name: [texts[row] for row in rows] for name, texts in self.texts.items()},
            self.dataset,
        )


def parse_transactions(rows: Any, dataset: Dataset) -> RawTransactions:
    """Checks and converts transactions.

    Every column of the dataset but the label must be given; null means that a number or category is
    missing. Columns that are only `slices` may be left out. Other fields are ignored.

    Args:
      rows: the decoded JSON: a list of objects.
      dataset: the columns and their roles.

    Raises:
      BadInput: naming index, field and fix.
    """
    rows = _objects(rows, "transactions")
    times: NDArray[np.datetime64] | None = None
    numbers: dict[str, NDArray[np.float64]] = {}
    texts: dict[str, list[str | None]] = {}
    optional = set(dataset.slices) - {*dataset.entities, *dataset.numeric, *dataset.categorical}
    for name in dataset.columns:
        if name in (dataset.label, dataset.label_time):
            continue
        field = _Field("transactions", name, rows)
        missing = _NULL_IF_UNKNOWN
        if name in (dataset.id, dataset.timestamp, *dataset.entities):
            missing = "send it; every transaction needs one"
        given = field.values_or_none() if name in optional else field.values(missing)
        if name == dataset.timestamp:
            times = _times(given, dataset, field)
        elif name in (dataset.amount, *dataset.numeric):
            is_amount = name == dataset.amount
            largest = LARGEST if is_amount else LARGEST_NUMBER
            numbers[name] = _numbers(given, largest, field, booleans=not is_amount)
        elif name in (dataset.id, *dataset.entities):
            identifiers = [_identifier(value, row, field) for row, value in enumerate(given)]
            texts[name] = field.texts(identifiers)
        else:
            texts[name] = field.texts([_category(v, row, field) for row, v in enumerate(given)])
    ids = [row[dataset.id] for row in rows] if dataset.id else [None] * len(rows)
    return RawTransactions(ids, times, numbers, texts, dataset)


def other_entities(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, list[str | None]]:
    """Entities that the live model does not know but the state remembers, for versions to come.

    Args:
      rows: the transactions as they were sent, which have passed `parse_transactions`.
      names: the entities.

    Returns:
      Their identifiers, [n] each; None where there is none, as nobody has to send such columns.
    """
    return {name: [_identifier_or_none(row.get(name)) for row in rows] for name in names}


def parse_labels(rows: Any, dataset: Dataset) -> Labels:
    """Checks and converts labels, `{"id", "label", "known_at"}` each.

    `known_at` is optional: without it, a label becomes known now. A date means the end of its day.

    Raises:
      BadInput: naming index, field and fix.
    """
    rows = _objects(rows, "labels")
    of_id, of_label = _Field("labels", "id", rows), _Field("labels", "label", rows)
    given_ids = of_id.values("send the id of the transaction")
    ids = [_identifier(value, row, of_id) for row, value in enumerate(given_ids)]
    labels = of_label.values("send 1 (fraud) or 0 (genuine)")
    for row, label in enumerate(labels):
        if type(label) is not int or label not in (0, 1):
            of_label.refuse(row, f"is {_shown(label)}; it must be 1 (fraud) or 0 (genuine)")
    of_time = _Field("labels", "known_at", rows)
    times = of_time.values_or_none()
    known_at = np.full(len(rows), np.datetime64("NaT"), "datetime64[us]")
    given = [row for row, value in enumerate(times) if value is not None]
    if given:
        for row in given:
            if not _may_be_time(times[row], dataset):
                of_time.refuse(row, f"is {_shown(times[row])}, not a time; write ISO 8601")
            if not str(times[row]).strip():
                of_time.refuse(
                    row,
                    "is empty; write ISO 8601, or leave it out if the label became known just now",
                )
        texts = pa.array([str(times[row]) for row in given], pa.string())
        ends = values.ends_of_dates(texts).to_pylist()
        some = _Field("labels", "known_at", [rows[row] for row in given], tuple(given))
        known_at[given] = _times(ends, dataset, some)
    return Labels(ids, labels, known_at)


@dataclass(frozen=True)
class _Field:
    """One field of all objects of a request.

    Attributes:
      of: the name of the list.
      name: the field.
      rows: the objects, [n].
      positions: their indices in the request; None for 0, 1, …
    """

    of: str
    name: str
    rows: Sequence[dict[str, Any]]
    positions: tuple[int, ...] | None = None

    def refuse(self, row: int, problem: str) -> NoReturn:
        """Raises a BadInput that names the index and the field."""
        index = row if self.positions is None else self.positions[row]
        problem = problem.removeprefix(f"{self.name} ")
        raise BadInput(f"{self.of}[{index}].{self.name}: {problem}") from None

    def values_or_none(self) -> list[Any]:
        """The values, [n]; None where absent."""
        return [row.get(self.name) for row in self.rows]

    def values(self, fix: str) -> list[Any]:
        """The values, [n]; the fix is said where one is absent."""
        try:
            return [row[self.name] for row in self.rows]
        except KeyError:
            row = next(i for i, row in enumerate(self.rows) if self.name not in row)
            self.refuse(row, f"missing; {fix}")

    def texts(self, texts: Sequence[str | None]) -> list[str | None]:
        """Text that is not too long and can be encoded; "" becomes None."""
        for row, text in enumerate(texts):
            if text is not None and len(text) > LONGEST_TEXT:
                self.refuse(row, f"has {len(text):,} characters; the most are {LONGEST_TEXT:,}")
        try:
            "".join(filter(None, texts)).encode()
        except UnicodeEncodeError as error:
            wrong = error.object[error.start]
            row = next(row for row, text in enumerate(texts) if text and wrong in text)
            self.refuse(row, f"{wrong!r} is not a character; remove it")
        return [text or None for text in texts]


def _objects(rows: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(rows, list):
        raise BadInput(f"{name}: expected a list of objects")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise BadInput(f"{name}[{index}]: expected an object, got {_shown(row)}")
    return rows


def _times(given: list[Any], dataset: Dataset, field: _Field) -> NDArray[np.datetime64]:
    """Times as datetime64[us] in UTC: in ISO 8601, or as the dataset writes them.

    Without `dataset.time_format`, that is as whole numbers since 1970.
    """
    for row, value in enumerate(given):
        if not _may_be_time(value, dataset):
            shown = "null" if value is None else _shown(value)
            field.refuse(row, f"is {shown}; write a time as 2018-04-01T13:45:00Z")
    texts = field.texts([str(value) for value in given])
    if dataset.time_format is None:
        usual = _usual_times(texts, dataset.timezone)
        if usual is not None:
            return usual
    column = pa.array(texts, pa.string())
    try:
        return _parsed_times(column, dataset, field).to_numpy()
    except BadInput:
        if len(given) == 1:
            raise
    # Each may be in a form of its own, such as with and without an offset.
    parsed = []
    for row in range(len(given)):
        index = row if field.positions is None else field.positions[row]
        alone = _Field(field.of, field.name, field.rows[row : row + 1], (index,))
        parsed.append(_parsed_times(column.slice(row, 1), dataset, alone))
    return pa.concat_arrays(parsed).to_numpy()


def _usual_times(texts: list[str | None], timezone: str) -> NDArray[np.datetime64] | None:
    """Times in ISO 8601 and UTC as `values.times` parses them, but sooner.

    None if one is in another form or does not exist.
    """
    usual = _ISO_UTC if timezone == UTC else _ISO_Z
    if not all(text and usual.fullmatch(text) for text in texts):
        return None
    try:
        return np.array([text.rstrip("Z") for text in texts if text], "datetime64[us]")
    except ValueError:  # February 30
        return None


def _may_be_time(value: Any, dataset: Dataset) -> bool:
    """Whether a value is of a type that times have."""
    is_fraction = isinstance(value, float) and dataset.time_format in TIME_UNITS
    return isinstance(value, str) or _is_int(value) or is_fraction


def _parsed_times(texts: pa.Array, dataset: Dataset, field: _Field) -> pa.Array:
    try:
        written = values.formatted(texts, field.name, dataset.time_format, field)
    except BadInput:
        if not all(_ISO.match(text) for text in texts.to_pylist()):
            raise
        written = texts
    return values.times(written, field.name, dataset.timezone, field)


def _numbers(
    given: list[Any], largest: float, field: _Field, booleans: bool
) -> NDArray[np.float64]:
    """Numbers, NaN where null, [n]; true is 1, as in ingestion, if booleans are accepted."""
    for row, value in enumerate(given):
        if value is None:
            continue
        if not isinstance(value, (int, float)) or (isinstance(value, bool) and not booleans):
            field.refuse(row, f"is {_shown(value)}, not a number; send null if it is unknown")
        if not abs(value) <= largest:  # also if it is NaN
            shown = f"{value:g}" if isinstance(value, float) else _shown(value)
            field.refuse(row, f"is {shown}, beyond ±{largest:g}; send null if it is unknown")
    return np.array([math.nan if value is None else value for value in given], np.float64)


def _identifier(value: Any, row: int, field: _Field) -> str:
    """An identifier as text: 7, 7.0 and "7.0" are "7", and "007" stays."""
    if _is_int(value):
        return str(value)
    if isinstance(value, str) and value:
        return values.identifier(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    shown = "empty" if value in (None, "") else _shown(value)
    field.refuse(row, f"is {shown}; send a whole number or text")


def _identifier_or_none(value: Any) -> str | None:
    try:
        return _identifier(value, 0, _Field("transactions", "", ()))
    except BadInput:
        return None


def _category(value: Any, row: int, field: _Field) -> str | None:
    """A category as text, None where null."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, int)):
        return str(value).lower()  # true, as Arrow writes it
    if isinstance(value, float) and math.isfinite(value):
        one = values.names(pa.array([value]), pa.string(), False, field.name, _At(field, row))
        return one[0].as_py()
    field.refuse(row, f"is {_shown(value)}; send text, a number, true, false or null")


@dataclass(frozen=True)
class _At:
    """A single row of a field, as origin of a message about row 0."""

    field: _Field
    row: int

    def refuse(self, row: int, problem: str) -> NoReturn:
        self.field.refuse(self.row, problem)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """A value for a message, never long."""
    if isinstance(value, int) and abs(value) > 10**40:
        return "a number of too many digits"
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"

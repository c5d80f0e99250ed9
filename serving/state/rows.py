"""What goes into the state and comes out of it, and how it is laid out in bytes."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.features.history import LARGEST

Name = int | str
"""An identifier. 7 and "7" are the same, as they would be in a file."""

KEY_BYTES = 16
NO_KEY = bytes(KEY_BYTES)
"""The key of an entity that a transaction does not have."""

NOT_KNOWN = -1
"""The label of a row whose label is not known."""

_NAT = np.datetime64("NaT").astype(np.int64)

_EPOCH = 2**62
"""Added to microseconds since 1970, so that stored times sort as bytes."""

HEAD = np.dtype([("time", ">i8"), ("amount", "<f8"), ("label", "i1"), ("known", "<i8")])
"""What is stored of a transaction."""

STORED = np.dtype([("key", f"S{KEY_BYTES}"), *HEAD.descr, ("id", "S8")])
"""A row of an entity, after the entity's key. The id tells rows apart that are otherwise equal."""

ROW_BYTES = STORED.itemsize - KEY_BYTES


class Outcome(enum.Enum):
    """What became of a transaction. Features are computed whatever the outcome."""

    NEW = "new"
    """Recorded."""
    LATE = "late"
    """Recorded, but it came so late that some of the history of its time may have expired."""
    REPEATED = "repeated"
    """Recorded before with the same values, and not again."""
    CONFLICT = "conflict"
    """Not recorded: its id was recorded before with another time, amount or entity."""
    FUTURE = "future"
    """Not recorded: its time is further ahead of the clock than clocks differ."""
    EXPIRED = "expired"
    """Not recorded: it is older than all that is kept."""

    @property
    def recorded(self) -> bool:
        """Whether the transaction was recorded by this call."""
        return self in (Outcome.NEW, Outcome.LATE)


class LabelOutcome(enum.Enum):
    """What became of a label."""

    NEW = "new"
    """Recorded."""
    REPEATED = "repeated"
    """The same was recorded before, or another that became known later; nothing changed."""
    CORRECTED = "corrected"
    """It replaced a different label of its transaction."""
    UNKNOWN = "unknown"
    """Not recorded: no such transaction, or it has expired."""


@dataclass(frozen=True)
class Transactions:
    """Transactions as they arrive, in any order.

    Attributes:
      timestamps: datetime64[us] in UTC, [n].
      amounts: NaN where missing, [n]; None if the data has no amount.
      entities: column → identifiers, None where missing, [n] each. numpy and Arrow arrays will do.
      ids: identifiers of the transactions, [n]; None if they have none, in which case they cannot
        be recognised when they are repeated, nor labelled.
    """

    timestamps: NDArray[np.datetime64]
    amounts: NDArray[np.float64] | None
    entities: Mapping[str, Sequence[Name | None] | NDArray | Any]
    ids: Sequence[Name | None] | NDArray | Any | None

    def __len__(self) -> int:
        return len(self.timestamps)


@dataclass(frozen=True)
class Labels:
    """Labels as they arrive.

    Attributes:
      ids: the transactions, [n].
      labels: 1 for fraud, 0 for genuine, [n].
      known_at: when each became known, datetime64[us] in UTC, [n]; NaT or None means now. Counts
        only in features of data with `dataset.label_time`, as in batch.
    """

    ids: Sequence[Name] | NDArray | Any
    labels: Sequence[int] | NDArray
    known_at: NDArray[np.datetime64] | None = None


def keys_of(column: str, names: Iterable[Name | None] | Any) -> list[bytes]:
    """The keys of the values of a column, NO_KEY where missing.

    A hash, so that keys have the same length whatever the identifiers.

    Raises:
      BadInput: a value is neither a whole number nor text.
    """
    listed = names.to_pylist() if hasattr(names, "to_pylist") else names
    listed = listed.tolist() if isinstance(listed, np.ndarray) else listed
    prefix = hashlib.blake2b(column.encode() + b"\0", digest_size=KEY_BYTES)
    keys = []
    for row, name in enumerate(listed):
        if name is None or name == "":
            keys.append(NO_KEY)
            continue
        if type(name) is int:
            name = str(name)
        elif not isinstance(name, str):
            raise BadInput(
                f"row {row}: {column} is {name!r}; identifiers are whole numbers or text"
            )
        key = prefix.copy()
        key.update(name.encode())
        keys.append(key.digest())
    return keys


def column_keys(column: str, names: Any) -> NDArray:
    """As `keys_of`, as an array of dtype S16, [n]; of equal names in an Arrow array, once."""
    codes = None
    if hasattr(names, "dictionary_encode"):
        encoded = names.dictionary_encode()
        encoded = encoded.combine_chunks() if hasattr(encoded, "combine_chunks") else encoded
        codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy()
        names = [*encoded.dictionary.to_pylist(), None]
    keys = np.frombuffer(b"".join(keys_of(column, names)), f"S{KEY_BYTES}")
    return keys if codes is None else keys[codes]


def heads(transactions: Transactions) -> NDArray:
    """What is stored of each transaction, of dtype HEAD, [n]; no label is known yet.

    Raises:
      BadInput: a timestamp is missing or an amount is too large.
    """
    times = np.asarray(transactions.timestamps).astype("datetime64[us]")
    if np.isnat(times).any():
        row = int(np.isnat(times).argmax())
        raise BadInput(f"row {row} has no timestamp; every transaction needs one")
    amounts = transactions.amounts
    amounts = np.full(len(times), np.nan) if amounts is None else np.asarray(amounts, float)
    if (np.abs(amounts) > LARGEST).any():
        row = int((np.abs(amounts) > LARGEST).argmax())
        raise BadInput(f"row {row} has the amount {amounts[row]:g}, beyond ±{LARGEST:g}")
    head = np.empty(len(times), HEAD)
    head["time"] = times.astype(np.int64) + _EPOCH
    head["amount"] = amounts
    head["label"] = NOT_KNOWN
    head["known"] = _NAT
    return head


def row_of(transaction_key: bytes, head: bytes) -> bytes:
    """The row that each entity of a transaction gets."""
    return head + transaction_key[:8]


def entities_of(stored: bytes) -> list[bytes]:
    """The keys of the entities that a transaction, as `Entry.stored`, has."""
    starts = range(HEAD.itemsize, len(stored), KEY_BYTES)
    keys = [stored[start : start + KEY_BYTES] for start in starts]
    return [key for key in keys if key != NO_KEY]


def time_of(stored: bytes) -> int:
    """The time of a transaction, as it is stored."""
    return int.from_bytes(stored[:8], "big")


def with_label_of(stored: bytes, other: bytes) -> bytes | None:
    """The head of an unlabelled transaction with the label of another; None if there is none."""
    at = slice(16, HEAD.itemsize)  # label and known
    unknown = NOT_KNOWN.to_bytes(1, "little", signed=True)
    if stored[16:17] != unknown or other[16:17] == unknown:
        return None
    return stored[:16] + other[at]


def times_of(stored: NDArray) -> NDArray[np.datetime64]:
    """The times of rows of dtype HEAD or STORED, [rows]."""
    return (stored["time"].astype(np.int64) - _EPOCH).view("datetime64[us]")


def stored_time(time: np.datetime64) -> int:
    """A time as it is stored."""
    return int(time.astype("datetime64[us]").astype(np.int64)) + _EPOCH


def time_or_none(stored: int) -> np.datetime64 | None:
    """The time that is stored so; None for 0, which is of none."""
    return np.datetime64(stored - _EPOCH, "us") if stored else None


def labels_of(stored: NDArray) -> NDArray[np.float64]:
    """The labels of rows, NaN where not known, [rows]."""
    label = stored["label"]
    return np.where(label == NOT_KNOWN, np.nan, label)


def known_of(stored: NDArray) -> NDArray[np.datetime64]:
    """When the labels of rows became known, NaT where they did not, [rows]."""
    return stored["known"].astype(np.int64).view("datetime64[us]")


def labelled(
    head: bytes, label: int, known: np.datetime64, now: np.datetime64
) -> tuple[LabelOutcome, bytes]:
    """What a label does to a transaction, and what is then stored of it.

    Args:
      head: of the transaction.
      label: 1 or 0.
      known: when it became known; NaT for now, or, for a transaction that is ahead of this clock,
        with it.
      now: the time.

    Raises:
      BadInput: it became known before the transaction.
    """
    stored = np.frombuffer(head, HEAD).copy()
    if np.isnat(known):
        known = max(now, times_of(stored)[0])
    if known < times_of(stored)[0]:
        raise BadInput(f"the label became known at {known}, before its transaction")
    before = int(stored["label"][0])
    if before == label or (before != NOT_KNOWN and known < known_of(stored)[0]):
        return LabelOutcome.REPEATED, head
    stored["label"] = label
    stored["known"] = known.astype("datetime64[us]").astype(np.int64)
    outcome = LabelOutcome.NEW if before == NOT_KNOWN else LabelOutcome.CORRECTED
    return outcome, stored.tobytes()

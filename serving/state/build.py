"""Fills a state with history, at columnar speed, and replaces the one in use by it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.serving.state import rows
from fraud.serving.state.definition import StateDefinition
from fraud.serving.state.rows import HEAD, Transactions

T = TypeVar("T")

Change = tuple[bytes, bytes]
"""(key, `Entry.stored`) of a transaction."""


@dataclass(frozen=True)
class Loaded:
    """Transactions as columns of what is stored.

    Attributes:
      keys: of the transactions, of dtype S16, [n].
      heads: of dtype HEAD, [n].
      entities: the keys of each entity column, in the order of the definition, S16 [n] each.
    """

    keys: NDArray
    heads: NDArray
    entities: tuple[NDArray, ...]

    @classmethod
    def joined(cls, parts: Sequence[Loaded], definition: StateDefinition) -> Loaded:
        """All parts in one, sorted by key.

        Raises:
          BadInput: an id occurs twice.
        """
        keys = _joined([part.keys for part in parts], np.dtype(f"S{rows.KEY_BYTES}"))
        order = np.argsort(keys)
        keys = keys[order]
        if repeated := int((keys[1:] == keys[:-1]).sum()):
            raise BadInput(
                f"{repeated:,} transactions have the {definition.id} of another; an id must be "
                "unique, as labels and repetitions are recognised by it"
            )
        heads = _joined([part.heads for part in parts], HEAD)[order]
        entities = [
            _joined([part.entities[i] for part in parts], keys.dtype)[order]
            for i in range(len(definition.entities))
        ]
        return cls(keys, heads, tuple(entities))

    @property
    def stored(self) -> list[bytes]:
        """`Entry.stored` of each transaction, [n]."""
        columns = [(f"entity {i}", column.dtype) for i, column in enumerate(self.entities)]
        block = np.empty(len(self.keys), [("head", HEAD), *columns])
        block["head"] = self.heads
        for (name, _), column in zip(columns, self.entities, strict=True):
            block[name] = column
        return as_bytes(block)

    @property
    def entity_rows(self) -> NDArray:
        """The rows of all entities, of dtype STORED, sorted by key and time, [rows]."""
        parts = []
        ids = self.keys.view("S8").reshape(-1, 2)[:, 0]
        for column in self.entities:
            has = column != b""
            part = np.empty(int(has.sum()), rows.STORED)
            part["key"], part["id"] = column[has], ids[has]
            for name in HEAD.names or ():
                part[name] = self.heads[name][has]
            parts.append(part)
        joined = _joined(parts, rows.STORED)
        return joined[np.argsort(joined.view(f"S{rows.STORED.itemsize}"))]


class Rebuild(Protocol):
    """A new generation of a state, beside the one in use.

    Attributes:
      definition: what the new one is to remember.
      current: what the one in use remembers; None if there is none.
    """

    definition: StateDefinition
    current: StateDefinition | None

    def load(self, loaded: Loaded) -> None:
        """Fills the new generation, which is empty."""
        ...

    def changes(self) -> Iterator[list[Change]]:
        """The transactions of the generation in use, batch by batch; none if there is none.

        First all of them; then, batch by batch too, those that changed meanwhile.
        """
        ...

    def stored(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Transactions of the new generation."""
        ...

    def put(self, changes: Sequence[Change]) -> None:
        """Adds transactions to the new generation, or replaces what is stored of them."""
        ...

    def replacing(self) -> AbstractContextManager[Iterable[list[Change]]]:
        """The last changes, after which there are none, since at the end the new generation is
        in use.
        """
        ...


def columns_to_load(
    definition: StateDefinition,
    transactions: Transactions,
    labels: NDArray[np.float64],
    known: NDArray[np.datetime64],
) -> Loaded:
    """Transactions of history, as what is stored of them.

    Args:
      definition: the state to be filled.
      transactions: with ids; entities and ids best as Arrow arrays.
      labels: 1, 0 or NaN where not known, [n].
      known: when each label became known, NaT where that is not known, [n].

    Raises:
      BadInput: as in `State.record`.
    """
    heads = rows.heads(transactions)
    has_label = ~np.isnan(labels)
    heads["label"][has_label] = labels[has_label]
    heads["known"] = np.where(has_label, known, np.datetime64("NaT")).astype(np.int64)
    entities = [rows.column_keys(name, transactions.entities[name]) for name in definition.entities]
    if transactions.ids is None:
        keys = np.frombuffer(np.random.bytes(rows.KEY_BYTES * len(heads)), f"S{rows.KEY_BYTES}")
    else:
        keys = rows.column_keys("", transactions.ids)
    return Loaded(keys, heads, tuple(entities))


def fill(rebuild: Rebuild, parts: Sequence[Loaded], until: np.datetime64) -> int:
    """Loads history, adds what the server has recorded since, and puts the state into use.

    Of the generation in use, transactions from `until` on are carried over, and the labels that the
    history does not have: until the last moment, so that nothing is lost that is recorded
    meanwhile. In all else, the history is right. If the generation in use is of other columns,
    nothing is carried over.

    Args:
      rebuild: the new generation.
      parts: the history.
      until: the first moment after the history, in UTC.

    Returns:
      The number of transactions carried over.

    Raises:
      BadInput: an id occurs twice. The generation in use remains.
    """
    rebuild.load(Loaded.joined(parts, rebuild.definition))
    limit = rows.stored_time(until)
    carried = sum(_carry(rebuild, changes, limit) for changes in rebuild.changes())
    with rebuild.replacing() as last:
        return carried + sum(_carry(rebuild, changes, limit) for changes in last)


def _carry(rebuild: Rebuild, changes: Sequence[Change], limit: int) -> int:
    """Carries transactions and labels over, returns the number of transactions."""
    current, definition = rebuild.current, rebuild.definition
    if current is None or not definition.same_data(current):
        return 0
    added, labelled = [], []
    present = rebuild.stored([key for key, _ in changes])
    for (key, stored), known in zip(changes, present, strict=True):
        if known is None:
            if rows.time_of(stored) >= limit:
                added.append((key, _for_entities(stored, current, definition)))
        elif (head := rows.with_label_of(known, stored)) is not None:
            labelled.append((key, head + known[HEAD.itemsize :]))
    rebuild.put(added + labelled)
    return len(added)


def _for_entities(stored: bytes, current: StateDefinition, definition: StateDefinition) -> bytes:
    """A transaction with the entities of another definition; those it did not have are missing."""
    if current.entities == definition.entities:
        return stored
    size = rows.KEY_BYTES
    starts = range(HEAD.itemsize, len(stored), size)
    keys = dict(zip(current.entities, (stored[at : at + size] for at in starts), strict=True))
    named = (keys.get(entity, rows.NO_KEY) for entity in definition.entities)
    return stored[: HEAD.itemsize] + b"".join(named)


def _joined(parts: Sequence[NDArray], dtype: np.dtype) -> NDArray:
    """Arrays of a dtype in one; np.concatenate would change the byte order of fields."""
    return np.frombuffer(b"".join(part.tobytes() for part in parts), dtype)


def as_bytes(array: NDArray) -> list[bytes]:
    """The bytes of each element, trailing zeros included."""
    return array.view(f"V{array.dtype.itemsize}").tolist()


def batches(items: Iterable[T], size: int = 1000) -> Iterator[list[T]]:
    """Items in lists of at most `size`."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch

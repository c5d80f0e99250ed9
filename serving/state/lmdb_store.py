"""The state in a folder of this machine, in LMDB.

::

    FOLDER/current -> 20180731-1      the generation in use; `state build` replaces it atomically
    FOLDER/20180731-1/data.mdb        transactions by key, and rows by entity

The rows of an entity are duplicates of one key, sorted by time, which LMDB reads and appends to
without touching the others.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from fraud.codec import from_json, to_json
from fraud.errors import BadInput, FraudPipelineError
from fraud.files import sync_tree
from fraud.serving.state import rows
from fraud.serving.state.definition import StateDefinition
from fraud.serving.state.rows import LabelOutcome
from fraud.serving.state.store import Entry

CURRENT = "current"

MAP_SIZE = 1 << 36
"""The most bytes that the file may grow to; address space, not memory or disk."""

_READERS = 1024
_EXPIRED_AT_ONCE = 1000
"""Transactions looked at in one write transaction, during which others wait for milliseconds."""

_DEFINITION, _NEWEST, _MOVED = b"definition", b"newest", b"moved"
_HEAD_BYTES = rows.HEAD.itemsize


@dataclass
class Generation:
    """An open LMDB file. A process may open a file only once, so all its users share this.

    Attributes:
      path: its folder.
      users: how many there are; the last one closes it.
    """

    path: Path
    env: lmdb.Environment
    meta: lmdb._Database = field(init=False)
    ids: lmdb._Database = field(init=False)
    entity_rows: lmdb._Database = field(init=False)
    users: int = 1

    def __post_init__(self) -> None:
        self.meta = self.env.open_db(b"meta")
        self.ids = self.env.open_db(b"ids")
        self.entity_rows = self.env.open_db(b"rows", dupsort=True, dupfixed=True)


_generations: dict[Path, Generation] = {}
_generations_lock = threading.Lock()


def acquire(path: Path) -> Generation:
    """Opens the LMDB file of a folder, or uses it if this process has it open."""
    with _generations_lock:
        if generation := _generations.get(path):
            generation.users += 1
            return generation
        env = lmdb.open(str(path), map_size=MAP_SIZE, max_dbs=3, max_readers=_READERS)
        generation = _generations[path] = Generation(path, env)
        return generation


def release(generation: Generation) -> None:
    """Closes the file if this was its last user."""
    with _generations_lock:
        generation.users -= 1
        if not generation.users:
            generation.env.close()
            del _generations[generation.path]


class LmdbStore:
    """A `StateStore` in a folder."""

    def __init__(self, folder: Path):
        """Opens the current generation.

        Raises:
          BadInput: there is no state.
        """
        self._folder = folder
        self._lock = threading.Lock()
        self._generation = self._open()
        self._definition = self._read_definition(self._generation)

    @classmethod
    def create(cls, folder: Path, definition: StateDefinition) -> LmdbStore:
        """Makes an empty state, unless there is one, and opens it.

        Raises:
          BadInput: the folder cannot be used.
        """
        if not (folder / CURRENT).exists():
            path = new_generation(folder)
            generation = acquire(path)
            with generation.env.begin(write=True) as txn:
                write_definition(txn, generation, definition)
            release(generation)
            # Another process may have been faster: then its state is the one.
            try:
                os.symlink(path.name, folder / CURRENT)
                sync_tree(folder, recurse=False)
            except FileExistsError:
                shutil.rmtree(path)
        return cls(folder)

    @property
    def definition(self) -> StateDefinition:
        """See `StateStore`."""
        return self._definition

    def newest(self) -> int:
        """See `StateStore`."""
        with self._begin() as (txn, generation):
            return int(txn.get(_NEWEST, b"0", db=generation.meta))

    def exchange(self, entries: Sequence[Entry]) -> tuple[list[bytes | None], NDArray]:
        """See `StateStore`."""
        entities = sorted({key for entry in entries for key in entry.entities} - {rows.NO_KEY})
        with self._begin(write=any(entry.record for entry in entries)) as (txn, generation):
            cursor = txn.cursor(generation.entity_rows)
            stored = cursor.getmulti(
                entities, dupdata=True, dupfixed_bytes=rows.ROW_BYTES, keyfixed=True
            )
            before: list[bytes | None] = []
            newest = 0
            for entry in entries:
                known = _get(txn, entry.key, generation.ids)
                before.append(known)
                if known is not None or not entry.record:
                    continue
                txn.put(entry.key, entry.stored, db=generation.ids)
                row = rows.row_of(entry.key, entry.head)
                for entity in entry.entities:
                    if entity != rows.NO_KEY:
                        txn.put(entity, row, db=generation.entity_rows)
                newest = max(newest, int.from_bytes(entry.head[:8], "big"))
            if newest > int(txn.get(_NEWEST, b"0", db=generation.meta)):
                txn.put(_NEWEST, str(newest).encode(), db=generation.meta)
        return before, np.frombuffer(stored, rows.STORED)

    def label(
        self, keys: Sequence[bytes], labels: Sequence[int], known: NDArray[np.datetime64]
    ) -> list[LabelOutcome]:
        """See `StateStore`."""
        outcomes = []
        with self._begin(write=True) as (txn, generation):
            for row, (key, label, moment) in enumerate(zip(keys, labels, known, strict=True)):
                stored = _get(txn, key, generation.ids)
                if stored is None:
                    outcomes.append(LabelOutcome.UNKNOWN)
                    continue
                head, entities = stored[:_HEAD_BYTES], stored[_HEAD_BYTES:]
                try:
                    outcome, labelled = rows.labelled(head, label, moment)
                except BadInput as error:
                    raise BadInput(f"row {row}: {error}") from None
                outcomes.append(outcome)
                if labelled == head:
                    continue
                txn.put(key, labelled + entities, db=generation.ids)
                old, new = rows.row_of(key, head), rows.row_of(key, labelled)
                for entity in _entities(entities):
                    # A row that has expired stays so.
                    if txn.delete(entity, old, db=generation.entity_rows):
                        txn.put(entity, new, db=generation.entity_rows)
        return outcomes

    def expire(self, before: int) -> int:
        """See `StateStore`."""
        expired, start = 0, b""
        while True:
            with self._begin(write=True) as (txn, generation):
                cursor = txn.cursor(generation.ids)
                if not cursor.set_range(start):
                    return expired
                old = []
                for _, item in zip(range(_EXPIRED_AT_ONCE), cursor, strict=False):
                    key, stored = map(bytes, item)
                    start = key + b"\0"
                    if int.from_bytes(stored[:8], "big") < before:
                        old.append((key, stored))
                for key, stored in old:
                    txn.delete(key, db=generation.ids)
                    row = rows.row_of(key, stored[:_HEAD_BYTES])
                    for entity in _entities(stored[_HEAD_BYTES:]):
                        txn.delete(entity, row, db=generation.entity_rows)
                expired += len(old)

    def close(self) -> None:
        """See `StateStore`."""
        release(self._generation)

    @contextmanager
    def _begin(self, write: bool = False) -> Iterator[tuple[lmdb.Transaction, Generation]]:
        """A transaction in the current generation, which is committed to disk at the end."""
        while True:
            with self._lock:
                generation = self._generation
            try:
                with generation.env.begin(write=write) as txn:
                    if txn.get(_MOVED, db=generation.meta) is None:
                        yield txn, generation
                        return
            except lmdb.MapFullError:
                raise FraudPipelineError(
                    f"{self._folder}: the state has reached {MAP_SIZE >> 30} GB; rebuild it with "
                    "fewer days: fraud-pipeline state build"
                ) from None
            except lmdb.DiskError as error:
                raise FraudPipelineError(f"{self._folder}: {error}; free some space") from None
            self._reopen(generation)

    def _reopen(self, moved: Generation) -> None:
        with self._lock:
            if self._generation is moved:
                self._generation = self._open()
                self._definition = self._read_definition(self._generation)
                release(moved)

    def _open(self) -> Generation:
        with suppress(OSError, lmdb.Error):
            return acquire((self._folder / CURRENT).resolve(strict=True))
        raise BadInput(f"{self._folder}: no state; build it: fraud-pipeline state build")

    def _read_definition(self, generation: Generation) -> StateDefinition:
        with generation.env.begin() as txn:
            return from_json(StateDefinition, txn.get(_DEFINITION, b"", db=generation.meta))


def new_generation(folder: Path) -> Path:
    """Makes an empty folder for a generation."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1 << 30):
        path = folder / f"generation-{number}"
        with suppress(FileExistsError):
            path.mkdir()
            return path.resolve()
    raise AssertionError


def write_definition(
    txn: lmdb.Transaction, generation: Generation, definition: StateDefinition
) -> None:
    """Writes what a generation remembers."""
    txn.put(_DEFINITION, to_json(definition).encode(), db=generation.meta)


def _get(txn: lmdb.Transaction, key: bytes, db: lmdb._Database) -> bytes | None:
    value = txn.get(key, db=db)
    return None if value is None else bytes(value)


def _entities(keys: bytes) -> list[bytes]:
    size = rows.KEY_BYTES
    listed = [keys[start : start + size] for start in range(0, len(keys), size)]
    return [key for key in listed if key != rows.NO_KEY]

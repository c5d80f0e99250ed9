"""Rebuilds the state in a folder. See `lmdb_store` for the layout."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import lmdb
import numpy as np

from fraud.errors import BadInput
from fraud.files import sync_tree
from fraud.serving.state import lmdb_store, rows
from fraud.serving.state.build import Change, Loaded, as_bytes, batches
from fraud.serving.state.definition import StateDefinition
from fraud.serving.state.lmdb_store import Generation

_LOADED_AT_ONCE = 200_000


class LmdbRebuild:
    """A `Rebuild` in a folder."""

    def __init__(self, folder: Path, current: Generation | None, new: Generation):
        self._folder, self._current, self._new = folder, current, new
        self.definition = new.definition
        self.current = None if current is None else current.definition

    def load(self, loaded: Loaded) -> None:
        """See `Rebuild`."""
        keys = as_bytes(loaded.keys)
        self._append(self._new.transactions, keys, loaded.stored)
        if keys:
            newest = int(loaded.heads["time"].max())
            with self._new.env.begin(write=True) as txn:
                lmdb_store.raise_newest(txn, self._new, newest)
        hours = (loaded.heads["time"].astype(np.int64) // lmdb_store.HOUR).astype(">i8")
        by_hour = np.argsort(hours, kind="stable")
        hour_keys = as_bytes(loaded.keys[by_hour])
        self._append(self._new.hours, as_bytes(hours[by_hour]), hour_keys)
        entity_rows = loaded.entity_rows
        whole = np.frombuffer(entity_rows.tobytes(), np.uint8).reshape(-1, rows.STORED.itemsize)
        without_key = np.ascontiguousarray(whole[:, rows.KEY_BYTES :])
        values = as_bytes(without_key.view(f"V{rows.ROW_BYTES}").ravel())
        entity_keys = as_bytes(np.ascontiguousarray(entity_rows["key"]))
        self._append(self._new.entity_rows, entity_keys, values)

    def changes(self) -> Iterator[list[Change]]:
        """See `Rebuild`."""
        if self._current is None:
            return
        lmdb_store.start_journal(self._current)
        start = b""
        while batch := lmdb_store.transactions_from(self._current, start):
            yield batch
            start = batch[-1][0] + b"\0"

    def stored(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Rebuild`."""
        with self._new.env.begin() as txn:
            found = [txn.get(key, db=self._new.transactions) for key in keys]
        return [None if stored is None else bytes(stored) for stored in found]

    def put(self, changes: Sequence[Change]) -> None:
        """See `Rebuild`."""
        with self._new.env.begin(write=True) as txn:
            for key, stored in changes:
                known = txn.get(key, db=self._new.transactions)
                if known is None:
                    lmdb_store.insert(txn, self._new, key, stored)
                    lmdb_store.raise_newest(txn, self._new, rows.time_of(stored))
                else:
                    head = stored[: rows.HEAD.itemsize]
                    lmdb_store.replace_head(txn, self._new, key, bytes(known), head)

    @contextmanager
    def replacing(self) -> Iterator[Iterable[list[Change]]]:
        """See `Rebuild`."""
        if self._current is None:
            yield ()
            self._new.env.sync(True)
        else:
            self._new.env.sync(True)  # nearly all, while nobody waits
            # While this is open, no other process writes.
            with self._current.env.begin(write=True) as txn:
                yield batches(lmdb_store.journaled(txn, self._current))
                self._new.env.sync(True)
                lmdb_store.move(txn, self._current, self._new)
        # Whoever still finds the old generation is told where to go on.
        link = self._folder / f".{lmdb_store.CURRENT}"
        link.unlink(missing_ok=True)
        os.symlink(self._new.path.name, link)
        os.replace(link, self._folder / lmdb_store.CURRENT)
        sync_tree(self._folder, recurse=False)

    def _append(self, db: lmdb._Database, keys: list[bytes], values: list[bytes]) -> None:
        """Adds sorted items after all others."""
        for start in range(0, len(keys), _LOADED_AT_ONCE):
            part = slice(start, start + _LOADED_AT_ONCE)
            items = zip(keys[part], values[part], strict=True)
            with self._new.env.begin(write=True) as txn:
                txn.cursor(db).putmulti(items, append=True)


@contextmanager
def rebuilding(folder: Path, definition: StateDefinition) -> Iterator[LmdbRebuild]:
    """A new generation, which is removed at the end unless it was put into use.

    Raises:
      BadInput: the folder cannot be used, or another process is rebuilding the state.
    """
    with lmdb_store.locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
        if not alone:
            raise BadInput(f"{folder}: another process is building the state; wait for it")
        current = None
        if (folder / lmdb_store.CURRENT).exists():
            current = lmdb_store.open_current(folder)
        new = lmdb_store.acquire(lmdb_store.new_generation(folder, definition))
        try:
            yield LmdbRebuild(folder, current, new)
        finally:
            if current is not None:
                lmdb_store.stop_journal(current)
                lmdb_store.release(current)
            lmdb_store.release(new)
            used = (folder / lmdb_store.CURRENT).resolve()
            for path in folder.glob("generation-*"):
                if path.resolve() != used:
                    with suppress(OSError):
                        shutil.rmtree(path)

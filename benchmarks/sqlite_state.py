"""A prototype of the state in SQLite, which `benchmarks.state` compares with the one in LMDB.

It does all that a fair comparison needs, but neither expiry nor rebuilding. Rows of an entity are
kept in chunks, as one row per row would cost more than reading the chunk.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fraud.serving.state import rows
from fraud.serving.state.definition import StateDefinition
from fraud.serving.state.rows import LabelOutcome
from fraud.serving.state.store import Entry

_SCHEMA = """
    CREATE TABLE transactions (key BLOB PRIMARY KEY, stored BLOB) WITHOUT ROWID;
    CREATE TABLE entities (
        key BLOB, chunk INTEGER, rows BLOB, PRIMARY KEY (key, chunk)
    ) WITHOUT ROWID;
"""
_CHUNK = 64 * rows.ROW_BYTES
_HEAD_BYTES = rows.HEAD.itemsize
_AT_ONCE = 500


class SqliteStore:
    """A `StateStore` in a file, with a write-ahead log."""

    def __init__(self, path: Path, definition: StateDefinition, synchronous: str):
        """Makes an empty state; `synchronous` as SQLite's pragma, "NORMAL" or "FULL"."""
        self.definition = definition
        self._newest = 0
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in (
            "journal_mode=WAL",
            f"synchronous={synchronous}",
            "cache_size=-65536",
            "mmap_size=1073741824",
        ):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_SCHEMA)

    def newest(self) -> int:
        """See `StateStore`."""
        return self._newest

    def exchange(
        self,
        definition: StateDefinition,
        entries: Sequence[Entry],
        choose: Callable[[int], Sequence[bool]] | None,
    ) -> tuple[list[bytes | None], NDArray]:
        """See `StateStore`."""
        chosen = [False] * len(entries) if choose is None else choose(self._newest)
        entities = sorted({key for entry in entries for key in entry.entities} - {rows.NO_KEY})
        with self._transaction(write=any(chosen)) as connection:
            chunks = self._select("key, chunk, rows FROM entities", entities)
            keys = [entry.key for entry in entries]
            known = dict(self._select("key, stored FROM transactions", keys))
            before: list[bytes | None] = []
            new: list[tuple[bytes, bytes]] = []
            added: dict[bytes, bytes] = {}
            for entry, record in zip(entries, chosen, strict=True):
                before.append(known.get(entry.key))
                if before[-1] is not None or not record:
                    continue
                known[entry.key] = entry.stored
                new.append((entry.key, entry.stored))
                self._newest = max(self._newest, rows.time_of(entry.head))
                for key in rows.entities_of(entry.stored):
                    row = rows.row_of(entry.key, entry.head)
                    added[key] = added.get(key, b"") + row
            last = {key: (number, held) for key, number, held in sorted(chunks)}
            put = []
            for key, more in added.items():
                number, held = last.get(key, (0, b""))
                if len(held) >= _CHUNK:
                    number, held = number + 1, b""
                put.append((key, number, held + more))
            connection.executemany("INSERT INTO transactions VALUES (?, ?)", sorted(new))
            connection.executemany("INSERT OR REPLACE INTO entities VALUES (?, ?, ?)", sorted(put))
        chunks.sort()
        block = np.frombuffer(b"".join(held for *_, held in chunks), rows.STORED.descr[1:])
        stored = np.empty(len(block), rows.STORED)
        lengths = [len(held) // rows.ROW_BYTES for *_, held in chunks]
        names = np.array([key for key, *_ in chunks], stored["key"].dtype)
        stored["key"] = np.repeat(names, lengths)
        for name in block.dtype.names or ():
            stored[name] = block[name]
        return before, stored

    def label(
        self,
        keys: Sequence[bytes],
        labels: Sequence[int],
        known: NDArray[np.datetime64],
        now: np.datetime64,
    ) -> list[LabelOutcome]:
        """See `StateStore`."""
        outcomes = []
        with self._transaction(write=True) as connection:
            for key, label, moment in zip(keys, labels, known, strict=True):
                ((_, stored),) = self._select("key, stored FROM transactions", [key])
                outcome, head = rows.labelled(stored[:_HEAD_BYTES], label, moment, now)
                outcomes.append(outcome)
                after = head + stored[_HEAD_BYTES:]
                connection.execute("UPDATE transactions SET stored = ? WHERE key = ?", (after, key))
                old = rows.row_of(key, stored[:_HEAD_BYTES])
                new = rows.row_of(key, head)
                for entity in rows.entities_of(stored):
                    for _, number, held in self._select("key, chunk, rows FROM entities", [entity]):
                        if old in held:
                            connection.execute(
                                "UPDATE entities SET rows = ? WHERE key = ? AND chunk = ?",
                                (held.replace(old, new), entity, number),
                            )
        return outcomes

    def expire(self, before: int) -> int:
        """Not part of the comparison."""
        raise NotImplementedError

    def close(self) -> None:
        """See `StateStore`."""
        self._connection.close()

    def _select(self, what: str, keys: Sequence[bytes]) -> list[tuple]:
        found: list[tuple] = []
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            found += self._connection.execute(f"SELECT {what} WHERE key IN ({marks})", some)
        return found

    @contextmanager
    def _transaction(self, write: bool) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

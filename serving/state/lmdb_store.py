"""The state in a folder of this machine, in LMDB.

::

    FOLDER/current -> generation-2      the generation in use; `state build` replaces the link
    FOLDER/generation-2/data.mdb        its transactions by key, and their rows by entity
    FOLDER/generation-2/boot            exists while a process may have written what is not on disk

The rows of an entity are duplicates of one key, sorted by time: LMDB adds and changes one without
touching the others, and reads all in one call.

What was written is safe from the death of any process as soon as it is in the page cache. It is
flushed to disk every second, or with every call where `survives` is "power". In the former case the
loss of power may not only lose the last second but damage the file, as LMDB relies on the order of
writes. It is thus noticed: the file `boot` names the boot in which the file was last written to.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import lmdb
import numpy as np
from numpy.typing import NDArray

from fraud.codec import from_json, to_json
from fraud.errors import BadInput, FraudPipelineError
from fraud.files import sign, sync_tree
from fraud.serving.state import rows
from fraud.serving.state.definition import StateDefinition
from fraud.serving.state.rows import LabelOutcome
from fraud.serving.state.store import Entry, StateReplaced, vanished

Survives = Literal["kill", "power"]

CURRENT = "current"
BOOT = "boot"
_DATA = "data.mdb"
MAP_SIZE = 1 << 36
"""The most bytes that the file may grow to; of address space, not of memory or disk."""

FLUSH_SECONDS = 1.0

_READERS = 1024
_AT_ONCE = 500
"""Transactions forgotten in one write transaction, during which others wait for milliseconds."""

_DEFINITION, _NEWEST, _MOVED, _JOURNALING = b"definition", b"newest", b"moved", b"journaling"
_HEAD_BYTES = rows.HEAD.itemsize
_TIME_BYTES = 8
HOUR = 3_600_000_000
"""In microseconds."""


class Generation:
    """An open LMDB file. A process may open a file only once, so all its users share this.

    Attributes:
      path: its folder.
      env: the file.
      meta: name → value.
      transactions: key → `Entry.stored`.
      entity_rows: key of an entity → its rows.
      hours: hour, as by `hour_of` → keys of its transactions; tells what has expired.
      journal: keys of the transactions that changed since `carrying` began.
    """

    def __init__(self, path: Path, survives: Survives):
        self.path = path
        self.users = 1
        flush_each = survives == "power" or _boot_id() is None
        self._marker = None if flush_each else _Marker(path / BOOT)
        self.env = lmdb.open(
            str(path),
            map_size=MAP_SIZE,
            max_dbs=5,
            max_readers=_READERS,
            sync=flush_each,
            metasync=flush_each,
        )
        self.env.reader_check()  # killed readers would keep pages from being used again
        self.meta = self.env.open_db(b"meta")
        self.transactions = self.env.open_db(b"transactions")
        self.entity_rows = self.env.open_db(b"rows", dupsort=True, dupfixed=True)
        self.hours = self.env.open_db(b"hours", dupsort=True, dupfixed=True)
        self.journal = self.env.open_db(b"journal")
        self._inode = os.stat(path / _DATA).st_ino
        self._stop = threading.Event()
        self._flusher = threading.Thread(target=self._flush, daemon=True, name="state flusher")
        if not flush_each:
            self._flusher.start()

    @property
    def definition(self) -> StateDefinition:
        """What it remembers."""
        with self.env.begin() as txn:
            return from_json(StateDefinition, bytes(txn.get(_DEFINITION, b"", db=self.meta)))

    def close(self) -> None:
        """Flushes and closes the file."""
        self._stop.set()
        if self._marker is not None:
            self._flusher.join()
            self.env.sync(True)
        self.env.close()
        if self._marker is not None:
            self._marker.close()

    def check_is_there(self) -> None:
        """Checks that the file was not moved away, after which nobody else would see what it gets.

        Raises:
          FraudPipelineError: it was.
        """
        with suppress(FileNotFoundError):
            if os.stat(self.path / _DATA).st_ino == self._inode:
                return
        raise FraudPipelineError(
            f"{self.path.parent}: the state was moved away or deleted while it is in use; start "
            "the server again"
        )

    def _flush(self) -> None:
        flushed = -1
        while not self._stop.wait(FLUSH_SECONDS):
            written = self.env.info()["last_txnid"]
            if written != flushed:
                with suppress(lmdb.Error):  # a full disk: the next write will tell
                    self.env.sync(True)
                    flushed = written


class _Marker:
    """The file `boot` of a generation, locked by each process that may leave writes unflushed."""

    def __init__(self, path: Path):
        self._path = path
        while True:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(self._descriptor).st_ino:
                    break
            os.close(self._descriptor)  # its last user has just removed it
        if not os.fstat(self._descriptor).st_size:
            os.pwrite(self._descriptor, str(_boot_id()).encode(), 0)
            sync_tree(path, recurse=False)
            sync_tree(path.parent, recurse=False)

    def close(self) -> None:
        """Removes the file, as everything is flushed, unless others use it."""
        with suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


_generations: dict[Path, Generation] = {}
_generations_lock = threading.Lock()


def acquire(path: Path, survives: Survives = "kill") -> Generation:
    """Opens the LMDB file of a folder, or uses it if this process has it open.

    Raises:
      FraudPipelineError: the file may be damaged.
    """
    with _generations_lock:
        if generation := _generations.get(path):
            generation.users += 1
            return generation
        marker = path / BOOT
        if marker.exists() and marker.read_text() not in ("", _boot_id()):
            raise FraudPipelineError(
                f"{path.parent}: the machine stopped before the state was flushed, which may have "
                "damaged it; move the folder away and rebuild it: fraud-pipeline state build"
            )
        generation = _generations[path] = Generation(path, survives)
        return generation


def release(generation: Generation) -> None:
    """Closes the file if this was its last user."""
    with _generations_lock:
        generation.users -= 1
        if not generation.users:
            del _generations[generation.path]
            generation.close()


class LmdbStore:
    """A `StateStore` in a folder."""

    def __init__(self, folder: Path, survives: Survives = "kill"):
        """Opens the current generation.

        Args:
          folder: on a disk of this machine.
          survives: "kill" if what was recorded must survive the death of any process, "power" if it
            must survive the loss of power too, which takes a flush of the disk per call.

        Raises:
          BadInput: there is no state.
          FraudPipelineError: it may be damaged.
        """
        self._folder = folder
        self._survives: Survives = survives
        self._lock = threading.Lock()
        self._generation = self._open()
        self._definition = self._generation.definition

    @classmethod
    def create(
        cls, folder: Path, definition: StateDefinition, survives: Survives = "kill"
    ) -> LmdbStore:
        """Makes an empty state, unless there is one, and opens it.

        Raises:
          BadInput: the folder cannot be used.
          FraudPipelineError: the state that there is may be damaged.
        """
        if not (folder / CURRENT).exists():
            with locked(folder, fcntl.LOCK_EX):
                if not (folder / CURRENT).exists():
                    os.symlink(new_generation(folder, definition).name, folder / CURRENT)
                    sync_tree(folder, recurse=False)
        return cls(folder, survives)

    @property
    def definition(self) -> StateDefinition:
        """See `StateStore`."""
        return self._definition

    def newest(self) -> int:
        """See `StateStore`."""
        with self._begin() as (txn, generation):
            return newest_in(txn, generation)

    def exchange(
        self,
        definition: StateDefinition,
        entries: Sequence[Entry],
        choose: Callable[[int], Sequence[bool]] | None,
    ) -> tuple[list[bytes | None], NDArray]:
        """See `StateStore`."""
        entities = sorted({key for entry in entries for key in entry.entities} - {rows.NO_KEY})
        with self._begin(write=choose is not None) as (txn, generation):
            if definition != self._definition:
                raise StateReplaced
            stored = txn.cursor(generation.entity_rows).getmulti(
                entities, dupdata=True, dupfixed_bytes=rows.ROW_BYTES, keyfixed=True
            )
            before = []
            journaling = txn.get(_JOURNALING, db=generation.meta) is not None
            newest = newest_in(txn, generation)
            chosen = [False] * len(entries) if choose is None else choose(newest)
            for entry, record in zip(entries, chosen, strict=True):
                known = _get(txn, entry.key, generation.transactions)
                before.append(known)
                if known is None and record:
                    insert(txn, generation, entry.key, entry.stored)
                    newest = max(newest, rows.time_of(entry.head))
                    if journaling:
                        txn.put(entry.key, b"", db=generation.journal)
            raise_newest(txn, generation, newest)
        return before, np.frombuffer(stored, rows.STORED)

    def label(
        self,
        keys: Sequence[bytes],
        labels: Sequence[int],
        known: NDArray[np.datetime64],
        now: np.datetime64,
    ) -> list[LabelOutcome]:
        """See `StateStore`."""
        outcomes = []
        with self._begin(write=True) as (txn, generation):
            journaling = txn.get(_JOURNALING, db=generation.meta) is not None
            for row, (key, label, moment) in enumerate(zip(keys, labels, known, strict=True)):
                stored = _get(txn, key, generation.transactions)
                if stored is None:
                    outcomes.append(LabelOutcome.UNKNOWN)
                    continue
                head = stored[:_HEAD_BYTES]
                try:
                    outcome, labelled = rows.labelled(head, label, moment, now)
                except BadInput as error:
                    raise BadInput(f"row {row}: {error}") from None
                outcomes.append(outcome)
                if labelled != head:
                    replace_head(txn, generation, key, stored, labelled)
                    if journaling:
                        txn.put(key, b"", db=generation.journal)
        return outcomes

    def expire(self, before: int) -> int:
        """See `StateStore`."""
        expired = 0
        while True:
            with self._begin() as (txn, generation):
                old = _older(txn, generation, before)
            if not old:
                return expired
            with self._begin(write=True) as (txn, current):
                if current is not generation:
                    continue
                for hour, key in old:
                    txn.delete(hour, key, db=generation.hours)
                    stored = _get(txn, key, generation.transactions)
                    if stored is None:  # another process was faster
                        continue
                    txn.delete(key, db=generation.transactions)
                    row = rows.row_of(key, stored[:_HEAD_BYTES])
                    for entity in rows.entities_of(stored):
                        txn.delete(entity, row, db=generation.entity_rows)
                    expired += 1

    def close(self) -> None:
        """See `StateStore`."""
        release(self._generation)

    @contextmanager
    def _begin(self, write: bool = False) -> Iterator[tuple[lmdb.Transaction, Generation]]:
        """A transaction in the current generation; what it wrote is safe when it has ended."""
        while True:
            with self._lock, _generations_lock:
                generation = self._generation
                generation.users += 1
            try:
                with generation.env.begin(write=write) as txn:
                    if txn.get(_MOVED, db=generation.meta) is None:
                        generation.check_is_there()
                        yield txn, generation
                        return
            except lmdb.MapFullError:
                raise FraudPipelineError(
                    f"{self._folder}: the state has grown to {MAP_SIZE >> 30} GB; rebuild it: "
                    "fraud-pipeline state build"
                ) from None
            except lmdb.Error as error:  # of a full disk, LMDB says: input/output error
                raise FraudPipelineError(
                    f"{self._folder}: the state cannot be used: {error}; if the disk is full, free "
                    "some space and try again"
                ) from None
            finally:
                release(generation)
            self._reopen(generation)

    def _reopen(self, moved: Generation) -> None:
        with self._lock, vanished():
            if self._generation is moved:
                self._generation = self._open()
                self._definition = self._generation.definition
                release(moved)

    def _open(self) -> Generation:
        return open_current(self._folder, self._survives)


def open_current(folder: Path, survives: Survives = "kill") -> Generation:
    """Opens the generation in use.

    Raises:
      BadInput: there is none, or a process of another container is in the way.
      FraudPipelineError: it may be damaged.
    """
    try:
        path = (folder / CURRENT).resolve(strict=True)
        while True:
            generation = acquire(path, survives)
            with generation.env.begin() as txn:
                moved = txn.get(_MOVED, db=generation.meta)
            if moved is None:
                return generation
            # A build was killed just before it replaced the link.
            path = path.with_name(bytes(moved).decode())
            release(generation)
    except FileNotFoundError:
        raise BadInput(
            f"{folder}: there is no state; build it: fraud-pipeline state build"
        ) from None
    except lmdb.LockError:
        # LMDB tells the processes that use a file apart by their numbers, which are unique in a
        # container, but not among several.
        raise BadInput(
            f"{folder}: a process with the same number, {os.getpid()}, uses the state in another "
            "container; run this in that container (exec), or in its process namespace "
            "(--pid=container:NAME)"
        ) from None
    except (OSError, lmdb.Error) as error:
        raise BadInput(f"{folder}: the state cannot be opened: {error}") from None


def copy(folder: Path, target: Path) -> None:
    """Copies the generation in use, as of one moment, while others go on writing to it.

    Args:
      folder: the state.
      target: becomes a state of its own; must not exist.

    Raises:
      BadInput: there is no state.
      FraudPipelineError: it may be damaged, or the disk is full.
    """
    target.mkdir(parents=True)
    while True:
        path = target.resolve() / "generation-1"
        path.mkdir()
        generation = open_current(folder)
        try:
            generation.env.copy(str(path))
        except lmdb.Error as error:
            raise FraudPipelineError(f"{target}: cannot be written: {error}") from None
        finally:
            release(generation)
        copied = acquire(path)
        try:
            with copied.env.begin() as txn:
                moved = txn.get(_MOVED, db=copied.meta) is not None
            stop_journal(copied)  # a build is under way, but not in the copy
        finally:
            release(copied)
        if not moved:
            os.symlink(path.name, target / CURRENT)
            return
        shutil.rmtree(path)  # it was replaced at that very moment: copy the new one


@contextmanager
def locked(folder: Path, operation: int) -> Iterator[bool]:
    """Locks a folder for changing its generations; False if another process has, and LOCK_NB.

    Raises:
      BadInput: the folder cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a")  # noqa: SIM115
    except OSError as error:
        raise BadInput(f"{folder}: cannot be used for the state: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, operation)
        except BlockingIOError:
            yield False
        else:
            sign(file)
            yield True


def new_generation(folder: Path, definition: StateDefinition) -> Path:
    """Makes an empty generation, which is not yet in use; returns its folder, made absolute."""
    numbers = [int(path.name.partition("-")[2]) for path in folder.glob("generation-*")]
    path = folder.resolve() / f"generation-{max(numbers, default=0) + 1}"
    path.mkdir()
    generation = acquire(path)
    try:
        with generation.env.begin(write=True) as txn:
            txn.put(_DEFINITION, to_json(definition).encode(), db=generation.meta)
    finally:
        release(generation)
    return path


def start_journal(generation: Generation) -> None:
    """Notes from now on which transactions change."""
    with generation.env.begin(write=True) as txn:
        txn.drop(generation.journal, delete=False)
        txn.put(_JOURNALING, b"", db=generation.meta)


def stop_journal(generation: Generation) -> None:
    """Ends what `start_journal` began."""
    with generation.env.begin(write=True) as txn:
        txn.delete(_JOURNALING, db=generation.meta)
        txn.drop(generation.journal, delete=False)


def journaled(txn: lmdb.Transaction, generation: Generation) -> Iterator[tuple[bytes, bytes]]:
    """(key, `Entry.stored`) of the transactions that changed since `start_journal`."""
    for key in txn.cursor(generation.journal).iternext(values=False):
        stored = _get(txn, bytes(key), generation.transactions)
        if stored is not None:  # else it has expired
            yield bytes(key), stored


def transactions_from(
    generation: Generation, start: bytes, count: int = 5000
) -> list[tuple[bytes, bytes]]:
    """Some (key, `Entry.stored`) in the order of keys from `start` on; empty at the end."""
    with generation.env.begin() as txn:
        cursor = txn.cursor(generation.transactions)
        if not cursor.set_range(start):
            return []
        items = itertools.islice(cursor, count)
        return [(bytes(key), bytes(stored)) for key, stored in items]


def move(txn: lmdb.Transaction, old: Generation, new: Generation) -> None:
    """Tells everyone who has the old generation open to go on with the new one."""
    txn.put(_MOVED, new.path.name.encode(), db=old.meta)


def insert(txn: lmdb.Transaction, generation: Generation, key: bytes, stored: bytes) -> None:
    """Adds a transaction and its rows."""
    txn.put(key, stored, db=generation.transactions)
    txn.put(hour_of(stored), key, db=generation.hours)
    row = rows.row_of(key, stored[:_HEAD_BYTES])
    for entity in rows.entities_of(stored):
        txn.put(entity, row, db=generation.entity_rows)


def replace_head(
    txn: lmdb.Transaction, generation: Generation, key: bytes, stored: bytes, head: bytes
) -> None:
    """Replaces what is stored of a transaction, and its rows."""
    txn.put(key, head + stored[_HEAD_BYTES:], db=generation.transactions)
    old, new = rows.row_of(key, stored[:_HEAD_BYTES]), rows.row_of(key, head)
    for entity in rows.entities_of(stored):
        txn.delete(entity, old, db=generation.entity_rows)
        txn.put(entity, new, db=generation.entity_rows)


def newest_in(txn: lmdb.Transaction, generation: Generation) -> int:
    """See `StateStore.newest`."""
    return int(bytes(txn.get(_NEWEST, b"0", db=generation.meta)))


def raise_newest(txn: lmdb.Transaction, generation: Generation, newest: int) -> None:
    """Records the time of a transaction, if it is the newest."""
    if newest > newest_in(txn, generation):
        txn.put(_NEWEST, str(newest).encode(), db=generation.meta)


def hour_of(stored: bytes) -> bytes:
    """The hour of a transaction, so that hours sort as bytes."""
    return (rows.time_of(stored) // HOUR).to_bytes(_TIME_BYTES, "big")


def _older(txn: lmdb.Transaction, generation: Generation, before: int) -> list[tuple[bytes, bytes]]:
    """Some (hour, key) of transactions in the hours that ended before a time; empty if none are."""
    limit = max(before // HOUR, 0).to_bytes(_TIME_BYTES, "big")
    old: list[tuple[bytes, bytes]] = []
    for hour, key in txn.cursor(generation.hours):
        if bytes(hour) >= limit or len(old) == _AT_ONCE:
            break
        old.append((bytes(hour), bytes(key)))
    return old


def _get(txn: lmdb.Transaction, key: bytes, db: lmdb._Database) -> bytes | None:
    value = txn.get(key, db=db)
    return None if value is None else bytes(value)


def _boot_id() -> str | None:
    """What differs each time this machine starts; None if the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None

"""Writes the prediction log in the background; see `fraud.serving.prediction_log`.

A request only appends to a list in memory. A thread moves that list into a file in Arrow's IPC
stream format, which the operating system keeps when this process is killed, and turns the file into
Parquet when it is old or large enough. A lock on the file tells whether its writer is alive; files
of dead writers are turned into Parquet by the next writer that starts.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from fraud.errors import BadInput, FraudPipelineError
from fraud.features.spec import Dataset
from fraud.files import sync_tree
from fraud.serving import metrics
from fraud.serving.prediction_log import FEATURES, IDENTIFIER, OWN_COLUMNS
from fraud.serving.spec import PredictionLogSettings
from fraud.time import EPOCH, MICROSECONDS_PER_DAY, UTC, day_number, local_times

KEY = "FRAUD_PREDICTION_LOG_KEY"
"""The environment variable with the key for hashed columns."""

_OPEN = "_open"
"""The folder of files that are being written; readers skip the underscore."""
_LOCK = ".lock"
"""A file of the log that each writer has locked, shared with the others, until it is closed."""
_SHORTEST_KEY = 16
_NAME_TIME = "%Y%m%dT%H%M%S"
_NOT_RECORDED = ("conflict", "expired", "future")
_ROWS_AT_ONCE = 5000
"""Predictions that are turned into Parquet at once."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """Transactions that were scored together and answered by one version.

    Attributes:
      columns: the dataset's columns by name, in their canonical form, [rows] each; without label.
      feature_names: the features that the version reads.
      features: their values, float32 [rows, features], NaN where undefined.
      version, scores, alerts: what was answered; [rows].
      outcomes: what became of each in the state, [rows].
      latency_ms: from the arrival of the request to its scores.
      canary: whether the challenger answered.
      shadow_version, shadow_scores: what scored without answering; [rows]; None for none.
      time: when they were scored.
    """

    columns: Mapping[str, pa.Array]
    feature_names: tuple[str, ...]
    features: NDArray[np.float32]
    version: str
    scores: NDArray[np.float32]
    alerts: NDArray[np.bool_]
    outcomes: NDArray[np.str_]
    latency_ms: float
    canary: bool = False
    shadow_version: str | None = None
    shadow_scores: NDArray[np.float32] | None = None
    time: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    @property
    def layout(self) -> _Layout:
        """What predictions have in common that are in one file."""
        columns = tuple((name, str(column.type)) for name, column in self.columns.items())
        return columns, self.feature_names


_Layout = tuple[tuple[tuple[str, str], ...], tuple[str, ...]]
"""(name, type) of the dataset's columns; the features. Versions may differ in either."""


def key_of(settings: PredictionLogSettings) -> bytes:
    """The key for hashed columns, from the environment.

    Raises:
      BadInput: columns are to be hashed and there is no key.
    """
    key = os.environ.get(KEY, "").encode()
    if settings.hash and len(key) < _SHORTEST_KEY:
        raise BadInput(
            f"serving.prediction_log.hash: there is no key of at least {_SHORTEST_KEY} characters "
            f"in the environment variable {KEY}; make one with: openssl rand -hex 24"
        )
    return key


class LogWriter:
    """Logs predictions without ever making a request wait.

    It is one per process; several processes may write to the same folder.

    Attributes:
      dropped: predictions that were not logged, because too many waited or writing failed.
      flushed: predictions that survive the end of this process.
      written: predictions that are in Parquet files.

    Args:
      folder: the log; created if necessary.
      settings: what to log, and how often to write.
      dataset: the columns and their roles.

    Raises:
      BadInput: the settings do not fit the dataset, a column has a name that the log needs, or
        columns are to be hashed and there is no key.
      FraudPipelineError: the folder cannot be written to, or a restore is replacing it.
    """

    def __init__(self, folder: Path, settings: PredictionLogSettings, dataset: Dataset) -> None:
        settings.check(dataset)
        for name in dataset.columns:
            if name in OWN_COLUMNS.names:
                raise BadInput(
                    f"dataset: column {name!r} has the name of a column of the prediction log; "
                    "rename it, or set serving.prediction_log.enabled to false"
                )
        self._folder, self._settings, self._dataset = folder, settings, dataset
        self._key = key_of(settings)
        self.dropped = self.flushed = self.written = 0
        self._pending: list[Scored] = []
        self._pending_rows = 0
        self._changed = threading.Condition()
        self._closing = False
        self._streams: dict[_Layout, _Stream] = {}
        self._created = 0
        try:
            (folder / _OPEN).mkdir(parents=True, exist_ok=True)
            # Whoever made it, reading suffices.
            self._used = os.open(folder / _LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(self._used, fcntl.LOCK_SH | fcntl.LOCK_NB)
                self._recover()
                self._forget()
            except BaseException:
                os.close(self._used)
                raise
        except BlockingIOError:
            raise FraudPipelineError(
                f"{folder}: predictions cannot be logged there: a restore is replacing it"
            ) from None
        except OSError as error:
            raise FraudPipelineError(
                f"{folder}: the prediction log cannot be written: {error.strerror}; correct that, "
                "or set serving.prediction_log.enabled to false"
            ) from None
        self._thread = threading.Thread(target=self._run, name="prediction log", daemon=True)
        self._thread.start()

    def append(self, scored: Scored) -> None:
        """Logs predictions, unless too many wait already. Returns at once."""
        rows = len(scored.scores)
        with self._changed:
            if self._closing or self._pending_rows + rows > self._settings.pending_rows:
                self._drop(rows)
                return
            self._pending.append(scored)
            self._pending_rows += rows

    def close(self) -> None:
        """Writes everything, as Parquet. Call it once no more requests are served."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        if self._used >= 0:
            os.close(self._used)
            self._used = -1

    def _run(self) -> None:
        next_tidying = time.monotonic() + 3600
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing, self._settings.flush_seconds)
                closing, pending = self._closing, self._pending
                self._pending, self._pending_rows = [], 0
            self._write(pending)
            self._publish_due(all_of_them=closing)
            if closing:
                return
            if time.monotonic() >= next_tidying:
                next_tidying = time.monotonic() + 3600
                try:
                    self._recover()
                    self._forget()
                except OSError:
                    _log.exception("%s: could not be tidied", self._folder)

    def _write(self, pending: list[Scored]) -> None:
        """Appends predictions to the open file of their columns and features."""
        by_layout: dict[_Layout, list[Scored]] = {}
        for scored in pending:
            by_layout.setdefault(scored.layout, []).append(scored)
        for layout, group in by_layout.items():
            rows = sum(len(scored.scores) for scored in group)
            try:
                batch = self._as_batch(group)
                if layout not in self._streams:
                    self._streams[layout] = self._new_stream(batch.schema)
                self._streams[layout].write(batch)
                self.flushed += rows
            except OSError as error:  # such as a full disk, for a while
                self._abandon(layout)
                self._keep(group, rows, error)
            except Exception:  # the server must go on, whatever happened to the log
                self._abandon(layout)
                _log.exception("%d predictions could not be logged", rows)
                with self._changed:
                    self._drop(rows)

    def _keep(self, group: list[Scored], rows: int, error: OSError) -> None:
        """Lets predictions that could not be written wait for the next flush, if there is one."""
        with self._changed:
            kept = not self._closing and self._pending_rows + rows <= self._settings.pending_rows
            if kept:
                self._pending = group + self._pending
                self._pending_rows += rows
            else:
                self._drop(rows)
        doing = "wait" if kept else "are lost"
        _log.error("%s: %d predictions %s: %s", self._folder, rows, doing, error)

    def _abandon(self, layout: _Layout) -> None:
        """Closes a file that may end with half a batch, after which nothing could be read.

        The next start recovers what is whole.
        """
        if stream := self._streams.pop(layout, None):
            if not stream.rows:
                stream.path.unlink(missing_ok=True)
            stream.unlock()

    def _drop(self, rows: int) -> None:
        self.dropped += rows
        metrics.DROPPED_PREDICTIONS.inc(rows)

    def _new_stream(self, schema: pa.Schema) -> _Stream:
        """A file to write to, which no other process uses.

        A writer that starts may find it before it is locked and take it for one of a dead writer;
        there is then another one.
        """
        while True:
            now = datetime.now(timezone.utc).strftime(_NAME_TIME)
            self._created += 1
            name = f"{now}-{socket.gethostname()}-{os.getpid()}-{self._created}"
            with suppress(_Taken):
                return _Stream(self._folder / _OPEN / name, schema)

    def _publish_due(self, all_of_them: bool) -> None:
        """Turns open files into Parquet if they are old or large enough."""
        oldest = time.monotonic() - self._settings.file_seconds
        for layout, stream in list(self._streams.items()):
            is_due = stream.opened <= oldest or stream.rows >= self._settings.file_rows
            if not (is_due or all_of_them):
                continue
            del self._streams[layout]
            try:
                stream.close()
                self._publish(stream.path)
                self.written += stream.rows
            except Exception:  # the file stays, for the next start to try again
                _log.exception("%s: could not be turned into Parquet", stream.path)
            finally:
                stream.unlock()

    def _recover(self) -> None:
        """Publishes the files of writers that were killed."""
        for path in sorted((self._folder / _OPEN).iterdir()):
            # Its writer may be alive, or may just have published it.
            with suppress(BlockingIOError, FileNotFoundError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists():
                    try:
                        self._publish(path)
                    except Exception:  # nothing in a log may keep a server from starting
                        _log.exception("%s: could not be turned into Parquet", path)

    def _publish(self, path: Path) -> None:
        """Turns an open file into one Parquet file a day, and removes it.

        If the process is killed meanwhile, doing it again writes the same files.
        """
        with _DayFiles(self._folder, path.name) as files:
            for table in _tables(path):
                days = self._days(table)
                for day in np.unique(days).tolist():
                    files.write(EPOCH + timedelta(days=day), table.filter(pa.array(days == day)))
        path.unlink()
        pa.default_memory_pool().release_unused()

    def _days(self, table: pa.Table) -> NDArray[np.int64]:
        """The local days of the transactions, counted from 1970-01-01, [rows].

        For those that were not recorded, the days of their scoring.
        """
        column = self._dataset.timestamp or "prediction_time"
        instants = table[column].cast(pa.timestamp("us")).to_numpy()
        outcomes = np.array(table["prediction_outcome"].to_pylist())
        scored = table["prediction_time"].cast(pa.timestamp("us")).to_numpy()
        # Such times may be anything, and each would make a folder.
        instants = np.where(np.isin(outcomes, _NOT_RECORDED), scored, instants)
        local = local_times(instants.astype("datetime64[us]"), self._dataset.timezone)
        days = np.floor_divide(local.astype(np.int64), MICROSECONDS_PER_DAY)
        # The last moment in UTC can be in the year 10000 elsewhere, which has no name of a folder.
        return np.clip(days, day_number(date.min), day_number(date.max))

    def _forget(self) -> None:
        """Deletes the files whose retention is over."""
        if self._settings.retention_days is None:
            return
        oldest = datetime.now(timezone.utc) - timedelta(days=self._settings.retention_days)
        for folder in self._folder.glob("date=*"):
            for path in folder.glob("*.parquet"):
                if path.name[:8].isdigit() and path.name < oldest.strftime(_NAME_TIME):
                    path.unlink(missing_ok=True)
            if not any(folder.iterdir()):
                with suppress(OSError):  # another process may just have written to it
                    folder.rmdir()

    def _as_batch(self, group: list[Scored]) -> pa.RecordBatch:
        """One batch of predictions that have the same layout."""
        drop, features = self._settings.drop, group[0].feature_names
        columns: dict[str, pa.Array] = {}
        for name in group[0].columns:
            if name in drop:
                continue
            column = pa.concat_arrays([scored.columns[name] for scored in group])
            if pa.types.is_timestamp(column.type):
                column = column.cast(pa.timestamp("us", UTC))
            columns[name] = self._hashed(column) if name in self._settings.hash else column
        matrix = np.concatenate([scored.features for scored in group])
        kept = [name for name in features if name not in drop]
        for index, name in enumerate(features):
            if name not in drop:
                values = np.ascontiguousarray(matrix[:, index])
                columns[name] = pa.array(values, from_pandas=True)  # NaN becomes null
        columns.update(zip(OWN_COLUMNS.names, _own_columns(group), strict=True))
        identifier = self._dataset.id or ""
        schema = pa.schema(
            [(name, column.type) for name, column in columns.items()],
            {
                FEATURES: json.dumps(kept).encode(),
                IDENTIFIER: (identifier if identifier in columns else "").encode(),
            },
        )
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=schema)

    def _hashed(self, column: pa.Array) -> pa.Array:
        """HMAC-SHA256 of each value as text, in hexadecimal digits; null where null."""
        encoded = column.cast(pa.string()).dictionary_encode()
        hashes = [
            hmac.new(self._key, value.encode(), "sha256").hexdigest()
            for value in encoded.dictionary.to_pylist()
        ]
        return pa.array(hashes, pa.string()).take(encoded.indices)


class _Taken(Exception):
    """Another process published and removed a file before it was locked."""


def copy_log(folder: Path, target: Path) -> None:
    """Copies a log to which servers go on writing; a writer that starts there finishes open files.

    Each prediction that was flushed before the call is in the copy once: in a Parquet file, or in
    an open file that has none yet.

    Args:
      folder: the log.
      target: becomes a log of its own; may exist, and keeps its other files.
    """
    open_files = folder / _OPEN
    while True:
        before = {path.name for path in open_files.glob("*")}
        # Parquet files first: what is still open afterwards had none when it is copied itself.
        for path in sorted(folder.glob("*/*.parquet")):
            copied = target / path.relative_to(folder)
            if not copied.exists():
                copied.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # it has just expired
                    shutil.copy2(path, copied)
        shutil.rmtree(target / _OPEN, ignore_errors=True)
        (target / _OPEN).mkdir(parents=True)
        for name in before:
            with suppress(FileNotFoundError):
                shutil.copy2(open_files / name, target / _OPEN / name)
        if before <= {path.name for path in open_files.glob("*")}:
            return  # none has become Parquet meanwhile


@contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Whether no server, on any machine, logs to a folder; if so, none starts to meanwhile."""
    with ExitStack() as files:
        try:
            # NFS locks alone only what is open for writing.
            used = files.enter_context(open(folder / _LOCK, "r+b"))
            fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            pass
        except BlockingIOError:
            yield False
            return
        yield not _has_open_files(folder)


def _has_open_files(folder: Path) -> bool:
    for path in (folder / _OPEN).glob("*"):
        with suppress(FileNotFoundError), open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


class _Stream:
    """An open file of predictions, locked as long as its writer lives.

    Attributes:
      path: of the file.
      rows: how many predictions it holds.
      opened: when it was created, by `time.monotonic`.

    Raises:
      _Taken: see there.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.rows, self.opened = path, 0, time.monotonic()
        self._lock = open(path, "xb")  # noqa: SIM115 (`unlock` closes it)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if not path.exists():
                raise _Taken
            # Not by Python's file, which may write a part of what it is given and not say so.
            self._file = pa.OSFile(str(path), "wb")
            self._writer = pa.ipc.new_stream(self._file, schema)
        except BaseException:  # such as a full disk
            path.unlink(missing_ok=True)
            self._lock.close()
            raise

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)
        self.rows += batch.num_rows

    def close(self) -> None:
        self._writer.close()

    def unlock(self) -> None:
        self._file.close()
        self._lock.close()


def _own_columns(group: list[Scored]) -> list[pa.Array]:
    """The columns of `OWN_COLUMNS`, each made at once: most of a group are of one transaction."""
    rows = [len(scored.scores) for scored in group]

    def repeated(values: list[Any]) -> list[Any]:
        return [value for value, count in zip(values, rows, strict=True) for _ in range(count)]

    shadow_scores = [
        np.full(count, np.nan) if scored.shadow_scores is None else scored.shadow_scores
        for scored, count in zip(group, rows, strict=True)
    ]
    values = [
        repeated([scored.time for scored in group]),
        repeated([scored.version for scored in group]),
        np.concatenate([scored.scores for scored in group]).astype(np.float32),
        np.concatenate([scored.alerts for scored in group]).astype(bool),
        np.concatenate([scored.outcomes for scored in group]).tolist(),
        repeated([scored.canary for scored in group]),
        repeated([scored.shadow_version for scored in group]),
        np.concatenate(shadow_scores).astype(np.float32),
        repeated([scored.latency_ms for scored in group]),
    ]
    return [
        pa.array(of_column, type_, from_pandas=isinstance(of_column, np.ndarray))
        for of_column, type_ in zip(values, OWN_COLUMNS.types, strict=True)
    ]


def _tables(path: Path) -> Iterator[pa.Table]:
    """What is in an open file, some rows at a time, so that memory does not depend on its size.

    Its writer may have been killed in the middle of a batch, which ends it.
    """
    batches: list[pa.RecordBatch] = []
    with suppress(pa.ArrowInvalid, OSError), pa.OSFile(str(path), "rb") as file:
        for batch in pa.ipc.open_stream(file):
            batches.append(batch)
            if sum(map(len, batches)) >= _ROWS_AT_ONCE:
                yield pa.Table.from_batches(batches).combine_chunks()
                batches = []
    if batches:
        yield pa.Table.from_batches(batches).combine_chunks()


class _DayFiles:
    """Parquet files of days, which readers see whole or not at all; a context.

    Args:
      folder: of the log.
      name: of the files, without suffix.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._writers: dict[date, parquet.ParquetWriter] = {}

    def write(self, day: date, table: pa.Table) -> None:
        """Adds rows to the file of a day."""
        if day not in self._writers:
            self._day_folder(day).mkdir(exist_ok=True)
            self._writers[day] = parquet.ParquetWriter(
                self._temporary(day), table.schema, compression="zstd"
            )
        self._writers[day].write_table(table)

    def __enter__(self) -> _DayFiles:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        try:
            for writer in self._writers.values():
                writer.close()
            for day in () if failed else self._writers:
                with open(self._temporary(day), "rb") as file:
                    os.fsync(file.fileno())
                os.replace(self._temporary(day), self._day_folder(day) / f"{self._name}.parquet")
                sync_tree(self._day_folder(day), recurse=False)
        finally:
            for day in self._writers:
                self._temporary(day).unlink(missing_ok=True)

    def _day_folder(self, day: date) -> Path:
        return self._folder / f"date={day}"

    def _temporary(self, day: date) -> Path:
        return self._day_folder(day) / f".{self._name}.tmp"

"""Whether a day has arrived completely, and whether it has changed since.

An orchestrator asks before it starts a run. Only that day's folder is looked at, and nothing of
Parquet files but their footers.
"""

from __future__ import annotations

import hashlib
from datetime import date

import pyarrow as pa
from pyarrow import fs as arrow_fs

from fraud.errors import BadInput, NotYet
from fraud.pipeline.ingestion import reader
from fraud.pipeline.ingestion.reader import File
from fraud.pipeline.windows import Window
from fraud.time import parse_day

DAY_FOLDER = "date="
MARKER = "_SUCCESS"
"""The empty file that Hadoop, Spark and others write into a folder when it is complete."""


def check(data: str, day: date | None, min_rows: int | None) -> date:
    """Checks that a day is complete: its folder has the marker, or enough rows.

    Args:
      data: a directory of day folders `date=YYYY-MM-DD`, or its URI.
      day: the day; None for the newest folder's.
      min_rows: the number of rows from which on a folder counts as complete without a marker; None
        if only the marker counts.

    Returns:
      The day.

    Raises:
      NotYet: the day is not complete; says what is missing.
      BadInput: `data` is not such a directory.
      OSError: the file system cannot be read.
    """
    system, path = reader.filesystem(data)
    kind = system.get_file_info(path).type
    if kind != arrow_fs.FileType.Directory:
        problem = "no such directory" if kind == arrow_fs.FileType.NotFound else "not a directory"
        raise BadInput(f"{data}: {problem}; only days in folders date=YYYY-MM-DD can be awaited")
    if day is None:
        day = _newest(data, system, path)
    folder = f"{DAY_FOLDER}{day}"
    selector = arrow_fs.FileSelector(f"{path}/{folder}", recursive=True, allow_not_found=True)
    entries = [e for e in system.get_file_info(selector) if e.type == arrow_fs.FileType.File]
    if any(entry.path == f"{selector.base_dir}/{MARKER}" for entry in entries):
        return day
    if min_rows is None:
        found = f"{len(entries)} files, but no {MARKER}" if entries else "nothing"
        raise NotYet(f"{data}/{folder}: {found} yet")
    rows = 0
    for entry in entries:
        name = entry.path[len(path) :].strip("/")
        if any(part[0] in "._" for part in name.split("/")):
            continue  # belongs to other tools, as when `discover` lists files
        if not name.endswith(reader.SUFFIXES):
            raise NotYet(f"{data}/{name}: being written, or no file of transactions")
        try:
            rows += _count(File(f"{data.rstrip('/')}/{name}", name, entry.size or 0, 0))
        except BadInput as error:  # as a file is while it is being written
            raise NotYet(f"{data}: not readable yet: {error}") from None
    if rows < min_rows:
        raise NotYet(f"{data}/{folder}: {rows:,} rows yet, of at least {min_rows:,}")
    return day


def fingerprints(data: str, days: Window) -> dict[date, str]:
    """Day → what differs whenever its files do, from their names, sizes and modification times.

    Days without a folder are left out. The marker does not count, nor what belongs to other tools.

    Args:
      data: see `check`.
      days: those to look at.

    Raises:
      BadInput: a folder's name is not a day.
      OSError: the file system cannot be read.
    """
    system, path = reader.filesystem(data)
    files: dict[date, list[tuple[str, int, int]]] = {}
    for entry in system.get_file_info(arrow_fs.FileSelector(path, recursive=True)):
        folder, _, name = entry.path[len(path) :].strip("/").partition("/")
        if not folder.startswith(DAY_FOLDER):
            continue
        if (day := parse_day(folder[len(DAY_FOLDER) :])) not in days:
            continue
        of_day = files.setdefault(day, [])
        if entry.type == arrow_fs.FileType.File and all(p[0] not in "._" for p in name.split("/")):
            of_day.append((name, entry.size or 0, entry.mtime_ns or 0))
    return {
        day: hashlib.sha256(repr(sorted(of_day)).encode()).hexdigest()[:16]
        for day, of_day in files.items()
    }


def _newest(data: str, system: arrow_fs.FileSystem, path: str) -> date:
    names = [entry.base_name for entry in system.get_file_info(arrow_fs.FileSelector(path))]
    days = [name[len(DAY_FOLDER) :] for name in names if name.startswith(DAY_FOLDER)]
    if not days:
        raise NotYet(f"{data}: no folder date=YYYY-MM-DD yet")
    return parse_day(max(days))


def _count(file: File) -> int:
    """The exact number of rows; `reader.count_rows` only estimates that of a CSV file."""
    if file.is_parquet:
        return reader.count_rows(file)
    first_column = reader.schema(file).names[0]
    return sum(batch.num_rows for _, batch in reader.read(file, {first_column: pa.string()}))

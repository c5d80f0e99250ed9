"""What can be known of the data before any work is done: which files, which days, which columns.

Nothing here imports TFX, TensorFlow or Beam, so that bad input is answered at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from pyarrow import fs as arrow_fs

from fraud import features
from fraud.errors import BadInput
from fraud.features.spec import Dataset
from fraud.pipeline.config import Config
from fraud.pipeline.ingestion import reader as files
from fraud.pipeline.ingestion import values
from fraud.pipeline.ingestion.reader import File
from fraud.pipeline.windows import Window, Windows, windows_for

_DAY_FOLDER = "date="


@dataclass(frozen=True)
class Source:
    """The input as it lies there.

    Attributes:
      data: the directory or file it was found at.
      all_files: sorted by day, then name.
    """

    data: str
    all_files: tuple[File, ...]

    @property
    def days(self) -> tuple[date, ...]:
        """The days there are files of, sorted; none where the data has no timestamp."""
        return tuple(sorted({day for file in self.all_files for day in file.days}))

    def files(self, window: Window | None) -> tuple[File, ...]:
        """The files that may have rows of the window; all of them for None."""
        if window is None:
            return self.all_files
        return tuple(file for file in self.all_files if any(day in window for day in file.days))

    def fingerprint(self, windows: Windows | None) -> str:
        """A hash that changes when the files a run reads change: name, size or time."""
        listing = [
            (file.name, file.size, file.modified)
            for file in self.files(windows.all_days if windows else None)
        ]
        return hashlib.sha256(repr((windows, listing)).encode()).hexdigest()


def discover(data: str, dataset: Dataset) -> Source:
    """Finds the files.

    Args:
      data: a directory of day folders `date=YYYY-MM-DD` with Parquet, CSV or gzipped CSV files;
        or one such file, or a directory of them, whose days are then read off the timestamps.
      dataset: its columns; without a timestamp there are no days.

    Raises:
      BadInput: there is nothing there, or something that cannot be read.
    """
    system, path = files.filesystem(data)
    info = system.get_file_info(path)
    if info.type == arrow_fs.FileType.NotFound:
        raise BadInput(f"{data}: no such file or directory")
    if info.type == arrow_fs.FileType.File:
        found: tuple[File, ...] = (_file(data, info, info.base_name),)
    else:
        found = tuple(sorted(_listed(data, system, path), key=lambda file: file.name))
        if not found:
            raise BadInput(
                f"{data}: no transactions here; expected day folders date=YYYY-MM-DD with "
                f"{_or(files.SUFFIXES)} files, or one such file"
            )
    if dataset.timestamp is None:
        found = tuple(dataclasses.replace(f, days=(), in_day_folder=False) for f in found)
    else:
        found = tuple(f if f.in_day_folder else _with_days(f, dataset.timestamp) for f in found)
    return Source(data, found)


def plan(source: Source, config: Config, as_of: date | None) -> Windows | None:
    """The windows of a run on this data; None where the data has no timestamp.

    Args:
      source: the data.
      config: lengths of the windows, and the features, which look back.
      as_of: the day the run pretends it is; None for the last day of data.

    Raises:
      BadInput: the windows are not covered by the data.
    """
    if config.dataset.timestamp is None:
        if not any(files.count_rows(file) for file in source.all_files):
            raise BadInput(f"{source.data}: there is not a single transaction")
        return None
    days = source.days
    if not days:
        raise BadInput(f"{source.data}: there is not a single transaction")
    lengths = config.windows
    history = features.history_days(config.features, lengths.label_delay_days)
    windows = windows_for(
        as_of or days[-1],
        train_days=lengths.train_days,
        eval_days=lengths.eval_days,
        label_delay_days=lengths.label_delay_days,
        history_days=history if config.dataset.entities else 0,
    )
    if windows.as_of > days[-1]:
        raise BadInput(
            f"{source.data}: the as-of day {windows.as_of} is after the last day of data, "
            f"{days[-1]}; choose --as-of {days[-1]} or earlier"
        )
    if windows.train.first < days[0]:
        raise BadInput(f"{source.data}: {_too_short(windows, days, config)}")
    check_gaps(source, windows, lengths.max_empty_days)
    return windows


def check_columns(
    source: Source, windows: Windows | None, dataset: Dataset
) -> dict[str, pa.DataType]:
    """Checks that the files of a run have the columns of the dataset, by their headers alone.

    Returns:
      name → the type its values have in all files (`values.types_of`).

    Raises:
      BadInput: a column is missing or of a wrong type; names file, column and configuration key.
    """
    seen: dict[str, set[pa.DataType]] = {name: set() for name in dataset.columns}
    for file in source.files(windows.all_days if windows else None):
        schema = files.schema(file)
        needed = values.columns_of(file, dataset, windows)
        for key, column in _keys(dataset):
            if column in needed:
                type_ = _type_in(schema, column, key, file)
                if problem := values.wrong_type(column, type_, dataset):
                    _refuse_type(file, column, key, problem, dataset)
                seen[column].add(type_)
    return values.types_of(dataset, seen)


def _listed(data: str, system: arrow_fs.FileSystem, root: str) -> Iterator[File]:
    """The data files in a directory, or in its day folders if it has any.

    Names that begin with a dot or an underscore are marks of other tools. What lies beside day
    folders is not data.
    """
    entries = system.get_file_info(arrow_fs.FileSelector(root))
    by_day = any(entry.base_name.startswith(_DAY_FOLDER) for entry in entries)
    if by_day:
        entries = system.get_file_info(arrow_fs.FileSelector(root, recursive=True))
    for entry in entries:
        name = entry.path[len(root) :].strip("/")
        folder, _, base = name.partition("/")
        if by_day and not (folder.startswith(_DAY_FOLDER) and base):
            continue
        if entry.type != arrow_fs.FileType.File or any(p[0] in "._" for p in name.split("/")):
            continue
        file = _file(f"{data.rstrip('/')}/{name}", entry, name)
        if by_day:
            day = _day(folder)
            if day is None:
                raise BadInput(f"{data}/{folder}: not a day; name the folder date=YYYY-MM-DD")
            file = dataclasses.replace(file, days=(day,), in_day_folder=True)
        yield file


def _file(path: str, info: arrow_fs.FileInfo, name: str) -> File:
    if not info.path.endswith(files.SUFFIXES):
        raise BadInput(f"{path}: neither {_or(files.SUFFIXES)}; convert it, or move it elsewhere")
    return File(path, name, info.size or 0, info.mtime_ns or 0)


def _day(folder: str) -> date | None:
    text = folder[len(_DAY_FOLDER) :]
    try:
        return date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else None
    except ValueError:
        return None


def _with_days(file: File, timestamp: str) -> File:
    """Adds the days that occur in a file that is not of one day. Reads the one column."""
    type_ = _type_in(files.schema(file), timestamp, "dataset.timestamp", file)
    if problem := values.wrong_type(timestamp, type_, Dataset(timestamp=timestamp)):
        raise BadInput(f"{file.name}: {timestamp} (dataset.timestamp) {problem}")
    days: set[int] = set()
    for first, batch in files.read(file, {timestamp: pa.string()}):
        rows = values.Rows(file, np.arange(first, first + batch.num_rows))
        times = values.times(batch.column(0), timestamp, rows)
        days.update(np.unique(values.days_of(times)).tolist())
    return dataclasses.replace(
        file, days=tuple(date(1970, 1, 1) + timedelta(days=day) for day in sorted(days))
    )


def _too_short(windows: Windows, days: tuple[date, ...], config: Config) -> str:
    """Says what to lower or choose when the train window begins before the data."""
    lengths = config.windows
    missing = (days[0] - windows.train.first).days
    fixes = []
    if missing < lengths.train_days:
        fixes.append(
            f"lower windows.train_days from {lengths.train_days} to {lengths.train_days - missing}"
        )
    elif windows.as_of + timedelta(days=missing) > days[-1]:
        # The shortest windows that fit have one train day.
        fixes.append(
            f"lower windows.eval_days ({lengths.eval_days}), windows.label_delay_days "
            f"({lengths.label_delay_days}) and windows.train_days ({lengths.train_days})"
        )
    if (earliest := windows.as_of + timedelta(days=missing)) <= days[-1]:
        fixes.append(f"choose --as-of {earliest} or later")
    return (
        f"the train window {windows.train} begins before the first day of data, {days[0]}; "
        + " or ".join(fixes)
    )


def check_gaps(source: Source, windows: Windows, tolerated: int) -> None:
    """Refuses days without transactions, in each window beyond what is tolerated.

    What features look back on may begin before the data does, but has no gaps after that.
    """
    first = source.days[0]
    rows: dict[date, int] = {}
    for file in source.files(windows.all_days):
        for day in file.days:
            # A file that is not of one day has rows of each of its days.
            rows[day] = rows.get(day, 0) + (files.count_rows(file) if file.in_day_folder else 1)
    named = {f"{name} window": window for name, window in windows.splits().items()}
    if windows.history is not None:
        named["history window"] = windows.history
        one = timedelta(days=1)
        if windows.train.last + one < windows.eval.first:
            between = Window(windows.train.last + one, windows.eval.first - one)
            named["days between the train and eval windows"] = between
    for name, window in named.items():
        empty = [day for day in window if day >= first and not rows.get(day)]
        if len(empty) > tolerated:
            more = f" and {len(empty) - 1} more days" if len(empty) > 1 else ""
            raise BadInput(
                f"{source.data}: no transactions on {empty[0]}{more} in the {name}, "
                f"{window}; add them, or raise windows.max_empty_days from {tolerated} to "
                f"{len(empty)}"
            )


def _keys(dataset: Dataset) -> list[tuple[str, str]]:
    """(configuration key, column) of every column that is read."""
    single = [(f"dataset.{role}", getattr(dataset, role)) for role in values.SINGLE_ROLES]
    several = [
        (f"dataset.{role}", column)
        for role in ("entities", "numeric", "categorical", "slices")
        for column in getattr(dataset, role)
    ]
    return [(key, column) for key, column in [*single, *several] if column]


def _type_in(schema: pa.Schema, column: str, key: str, file: File) -> pa.DataType:
    """The type of a column.

    Raises:
      BadInput: there is none or more than one of that name.
    """
    present = schema.names
    if present.count(column) == 1:
        return schema.field(column).type
    if column in present:
        raise BadInput(f"{file.name}: there are {present.count(column)} columns {column!r}")
    close = difflib.get_close_matches(column, present, n=3, cutoff=0.5)
    if len(present) == 1 and re.search("[;|\t]", present[0]):
        hint = "the header is a single column; separate fields by commas"
    elif close:
        hint = f"perhaps {key} should be {_or(close)}"
    else:
        hint = f"set {key} to one of {', '.join(present[:20])}"
    raise BadInput(f"{file.name}: no column {column!r}; {hint}")


def _refuse_type(file: File, column: str, key: str, problem: str, dataset: Dataset) -> None:
    """Raises BadInput for a column of a wrong type; in CSV, for the row that made it one."""
    if not file.is_parquet:
        for _ in files.read(file, {column: values.wanted_type(column, dataset)}):
            pass
    raise BadInput(f"{file.name}: {column} ({key}) {problem}")


def _or(words: tuple[str, ...] | list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))

"""Plans a run before any heavy work: which files, days and columns it reads.

Nothing here imports TFX, TensorFlow or Beam, so that bad input is reported at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeVar

import numpy as np
import pyarrow as pa
from pyarrow import fs as arrow_fs

from fraud.errors import BadInput
from fraud.features.batch import history_days
from fraud.features.spec import Dataset
from fraud.files import is_uri
from fraud.models.specification import InputSpecification
from fraud.pipeline.config import Config
from fraud.pipeline.ingestion import reader, values
from fraud.pipeline.ingestion.reader import File
from fraud.pipeline.windows import Window, Windows, windows_for
from fraud.time import EPOCH, parse_day

_DAY_FOLDER = "date="

_FILES_AT_ONCE = 16

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """The input files.

    Attributes:
      data: the directory or file they were discovered in.
      all_files: sorted by name, hence by day if they are in day folders.
    """

    data: str
    all_files: tuple[File, ...]

    @property
    def days(self) -> tuple[date, ...]:
        """The days that have files, sorted; empty if the data has no timestamp."""
        return tuple(sorted({day for file in self.all_files for day in file.days}))

    def files(self, window: Window | None) -> tuple[File, ...]:
        """The files that may have rows in the window; all files for None."""
        if window is None:
            return self.all_files
        return tuple(file for file in self.all_files if any(day in window for day in file.days))


@dataclass(frozen=True)
class ChampionPlan:
    """What the champion's inputs of the eval rows are computed from, where they differ from ours.

    Attributes:
      inputs: the champion's specification.
      windows: the eval window, with the history that the champion's features need; None if the data
        has no timestamp.
      types, fingerprint: as in `IngestionPlan`, for the champion's columns, windows and files.
    """

    inputs: InputSpecification
    windows: Windows | None
    types: dict[str, str]
    fingerprint: str

    @property
    def layout(self) -> values.Layout:
        """The columns and days to read."""
        return _layout(_only_inputs(self.inputs.dataset), self.types, self.windows)


@dataclass(frozen=True)
class IngestionPlan:
    """Everything a run reads, resolved once. JSON by `fraud.codec`.

    Attributes:
      windows: the windows of the run; None if the data has no timestamp.
      files: the files that may have rows in the windows, in the order of `Source`.
      rows: the number of rows of each file, as given by `reader.count_rows`.
      types: column → name of the Arrow type its values have in all files.
      fingerprint: a hash of the windows and of the names and contents of the files.
      contents: the `content_id` of each file.
      champion: the champion's inputs, if they are needed and can be computed.
      champion_problem: why the champion cannot be judged; empty if it can, or there is none.
    """

    windows: Windows | None
    files: tuple[File, ...]
    rows: tuple[int, ...]
    types: dict[str, str]
    fingerprint: str
    contents: tuple[str, ...] = ()
    champion: ChampionPlan | None = None
    champion_problem: str = ""

    def layout(self, dataset: Dataset) -> values.Layout:
        """The columns and days to read."""
        return _layout(dataset, self.types, self.windows)

    @property
    def history_days(self) -> dict[str, int]:
        """How many days before train are `needed` by features and `available`; empty if none."""
        if self.windows is None or self.windows.history is None:
            return {}
        first = min(day for file in self.files for day in file.days)
        needed = self.windows.history
        return {"available": sum(day >= first for day in needed), "needed": needed.days}

    def check_unchanged(self) -> None:
        """Checks that the files are still those that were planned.

        Raises:
          BadInput: a file was removed, or its size or modification time has changed.
        """
        for file in self.files:
            system, path = reader.filesystem(file.path)
            info = system.get_file_info(path)
            # Object stores may list fractions of seconds, but leave them out for a single file.
            unit = 1_000_000_000 if is_uri(file.path) else 1
            now = (info.size or 0, (info.mtime_ns or 0) // unit)
            if now != (file.size, file.modified // unit):
                raise BadInput(f"{file.name}: changed after the run was planned; run again")


def plan_ingestion(data: str, config: Config, as_of: date | None) -> IngestionPlan:
    """Finds and checks everything a run reads, by file names, headers and footers.

    Args:
      data: see `discover`.
      config: the columns, the lengths of the windows, and the features, which need history.
      as_of: run as if today were this day; None for the last day of data.

    Raises:
      BadInput: see `discover`, `plan` and `check_columns`.
    """
    source = discover(data, config.dataset)
    windows = plan(source, config, as_of)
    types = check_columns(source, windows, config.dataset)
    planned = source.files(windows.all_days if windows else None)
    contents = _of_each(planned, content_id)
    return IngestionPlan(
        windows=windows,
        files=planned,
        rows=_of_each(planned, reader.count_rows),
        types={name: str(type_) for name, type_ in types.items()},
        fingerprint=_fingerprint(windows, planned, contents),
        contents=contents,
    )


def with_champion(
    plan: IngestionPlan, data: str, config: Config, inputs: InputSpecification
) -> IngestionPlan:
    """Adds a champion's inputs of the eval rows to a plan, or the reason why they cannot be had.

    Args:
      plan, data, config: the plan, and what it was made from.
      inputs: the champion's specification.
    """
    try:
        return _with_champion(plan, discover(data, config.dataset), config, inputs)
    except BadInput as error:
        # The rest of the message says how to change the configuration, which is not the champion's.
        problem = f"its inputs cannot be computed: {str(error).partition('; ')[0]}"
        return dataclasses.replace(plan, champion_problem=problem)


def _with_champion(
    plan: IngestionPlan, source: Source, config: Config, inputs: InputSpecification
) -> IngestionPlan:
    dataset, windows = _only_inputs(inputs.dataset), None
    if (dataset.timestamp is None) != (plan.windows is None):
        raise BadInput(f"it was trained with{'out' if plan.windows else ''} timestamps")
    if plan.windows is not None:
        evaluated = plan.windows.eval
        days = 0
        if dataset.entities:
            days = history_days(inputs.features, dataset, inputs.label_delay_days)
        one = timedelta(days=1)
        history = Window(evaluated.first - days * one, evaluated.first - one) if days else None
        windows = Windows(evaluated.last, history, train=evaluated, eval=evaluated, recent=None)
        check_gaps(source, windows, config.windows.max_empty_days)
    types = check_columns(source, windows, dataset)
    theirs = source.files(windows.all_days if windows else None)
    files = tuple(file for file in source.all_files if file in {*plan.files, *theirs})
    return dataclasses.replace(
        plan,
        files=files,
        rows=_of_each(files, reader.count_rows),
        contents=_of_each(files, content_id),
        champion=ChampionPlan(
            inputs=inputs,
            windows=windows,
            types={name: str(type_) for name, type_ in types.items()},
            fingerprint=_fingerprint(windows, theirs, _of_each(theirs, content_id)),
        ),
    )


def _fingerprint(
    windows: Windows | None, files: tuple[File, ...], contents: tuple[str, ...]
) -> str:
    listing = [(file.name, file.size, c) for file, c in zip(files, contents, strict=True)]
    return hashlib.sha256(repr((windows, listing)).encode()).hexdigest()


def _only_inputs(dataset: Dataset) -> Dataset:
    """The dataset without the columns that neither models nor features read."""
    return dataclasses.replace(dataset, id=None, slices=())


def _layout(dataset: Dataset, types: dict[str, str], windows: Windows | None) -> values.Layout:
    of_alias = {name: pa.type_for_alias(alias) for name, alias in types.items()}
    return values.Layout(dataset, of_alias, windows)


def discover(data: str, dataset: Dataset) -> Source:
    """Finds the files.

    Args:
      data: a directory of day folders `date=YYYY-MM-DD` with Parquet, CSV or gzipped CSV files;
        or one such file, or a directory of them, whose days are then taken from the timestamps.
      dataset: the columns; without a timestamp there are no days.

    Raises:
      BadInput: there are no files, or one cannot be read.
    """
    system, path = reader.filesystem(data)
    info = system.get_file_info(path)
    if info.type == arrow_fs.FileType.NotFound:
        raise BadInput(f"{data}: no such file or directory")
    if info.type == arrow_fs.FileType.File:
        files = [_file(data, info, info.base_name)]
    else:
        files = sorted(_listed(data, system, path), key=lambda file: file.name)
        if not files:
            raise BadInput(
                f"{data}: no transactions here; expected day folders date=YYYY-MM-DD with "
                f"{_or(reader.SUFFIXES)} files, or one such file"
            )
    csv = reader.CsvFormat(dataset.csv_delimiter, dataset.csv_decimal, dataset.csv_encoding)
    files = [dataclasses.replace(file, csv=csv) for file in files]
    if dataset.timestamp is None:
        files = [dataclasses.replace(file, days=(), in_day_folder=False) for file in files]
    else:
        files = [f if f.in_day_folder else _with_days(f, dataset) for f in files]
    return Source(data, tuple(files))


def plan(source: Source, config: Config, as_of: date | None) -> Windows | None:
    """The windows of a run on this data; None if the data has no timestamp.

    Args:
      source: the data.
      config, as_of: see `plan_ingestion`.

    Raises:
      BadInput: the data does not cover the windows.
    """
    if config.dataset.timestamp is None:
        if not any(reader.count_rows(file) for file in source.all_files):
            raise BadInput(f"{source.data}: there are no transactions")
        return None
    days = source.days
    if not days:
        raise BadInput(f"{source.data}: there are no transactions")
    lengths = config.windows
    history = history_days(config.features, config.dataset, lengths.label_delay_days)
    try:
        windows = windows_for(
            as_of or days[-1],
            train_days=lengths.train_days,
            eval_days=lengths.eval_days,
            label_delay_days=lengths.label_delay_days,
            history_days=history if config.dataset.entities else 0,
        )
    except OverflowError:
        raise BadInput(
            f"{source.data}: the windows of a run on {as_of or days[-1]} would begin before the "
            "year 1; lower windows.train_days or the windows of features.groups"
        ) from None
    excluded = tuple(sorted(day for day in {*lengths.excluded_days} if day in windows.all_days))
    windows = dataclasses.replace(windows, excluded=excluded)
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
    source: Source, windows: Windows | None, dataset: Dataset, labelled: bool = True
) -> dict[str, pa.DataType]:
    """Checks that the files of a run have the columns of the dataset.

    Headers are enough, but for the identifiers in CSV files: only all of them together tell whether
    they are numbers.

    Returns:
      column → the type its values have in all files (`values.types_of`).

    Raises:
      BadInput: a column is missing or has a wrong type; names file, column and configuration key.
    """
    seen: dict[str, set[pa.DataType]] = {name: set() for name in dataset.columns}
    identifiers = values.identifiers(dataset)
    for file in source.files(windows.all_days if windows else None):
        schema = reader.schema(file)
        needed = values.columns_of(file, dataset, windows, labelled)
        types = {c: _type_in(schema, c, key, file) for key, c in _keys(dataset) if c in needed}
        if identifiers and not file.is_parquet:
            types |= _spelled_types(file, identifiers)
        for key, column in _keys(dataset):
            if column in needed:
                type_ = types[column]
                if problem := values.wrong_type(column, type_, dataset):
                    _refuse_type(file, column, key, problem, dataset)
                seen[column].add(type_)
    return values.types_of(dataset, seen)


def _of_each(files: Sequence[File], function: Callable[[File], T]) -> tuple[T, ...]:
    """The value of a function that waits for a disk or a store, for each file, several at a time.

    Raises what the function raises for the first of the files that it raises for.
    """
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        return tuple(pool.map(function, files))


def _listed(data: str, system: arrow_fs.FileSystem, root: str) -> Iterator[File]:
    """The data files in a directory, or in its day folders if it has any.

    Names that begin with a dot or an underscore belong to other tools and are skipped, as is
    everything next to day folders.
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
            try:
                day = parse_day(folder[len(_DAY_FOLDER) :])
            except BadInput:
                raise BadInput(
                    f"{data}/{folder}: not a day; name the folder date=YYYY-MM-DD"
                ) from None
            file = dataclasses.replace(file, days=(day,), in_day_folder=True)
        yield file


def _file(path: str, info: arrow_fs.FileInfo, name: str) -> File:
    if not info.path.endswith(reader.SUFFIXES):
        raise BadInput(f"{path}: neither {_or(reader.SUFFIXES)}; convert it, or move it elsewhere")
    return File(path, name, info.size or 0, info.mtime_ns or 0)


@functools.cache
def _with_days(file: File, dataset: Dataset) -> File:
    """Adds the days that occur in a file outside day folders; reads its timestamps for that."""
    timestamp = str(dataset.timestamp)
    type_ = _type_in(reader.schema(file), timestamp, "dataset.timestamp", file)
    if problem := values.wrong_type(timestamp, type_, dataset):
        raise BadInput(f"{file.name}: {timestamp} (dataset.timestamp) {problem}")
    days: set[int] = set()
    for first, batch in reader.read(file, {timestamp: pa.string()}):
        origins = values.RowOrigins(file, np.arange(first, first + batch.num_rows))
        times = values.times_of(batch.column(0), timestamp, dataset, origins)
        days.update(np.unique(values.days_of(times, dataset.timezone)).tolist())
    return dataclasses.replace(
        file, days=tuple(EPOCH + timedelta(days=day) for day in sorted(days))
    )


@functools.cache
def _spelled_types(file: File, columns: tuple[str, ...]) -> dict[str, pa.DataType]:
    """The types of identifiers in a CSV file: int64 if all are plain whole numbers, else text."""
    types = dict.fromkeys(columns, pa.int64())
    for _, batch in reader.read(file, dict.fromkeys(columns, pa.string())):
        for name in columns:
            if types[name] == pa.int64() and values.whole_numbers(batch.column(name)) is None:
                types[name] = pa.string()
        if pa.int64() not in types.values():
            break
    return types


def _too_short(windows: Windows, days: tuple[date, ...], config: Config) -> str:
    """Explains what to change when the train window begins before the data."""
    lengths = config.windows
    missing = (days[0] - windows.train.first).days
    fixes = []
    if missing < lengths.train_days:
        fixes.append(
            f"lower windows.train_days from {lengths.train_days} to {lengths.train_days - missing}"
        )
    elif windows.as_of + timedelta(days=missing) > days[-1]:
        # Even with a single train day the windows would not fit.
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


def content_id(file: File) -> str:
    """What differs whenever the content of a file does, even if size and modification time do not.

    It is a hash, and for an object in a store, which is not read for this, its ETag or generation,
    or the modification time if the store has neither.

    Raises:
      BadInput: the file cannot be read.
    """
    system, path = reader.filesystem(file.path)
    try:
        if isinstance(system, arrow_fs.LocalFileSystem):
            return _hash(path, os.stat(path).st_ctime_ns)
        headers = system.open_input_file(path).metadata()
    except OSError as error:
        raise BadInput(f"{file.name}: cannot be read: {error}") from None
    named = {name.lower(): value.decode() for name, value in headers.items()}
    return named.get("etag") or named.get("generation") or str(file.modified)


@functools.cache
def _hash(path: str, changed: int) -> str:
    """SHA-256 of a local file, read once for each time that its metadata changed."""
    content = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()


def check_gaps(source: Source, windows: Windows, tolerated: int) -> None:
    """Checks that no window has more days without transactions than tolerated.

    History may begin before the data does; only the days from the first day of data on count.

    Raises:
      BadInput: a window has too many empty days; names the first one.
    """
    first = source.days[0]
    rows: dict[date, int] = {}
    files = source.files(windows.all_days)
    # A file outside day folders is known to have rows on each of its days.
    counts = _of_each(files, lambda file: reader.count_rows(file) if file.in_day_folder else 1)
    for file, count in zip(files, counts, strict=True):
        for day in file.days:
            rows[day] = rows.get(day, 0) + count
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
    """(configuration key, column) of every column of the dataset."""
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
      BadInput: no column has this name, or several have.
    """
    present = schema.names
    if present.count(column) == 1:
        return schema.field(column).type
    if column in present:
        raise BadInput(f"{file.name}: there are {present.count(column)} columns {column!r}")
    close = difflib.get_close_matches(column, present, n=3, cutoff=0.5)
    if len(present) == 1 and re.search("[;|\t]", present[0]):
        hint = (
            "the header is a single column; name the character between the fields as "
            "dataset.csv_delimiter"
        )
    elif close:
        hint = f"perhaps {key} should be {_or(close)}"
    else:
        hint = f"set {key} to one of {', '.join(present[:20])}"
    raise BadInput(f"{file.name}: no column {column!r}; {hint}")


def _refuse_type(file: File, column: str, key: str, problem: str, dataset: Dataset) -> None:
    """Raises BadInput for a column of a wrong type; in CSV, for the first wrong value."""
    if not file.is_parquet:
        for _ in reader.read(file, {column: values.wanted_type(column, dataset)}):
            pass
    raise BadInput(f"{file.name}: {column} ({key}) {problem}")


def _or(words: tuple[str, ...] | list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))

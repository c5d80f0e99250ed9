"""The Beam pipeline of ingestion. It never creates a Python object per row.

::

    files ─ ReadChunks ─┬─ chunks ───────────────────────────────────────────┬─ shards
                        ├─ slim columns by (entity, hash of key) ─ features ─┘   by chunk
                        └─ ids by hash ─ unique?

If the champion was trained on other inputs, they are computed from the same rows in the same way,
and each eval example contains the champion's example too. See `Ingestion.champion`.

A chunk is some ten thousand consecutive rows, the unit of work after reading. Slim columns are
those that features are computed from. Arrow batches are kept in temporary files and Beam shuffles
references to them, so that memory does not grow with the data on any runner.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from tfx.dsl.io import fileio

from fraud.errors import BadInput
from fraud.features.batch import (
    calendar_features,
    entity_feature_names,
    entity_features,
    feature_names,
)
from fraud.features.spec import Features
from fraud.pipeline.ingestion import example_writer, reader
from fraud.pipeline.ingestion.reader import BATCH_ROWS, File, place
from fraud.pipeline.ingestion.values import (
    Layout,
    RowOrigins,
    clean,
    days_of,
    is_within,
    known_days,
)
from fraud.pipeline.windows import LABELLED_SPLITS
from fraud.time import day_number

PARTITION_ROWS = 200_000
"""The approximate number of rows of an entity's history held in memory at once."""

_LIST = "shards.json"

ChunkKey = tuple[int, int]
"""(job, number within the job): sorts in the order of the rows in the files."""


@dataclass(frozen=True)
class Stored:
    """A batch in a temporary file.

    Attributes:
      path: path of the file.
      number: index of the batch in the file.
    """

    path: str
    number: int

    def load(self) -> pa.RecordBatch:
        """Reads the batch."""
        system, path = reader.filesystem(self.path)
        with system.open_input_file(path) as file:
            return pa.ipc.open_file(file).get_batch(self.number)


def store(batches: Sequence[pa.RecordBatch], directory: str) -> list[Stored]:
    """Writes one or more batches with the same columns to a new file."""
    path = f"{directory}/{uuid.uuid4().hex}.arrow"
    system, within = reader.filesystem(path)
    with (
        system.open_output_stream(within) as sink,
        pa.ipc.new_file(sink, batches[0].schema) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
    return [Stored(path, number) for number in range(len(batches))]


@dataclass(frozen=True)
class Ingestion:
    """The settings of the stages.

    Attributes:
      layout: the columns and days to read.
      features: the features to compute.
      delay_days: days until a label is known, unless there are label times.
      eval_percent: the share of rows in the eval split if the data has no timestamp.
      directory: for temporary files; all workers can read and write it.
      champion: what to compute the champion's inputs of the eval rows from, if they differ. Only
        its layout, features and delay are used.
      champion_column: the feature of the eval examples that holds the champion's examples.
    """

    layout: Layout
    features: Features
    delay_days: int
    eval_percent: int
    directory: str
    champion: Ingestion | None = None
    champion_column: str = ""

    @property
    def entities(self) -> tuple[str, ...]:
        """The entities that have features."""
        dataset = self.layout.dataset
        return tuple(
            entity
            for entity in dataset.entities
            if entity_feature_names(self.features, dataset, entity)
        )

    def splits(self, chunk: pa.RecordBatch) -> dict[str, NDArray[np.int64]]:
        """Split → indices of its rows in a chunk, for splits that have rows in the chunk."""
        dataset, windows = self.layout.dataset, self.layout.windows
        if windows is None:
            named = [dataset.id] if dataset.id else chunk.schema.names
            held_out = _hashes([chunk.column(name) for name in named]) % 100 < self.eval_percent
            masks = {"train": ~held_out, "eval": held_out}
        else:
            days = days_of(chunk.column(dataset.timestamp), dataset.timezone)
            usable = ~np.isin(days, [day_number(day) for day in windows.excluded])
            masks = {
                name: usable & is_within(window, days) for name, window in windows.splits().items()
            }
        return {name: np.flatnonzero(mask) for name, mask in masks.items() if mask.any()}

    def labelled(
        self, split: str, rows: NDArray[np.int64], chunk: pa.RecordBatch
    ) -> NDArray[np.int64]:
        """Those of the rows of a split whose label was known in time; all of an unlabelled split.

        Without label times, the label delay makes all labels of a labelled window known.
        """
        dataset, windows = self.layout.dataset, self.layout.windows
        if windows is None or dataset.label_time is None or split not in LABELLED_SPLITS:
            return rows
        learned = known_days(chunk.column(dataset.label_time), dataset.timezone)[rows]
        return rows[learned <= day_number(windows.labels_known_by(split))]


@dataclass(frozen=True)
class Shard:
    """A finished file of examples.

    Attributes:
      split: the split it belongs to.
      chunk: the chunk that its rows come from.
      path: path in the temporary directory; "" if there are no rows.
      rows: number of rows.
      positives: number of rows labelled 1; 0 if labels are not known.
      unlabelled: number of rows left out because their label is not known yet.
    """

    split: str
    chunk: ChunkKey
    path: str
    rows: int
    positives: int
    unlabelled: int


def run(pipeline: beam.Pipeline, ingestion: Ingestion, rows: Mapping[File, int]) -> None:
    """Adds the stages to a pipeline. Once it has run, `shards` lists its output.

    Args:
      pipeline: the pipeline to extend.
      ingestion: the settings.
      rows: input file → its number of rows, in the order that the examples are to have.
    """
    jobs = list(enumerate(_jobs(rows, ingestion.layout)))
    partitions = 1 + sum(rows.values()) // PARTITION_ROWS
    outputs = ("ids", "slim", "champion_chunks", "champion_slim")
    batches = (
        pipeline
        | "Files" >> beam.Create(jobs)
        | "Spread" >> beam.Reshuffle()
        | "Read"
        >> beam.ParDo(ReadChunks(ingestion, partitions)).with_outputs(*outputs, main="chunks")
    )
    _ = (
        batches.ids
        | "ById" >> beam.GroupByKey()
        | "Unique" >> beam.Map(_check_unique, ingestion.layout.dataset.id)
    )
    grouped = {
        "chunk": batches.chunks,
        "features": batches.slim
        | "ByEntity" >> beam.GroupByKey()
        | "Features" >> beam.FlatMap(_entity_features, ingestion),
    }
    if ingestion.champion is not None:
        grouped["champion_chunk"] = batches.champion_chunks
        grouped["champion_features"] = (
            batches.champion_slim
            | "ChampionByEntity" >> beam.GroupByKey()
            | "ChampionFeatures" >> beam.FlatMap(_entity_features, ingestion.champion)
        )
    _ = (
        grouped
        | "ByChunk" >> beam.CoGroupByKey()
        | "Write" >> beam.FlatMap(_write_shards, ingestion)
        | "All" >> beam.combiners.ToList()
        | "List" >> beam.Map(_write_list, ingestion.directory)
    )


def shards(ingestion: Ingestion) -> list[Shard]:
    """The output of a pipeline that has run, in the order of the input."""
    with fileio.open(f"{ingestion.directory}/{_LIST}", "r") as file:
        listed = [Shard(**shard) for shard in json.load(file)]
    return sorted(listed, key=lambda shard: (shard.split, shard.chunk))


def bad_input_in(error: BaseException) -> BadInput | None:
    """The BadInput that a worker raised, extracted from the error that the runner raises."""
    text = str(error)
    if not isinstance(error, BadInput):
        # Some runners pass on the worker's traceback as text.
        _, marker, text = text.rpartition(f"{BadInput.__module__}.{BadInput.__qualname__}: ")
        if not marker:
            return None
    # Beam appends the step to the message.
    return BadInput(text.partition(" [while running ")[0].strip())


Rows = tuple[RowOrigins, pa.RecordBatch]
"""Cleaned rows of one file, and where they come from."""


class ReadChunks(beam.DoFn):
    """(job, its files) → (chunk, its rows), with side outputs "slim" and "ids".

    Outputs, with batches as `Stored`:
      main: (chunk, all columns) for chunks that have rows of a split.
      slim: ((entity, partition), (chunk, whether it is in main, columns row, key, time, amount,
        label)); row is the index in the chunk.
      ids: (partition, (chunk, files, columns file, position, id)); file is an index in files.
      champion_chunks: (chunk, the champion's columns of its eval rows), for chunks that have any.
      champion_slim: as slim, of the champion's rows; row is the index among the chunk's eval rows.
    """

    def __init__(self, ingestion: Ingestion, partitions: int):
        self._ingestion = ingestion
        self._partitions = partitions

    def process(self, job: tuple[int, Sequence[File]]) -> Iterator[Any]:
        """Reads one job."""
        number, job_files = job
        champion = self._ingestion.champion
        keys = ((number, chunk) for chunk in itertools.count())
        pending: list[Rows] = []
        champion_pending: list[Rows] = []
        for file in job_files:
            batches = _read(file, self._ingestion.layout)
            # Both read the same rows batch by batch; either may have none of a file.
            champion_batches = _read(file, champion.layout) if champion else iter(())
            for rows, champion_rows in itertools.zip_longest(batches, champion_batches):
                read = [r[1].num_rows for r in (rows, champion_rows) if r is not None]
                held = (sum(b.num_rows for _, b in p) for p in (pending, champion_pending))
                if max(held) + max(read) > BATCH_ROWS:
                    yield from self._chunk(next(keys), pending, champion_pending)
                    pending, champion_pending = [], []
                if rows is not None and rows[1].num_rows:
                    pending.append(rows)
                if champion_rows is not None and champion_rows[1].num_rows:
                    champion_pending.append(champion_rows)
        yield from self._chunk(next(keys), pending, champion_pending)

    def _chunk(self, key: ChunkKey, parts: list[Rows], champion_parts: list[Rows]) -> Iterator[Any]:
        if champion := self._ingestion.champion:
            yield from self._champion_chunk(key, champion, parts, champion_parts)
        if not parts:
            return
        chunk = _joined([batch for _, batch in parts])
        is_in_split = bool(self._ingestion.splits(chunk))
        if is_in_split:
            (stored,) = store([chunk], self._ingestion.directory)
            yield key, stored
        dataset = self._ingestion.layout.dataset
        if dataset.id:
            positions = [origins.positions for origins, _ in parts]
            counts = [len(part) for part in positions]
            ids = {
                "file": pa.array(np.repeat(np.arange(len(parts), dtype=np.int32), counts)),
                "position": pa.array(np.concatenate(positions)),
                "id": chunk.column(dataset.id),
            }
            files = [origins.file for origins, _ in parts]
            for partition, stored in self._partitioned(ids, by="id"):
                yield beam.pvalue.TaggedOutput("ids", (partition, (key, files, stored)))
        for entity_partition, stored in self._slim(self._ingestion, chunk):
            element = (entity_partition, (key, is_in_split, stored))
            yield beam.pvalue.TaggedOutput("slim", element)

    def _champion_chunk(
        self, key: ChunkKey, champion: Ingestion, parts: list[Rows], champion_parts: list[Rows]
    ) -> Iterator[Any]:
        """The champion's outputs for a chunk of these rows."""
        files = list(dict.fromkeys(origins.file for origins, _ in [*parts, *champion_parts]))
        eval_ids = _row_ids(parts, files)
        if parts:
            splits = self._ingestion.splits(_joined([batch for _, batch in parts]))
            eval_ids = eval_ids[splits.get("eval", [])]
        is_eval = np.isin(_row_ids(champion_parts, files), eval_ids)
        if is_eval.sum() < len(eval_ids):
            time = champion.layout.dataset.timestamp
            raise BadInput(f"its column of times, {time}, puts eval rows outside the eval window")
        if not champion_parts:
            return
        chunk = _joined([batch for _, batch in champion_parts])
        # Both are in the order of the files, so the eval rows are in the same order.
        eval_rows, others = (chunk.filter(pa.array(mask)) for mask in (is_eval, ~is_eval))
        if eval_rows.num_rows:
            (stored,) = store([eval_rows], self._ingestion.directory)
            yield beam.pvalue.TaggedOutput("champion_chunks", (key, stored))
        for rows in filter(len, (eval_rows, others)):
            for entity_partition, stored in self._slim(champion, rows):
                element = (entity_partition, (key, rows is eval_rows, stored))
                yield beam.pvalue.TaggedOutput("champion_slim", element)

    def _slim(
        self, ingestion: Ingestion, rows: pa.RecordBatch
    ) -> Iterator[tuple[tuple[str, int], Stored]]:
        """What features are computed from: ((entity, partition), its rows), without empty ones."""
        dataset = ingestion.layout.dataset
        for entity in ingestion.entities:
            names = {"key": entity, "time": dataset.timestamp, "amount": dataset.amount}
            names |= {"label": dataset.label, "label_time": dataset.label_time}
            slim = {name: rows.column(column) for name, column in names.items() if column}
            slim["row"] = pa.array(np.arange(rows.num_rows, dtype=np.int32))
            for partition, stored in self._partitioned(slim, by="key"):
                yield (entity, partition), stored

    def _partitioned(self, columns: dict[str, pa.Array], by: str) -> Iterator[tuple[int, Stored]]:
        """Stores rows by the hash of a column: (partition, its rows), without empty ones."""
        partition = (_hashes([columns[by]]) % self._partitions).astype(np.int64)
        order = np.argsort(partition, kind="stable")
        numbers, starts = np.unique(partition[order], return_index=True)
        ordered = pa.RecordBatch.from_pydict(
            {name: column.take(pa.array(order)) for name, column in columns.items()}
        )
        stops = [*starts[1:].tolist(), len(order)]
        batches = [ordered.slice(a, b - a) for a, b in zip(starts.tolist(), stops, strict=True)]
        yield from zip(numbers.tolist(), store(batches, self._ingestion.directory), strict=True)


def _read(file: File, layout: Layout) -> Iterator[Rows]:
    """The cleaned rows of a file, batch by batch; none of a file of other days."""
    windows = layout.windows
    if windows is not None and not any(day in windows.all_days for day in file.days):
        return
    for first, raw in reader.read(file, layout.to_read(file)):
        yield clean(raw, RowOrigins(file, np.arange(first, first + raw.num_rows)), layout)


def _row_ids(parts: Sequence[Rows], files: Sequence[File]) -> NDArray[np.int64]:
    """A number for each row by its file and position, ascending in the order of the files."""
    ids = [(files.index(origins.file) << 40) + origins.positions for origins, _ in parts]
    return np.concatenate([np.array([], np.int64), *ids])


def _check_unique(element: tuple[int, Iterable[Any]], name: str) -> None:
    """Checks that no id of a partition occurs twice; `name` is the column of ids."""
    parts = [
        (files, stored.load()) for _, files, stored in sorted(element[1], key=lambda part: part[0])
    ]
    ids = pa.concat_arrays([batch.column("id") for _, batch in parts]).dictionary_encode()
    codes = ids.indices.to_numpy()
    repeated = np.bincount(codes)[codes] > 1
    if repeated.any():
        first, again = np.flatnonzero(codes == codes[np.argmax(repeated)])[:2]
        places = [
            f"{files[row['file']].name}, {place(files[row['file']], row['position'])}"
            for files, batch in parts
            for row in batch.to_pylist()
        ]
        raise BadInput(
            f"{places[again]}: {name} {ids[int(first)].as_py()} was already in {places[first]}; "
            "remove one of them, or set dataset.id to null if it need not be unique"
        )


def _entity_features(
    element: tuple[tuple[str, int], Iterable[Any]], ingestion: Ingestion
) -> Iterator[Any]:
    """All rows of some keys of an entity → (chunk, row and features) for chunks in a split.

    Batches are `Stored` in the input and in the output.
    """
    (entity, _), unordered = element
    parts = [
        (key, is_in_split, stored.load())
        for key, is_in_split, stored in sorted(unordered, key=lambda part: part[0])
    ]
    columns = _columns(_joined([batch for _, _, batch in parts]))
    computed = entity_features(
        ingestion.features,
        ingestion.layout.dataset,
        entity,
        columns["key"].dictionary_encode().indices.to_numpy().astype(np.int64),
        columns["time"].to_numpy(),
        _floats(columns["amount"]) if "amount" in columns else None,
        _floats(columns["label"]),
        np.timedelta64(ingestion.delay_days, "D"),
        columns["label_time"].to_numpy(zero_copy_only=False) if "label_time" in columns else None,
    )
    start, keys, batches = 0, [], []
    for key, is_in_split, batch in parts:
        stop = start + batch.num_rows
        if is_in_split:
            values = {name: pa.array(column[start:stop]) for name, column in computed.items()}
            keys.append(key)
            batches.append(pa.RecordBatch.from_pydict({"row": batch.column("row"), **values}))
        start = stop
    if batches:
        yield from zip(keys, store(batches, ingestion.directory), strict=True)


def _write_shards(
    element: tuple[ChunkKey, dict[str, Iterable[Any]]], ingestion: Ingestion
) -> Iterator[dict]:
    """(chunk, its rows and features) → a Shard, as a dictionary, for each split in the chunk."""
    key, grouped = element
    (stored,) = grouped["chunk"]
    chunk = stored.load()
    columns = _example_columns(chunk, grouped["features"], ingestion)
    label = ingestion.layout.dataset.label
    labels = _floats(columns[label])
    champion = ingestion.champion
    for split, in_window in ingestion.splits(chunk).items():
        rows = ingestion.labelled(split, in_window, chunk)
        shard = Shard(split, key, "", len(rows), 0, unlabelled=len(in_window) - len(rows))
        if len(rows):
            split_columns = {n: column.take(pa.array(rows)) for n, column in columns.items()}
            if split in LABELLED_SPLITS:
                shard = dataclasses.replace(shard, positives=int(labels[rows].sum()))
            else:
                del split_columns[label]
            if champion is not None and split == "eval":
                (stored,) = grouped["champion_chunk"]
                theirs = example_writer.serialized(
                    _example_columns(stored.load(), grouped["champion_features"], champion)
                )
                is_labelled = pa.array(np.isin(in_window, rows))
                theirs = pa.array(theirs, pa.binary()).filter(is_labelled)
                split_columns[ingestion.champion_column] = theirs
            path = f"{ingestion.directory}/{uuid.uuid4().hex}.gz"
            example_writer.write(path, split_columns)
            shard = dataclasses.replace(shard, path=path)
        yield dataclasses.asdict(shard)


def _example_columns(
    chunk: pa.RecordBatch, features: Iterable[Stored], ingestion: Ingestion
) -> dict[str, pa.Array]:
    """The columns of a chunk's examples. The time of a label is not one: it tells the label."""
    columns = _columns(chunk) | _features(chunk, features, ingestion)
    if ingestion.layout.dataset.label_time is not None:
        del columns[ingestion.layout.dataset.label_time]
    return columns


def _features(
    chunk: pa.RecordBatch, parts: Iterable[Stored], ingestion: Ingestion
) -> dict[str, pa.Array]:
    """Features by name, in the order of the chunk's rows."""
    dataset, spec = ingestion.layout.dataset, ingestion.features
    values = {
        name: np.full(chunk.num_rows, np.nan, np.float32) for name in feature_names(spec, dataset)
    }
    if dataset.timestamp is not None:
        values |= calendar_features(spec, dataset, chunk.column(dataset.timestamp).to_numpy())
    for stored in parts:
        batch = stored.load()
        rows = batch.column("row").to_numpy()
        for name in batch.schema.names[1:]:
            values[name][rows] = batch.column(name).to_numpy()
    return {name: pa.array(column, from_pandas=True) for name, column in values.items()}


def _jobs(rows: Mapping[File, int], layout: Layout) -> list[tuple[File, ...]]:
    """Groups consecutive files of the same split into jobs of at most one chunk."""
    splits = layout.windows.splits() if layout.windows else {}
    jobs: list[list[File]] = []
    split, count = None, 0
    for file in rows:
        file_split = [name for name, window in splits.items() if file.days[0] in window]
        if jobs and split == file_split and count + rows[file] <= BATCH_ROWS:
            jobs[-1].append(file)
            count += rows[file]
        else:
            jobs.append([file])
            split, count = file_split, rows[file]
    return [tuple(job) for job in jobs]


def _hashes(columns: Iterable[pa.Array]) -> NDArray[np.uint64]:
    """A hash of each row's values that is the same in every process, [rows]."""
    hashes: NDArray[np.uint64] | None = None
    for column in columns:
        encoded = column.dictionary_encode()
        distinct = encoded.dictionary.to_numpy(zero_copy_only=False)
        # The last one is for nulls, whose index becomes -1.
        of_distinct = np.append(pd.util.hash_array(distinct, categorize=False), np.uint64(0))
        of_rows = of_distinct[encoded.indices.fill_null(-1).to_numpy()]
        hashes = of_rows if hashes is None else hashes * np.uint64(31) + of_rows
    assert hashes is not None
    return hashes


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    (batch,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return batch


def _columns(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    return dict(zip(batch.schema.names, batch.columns, strict=True))


def _floats(column: pa.Array) -> NDArray[np.float64]:
    """Numbers, NaN where null, [rows]."""
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _write_list(listed: list[dict], directory: str) -> None:
    with fileio.open(f"{directory}/{_LIST}", "w") as file:
        file.write(json.dumps(listed))

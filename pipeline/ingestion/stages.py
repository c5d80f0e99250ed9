"""The Beam pipeline of ingestion. It never creates a Python object per row.

::

    files ─ ReadChunks ─┬─ chunks ───────────────────────────────────────────┬─ shards
                        ├─ slim columns by (entity, hash of key) ─ features ─┘   by chunk
                        └─ ids by hash ─ unique?

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
from fraud.pipeline.ingestion.values import Layout, RowOrigins, clean, days_of, is_within

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
      delay_days: days until a label is known.
      eval_percent: the share of rows in the eval split if the data has no timestamp.
      directory: for temporary files; all workers can read and write it.
    """

    layout: Layout
    features: Features
    delay_days: int
    eval_percent: int
    directory: str

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
            days = days_of(chunk.column(dataset.timestamp))
            masks = {name: is_within(window, days) for name, window in windows.splits().items()}
        return {name: np.flatnonzero(mask) for name, mask in masks.items() if mask.any()}


@dataclass(frozen=True)
class Shard:
    """A finished file of examples.

    Attributes:
      split: the split it belongs to.
      chunk: the chunk that its rows come from.
      path: path in the temporary directory.
      rows: number of rows.
      positives: number of rows labelled 1; 0 if labels are not known.
    """

    split: str
    chunk: ChunkKey
    path: str
    rows: int
    positives: int


def run(pipeline: beam.Pipeline, ingestion: Ingestion, rows: Mapping[File, int]) -> None:
    """Adds the stages to a pipeline. Once it has run, `shards` lists its output.

    Args:
      pipeline: the pipeline to extend.
      ingestion: the settings.
      rows: input file → its number of rows, in the order that the examples are to have.
    """
    jobs = list(enumerate(_jobs(rows, ingestion.layout)))
    partitions = 1 + sum(rows.values()) // PARTITION_ROWS
    batches = (
        pipeline
        | "Files" >> beam.Create(jobs)
        | "Spread" >> beam.Reshuffle()
        | "Read"
        >> beam.ParDo(ReadChunks(ingestion, partitions)).with_outputs("ids", "slim", main="chunks")
    )
    _ = (
        batches.ids
        | "ById" >> beam.GroupByKey()
        | "Unique" >> beam.Map(_check_unique, ingestion.layout.dataset.id)
    )
    computed = (
        batches.slim
        | "ByEntity" >> beam.GroupByKey()
        | "Features" >> beam.FlatMap(_entity_features, ingestion)
    )
    _ = (
        {"chunk": batches.chunks, "features": computed}
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


class ReadChunks(beam.DoFn):
    """(job, its files) → (chunk, its rows), with side outputs "slim" and "ids".

    Outputs, with batches as `Stored`:
      main: (chunk, all columns) for chunks that have rows of a split.
      slim: ((entity, partition), (chunk, whether it is in main, columns row, key, time, amount,
        label)); row is the index in the chunk.
      ids: (partition, (chunk, files, columns file, position, id)); file is an index in files.
    """

    def __init__(self, ingestion: Ingestion, partitions: int):
        self._ingestion = ingestion
        self._partitions = partitions

    def process(self, job: tuple[int, Sequence[File]]) -> Iterator[Any]:
        """Reads one job."""
        number, job_files = job
        layout = self._ingestion.layout
        keys = ((number, chunk) for chunk in itertools.count())
        pending: list[tuple[RowOrigins, pa.RecordBatch]] = []
        for file in job_files:
            for first, raw in reader.read(file, layout.to_read(file)):
                origins = RowOrigins(file, np.arange(first, first + raw.num_rows))
                origins, batch = clean(raw, origins, layout)
                if sum(b.num_rows for _, b in pending) + batch.num_rows > BATCH_ROWS:
                    yield from self._chunk(next(keys), pending)
                    pending = []
                if batch.num_rows:
                    pending.append((origins, batch))
        yield from self._chunk(next(keys), pending)

    def _chunk(
        self, key: ChunkKey, parts: list[tuple[RowOrigins, pa.RecordBatch]]
    ) -> Iterator[Any]:
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
        for entity in self._ingestion.entities:
            names = {"key": entity, "time": dataset.timestamp, "amount": dataset.amount}
            names["label"] = dataset.label
            slim = {name: chunk.column(column) for name, column in names.items() if column}
            slim["row"] = pa.array(np.arange(chunk.num_rows, dtype=np.int32))
            for partition, stored in self._partitioned(slim, by="key"):
                element = ((entity, partition), (key, is_in_split, stored))
                yield beam.pvalue.TaggedOutput("slim", element)

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
    columns = _columns(chunk) | _features(chunk, grouped["features"], ingestion)
    label = ingestion.layout.dataset.label
    labels = _floats(columns[label])
    for split, rows in ingestion.splits(chunk).items():
        # The labels of recent days are not known, so their examples have no label.
        known = not np.isnan(labels[rows]).any()
        split_columns = {n: column.take(pa.array(rows)) for n, column in columns.items()}
        if not known:
            del split_columns[label]
        path = f"{ingestion.directory}/{uuid.uuid4().hex}.gz"
        example_writer.write(path, split_columns)
        positives = int(labels[rows].sum()) if known else 0
        yield dataclasses.asdict(Shard(split, key, path, len(rows), positives))


def _features(
    chunk: pa.RecordBatch, parts: Iterable[Stored], ingestion: Ingestion
) -> dict[str, pa.Array]:
    """Features by name, in the order of the chunk's rows."""
    dataset, spec = ingestion.layout.dataset, ingestion.features
    values = {
        name: np.full(chunk.num_rows, np.nan, np.float32) for name in feature_names(spec, dataset)
    }
    if dataset.timestamp is not None:
        values |= calendar_features(spec, chunk.column(dataset.timestamp).to_numpy())
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

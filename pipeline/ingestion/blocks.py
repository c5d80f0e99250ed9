"""Reads files into blocks of rows, and divides what is shuffled into partitions by key.

A chunk is some ten thousand consecutive rows, what is read and written at once. A block is one or
more consecutive chunks: the rows that are shuffled together and become one file of examples. Slim
columns are those that features are computed from.
"""

from __future__ import annotations

import itertools
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.features.batch import entity_feature_names
from fraud.features.spec import Features
from fraud.pipeline.ingestion import reader
from fraud.pipeline.ingestion.reader import BATCH_ROWS, File
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
"""The least number of rows of an entity's history, on average, that are held in memory at once."""

REFERENCE_ROWS = 1_000
"""The least number of rows, on average, that a shuffled reference stands for in large data."""
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")
"""For temporary files: as fast as uncompressed files, of about half the size."""
BlockKey = tuple[int, int]
"""(job, number within the job): sorts in the order of the rows in the files."""


@dataclass(frozen=True)
class ShuffleSizes:
    """How rows are divided for a shuffle, so that it grows with the rows and not with their square.

    Each block has a reference to its rows of each partition. Were both of fixed size, ten times the
    rows would be ten times the blocks and ten times the partitions. So both grow with the square
    root of the rows: then the number of references is proportional to the rows.

    Attributes:
      block_rows: the most rows of a block.
      partition_rows: the average number of rows of a partition.
      partitions: the number of partitions of an entity, and of the ids.
    """

    block_rows: int
    partition_rows: int
    partitions: int

    @classmethod
    def of(cls, rows: int) -> ShuffleSizes:
        """The sizes for a number of rows."""
        balanced = math.isqrt(rows * REFERENCE_ROWS)
        partition_rows = max(PARTITION_ROWS, balanced)
        return cls(max(BATCH_ROWS, balanced), partition_rows, 1 + rows // partition_rows)


@dataclass(frozen=True)
class Stored:
    """A batch in a temporary file.

    Attributes:
      path: path of the file.
      number: index of the batch in the file.
      rows: its number of rows.
    """

    path: str
    number: int
    rows: int

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
        pa.ipc.new_file(sink, batches[0].schema, options=_COMPRESSED) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
    return [Stored(path, number, batch.num_rows) for number, batch in enumerate(batches)]


@dataclass(frozen=True)
class Chunk:
    """The columns of a chunk.

    Attributes:
      number: its number within the job.
      start: the index of its first row in the block.
      stored: the columns.
    """

    number: int
    start: int
    stored: Stored


@dataclass(frozen=True)
class Block:
    """The chunks of a block that have rows of a split.

    Attributes:
      rows: number of rows of the block, with those of other chunks.
      chunks: the chunks.
    """

    rows: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Slim:
    """A block's rows of a partition, as far as features are computed from them.

    Attributes:
      block: the block.
      is_in_split: whether features of these rows are needed, not only their history.
      stored: the columns row (index in the block), key, time, amount, label and label_time.
    """

    block: BlockKey
    is_in_split: bool
    stored: Stored


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
            held_out = hashes([chunk.column(name) for name in named]) % 100 < self.eval_percent
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


Rows = tuple[RowOrigins, pa.RecordBatch]
"""Cleaned rows of one file, and where they come from."""


@dataclass
class _Pending:
    """A block while its chunks are read.

    Attributes:
      rows: number of rows so far.
      chunks: the chunks that have rows of a split.
      slim: their columns that features are computed from, and those of all other rows.
      ids: the ids of the rows, and where they come from.
    """

    rows: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    slim: list[pa.RecordBatch] = field(default_factory=list)
    ids: list[tuple[RowOrigins, pa.Array]] = field(default_factory=list)


class ReadBlocks(beam.DoFn):
    """(job, its files) → (block, its chunks), with further outputs.

    Outputs:
      main: (block, `Block`) for blocks that have rows of a split.
      slim: ((entity, partition), `Slim`).
      ids: (partition, (block, files, columns file, position, id, as `Stored`)); file is an index
        in files.
      champion_blocks: (block, `Block` of the champion's columns of its eval rows), if it has any.
      champion_slim: as slim, of the champion's rows; row is the index among the block's eval rows.
    """

    def __init__(self, ingestion: Ingestion, sizes: ShuffleSizes):
        self._ingestion = ingestion
        self._sizes = sizes

    def process(self, job: tuple[int, Sequence[File]]) -> Iterator[Any]:
        """Reads one job."""
        job_number, job_files = job
        blocks = itertools.count()
        ours, theirs, their_history = _Pending(), _Pending(), _Pending()
        for number, (parts, champion_parts) in enumerate(self._chunks(job_files)):
            rows, champion_rows = (
                sum(batch.num_rows for _, batch in of) for of in (parts, champion_parts)
            )
            held = max(ours.rows, theirs.rows + their_history.rows)
            if held and held + max(rows, champion_rows) > self._sizes.block_rows:
                yield from self._block((job_number, next(blocks)), ours, theirs, their_history)
                ours, theirs, their_history = _Pending(), _Pending(), _Pending()
            if self._ingestion.champion is not None:
                self._add_champion(number, parts, champion_parts, theirs, their_history)
            if rows:
                chunk = joined([batch for _, batch in parts])
                if dataset_id := self._ingestion.layout.dataset.id:
                    ours.ids += [(origins, batch.column(dataset_id)) for origins, batch in parts]
                self._add(ours, self._ingestion, number, chunk, bool(self._ingestion.splits(chunk)))
        yield from self._block((job_number, next(blocks)), ours, theirs, their_history)

    def _chunks(self, files: Sequence[File]) -> Iterator[tuple[list[Rows], list[Rows]]]:
        """The rows of our layout and those of the champion's, some ten thousand at a time."""
        champion = self._ingestion.champion
        pending: list[Rows] = []
        champion_pending: list[Rows] = []
        for file in files:
            batches = _read(file, self._ingestion.layout)
            # Both read the same rows batch by batch; either may have none of a file.
            champion_batches = _read(file, champion.layout) if champion else iter(())
            for rows, champion_rows in itertools.zip_longest(batches, champion_batches):
                read = [r[1].num_rows for r in (rows, champion_rows) if r is not None]
                held = (sum(b.num_rows for _, b in p) for p in (pending, champion_pending))
                if max(held) + max(read) > BATCH_ROWS:
                    yield pending, champion_pending
                    pending, champion_pending = [], []
                if rows is not None and rows[1].num_rows:
                    pending.append(rows)
                if champion_rows is not None and champion_rows[1].num_rows:
                    champion_pending.append(champion_rows)
        yield pending, champion_pending

    def _add(
        self, block: _Pending, ingestion: Ingestion, number: int, rows: pa.RecordBatch, keep: bool
    ) -> None:
        """Adds a chunk to a block; stores all of its columns if they are to be kept."""
        if keep:
            (stored,) = store([rows], self._ingestion.directory)
            block.chunks.append(Chunk(number, block.rows, stored))
        needed = needed_for_features(ingestion)
        block.slim.append(pa.RecordBatch.from_pydict({name: rows.column(name) for name in needed}))
        block.rows += rows.num_rows

    def _add_champion(
        self,
        number: int,
        parts: list[Rows],
        champion_parts: list[Rows],
        theirs: _Pending,
        their_history: _Pending,
    ) -> None:
        """Adds the champion's rows of a chunk to its eval rows and to their history."""
        champion = self._ingestion.champion
        assert champion is not None
        files = list(dict.fromkeys(origins.file for origins, _ in [*parts, *champion_parts]))
        eval_ids = _row_ids(parts, files)
        if parts:
            splits = self._ingestion.splits(joined([batch for _, batch in parts]))
            eval_ids = eval_ids[splits.get("eval", [])]
        is_eval = np.isin(_row_ids(champion_parts, files), eval_ids)
        if is_eval.sum() < len(eval_ids):
            time = champion.layout.dataset.timestamp
            raise BadInput(f"its column of times, {time}, puts eval rows outside the eval window")
        if not champion_parts:
            return
        chunk = joined([batch for _, batch in champion_parts])
        # Both are in the order of the files, so the eval rows are in the same order.
        eval_rows, others = (chunk.filter(pa.array(mask)) for mask in (is_eval, ~is_eval))
        if eval_rows.num_rows:
            self._add(theirs, champion, number, eval_rows, keep=True)
        if others.num_rows:
            self._add(their_history, champion, number, others, keep=False)

    def _block(
        self, key: BlockKey, ours: _Pending, theirs: _Pending, their_history: _Pending
    ) -> Iterator[Any]:
        """All outputs of a block."""
        if ours.chunks:
            yield key, Block(ours.rows, tuple(ours.chunks))
        if ours.ids:
            yield from self._ids(key, ours.ids)
        yield from self._slim("slim", self._ingestion, key, ours)
        if champion := self._ingestion.champion:
            if theirs.chunks:
                block = Block(theirs.rows, tuple(theirs.chunks))
                yield beam.pvalue.TaggedOutput("champion_blocks", (key, block))
            for rows in (theirs, their_history):
                yield from self._slim("champion_slim", champion, key, rows)

    def _ids(self, key: BlockKey, ids: list[tuple[RowOrigins, pa.Array]]) -> Iterator[Any]:
        files = list(dict.fromkeys(origins.file for origins, _ in ids))
        indices = [np.full(len(column), files.index(o.file), np.int32) for o, column in ids]
        columns = {
            "file": pa.array(np.concatenate(indices)),
            "position": pa.array(np.concatenate([origins.positions for origins, _ in ids])),
            "id": pa.concat_arrays([column for _, column in ids]),
        }
        directory = self._ingestion.directory
        for partition, stored in partitioned(columns, "id", self._sizes.partitions, directory):
            yield beam.pvalue.TaggedOutput("ids", (partition, (key, files, stored)))

    def _slim(
        self, tag: str, ingestion: Ingestion, key: BlockKey, block: _Pending
    ) -> Iterator[Any]:
        """What features are computed from, see `slim_parts`."""
        if not block.rows or not ingestion.entities:
            return
        index = np.arange(block.rows, dtype=np.int32)
        rows, is_in_split = joined(block.slim), bool(block.chunks)
        partitions = self._sizes.partitions
        for part in slim_parts(key, rows, index, is_in_split, ingestion, partitions):
            yield beam.pvalue.TaggedOutput(tag, part)


def slim_parts(
    key: BlockKey,
    rows: pa.RecordBatch,
    index: NDArray[np.int32],
    is_in_split: bool,
    ingestion: Ingestion,
    partitions: int,
) -> Iterator[tuple[tuple[str, int], Slim]]:
    """Stores what the features of entities are computed from.

    Args:
      key: the block.
      rows: the columns of `needed_for_features`, of one or more rows of the block.
      index: their indices in the block.
      is_in_split: see `Slim`.
      ingestion: the settings.
      partitions: the number of partitions of an entity.

    Yields:
      ((entity, partition), its rows), without empty ones.
    """
    named = _slim_names(ingestion)
    common = {name: rows.column(column) for name, column in named.items()}
    for entity in ingestion.entities:
        columns = {"key": rows.column(entity), **common, "row": pa.array(index)}
        for partition, stored in partitioned(columns, "key", partitions, ingestion.directory):
            yield (entity, partition), Slim(key, is_in_split, stored)


def partitioned(
    columns: dict[str, pa.Array], by: str, partitions: int, directory: str
) -> Iterator[tuple[int, Stored]]:
    """Stores rows by the hash of a column: (partition, its rows), without empty ones."""
    partition = (hashes([columns[by]]) % partitions).astype(np.int64)
    order = np.argsort(partition, kind="stable")
    numbers, starts = np.unique(partition[order], return_index=True)
    ordered = pa.RecordBatch.from_pydict(
        {name: column.take(pa.array(order)) for name, column in columns.items()}
    )
    stops = [*starts[1:].tolist(), len(order)]
    batches = [ordered.slice(a, b - a) for a, b in zip(starts.tolist(), stops, strict=True)]
    yield from zip(numbers.tolist(), store(batches, directory), strict=True)


def needed_for_features(ingestion: Ingestion) -> list[str]:
    """The columns of the dataset that the features of entities are computed from."""
    return list(dict.fromkeys([*_slim_names(ingestion).values(), *ingestion.entities]))


def _slim_names(ingestion: Ingestion) -> dict[str, str]:
    """What features are computed from beside the key: name in `Slim` → column of the dataset."""
    dataset = ingestion.layout.dataset
    names = {"time": dataset.timestamp, "amount": dataset.amount}
    names |= {"label": dataset.label, "label_time": dataset.label_time}
    return {name: column for name, column in names.items() if column}


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


def jobs_of(rows: Mapping[File, int], layout: Layout, most_rows: int) -> list[tuple[File, ...]]:
    """Groups consecutive files of the same split into jobs of at most so many rows."""
    splits = layout.windows.splits() if layout.windows else {}
    jobs: list[list[File]] = []
    split, count = None, 0
    for file in rows:
        file_split = [name for name, window in splits.items() if file.days[0] in window]
        if jobs and split == file_split and count + rows[file] <= most_rows:
            jobs[-1].append(file)
            count += rows[file]
        else:
            jobs.append([file])
            split, count = file_split, rows[file]
    return [tuple(job) for job in jobs]


def hashes(columns: Iterable[pa.Array]) -> NDArray[np.uint64]:
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


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches with the same columns as one; at least one of them has rows."""
    (batch,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return batch

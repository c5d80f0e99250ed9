"""The Beam pipeline of ingestion. It never creates a Python object per row.

::

    files ─ ReadBlocks ─┬─ chunks ───────────────────────────────────────────┬─ shards
                        ├─ slim columns by (entity, hash of key) ─ features ─┘   by block
                        └─ ids by hash ─ unique?

If the champion was trained on other inputs, they are computed from the same rows in the same way,
and each eval example contains the champion's example too. See `Ingestion.champion`.

Arrow batches are kept in temporary files and Beam shuffles references to them, as many as
`ShuffleSizes` says. `fraud.pipeline.ingestion.blocks` says what chunks, blocks and slim columns
are.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray
from tfx.dsl.io import fileio

from fraud.errors import BadInput
from fraud.features.batch import calendar_features
from fraud.models import example_columns
from fraud.pipeline.ingestion import example_writer
from fraud.pipeline.ingestion.blocks import (
    BlockKey,
    Chunk,
    Ingestion,
    ReadBlocks,
    ShuffleSizes,
    jobs_of,
)
from fraud.pipeline.ingestion.partitions import (
    LARGEST_PARTITION,
    columns_of,
    features_of_block,
    features_of_partition,
    floats,
)
from fraud.pipeline.ingestion.reader import File, place
from fraud.pipeline.windows import LABELLED_SPLITS

_LIST = "shards.json"


@dataclass(frozen=True)
class Shard:
    """A finished file of examples.

    Attributes:
      split: the split it belongs to.
      block: the block that its rows come from.
      path: path in the temporary directory; "" if there are no rows.
      rows: number of rows.
      positives: number of rows labelled 1; 0 if labels are not known.
      unlabelled: number of rows left out because their label is not known yet.
    """

    split: str
    block: BlockKey
    path: str
    rows: int
    positives: int
    unlabelled: int


def columns_path(shard: Shard) -> str:
    """The file with the columns of a shard, see `fraud.models.example_columns`."""
    return f"{shard.path}.arrow"


def run(pipeline: beam.Pipeline, ingestion: Ingestion, rows: Mapping[File, int]) -> None:
    """Adds the stages to a pipeline. Once it has run, `shards` lists its output.

    Args:
      pipeline: the pipeline to extend.
      ingestion: the settings.
      rows: input file → its number of rows, in the order that the examples are to have.
    """
    sizes = ShuffleSizes.of(sum(rows.values()))
    jobs = list(enumerate(jobs_of(rows, ingestion.layout, sizes.block_rows)))
    outputs = ("ids", "slim", "champion_blocks", "champion_slim")
    read = (
        pipeline
        | "Files" >> beam.Create(jobs)
        | "Spread" >> beam.Reshuffle()
        | "Read" >> beam.ParDo(ReadBlocks(ingestion, sizes)).with_outputs(*outputs, main="blocks")
    )
    _ = (
        read.ids
        | "ById" >> beam.GroupByKey()
        | "Unique" >> beam.Map(_check_unique, ingestion.layout.dataset.id)
    )
    most_rows = LARGEST_PARTITION * sizes.partition_rows
    grouped = {
        "block": read.blocks,
        "features": read.slim
        | "ByEntity" >> beam.GroupByKey()
        | "Features" >> beam.FlatMap(features_of_partition, ingestion, most_rows),
    }
    if ingestion.champion is not None:
        grouped["champion_block"] = read.champion_blocks
        grouped["champion_features"] = (
            read.champion_slim
            | "ChampionByEntity" >> beam.GroupByKey()
            | "ChampionFeatures"
            >> beam.FlatMap(features_of_partition, ingestion.champion, most_rows)
        )
    _ = (
        grouped
        | "ByBlock" >> beam.CoGroupByKey()
        | "Write" >> beam.FlatMap(_write_shards, ingestion)
        | "All" >> beam.combiners.ToList()
        | "List" >> beam.Map(_write_list, ingestion.directory)
    )


def shards(ingestion: Ingestion) -> list[Shard]:
    """The output of a pipeline that has run, in the order of the input."""
    with fileio.open(f"{ingestion.directory}/{_LIST}", "r") as file:
        listed = [Shard(**shard) for shard in json.load(file)]
    return sorted(listed, key=lambda shard: (shard.split, shard.block))


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


def _write_shards(
    element: tuple[BlockKey, dict[str, Iterable[Any]]], ingestion: Ingestion
) -> Iterator[dict]:
    """(block, its chunks and features) → a Shard, as a dictionary, for each split in the block."""
    key, grouped = element
    (block,) = grouped["block"]
    features = features_of_block(block.rows, grouped["features"], ingestion)
    champion = ingestion.champion
    their_chunks: dict[int, Chunk] = {}
    if champion is not None:
        for their_block in grouped["champion_block"]:
            their_chunks = {chunk.number: chunk for chunk in their_block.chunks}
            their_features = features_of_block(
                their_block.rows, grouped["champion_features"], champion
            )
    label = ingestion.layout.dataset.label
    shards: dict[str, Shard] = {}
    with ExitStack() as files:
        writers: dict[str, tuple[tf.io.TFRecordWriter, example_columns.Writer]] = {}
        for chunk in block.chunks:
            rows = chunk.stored.load()
            columns = _example_columns(rows, chunk.start, features, ingestion)
            for split, in_window in ingestion.splits(rows).items():
                selected = ingestion.labelled(split, in_window, rows)
                examples = {n: column.take(pa.array(selected)) for n, column in columns.items()}
                positives = 0
                if split in LABELLED_SPLITS:
                    positives = int(floats(examples[label]).sum())
                else:
                    del examples[label]
                if champion is not None and split == "eval":
                    theirs = _champion_examples(
                        their_chunks[chunk.number], their_features, champion
                    )
                    is_selected = pa.array(np.isin(in_window, selected))
                    examples[ingestion.champion_column] = theirs.filter(is_selected)
                shard = shards.get(split) or Shard(split, key, "", 0, 0, 0)
                if len(selected):
                    if not shard.path:
                        path = f"{ingestion.directory}/{uuid.uuid4().hex}.gz"
                        shard = dataclasses.replace(shard, path=path)
                        writers[split] = (
                            files.enter_context(example_writer.open_file(path)),
                            files.enter_context(example_columns.Writer(columns_path(shard))),
                        )
                    of_examples, of_columns = writers[split]
                    values = {n: example_writer.as_in_examples(c) for n, c in examples.items()}
                    example_writer.write(of_examples, values)
                    values.pop(ingestion.champion_column, None)
                    of_columns.write(values)
                shards[split] = dataclasses.replace(
                    shard,
                    rows=shard.rows + len(selected),
                    positives=shard.positives + positives,
                    unlabelled=shard.unlabelled + len(in_window) - len(selected),
                )
    yield from map(dataclasses.asdict, shards.values())


def _champion_examples(
    chunk: Chunk, features: Mapping[str, NDArray[np.float32]], champion: Ingestion
) -> pa.Array:
    """The champion's serialized example of each eval row of a chunk, [rows]."""
    columns = _example_columns(chunk.stored.load(), chunk.start, features, champion)
    return pa.array(example_writer.serialized(columns), pa.binary())


def _example_columns(
    chunk: pa.RecordBatch,
    start: int,
    features: Mapping[str, NDArray[np.float32]],
    ingestion: Ingestion,
) -> dict[str, pa.Array]:
    """The columns of a chunk's examples. The time of a label is not one: it tells the label.

    Args:
      chunk: the chunk.
      start: the index of its first row in the block.
      features: of the block, see `features_of_block`.
      ingestion: the settings.
    """
    dataset = ingestion.layout.dataset
    stop = start + chunk.num_rows
    values = {name: column[start:stop] for name, column in features.items()}
    if dataset.timestamp is not None:
        times = chunk.column(dataset.timestamp).to_numpy()
        values |= calendar_features(ingestion.features, dataset, times)
    columns = columns_of(chunk)
    columns |= {name: pa.array(column, from_pandas=True) for name, column in values.items()}
    if dataset.label_time is not None:
        del columns[dataset.label_time]
    return columns


def _write_list(listed: list[dict], directory: str) -> None:
    with fileio.open(f"{directory}/{_LIST}", "w") as file:
        file.write(json.dumps(listed))

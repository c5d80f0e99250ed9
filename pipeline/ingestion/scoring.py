"""Scores transactions on Beam, with the same result as `to_score` and one process.

::

    files ─ Read ─┬─ ids by hash ─ twice? known labels? ─┐
                  └─ blocks ─────────────────────────────┴─ Slim ─ features of partitions ─┐
                       └─ those to be scored ──────────────────────────────────────────────┴─ parts

Arrow batches are kept in temporary files and Beam shuffles references to them, as ingestion does;
see `fraud.pipeline.ingestion.blocks`. Workers import no TensorFlow but the C API of the model.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from fraud.errors import BadInput
from fraud.features.batch import calendar_features, feature_names
from fraud.models.specification import InputSpecification
from fraud.pipeline.ingestion import reader, values
from fraud.pipeline.ingestion.blocks import (
    BlockKey,
    Chunk,
    Ingestion,
    ShuffleSizes,
    jobs_of,
    joined,
    needed_for_features,
    partitioned,
    slim_parts,
    store,
)
from fraud.pipeline.ingestion.partitions import (
    LARGEST_PARTITION,
    columns_of,
    features_of_block,
    features_of_partition,
)
from fraud.pipeline.ingestion.reader import BATCH_ROWS, File, place
from fraud.pipeline.ingestion.to_score import Part, ScoringPlan
from fraud.serving.batch import score_table, with_scores
from fraud.serving.models import LoadedModel
from fraud.serving.scorer import Model

_LIST = "parts.json"


@dataclass(frozen=True)
class Scoring:
    """The settings of the stages.

    Attributes:
      scored, earlier: settings of reading and features, of the transactions to be scored and of
        their history.
      model: the folder of the model; all workers can read it.
      explain: whether to explain the alerts.
      load: loads the model.
    """

    scored: Ingestion
    earlier: Ingestion
    model: Path
    explain: bool
    load: Callable[[Path], Model] = LoadedModel

    @property
    def directory(self) -> str:
        """The folder of temporary files."""
        return self.scored.directory

    def of(self, key: BlockKey) -> Ingestion:
        """The settings of a block."""
        return self.earlier if _is_earlier(key) else self.scored


@dataclass(frozen=True)
class _Block:
    """A block of transactions.

    Attributes:
      rows: its number of rows.
      chunks: all columns, or, of a history, those that features are computed from.
      first: the first timestamp, in microseconds since 1970; None if the data has no timestamp.
    """

    rows: int
    chunks: tuple[Chunk, ...]
    first: int | None


@dataclass(frozen=True)
class ScoredPart:
    """A finished file of scored transactions.

    Attributes:
      block: the block that its rows come from.
      path: its path.
      rows: number of rows.
      alerts: number of alerts.
    """

    block: BlockKey
    path: str
    rows: int
    alerts: int


def settings(
    plan: ScoringPlan, inputs: InputSpecification, directory: str, model: Path, explain: bool
) -> Scoring:
    """The settings of a plan.

    Args:
      plan: what is read.
      inputs: of the model.
      directory: for temporary files and parts; all workers can read and write it.
      model, explain: see `Scoring`.
    """

    def of(part: Part) -> Ingestion:
        return Ingestion(part.layout, inputs.features, inputs.label_delay_days, 0, directory)

    scored = of(plan.scored)
    return Scoring(scored, of(plan.earlier) if plan.earlier else scored, model, explain)


def run(pipeline: beam.Pipeline, plan: ScoringPlan, scoring: Scoring) -> None:
    """Adds the stages to a pipeline. Once it has run, `parts` lists its output."""
    rows = {file: reader.count_rows(file) for file in plan.scored.files}
    earlier = {file: reader.count_rows(file) for file in plan.earlier.files} if plan.earlier else {}
    sizes = ShuffleSizes.of(sum(rows.values()) + sum(earlier.values()))
    # Numbers of jobs that are negative are those of the history.
    jobs = list(enumerate(jobs_of(rows, scoring.scored.layout, sizes.block_rows)))
    past = jobs_of(earlier, scoring.earlier.layout, sizes.block_rows)
    jobs += list(enumerate(past, start=-len(past)))
    read = (
        pipeline
        | "Files" >> beam.Create(jobs)
        | "Spread" >> beam.Reshuffle()
        | "Read" >> beam.ParDo(_Read(scoring, sizes)).with_outputs("ids", main="blocks")
    )
    first = beam.pvalue.AsSingleton(
        read.blocks
        | "Times" >> beam.FlatMap(_first_of_scored)
        | "First" >> beam.CombineGlobally(_least)
    )
    changes = read.ids | "ById" >> beam.GroupByKey() | "SameIds" >> beam.FlatMap(_same_ids, scoring)
    features = (
        {"block": read.blocks, "changes": changes}
        | "WithChanges" >> beam.CoGroupByKey()
        | "Slim" >> beam.FlatMap(_slim, scoring, sizes.partitions, first)
        | "ByEntity" >> beam.GroupByKey()
        | "Features"
        >> beam.FlatMap(
            features_of_partition, scoring.earlier, LARGEST_PARTITION * sizes.partition_rows
        )
    )
    _ = (
        {
            "block": read.blocks | "Scored" >> beam.Filter(_is_scored),
            "features": features,
        }
        | "ByBlock" >> beam.CoGroupByKey()
        | "Score" >> beam.ParDo(_Score(scoring))
        | "All" >> beam.combiners.ToList()
        | "List" >> beam.Map(_write_list, scoring.directory)
    )


def parts(directory: str) -> list[ScoredPart]:
    """The output of a pipeline that has run, in the order of the input."""
    listed = json.loads(Path(directory, _LIST).read_text(encoding="utf-8"))
    found = [ScoredPart(**{**part, "block": tuple(part["block"])}) for part in listed]
    return sorted(found, key=lambda part: part.block)


def _is_earlier(key: BlockKey) -> bool:
    return key[0] < 0


def _is_scored(block: tuple[BlockKey, _Block]) -> bool:
    return not _is_earlier(block[0])


class _Read(beam.DoFn):
    """(job, its files) → (block, `_Block`).

    Further output `ids`: (partition, (block, files, columns file, position, id, row, label and
    label_time, as `Stored`)); file is an index in files, row one in the block.
    """

    def __init__(self, scoring: Scoring, sizes: ShuffleSizes):
        self._scoring = scoring
        self._sizes = sizes

    def process(self, job: tuple[int, tuple[File, ...]]) -> Iterator[Any]:
        """Reads one job."""
        number, files = job
        ingestion = self._scoring.of((number, 0))
        blocks = itertools.count()
        chunks: list[_Rows] = []
        for chunk in _chunks(files, ingestion.layout):
            rows = sum(batch.num_rows for _, batch in itertools.chain(*chunks, chunk))
            if chunks and rows > self._sizes.block_rows:
                yield from self._block((number, next(blocks)), chunks, ingestion)
                chunks = []
            chunks.append(chunk)
        if chunks:
            yield from self._block((number, next(blocks)), chunks, ingestion)

    def _block(self, key: BlockKey, chunks: list[_Rows], ingestion: Ingestion) -> Iterator[Any]:
        dataset, directory = ingestion.layout.dataset, ingestion.directory
        stored, start, firsts = [], 0, []
        for number, chunk in enumerate(chunks):
            rows = joined([batch for _, batch in chunk])
            if dataset.timestamp is not None:
                firsts.append(pc.min(rows.column(dataset.timestamp)).value)
            if _is_earlier(key):
                names = needed_for_features(ingestion)
                rows = pa.RecordBatch.from_pydict({name: rows.column(name) for name in names})
            stored.append(Chunk(number, start, store([rows], directory)[0]))
            start += rows.num_rows
        yield key, _Block(start, tuple(stored), min(firsts, default=None))
        if dataset.id is not None:
            files, ids = _ids([part for chunk in chunks for part in chunk], ingestion)
            for partition, of_ids in partitioned(ids, "id", self._sizes.partitions, directory):
                yield beam.pvalue.TaggedOutput("ids", (partition, (key, files, of_ids)))


_Rows = list[tuple[values.RowOrigins, pa.RecordBatch]]
"""Cleaned rows, and where they come from."""


def _chunks(files: Iterable[File], layout: values.Layout) -> Iterator[_Rows]:
    """The rows of some files, some ten thousand at a time, without empty ones."""
    pending: _Rows = []
    for file in files:
        for first, raw in reader.read(file, layout.to_read(file)):
            origins = values.RowOrigins(file, np.arange(first, first + raw.num_rows))
            rows = values.clean(raw, origins, layout)
            held = sum(batch.num_rows for _, batch in pending)
            if held and held + rows[1].num_rows > BATCH_ROWS:
                yield pending
                pending = []
            if rows[1].num_rows:
                pending.append(rows)
    if pending:
        yield pending


def _ids(parts: _Rows, ingestion: Ingestion) -> tuple[list[File], dict[str, pa.Array]]:
    """The files of a block, and for each row: its file, position, id, index and what is known."""
    dataset = ingestion.layout.dataset
    files = list(dict.fromkeys(origins.file for origins, _ in parts))
    indices = [np.full(rows.num_rows, files.index(o.file), np.int32) for o, rows in parts]
    rows = joined([rows for _, rows in parts])
    columns = {
        "file": pa.array(np.concatenate(indices)),
        "position": pa.array(np.concatenate([origins.positions for origins, _ in parts])),
        "id": rows.column(dataset.id),
        "row": pa.array(np.arange(rows.num_rows, dtype=np.int32)),
        "label": rows.column(dataset.label),
    }
    if dataset.label_time is not None:
        columns["label_time"] = rows.column(dataset.label_time)
    return files, columns


def _first_of_scored(block: tuple[BlockKey, _Block]) -> Iterator[int]:
    if _is_scored(block) and block[1].first is not None:
        yield block[1].first


def _least(numbers: Iterable[int | None]) -> int | None:
    """The least of some numbers; None if there is none, as Beam also asks of nothing."""
    return min((number for number in numbers if number is not None), default=None)


def _same_ids(element: tuple[int, Iterable[Any]], scoring: Scoring) -> Iterator[Any]:
    """Compares the ids of a partition.

    Yields:
      (block of a history, rows that are to be scored, hence not in the history) and (block to be
      scored, rows with the labels that the history has of them), as `Stored`.

    Raises:
      BadInput: a transaction to be scored is there twice; names its places.
    """
    ordered = sorted(element[1], key=lambda part: part[0])
    ours = [part for part in ordered if not _is_earlier(part[0])]
    theirs = [part for part in ordered if _is_earlier(part[0])]
    if not ours:
        return
    loaded = [stored.load() for _, _, stored in ours]
    scored = pa.concat_arrays([batch.column("id") for batch in loaded])
    _check_unique(scored, ours, loaded, str(scoring.scored.layout.dataset.id))
    if not theirs:
        return
    past = [stored.load() for _, _, stored in theirs]
    for (key, _, _), batch in zip(theirs, past, strict=True):
        again = pc.is_in(batch.column("id"), value_set=scored)
        if pc.any(again).as_py():
            rows = pa.RecordBatch.from_pydict({"row": batch.column("row").filter(again)})
            yield key, store([rows], scoring.directory)[0]
    # As pc.index_in takes the first, so does the one-process form, in the order of the files.
    history = joined(past)
    there = pc.index_in(scored, value_set=history.column("id"))
    start = 0
    names = [name for name in ("label", "label_time") if name in history.schema.names]
    for (key, _, _), batch in zip(ours, loaded, strict=True):
        found = there.slice(start, batch.num_rows)
        start += batch.num_rows
        if found.null_count == len(found):
            continue
        is_known = found.is_valid()
        learned = {name: history.column(name).take(found).filter(is_known) for name in names}
        rows = {"row": batch.column("row").filter(is_known), **learned}
        yield key, store([pa.RecordBatch.from_pydict(rows)], scoring.directory)[0]


def _check_unique(ids: pa.Array, parts: list[Any], loaded: list[pa.RecordBatch], name: str) -> None:
    codes = ids.dictionary_encode().indices.to_numpy()
    repeated = np.bincount(codes)[codes] > 1
    if not repeated.any():
        return
    rows = [
        (files[file], position)
        for (_, files, _), batch in zip(parts, loaded, strict=True)
        for file, position in zip(
            batch.column("file").to_pylist(), batch.column("position").to_pylist(), strict=True
        )
    ]
    two = np.flatnonzero(codes == codes[np.argmax(repeated)])[:2].tolist()
    first, again = (f"{rows[i][0].name}, {place(*rows[i])}" for i in two)
    raise BadInput(
        f"{again}: {name} {ids[two[0]].as_py()} occurs twice, it was already in {first}; "
        "remove the repetition"
    )


def _slim(
    element: tuple[BlockKey, dict[str, Iterable[Any]]],
    scoring: Scoring,
    partitions: int,
    first: int | None,
) -> Iterator[Any]:
    """(block, itself and its changes) → what features are computed from, see `slim_parts`.

    Args:
      element: the block.
      scoring, partitions: the settings.
      first: the first time of a transaction to be scored.
    """
    key, grouped = element
    (block,) = grouped["block"]
    needed = needed_for_features(scoring.earlier)
    ingestion = scoring.earlier
    if not ingestion.entities:
        return
    rows = joined([chunk.stored.load() for chunk in block.chunks])
    changes = [stored.load() for stored in grouped["changes"]]
    dataset = ingestion.layout.dataset
    keep = np.ones(rows.num_rows, bool)
    if not _is_earlier(key):
        rows = _with_labels(rows, changes, scoring)
    elif dataset.id is not None:
        for batch in changes:
            keep[batch.column("row").to_numpy()] = False
    elif first is not None:
        keep = rows.column(dataset.timestamp).to_numpy() < np.datetime64(first, "us")
    if keep.any():
        batch = pa.RecordBatch.from_pydict({name: rows.column(name) for name in needed})
        yield from slim_parts(
            key,
            batch.filter(pa.array(keep)),
            np.flatnonzero(keep).astype(np.int32),
            not _is_earlier(key),
            ingestion,
            partitions,
        )


def _with_labels(
    rows: pa.RecordBatch, changes: list[pa.RecordBatch], scoring: Scoring
) -> pa.RecordBatch:
    """Transactions to be scored with the labels that the history has, where they have none."""
    dataset = scoring.earlier.layout.dataset
    columns = columns_of(rows)
    for name, column in (("label", dataset.label), ("label_time", dataset.label_time)):
        if column is None:
            continue
        own = columns.get(column)
        if own is None:
            own = pa.nulls(rows.num_rows, values.TIME)
        known = pa.nulls(rows.num_rows, own.type)
        for batch in changes:
            mask = np.zeros(rows.num_rows, bool)
            index = batch.column("row").to_numpy()
            mask[index] = True
            learned = batch.column(name).take(pa.array(np.argsort(index, kind="stable")))
            known = pc.replace_with_mask(known, pa.array(mask), learned.cast(own.type))
        columns[column] = pc.coalesce(own, known)
    return pa.RecordBatch.from_pydict(columns)


class _Score(beam.DoFn):
    """(block, itself and its features) → a ScoredPart, as a dictionary."""

    def __init__(self, scoring: Scoring):
        self._scoring = scoring

    def setup(self) -> None:
        """Loads the model."""
        self._model = self._scoring.load(self._scoring.model)

    def teardown(self) -> None:
        """Frees it."""
        self._model.close()

    def process(self, element: tuple[BlockKey, dict[str, Iterable[Any]]]) -> Iterator[dict]:
        """Scores a block, and writes a file."""
        key, grouped = element
        (block,) = grouped["block"]
        scoring = self._scoring
        features = features_of_block(block.rows, grouped["features"], scoring.earlier)
        path = f"{scoring.directory}/{uuid.uuid4().hex}.parquet"
        alerts, writer = 0, None
        try:
            for chunk in block.chunks:
                table = self._table(chunk, features)
                scored = score_table(self._model, table, scoring.explain)
                alerts += pc.sum(scored["prediction_alert"]).as_py() or 0
                written = with_scores(table, scored, tuple(features))
                writer = writer or parquet.ParquetWriter(path, written.schema)
                writer.write_table(written)
        finally:
            if writer is not None:
                writer.close()
        yield dataclasses.asdict(ScoredPart(key, path, block.rows, alerts))

    def _table(self, chunk: Chunk, features: dict[str, np.ndarray]) -> pa.Table:
        """The transactions of a chunk with their features, without labels."""
        ingestion = self._scoring.earlier
        dataset = ingestion.layout.dataset
        columns: dict[str, Any] = columns_of(chunk.stored.load())
        for name in (dataset.label, dataset.label_time):
            columns.pop(str(name), None)
        stop = chunk.start + chunk.stored.rows
        columns |= {name: pa.array(v[chunk.start : stop]) for name, v in features.items()}
        if dataset.timestamp is not None and feature_names(ingestion.features, dataset):
            times = columns[dataset.timestamp].to_numpy()
            of_times = calendar_features(ingestion.features, dataset, times)
            columns |= {name: pa.array(column) for name, column in of_times.items()}
        return pa.table(columns)


def _write_list(listed: list[dict], directory: str) -> None:
    # By a task that may be repeated: another attempt of it lists other files, as whole as these.
    temporary = Path(directory, f"{uuid.uuid4().hex}.json")
    temporary.write_text(json.dumps(listed), encoding="utf-8")
    temporary.replace(Path(directory, _LIST))

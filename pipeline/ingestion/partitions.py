"""Computes the features of partitions, for ingestion and for scoring on Beam.

A partition has all rows of some values of an entity, from all blocks; see
`fraud.pipeline.ingestion.blocks`. Nothing here imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.features.batch import entity_features, feature_names, history_days
from fraud.pipeline.ingestion.blocks import (
    BlockKey,
    Ingestion,
    Slim,
    Stored,
    joined,
    store,
)

LARGEST_PARTITION = 4
"""A partition with more than so many times the average number of rows is computed bit by bit."""


def features_of_partition(
    element: tuple[tuple[str, int], Iterable[Slim]], ingestion: Ingestion, most_rows: int
) -> Iterator[tuple[BlockKey, Stored]]:
    """All rows of some keys of an entity → (block, row and features) for blocks in a split.

    If there are more than `most_rows`, perhaps because one key has most of them, their features are
    computed for one interval of time after the other, each with the history that they depend on.
    """
    (entity, _), unordered = element
    parts = sorted(unordered, key=lambda part: (part.block, part.is_in_split))
    if sum(part.stored.rows for part in parts) <= most_rows:
        loaded = [part.stored.load() for part in parts]
        yield from _features_of_rows(parts, loaded, entity, ingestion, None)
        return
    spans, times = [], []
    for part in parts:
        of_part = part.stored.load().column("time").to_numpy()
        spans.append((of_part.min(), of_part.max()))
        times.append(of_part)
    days = history_days(ingestion.features, ingestion.layout.dataset, ingestion.delay_days)
    look_back = np.timedelta64(days, "D")
    for first, end in intervals(np.sort(np.concatenate(times)), look_back, most_rows):
        needed, loaded = [], []
        for part, (earliest, latest) in zip(parts, spans, strict=True):
            if latest >= first - look_back and earliest < end:
                rows = part.stored.load()
                time = rows.column("time").to_numpy()
                loaded.append(rows.filter(pa.array((time >= first - look_back) & (time < end))))
                needed.append(part)
        yield from _features_of_rows(needed, loaded, entity, ingestion, first)


def intervals(
    times: NDArray[np.datetime64], look_back: np.timedelta64, most_rows: int
) -> Iterator[tuple[np.datetime64, np.datetime64]]:
    """Divides time so that few rows are in memory at once and few are computed twice.

    Args:
      times: of all rows, ascending, [rows].
      look_back: how far before a row those lie that it depends on.
      most_rows: of an interval and its history together. If the history alone has more than half of
        that, the interval has as many rows as its history. Rows of one time stay together.

    Yields:
      the first time of an interval, and the time before which it ends.
    """
    start = 0
    while start < len(times):
        history = start - int(np.searchsorted(times, times[start] - look_back))
        stop = start + max(most_rows - history, history, 1)
        if stop < len(times):
            first_of_time = int(np.searchsorted(times, times[stop]))
            after_time = int(np.searchsorted(times, times[stop], side="right"))
            stop = first_of_time if first_of_time > start else after_time
        is_last = stop >= len(times)
        yield times[start], times[-1] + np.timedelta64(1, "us") if is_last else times[stop]
        start = stop


def _features_of_rows(
    parts: Sequence[Slim],
    loaded: Sequence[pa.RecordBatch],
    entity: str,
    ingestion: Ingestion,
    first: np.datetime64 | None,
) -> Iterator[tuple[BlockKey, Stored]]:
    """The features of an entity, of all rows from a time on; the others are their history."""
    columns = columns_of(joined(loaded))
    times = columns["time"].to_numpy()
    computed = entity_features(
        ingestion.features,
        ingestion.layout.dataset,
        entity,
        columns["key"].dictionary_encode().indices.to_numpy().astype(np.int64),
        times,
        floats(columns["amount"]) if "amount" in columns else None,
        floats(columns["label"]),
        np.timedelta64(ingestion.delay_days, "D"),
        columns["label_time"].to_numpy(zero_copy_only=False) if "label_time" in columns else None,
    )
    start, blocks, batches = 0, [], []
    for part, rows in zip(parts, loaded, strict=True):
        stop = start + rows.num_rows
        if part.is_in_split:
            values = {name: pa.array(column[start:stop]) for name, column in computed.items()}
            batch = pa.RecordBatch.from_pydict({"row": rows.column("row"), **values})
            if first is not None:
                batch = batch.filter(pa.array(times[start:stop] >= first))
            if batch.num_rows:
                blocks.append(part.block)
                batches.append(batch)
        start = stop
    if batches:
        yield from zip(blocks, store(batches, ingestion.directory), strict=True)


def features_of_block(
    rows: int, parts: Iterable[Stored], ingestion: Ingestion
) -> dict[str, NDArray[np.float32]]:
    """The features of a block by name, [rows]; those from the calendar are NaN yet."""
    names = feature_names(ingestion.features, ingestion.layout.dataset)
    values = {name: np.full(rows, np.nan, np.float32) for name in names}
    for stored in parts:
        batch = stored.load()
        index = batch.column("row").to_numpy()
        for name in batch.schema.names[1:]:
            values[name][index] = batch.column(name).to_numpy()
    return values


def columns_of(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """The columns of a batch by name."""
    return dict(zip(batch.schema.names, batch.columns, strict=True))


def floats(column: pa.Array) -> NDArray[np.float64]:
    """Numbers, NaN where null, [rows]."""
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


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

"""What is known of production on a day, and what the live version promised: arrays and tables.

The checks are computed from these alone, so a replay may make them from what it has in memory;
`fraud.monitoring.reading` makes them from a root.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fraud.features.spec import Dataset
from fraud.features.values import days_of
from fraud.monitoring.profiles import Shape
from fraud.pipeline.drift import Profile
from fraud.serving.prediction_log import Predictions
from fraud.time import day_number

Row = Mapping[str, float | None]
Intervals = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Production:
    """What had happened when the as-of day ended.

    Attributes:
      transactions: those that arrived, in the canonical form of ingestion, with the label null
        where it was not known yet. They cover the recent and the labelled days (see
        `fraud.monitoring.observe`), and may cover more.
      predictions: what was scored of the same days. None of it is from after the as-of day.
      recomputed: the id and the features, computed in batch, of some transactions of the as-of day;
        None if they were not computed.
      unlogged: columns and features that the log does not contain, or only as hashes.
      label_problem: why labels could not be used, as a sentence; empty if all could.
    """

    transactions: pa.Table
    predictions: Predictions
    recomputed: pa.Table | None = None
    unlogged: Collection[str] = ()
    label_problem: str = ""


@dataclass(frozen=True)
class Promise:
    """What the Evaluator measured of the live version before it went live.

    Attributes:
      metrics, intervals: metric → value, and its 95 % interval where it has one, over all examples.
      slices, slice_intervals: the same by slice, "column=value".
      score_counts: examples by bin of `fraud.models.evaluation.curves.EDGES`; empty if unknown.
      days: how many days were evaluated.
    """

    metrics: Row = field(default_factory=dict)
    intervals: Intervals = field(default_factory=dict)
    slices: Mapping[str, Row] = field(default_factory=dict)
    slice_intervals: Mapping[str, Intervals] = field(default_factory=dict)
    score_counts: tuple[int, ...] = ()
    days: int = 0


@dataclass(frozen=True)
class Live:
    """The live version, as far as the monitor compares with it.

    Attributes:
      version: its number, as text.
      aliases: the versions that are the same model, itself included: a rollback makes others.
      as_of: the last day of the data that it came from; None if unknown.
      labels_until: the last day whose labels it was trained or evaluated on; None if unknown.
      promise: what the Evaluator measured of it.
      profile: the counts by day of its train window; None if unknown.
      reference: those of the fixed reference for drift; None if that is its own, or unknown.
      shapes: feature → how it was distributed in its train window.
    """

    version: str
    aliases: frozenset[str]
    as_of: date | None = None
    labels_until: date | None = None
    promise: Promise = field(default_factory=Promise)
    profile: Profile | None = None
    reference: Profile | None = None
    shapes: Mapping[str, Shape] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """Transactions that arrived and were scored, one row each, [rows].

    Attributes:
      position: the row of each in the table of transactions that arrived.
      logged: its row in the log; the first one, if it was scored several times.
      days: days since 1970.
      labels: 1, 0, or NaN where not known.
      cards: the entity that analysts check, as codes; the row number if there is none.
      amounts: NaN where missing.
      scores, alerts: what was answered.
      is_live: whether the live version answered.
    """

    position: NDArray[np.int64]
    logged: NDArray[np.int64]
    days: NDArray[np.int64]
    labels: NDArray[np.float64]
    cards: NDArray[np.int64]
    amounts: NDArray[np.float64]
    scores: NDArray[np.float32]
    alerts: NDArray[np.bool_]
    is_live: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.position)

    def at(self, rows: NDArray) -> Scored:
        """Some of the rows, given by a mask or by positions."""
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def between(self, first: date, last: date) -> Scored:
        """The rows from one day to another, both included."""
        return self.at((self.days >= day_number(first)) & (self.days <= day_number(last)))


def days_of_rows(table: pa.Table, dataset: Dataset) -> NDArray[np.int64]:
    """The day of each row, counted since 1970, in the dataset's timezone."""
    assert dataset.timestamp is not None
    return days_of(table[dataset.timestamp].combine_chunks(), dataset.timezone)


def join(production: Production, dataset: Dataset, live: Collection[str]) -> Scored:
    """Matches what arrived with what was scored, by the id.

    Args:
      production: both.
      dataset: the columns; it has an id, which the log contains as it is.
      live: the versions that are the live model.
    """
    table, log = production.transactions, production.predictions
    assert dataset.id is not None
    ids = table[dataset.id].cast(pa.string()).combine_chunks()
    logged = pc.index_in(ids, value_set=_text(log.transactions[dataset.id]))
    found = logged.is_valid().to_numpy(zero_copy_only=False)
    position = np.flatnonzero(found)
    row = logged.drop_null().to_numpy().astype(np.int64)
    cards = position
    if dataset.card_entity:
        encoded = table[dataset.card_entity].combine_chunks().dictionary_encode()
        cards = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)[position]
    return Scored(
        position=position,
        logged=row,
        days=days_of_rows(table, dataset)[position],
        labels=floats(table[dataset.label])[position],
        cards=cards,
        amounts=(
            floats(table[dataset.amount])[position]
            if dataset.amount
            else np.full(len(position), np.nan)
        ),
        scores=log.score[row],
        alerts=log.alert[row],
        is_live=np.isin(log.version[row], sorted(live)),
    )


def floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Numbers, NaN where null, [rows]."""
    values: Any = column.combine_chunks().cast(pa.float64())
    return values.to_numpy(zero_copy_only=False)


def _text(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks().cast(pa.string())

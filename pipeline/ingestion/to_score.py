"""Reads transactions that are to be scored, with the features that ingestion would give them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fraud.errors import BadInput
from fraud.features.batch import add_features, history_days
from fraud.features.spec import Dataset
from fraud.models.specification import InputSpecification
from fraud.pipeline.ingestion import reader, values
from fraud.pipeline.ingestion.reader import File
from fraud.pipeline.ingestion.source import Source, check_columns, discover
from fraud.pipeline.ingestion.values import Layout
from fraud.pipeline.windows import Window, Windows, last_known_day

Progress = Callable[[int], None]
"""Called with the number of rows read so far."""


@dataclass(frozen=True)
class Part:
    """Files that are read in the same way.

    Attributes:
      files: in the order of `Source`.
      layout: their columns and days.
    """

    files: tuple[File, ...]
    layout: Layout


@dataclass(frozen=True)
class ScoringPlan:
    """What is read to score transactions.

    Attributes:
      data: where the transactions are; see `discover`.
      scored: their files.
      earlier: the files of their history, which may have them, too; None without one.
      note: what is missing of the history, as a sentence; empty if nothing is.
    """

    data: str
    scored: Part
    earlier: Part | None = None
    note: str = ""


def plan(data: str, dataset: Dataset) -> ScoringPlan:
    """Finds and checks transactions that are scored without a history.

    Args:
      data: see `discover`.
      dataset: the columns. Label, label time and columns that are only slices need not be there.

    Raises:
      BadInput: names the file, column and fix.
    """
    unlabelled = _unlabelled(dataset)
    source = discover(data, unlabelled)
    windows = _windows(source, 0, 0) if dataset.timestamp else None
    types = check_columns(source, windows, unlabelled, labelled=False)
    return ScoringPlan(data, _part(source, Layout(unlabelled, types, windows, labelled=False)))


def plan_with_history(data: str, history: str, inputs: InputSpecification) -> ScoringPlan:
    """Finds and checks transactions and their history; see `read_with_history`.

    Raises:
      BadInput: names the file, column and fix.
    """
    dataset, delay = dataclasses.replace(inputs.dataset, slices=()), inputs.label_delay_days
    back = history_days(inputs.features, dataset, delay) if dataset.entities else 0
    unlabelled = _unlabelled(dataset)
    to_score = discover(data, unlabelled)
    windows = _windows(to_score, back, delay)
    past = discover(history, dataset)
    types = check_columns(past, windows, dataset)
    labelled = _has_labels(to_score, dataset)
    own = dataset if labelled else unlabelled
    own_types = check_columns(to_score, windows, own, labelled)
    for name in values.identifiers(dataset):
        if own_types[name] != types[name]:  # numbers in one of them, text in the other
            own_types[name] = types[name] = pa.string()
    return ScoringPlan(
        data,
        _part(to_score, Layout(own, own_types, windows, labelled)),
        _part(past, Layout(dataset, types, windows)),
        _missing(past, windows),
    )


def read(data: str, dataset: Dataset, progress: Progress = lambda rows: None) -> pa.Table:
    """Reads transactions as they are, without features, in the order of their files.

    Args:
      data, dataset: see `plan`.
      progress: told how far reading is.

    Returns:
      The columns in their canonical form, without labels.

    Raises:
      BadInput: names the file, row, column and fix.
    """
    planned = plan(data, dataset)
    table = _rows(planned.scored, progress)
    _check_ids(table, dataset, data)
    return table.drop([dataset.label])


def read_with_history(
    data: str, history: str, inputs: InputSpecification, progress: Progress = lambda rows: None
) -> tuple[pa.Table, str]:
    """Reads transactions with their features.

    The history is all that happened up to the last transaction, but for those that are to be scored
    themselves: by their ids, or, where there are none, all that is not earlier than them. Labels
    are used once they are known, those beside the transactions to be scored too.

    Args:
      data: what is to be scored; see `plan`.
      history: earlier transactions, with their labels; likewise.
      inputs: the columns, the features and the label delay. The data has a timestamp.
      progress: told how far reading is.

    Returns:
      The transactions in the order of their files, without labels, with their features; and what is
      missing of their history, as a sentence; empty if nothing is.

    Raises:
      BadInput: names the file, row, column and fix.
    """
    planned = plan_with_history(data, history, inputs)
    assert planned.earlier is not None
    dataset = planned.earlier.layout.dataset
    scored = _rows(planned.scored, progress)
    _check_ids(scored, dataset, data)
    if dataset.label_time and dataset.label_time not in scored.column_names:
        scored = scored.append_column(dataset.label_time, pa.nulls(len(scored), values.TIME))
    earlier = _rows(planned.earlier, lambda rows: progress(len(scored) + rows))
    scored = _with_labels(scored, earlier, dataset)
    earlier = _without(earlier, scored, dataset)
    table = pa.concat_tables([scored, earlier.select(scored.column_names)]).combine_chunks()
    delay = inputs.label_delay_days
    table = add_features(table, dataset, inputs.features, delay).slice(0, len(scored))
    labels = [name for name in (dataset.label, dataset.label_time) if name]
    return table.drop(labels), planned.note


def _unlabelled(dataset: Dataset) -> Dataset:
    return dataclasses.replace(dataset, slices=(), label_time=None)


def _windows(source: Source, back: int, delay: int) -> Windows:
    """All days of a source and `back` days before; `eval` ends with the last known label."""
    if not source.days:
        raise BadInput(f"{source.data}: there are no transactions")
    first, last = source.days[0], source.days[-1]
    one = timedelta(days=1)
    history = Window(first - back * one, first - one) if back else None
    known = last_known_day(last, delay)
    return Windows(last, history, Window(first, last), Window(known, known), None)


def _has_labels(source: Source, dataset: Dataset) -> bool:
    labels = {name for name in (dataset.label, dataset.label_time) if name}
    return all(labels <= set(reader.schema(file).names) for file in source.all_files)


def _part(source: Source, layout: Layout) -> Part:
    return Part(source.files(layout.windows.all_days if layout.windows else None), layout)


def _rows(part: Part, progress: Progress) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    layout, count = part.layout, 0
    for file in part.files:
        for first, raw in reader.read(file, layout.to_read(file)):
            at = values.RowOrigins(file, np.arange(first, first + raw.num_rows))
            batches.append(values.clean(raw, at, layout)[1])
            count += batches[-1].num_rows
            progress(count)
    if not count:
        types = {**layout.types, layout.dataset.label: pa.int8()}
        return pa.table({name: pa.nulls(0, types[name]) for name in layout.dataset.columns})
    return pa.Table.from_batches(batches)


def _check_ids(table: pa.Table, dataset: Dataset, data: str) -> None:
    """Checks that no transaction is there twice, which would count twice in everybody's history.

    Raises:
      BadInput: one is; names its id and rows.
    """
    if dataset.id is None or len(table) == pc.count_distinct(table[dataset.id], mode="all").as_py():
        return
    first: dict[object, int] = {}
    for row, id_ in enumerate(table[dataset.id].to_pylist()):
        if id_ in first:
            raise BadInput(
                f"{data}: {dataset.id} {id_!r} occurs twice, as transactions {first[id_] + 1:,} "
                f"and {row + 1:,}; remove the repetition"
            )
        first[id_] = row


def _with_labels(scored: pa.Table, history: pa.Table, dataset: Dataset) -> pa.Table:
    """Transactions with the labels that the history has of them, where they have none."""
    if dataset.id is None:
        return scored
    there = pc.index_in(scored[dataset.id], value_set=history[dataset.id].combine_chunks())
    for name in (dataset.label, dataset.label_time):
        if name:
            index = scored.column_names.index(name)
            known = history[name].cast(scored[name].type).take(there)
            scored = scored.set_column(index, name, pc.coalesce(scored[name], known))
    return scored


def _without(earlier: pa.Table, scored: pa.Table, dataset: Dataset) -> pa.Table:
    """The earlier transactions without those that are to be scored."""
    assert dataset.timestamp is not None
    if dataset.id:
        known = pc.is_in(earlier[dataset.id], value_set=scored[dataset.id].combine_chunks())
        return earlier.filter(pc.invert(known))
    return earlier.filter(pc.less(earlier[dataset.timestamp], pc.min(scored[dataset.timestamp])))


def _missing(past: Source, windows: Windows) -> str:
    """What a history lacks of the days that features look back on."""
    if windows.history is None:
        return ""
    days = set(past.days)
    absent: list[date] = [day for day in windows.history if day not in days]
    if not absent:
        return ""
    return (
        f"history has {windows.history.days - len(absent)} of the {windows.history.days} days that "
        f"features look back on, {windows.history}"
    )

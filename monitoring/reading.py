"""Reads what the checks need: the data, the prediction log, and the live version's artifacts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fraud.errors import BadInput
from fraud.features.batch import add_features, feature_names, history_days
from fraud.features.spec import Dataset
from fraud.models.specification import InputSpecification
from fraud.monitoring.observe import observed_days
from fraud.monitoring.production import Production, days_of_rows
from fraud.pipeline.config import Config
from fraud.pipeline.ingestion import reader, values
from fraud.pipeline.ingestion.source import check_columns, discover
from fraud.pipeline.windows import Window, Windows, last_known_day
from fraud.serving.prediction_log import PredictionLog
from fraud.time import day_number

MOST_DAYS = 90
"""Days before the observed ones that are read at most, to count frauds that are new to the model;
features may need more."""


def as_of_day(data: str, config: Config, as_of: date | None) -> date:
    """The day to look at: the one given, or the last day of data.

    Raises:
      BadInput: the data has no timestamp, or no transactions on the days that would be looked at.
    """
    dataset = config.dataset
    if dataset.timestamp is None:
        raise BadInput(
            "dataset.timestamp is null: without days, there is nothing to monitor; name the column"
        )
    days = discover(data, dataset).days
    if not days:
        raise BadInput(f"{data}: there are no transactions")
    looked_at = observed_days(as_of or days[-1], config)
    if not any(day in looked_at for day in days):
        raise BadInput(
            f"{data}: there are no transactions in {looked_at}; the days of data are {days[0]} … "
            f"{days[-1]}, choose one of them with --as-of"
        )
    return looked_at.last


def days_read(as_of: date, config: Config) -> Window:
    """All days that a look as of a day may depend on, features of its transactions included."""
    dataset = config.dataset
    back = history_days(config.features, dataset, config.windows.label_delay_days)
    first = observed_days(as_of, config).first - timedelta(days=MOST_DAYS)
    return Window(min(first, as_of - timedelta(days=back)), as_of)


def read(
    data: str,
    predictions: Path,
    config: Config,
    as_of: date,
    inputs: InputSpecification | None = None,
    labels_until: date | None = None,
) -> Production:
    """Reads what had happened when the as-of day ended.

    Args:
      data: see `discover`.
      predictions: the folder of the prediction log.
      config: the dataset, which has a timestamp, and the windows.
      as_of: the last day.
      inputs: what the features of the live version are computed from, to compute some again; None
        to compute none.
      labels_until: the last day whose labels the live version has seen; None if unknown.

    Raises:
      BadInput: names the file, row, column and fix; labels that cannot be used are no reason.
    """
    observed = observed_days(as_of, config)
    first = observed.first
    if inputs is not None:
        back = history_days(inputs.features, inputs.dataset, inputs.label_delay_days)
        first = min(first, as_of - timedelta(days=back))
    if labels_until is not None:
        oldest = observed.first - timedelta(days=MOST_DAYS)
        first = min(first, max(labels_until + timedelta(days=1), oldest))
    table, problem = _transactions(data, config, Window(first, as_of))
    log = config.serving.prediction_log
    return Production(
        transactions=table,
        predictions=PredictionLog(predictions).read(observed.first, as_of),
        recomputed=None if inputs is None else _recomputed(table, inputs, config, as_of),
        unlogged={*log.hash, *log.drop},
        label_problem=problem,
    )


def _transactions(data: str, config: Config, days: Window) -> tuple[pa.Table, str]:
    """What arrived on some days, with the labels that were known when the last one ended.

    Returns:
      The transactions, and why a file's labels could not be used; empty if all could.
    """
    dataset = config.dataset
    known = last_known_day(days.last, config.windows.label_delay_days)
    one = Window(known, known)
    windows = Windows(as_of=days.last, history=days, train=one, eval=one, recent=None)
    source = discover(data, dataset)
    layout = values.Layout(dataset, check_columns(source, windows, dataset), windows)
    batches, problem = [], ""
    for file in source.files(days):
        try:
            batches += _cleaned(file, layout)
        except BadInput as error:
            # Labels that are late or damaged are a finding; anything else raises here again.
            batches += _cleaned(file, replace(layout, labelled=False))
            problem = problem or str(error)
    table = pa.Table.from_batches(batches).combine_chunks()
    if dataset.label_time is None:
        return table, problem
    learned = values.known_days(table[dataset.label_time].combine_chunks(), dataset.timezone)
    return _without_labels(table, dataset, learned > day_number(days.last)), problem


def _cleaned(file: reader.File, layout: values.Layout) -> list[pa.RecordBatch]:
    return [
        values.clean(raw, values.RowOrigins(file, np.arange(at, at + raw.num_rows)), layout)[1]
        for at, raw in reader.read(file, layout.to_read(file))
    ]


def _without_labels(table: pa.Table, dataset: Dataset, rows: Any) -> pa.Table:
    """Removes the labels of some rows, [rows]."""
    for name in (dataset.label, dataset.label_time):
        if name:
            column = table[name]
            nulled = pc.if_else(pa.array(rows), pa.scalar(None, column.type), column)
            table = table.set_column(table.schema.get_field_index(name), name, nulled)
    return table


def _recomputed(
    table: pa.Table, inputs: InputSpecification, config: Config, as_of: date
) -> pa.Table | None:
    """The id and the features of some transactions of the as-of day, computed as for training."""
    dataset = config.dataset
    names = feature_names(inputs.features, inputs.dataset)
    if dataset.id is None or not _are_in(inputs.dataset.columns, table):
        return None
    of_day = np.flatnonzero(days_of_rows(table, dataset) == day_number(as_of))
    sample = min(config.monitoring.skew_rows, len(of_day))
    mask = np.zeros(len(table), bool)
    mask[np.random.default_rng(0).choice(of_day, sample, replace=False)] = True
    chosen = table.filter(pa.array(mask))
    # The entities of the sample, with all of their rows.
    related = mask.copy()
    for entity in inputs.dataset.entities:
        same = pc.is_in(table[entity], value_set=chosen[entity].combine_chunks())
        related |= same.combine_chunks().to_numpy(zero_copy_only=False)
    computed = add_features(
        table.filter(pa.array(related)), inputs.dataset, inputs.features, inputs.label_delay_days
    )
    return computed.filter(pa.array(mask[related])).select([dataset.id, *names])


def _are_in(columns: Collection[str], table: pa.Table) -> bool:
    return {*columns} <= {*table.column_names}

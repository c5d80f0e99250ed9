"""Reads transactions of the last days before a day, to build or check a state."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fraud.errors import BadInput
from fraud.features.spec import Dataset
from fraud.pipeline.ingestion import reader, values
from fraud.pipeline.ingestion.source import check_columns, discover
from fraud.pipeline.windows import Window, Windows, last_known_day
from fraud.time import day_number


@dataclass(frozen=True)
class Recent:
    """The transactions of some days, as they were known when the last one ended.

    Attributes:
      table: the columns of the dataset in their canonical form (`values`), without those that only
        the model reads; labels and label times are null where they were not known.
      days: the days asked for; the data may begin later.
    """

    table: pa.Table
    days: Window


def read(
    data: str,
    dataset: Dataset,
    as_of: date | None,
    days: int,
    label_delay_days: int,
    latest: date | None = None,
) -> Recent:
    """Reads the transactions of the `days` days before a day, and of that day.

    Args:
      data: see `source.discover`.
      dataset: the columns, with a timestamp.
      as_of: the last day; None for the last day of data that is not after `latest`.
      days: how many days before it.
      label_delay_days: days until a label is known, unless the dataset has label times.
      latest: None for no limit.

    Raises:
      BadInput: names the file, row, column and fix.
    """
    dataset = dataclasses.replace(dataset, numeric=(), categorical=(), slices=())
    source = discover(data, dataset)
    if not source.days:
        raise BadInput(f"{data}: there are no transactions")
    first, last = source.days[0], source.days[-1]
    as_of = as_of or min(last, latest or last)
    if not first <= as_of <= last:
        raise BadInput(
            f"{data}: the as-of day {as_of} is not among its days, {first} … {last}; choose another"
        )
    known = last_known_day(as_of, label_delay_days)
    read_days = Window(as_of - timedelta(days=days), as_of)
    one = Window(known, known)
    windows = Windows(as_of=as_of, history=read_days, train=one, eval=one, recent=None)
    layout = values.Layout(dataset, check_columns(source, windows, dataset), windows)
    batches = [
        values.clean(raw, values.RowOrigins(file, np.arange(at, at + raw.num_rows)), layout)[1]
        for file in source.files(windows.all_days)
        for at, raw in reader.read(file, layout.to_read(file))
    ]
    if not any(len(batch) for batch in batches):
        raise BadInput(f"{data}: there are no transactions in {read_days}; choose another day")
    table = pa.Table.from_batches(batches).combine_chunks()
    if dataset.label_time is not None:
        learned = values.known_days(table[dataset.label_time].combine_chunks(), dataset.timezone)
        unknown = pa.array(learned > day_number(as_of))
        for name in (dataset.label, dataset.label_time):
            column = table[name]
            nulled = pc.if_else(unknown, pa.scalar(None, column.type), column)
            table = table.set_column(table.schema.get_field_index(name), name, nulled)
    return Recent(table, read_days)


def end_of(day: date, timezone: str) -> np.datetime64:
    """The first moment after a day in a timezone, in UTC."""
    midnight = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(timezone))
    return np.datetime64(int(midnight.timestamp()), "s").astype("datetime64[us]")

"""A bank whose past is replayed: its transactions with their features, in memory and on disk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fraud.features.batch import add_features, feature_names
from fraud.pipeline.config import Config
from fraud.pipeline.windows import Windows, windows_for
from fraud.time import EPOCH, day_number


@dataclass(frozen=True)
class Bank:
    """All transactions, ordered by time, all labelled; whoever reads them hides later labels.

    Attributes:
      table: the dataset's columns and the features. A feature of a row was made of the labels that
        were known at its time.
      config: of everything.
    """

    table: pa.Table
    config: Config

    @classmethod
    def of(cls, table: pa.Table, config: Config) -> Bank:
        """Adds the features to transactions in any order."""
        dataset = config.dataset
        order = np.argsort(table[dataset.timestamp].to_numpy(), kind="stable")
        table = table.select(dataset.columns).take(pa.array(order)).combine_chunks()
        delay = config.windows.label_delay_days
        return cls(add_features(table, dataset, config.features, delay), config)

    @classmethod
    def open(cls, path: Path, config: Config) -> Bank:
        """What `save` wrote, mapped into memory."""
        with pa.memory_map(str(path)) as source:
            return cls(pa.ipc.open_file(source).read_all(), config)

    def save(self, path: Path) -> None:
        """Writes the table."""
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, self.table.schema) as writer:
            writer.write_table(self.table)

    @cached_property
    def days(self) -> NDArray[np.int64]:
        """The day of each row since 1970, ascending."""
        times = self.table[self.config.dataset.timestamp].combine_chunks()
        return times.cast(pa.timestamp("us")).to_numpy().astype("datetime64[D]").astype(np.int64)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """1 or 0, [rows]."""
        return self.table[self.config.dataset.label].to_numpy().astype(np.int64)

    @cached_property
    def amounts(self) -> NDArray[np.float64]:
        """[rows]."""
        return self.table[self.config.dataset.amount].to_numpy().astype(np.float64)

    @cached_property
    def cards(self) -> NDArray[np.int64]:
        """The card of each row, [rows]."""
        return self.table[self.config.dataset.card_entity].to_numpy()

    @cached_property
    def features(self) -> tuple[str, ...]:
        """The names of the features."""
        return feature_names(self.config.features, self.config.dataset)

    @property
    def last(self) -> date:
        """The last day."""
        return EPOCH + timedelta(days=int(self.days[-1]))

    def rows(self, first: date, last: date) -> slice:
        """The rows of some days."""
        begin, end = np.searchsorted(self.days, [day_number(first), day_number(last) + 1])
        return slice(int(begin), int(end))

    def between(self, first: date, last: date) -> pa.Table:
        """The transactions of some days."""
        rows = self.rows(first, last)
        return self.table.slice(rows.start, rows.stop - rows.start)

    def without(self, rows: slice, excluded: tuple[date, ...]) -> NDArray[np.int64]:
        """The numbers of the rows of a slice that are not on some days."""
        numbers = np.arange(rows.start, rows.stop)
        return numbers[~np.isin(self.days[rows], [day_number(day) for day in excluded])]

    def windows(self, as_of: date, eval_days: int | None = None) -> Windows:
        """Those of a training; its eval window has the configured length if none is given."""
        lengths = self.config.windows
        return windows_for(
            as_of,
            train_days=lengths.train_days,
            eval_days=eval_days or lengths.eval_days,
            label_delay_days=lengths.label_delay_days,
        )

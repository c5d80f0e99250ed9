"""Reads the transactions of all folds and splits them into the rows of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.features.batch import add_features, history_days
from fraud.models.columns import ModelColumns
from fraud.pipeline.backtest.folds import Fold, rows_to_test
from fraud.pipeline.config import Config
from fraud.pipeline.ingestion import reader, values
from fraud.pipeline.ingestion.source import Source, check_columns, check_gaps
from fraud.pipeline.ingestion.values import is_within
from fraud.pipeline.windows import Window, Windows
from fraud.time import day_number


@dataclass(frozen=True)
class FoldRows:
    """The train or test rows of a fold.

    Attributes:
      columns: the columns that `fraud.models.preprocessing.in_memory` reads, [n] each.
      labels: 0 or 1, int64 [n].
      timestamps: epoch seconds, int64 [n], ascending.
      cards: int64 or bytes, [n]; row numbers if the data has no entities.
    """

    columns: dict[str, NDArray]
    labels: NDArray
    timestamps: NDArray
    cards: NDArray


def check_covered(source: Source, planned: Sequence[Fold], config: Config) -> Windows:
    """Checks that the data covers every day of every fold.

    Returns:
      The windows to read; `eval` spans the test days of all folds.

    Raises:
      BadInput: names the missing day and an option that avoids it.
    """
    days = source.days
    if not days:
        raise BadInput(f"{source.data}: there are no transactions")
    first, last = planned[0], planned[-1]
    needed = min(first.train.first, first.known_since)
    if needed < days[0]:
        earliest = first.test.first + (days[0] - needed)
        raise BadInput(
            f"{source.data}: the first fold needs the days from {needed} on, but the data begins "
            f"on {days[0]}; choose --first-test-day {earliest} or later, or fewer --train-days"
        )
    if last.test.last > days[-1]:
        raise BadInput(
            f"{source.data}: the last test days are {last.test}, but the data ends on {days[-1]}; "
            "choose fewer --folds, or an earlier --first-test-day"
        )
    back = history_days(config.features, config.dataset, config.windows.label_delay_days)
    back = max(back, (first.train.first - needed).days)
    before = first.train.first - timedelta(days=1)
    windows = Windows(
        as_of=last.test.last,
        history=Window(before - timedelta(days=back - 1), before) if back else None,
        train=first.train,
        eval=Window(first.test.first, last.test.last),
        recent=None,
    )
    check_gaps(source, windows, config.windows.max_empty_days)
    return windows


def read(source: Source, windows: Windows, config: Config) -> pa.Table:
    """Reads the transactions of all folds with their features, ordered by time.

    Raises:
      BadInput: names the file, row, column and fix.
    """
    dataset = config.dataset
    layout = values.Layout(dataset, check_columns(source, windows, dataset), windows)
    batches = []
    for file in source.files(windows.all_days):
        for first, raw in reader.read(file, layout.to_read(file)):
            at = values.RowOrigins(file, np.arange(first, first + raw.num_rows))
            batches.append(values.clean(raw, at, layout)[1])
    table = pa.Table.from_batches(batches).combine_chunks()
    order = np.argsort(table[dataset.timestamp].to_numpy(), kind="stable")
    table = table.take(pa.array(order)).combine_chunks()
    return add_features(table, dataset, config.features, config.windows.label_delay_days)


def split(table: pa.Table, fold: Fold, config: Config) -> tuple[FoldRows, FoldRows]:
    """Returns the train rows and the test rows of a fold, given the result of `read`.

    With label times, a train row is one whose label was known when the test days began, and a test
    row one whose label is known at all.
    """
    dataset = config.dataset
    days, known_days = _days(table, config)
    labelled = table[dataset.label].is_valid().to_numpy()
    labels = table[dataset.label].fill_null(0).to_numpy().astype(np.int64)
    card = dataset.card_entity
    cards = _keys(table[card]) if card else np.arange(len(days))
    train = is_within(fold.train, days) & (known_days < day_number(fold.test.first))
    test = is_within(fold.test, days) & labelled
    if card:  # Without cards there is nothing to block.
        test &= rows_to_test(fold, days, cards, labels, known_days)
    return _select(table, train, labels, cards, config), _select(table, test, labels, cards, config)


def count_by_day(source: Source) -> dict[date, int]:
    """The number of transactions of each day that has Parquet files in a folder of its own."""
    rows: dict[date, int] = {}
    for file in source.all_files:
        if file.in_day_folder and file.is_parquet:
            (day,) = file.days
            rows[day] = rows.get(day, 0) + reader.count_rows(file)
    return rows


def count_unlabelled(table: pa.Table, planned: Sequence[Fold], config: Config) -> int:
    """How many rows on test days are left out because their label is not known yet."""
    days, _ = _days(table, config)
    tested = is_within(Window(planned[0].test.first, planned[-1].test.last), days)
    return int((tested & table[config.dataset.label].is_null().to_numpy()).sum())


def _days(table: pa.Table, config: Config) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The day of each row, and the day on which its label became known, [rows] each."""
    dataset = config.dataset
    days = values.days_of(table[dataset.timestamp].combine_chunks(), dataset.timezone)
    if dataset.label_time is None:
        return days, days + config.windows.label_delay_days
    learned = table[dataset.label_time].combine_chunks()
    return days, values.known_days(learned, dataset.timezone)


def _keys(column: pa.ChunkedArray) -> NDArray:
    """The cards in the types that the Trainer reads: int64, or bytes."""
    text = pa.types.is_string(column.type)
    return column.cast(pa.binary() if text else pa.int64()).to_numpy()


def _select(
    table: pa.Table, mask: NDArray[np.bool_], labels: NDArray, cards: NDArray, config: Config
) -> FoldRows:
    rows = table.filter(pa.array(mask))
    names = ModelColumns.of(config.dataset, config.features)
    columns = {name: rows[name].cast(pa.float32()).to_numpy() for name in names.numeric}
    for name in names.categorical:
        columns[name] = rows[name].cast(pa.binary()).fill_null(b"").to_numpy()
    columns[names.label] = labels[mask]
    seconds = rows[config.dataset.timestamp].cast(pa.int64()).to_numpy() // 1_000_000
    return FoldRows(columns, labels[mask], seconds.astype(np.int64), cards[mask])

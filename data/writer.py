"""Writes simulated days as files: `date=YYYY-MM-DD/transactions.parquet`, or CSV."""

from __future__ import annotations

import datetime as dt
import gzip
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from fraud.data.simulator import simulate
from fraud.data.spec import FORMATS, Simulation
from fraud.errors import BadInput


@dataclass(frozen=True)
class Written:
    """The output of `write_days`.

    Attributes:
      folder: the parent of the day folders.
      days, transactions, frauds: numbers of each.
    """

    folder: Path
    days: int
    transactions: int
    frauds: int

    def __str__(self) -> str:
        return (
            f"{self.folder}: {self.days} days, {self.transactions:,} transactions, "
            f"{self.frauds:,} of them fraud"
        )


def write_days(
    simulation: Simulation,
    out_dir: str | os.PathLike[str],
    format: str = "parquet",
    progress: Callable[[dt.date, int], None] | None = None,
) -> Written:
    """Simulates, and writes each day to its own folder as soon as it is complete.

    A day folder appears complete or not at all, even if the machine stops in the middle.

    Args:
      simulation: its parameters.
      out_dir: the parent of the day folders; created if absent.
      format: one of `FORMATS`.
      progress: called with the day and its number of transactions after each day.

    Raises:
      BadInput: the format is unknown, a day folder exists already (then nothing is written), or
        no customer can buy anything.
      OSError: the folder cannot be written.
    """
    if format not in FORMATS:
        raise BadInput(f"unknown format {format!r}; choose one of {', '.join(FORMATS)}")
    out = Path(out_dir)
    _refuse_to_overwrite(out, simulation)
    transactions = frauds = 0
    for day, table in simulate(simulation):
        _write_day(table, out / f"date={day}", format)
        transactions += len(table)
        frauds += pc.sum(table["TX_FRAUD"]).as_py() or 0
        if progress:
            progress(day, len(table))
    return Written(out, simulation.days, transactions, frauds)


def _refuse_to_overwrite(out: Path, simulation: Simulation) -> None:
    days = (simulation.start + dt.timedelta(days=index) for index in range(simulation.days))
    existing = [folder for day in days if (folder := out / f"date={day}").exists()]
    if existing:
        others = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise BadInput(
            f"{existing[0]}{others} exists already and is not overwritten; "
            "choose another folder or remove it"
        )


def _write_day(table: pa.Table, folder: Path, format: str) -> None:
    """Writes to a temporary folder, syncs and renames it: readers never see a partial day."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with open(partial / f"transactions.{format}", "wb") as file:
        _write(table, file, format)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(folder)


def _write(table: pa.Table, file: BinaryIO, format: str) -> None:
    if format == "parquet":
        # Numbers compress better without a dictionary, which would hold nearly as many values.
        names = [field.name for field in table.schema if pa.types.is_string(field.type)]
        pyarrow.parquet.write_table(table, file, compression="zstd", use_dictionary=names)
    elif format == "csv":
        pyarrow.csv.write_csv(table, file)
    else:
        # No name or time in the header, so that equal days give equal bytes.
        with gzip.GzipFile("", "wb", 6, file, mtime=0) as compressed:
            pyarrow.csv.write_csv(table, compressed)

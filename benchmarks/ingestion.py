"""Compares the cost of ingestion with TFX's CsvExampleGen on the same rows and columns.

    python -m benchmarks.ingestion DATA [--as-of DAY] [--rows N] [--case CASE] [--stock]

Two cases, on all days up to the as-of day: `plain` writes every row without features; `features`
computes the default features, with the longest train window whose history is in the data. With
--stock, CsvExampleGen then reads the same examples from one CSV file, features as columns. Each
measurement runs in its own process: CPU seconds of the executor (all threads, no imports), peak
memory of the process in MB before and during it, and `disk_mb`, the most that temporary files and
examples took together, looked at every few seconds (they are in a folder below TMPDIR). Prints one
JSON document per line.

With --rows, DATA is a folder that does not exist yet, or that an earlier run has made: about so
many transactions of 72 days are simulated there first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import examples
from benchmarks.meter import Meter, peak_mb

CASES = ("plain", "features")
SIMULATED_DAYS = 72
"""The default features need 44 days of history; eval and recent have 7 each, train the other 14."""
TRANSACTIONS_A_DAY = 1.93
"""Of a simulated customer, on average."""
LOOK_EVERY = 5.0
"""Seconds between two looks at the disk."""


def configuration(case: str, data: str, as_of: date | None) -> Any:
    """Returns the configuration of a case, with windows as long as the data."""
    from fraud.features.spec import Dataset, Features
    from fraud.pipeline.config import Config, WindowLengths
    from fraud.pipeline.ingestion.source import discover, plan

    source = discover(data, Dataset())
    if case == "plain":
        days = [day for day in source.days if as_of is None or day <= as_of]
        windows = WindowLengths(train_days=len(days) - 7, eval_days=7, label_delay_days=0)
        return Config(windows=windows, features=Features(calendar=(), groups=()))
    config = Config(windows=WindowLengths(train_days=1))
    shortest = plan(source, config, as_of)
    assert shortest is not None
    spare = (shortest.all_days.first - source.days[0]).days
    return replace(config, windows=WindowLengths(train_days=1 + spare))


def ours(case: str, data: str, as_of: date | None, folder: Path) -> dict[str, Any]:
    """Measures TransactionExampleGen; its examples stay in the folder."""
    from fraud.pipeline.components.transaction_example_gen import Executor
    from fraud.pipeline.ingestion.source import plan_ingestion

    config = configuration(case, data, as_of)
    properties = examples.properties_of(config, data, str(as_of or ""))
    cost, written = measured(Executor, properties, folder)
    rows = json.loads(written.get_string_custom_property("rows"))
    rows_read = sum(plan_ingestion(data, config, as_of).rows)
    return {"rows_read": rows_read, "rows": sum(rows.values()), **cost}


def stock(case: str, data: str, as_of: date | None, folder: Path) -> dict[str, Any]:
    """Measures CsvExampleGen on the examples that `ours` left in the folder, as CSV."""
    import pandas as pd
    from tfx.components.example_gen import utils
    from tfx.components.example_gen.csv_example_gen.executor import Executor
    from tfx.proto import example_gen_pb2
    from tfx.utils import proto_utils

    splits = sorted((folder / "examples").iterdir())
    table = pd.concat([examples.read(split).to_pandas() for split in splits])
    (folder / "csv").mkdir()
    table.to_csv(folder / "csv" / "transactions.csv", index=False)
    rows = len(table)
    del table
    inputs = utils.make_default_input_config()
    properties = {
        "input_base": str(folder / "csv"),
        "input_config": proto_utils.proto_to_json(inputs),
        "output_config": proto_utils.proto_to_json(utils.make_default_output_config(inputs)),
        "output_data_format": example_gen_pb2.FORMAT_TF_EXAMPLE,
        "output_file_format": example_gen_pb2.FORMAT_TFRECORDS_GZIP,
    }
    cost, _ = measured(Executor, properties, folder / "stock")
    return {"rows_read": rows, "rows": rows, **cost}


def measured(executor: Any, properties: dict[str, Any], folder: Path) -> tuple[dict, Any]:
    """Runs an executor; returns its cost and its output artifact."""
    meter, before = Meter(), peak_mb()
    with most_on_disk(folder) as disk, meter.stage("executor"):
        written = examples.execute(executor, properties, folder)
    cost = meter.costs["executor"]
    seconds = {"cpu_seconds": cost.cpu, "wall_seconds": cost.wall}
    memory = {"mb_before": before, "mb": cost.mb}
    return {**seconds, **memory, "disk_mb": max(disk) >> 20}, written


@contextlib.contextmanager
def most_on_disk(folder: Path) -> Iterator[list[int]]:
    """Looks every now and then how many bytes the files of a folder have, beginning with 0."""
    seen, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(LOOK_EVERY):
            seen.append(size_of(folder))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
        seen.append(size_of(folder))


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder; those that are removed meanwhile do not count."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(os.path.join(parent, name)).st_size
    return size


def simulated(rows: int, folder: Path) -> None:
    """Simulates about so many transactions, unless the folder exists."""
    from fraud.data.spec import Simulation
    from fraud.data.writer import write_days

    if not folder.exists():
        customers = round(rows / SIMULATED_DAYS / TRANSACTIONS_A_DAY)
        simulation = Simulation(SIMULATED_DAYS, customers, 2 * customers)
        print(write_days(simulation, folder), file=sys.stderr)


def main() -> None:
    """Runs each measurement in its own process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingestion")
    parser.add_argument("data")
    parser.add_argument("--as-of", type=date.fromisoformat)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--stock", action="store_true")
    arguments = parser.parse_args()
    if arguments.rows:
        simulated(arguments.rows, Path(arguments.data))
    for case in [arguments.case] if arguments.case else CASES:
        with tempfile.TemporaryDirectory() as folder:
            for measure in (ours, stock) if arguments.stock else (ours,):
                with multiprocessing.get_context("spawn").Pool(1) as process:
                    settings = (case, arguments.data, arguments.as_of, Path(folder))
                    document = {"measure": measure.__name__, **process.apply(measure, settings)}
                per_second = round(document["rows"] / document["cpu_seconds"])
                print(
                    json.dumps({"case": case, **document, "rows_per_cpu": per_second}), flush=True
                )


if __name__ == "__main__":
    main()

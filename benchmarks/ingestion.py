"""What ingestion costs, beside TFX's CsvExampleGen on the same rows and columns.

    python -m benchmarks.ingestion DATA [--as-of DAY] [--stock]

Two cases, on all days up to the as-of day: `plain` writes every row, without features; `features`
makes the default ones, with the longest train window whose history is in the data. With --stock,
CsvExampleGen then reads from one CSV file what was written, features as columns. Every
measurement is a process of its own: CPU seconds of the executor (all threads, no imports), peak
memory of the process in MB before and after. One JSON document a line.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any


def configuration(case: str, data: str, as_of: date | None) -> Any:
    """The configuration of a case: windows as long as the data."""
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
    """TransactionExampleGen; its examples stay in the folder."""
    from fraud.codec import to_json
    from fraud.pipeline.components.transaction_example_gen import Executor
    from fraud.pipeline.ingestion.reader import count_rows
    from fraud.pipeline.ingestion.source import discover, plan

    config = configuration(case, data, as_of)
    properties = {
        "data": data,
        "as_of": str(as_of or ""),
        "dataset": to_json(config.dataset),
        "windows": to_json(config.windows),
        "features": to_json(config.features),
    }
    measured, examples = executed(Executor, properties, folder)
    source = discover(data, config.dataset)
    windows = plan(source, config, as_of)
    used = source.files(windows.all_days if windows else None)
    rows = json.loads(examples.get_string_custom_property("rows"))
    return {"rows_read": sum(map(count_rows, used)), "rows": sum(rows.values()), **measured}


def stock(case: str, data: str, as_of: date | None, folder: Path) -> dict[str, Any]:
    """CsvExampleGen on the examples that `ours` left in the folder, as CSV."""
    from tfx.components.example_gen import utils
    from tfx.components.example_gen.csv_example_gen.executor import Executor
    from tfx.proto import example_gen_pb2
    from tfx.utils import proto_utils

    rows = write_csv(folder / "examples", folder / "csv" / "transactions.csv")
    inputs = utils.make_default_input_config()
    properties = {
        "input_base": str(folder / "csv"),
        "input_config": proto_utils.proto_to_json(inputs),
        "output_config": proto_utils.proto_to_json(utils.make_default_output_config(inputs)),
        "output_data_format": example_gen_pb2.FORMAT_TF_EXAMPLE,
        "output_file_format": example_gen_pb2.FORMAT_TFRECORDS_GZIP,
    }
    measured, _ = executed(Executor, properties, folder / "stock")
    return {"rows_read": rows, "rows": rows, **measured}


def executed(executor: Any, properties: dict[str, Any], folder: Path) -> tuple[dict, Any]:
    """Runs an executor as the launcher does."""
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.types import standard_artifacts

    examples = standard_artifacts.Examples()
    examples.uri = str(folder / "examples")
    context = BaseBeamExecutor.Context(tmp_dir=str(folder / "tmp"), unique_id="1")
    before = peak_memory()
    cpu, wall = time.process_time(), time.monotonic()
    executor(context).Do({}, {"examples": [examples]}, properties)
    measured = {
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "wall_seconds": round(time.monotonic() - wall, 2),
        "mb_before": before,
        "mb": peak_memory(),
    }
    return measured, examples


def peak_memory() -> int:
    """Of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1 << 20 if sys.platform == "darwin" else 1 << 10)


def write_csv(examples: Path, path: Path) -> int:
    """Writes all examples as CSV; returns how many."""
    import pyarrow as pa
    import tensorflow as tf
    from pyarrow import csv
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    path.parent.mkdir()
    decoder, tables = ExamplesToRecordBatchDecoder(), []
    for file in sorted(examples.rglob("*.gz")):
        records = tf.data.TFRecordDataset(str(file), compression_type="GZIP")
        batch = decoder.DecodeBatch(list(records.as_numpy_iterator()))
        columns = {
            name: pa.array([values[0] if values else None for values in lists.to_pylist()])
            for name, lists in zip(batch.schema.names, batch.columns, strict=True)
        }
        tables.append(pa.table(columns))
    table = pa.concat_tables(tables, promote=True)
    csv.write_csv(table, str(path))
    return table.num_rows


def main() -> None:
    """Measures every case in processes of their own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingestion")
    parser.add_argument("data")
    parser.add_argument("--as-of", type=date.fromisoformat)
    parser.add_argument("--stock", action="store_true")
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        measure, case, folder = arguments.only
        found = {"ours": ours, "stock": stock}[measure](
            case, arguments.data, arguments.as_of, Path(folder)
        )
        per_second = round(found["rows"] / found["cpu_seconds"])
        print(json.dumps({"case": case, "measure": measure, **found, "rows_per_cpu": per_second}))
        return
    for case in ("plain", "features"):
        with tempfile.TemporaryDirectory() as folder:
            for measure in ("ours", "stock") if arguments.stock else ("ours",):
                command = [sys.executable, "-m", "benchmarks.ingestion", *sys.argv[1:]]
                command += ["--only", measure, case, folder]
                shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                print(shown.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()

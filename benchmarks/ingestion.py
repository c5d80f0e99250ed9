"""Compares the cost of ingestion with TFX's CsvExampleGen on the same rows and columns.

    python -m benchmarks.ingestion DATA [--as-of DAY] [--stock]

Two cases, on all days up to the as-of day: `plain` writes every row without features; `features`
computes the default features, with the longest train window whose history is in the data. With
--stock, CsvExampleGen then reads the same examples from one CSV file, features as columns. Each
measurement runs in its own process: CPU seconds of the executor (all threads, no imports), and peak
memory of the process in MB before and during it. Prints one JSON document per line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.meter import Meter, peak_mb


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
    from fraud.codec import to_json
    from fraud.pipeline.components.transaction_example_gen import Executor
    from fraud.pipeline.ingestion.source import plan_ingestion

    config = configuration(case, data, as_of)
    properties = {
        "data": data,
        "as_of": str(as_of or ""),
        "dataset": to_json(config.dataset),
        "windows": to_json(config.windows),
        "features": to_json(config.features),
    }
    measured, examples = executed(Executor, properties, folder)
    rows_read = sum(plan_ingestion(data, config, as_of).rows)
    rows = json.loads(examples.get_string_custom_property("rows"))
    return {"rows_read": rows_read, "rows": sum(rows.values()), **measured}


def stock(case: str, data: str, as_of: date | None, folder: Path) -> dict[str, Any]:
    """Measures CsvExampleGen on the examples that `ours` left in the folder, as CSV."""
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
    """Runs an executor as the launcher does; returns its cost and its output artifact."""
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.types import standard_artifacts

    examples = standard_artifacts.Examples()
    examples.uri = str(folder / "examples")
    context = BaseBeamExecutor.Context(tmp_dir=str(folder / "tmp"), unique_id="1")
    meter, before = Meter(), peak_mb()
    with meter.stage("executor"):
        executor(context).Do({}, {"examples": [examples]}, properties)
    cost = meter.costs["executor"]
    seconds = {"cpu_seconds": cost.cpu, "wall_seconds": cost.wall}
    return {**seconds, "mb_before": before, "mb": cost.mb}, examples


def write_csv(examples: Path, path: Path) -> int:
    """Writes all examples as CSV; returns the number of rows."""
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
    """Runs each measurement in its own process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingestion")
    parser.add_argument("data")
    parser.add_argument("--as-of", type=date.fromisoformat)
    parser.add_argument("--stock", action="store_true")
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        measure, case, folder = arguments.only
        measured = {"ours": ours, "stock": stock}[measure](
            case, arguments.data, arguments.as_of, Path(folder)
        )
        per_second = round(measured["rows"] / measured["cpu_seconds"])
        document = {"case": case, "measure": measure, **measured, "rows_per_cpu": per_second}
        print(json.dumps(document))
        return
    for case in ("plain", "features"):
        with tempfile.TemporaryDirectory() as folder:
            for measure in ("ours", "stock") if arguments.stock else ("ours",):
                command = [sys.executable, "-m", "benchmarks.ingestion", *sys.argv[1:]]
                command += ["--only", measure, case, folder]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                print(done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()

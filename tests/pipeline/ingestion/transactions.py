"""Small synthetic transactions for the tests of ingestion, and helpers to ingest them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from fraud.codec import to_json
from fraud.features.spec import Dataset
from fraud.pipeline.config import Config, WindowLengths
from fraud.pipeline.ingestion import reader, values
from fraud.pipeline.ingestion.source import check_columns, discover, plan

FIRST_DAY = date(2024, 2, 26)
DAYS = 12
AS_OF = FIRST_DAY + timedelta(days=DAYS - 1)

CONFIG = Config(
    dataset=Dataset(numeric=("AGE",), categorical=("MCC",), slices=("COUNTRY",)),
    windows=WindowLengths(train_days=3, eval_days=2, label_delay_days=2),
)


def make(rows: int = 1200, seed: int = 0) -> pa.Table:
    """Transactions in the order of time, with every column of CONFIG.dataset and one more."""
    random = np.random.default_rng(seed)
    start = np.datetime64(FIRST_DAY, "us")
    time = start + np.sort(random.integers(0, DAYS * 86_400, rows)).astype("timedelta64[s]")
    return pa.table(
        {
            "TRANSACTION_ID": np.arange(rows),
            "TX_DATETIME": time.astype("datetime64[us]"),
            "CUSTOMER_ID": random.integers(0, 40, rows),
            "TERMINAL_ID": random.integers(-20, 20, rows),
            "TX_AMOUNT": pa.array(
                random.lognormal(3, 1, rows).round(2), mask=random.random(rows) < 0.05
            ),
            "AGE": pa.array(random.integers(18, 90, rows), mask=random.random(rows) < 0.1),
            "MCC": pa.array(random.choice([5411, 5812, 742], rows)),
            "COUNTRY": pa.array(random.choice(["CH", 'D"E', "NA", "a, b"], rows)),
            "TX_FRAUD": (random.random(rows) < 0.1).astype(np.int64),
            "NOTE": pa.array(["unused"] * rows),
        }
    )


def by_day(table: pa.Table) -> dict[date, pa.Table]:
    days = pc.cast(table["TX_DATETIME"], pa.date32())
    return {day: table.filter(pc.equal(days, day)) for day in sorted(set(days.to_pylist()))}


def write_file(table: pa.Table, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".parquet"):
        parquet.write_table(table, path)
    else:
        with pa.output_stream(str(path), compression="detect") as stream:
            csv.write_csv(table, stream)
    return path


def write_days(table: pa.Table, folder: Path, suffix: str = ".parquet") -> Path:
    for day, rows in by_day(table).items():
        write_file(rows, folder / f"date={day}" / f"transactions{suffix}")
    return folder


def day_file(folder: Path, day: date = AS_OF - timedelta(days=7)) -> Path:
    """The file of one day; by default one of the train window."""
    (path,) = (folder / f"date={day}").iterdir()
    return path


def replaced(table: pa.Table, column: str, row: int, value: object) -> pa.Table:
    """The table with one value replaced; its column takes the type that the values need."""
    is_text = isinstance(value, str)
    values = (table[column].cast(pa.string()) if is_text else table[column]).to_pylist()
    values[row] = value
    return table.set_column(table.schema.get_field_index(column), column, pa.array(values))


def read(data: Path, config: Config = CONFIG, as_of: date = AS_OF) -> pa.Table:
    """All rows of the windows as the stages get them, without Beam."""
    source = discover(str(data), config.dataset)
    windows = plan(source, config, as_of)
    types = check_columns(source, windows, config.dataset)
    layout = values.Layout(config.dataset, types, windows)
    batches = []
    for file in source.files(windows and windows.all_days):
        for first, batch in reader.read(file, layout.to_read(file)):
            rows = values.RowOrigins(file, np.arange(first, first + batch.num_rows))
            batches.append(values.clean(batch, rows, layout)[1])
    return pa.Table.from_batches(batches).combine_chunks()


@dataclass(frozen=True)
class Ingested:
    """What an execution of the component's executor left.

    Attributes:
      splits: split → its examples as columns, in the order of the files.
      properties: the artifact's custom properties, JSON read.
      files: split → names of its files.
    """

    splits: dict[str, pa.Table]
    properties: dict[str, Any]
    files: dict[str, list[str]]


def ingest(
    data: Path,
    folder: Path,
    config: Config = CONFIG,
    as_of: date | None = AS_OF,
    beam: list[str] | None = None,
    plan: str | None = None,
) -> Ingested:
    """Runs the executor as the launcher does, and reads back what it wrote."""
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.types import standard_artifacts

    from fraud.pipeline.components.transaction_example_gen import Executor

    examples = standard_artifacts.Examples()
    examples.uri = str(folder / "examples")
    context = BaseBeamExecutor.Context(beam, tmp_dir=str(folder / "tmp"), unique_id="1")
    properties = {
        "data": str(data),
        "as_of": str(as_of) if as_of else "",
        "dataset": to_json(config.dataset),
        "windows": to_json(config.windows),
        "features": to_json(config.features),
        "plan": plan,
    }
    Executor(context).Do({}, {"examples": [examples]}, properties)
    return read_back(examples)


def read_back(examples: Any) -> Ingested:
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    names = json.loads(examples.split_names)
    splits, names_of = {}, {}
    for split in names:
        paths = sorted(Path(examples.uri, f"Split-{split}").iterdir())
        records = tf.data.TFRecordDataset([str(p) for p in paths], compression_type="GZIP")
        batch = ExamplesToRecordBatchDecoder().DecodeBatch(list(records.as_numpy_iterator()))
        splits[split] = pa.Table.from_batches([batch])
        names_of[split] = [path.name for path in paths]
    custom = examples.mlmd_artifact.custom_properties
    properties = {
        name: json.loads(custom[name].string_value)
        for name in ("windows", "rows", "positives", "history", "unlabelled")
    }
    properties["held_out"] = json.loads(custom["held_out"].string_value or "null")
    for name in ("as_of", "champion_column", "champion_problem"):
        properties[name] = custom[name].string_value
    return Ingested(splits, properties, names_of)


def with_dataset(config: Config = CONFIG, **changes: Any) -> Config:
    return replace(config, dataset=replace(config.dataset, **changes))


def with_windows(config: Config = CONFIG, **changes: Any) -> Config:
    return replace(config, windows=replace(config.windows, **changes))

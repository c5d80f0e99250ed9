"""Runs the executors of ExampleGens outside a pipeline, and reads the examples that they write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from fraud.pipeline.config import Config


def properties_of(config: Config, data: str, as_of: str = "") -> dict[str, str]:
    """The execution properties of TransactionExampleGen."""
    from fraud.codec import to_json

    parts = ("dataset", "windows", "features")
    return {
        "data": data,
        "as_of": as_of,
        **{name: to_json(getattr(config, name)) for name in parts},
    }


def execute(executor: Any, properties: dict[str, Any], folder: Path) -> Any:
    """Runs an executor as the launcher does; returns the artifact that it wrote to the folder."""
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.types import standard_artifacts

    examples = standard_artifacts.Examples()
    examples.uri = str(folder / "examples")
    context = BaseBeamExecutor.Context(tmp_dir=str(folder / "tmp"), unique_id="1")
    executor(context).Do({}, {"examples": [examples]}, properties)
    return examples


def read(split: Path) -> pa.Table:
    """Reads the examples of a split: a column per feature, null where it has no value."""
    import tensorflow as tf

    from fraud.pipeline.components.batched_reading import BATCH, ExampleParser

    parser = ExampleParser(None)
    files = sorted(map(str, split.glob("*.gz")))
    records = tf.data.TFRecordDataset(files, "GZIP").batch(BATCH)
    table = pa.Table.from_batches([parser.parse(examples) for examples in records])
    return pa.table({name: _flat(table[name]) for name in sorted(table.column_names)})


def _flat(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    """The single value of each list."""
    if pa.types.is_null(lists.type):  # no example of the split has a value
        return lists.cast(pa.int64())
    flat = pc.list_element(lists, 0)
    return flat.cast(pa.string()) if pa.types.is_large_binary(flat.type) else flat

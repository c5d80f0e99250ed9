"""Examples as this package writes them, read by TensorFlow and by tfx_bsl."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder, RecordBatchToExamplesEncoder

from fraud.pipeline.ingestion import example_writer

ROWS = 5000


def columns() -> dict[str, pa.Array]:
    """Every type, extreme values, and values missing nowhere, somewhere, everywhere."""
    random = np.random.default_rng(0)
    some = random.random(ROWS) < 0.3
    floats = random.normal(size=ROWS)
    floats[:4] = [0.0, -0.0, 3.4e38, 1e-40]
    whole = random.integers(-(2**63), 2**63 - 1, ROWS)
    whole[:5] = [0, 1, -1, 2**63 - 1, -(2**63)]
    words = random.choice(["", "é", "x" * 300, "one", "two"], ROWS)
    return {
        "float": pa.array(floats),
        "float with gaps": pa.array(floats, mask=some),
        "no float": pa.nulls(ROWS, pa.float64()),
        "whole": pa.array(whole),
        "small": pa.array(random.integers(0, 200, ROWS).astype(np.int8)),
        "whole with gaps": pa.array(whole, mask=some),
        "text": pa.array(words),
        "text with gaps": pa.array(words, mask=some),
        "a name of more than 127 bytes " * 5: pa.array(floats.astype(np.float32)),
        "time": pa.array(whole // 2**20, pa.timestamp("us")),
    }


def by_tfx_bsl(columns: dict[str, pa.Array]) -> list[bytes]:
    lists = {}
    for name, column in columns.items():
        if pa.types.is_timestamp(column.type):
            values = [[time // 1_000_000] for time in column.cast(pa.int64()).to_pylist()]
        else:
            values = [None if value is None else [value] for value in column.to_pylist()]
        is_text, is_float = pa.types.is_string(column.type), pa.types.is_floating(column.type)
        kind = pa.binary() if is_text else pa.float32() if is_float else pa.int64()
        lists[name] = pa.array(values, pa.list_(kind))
    batch = pa.RecordBatch.from_arrays(list(lists.values()), names=list(lists))
    return RecordBatchToExamplesEncoder().encode(batch)


def test_the_examples_are_those_of_tfx_bsl() -> None:
    ours, theirs = example_writer.serialized(columns()), by_tfx_bsl(columns())
    assert len(ours) == len(theirs) == ROWS
    for mine, other in zip(ours, theirs, strict=True):
        assert tf.train.Example.FromString(mine) == tf.train.Example.FromString(other)


def test_tfx_bsl_and_tensorflow_decode_them_the_same() -> None:
    ours, theirs = example_writer.serialized(columns()), by_tfx_bsl(columns())
    decoder = ExamplesToRecordBatchDecoder()
    assert decoder.DecodeBatch(ours).equals(decoder.DecodeBatch(theirs))
    types = {"float": tf.float32, "float with gaps": tf.float32, "no float": tf.float32}
    types |= {"whole": tf.int64, "whole with gaps": tf.int64, "time": tf.int64}
    types |= {"text": tf.string, "text with gaps": tf.string}
    spec = {name: tf.io.VarLenFeature(type_) for name, type_ in types.items()}
    mine, other = tf.io.parse_example(ours, spec), tf.io.parse_example(theirs, spec)
    for name in types:
        np.testing.assert_array_equal(mine[name].values, other[name].values)
        np.testing.assert_array_equal(mine[name].indices, other[name].indices)


@pytest.mark.parametrize("names", [["float", "small"], ["text"], ["no float"], ["time"]])
def test_any_columns_make_examples(names: list[str]) -> None:
    some = {name: columns()[name].slice(7, 1) for name in names}
    (ours,), (theirs,) = example_writer.serialized(some), by_tfx_bsl(some)
    assert tf.train.Example.FromString(ours) == tf.train.Example.FromString(theirs)


def test_a_file_has_all_rows_in_order(tmp_path: Path) -> None:
    path = tmp_path / "data.gz"
    with example_writer.open_file(str(path)) as file:
        for rows in (np.arange(ROWS - 5), np.arange(ROWS - 5, ROWS)):
            example_writer.write(file, {"row": pa.array(rows)})
    records = tf.data.TFRecordDataset(str(path), compression_type="GZIP").batch(ROWS)
    (batch,) = records.as_numpy_iterator()
    parsed = tf.io.parse_example(batch, {"row": tf.io.FixedLenFeature([], tf.int64)})
    np.testing.assert_array_equal(parsed["row"], np.arange(ROWS))

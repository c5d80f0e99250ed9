"""Reading in batches gives the standard components the same as their own reading."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx.components.statistics_gen import executor as stock
from tfx.types import standard_artifacts
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder
from tfx_bsl.tfxio.tf_example_record import TFExampleRecord

from fraud.models import example_columns
from fraud.models.specification import INPUTS_COLUMN
from fraud.pipeline.components import batched_reading
from fraud.pipeline.components.batched_reading import BatchedExamples, ExampleParser
from fraud.pipeline.ingestion import example_writer

SCHEMA = schema_pb2.Schema(
    feature=[
        schema_pb2.Feature(name="AMOUNT", type=schema_pb2.FLOAT),
        schema_pb2.Feature(name="CHANNEL", type=schema_pb2.BYTES),
        schema_pb2.Feature(name="ID", type=schema_pb2.INT),
    ]
)


def example(**values: Any) -> bytes:
    """A serialized example; None is a feature without a value."""
    result = tf.train.Example()
    for name, value in values.items():
        feature = result.features.feature[name]
        if isinstance(value, float):
            feature.float_list.value.append(value)
        elif isinstance(value, int):
            feature.int64_list.value.append(value)
        elif value is not None:
            feature.bytes_list.value.append(value)
    return result.SerializeToString()


def examples(rows: int) -> list[bytes]:
    """Numbers, texts and missing values; one column has no value at all."""
    rng = np.random.default_rng(5)
    return [
        example(
            ID=i,
            AMOUNT=None if i % 5 == 0 else float(rng.gamma(2, 30)),
            CHANNEL=None if i % 3 == 0 else ["é".encode(), b"web", b"shop"][i % 4 % 3],
            NEVER=None,
        )
        for i in range(rows)
    ]


def write(path: Path, records: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for record in records:
            writer.write(record)


def columns(batch: pa.RecordBatch) -> dict[str, tuple[pa.DataType, list]]:
    return {f.name: (f.type, batch.column(i).to_pylist()) for i, f in enumerate(batch.schema)}


@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_batches_are_those_of_the_stock_decoder(schema: schema_pb2.Schema | None) -> None:
    records = examples(700)
    theirs = ExamplesToRecordBatchDecoder(schema and schema.SerializeToString())
    ours = ExampleParser(schema).parse(tf.constant(records))
    assert columns(ours) == columns(theirs.DecodeBatch(records))


@pytest.mark.parametrize("late", [7, 7.0, b"seven"])
def test_a_column_whose_first_value_comes_late_has_its_type(late: Any) -> None:
    parser = ExampleParser(None)
    first = [example(ID=i, LATE=None) for i in range(300)]
    then = [example(ID=1, LATE=None), example(ID=2, LATE=late)]
    stock_decoder = ExamplesToRecordBatchDecoder()
    for records in (first, then):
        parsed = parser.parse(tf.constant(records))
        assert columns(parsed) == columns(stock_decoder.DecodeBatch(records))
    assert columns(parser.parse(tf.constant(first)))["LATE"][1] == [None] * 300


def test_a_champions_inputs_are_read_only_together_with_serialized_examples(
    tmp_path: Path,
) -> None:
    name = f"{INPUTS_COLUMN}12ab)"
    write(tmp_path / "a.gz", [example(ID=1, **{name: b"an example"})])
    read = functools.partial(batched_reading._read, None, batch_size=4)
    (batch,) = read(raw_column=None, file=str(tmp_path / "a.gz"))
    assert batch.schema.names == ["ID"]
    (batch,) = read(raw_column="raw", file=str(tmp_path / "a.gz"))
    assert set(batch.schema.names) == {"ID", name, "raw"}
    assert batch.column(name).to_pylist() == [[b"an example"]]


@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_columns_make_the_batches_of_the_parser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schema: schema_pb2.Schema | None
) -> None:
    rows = 300
    missing = np.arange(rows) % 5 == 0
    columns_written = {
        "ID": pa.array(np.arange(rows)),
        "AMOUNT": pa.array(np.arange(rows, dtype=np.float32), mask=missing),
        "CHANNEL": pa.array([None if i % 3 == 0 else b"web" for i in range(rows)]),
        "LATE": pa.array([7 if i == 200 else None for i in range(rows)], pa.int64()),
        "NEVER": pa.nulls(rows, pa.float32()),
    }
    values = {n: example_writer.as_in_examples(c) for n, c in columns_written.items()}
    file = str(tmp_path / "Split-train" / "a.gz")
    Path(file).parent.mkdir()
    with example_writer.open_file(file) as examples_file:
        example_writer.write(examples_file, values)
    read = functools.partial(batched_reading._read, schema, batch_size=64, file=file)
    of_examples, with_records = list(read(None)), list(read("raw"))
    Path(example_columns.folder_of(str(tmp_path / "Split-train"))).mkdir(parents=True)
    with example_columns.Writer(example_columns.path_of(file)) as columns_file:
        columns_file.write(values)
    assert [batch.num_rows for batch in read("raw")] == [64, 64, 64, 64, 44]
    assert all(one.equals(other) for one, other in zip(read("raw"), with_records, strict=True))
    monkeypatch.setattr(tf.data, "TFRecordDataset", None)
    for one, other in zip(read(None), of_examples, strict=True):
        assert one.schema == other.schema and one.equals(other)


def test_columns_of_another_type_than_the_schemas_are_not_used(tmp_path: Path) -> None:
    file = str(tmp_path / "Split-train" / "a.gz")
    write(Path(file), [example(AMOUNT=1.0, CHANNEL=b"web", ID=1)])
    Path(example_columns.folder_of(str(tmp_path / "Split-train"))).mkdir(parents=True)
    with example_columns.Writer(example_columns.path_of(file)) as columns_file:
        columns_file.write({name: pa.array([9]) for name in ("AMOUNT", "CHANNEL", "ID")})
    (batch,) = batched_reading._read(SCHEMA, None, 64, file)
    assert batch.column(0).to_pylist() == [[1.0]]


def test_a_column_of_two_types_is_refused() -> None:
    parser = ExampleParser(SCHEMA)
    with pytest.raises(tf.errors.InvalidArgumentError, match="AMOUNT"):
        parser.parse(tf.constant([example(AMOUNT=b"ten")]))


@pytest.mark.parametrize("columns_of", [None, ["ID", "CHANNEL"]])
def test_the_source_reads_what_the_stock_source_reads(
    tmp_path: Path, columns_of: list[str] | None
) -> None:
    records = examples(250)
    write(tmp_path / "a.gz", records[:100])
    write(tmp_path / "b.gz", records[100:])
    stock_source = TFExampleRecord(
        [str(tmp_path / "*.gz")], schema=SCHEMA, raw_record_column_name="raw"
    )
    rows_read = []
    for source in (stock_source, BatchedExamples.like(stock_source, 4)):
        if columns_of:
            source = source.Project(columns_of)
        with beam.Pipeline(runner=FnApiRunner()) as pipeline:
            _ = (
                pipeline
                | source.BeamSource(64)
                | beam.combiners.ToList()
                | beam.Map(_write_rows, str(tmp_path / "rows"))
            )
        rows_read.append((tmp_path / "rows").read_text())
    assert rows_read[0] == rows_read[1]
    assert len(rows_read[0].splitlines()) == 250


def _write_rows(batches: list[pa.RecordBatch], path: str) -> None:
    rows = [str(sorted(row.items())) for batch in batches for row in batch.to_pylist()]
    Path(path).write_text("\n".join(sorted(rows)))


def test_statistics_are_those_of_stock(tmp_path: Path) -> None:
    records = examples(3000)
    for split, part in (("train", records), ("eval", records[:500])):
        write(tmp_path / "examples" / f"Split-{split}" / "data_tfrecord-0.gz", part)
    of_executor = {}
    for executor in (stock.Executor, batched_reading.StatisticsGenExecutor):
        examples_read = standard_artifacts.Examples()
        statistics = standard_artifacts.ExampleStatistics()
        examples_read.uri, statistics.uri = (
            str(tmp_path / name) for name in ("examples", executor.__name__)
        )
        examples_read.split_names = '["train", "eval"]'
        executor().Do({"examples": [examples_read]}, {"statistics": [statistics]}, {})
        of_executor[executor] = {
            split: statistics_pb2.DatasetFeatureStatisticsList.FromString(
                Path(statistics.uri, f"Split-{split}", "FeatureStats.pb").read_bytes()
            )
            for split in ("train", "eval")
        }
    theirs, ours = of_executor.values()
    for split in theirs:
        assert theirs[split].datasets[0].num_examples == ours[split].datasets[0].num_examples > 0
        for line, other in zip(
            str(theirs[split]).splitlines(), str(ours[split]).splitlines(), strict=True
        ):
            assert line == other or _close(line, other), (split, line, other)


def _close(line: str, other: str) -> bool:
    """Whether two lines of a text proto differ only in the last digits of a number."""
    (name, value), (other_name, other_value) = (text.split(":") for text in (line, other))
    return name == other_name and math.isclose(float(value), float(other_value), rel_tol=1e-9)

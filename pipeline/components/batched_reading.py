"""StatisticsGen and Evaluator executors that read examples in batches.

TFX reads TFRecord files through Beam's source, at the cost of a Python object and several calls per
record, then regroups the records into batches and parses each into a protocol buffer. TensorFlow's
reader and example parser do the same for whole batches in a fraction of the time. Apart from
reading, the executors are TFX's.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_data_validation as tfdv
import tensorflow_model_analysis as tfma
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import types
from tfx.components.evaluator import executor as evaluator
from tfx.components.statistics_gen import executor as statistics_gen
from tfx.components.util import tfxio_utils
from tfx.dsl.io import fileio
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder
from tfx_bsl.tfxio import record_based_tfxio, tf_example_record

from fraud.codec import from_json
from fraud.models import example_columns
from fraud.models.evaluation.registry import CURVES
from fraud.models.specification import INPUTS_COLUMN
from fraud.pipeline.components.daily_counts import COUNTS_BY_DAY, DailyCounts, ToCount
from fraud.pipeline.components.executors import LocalBeam
from fraud.pipeline.data_facts import CURVES_FILE

BATCH = 8192  # examples
_SAMPLE = 256  # examples from which the types of a file are inferred

_OF_SCHEMA = {
    schema_pb2.INT: tf.int64,
    schema_pb2.FLOAT: tf.float32,
    schema_pb2.BYTES: tf.string,
}


class ExampleParser:
    """Parses serialized examples to the same Arrow batches as ExamplesToRecordBatchDecoder.

    For examples as TransactionExampleGen writes them: all have the same features, and an empty list
    of values means the same as no list.

    Args:
      schema: the features to read and their types. None: all features, with inferred types.
      nested: whether to read serialized examples within the examples too: a champion's inputs,
        which are no column of the data.
    """

    def __init__(self, schema: schema_pb2.Schema | None, nested: bool = False) -> None:
        self._nested = nested
        self._decoder = ExamplesToRecordBatchDecoder(schema and schema.SerializeToString())
        self._types: dict[str, tf.DType | None] = {}  # None: no value so far
        if schema is not None:
            self._types = {f.name: _OF_SCHEMA[f.type] for f in schema.feature}

    def parse(self, examples: tf.Tensor) -> pa.RecordBatch:
        """Parses examples, string [n].

        Raises:
          tf.errors.InvalidArgumentError: the type of a feature contradicts the schema or earlier
            examples.
        """
        if not self._types:
            self._infer_types(examples[:_SAMPLE])
        try:
            return self._parsed(examples)
        except tf.errors.InvalidArgumentError:
            if None not in self._types.values():
                raise
            self._infer_types(examples)
            return self._parsed(examples)

    def _infer_types(self, examples: tf.Tensor) -> None:
        for field in self._decoder.DecodeBatch(examples.numpy()).schema:
            of_arrow = {arrow: dtype for dtype, arrow in example_columns.ARROW.items()}
            if field.name.startswith(INPUTS_COLUMN) and not self._nested:
                continue
            known = None if pa.types.is_null(field.type) else of_arrow[field.type.value_type]
            self._types[field.name] = self._types.get(field.name) or known

    def _parsed(self, examples: tf.Tensor) -> pa.RecordBatch:
        parsed = tf.io.parse_example(
            examples,
            {
                name: tf.io.RaggedFeature(dtype or tf.float32, row_splits_dtype=tf.int64)
                for name, dtype in self._types.items()
            },
        )
        columns = {}
        for name, dtype in self._types.items():
            values, splits = parsed[name].values.numpy(), parsed[name].row_splits.numpy()
            if dtype is None and len(values):
                self._types[name] = tf.float32
            columns[name] = _lists(values, splits, self._types[name])
        return pa.RecordBatch.from_pydict(columns)


def _lists(values: NDArray, splits: NDArray, dtype: tf.DType | None) -> pa.Array:
    """A column of lists; null for rows without values."""
    rows = len(splits) - 1
    if dtype is None:
        return pa.nulls(rows)
    return _listed(pa.array(values, example_columns.ARROW[dtype]), splits)


def _listed(values: pa.Array, splits: NDArray) -> pa.Array:
    empty = np.append(splits[1:] == splits[:-1], False)
    offsets = pa.array(splits, mask=empty) if empty.any() else pa.array(splits)
    return pa.LargeListArray.from_arrays(offsets, values)


class BatchedExamples(tf_example_record.TFExampleRecord):
    """TFX's source of tf.Examples in TFRecord files, with batches as Beam's elements."""

    batch_size = BATCH

    @classmethod
    def like(cls, source: tf_example_record.TFExampleRecord, batch_size: int) -> BatchedExamples:
        """A batched source of the same files and columns."""
        batched = cls(
            source._file_pattern,
            schema=source._schema,
            raw_record_column_name=source.raw_record_column_name,
            telemetry_descriptors=source.telemetry_descriptors,
        )
        batched.batch_size = batch_size
        return batched

    def BeamSource(self, batch_size: int | None = None) -> beam.PTransform:  # noqa: N802
        """Reads Arrow batches, each from a single file; see TFXIO."""
        size = batch_size or self.batch_size

        def source(pipeline: beam.Pipeline) -> beam.PCollection:
            files = sorted({f for pattern in self._file_pattern for f in tf.io.gfile.glob(pattern)})
            read = functools.partial(_read, self._schema, self.raw_record_column_name, size)
            return (
                pipeline
                | "Files" >> beam.Create(files)
                | "ReadBatches" >> beam.FlatMap(read).with_output_types(pa.RecordBatch)
            )

        return beam.ptransform_fn(source)()

    def _ProjectImpl(self, tensor_names: list[str]) -> BatchedExamples:  # noqa: N802
        return self.like(super()._ProjectImpl(tensor_names), self.batch_size)


def _read(
    schema: schema_pb2.Schema | None, raw_column: str | None, batch_size: int, file: str
) -> Iterator[pa.RecordBatch]:
    """Reads a file; `raw_column`, if given, names an extra column for the serialized examples."""
    if raw_column is None and (columns := example_columns.read(file)) is not None:
        types = {f.name: example_columns.ARROW[_OF_SCHEMA[f.type]] for f in _features(schema)}
        if example_columns.fits(columns.schema, types):
            yield from _as_parsed(columns, types, batch_size)
            return
    parser = ExampleParser(schema, nested=raw_column is not None)
    compression = "GZIP" if file.endswith(".gz") else ""
    for examples in tf.data.TFRecordDataset(file, compression).batch(batch_size):
        batch = parser.parse(examples)
        if raw_column is not None:
            batch = record_based_tfxio.AppendRawRecordColumn(batch, raw_column, examples.numpy())
        yield batch


def _features(schema: schema_pb2.Schema | None) -> Sequence[schema_pb2.Feature]:
    return () if schema is None else schema.feature


def _as_parsed(
    columns: pa.RecordBatch, types: Mapping[str, pa.DataType], batch_size: int
) -> Iterator[pa.RecordBatch]:
    """The same batches as `ExampleParser` makes.

    Args:
      columns: of a file, see `example_columns`.
      types: those of the schema; all columns if empty.
      batch_size: rows of a batch.
    """
    # Without a schema, the type of a column is not known before its first value.
    known = set(types)
    for start in range(0, columns.num_rows, batch_size):
        lists = {}
        for name in types or sorted(columns.schema.names):
            values = columns.column(columns.schema.get_field_index(name))
            values = values.slice(start, batch_size)
            if values.null_count < len(values):
                known.add(name)
            present = values.is_valid().to_numpy(zero_copy_only=False)
            splits = np.concatenate([[0], np.cumsum(present)])
            lists[name] = (
                _listed(values.drop_null(), splits) if name in known else pa.nulls(len(values))
            )
        yield pa.RecordBatch.from_pydict(lists)


class _Batched:
    """Mixin of executors: reads TFRecord files through `BatchedExamples`.

    TFX's executors have no setting for the source, but all get it from the one function replaced
    here.
    """

    batch_size = BATCH

    def Do(self, *arguments: Any) -> None:  # noqa: N802
        """See BaseExecutor."""
        stock = tfxio_utils.make_tfxio

        def make_tfxio(*arguments: Any, **named: Any) -> Any:
            source = stock(*arguments, **named)
            if type(source) is tf_example_record.TFExampleRecord:
                return BatchedExamples.like(source, self.batch_size)
            return source

        tfxio_utils.make_tfxio = make_tfxio
        try:
            super().Do(*arguments)  # type: ignore[misc]
        finally:
            tfxio_utils.make_tfxio = stock


class StatisticsGenExecutor(_Batched, LocalBeam, statistics_gen.Executor):
    """TFX's StatisticsGen, reading in batches, and with counts by day.

    The execution property `COUNTS_BY_DAY` says what to count; without it, nothing is.
    """

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """See BaseExecutor."""
        to_count = exec_properties.get(COUNTS_BY_DAY)
        stock = tfdv.GenerateStatistics

        def generate_statistics(options: tfdv.StatsOptions) -> beam.PTransform:
            if to_count is not None:
                options.generators = [DailyCounts(from_json(ToCount, to_count))]
            return stock(options)

        # Generators cannot be given as an option: TFX passes options on as JSON.
        tfdv.GenerateStatistics = generate_statistics
        try:
            super().Do(input_dict, output_dict, exec_properties)
        finally:
            tfdv.GenerateStatistics = stock


class EvaluatorExecutor(_Batched, LocalBeam, evaluator.Executor):
    """TFX's Evaluator, reading in batches.

    They are smaller because TFMA also keeps the serialized examples in memory. What
    `fraud.models.evaluation.curves` describes, it also writes as a file of its own, which reports
    can read without TFMA.
    """

    batch_size = 2048

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """See BaseExecutor."""
        super().Do(input_dict, output_dict, exec_properties)
        (evaluation,) = output_dict["evaluation"]
        for of_slice in tfma.load_metrics(evaluation.uri):
            for pair in of_slice.metric_keys_and_values:
                if pair.key.name == CURVES:
                    with fileio.open(f"{evaluation.uri}/{CURVES_FILE}", "wb") as file:
                        file.write(pair.value.bytes_value)

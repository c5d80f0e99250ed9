"""StatisticsGen and Evaluator that read examples a batch at a time.

TFX reads TFRecord files through Beam's source, a Python object and several calls a record, puts
records together to batches again and parses each of them into a protocol buffer. TensorFlow's
reader and its parser of examples do the same for whole batches in a fraction of the time. The
executors are TFX's, except for where they read.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components import Evaluator, StatisticsGen
from tfx.components.evaluator import executor as evaluator
from tfx.components.statistics_gen import executor as statistics_gen
from tfx.components.util import tfxio_utils
from tfx.dsl.components.base import executor_spec
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder
from tfx_bsl.tfxio import record_based_tfxio, tf_example_record

from fraud.pipeline.components.local_beam import LocalBeam

BATCH = 8192  # examples
_LOOKED_AT = 256  # examples whose types are taken for those of a file

_ARROW = {tf.int64: pa.int64(), tf.float32: pa.float32(), tf.string: pa.large_binary()}
_OF_SCHEMA = {
    schema_pb2.INT: tf.int64,
    schema_pb2.FLOAT: tf.float32,
    schema_pb2.BYTES: tf.string,
}


class ExampleParser:
    """Serialized examples → Arrow batches, as tfx_bsl's ExamplesToRecordBatchDecoder gives them.

    It is for examples as TransactionExampleGen writes them: all have the same features, and a
    feature has values or none (an empty list of values is taken for none).

    Args:
      schema: which features are read, of what type. None: all there are, by looking.
    """

    def __init__(self, schema: schema_pb2.Schema | None) -> None:
        self._decoder = ExamplesToRecordBatchDecoder(schema and schema.SerializeToString())
        self._types: dict[str, tf.DType | None] = {}  # None: no value seen yet
        if schema is not None:
            self._types = {f.name: _OF_SCHEMA[f.type] for f in schema.feature}

    def parse(self, examples: tf.Tensor) -> pa.RecordBatch:
        """Parses examples, string [n].

        Raises:
          tf.errors.InvalidArgumentError: a feature has values of another type than before, or than
            its schema says.
        """
        if not self._types:
            self._look_at(examples[:_LOOKED_AT])
        try:
            return self._parsed(examples)
        except tf.errors.InvalidArgumentError:
            if None not in self._types.values():
                raise
            self._look_at(examples)
            return self._parsed(examples)

    def _look_at(self, examples: tf.Tensor) -> None:
        for field in self._decoder.DecodeBatch(examples.numpy()).schema:
            of_arrow = {arrow: dtype for dtype, arrow in _ARROW.items()}
            known = None if pa.types.is_null(field.type) else of_arrow[field.type.value_type]
            self._types[field.name] = self._types.get(field.name) or known

    def _parsed(self, examples: tf.Tensor) -> pa.RecordBatch:
        types = [dtype or tf.float32 for dtype in self._types.values()]
        found = tf.raw_ops.ParseExampleV2(
            serialized=examples,
            names=[],
            sparse_keys=[],
            dense_keys=[],
            ragged_keys=list(self._types),
            dense_defaults=[],
            num_sparse=0,
            sparse_types=[],
            ragged_value_types=types,
            ragged_split_types=[tf.int64] * len(types),
            dense_shapes=[],
        )
        columns = {}
        for name, values, splits in zip(
            self._types, found.ragged_values, found.ragged_row_splits, strict=True
        ):
            if self._types[name] is None and len(values):
                self._types[name] = tf.float32
            columns[name] = _lists(values.numpy(), splits.numpy(), self._types[name])
        return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


def _lists(values: NDArray, splits: NDArray, dtype: tf.DType | None) -> pa.Array:
    """A column of lists; null where there are no values."""
    rows = len(splits) - 1
    if dtype is None:
        return pa.nulls(rows)
    empty = np.append(splits[1:] == splits[:-1], False)
    offsets = pa.array(splits, mask=empty) if empty.any() else pa.array(splits)
    return pa.LargeListArray.from_arrays(offsets, pa.array(values, _ARROW[dtype]))


class BatchedExamples(tf_example_record.TFExampleRecord):
    """TFX's source of tf.Examples in TFRecord files, with batches as the elements of Beam."""

    batch_size = BATCH

    @classmethod
    def like(cls, source: tf_example_record.TFExampleRecord, batch_size: int) -> BatchedExamples:
        """The same files and columns as another source."""
        made = cls(
            source._file_pattern,
            schema=source._schema,
            raw_record_column_name=source.raw_record_column_name,
            telemetry_descriptors=source.telemetry_descriptors,
        )
        made.batch_size = batch_size
        return made

    def BeamSource(self, batch_size: int | None = None) -> beam.PTransform:  # noqa: N802
        """Arrow batches, each of one file; see TFXIO."""
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
    """The batches of a file; `raw_column`, if given, names a column of the serialized examples."""
    parser = ExampleParser(schema)
    compression = "GZIP" if file.endswith(".gz") else ""
    for examples in tf.data.TFRecordDataset(file, compression).batch(batch_size):
        batch = parser.parse(examples)
        if raw_column is not None:
            batch = record_based_tfxio.AppendRawRecordColumn(batch, raw_column, examples.numpy())
        yield batch


@contextmanager
def _batched(batch_size: int) -> Iterator[None]:
    """Within it, TFX's executors get `BatchedExamples` where they ask for a TFRecord source.

    They have no setting for it, but all ask the one function that is replaced here.
    """
    stock = tfxio_utils.make_tfxio

    def make_tfxio(*arguments: Any, **named: Any) -> Any:
        source = stock(*arguments, **named)
        if type(source) is tf_example_record.TFExampleRecord:
            return BatchedExamples.like(source, batch_size)
        return source

    tfxio_utils.make_tfxio = make_tfxio
    try:
        yield
    finally:
        tfxio_utils.make_tfxio = stock


class _Batched:
    """Mixin of executors."""

    batch_size = BATCH

    def Do(self, *arguments: Any) -> None:  # noqa: N802
        """See BaseExecutor."""
        with _batched(self.batch_size):
            super().Do(*arguments)  # type: ignore[misc]


class StatisticsGenExecutor(_Batched, LocalBeam, statistics_gen.Executor):
    """TFX's StatisticsGen, reading batches."""


class EvaluatorExecutor(_Batched, LocalBeam, evaluator.Executor):
    """TFX's Evaluator, reading batches.

    Smaller ones: TFMA keeps the serialized examples beside their columns.
    """

    batch_size = 2048


_EXECUTORS = {
    StatisticsGen: StatisticsGenExecutor,
    Evaluator: EvaluatorExecutor,
}

Component = TypeVar("Component", StatisticsGen, Evaluator)


def in_batches(component: Component) -> Component:
    """The same component, reading batches. In ML Metadata it is TFX's component still."""
    component.executor_spec = executor_spec.BeamExecutorSpec(_EXECUTORS[type(component)])
    return component

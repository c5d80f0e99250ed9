"""The columns of a file of examples, as Arrow columns in a second file.

A serialized example repeats the names of all columns. To decompress and parse examples costs more
than what StatisticsGen and Transform do with them, and each node does it again; these files are
read at a fiftieth of that (ADR 45). They are in `columns/SPLIT` beside the `SPLIT` folder of the
artifact, where no standard component looks. What has no such file is read from the examples.

After what is an Arrow file follows its CRC-32. TFRecord files have checksums, Arrow's have not, and
damage would become other values.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from fraud.errors import FraudPipelineError

FOLDER = "columns"
_CRC = 4  # bytes
_END = 8  # bytes; a gzip file's CRC-32 and size of its content
_ZSTD = pa.ipc.IpcWriteOptions(compression="zstd")
ARROW = {tf.int64: pa.int64(), tf.float32: pa.float32(), tf.string: pa.large_binary()}


class Writer:
    """Writes the columns of one file of examples; a context, at whose end the file is there.

    Args:
      path: the file to write.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._sink = pa.BufferOutputStream()
        self._batches: pa.RecordBatchFileWriter | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._batches is not None:
            self._batches.close()
            with tf.io.gfile.GFile(self._path, "wb") as file:
                content = self._sink.getvalue()
                file.write(content.to_pybytes())
                file.write(zlib.crc32(content).to_bytes(_CRC, "little"))

    def write(self, columns: Mapping[str, pa.Array]) -> None:
        """Appends rows.

        Args:
          columns: int64, float32 or large_binary by name, the same columns each time; null where an
            example has no value.
        """
        batch = pa.RecordBatch.from_pydict(dict(columns))
        if self._batches is None:
            self._batches = pa.ipc.new_file(self._sink, batch.schema, options=_ZSTD)
        self._batches.write_batch(batch)


def path_of(examples: str) -> str:
    """Where the columns of a file of examples are.

    The name contains the size and the last bytes of the examples, which are a checksum: of a file
    that has been replaced since, there are no columns.
    """
    folder, name = os.path.split(examples)
    with tf.io.gfile.GFile(examples, "rb") as file:
        size = file.size()
        file.seek(max(0, size - _END))
        end = file.read(_END).hex()
    return f"{folder_of(folder)}/{name}.{size}.{end}.arrow"


def folder_of(split: str) -> str:
    """Where the columns of a split are, by the folder of its examples."""
    artifact, name = os.path.split(split)
    return f"{artifact}/{FOLDER}/{name}"


def read(examples: str) -> pa.RecordBatch | None:
    """Reads the columns of a file of examples; None if it has none.

    Raises:
      FraudPipelineError: they are damaged.
    """
    path = path_of(examples)
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path, "rb") as file:
        written = memoryview(file.read())
    content, crc = written[:-_CRC], written[-_CRC:]
    if zlib.crc32(content).to_bytes(_CRC, "little") != crc:
        raise FraudPipelineError(
            f"{path}: is damaged; delete it, and {examples} is read instead, which is slower"
        )
    table = pa.ipc.open_file(pa.py_buffer(content)).read_all().combine_chunks()
    return pa.RecordBatch.from_arrays(
        [column.chunk(0) for column in table.columns], schema=table.schema
    )


def parsed(
    examples: Sequence[str], spec: Mapping[str, Any], rows: int
) -> Iterator[dict[str, NDArray]] | None:
    """The columns of examples as `tf.io.parse_example` would give them.

    Args:
      examples: the files, all of one artifact.
      spec: FixedLenFeature of one value or VarLenFeature by column; the values of the latter are
        dense, [n], and 0 or empty where they are missing.
      rows: the number of rows of a batch; the last ones of a file may be fewer.

    Returns:
      batches of columns, [n, *shape of the feature]; None if they are to be read from the examples,
      because there are no columns, or others than in `spec`.

    Raises:
      FraudPipelineError: columns are damaged, or not all files have the same.
    """
    if not examples or not all(tf.io.gfile.exists(path_of(file)) for file in examples):
        return None
    first = read(examples[0])
    types = {name: ARROW[feature.dtype] for name, feature in spec.items()}
    if first is None or not fits(first.schema, types):
        return None
    return _parsed(examples, spec, types, rows)


def fits(schema: pa.Schema, types: Mapping[str, pa.DataType]) -> bool:
    """Whether a schema has these columns, with these types."""
    places = {name: schema.get_field_index(name) for name in types}
    return all(at >= 0 and schema.field(at).type == types[name] for name, at in places.items())


def _parsed(
    examples: Sequence[str],
    spec: Mapping[str, Any],
    types: Mapping[str, pa.DataType],
    rows: int,
) -> Iterator[dict[str, NDArray]]:
    for file in examples:
        batch = read(file)
        if batch is None or not fits(batch.schema, types):
            raise FraudPipelineError(
                f"{file}: has other columns than {examples[0]}; delete {path_of(examples[0])}, and "
                "the examples are read instead, which is slower"
            )
        columns = {
            name: _dense(file, name, batch.column(batch.schema.get_field_index(name)), feature)
            for name, feature in spec.items()
        }
        for start in range(0, batch.num_rows, rows):
            yield {name: values[start : start + rows] for name, values in columns.items()}


def _dense(file: str, name: str, column: pa.Array, feature: Any) -> NDArray:
    shape = getattr(feature, "shape", ())
    if column.null_count:
        default = feature.default_value if isinstance(feature, tf.io.FixedLenFeature) else 0
        if default is None:
            raise ValueError(f"{file}: {column.null_count} examples have no {name}")
        if feature.dtype == tf.string:
            column = column.fill_null(pa.scalar(b"", column.type))
        else:
            value = float(np.asarray(default).reshape(-1)[0])
            column = column.fill_null(pa.scalar(value).cast(column.type))
    return column.to_numpy(zero_copy_only=False).reshape(-1, *shape)

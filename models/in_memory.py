"""Transform's preprocessing of columns that lie in memory: for the backtest and comparisons.

The Transform component learns from files of examples. Here the same `preprocessing_fn` learns
from arrays, by the same library, and gives the arrays that `models.training` reads.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from json import dumps

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0.schema_pb2 import FixedShape, TensorRepresentation
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from models import preprocessing
from models.columns import ModelColumns
from models.spec import Network

BATCH = 8192


@dataclass(frozen=True)
class Preprocessing:
    """What Transform learned of a train window.

    Attributes:
      transform: its output.
      columns: what the model reads.
      spec: the network it is made for.
    """

    transform: tft.TFTransformOutput
    columns: ModelColumns
    spec: Network

    @property
    def vocabularies(self) -> dict[str, int]:
        """How many indices each categorical column has."""
        return preprocessing.vocabulary_sizes(self.transform, self.columns, self.spec)

    def __call__(self, columns: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """The network's inputs: see `models.preprocessing.preprocessing_fn`.

        Args:
          columns: the model's numeric and categorical columns, as `learn` has them.
        """
        layer = self.transform.transform_features_layer()
        names = (*self.columns.numeric, *self.columns.categorical)
        whole = {name: columns[name].reshape(-1, 1) for name in names}
        batches = tf.data.Dataset.from_tensor_slices(whole).batch(BATCH)
        parts = list(batches.map(layer, tf.data.AUTOTUNE).as_numpy_iterator())
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def learn(
    columns: Mapping[str, NDArray], model_columns: ModelColumns, spec: Network, directory: str
) -> Preprocessing:
    """Learns quantiles and vocabularies.

    Args:
      columns: those of the train window, [rows] each: numeric ones float32, NaN where missing;
        categorical ones bytes in an object array, b"" where missing; the label int64.
      model_columns: which is which.
      spec: how many bins and words.
      directory: an empty one, for what is learned; it must stay as long as the result.
    """
    names = (*model_columns.numeric, *model_columns.categorical, model_columns.label)
    table = pa.table({name: _lists(columns[name]) for name in names})
    config = {"columns": dumps(asdict(model_columns)), "network": dumps(asdict(spec))}
    with tempfile.TemporaryDirectory() as temporary:
        path = os.path.join(temporary, "columns.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=BATCH)
        with beam.Pipeline(runner=FnApiRunner()) as pipeline, tft_beam.Context(temp_dir=temporary):
            # What Create holds is pickled and compressed many times over: a path, not the data.
            batches = pipeline | beam.Create([path]) | beam.FlatMap(_read)
            learned = (batches, _dense(table.schema)) | tft_beam.AnalyzeDataset(
                partial(preprocessing.preprocessing_fn, custom_config=config)
            )
            _ = learned | tft_beam.WriteTransformFn(directory)
    return Preprocessing(tft.TFTransformOutput(directory), model_columns, spec)


def _read(path: str) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(path) as source:
        reader = pa.ipc.open_file(source)
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)


def _lists(values: NDArray) -> pa.Array:
    """A list of one value a row, as Transform reads them."""
    return pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32), pa.array(values))


def _dense(schema: pa.Schema) -> TensorAdapterConfig:
    """Every column becomes a tensor [batch, 1]."""
    one = FixedShape(dim=[FixedShape.Dim(size=1)])
    return TensorAdapterConfig(
        schema,
        {
            name: TensorRepresentation(
                dense_tensor=TensorRepresentation.DenseTensor(column_name=name, shape=one)
            )
            for name in schema.names
        },
    )

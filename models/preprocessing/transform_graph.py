"""The TransformGraph artifact: `preprocessing_fn` as TensorFlow Transform saves it."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.saved.saved_transform_io_v2 import SavedModelLoader
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from fraud.codec import from_json
from fraud.models.columns import ModelColumns
from fraud.models.preprocessing.transform_fn import preprocessing_fn


def write_transform_graph(
    directory: str, analysis: Path, custom_config: dict[str, str]
) -> tft.TFTransformOutput:
    """Saves `preprocessing_fn` with an analysis as its constants.

    Args:
      directory: the folder of the TransformGraph artifact, or another empty one.
      analysis: the folder of an `fraud.models.preprocessing.analysis.Analysis`.
      custom_config: that of `preprocessing_fn`, without `analysis`.

    Returns:
      The output, without the schema of the raw examples, which is not known here.
    """
    columns = from_json(ModelColumns, custom_config["columns"])
    config = {**custom_config, "analysis": str(analysis)}
    function = partial(preprocessing_fn, custom_config=config)
    # The function has no analyzers, so there is no data to process and this runner always works.
    with (
        tempfile.TemporaryDirectory() as temporary,
        beam.Pipeline(runner=FnApiRunner()) as pipeline,
        tft_beam.Context(temp_dir=temporary),
    ):
        nothing = pipeline | beam.Create([])
        types = _dense(columns.numeric, columns.categorical)
        saved = (nothing, types) | tft_beam.AnalyzeDataset(function)
        _ = saved | tft_beam.WriteTransformFn(directory)
    return tft.TFTransformOutput(directory)


def _dense(numeric: tuple[str, ...], categorical: tuple[str, ...]) -> TensorAdapterConfig:
    """Describes every column as a dense tensor [batch, 1]."""
    one = schema_pb2.FixedShape(dim=[schema_pb2.FixedShape.Dim(size=1)])
    tensor = schema_pb2.TensorRepresentation.DenseTensor
    types = {**dict.fromkeys(numeric, pa.float32()), **dict.fromkeys(categorical, pa.binary())}
    return TensorAdapterConfig(
        pa.schema([(name, pa.large_list(of)) for name, of in types.items()]),
        {
            name: schema_pb2.TensorRepresentation(dense_tensor=tensor(column_name=name, shape=one))
            for name in types
        },
    )


class TransformGraph(tf.Module):
    """Applies Transform's graph, like `transform_features_layer` but without a Keras 2 layer.

    Keras would retrace such a layer with AutoGraph at every save.
    """

    def __init__(self, transform: tft.TFTransformOutput) -> None:
        super().__init__()
        self._loader = SavedModelLoader(transform.transform_savedmodel_dir)
        self._loaded = self._loader._imported  # its tables are saved with this module

    @tf.autograph.experimental.do_not_convert
    def __call__(self, columns: dict[str, Any]) -> dict[str, tf.Tensor]:
        """Computes the transformed features, except those that require columns not given."""
        return self._loader.apply_transform_model(columns)

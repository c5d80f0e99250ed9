"""A Transform that learns quantiles and vocabularies in one pass over the examples.

TensorFlow Transform's analyzers compute the same in a hundred Beam stages that exchange sketches of
hundreds of megabytes. Here the results become constants of its graph; the artifact is a standard
TransformGraph.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import metadata_io
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata
from tfx.components.transform import executor, executor_utils
from tfx.types import artifact_utils, standard_component_specs
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

from fraud.codec import from_json
from fraud.models import example_columns
from fraud.models.columns import ModelColumns
from fraud.models.preprocessing.analysis import Analysis, Analyzer
from fraud.models.preprocessing.transform_graph import write_transform_graph
from fraud.models.spec import Network
from fraud.pipeline.components.batched_reading import BATCH
from fraud.pipeline.components.executors import LocalBeam
from fraud.pipeline.schemas import typed


class TransformExecutor(LocalBeam, executor.Executor):
    """TFX's Transform for `fraud.models.preprocessing.transform_fn`.

    It writes neither materialized examples nor statistics.
    """

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """See BaseExecutor."""
        examples = input_dict[standard_component_specs.EXAMPLES_KEY]
        splits = executor_utils.ResolveSplitsConfig(
            exec_properties[standard_component_specs.SPLITS_CONFIG_KEY], examples
        )
        config = json.loads(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
        graph = artifact_utils.get_single_uri(
            output_dict[standard_component_specs.TRANSFORM_GRAPH_KEY]
        )
        schema_folder = artifact_utils.get_single_uri(
            input_dict[standard_component_specs.SCHEMA_KEY]
        )
        schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema_folder))
        files = [
            file
            for split in splits.analyze
            for uri in artifact_utils.get_split_uris(examples, split)
            for file in sorted(tf.io.gfile.glob(io_utils.all_files_pattern(uri)))
        ]
        columns = from_json(ModelColumns, config["columns"])
        analyze = partial(analyze_files, columns, from_json(Network, config["network"]))
        groups = groups_of(files)
        folder = Path(self._get_tmp_dir(), "analysis")
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | beam.Create(groups)
                | AnalyzeGroups(analyze, len(groups))
                | beam.Map(Analysis.write, folder)
            )
        write_transform_graph(graph, folder, config)
        metadata_io.write_metadata(
            DatasetMetadata(dense(typed(schema, columns.numeric, columns.categorical))),
            os.path.join(graph, tft.TFTransformOutput.RAW_METADATA_DIR),
        )


def groups_of(files: Sequence[str]) -> list[tuple[int, tuple[str, ...]]]:
    """Numbered groups of consecutive files, as many groups as there are files in each.

    One worker reads a group. An analysis has tens of megabytes, however few rows it has seen, so
    one of each file would be more for a runner to keep than the examples are.
    """
    size = max(1, math.isqrt(len(files)))
    starts = range(0, len(files), size)
    return [(number, tuple(files[at : at + size])) for number, at in enumerate(starts)]


class AnalyzeGroups(beam.PTransform):
    """Groups of files of examples → their `Analysis`, the same on every runner.

    Quantiles are estimates that depend a little on what is merged with what. A CombineFn would
    leave that to the runner, and a model from a cluster would differ from one of a single machine.
    So the analyses of groups are merged in the order of the groups, `TOGETHER` at a time.
    """

    TOGETHER = 16

    def __init__(self, analyze: Callable[[Sequence[str]], Analyzer], groups: int) -> None:
        super().__init__()
        self._analyze, self._groups = analyze, groups

    def expand(self, groups: beam.PCollection) -> beam.PCollection:
        """See beam.PTransform."""
        analyzers = (
            groups
            | "Spread" >> beam.Reshuffle()
            | "AnalyzeGroup" >> beam.MapTuple(lambda number, files: (number, self._analyze(files)))
        )
        left, level = self._groups, 0
        while left > 1 or level == 0:
            left, level = -(-left // self.TOGETHER), level + 1
            analyzers = (
                analyzers
                | f"Group{level}" >> beam.MapTuple(partial(_grouped, self.TOGETHER))
                | f"ByGroup{level}" >> beam.GroupByKey()
                | f"Merge{level}" >> beam.MapTuple(_merged)
            )
        return analyzers | "Finish" >> beam.MapTuple(lambda _, analyzer: analyzer.analysis())


def analyze_files(columns: ModelColumns, network: Network, files: Sequence[str]) -> Analyzer:
    """The analysis of some files of examples, in their order."""
    analyzer = Analyzer(columns, network)
    for file in files:
        for batch in _batches(file, columns):
            analyzer.add(batch)
    return analyzer.compact()


def _grouped(together: int, number: int, analyzer: Analyzer) -> tuple[int, tuple[int, Analyzer]]:
    return number // together, (number, analyzer)


def _merged(group: int, numbered: Iterable[tuple[int, Analyzer]]) -> tuple[int, Analyzer]:
    first, *others = (a for _, a in sorted(numbered, key=lambda pair: pair[0]))
    return group, first.merge(others)


def _batches(file: str, columns: ModelColumns) -> Iterator[dict[str, NDArray]]:
    """Reads the model's columns and the label from a gzipped TFRecord file of examples."""
    spec = {
        **{c: tf.io.FixedLenFeature([], tf.float32, float("nan")) for c in columns.numeric},
        **{c: tf.io.FixedLenFeature([], tf.string, "") for c in columns.categorical},
        columns.label: tf.io.FixedLenFeature([], tf.int64),
    }
    if (batches := example_columns.parsed([file], spec, BATCH)) is not None:
        yield from batches
        return
    for examples in tf.data.TFRecordDataset(file, "GZIP").batch(BATCH):
        parsed = tf.io.parse_example(examples, spec)
        yield {name: tensor.numpy() for name, tensor in parsed.items()}


def dense(schema: schema_pb2.Schema) -> schema_pb2.Schema:
    """The same schema with dense tensors [batch, 1], and NaN or "" for missing values.

    Otherwise every column with missing values is a sparse tensor, which takes several operations
    per column in every graph and much of the parsing time. Integers, which have no value that could
    mean missing, remain sparse; models do not read them.
    """
    missing = {
        schema_pb2.FLOAT: schema_pb2.TensorRepresentation.DefaultValue(float_value=float("nan")),
        schema_pb2.BYTES: schema_pb2.TensorRepresentation.DefaultValue(bytes_value=b""),
    }
    result = schema_pb2.Schema()
    result.CopyFrom(schema)
    tensors = result.tensor_representation_group[""].tensor_representation
    for feature in result.feature:
        if feature.HasField("shape"):
            tensors[feature.name].dense_tensor.column_name = feature.name
            tensors[feature.name].dense_tensor.shape.CopyFrom(feature.shape)
        elif feature.type in missing:
            tensors[feature.name].dense_tensor.column_name = feature.name
            tensors[feature.name].dense_tensor.shape.dim.add(size=1)
            tensors[feature.name].dense_tensor.default_value.CopyFrom(missing[feature.type])
        else:
            tensors[feature.name].varlen_sparse_tensor.column_name = feature.name
    return result

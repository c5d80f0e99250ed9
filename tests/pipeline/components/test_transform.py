"""Transform's executor: files of examples in, TFX's TransformGraph out."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import schema_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import standard_artifacts
from tfx.utils import io_utils

from fraud.codec import to_json
from fraud.models import example_columns
from fraud.models.columns import ModelColumns
from fraud.models.preprocessing import analysis
from fraud.models.preprocessing.analysis import Analyzer
from fraud.models.preprocessing.transform_fn import positions, vocabulary_sizes
from fraud.models.preprocessing.transform_graph import TransformGraph
from fraud.models.spec import Network
from fraud.pipeline.components.transform import (
    AnalyzeGroups,
    TransformExecutor,
    analyze_files,
    dense,
    groups_of,
)

COLUMNS = ModelColumns(("amount", "count"), ("channel",), "fraud", None, None)
NETWORK = Network(bins=8, vocabulary_size=2)
ROWS = 3000


@pytest.fixture(scope="module")
def columns() -> dict[str, np.ndarray]:
    random = np.random.default_rng(2)
    fraud = (random.random(ROWS) < 0.1).astype(np.int64)
    amount = np.exp(random.normal(3 + fraud, 1)).astype(np.float32)
    amount[::7] = np.nan
    channel = random.choice(np.array([b"chip", b"web", b"fax", b""], object), ROWS)
    count = random.poisson(2, ROWS).astype(np.float32)
    return {"amount": amount, "count": count, "channel": channel, "fraud": fraud}


def example(columns: dict[str, np.ndarray], row: int, label: bool) -> bytes:
    result = tf.train.Example()
    feature = result.features.feature
    for name in COLUMNS.numeric:
        if not np.isnan(columns[name][row]):
            feature[name].float_list.value.append(columns[name][row])
    if columns["channel"][row]:
        feature["channel"].bytes_list.value.append(columns["channel"][row])
    if label:
        feature["fraud"].int64_list.value.append(int(columns["fraud"][row]))
    return result.SerializeToString()


def write(folder: Path, columns: dict[str, np.ndarray], shards: int, label: bool = True) -> None:
    folder.mkdir(parents=True)
    for shard in range(shards):
        with tf.io.TFRecordWriter(str(folder / f"part-{shard}.gz"), "GZIP") as file:
            for row in range(shard, ROWS, shards):
                file.write(example(columns, row, label))


def transformed(at: Path, **types: int) -> tft.TFTransformOutput:
    """Runs the executor on the examples in a folder; `types` are the schema's where odd."""
    examples, schema = standard_artifacts.Examples(), standard_artifacts.Schema()
    graph = standard_artifacts.TransformGraph()
    examples.uri, examples.split_names = str(at / "examples"), '["train", "eval"]'
    schema.uri, graph.uri = str(at / "schema"), str(at / "graph")
    proto = schema_pb2.Schema()
    for name in (*COLUMNS.numeric, "channel", "fraud"):
        kinds = {"channel": schema_pb2.BYTES, "fraud": schema_pb2.INT, **types}
        proto.feature.add(name=name, type=kinds.get(name, schema_pb2.FLOAT))
    io_utils.write_pbtxt_file(str(at / "schema" / "schema.pbtxt"), proto)
    context = BaseBeamExecutor.Context(tmp_dir=f"{at}/tmp/", unique_id="1")
    TransformExecutor(context).Do(
        {"examples": [examples], "schema": [schema]},
        {"transform_graph": [graph]},
        {
            "splits_config": json.dumps({"analyze": ["train"]}),
            "custom_config": json.dumps({"columns": to_json(COLUMNS), "network": to_json(NETWORK)}),
        },
    )
    return tft.TFTransformOutput(graph.uri)


def test_the_graph_depends_on_the_train_split_alone_however_it_is_sharded(
    columns: dict[str, np.ndarray], tmp_path: Path
) -> None:
    write(tmp_path / "examples" / "Split-train", columns, shards=3)
    write(tmp_path / "examples" / "Split-eval", {**columns, "amount": 9 * columns["amount"]}, 1)
    transform = transformed(tmp_path)

    inputs = {c: tf.constant(columns[c].reshape(-1, 1)) for c in (*COLUMNS.numeric, "channel")}
    outputs = TransformGraph(transform)(inputs)
    learned = Analyzer(COLUMNS, NETWORK).add(columns).analysis()
    x = np.stack([columns[c] for c in COLUMNS.numeric], axis=1)
    np.testing.assert_allclose(outputs["numeric"], positions(x, learned.edges), atol=0.02)
    assert vocabulary_sizes(transform, COLUMNS, NETWORK) == {"channel": 1 + 2 + 4}

    raw = transform.raw_feature_spec()
    assert raw["amount"].shape == [1]
    assert np.isnan(raw["amount"].default_value)
    # TFT's own layer gives the same.
    layer = transform.transform_features_layer()(inputs)
    np.testing.assert_array_equal(layer["numeric"], outputs["numeric"])
    np.testing.assert_array_equal(layer["categorical"], outputs["categorical"])


def test_the_analysis_of_files_with_many_rows_is_compacted(
    columns: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "examples", columns, shards=1)
    files = [str(tmp_path / "examples" / "part-0.gz")]
    sizes = []
    for above in (ROWS, 10):
        monkeypatch.setattr(analysis, "_COMPACT_ABOVE", above)
        sizes.append(len(pickle.dumps(analyze_files(COLUMNS, NETWORK, files))))
    assert sizes[0] != sizes[1]


def test_columns_beside_the_examples_give_the_same_graph(
    columns: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "examples" / "Split-train"
    write(folder, columns, shards=1)
    of_examples = transformed(tmp_path)
    Path(example_columns.folder_of(str(folder))).mkdir(parents=True)
    with example_columns.Writer(example_columns.path_of(str(folder / "part-0.gz"))) as file:
        values = {name: pa.array(of, from_pandas=True) for name, of in columns.items()}
        words = [word or None for word in columns["channel"]]
        file.write({**values, "channel": pa.array(words, pa.large_binary())})
    for name in ("graph", "tmp"):
        shutil.rmtree(tmp_path / name)
    monkeypatch.setattr(tf.data, "TFRecordDataset", None)
    of_columns = transformed(tmp_path)
    inputs = {c: tf.constant(columns[c].reshape(-1, 1)) for c in (*COLUMNS.numeric, "channel")}
    for name, values in TransformGraph(of_examples)(inputs).items():
        np.testing.assert_array_equal(TransformGraph(of_columns)(inputs)[name], values)


def test_examples_without_a_label_are_refused_by_its_name(
    columns: dict[str, np.ndarray], tmp_path: Path
) -> None:
    write(tmp_path / "examples" / "Split-train", columns, shards=1, label=False)
    with pytest.raises(Exception, match="fraud"):
        transformed(tmp_path)


def test_missing_values_of_dense_columns_are_nan_and_empty() -> None:
    schema = schema_pb2.Schema()
    for name, kind in (("f", schema_pb2.FLOAT), ("b", schema_pb2.BYTES), ("i", schema_pb2.INT)):
        schema.feature.add(name=name, type=kind)
    pair = schema.feature.add(name="pair", type=schema_pb2.FLOAT)
    pair.presence.min_fraction = 1
    pair.shape.dim.add(size=2)
    spec = schema_utils.schema_as_feature_spec(dense(schema)).feature_spec
    assert spec["pair"] == tf.io.FixedLenFeature([2], tf.float32)
    assert spec["i"] == tf.io.VarLenFeature(tf.int64)
    parsed = tf.io.parse_example(
        [tf.train.Example().SerializeToString()], {n: spec[n] for n in "fb"}
    )
    assert np.isnan(parsed["f"].numpy()).tolist() == [[True]]
    assert parsed["b"].numpy().tolist() == [[b""]]


def test_a_column_that_the_schema_takes_for_text_is_read_as_the_number_it_is(
    columns: dict[str, np.ndarray], tmp_path: Path
) -> None:
    empty = {**columns, "count": np.full(ROWS, np.nan, np.float32)}
    write(tmp_path / "examples" / "Split-train", empty, shards=1)
    raw = transformed(tmp_path, count=schema_pb2.BYTES).raw_feature_spec()
    assert raw["count"].dtype == tf.float32


_analyses: list = []
"""Where a pipeline in this process leaves its results."""


def _keep(analysis: object) -> None:
    _analyses.append(analysis)


class Merged:
    """In place of an Analyzer: which files were merged, in which order, and with which."""

    def __init__(self, merged: Sequence[object]) -> None:
        self.merged = list(merged)

    def merge(self, others: Sequence[Merged]) -> Merged:
        return Merged([*self.merged, *(other.merged for other in others)])

    def analysis(self) -> list[object]:
        return self.merged


@pytest.mark.parametrize("groups", [1, 2, 5])
def test_groups_are_merged_in_their_order_whatever_the_runner_does(groups, monkeypatch) -> None:
    monkeypatch.setattr(AnalyzeGroups, "TOGETHER", 2)
    numbered = [(number, (f"group-{number}",)) for number in range(groups)]
    merged = {
        1: ["group-0"],
        2: ["group-0", ["group-1"]],
        5: ["group-0", ["group-1"], ["group-2", ["group-3"]], ["group-4"]],
    }[groups]
    results = []
    for arrival in (numbered, numbered[::-1], numbered[1::2] + numbered[::2]):
        with beam.Pipeline(runner=FnApiRunner()) as pipeline:
            analysed = pipeline | beam.Create(arrival) | AnalyzeGroups(Merged, groups)
            _ = analysed | beam.Map(_keep)
        results.append(_analyses.pop())
    assert results == [merged] * 3


def test_groups_are_as_many_as_files_in_each_and_have_every_file_once() -> None:
    files = [f"part-{number}" for number in range(23)]
    groups = groups_of(files)
    assert [number for number, _ in groups] == list(range(6))
    assert [len(of_group) for _, of_group in groups] == [4, 4, 4, 4, 4, 3]
    assert [file for _, of_group in groups for file in of_group] == files
    assert groups_of(["one"]) == [(0, ("one",))]


def test_one_worker_and_many_learn_the_same(columns, tmp_path: Path) -> None:
    """Exactly, although quantiles are estimates: these are more groups than are merged at once."""
    write(tmp_path / "files", columns, shards=40)
    files = sorted(map(str, (tmp_path / "files").iterdir()))
    groups = [(number, (file,)) for number, file in enumerate(files)]
    analyze = partial(analyze_files, COLUMNS, NETWORK)
    for arrival in (groups, groups[::-1]):
        with beam.Pipeline(runner=FnApiRunner()) as pipeline:
            analysed = pipeline | beam.Create(arrival) | AnalyzeGroups(analyze, len(groups))
            _ = analysed | beam.Map(_keep)
    one, another = _analyses.pop(), _analyses.pop()
    assert one.edges.tobytes() == another.edges.tobytes()
    assert one.words == another.words

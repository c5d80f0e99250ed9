"""Reading the train split: in memory, and streamed where it is large."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata
from tensorflow_transform.tf_metadata.metadata_io import write_metadata

from fraud.models import example_columns
from fraud.models.columns import ModelColumns
from fraud.models.examples import Examples, load_split
from fraud.models.preprocessing import in_memory
from fraud.models.spec import Network
from fraud.models.streamed import Streamed

ROWS = 9000  # more than two batches
TYPES = {"amount": tf.float32, "channel": tf.string}
OTHERS = ("fraud", "time", "card")
NETWORK = Network(bins=4)


def columns_of_data() -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    return {
        "amount": random.permutation(ROWS).astype(np.float32),
        "channel": random.choice(np.array([b"shop", b"web"], object), ROWS),
        "fraud": random.integers(0, 2, ROWS),
        "time": random.integers(0, 500, ROWS),
        "card": random.integers(0, 300, ROWS),
    }


@pytest.fixture(params=[("amount",), ()], ids=["with numbers", "categories alone"])
def columns(request) -> ModelColumns:
    return ModelColumns(request.param, ("channel",), *OTHERS)


@pytest.fixture
def load(tmp_path, columns) -> Callable[..., Examples]:
    data = columns_of_data()
    learned = in_memory.learn(data, columns, NETWORK, str(tmp_path / "transform"))
    used = {name: TYPES[name] for name in (*columns.numeric, *columns.categorical)}
    spec = {
        name: tf.io.FixedLenFeature([1], kind)
        for name, kind in {**used, **dict.fromkeys(OTHERS, tf.int64)}.items()
    }
    raw = tmp_path / "transform" / tft.TFTransformOutput.RAW_METADATA_DIR
    write_metadata(DatasetMetadata.from_feature_spec(spec), str(raw))
    files = [str(tmp_path / f"{name}.gz") for name in "ab"]
    for number, file in enumerate(files):
        with tf.io.TFRecordWriter(file, "GZIP") as writer:
            for row in range(number, ROWS, 2):
                example = tf.train.Example()
                for name in spec:
                    feature, value = example.features.feature[name], data[name][row]
                    if name == "amount":
                        feature.float_list.value.append(value)
                    elif name == "channel":
                        feature.bytes_list.value.append(value)
                    else:
                        feature.int64_list.value.append(value)
                writer.write(example.SerializeToString())

    def loaded(rows_in_memory=ROWS, order=(0, 1), of_columns=False) -> Examples:
        patterns = [files[i] for i in order]
        if of_columns:
            write_columns(files, data)
        transform = tft.TFTransformOutput(learned.transform.transform_savedmodel_dir + "/..")
        return load_split(patterns, transform, columns, rows_in_memory)

    return loaded


def write_columns(files: list[str], data: dict[str, np.ndarray]) -> None:
    for number, file in enumerate(files):
        path = Path(example_columns.path_of(file))
        path.parent.mkdir(parents=True, exist_ok=True)
        with example_columns.Writer(str(path)) as columns:
            values = {name: pa.array(of[number::2]) for name, of in data.items()}
            values["channel"] = values["channel"].cast(pa.large_binary())
            columns.write(values)


def rows_of(examples: Examples) -> list[tuple]:
    every = np.arange(examples.labels.size)
    inputs = [examples.inputs[name][every] for name in sorted(examples.inputs)]
    others = [examples.labels, examples.timestamps, examples.cards]
    return [tuple(row) for row in np.column_stack([*inputs, *others]).tolist()]


def test_in_memory_the_order_is_by_time_and_not_that_of_the_files(load, tmp_path):
    one = rows_of(load())
    (tmp_path / "a.gz").rename(tmp_path / "c.gz")
    (tmp_path / "b.gz").rename(tmp_path / "a.gz")
    (tmp_path / "c.gz").rename(tmp_path / "b.gz")
    assert len(one) == ROWS and one == rows_of(load())
    times = [row[-2] for row in one]
    assert times == sorted(times)


@pytest.mark.parametrize("rows_in_memory", [1, ROWS])
def test_columns_beside_the_examples_give_the_same(load, rows_in_memory, monkeypatch):
    of_examples = load(rows_in_memory)
    monkeypatch.setattr(tf.data, "TFRecordDataset", None)
    of_columns = load(rows_in_memory, of_columns=True)
    assert rows_of(of_columns) == rows_of(of_examples)
    assert of_columns.labels.dtype == of_examples.labels.dtype


@pytest.mark.parametrize("rows_in_memory", [1, 5000, ROWS - 1])
def test_more_rows_than_fit_in_memory_are_the_same_rows_in_a_file(load, rows_in_memory):
    streamed = load(rows_in_memory)
    assert all(isinstance(array, Streamed) for array in streamed.inputs.values())
    assert sorted(rows_of(streamed)) == sorted(rows_of(load()))
    assert rows_of(streamed) == rows_of(load(rows_in_memory, order=(1, 0)))

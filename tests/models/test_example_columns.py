"""Columns of examples are what the examples say, and are used only where they belong to them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from fraud.errors import FraudPipelineError
from fraud.models import example_columns
from fraud.pipeline.ingestion import example_writer

COLUMNS = {
    "amount": pa.array([1.5, None, float("nan"), -0.0, 3e38], pa.float32()),
    "count": pa.array([1, 2, 3, 4, 5]),
    "seen": pa.array([None, 2, None, 4, 2**40]),
    "channel": pa.array([b"web", b"", None, "é".encode(), b"web"], pa.large_binary()),
    "never": pa.nulls(5, pa.float32()),
}
SPEC = {
    "amount": tf.io.FixedLenFeature([1], tf.float32, float("nan")),
    "count": tf.io.FixedLenFeature([], tf.int64),
    "seen": tf.io.VarLenFeature(tf.int64),
    "channel": tf.io.FixedLenFeature([1], tf.string, ""),
    "never": tf.io.FixedLenFeature([], tf.float32, 7.0),
}


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Three and two examples, with their columns."""
    split = tmp_path / "examples" / "Split-train"
    split.mkdir(parents=True)
    path = str(split / "data.gz")
    with example_writer.open_file(path) as examples:
        example_writer.write(examples, COLUMNS)
    Path(example_columns.folder_of(str(split))).mkdir(parents=True)
    with example_columns.Writer(example_columns.path_of(path)) as columns:
        for start, rows in ((0, 3), (3, 2)):
            columns.write({name: values.slice(start, rows) for name, values in COLUMNS.items()})
    return path


def test_they_are_what_tensorflow_parses(file: str) -> None:
    records = list(tf.data.TFRecordDataset(file, "GZIP").as_numpy_iterator())
    theirs = tf.io.parse_example(records, SPEC)
    batches = list(example_columns.parsed([file, file], SPEC, 4) or ())
    assert [len(batch["count"]) for batch in batches] == [4, 1, 4, 1]
    for name in SPEC:
        ours = np.concatenate([batch[name] for batch in batches[:2]])
        expected = theirs[name]
        if isinstance(expected, tf.SparseTensor):
            expected = tf.reshape(tf.sparse.to_dense(expected), [-1])
        np.testing.assert_array_equal(ours, expected.numpy(), name)
        assert ours.dtype == expected.numpy().dtype


def test_a_required_value_that_is_missing_is_named(file: str) -> None:
    spec = {"amount": tf.io.FixedLenFeature([], tf.float32)}
    with pytest.raises(ValueError, match=r"data\.gz: 1 examples have no amount"):
        list(example_columns.parsed([file], spec, 4) or ())


@pytest.mark.parametrize(
    "spec",
    [
        {"count": tf.io.FixedLenFeature([], tf.float32)},
        {"another": tf.io.FixedLenFeature([], tf.float32, 0.0)},
    ],
)
def test_other_columns_or_types_are_read_from_the_examples(file: str, spec: dict) -> None:
    assert example_columns.parsed([file], spec, 4) is None


def test_examples_without_columns_have_none(file: str, tmp_path: Path) -> None:
    other = tmp_path / "examples" / "Split-train" / "other.gz"
    other.write_bytes(Path(file).read_bytes())
    assert example_columns.read(str(other)) is None
    assert example_columns.parsed([file, str(other)], SPEC, 4) is None
    assert example_columns.parsed([], SPEC, 4) is None


def test_columns_of_examples_that_were_replaced_are_not_read(file: str) -> None:
    assert example_columns.read(file) is not None
    with example_writer.open_file(file) as examples:
        example_writer.write(examples, {n: values.slice(1) for n, values in COLUMNS.items()})
    assert example_columns.read(file) is None


def test_columns_of_other_examples_of_the_same_size_are_not_read(file: str) -> None:
    """Text in a compressed file: other values often take as many bytes."""
    size = Path(file).stat().st_size
    for other in range(6, 500):
        with example_writer.open_file(file) as examples:
            example_writer.write(examples, {**COLUMNS, "count": pa.array([1, 2, 3, 4, other])})
        if Path(file).stat().st_size == size:
            break
    else:
        pytest.fail("no other examples of the same size")
    assert example_columns.read(file) is None


@pytest.mark.parametrize("at", range(0, 1000, 7))
def test_damage_is_noticed(file: str, at: int) -> None:
    path = Path(example_columns.path_of(file))
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 4
    path.write_bytes(content)
    with pytest.raises(FraudPipelineError, match=r"\.arrow: is damaged; delete it"):
        example_columns.read(file)


@pytest.mark.parametrize("left", [0, 3, 4, 100])
def test_a_truncated_file_is_noticed(file: str, left: int) -> None:
    path = Path(example_columns.path_of(file))
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(FraudPipelineError, match=r"\.arrow: is damaged; delete it"):
        list(example_columns.parsed([file], SPEC, 4) or ())


def test_a_later_file_without_a_column_does_not_give_another_one(file: str) -> None:
    other = str(Path(file).with_name("other.gz"))
    fewer = {name: values for name, values in COLUMNS.items() if name != "seen"}
    with example_writer.open_file(other) as examples:
        example_writer.write(examples, fewer)
    with example_columns.Writer(example_columns.path_of(other)) as columns:
        columns.write(fewer)
    with pytest.raises(FraudPipelineError, match=r"other\.gz: has other columns than .*data\.gz"):
        list(example_columns.parsed([file, other], SPEC, 4) or ())


def test_nothing_is_written_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "columns.arrow"
    with pytest.raises(ZeroDivisionError), example_columns.Writer(str(path)) as columns:
        columns.write(COLUMNS)
        _ = 1 / 0
    assert not path.exists()

import numpy as np
import pytest

from fraud.models import streamed
from fraud.models.streamed import Streamed, windows


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(streamed, "BLOCK", 8)
    monkeypatch.setattr(streamed, "BUFFER_BLOCKS", 3)


@pytest.fixture
def matrix() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 1000, (101, 3))


@pytest.fixture
def in_file(matrix) -> Streamed:
    stream = Streamed()
    for part in np.split(matrix, [1, 20, 20, 77]):
        stream.append(part)
    return stream


@pytest.mark.parametrize(
    "rows",
    [
        np.arange(101),
        np.array([100, 0, 8, 7, 100, 63, 64]),
        np.array([], np.int64),
        np.arange(101) % 3 == 0,
        np.zeros(101, bool),
    ],
)
def test_rows_are_those_of_the_matrix(matrix, in_file, rows):
    assert in_file.shape == matrix.shape and in_file.dtype == matrix.dtype
    np.testing.assert_array_equal(in_file[rows], matrix[rows])


def test_nothing_is_left_in_the_folder_for_temporary_files(tmp_path, monkeypatch, matrix):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stream = Streamed()
    stream.append(matrix)
    assert not list(tmp_path.iterdir())


def test_windows_have_every_row_once_and_come_from_all_over_the_file():
    rows = np.flatnonzero(np.arange(1000) % 5)
    parts = list(windows(rows, 1000, np.random.default_rng(2)))
    assert sorted(np.concatenate(parts)) == rows.tolist()
    assert max(part.size for part in parts) <= 3 * 8
    assert np.mean([np.ptp(part) for part in parts]) > 300
    again = list(windows(rows, 1000, np.random.default_rng(3)))
    assert any(one.tolist() != other.tolist() for one, other in zip(parts, again, strict=True))

import numpy as np
import pytest

from fraud.models.columns import ModelColumns
from fraud.models.preprocessing import in_memory
from fraud.models.spec import Network

COLUMNS = ModelColumns(("amount", "risk"), ("channel",), "fraud", "time", "card")
SPEC = Network(bins=4, towers=((8,),), vocabulary_size=2, oov_buckets=1)


def transactions(rows=20_000, seed=0):
    random = np.random.default_rng(seed)
    amount = random.uniform(0, 100, rows).astype(np.float32)
    amount[::10] = np.nan
    channels = np.array([b"shop", b"web", b"phone", b""], object)
    return {
        "amount": amount,
        "risk": random.uniform(-1, 1, rows).astype(np.float32),
        "channel": channels[random.choice(4, rows, p=[0.5, 0.3, 0.1, 0.1])],
        "fraud": (random.random(rows) < 0.1).astype(np.int64),
    }


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    directory = tmp_path_factory.mktemp("transform")
    return in_memory.learn(transactions(), COLUMNS, SPEC, str(directory))


def test_numbers_become_positions_among_the_bins(learned):
    columns = {
        "amount": np.array([-5, 50, 1000, np.nan], np.float32),
        "risk": np.array([-2, 0, 2, np.nan], np.float32),
        "channel": np.array([b"", b"", b"", b""], object),
    }
    positions = learned(columns)["numeric"]
    assert positions.dtype == np.float32
    # The values are uniform, so the median is in the middle, whatever values are missing.
    np.testing.assert_allclose(positions, [[0, 0], [2, 2], [4, 4], [-1, -1]], atol=0.1)


def test_categories_become_indices(learned):
    channels = [b"", b"shop", b"web", b"phone", b"pigeon"]
    columns = {**transactions(5), "channel": np.array(channels, object)}
    assert learned(columns)["categorical"].reshape(-1).tolist() == [0, 1, 2, 3, 3]
    assert learned.vocabularies == {"channel": 4}


def test_rows_keep_their_order(learned):
    columns = transactions(3 * in_memory.BATCH + 7, seed=1)
    numeric = learned(columns)["numeric"]
    some = slice(in_memory.BATCH - 3, in_memory.BATCH + 3)
    part = learned({name: values[some] for name, values in columns.items()})
    np.testing.assert_array_equal(numeric[some], part["numeric"])


def test_all_columns_may_be_categories(tmp_path):
    columns = ModelColumns((), ("channel",), "fraud", None, None)
    learned = in_memory.learn(transactions(), columns, SPEC, str(tmp_path))
    applied = learned({"channel": np.array([b"", b"shop", b"web"], object)})
    assert {name: values.tolist() for name, values in applied.items()} == {
        "categorical": [[0], [1], [2]]
    }

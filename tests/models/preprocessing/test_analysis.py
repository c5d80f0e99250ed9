"""The analysis of the train window, compared with numpy on all rows."""

import pickle

import numpy as np
import pytest

from fraud.models.columns import ModelColumns
from fraud.models.preprocessing.analysis import Analyzer, read_edges, vocabulary_path
from fraud.models.preprocessing.edges import bin_edges
from fraud.models.spec import Network

COLUMNS = ModelColumns(("amount", "count", "never"), ("channel", "a/b ü"), "fraud", None, None)
CHANNELS = np.array([b"a", b"bb", b"", b"c\nd", b"e"], object)
NETWORK = Network(bins=8, vocabulary_size=3)


def rows(count=30_000, seed=3):
    random = np.random.default_rng(seed)
    fraud = (random.random(count) < 0.05).astype(np.int64)
    amount = np.exp(random.normal(3 + fraud, 1)).astype(np.float32)
    amount[::9] = np.nan
    return {
        "amount": amount,
        "count": random.poisson(1.5, count).astype(np.float32),
        "never": np.full(count, np.nan, np.float32),
        "channel": random.choice(
            np.array([b"a", b"bb", b"", b"c\nd", b"e"], object),
            count,
            p=[0.1, 0.5, 0.2, 0.15, 0.05],
        ),
        "a/b ü": np.full(count, "ä".encode(), object),
        "fraud": fraud,
    }


def in_parts(data, size):
    count = data["fraud"].size
    return [{c: v[i : i + size] for c, v in data.items()} for i in range(0, count, size)]


def learned(data, size=8192):
    analyzer = Analyzer(COLUMNS, NETWORK)
    for part in in_parts(data, size):
        analyzer.add(part)
    return analyzer.analysis()


def rank(edges, values):
    """The rank of each edge among the values, from 0 to 1."""
    known = np.sort(values[~np.isnan(values)])
    return np.searchsorted(known, edges) / known.size


def test_edges_are_those_of_the_exact_quantiles():
    data = rows()
    known = ~np.isnan(data["amount"])
    quantiles, counts = [], []
    for label in (0, 1):
        of_label = data["amount"][known & (data["fraud"] == label)]
        shares = np.linspace(0, 1, 1001)
        quantiles.append(np.quantile(of_label, shares, method="lower")[np.newaxis])
        counts.append(np.array([of_label.size]))
    [expected] = bin_edges(quantiles[0], counts[0], quantiles[1], counts[1], NETWORK.bins)
    [edges, *_] = learned(data).edges
    for label in (0, 1):
        of_label = data["amount"][data["fraud"] == label]
        # An edge at a jump may also be one of the quantiles, so their numbers may differ.
        apart = np.abs(np.subtract.outer(rank(edges, of_label), rank(expected, of_label)))
        assert apart.min(axis=0).max() < 0.02
        assert apart.min(axis=1).max() < 0.02


@pytest.mark.parametrize("sign", [1, -1])
def test_the_outermost_values_of_a_class_in_all_parts_are_exact(sign):
    """All frauds and nothing else are beyond 100, so the jump lies next to the last genuine one."""
    data = rows()
    amount = np.where(data["fraud"], 100 + data["amount"], data["amount"] % 100).astype(np.float32)
    data["amount"] = sign * amount
    ascending = {name: values[np.argsort(data["amount"])] for name, values in data.items()}
    first, *others = (Analyzer(COLUMNS, NETWORK).add(part) for part in in_parts(ascending, 9_000))
    [edges, *_] = first.merge(others).analysis().edges
    last_genuine = sign * np.nanmax(amount[data["fraud"] == 0])
    first_fraud = sign * np.nanmin(amount[data["fraud"] == 1])
    assert last_genuine in edges
    assert first_fraud in edges


def test_a_column_of_few_values_has_them_as_edges():
    data = rows()
    edges = learned(data).edges[1]
    assert set(edges) <= set(range(12))
    assert set(range(5)) <= set(edges)


def test_a_column_without_values_has_edges_of_zero():
    assert learned(rows()).edges[2].tolist() == [0] * 9


def test_words_are_the_most_frequent_ones_without_empty_ones_and_line_breaks():
    words = learned(rows()).words
    assert words == {"channel": (b"bb", b"a", b"e"), "a/b ü": ("ä".encode(),)}


def test_equally_frequent_words_are_in_alphabetical_order():
    data = rows(4)
    data["channel"] = np.array([b"d", b"b", b"c", b"a"], object)
    assert learned(data).words["channel"] == (b"a", b"b", b"c")


@pytest.mark.parametrize("parts", [2, 7])
def test_analyzers_of_parts_from_other_processes_merge_to_the_whole(parts):
    data = rows()
    analyzers = [
        pickle.loads(pickle.dumps(Analyzer(COLUMNS, NETWORK).add(part)))
        for part in in_parts(data, 30_000 // parts + 1)
    ]
    merged = analyzers[0].merge(analyzers[1:]).analysis()
    whole = learned(data)
    assert merged.words == whole.words
    np.testing.assert_array_equal(merged.edges[1:], whole.edges[1:])
    known = data["amount"]
    np.testing.assert_allclose(
        rank(merged.edges[0], known), rank(whole.edges[0], known), atol=0.005
    )


def test_a_compacted_analyzer_of_many_rows_is_smaller_and_as_accurate():
    data = rows(500_000)
    amounts = np.nan_to_num(data["amount"])
    plain, compacted = ([Analyzer(COLUMNS, NETWORK) for _ in range(2)] for _ in range(2))
    for number, part in enumerate(in_parts(data, 8192)):
        plain[number % 2].add(part)
        compacted[number % 2].add(part)
    sizes = [len(pickle.dumps(analyzer)) for analyzer in plain]
    for analyzer, size in zip(compacted, sizes, strict=True):
        assert len(pickle.dumps(analyzer.compact())) < 0.8 * size
    edges = [one.merge([other]).analysis().edges[0] for one, other in (plain, compacted)]
    np.testing.assert_allclose(rank(edges[1], amounts), rank(edges[0], amounts), atol=0.002)


def test_an_analyzer_of_few_rows_is_not_compacted():
    analyzer = Analyzer(COLUMNS, NETWORK).add(rows())
    size = len(pickle.dumps(analyzer))
    assert len(pickle.dumps(analyzer.compact())) == size


def test_an_analysis_survives_writing_and_reading(tmp_path):
    analysis = learned(rows(500))
    analysis.write(tmp_path / "analysis")
    np.testing.assert_array_equal(read_edges(tmp_path / "analysis"), analysis.edges)
    channel = vocabulary_path(tmp_path / "analysis", "channel").read_bytes()
    assert channel == b"bb\na\ne\n"
    assert vocabulary_path(tmp_path / "analysis", "a/b ü").read_text() == "ä\n"

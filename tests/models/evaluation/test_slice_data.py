"""What metrics get of a slice with too many examples for one worker."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest

from fraud.models.evaluation import metrics, slice_data
from fraud.models.evaluation.slice_data import ScoreHistogram, SliceData, SumSlice

MOST = 1000
OUTPUT = ("challenger", "score")


def part(rows: int, seed: int, cards: Any = 5000, as_bytes: bool = False) -> SliceData:
    """Examples of some of so many cards, scored by chance and a little by label."""
    random = np.random.default_rng(seed)
    card = random.integers(0, cards, rows)
    label = (card % 10 == 0).astype(np.int64)
    score = np.clip(random.random(rows) * 0.6 + 0.3 * label, 0, 1).astype(np.float32)
    columns = {
        "FRAUD": label,
        "CARD": np.array([b"card %d" % c for c in card], object) if as_bytes else card,
        "SPENT": random.gamma(2, 30, rows).astype(np.float32),
        OUTPUT: score,
    }
    return SliceData({OUTPUT: ScoreHistogram.of(label, score)}, columns)


def summed(bundles: list[list[SliceData]], card: str | None = "CARD") -> SliceData:
    """As Beam does it: a bundle has an accumulator, which is sent, merged, and sent again."""
    combine = SumSlice(card, MOST)
    accumulators = []
    for bundle in bundles:
        accumulator = combine.create_accumulator()
        for of_bundle in bundle:
            accumulator = combine.add_input(accumulator, of_bundle)
            assert accumulator.rows == sum(one.rows for one in accumulator.parts) <= MOST
        accumulators.append(pickle.loads(pickle.dumps(accumulator)))
    merged = combine.merge_accumulators(accumulators)
    return combine.extract_output(pickle.loads(pickle.dumps(merged)))


@pytest.mark.parametrize("card", ["CARD", None])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_the_sample_does_not_depend_on_who_sees_what(card: str | None, as_bytes: bool) -> None:
    parts = [part(rows, rows, as_bytes=as_bytes) for rows in range(100, 1300, 60)]
    whole = sum(one.rows for one in parts)
    order = np.random.default_rng(0)
    found = []
    for bundles in (1, 2, 5, len(parts)):
        shuffled = [parts[i] for i in order.permutation(len(parts))]
        cut = [list(bundle) for bundle in np.array_split(np.arange(len(parts)), bundles)]
        found.append(summed([[shuffled[i] for i in bundle] for bundle in cut], card))
    one, *others = found
    assert one.level > 2
    assert MOST / 4 < one.rows <= MOST
    assert one.sample.examples == whole
    for other in others:
        assert other.level == one.level
        for name, values in one.columns.items():
            np.testing.assert_array_equal(values, other.columns[name])


def test_the_level_is_the_lowest_at_which_the_rows_fit() -> None:
    parts = [part(500, seed) for seed in range(9)]
    found = summed([parts])
    below = [one.at_level(found.level - 1, "CARD").rows for one in parts]
    assert sum(below) > MOST >= found.rows


def test_cards_are_in_the_sample_as_a_whole() -> None:
    parts = [part(900, seed, as_bytes=True) for seed in range(8)]
    found = summed([parts])
    cards, rows = np.unique(found.columns["CARD"], return_counts=True)
    all_cards = np.concatenate([one.columns["CARD"] for one in parts])
    every, of_each = np.unique(all_cards, return_counts=True)
    expected = dict(zip(every, of_each, strict=True))
    assert {c: expected[c] for c in cards} == dict(zip(cards, rows, strict=True))
    assert len(cards) / len(every) == pytest.approx(found.sample.share, rel=0.25)


def test_as_many_rows_as_fit_are_all_there() -> None:
    found = summed([[part(600, 1)], [part(400, 2)]])
    assert (found.level, found.rows, found.sample) == (0, 1000, slice_data.Sample(1.0, 1000))


def test_histograms_have_all_examples() -> None:
    parts = [part(900, seed) for seed in range(8)]
    found = summed([parts[:5], parts[5:]]).histograms[OUTPUT]
    expected = ScoreHistogram.sum(one.histograms[OUTPUT] for one in parts)
    np.testing.assert_array_equal(found.cell, expected.cell)
    np.testing.assert_array_equal(found.examples, expected.examples)
    assert found.scores == pytest.approx(expected.scores, rel=1e-12)


def test_a_sample_is_as_good_as_it_is_large() -> None:
    parts = [part(20_000, seed, cards=40_000) for seed in range(10)]
    combine = SumSlice("CARD", 60_000)
    accumulator = combine.create_accumulator()
    for one in parts:
        accumulator = combine.add_input(accumulator, one)
    found = combine.extract_output(accumulator)
    assert found.sample.share == 0.25

    def measured(columns: Any) -> tuple[float, float, float]:
        label, score = columns["FRAUD"], columns[OUTPUT]
        caught = columns["SPENT"][(score > 0.5) & (label == 1)].sum()
        return metrics.average_precision(label, score), metrics.roc_auc(label, score), caught

    whole = {k: np.concatenate([one.columns[k] for one in parts]) for k in parts[0].columns}
    exact, sampled = measured(whole), measured(found.columns)
    assert sampled[:2] == pytest.approx(exact[:2], abs=0.01)
    assert sampled[2] / found.sample.share == pytest.approx(exact[2], rel=0.05)


@pytest.mark.parametrize("cards", [1, 2, 3, 4, 5])
def test_a_sample_is_never_empty(cards: int) -> None:
    """Even if no level has fewer rows than fit, because each card has more."""
    combine = SumSlice("CARD", MOST)
    accumulator = combine.create_accumulator()
    for seed in range(8):
        accumulator = combine.add_input(accumulator, part(1600, seed, cards=cards))
    found = combine.extract_output(accumulator)
    assert found.sample.examples == 12_800
    assert found.rows
    assert found.rows <= MOST or not found.at_level(found.level + 1, "CARD").rows


def test_rows_without_cards_are_drawn_one_by_one() -> None:
    """Also where most are equal: no fraud is crowded out by them."""
    random = np.random.default_rng(1)
    combine = SumSlice(None, MOST)
    accumulator = combine.create_accumulator()
    frauds = 0
    for _ in range(40):
        label = (random.random(500) < 0.05).astype(np.int64)
        score = np.where(label, random.random(500), 0).astype(np.float32)
        frauds += label.sum()
        columns = {"FRAUD": label, OUTPUT: score}
        histograms = {OUTPUT: ScoreHistogram.of(label, score)}
        accumulator = combine.add_input(accumulator, SliceData(histograms, columns))
    found = combine.extract_output(accumulator)
    assert found.rows / found.sample.examples == pytest.approx(found.sample.share, rel=0.2)
    assert found.columns["FRAUD"].sum() == pytest.approx(frauds * found.sample.share, rel=0.5)


def test_a_card_that_fits_at_no_level_is_tried_now_and_then_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []
    at_level = SliceData.at_level
    monkeypatch.setattr(
        SliceData, "at_level", lambda *given: (tried.append(given[1]), at_level(*given))[1]
    )
    combine = SumSlice("CARD", MOST)
    accumulator = combine.create_accumulator()
    for seed in range(200):
        accumulator = combine.add_input(accumulator, part(100, seed, cards=1))
    assert combine.extract_output(accumulator).rows == 20_000
    assert len(tried) < 200 * 20


def test_a_card_that_fits_at_no_level_does_not_keep_others_from_being_drawn() -> None:
    """Whether it came first or last."""
    parts = [part(1600, 1, cards=1), *(part(100, seed) for seed in range(10))]
    combine = SumSlice("CARD", MOST)
    found = []
    for ordered in (parts, parts[::-1]):
        accumulator = combine.create_accumulator()
        for one in ordered:
            accumulator = combine.add_input(accumulator, one)
        found.append(combine.extract_output(accumulator))
    one, other = found
    assert (one.level, one.rows) == (other.level, other.rows)
    assert one.level > 0


@pytest.mark.parametrize("card", ["CARD", None])
def test_rows_have_an_order_of_their_own_also_of_thousands_of_parts(
    monkeypatch: pytest.MonkeyPatch, card: str | None
) -> None:
    monkeypatch.setattr(slice_data, "_MOST_PARTS", 10)
    parts = [part(9, seed, as_bytes=True) for seed in range(60)]
    one, other = summed([parts], card), summed([parts[25:][::-1], parts[:25]], card)
    assert (one.level, one.rows) == (0, 540)
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, other.columns[name])


def test_thousands_of_parts_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slice_data, "_MOST_PARTS", 10)
    combine = SumSlice("CARD", MOST)
    accumulator = combine.create_accumulator()
    for seed in range(35):
        accumulator = combine.add_input(accumulator, part(5, seed))
        assert len(accumulator.parts) <= 10
    found = combine.extract_output(accumulator)
    assert found.rows == found.sample.examples == 175
    whole = sorted(itertools.chain(*(part(5, seed).columns["SPENT"] for seed in range(35))))
    assert sorted(found.columns["SPENT"]) == whole

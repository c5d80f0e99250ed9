"""Measures with known answers, and thresholds that hold what they promise."""

import math

import numpy as np
import pytest
from scipy import stats

from fraud.pipeline import drift
from fraud.pipeline.drift import (
    DISTRIBUTION,
    MISSING,
    NEW,
    ROWS,
    ROWS_OF_DAY,
    ROWS_PER_DAY,
    UNSEEN,
    ZERO,
    Cards,
    Categories,
    Numbers,
    Profile,
    compare,
    jensen_shannon,
)

MONDAY = 20514  # 2026-03-02


def numbers(values):
    """Values by day, as exact quantile histograms; NaN is a missing value."""
    missing, zeros, edges, counts = [], [], [], []
    for of_day in values:
        known = of_day[~np.isnan(of_day)]
        others = np.sort(known[known != 0])
        missing.append(len(of_day) - len(known))
        zeros.append(len(known) - len(others))
        buckets = min(20, len(others))
        edges.append(
            np.quantile(others, np.linspace(0, 1, buckets + 1), method="inverted_cdf")
            if buckets
            else []
        )
        counts.append(np.full(buckets, len(others) / max(buckets, 1)))
    return Numbers(np.array(missing, float), np.array(zeros, float), edges, counts)


def categories(values):
    """Labels by day; None is a missing value."""
    known = [np.array([x for x in of_day if x is not None], dtype=str) for of_day in values]
    missing = [len(of_day) - len(labels) for of_day, labels in zip(values, known, strict=True)]
    labels, code = np.unique(np.concatenate(known), return_inverse=True)
    day = np.repeat(np.arange(len(values)), [len(of_day) for of_day in known])
    counts = np.bincount(code * len(values) + day, minlength=len(labels) * len(values))
    by_label = counts.reshape(-1, len(values)).astype(float)
    return Categories(np.array(missing, float), dict(zip(labels.tolist(), by_label, strict=True)))


def profile(column, rows, first=MONDAY, cards=None):
    days = np.arange(first, first + len(rows))
    return Profile(days, np.asarray(rows, float), cards, {"x": column})


def amounts(rng, days, rows=200, first=MONDAY, change=lambda values, day: values):
    values = [change(rng.gamma(2, 30, rows), day) for day in range(first, first + days)]
    return profile(numbers(values), [rows] * days, first)


def channels(rng, days, rows=200, p=(0.5, 0.3, 0.2), labels="abc"):
    values = [rng.choice(list(labels), rows, p=p) for _ in range(days)]
    return profile(categories(values), [rows] * days)


def drifted(current, baseline, **configured):
    found = compare(current, baseline, configured)
    return {(m.column, m.measure) for m in found if m.drifted}


def measured(current, baseline, measure, **configured):
    found = compare(current, baseline, configured)
    (one,) = [m for m in found if m.measure == measure]
    return one


@pytest.fixture
def rng():
    return np.random.default_rng(4)


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        ([0.2, 0.8], [0.2, 0.8], 0),
        ([1, 0], [0, 1], 1),
        # M = (3/4, 1/4): (log2 4/3 + log2(2/3)/2 + 1/2) / 2
        ([1, 0], [0.5, 0.5], (math.log2(4 / 3) + math.log2(2 / 3) / 2 + 0.5) / 2),
    ],
)
def test_jensen_shannon(p, q, expected):
    assert jensen_shannon(np.array(p), np.array(q)) == pytest.approx(expected)


def test_a_sum_of_estimated_squares_exceeds_its_mean_as_f_does():
    found = drift._plausible(np.diag(np.full(4, 0.7)), 21)
    assert found == pytest.approx(stats.f.ppf(1 - 1e-5, 4, 84))


def test_one_dominant_cell_counts_as_one_degree_of_freedom():
    uneven = drift._plausible(np.diag([1, 1e-6, 1e-6]), 21)
    assert uneven == pytest.approx(stats.f.ppf(1 - 1e-5, 1, 21), rel=1e-3)


def test_cells_that_change_together_count_as_one_degree_of_freedom():
    opposite = drift._plausible(np.array([[1.0, -1], [-1, 1]]), 21)
    assert opposite == pytest.approx(stats.f.ppf(1 - 1e-5, 1, 21))


def test_the_effect_of_the_weekday_is_no_variance():
    days = np.arange(MONDAY, MONDAY + 28)
    variance, freedom = drift._covariance((days % 7)[:, None] * 1.0, days)
    assert variance == pytest.approx([0])
    assert freedom == 21


def test_the_variance_of_independent_days(rng):
    days = np.arange(MONDAY, MONDAY + 7000)
    found, _ = drift._covariance(rng.normal(0, 3, (7000, 1)), days)
    assert found == pytest.approx([9], rel=0.1)


def test_weeks_that_vary_more_than_their_days_count():
    days = np.arange(MONDAY, MONDAY + 28)
    weekly = np.repeat([1.0, -1, 1, -1], 7)[:, None]
    assert drift._covariance(weekly, days)[0] == pytest.approx([7 * 4 / 3])


def test_a_column_with_a_day_without_values_is_judged_by_the_others():
    days = np.arange(MONDAY, MONDAY + 8)
    daily = np.array([1, 3, 1, 3, 1, 3, 2, np.nan])[:, None]
    variance, freedom = drift._covariance(daily, days)
    assert variance == pytest.approx([6 / 6])
    assert freedom == 6


def test_the_weekday_has_an_effect_if_there_are_two_weeks_to_measure_it():
    for length, freedom in ((7, 6), (13, 12), (14, 7), (21, 14)):
        days = np.arange(MONDAY, MONDAY + length)
        assert drift._covariance((days % 7)[:, None] * 1.0, days)[1] == freedom


def test_fewer_than_a_week_have_no_variance():
    assert drift._covariance(np.ones((6, 1)), np.arange(6)) is None


def test_a_window_of_half_the_rows_may_vary_as_one_of_half_the_days(rng):
    baseline = amounts(rng, 30)
    for rows, days in ((100, 2), (400, 4)):
        windows = drift._Windows.of(amounts(rng, 4, rows=rows), baseline)
        assert windows.per_days == pytest.approx(1 / days + 1 / 16)  # four weekdays of four weeks
    assert drift._Windows.of(amounts(rng, 9), baseline).per_days == pytest.approx(1 / 7 + 1 / 28)


def test_quantiles_are_values_of_the_data():
    column = numbers([np.array([0, 0, 5.0, 5, 5, 9]), np.array([5, 5, 9.0, 9])])
    assert drift.quantiles(column, np.array([0.1, 0.5, 0.9])).tolist() == [5, 5, 9]


def test_cells_are_counted_without_zeros_and_with_whole_atoms():
    column = numbers([np.array([0, 1.0, 1, 1, 2, 2, 3])])
    assert drift._cells(column, np.array([1.0, 2.0])).round(6).tolist() == [[3, 2, 1]]


def test_cards_that_the_other_window_lacks():
    cards = Cards(np.array([1, 2, 3], np.uint64), np.array([1.0, 2, 3]), 1.0)
    other = Cards(np.array([1], np.uint64), np.array([9.0]), 1.0)
    assert cards.without(other) == pytest.approx((4 + 9) / 36)
    assert cards.without(cards) == 0
    assert cards.effective == pytest.approx(36 / 14)


def test_new_cards_may_bring_their_own_categories_where_others_did(rng):
    """Each card has a shop of its own; a tenth of 100 cards is replaced."""

    def of_cards(cards, days, first, shops=lambda card: f"s{card}"):
        column = categories([[shops(card) for card in cards] * 2] * days)
        sample = Cards(np.array(sorted(cards), np.uint64), np.full(len(cards), 2.0 * days), 1.0)
        return profile(column, [2 * len(cards)] * days, first, sample)

    # Every week, one card is there that no other week has.
    weeks = [of_cards([*range(99), 200 + week], 7, MONDAY + 7 * week) for week in range(4)]
    labels = sorted({label for week in weeks for label in week.columns["x"].counts})
    counts = {
        label: np.concatenate([w.columns["x"].counts.get(label, np.zeros(7)) for w in weeks])
        for label in labels
    }
    sample = Cards(np.arange(99).astype(np.uint64), np.full(99, 56.0), 1.0)
    before = profile(Categories(np.zeros(28), counts), [200] * 28, cards=sample)
    now = of_cards([*range(89), *range(300, 311)], 7, MONDAY + 28)
    found = measured(now, before, UNSEEN)
    assert found.value == pytest.approx(0.11)
    assert not found.drifted
    unknown = [Profile(p.days, p.rows, None, p.columns) for p in (now, before)]
    assert measured(*unknown, UNSEEN).drifted
    assert now.cards.share_without(before.cards) == pytest.approx(0.11)


def test_samples_of_cards_are_compared_where_both_are_complete():
    half, quarter = 2**63, 2**62
    hashes = np.array([quarter - 2048, quarter + 2048], np.uint64)
    cards = Cards(hashes, np.array([1.0, 2]), half / 2**64)
    other = Cards(np.array([2], np.uint64), np.array([9.0]), quarter / 2**64)
    assert cards.without(other) == pytest.approx(0.25 * 1 / 1)
    beyond = Cards(hashes[1:], np.array([2.0]), half / 2**64)
    assert beyond.without(other) == 0


@pytest.mark.parametrize("factor", [1.2, 2, 3])
def test_multiplied_amounts_have_drifted(rng, factor):
    current = amounts(rng, 7, change=lambda values, _: values * factor)
    baseline = amounts(rng, 30)
    assert drifted(current, baseline) == {("x", DISTRIBUTION)}
    found = measured(current, baseline, DISTRIBUTION)
    assert found.change.startswith("median ")


@pytest.mark.parametrize(("new", "measure"), [(0.0, ZERO), (np.nan, MISSING)])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_zeros_and_missing_values_have_drifted(rng, new, measure, share):
    def change(values, _):
        values[: int(share * len(values))] = new
        return values

    found = measured(amounts(rng, 7, 1000, change=change), amounts(rng, 30, 1000), measure)
    assert found.value == pytest.approx(share)
    assert found.drifted


def test_rewritten_categories_have_drifted(rng):
    current, baseline = channels(rng, 7, p=(0.3, 0.18, 0.52)), channels(rng, 30)
    assert drifted(current, baseline) == {("x", DISTRIBUTION)}
    assert measured(current, baseline, DISTRIBUTION).change.startswith("'c' ")


def test_the_divergence_of_categories_is_that_of_their_shares():
    before = profile(categories([list("aabb")] * 30), [4] * 30)
    now = profile(categories([list("aaaa")] * 7), [4] * 7)
    expected = jensen_shannon(np.array([1, 0.0]), np.array([0.5, 0.5]))
    assert measured(now, before, DISTRIBUTION).value == pytest.approx(expected)


def test_a_new_category_has_drifted(rng):
    current = channels(rng, 7, 1000, p=(0.5, 0.3, 0.19, 0.01), labels="abcn")
    found = measured(current, channels(rng, 30, 1000), UNSEEN)
    assert found.drifted
    assert found.value == pytest.approx(0.01, abs=0.003)
    assert "'n'" in found.change


def test_categories_that_are_new_every_week_are_nothing_new(rng):
    def merchants(first, days):
        chosen = [
            [
                f"{'new' + str(day // 7) if rng.random() < 0.1 else rng.integers(3)}"
                for _ in range(99)
            ]
            for day in range(first, first + days)
        ]
        return profile(categories(chosen), [99] * days, first)

    baseline = merchants(MONDAY, 28)
    assert measured(merchants(MONDAY + 28, 7), baseline, UNSEEN).value > 0.05
    assert not measured(merchants(MONDAY + 28, 7), baseline, UNSEEN).drifted


@pytest.mark.parametrize(("factor", "is_drift"), [(0.5, True), (2, True), (0.9, False)])
def test_the_number_of_rows(rng, factor, is_drift):
    found = compare(amounts(rng, 7, int(200 * factor)), amounts(rng, 30), {})
    assert {m.measure for m in found if m.drifted and m.column == ROWS} == (
        {ROWS_PER_DAY, ROWS_OF_DAY} if is_drift else set()
    )


@pytest.mark.parametrize("day", [0, 1, 6])
def test_one_half_written_day_is_named(rng, day):
    current = amounts(rng, 7)
    current.rows[day] = 90
    found = measured(current, amounts(rng, 30), ROWS_OF_DAY)
    assert found.value == pytest.approx(0.55)
    assert found.drifted
    assert found.change == f"2026-03-0{2 + day}: 90 instead of 200"


def test_weekends_are_compared_with_weekends():
    rows = np.where(np.arange(30) % 7 >= 5, 20, 200)
    before = profile(categories([["a"] * n for n in rows]), rows)
    for length in (7, 5, 2):
        for start in range(7):
            rows_now = np.where(np.arange(start, start + length) % 7 >= 5, 20, 200)
            now = profile(categories([["a"] * n for n in rows_now]), rows_now, MONDAY + start)
            assert drifted(now, before) == set()


def test_a_weekday_that_was_seen_once_is_compared_with_the_mean():
    rows = np.array([200, 100, 200, 200, 200, 200, 200, 200])
    before, now = (
        profile(categories([["a"] * n for n in of_days]), of_days, first)
        for of_days, first in ((rows, MONDAY), ([100, 200], MONDAY + 8))
    )
    assert measured(now, before, ROWS_OF_DAY).change == "2026-03-10: 100 instead of 150"


@pytest.mark.parametrize("start", range(7))
def test_amounts_that_differ_at_weekends_have_not_drifted(rng, start):
    def weekend(values, day):
        return values * 1.5 if (day - MONDAY) % 7 >= 5 else values

    baseline = amounts(rng, 30, change=weekend)
    for days in (3, 10):
        assert drifted(amounts(rng, days, 200, MONDAY + 35 + start, weekend), baseline) == set()


@pytest.mark.parametrize("rows", [3, 20, 200])
def test_chance_is_no_drift_and_the_thresholds_are_close_to_it(rng, monkeypatch, rows):
    monkeypatch.setattr(drift, "LEAST", dict.fromkeys(drift.LEAST, 0.0))
    shares = []
    for _ in range(40):
        now, before = amounts(rng, 7, rows), amounts(rng, 28, rows)
        found = measured(now, before, DISTRIBUTION)
        shares.append(found.value / found.threshold)
        now, before = channels(rng, 7, rows), channels(rng, 28, rows)
        found = measured(now, before, DISTRIBUTION)
        shares.append(found.value / found.threshold)
    assert max(shares) < 1
    assert np.mean(shares) > 0.05


def test_a_feature_that_is_mostly_zero_does_not_drift_by_chance(rng):
    def rarely(days, first):
        risk = [np.where(rng.random(300) < 0.02, rng.random(300), 0) for _ in range(days)]
        return profile(numbers(risk), [300] * days, first)

    for _ in range(30):
        assert drifted(rarely(7, MONDAY + 28), rarely(28, MONDAY)) == set()


def test_rows_of_other_cards_may_differ(rng):
    """Each card always uses the same channel; a third of few cards is replaced."""

    def of_cards(cards, days, first):
        own = {card: "abc"[card % 3] for card in cards}
        column = categories([[own[c] for c in cards] * 5] * days)
        hashes = np.array(sorted(cards), np.uint64)
        sample = Cards(hashes, np.full(len(cards), 5.0 * days), 1.0)
        return profile(column, [5 * len(cards)] * days, first, sample)

    before = of_cards(range(30), 28, MONDAY)
    now = of_cards([*range(20), *range(30, 60, 3)], 7, MONDAY + 28)
    assert not measured(now, before, DISTRIBUTION).drifted
    unknown = [Profile(p.days, p.rows, None, p.columns) for p in (now, before)]
    assert measured(*unknown, DISTRIBUTION).drifted


def test_a_slow_drift_accumulates_against_a_fixed_reference(rng):
    def weekly(values, day):
        return values * 1.02 ** ((day - MONDAY) // 7)

    reference = amounts(rng, 28, 2000, change=weekly)
    a_week_ago = amounts(rng, 28, 2000, MONDAY + 63, weekly)
    now = amounts(rng, 28, 2000, MONDAY + 70, weekly)
    assert drifted(now, a_week_ago) == set()
    assert drifted(now, reference) == {("x", DISTRIBUTION)}


def test_data_without_days_has_conventional_thresholds():
    def many(column):
        return profile(column, [1e7], first=0)

    values = many(numbers([np.arange(5000.0)]))
    found = {m.measure: m.threshold for m in compare(values, values, {})}
    assert found == {DISTRIBUTION: 0.02, ZERO: 0.05, MISSING: 0.05}
    labels = many(categories([["a", "b"] * 3]))
    found = {m.measure: m.threshold for m in compare(labels, labels, {})}
    assert found == {DISTRIBUTION: 0.02, MISSING: 0.05, UNSEEN: 0.05, NEW: 0.05}


def test_data_without_days_may_have_as_many_unseen_categories_as_it_had_single_ones():
    labels = profile(categories([[*"aaabbb", "c", "d"]]), [8], first=0)
    never = measured(labels, labels, NEW).threshold
    assert measured(labels, labels, UNSEEN).threshold == pytest.approx(min(1, never + 2 / 8))


def test_by_a_week_everything_is_judged(rng):
    found = compare(amounts(rng, 7, change=lambda v, _: v * 3), amounts(rng, 7), {})
    assert {m.unjudged for m in found} == {""}


@pytest.mark.parametrize("days", [1, 6])
def test_by_less_than_a_week_nothing_is_judged_and_every_column_says_so(rng, days):
    baseline = amounts(rng, days)
    found = compare(amounts(rng, 7, 50, change=lambda v, _: v * 3), baseline, {})
    assert [(m.column, m.drifted) for m in found] == [(ROWS, False), ("x", False)]
    assert {m.unjudged for m in found} == {
        f"the baseline has {days} of the 7 days from which variation is measured"
    }
    assert drifted(amounts(rng, 7, change=lambda v, _: v * 3), baseline, x=0.1) != set()


def test_a_column_with_values_on_fewer_days_than_a_week_is_not_judged(rng):
    def rarely(values, day):
        return values if day < MONDAY + 6 else np.full(len(values), np.nan)

    found = measured(amounts(rng, 7), amounts(rng, 28, change=rarely), DISTRIBUTION)
    assert "fewer than the 7 days" in found.unjudged
    assert not found.drifted


def test_days_without_values_are_not_judged(rng):
    def on_mondays(values, day):
        return np.full(len(values), np.nan) if day % 7 == MONDAY % 7 else values

    found = measured(amounts(rng, 1), amounts(rng, 28, change=on_mondays), DISTRIBUTION)
    assert found.unjudged == "the baseline has no value on the days that are compared"
    empty = measured(amounts(rng, 1, change=on_mondays), amounts(rng, 28), DISTRIBUTION)
    assert empty.unjudged == "the window has no value on the days that are compared"


def test_a_column_that_changes_its_type_is_not_judged_and_says_so(rng):
    for now, before, change in (
        (channels(rng, 7), amounts(rng, 28), "numbers became categories"),
        (amounts(rng, 7), channels(rng, 28), "categories became numbers"),
    ):
        assert [m.unjudged for m in compare(now, before, {}) if m.column == "x"] == [change]


SHORT = [(1, 7), (1, 14), (1, 30), (2, 10), (3, 14), (6, 20), (6, 30), (7, 7), (7, 20)]


def bank(rng, days, first, change=lambda *_: None, rows=400):
    """Amounts and two columns of many rare categories, of a bank with other weekends."""
    columns = {"amount": [], "shop": [], "rare": [], "channel": []}
    counts = []
    for day in range(first, first + days):
        weekend = (day - MONDAY) % 7 >= 5
        size = rng.poisson(rows * (0.6 if weekend else 1))
        of_day = {
            "amount": rng.gamma(2, 40 if weekend else 30, size),
            "shop": np.char.add("s", (1000 * rng.random(size) ** 4).astype(int).astype(str)),
            "rare": np.char.add("r", rng.integers(0, 3000, size).astype(str)).astype("U9"),
            "channel": rng.choice(["a", "b", "c"], size, p=[0.5, 0.3, 0.2]).astype("U9"),
        }
        kept = change(of_day, rng)
        if kept is not None:
            of_day = {name: values[:kept] for name, values in of_day.items()}
        counts.append(len(of_day["amount"]))
        for name, values in of_day.items():
            columns[name].append(values)
    counted = {name: categories(values) for name, values in columns.items() if name != "amount"}
    counted["amount"] = numbers(columns["amount"])
    return Profile(np.arange(first, first + days), np.array(counts, float), None, counted)


@pytest.mark.parametrize(("days", "of_baseline"), SHORT)
def test_unchanged_data_raises_no_alarm_however_short_the_windows(rng, days, of_baseline):
    for start in range(3):
        before = bank(rng, of_baseline, MONDAY + start)
        now = bank(rng, days, MONDAY + start + of_baseline + 14)
        assert drifted(now, before) == set()


def doubled(of_day, _):
    of_day["amount"] *= 2


def half_zero(of_day, rng):
    of_day["amount"][rng.random(len(of_day["amount"])) < 0.5] = 0


def half_missing(of_day, rng):
    of_day["amount"][rng.random(len(of_day["amount"])) < 0.5] = np.nan


def rewritten(column, label, share):
    def change(of_day, rng):
        of_day[column][rng.random(len(of_day[column])) < share] = label

    return change


def halved(of_day, _):
    return len(of_day["amount"]) // 2


CHANGES = {
    "amounts × 2": (doubled, "amount"),
    "half of the amounts 0": (half_zero, "amount"),
    "half of the amounts missing": (half_missing, "amount"),
    "40 % of a column rewritten": (rewritten("channel", "c", 0.4), "channel"),
    "a new category": (rewritten("channel", "new", 0.15), "channel"),
    "a new category among many rare ones": (rewritten("rare", "new", 0.15), "rare"),
    "60 % rewritten to a rare category": (rewritten("rare", "r7", 0.6), "rare"),
    "half of the rows": (halved, ROWS),
}


@pytest.mark.parametrize(("days", "of_baseline"), [(1, 14), (1, 30), (3, 14), (7, 14), (6, 30)])
@pytest.mark.parametrize("change", CHANGES)
def test_large_changes_are_found_however_short_the_windows(rng, change, days, of_baseline):
    made, column = CHANGES[change]
    before = bank(rng, of_baseline, MONDAY)
    now = bank(rng, days, MONDAY + of_baseline + 14, made)
    assert {name for name, _ in drifted(now, before)} == {column}


def test_the_rest_of_the_categories_is_no_category(rng):
    """Beyond the thousand most frequent ones of a day, they are counted together."""
    labels = [f"{i}" for i in range(50)]
    before = profile(categories([labels * 4] * 28), [200] * 28)
    now = profile(categories([[*labels * 3, *[drift.REST] * 50]] * 7), [200] * 7)
    assert measured(now, before, UNSEEN).value == 0


def test_days_that_are_all_alike_have_the_least_thresholds():
    def alike(days):
        return profile(numbers([np.arange(5000.0)] * days), [1e7] * days)

    found = {m.measure: m.threshold for m in compare(alike(7), alike(28), {})}
    assert found == {
        ROWS_PER_DAY: 0.25,
        ROWS_OF_DAY: 0.45,
        MISSING: 0.005,
        ZERO: 0.005,
        DISTRIBUTION: 0.002,
    }
    labels = profile(categories([["a", "b"]] * 28), [1e7] * 28)
    assert measured(labels, labels, UNSEEN).threshold == 0.005


UP_AND_DOWN = np.tile([1.0, -1.0], 7)
"""How 14 days vary, two of each weekday: by 14 / 7, with 7 degrees of freedom."""

PLAUSIBLE = 14 / 7 * stats.f.ppf(1 - 1e-5, 1, 7)
"""The square of how far one such day plausibly is from their mean."""


def days_of(missing, rows, cards=None):
    column = Categories(np.asarray(missing, float), {"a": np.asarray(rows - missing, float)})
    return profile(column, rows, cards=cards)


def test_the_thresholds_of_rows_follow_from_how_days_vary():
    """By a twentieth; 7 days are compared with 14, and a single day with two of its weekday."""
    rows = 200 + 10 * UP_AND_DOWN
    before, now = days_of(0 * rows, rows), days_of(np.zeros(7), np.full(7, 200))
    deviation = 0.05 * math.sqrt(PLAUSIBLE)
    together = measured(now, before, ROWS_PER_DAY).threshold
    assert together == pytest.approx(deviation * math.sqrt(1 / 7 + 1 / 14))
    alone = measured(now, before, ROWS_OF_DAY).threshold
    assert alone == pytest.approx(deviation * math.sqrt(1.25))


@pytest.mark.parametrize(("rows_now", "days"), [(1000, 7), (500, 3.5), (3000, 7)])
def test_the_threshold_of_a_rate_follows_from_how_days_vary(rows_now, days):
    """Days with fewer rows than usual count for less, days with more do not count for more."""
    before = days_of(100 + 20 * UP_AND_DOWN, np.full(14, 1000))
    now = days_of(np.full(7, 0.1 * rows_now), np.full(7, rows_now))
    expected = 0.02 * math.sqrt(PLAUSIBLE * (1 / days + 1 / 14))
    assert measured(now, before, MISSING).threshold == pytest.approx(expected)


@pytest.mark.parametrize("cards", [200, 1000])
def test_cards_that_were_replaced_may_have_another_rate(cards):
    before_cards, now_cards = range(cards), range(10, cards + 10)
    before = days_of(100 + 20 * UP_AND_DOWN, np.full(14, 1000), of_cards(before_cards, 14))
    now = days_of(np.full(7, 100), np.full(7, 1000), of_cards(now_cards, 7))
    likely = (0.1 * cards + 1) / (cards + 2)
    replaced = 2 * 10 / cards**2  # ten cards on either side
    units = 0.02**2 * 14 / 7 * (1 / 7 + 1 / 14) + likely * (1 - likely) * replaced
    found = measured(now, before, MISSING).threshold
    assert found == pytest.approx(math.sqrt(units * stats.f.ppf(1 - 1e-5, 1, 7)))


def of_cards(hashes, rows):
    return Cards(np.array(hashes, np.uint64), np.full(len(hashes), float(rows)), 1.0)


@pytest.mark.parametrize(("cards", "units", "units_now"), [(0, 1400, 700), (400, 400, 400)])
def test_what_never_happened_may_happen_once_more(cards, units, units_now):
    """Without a case among n, the share of cases is likely 1 / (n + 2), by Laplace."""
    sample = of_cards(range(cards), 1) if cards else None
    before = days_of(np.zeros(14), np.full(14, 100), sample)
    now = days_of(np.zeros(7), np.full(7, 100), sample)
    likely = 1 / (units + 2)
    variance = likely * (1 - likely) * (1 / units_now + 1 / units)
    expected = math.sqrt(variance * stats.f.ppf(1 - 1e-5, 1, 7))
    assert measured(now, before, MISSING).threshold == pytest.approx(expected)


def test_the_threshold_of_a_divergence_follows_from_how_shares_vary():
    """Two shares of 1/2 vary by .05, together: Σ (p − q)² / (8 ln 2 q) = (p − q)² / (2 ln 2)."""
    first = 500 + 50 * UP_AND_DOWN
    columns = {"a": first, "b": 1000 - first}
    before = profile(Categories(np.zeros(14), columns), np.full(14, 1000))
    now = profile(Categories(np.zeros(7), {n: np.full(7, 500.0) for n in "ab"}), np.full(7, 1000))
    expected = 0.05**2 * PLAUSIBLE * (1 / 7 + 1 / 14) / (2 * math.log(2))
    assert measured(now, before, DISTRIBUTION).threshold == pytest.approx(expected)


def test_as_many_unseen_categories_are_plausible_as_each_week_had():
    """Weeks of which 10, 20 and 30 % of the rows have a category of their own."""
    own = np.repeat(np.eye(3), 7, axis=1) * [[10], [20], [30]]
    columns = {"always": 100 - own.sum(axis=0), **dict(zip("xyz", own, strict=True))}
    before = profile(Categories(np.zeros(21), columns), np.full(21, 100))
    now = profile(Categories(np.zeros(7), {"always": np.full(7, 100.0)}), np.full(7, 100))
    of_weeks = 7 * 0.1**2 * (1 / 7 + 1 / 21) * stats.f.ppf(1 - 1e-5, 1, 14)
    assert measured(now, before, UNSEEN).threshold == pytest.approx(0.2 + math.sqrt(of_weeks))
    assert measured(now, before, NEW).threshold == pytest.approx(3 * 0.3)


def test_a_baseline_of_less_than_two_weeks_is_halved_to_see_which_categories_are_unseen():
    """In ten days, one category is there for the first five and another for a single day."""
    first, once = np.repeat([20.0, 0], 5), np.eye(10)[9] * 10
    columns = {"always": 100 - first - once, "first": first, "once": once}
    before = profile(Categories(np.zeros(10), columns), np.full(10, 100))
    now = profile(Categories(np.zeros(7), {"always": np.full(7, 100.0)}), np.full(7, 100))
    shares = (first + once) / 100
    varies = np.var(shares, ddof=1) * (1 / 7 + 1 / 7) * stats.f.ppf(1 - 1e-5, 1, 9)
    expected = min(1, shares.mean() + math.sqrt(varies))
    assert measured(now, before, UNSEEN).threshold == pytest.approx(expected)
    assert measured(now, before, NEW).threshold == pytest.approx(3 * 0.2)


@pytest.mark.filterwarnings("error")
def test_a_day_without_rows_in_the_baseline_is_left_out(rng):
    before = channels(rng, 28)
    for days in before.columns["x"].counts.values():
        days[3] = 0
    before.rows[3] = 0
    assert drifted(channels(rng, 7), before) == set()
    found = measured(channels(rng, 7, p=(0.5, 0.3, 0.1, 0.1), labels="abcn"), before, UNSEEN)
    assert found.drifted


def test_a_new_category_is_told_once(rng):
    found = compare(channels(rng, 7, p=(0.4, 0.3, 0.2, 0.1), labels="abcn"), channels(rng, 28), {})
    assert [m.measure for m in found if m.drifted and "'n'" in m.change] == [UNSEEN]


def test_a_difference_as_large_as_the_threshold_is_no_drift():
    assert not drift.Measurement("x", ZERO, 0.1, 0.1, "").drifted


@pytest.mark.filterwarnings("error")
def test_a_window_without_rows_has_drifted_in_nothing_but_their_number(rng):
    empty = profile(numbers([np.array([])] * 7), np.zeros(7))
    assert drifted(empty, amounts(rng, 28)) == {(ROWS, ROWS_PER_DAY), (ROWS, ROWS_OF_DAY)}


def test_the_median_before_and_now_is_told():
    before = profile(numbers([np.array([0, 1.0, 10, 30])] * 28), [4] * 28)
    now = profile(numbers([np.array([0, 1.0, 20, 30])] * 7), [4] * 7)
    assert measured(now, before, DISTRIBUTION).change == "median 10 → 20"


def test_data_without_days_is_compared_without_counting_rows(rng):
    now, before = amounts(rng, 1, 9000, first=0), amounts(rng, 1, 400, first=0)
    assert drifted(now, before) == set()
    assert all(m.column == "x" and m.against == "" for m in compare(now, before, {}))


def test_configured_thresholds_replace_all_derived_ones_of_a_column(rng):
    current = amounts(rng, 7, 90, change=lambda values, _: values * 2)
    assert drifted(current, amounts(rng, 30)) == {
        ("x", DISTRIBUTION),
        (ROWS, ROWS_PER_DAY),
        (ROWS, ROWS_OF_DAY),
    }
    assert drifted(current, amounts(rng, 30), x=1.0, rows_per_day=1.0) == set()
    (found,) = [
        m
        for m in compare(current, amounts(rng, 30), {"x": 0.9})
        if m.value > 0.05 and m.column == "x"
    ]
    assert found.threshold == 0.9
    assert "at most 0.9000 as configured" in found.description


def test_the_description_says_what_changed_since_when_and_by_how_much(rng):
    found = measured(
        amounts(rng, 7, change=lambda values, _: values * 2), amounts(rng, 28), DISTRIBUTION
    )
    assert "(against 2026-03-02 … 2026-03-29)" in found.description
    assert f"divergence {found.value:.4f}, at most {found.threshold:.4f}" in found.description


def test_a_column_that_only_one_window_has_is_not_judged_and_says_so(rng):
    other = channels(rng, 28)
    other = Profile(other.days, other.rows, None, {"y": other.columns["x"]})
    found = {m.column: m for m in compare(amounts(rng, 7), other, {"x": 1.0})}
    assert found["x"].unjudged == "the baseline lacks it"
    assert found["y"].unjudged == "the window lacks it"
    assert not any(m.drifted for m in found.values())


def test_a_window_without_any_value_is_found(rng):
    empty = profile(numbers([np.full(200, np.nan)] * 7), [200] * 7)
    assert drifted(empty, amounts(rng, 28)) == {("x", MISSING)}


def test_categories_that_vanish_or_appear_are_found(rng):
    """Counts of a column without any value do not tell its type; they are those of numbers."""
    empty = {
        days: profile(numbers([np.full(200, np.nan)] * days), [200] * days) for days in (7, 28)
    }
    assert drifted(empty[7], channels(rng, 28)) == {("x", MISSING)}
    assert drifted(channels(rng, 7), empty[28]) == {("x", MISSING), ("x", UNSEEN)}

import numpy as np
import pytest

from fraud.models.network import rates
from fraud.models.network.training import held_out_cards, rate_groups


def logit(p):
    return np.log(p / (1 - p))


def one_member(rows, percent=10):
    return rate_groups(np.arange(rows), percent, 1)


def test_the_rate_of_a_category_is_its_log_odds_against_the_average_smoothed():
    # 10 frauds in 100 rows; category 1 has 6 in 20.
    categorical = np.repeat([[0], [1]], [80, 20], axis=0)
    labels = np.zeros(100, np.int64)
    labels[[0, 1, 2, 3, 80, 81, 82, 83, 84, 85]] = 1
    groups = one_member(100)
    (table,) = rates.log_odds(categorical, labels, groups, [3])
    assert table.shape == (1 + groups.folds.size, 3, 1)
    assert table.dtype == np.float32
    # Three more frauds in thirty more rows.
    assert table[0, 1, 0] == pytest.approx(logit(9 / 50) - logit(0.1), rel=1e-5)
    assert table[0, 0, 0] == pytest.approx(logit(7 / 110) - logit(0.1), rel=1e-5)
    assert table[0, 2, 0] == pytest.approx(0, abs=1e-6)  # a category without rows


@pytest.mark.parametrize(("percent", "members"), [(10, 1), (20, 5), (20, 7), (10, 2), (33, 4)])
def test_the_rates_of_a_row_leave_out_its_fold_and_the_cards_that_the_member_holds_out(
    percent, members
):
    random = np.random.default_rng(0)
    cards = random.integers(0, 90, 400)
    categorical = random.integers(0, 4, (400, 2))
    labels = random.integers(0, 2, 400)
    groups = rate_groups(cards, percent, members)
    held_out = held_out_cards(cards, percent, members)
    folds = groups.folds[groups.of_rows]
    assert np.unique(folds).size == rates.FOLDS
    assert (groups.held_out[groups.of_rows] == held_out).all()
    tables = rates.log_odds(categorical, labels, groups, [4, 4])
    for row in range(0, 400, 7):
        at_row = rates.for_group(categorical[[row]], groups.of_rows[[row]], [4, 4])[0]
        for member in range(members):
            counted = ~held_out[:, member]
            if not held_out[row, member]:
                counted &= folds != folds[row]
            average = labels[counted].mean()
            for column, index in enumerate(at_row):
                same = counted & (categorical[:, column] == categorical[row, column])
                rate = (labels[same].sum() + 3) / (same.sum() + 3 / average)
                found = tables[column].reshape(-1, members)[index, member]
                assert found == pytest.approx(logit(rate) - logit(average), abs=1e-5)


def test_a_category_of_one_fold_has_no_rate_because_training_saw_none():
    # Every card is a category of its own, and one more has the cards of two folds.
    cards = np.repeat(np.arange(50), 4)
    labels = (cards % 3 == 0).astype(int)
    groups = rate_groups(cards, 10, 1)
    folds = groups.folds[groups.of_rows]
    both = np.isin(cards, [cards[folds == 0][0], cards[folds == 1][0]])
    categorical = np.where(both, 50, cards)[:, np.newaxis]
    (table,) = rates.log_odds(categorical, labels, groups, [52])
    at_rows = rates.for_group(categorical, groups.of_rows, [52])[:, 0]
    assert np.abs(table.reshape(-1)[at_rows[~both]]).max() < 1e-6
    assert (table[0, :50] == 0).all()
    assert (table[0, 50] != 0).all()


@pytest.mark.parametrize("label", [0, 1])
def test_without_both_labels_nothing_is_known(label):
    (table,) = rates.log_odds(np.zeros((9, 1), int), np.full(9, label), one_member(9), [2])
    assert (table == 0).all()


def test_rows_are_read_in_parts(monkeypatch):
    random = np.random.default_rng(1)
    arguments = (
        random.integers(0, 5, (100, 1)),
        random.integers(0, 2, 100),
        one_member(100),
        [5],
    )
    (whole,) = rates.log_odds(*arguments)
    monkeypatch.setattr(rates, "_ROWS", 7)
    (in_parts,) = rates.log_odds(*arguments)
    np.testing.assert_array_equal(whole, in_parts)

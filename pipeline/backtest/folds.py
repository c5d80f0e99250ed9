"""The protocol itself: which days each fold trains and tests on, and which rows it tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from fraud.errors import BadInput
from fraud.pipeline.windows import Window, train_window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KNOWN_DAYS = 7
"""The handbook's train window; frauds within it block a card."""


@dataclass(frozen=True)
class Fold:
    """One step of the backtest.

    Attributes:
      train: the days trained on.
      test: the days tested on, except for blocked cards.
      known_since: the first day whose frauds block a card.
    """

    train: Window
    test: Window
    known_since: date


def plan_folds(
    first_test_day: date,
    count: int,
    *,
    test_days: int,
    train_days: int,
    delay_days: int,
    known_days: int = KNOWN_DAYS,
) -> list[Fold]:
    """Plans folds that start `test_days` apart.

    Args:
      first_test_day: the first test day of the first fold.
      count: the number of folds.
      test_days, train_days: the lengths of each fold's windows, at least 1.
      delay_days: full days until a label is known.
      known_days: the number of days before the delay whose frauds block a card, at least 1.

    Raises:
      BadInput: a number is too large for a calendar.
    """
    planned = []
    try:
        for number in range(count):
            first = first_test_day + timedelta(days=number * test_days)
            train = train_window(first, train_days, delay_days)
            test = Window(first, first + timedelta(days=test_days - 1))
            planned.append(Fold(train, test, train.last - timedelta(days=known_days - 1)))
    except OverflowError:
        raise BadInput(
            "the folds do not fit in the calendar; lower --folds, --test-days, --train-days or "
            "--known-days"
        ) from None
    return planned


def rows_to_test(
    fold: Fold,
    days: NDArray[np.int64],
    cards: NDArray,
    labels: NDArray,
    known_days: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Selects the rows on test days whose card had no known fraud when that day began.

    Args:
      fold: the fold.
      days: the day of each row, as days since 1970, [n].
      cards: the card of each row, [n].
      labels: 0 or 1, [n].
      known_days: the day on which each label became known, [n].

    Returns:
      A mask, bool [n].
    """
    import numpy as np

    from fraud.pipeline.ingestion.values import is_within
    from fraud.time import day_number

    names, card = np.unique(cards, return_inverse=True)
    never = np.iinfo(np.int64).max
    first_known = np.full(names.size, never)
    frauds = (labels == 1) & (days >= day_number(fold.known_since))
    np.minimum.at(first_known, card[frauds], known_days[frauds])
    return is_within(fold.test, days) & (first_known[card] >= days)

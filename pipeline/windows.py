"""As-of day and label delay → the windows of a run. Pure; see docs/concepts.md for the words.

At day D a label is known only of days ≤ D − delay. With delay 7, eval 7 days, train 30 days and
as-of 31 July::

    12 Jun ─ train ─ 11 Jul      18 Jul ─ eval ─ 24 Jul      25 Jul ─ recent ─ 31 Jul (as-of)
                           └ delay ┘                   (labels not known yet)

The gap between train and eval is what makes the evaluation honest: on the first eval day
(18 July) the newest known labels were those of 11 July.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

LABELLED_SPLITS = ("train", "eval")
"""The splits whose labels are known on the as-of day."""


@dataclass(frozen=True)
class Window:
    """Whole days from `first` to `last`, both included."""

    first: date
    last: date

    @property
    def days(self) -> int:
        """How many days the window has; never less than 1."""
        return (self.last - self.first).days + 1

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last

    def __iter__(self) -> Iterator[date]:
        return (self.first + timedelta(days=i) for i in range(self.days))

    def __str__(self) -> str:
        return f"{self.first} … {self.last}"


@dataclass(frozen=True)
class Windows:
    """The windows of one run.

    Attributes:
      as_of: the day the run pretends it is; the last day of which data is used.
      history: the days before `train` that features look back on; None if they need none.
      train, eval: their labels are known on the as-of day.
      recent: the days after `eval`, labels unknown; None with a label delay of 0.
    """

    as_of: date
    history: Window | None
    train: Window
    eval: Window
    recent: Window | None

    def splits(self) -> dict[str, Window]:
        """The windows that become splits of examples, by split name."""
        named = {"train": self.train, "eval": self.eval, "recent": self.recent}
        return {name: window for name, window in named.items() if window is not None}

    @property
    def all_days(self) -> Window:
        """From the first day of history to the as-of day."""
        return Window((self.history or self.train).first, self.as_of)


def windows_for(
    as_of: date,
    *,
    train_days: int,
    eval_days: int,
    label_delay_days: int,
    history_days: int = 0,
) -> Windows:
    """The windows of a run on `as_of`.

    Args:
      as_of: the day the run pretends it is.
      train_days, eval_days: lengths, at least 1 day each.
      label_delay_days: days until a label may be used, at least 0.
      history_days: how many days before the train window features look back on, at least 0.

    Raises:
      ValueError: a length is out of range.
    """
    if train_days < 1 or eval_days < 1 or label_delay_days < 0 or history_days < 0:
        raise ValueError("train_days and eval_days must be ≥ 1, delay and history ≥ 0")
    eval_last = as_of - timedelta(days=label_delay_days)
    eval_first = eval_last - timedelta(days=eval_days - 1)
    # Without a delay, training must still end before the first day it is judged on.
    train_last = eval_first - timedelta(days=max(label_delay_days, 1))
    train_first = train_last - timedelta(days=train_days - 1)
    return Windows(
        as_of=as_of,
        history=Window(train_first - timedelta(days=history_days), train_first - timedelta(days=1))
        if history_days
        else None,
        train=Window(train_first, train_last),
        eval=Window(eval_first, eval_last),
        recent=Window(eval_last + timedelta(days=1), as_of) if label_delay_days else None,
    )

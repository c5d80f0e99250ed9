"""Derives the windows of a run from its as-of day and the label delay. See docs/concepts.md.

When day D ends, labels are known for the days ≤ D − delay and for no others. With a delay of 7, 7
eval days, 30 train days and as-of day 31 July::

    11 Jun ─ train ─ 10 Jul      18 Jul ─ eval ─ 24 Jul      25 Jul ─ recent ─ 31 Jul (as-of)
                           └ delay ┘                   (labels not yet known)

The gap between train and eval keeps the evaluation honest: when the first eval day (18 July) began,
17 July had ended, and the newest labels that were all known were those of 10 July. Those of 11 July
became known in the course of 18 July. `run` and `backtest` share this rule.
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
        """Number of days, at least 1."""
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
      as_of: the run works as if today were this day; the last day of data it uses.
      history: the days before `train` that features need; None if they need none.
      train, eval: days whose labels are known on the as-of day.
      recent: the days after `eval`, whose labels are not yet known; None if the delay is 0.
      excluded: days that are in no split, because their data is broken.
    """

    as_of: date
    history: Window | None
    train: Window
    eval: Window
    recent: Window | None
    excluded: tuple[date, ...] = ()

    def splits(self) -> dict[str, Window]:
        """The windows that become splits of examples, by split name."""
        named = {"train": self.train, "eval": self.eval, "recent": self.recent}
        return {name: window for name, window in named.items() if window is not None}

    def labels_known_by(self, split: str) -> date:
        """The day at whose end the labels of a labelled split must be known."""
        return self.eval.first - timedelta(days=1) if split == "train" else self.as_of

    @property
    def all_days(self) -> Window:
        """From the first day of history to the as-of day."""
        return Window((self.history or self.train).first, self.as_of)


def last_known_day(day: date, label_delay_days: int) -> date:
    """The last day whose labels are all known when `day` ends."""
    return day - timedelta(days=label_delay_days)


def train_window(first_eval_day: date, train_days: int, label_delay_days: int) -> Window:
    """The days to train a model on that is used from the beginning of `first_eval_day`."""
    last = last_known_day(first_eval_day - timedelta(days=1), label_delay_days)
    return Window(last - timedelta(days=train_days - 1), last)


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
      as_of: run as if today were this day.
      train_days, eval_days: lengths in days, at least 1 each.
      label_delay_days: days until a label may be used, at least 0.
      history_days: days before the train window that features need, at least 0.

    Raises:
      ValueError: a length is out of range.
    """
    if train_days < 1 or eval_days < 1 or label_delay_days < 0 or history_days < 0:
        raise ValueError("train_days and eval_days must be ≥ 1, delay and history ≥ 0")
    eval_last = last_known_day(as_of, label_delay_days)
    eval_first = eval_last - timedelta(days=eval_days - 1)
    train = train_window(eval_first, train_days, label_delay_days)
    return Windows(
        as_of=as_of,
        history=Window(train.first - timedelta(days=history_days), train.first - timedelta(days=1))
        if history_days
        else None,
        train=train,
        eval=Window(eval_first, eval_last),
        recent=Window(eval_last + timedelta(days=1), as_of) if label_delay_days else None,
    )

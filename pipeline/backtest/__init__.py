"""Prequential evaluation: train, wait for the labels' delay, test, step on, repeat.

The protocol is the one of the Fraud Detection Handbook, chapters 3 and 5. A fold:

    ───── train ─────        test ────        (the next fold: everything test_days later)
                     └ delay ┘

* As many full days as labels are delayed lie between train and test.
* Cards with a fraud known by a test day are not tested on that day: they are blocked already.
  Known are the frauds up to the test day − delay − 1, from `known_days` before the delay on. These
  are the handbook's 7 train days, however many ours are: what is tested does not depend on what
  is trained on, so results compare with the handbook's and with each other.
* Metrics are computed on what remains; Card Precision@k day by day.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from fraud.errors import BadInput
from fraud.pipeline.config import Config
from fraud.pipeline.windows import Window, Windows

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from fraud.pipeline.ingestion.source import Source

PUBLISHED = {
    "logistic regression": (0.623, 0.868, 0.297),
    "random forest": (0.678, 0.870, 0.299),
    "XGBoost": (0.687, 0.869, 0.303),
    "neural network": (0.675, 0.876, 0.303),
}
"""The handbook's figures for its own features, 7 train days and four folds of its own data: average
precision, ROC AUC, Card Precision@100."""

KNOWN_DAYS = 7
"""The handbook's train window, whose frauds block a card."""

COUNTED = ("examples", "positives")


@dataclass(frozen=True)
class Fold:
    """One step.

    Attributes:
      train: what is learned from.
      test: what is tested on, less blocked cards.
      known_since: the first day whose frauds block a card.
    """

    train: Window
    test: Window
    known_since: date


@dataclass(frozen=True)
class Rows:
    """Transactions of a fold's window.

    Attributes:
      columns: what `fraud.models.preprocessing.in_memory` reads, [n] each.
      labels: 0 or 1, int64 [n].
      timestamps: epoch seconds, int64 [n], ascending.
      cards: int64 or bytes, [n]; the row's number where the data has no entities.
    """

    columns: dict[str, NDArray]
    labels: NDArray
    timestamps: NDArray
    cards: NDArray


@dataclass(frozen=True)
class Outcome:
    """What one fold came to.

    Attributes:
      examples, positives: how many transactions it was judged on, and how many of them frauds.
      by_seed: seed → metrics by name, `train_cpu_seconds` among them.
    """

    examples: int
    positives: int
    by_seed: dict[int, dict[str, float]]

    @property
    def mean(self) -> dict[str, float | None]:
        """Metrics by name, over the seeds."""
        return _each(list(self.by_seed.values()), statistics.fmean)


def folds(
    first_test_day: date,
    count: int,
    *,
    test_days: int,
    train_days: int,
    delay_days: int,
    known_days: int = KNOWN_DAYS,
) -> list[Fold]:
    """The folds, `test_days` apart.

    Args:
      first_test_day: of the first one.
      count: how many.
      test_days, train_days: of each.
      delay_days: full days until a label is known.
      known_days: of how many days before the delay frauds block a card.

    Raises:
      BadInput: a length is out of range.
    """
    for option, value in (
        ("--folds", count),
        ("--test-days", test_days),
        ("--train-days", train_days),
        ("--known-days", known_days),
    ):
        if value < 1:
            raise BadInput(f"{option}: {value} is too small; the least is 1")
    made = []
    for number in range(count):
        first = first_test_day + timedelta(days=number * test_days)
        last_known = first - timedelta(days=delay_days + 1)
        made.append(
            Fold(
                Window(last_known - timedelta(days=train_days - 1), last_known),
                Window(first, first + timedelta(days=test_days - 1)),
                last_known - timedelta(days=known_days - 1),
            )
        )
    return made


def tested(
    fold: Fold,
    days: NDArray[np.int64],
    cards: NDArray,
    labels: NDArray,
    delay_days: int,
) -> NDArray[np.bool_]:
    """Which transactions a fold is judged on: of the test days, on cards not known to be defrauded.

    Args:
      fold: which.
      days: of each transaction, as days since 1970, [n].
      cards: of each, [n].
      labels: 0 or 1, [n].
      delay_days: full days until a label is known.
    """
    import numpy as np

    from fraud.pipeline.ingestion.values import day_number, is_within

    names, card = np.unique(cards, return_inverse=True)
    never = np.iinfo(np.int64).max
    first_fraud = np.full(names.size, never)
    frauds = (labels == 1) & (days >= day_number(fold.known_since))
    np.minimum.at(first_fraud, card[frauds], days[frauds])
    return is_within(fold.test, days) & (first_fraud[card] > days - delay_days - 1)


def check_covered(source: Source, planned: Sequence[Fold], config: Config) -> Windows:
    """Checks that the data has all days of all folds.

    Returns:
      What is read: `eval` are the test days of all folds.

    Raises:
      BadInput: names the day that is missing and what would do instead.
    """
    from fraud.features import history_days
    from fraud.pipeline.ingestion import source as sources

    days = source.days
    if not days:
        raise BadInput(f"{source.data}: there is not a single transaction")
    first, last = planned[0], planned[-1]
    needed = min(first.train.first, first.known_since)
    if needed < days[0]:
        earliest = first.test.first + (days[0] - needed)
        raise BadInput(
            f"{source.data}: the first fold needs the days from {needed} on, but the data begins "
            f"on {days[0]}; choose --first-test-day {earliest} or later, or fewer --train-days"
        )
    if last.test.last > days[-1]:
        raise BadInput(
            f"{source.data}: the last test days are {last.test}, but the data ends on {days[-1]}; "
            "choose fewer --folds, or an earlier --first-test-day"
        )
    back = history_days(config.features, config.windows.label_delay_days)
    back = max(back, (first.train.first - needed).days)
    before = first.train.first - timedelta(days=1)
    windows = Windows(
        as_of=last.test.last,
        history=Window(before - timedelta(days=back - 1), before) if back else None,
        train=first.train,
        eval=Window(first.test.first, last.test.last),
        recent=None,
    )
    sources.check_gaps(source, windows, config.windows.max_empty_days)
    return windows


def read(source: Source, windows: Windows, config: Config) -> pa.Table:
    """The transactions of all folds with their features, in the order of time.

    Raises:
      BadInput: names file, row, column and fix.
    """
    import numpy as np
    import pyarrow as pa

    from fraud import features
    from fraud.pipeline.ingestion import reader as files
    from fraud.pipeline.ingestion import source as sources
    from fraud.pipeline.ingestion import values

    dataset = config.dataset
    layout = values.Layout(dataset, sources.check_columns(source, windows, dataset), windows)
    batches = []
    for file in source.files(windows.all_days):
        for first, raw in files.read(file, layout.to_read(file)):
            at = values.RowOrigins(file, np.arange(first, first + raw.num_rows))
            batches.append(values.clean(raw, at, layout)[1])
    table = pa.Table.from_batches(batches).combine_chunks()
    order = np.argsort(table[dataset.timestamp].to_numpy(), kind="stable")
    table = table.take(pa.array(order)).combine_chunks()
    try:
        return features.add_features(
            table, dataset, config.features, config.windows.label_delay_days
        )
    except ValueError as error:
        raise BadInput(f"{source.data}: {error}") from None


def split(table: pa.Table, fold: Fold, config: Config) -> tuple[Rows, Rows]:
    """The train rows of a fold and those it is judged on.

    Args:
      table: of `read`.
      fold: which.
      config: what the columns are; the label delay.
    """
    import numpy as np

    from fraud.pipeline.ingestion.values import days_of, is_within

    dataset = config.dataset
    days = days_of(table[dataset.timestamp].combine_chunks())
    labels = table[dataset.label].to_numpy().astype(np.int64)
    card = dataset.card_entity
    cards = _keys(table[card]) if card else np.arange(len(days))
    delay = config.windows.label_delay_days
    train = is_within(fold.train, days)
    # Without cards there is nobody to block.
    test = tested(fold, days, cards, labels, delay) if card else is_within(fold.test, days)
    return _rows(table, train, labels, cards, config), _rows(table, test, labels, cards, config)


def card_precision(config: Config) -> str:
    """The name of Card Precision@k at the configured alert budget."""
    return f"card_precision_at_{config.evaluation.alert_budget}"


def judged(rows: Rows, scores: NDArray, config: Config) -> dict[str, float]:
    """The metrics of one model on the rows a fold is judged on.

    Args:
      rows: at least one.
      scores: the model's, [n].
      config: has the alert budget.
    """
    from fraud.models.evaluation import metrics

    found = {
        "average_precision": metrics.average_precision(rows.labels, scores),
        "roc_auc": metrics.roc_auc(rows.labels, scores),
    }
    if config.dataset.card_entity:
        found[card_precision(config)] = metrics.card_precision_at_k(
            rows.labels,
            scores,
            rows.timestamps // 86400,
            rows.cards,
            config.evaluation.alert_budget,
        )
    return found


def summary(planned: Sequence[Fold], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The result; the keys are those of `backtest --json` (see docs/backtest.md).

    Args:
      planned: the folds.
      outcomes: of each.
    """
    documents = [
        {
            "train": [str(fold.train.first), str(fold.train.last)],
            "test": [str(fold.test.first), str(fold.test.last)],
            **outcome.mean,
            "examples": outcome.examples,
            "positives": outcome.positives,
            "seeds": [
                {"seed": seed, **_each([metrics], statistics.fmean)}
                for seed, metrics in outcome.by_seed.items()
            ],
        }
        for fold, outcome in zip(planned, outcomes, strict=True)
    ]
    seeds = list(outcomes[0].by_seed)
    names = [*outcomes[0].by_seed[seeds[0]], *COUNTED]
    by_fold = [{name: document[name] for name in names} for document in documents]
    by_seed = [_each([o.by_seed[seed] for o in outcomes], statistics.fmean) for seed in seeds]
    return {
        "folds": documents,
        "mean": _each(by_fold, statistics.fmean),
        "spread": {"folds": _each(by_fold, _deviation), "seeds": _each(by_seed, _deviation)},
    }


def render(result: dict[str, Any]) -> str:
    """The result as a table for a person."""
    metrics = [name for name in result["mean"] if name not in COUNTED]
    head = "".join(f"{name.replace('_', ' '):>24}" for name in metrics)
    lines = ["", f"  {'test days':<25} {'examples':>9} {'frauds':>7}{head}"]
    for fold in result["folds"]:
        lines.append(_line(" … ".join(fold["test"]), fold, metrics))
    lines += ["", _line("mean", result["mean"], metrics)]
    several_folds, several_seeds = len(result["folds"]) > 1, len(result["folds"][0]["seeds"]) > 1
    for what, shown in (("folds", several_folds), ("seeds", several_seeds)):
        if shown:
            spread = {n: v for n, v in result["spread"][what].items() if n not in COUNTED}
            lines.append(_line(f"  ± over {what}", spread, metrics))
    names = ("average_precision", "roc_auc", "card_precision_at_100")
    lines += ["", "  published by the handbook for its own data, features and 7 train days:"]
    for model, figures in PUBLISHED.items():
        known = dict(zip(names, figures, strict=True))
        lines.append(_line(model, known, metrics))
    return "\n".join([*lines, ""])


def figure(value: float | None, digits: int = 4) -> str:
    """A metric as text; a dash where it is undefined."""
    return "–" if value is None else f"{value:.{digits}f}"


def _line(title: str, row: dict[str, Any], metrics: Sequence[str]) -> str:
    counts = [f"{round(row[name]):,}" if name in row else "" for name in COUNTED]
    figures = [
        figure(row[name], 1 if name == "train_cpu_seconds" else 4) if name in row else ""
        for name in metrics
    ]
    return f"  {title:<25} {counts[0]:>9} {counts[1]:>7}" + "".join(f"{f:>24}" for f in figures)


def _each(
    rows: Sequence[dict[str, Any]], of: Callable[[list[float]], float]
) -> dict[str, float | None]:
    """A statistic of each metric over the rows where it is defined; None where it is nowhere."""
    defined = {
        name: [r[name] for r in rows if r[name] is not None and r[name] == r[name]]
        for name in rows[0]
    }
    return {name: round(of(values), 6) if values else None for name, values in defined.items()}


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _keys(column: pa.ChunkedArray) -> NDArray:
    """Cards as the Trainer reads them: int64, or bytes."""
    import pyarrow as pa

    text = pa.types.is_string(column.type)
    return column.cast(pa.binary() if text else pa.int64()).to_numpy()


def _rows(
    table: pa.Table, taken: NDArray[np.bool_], labels: NDArray, cards: NDArray, config: Config
) -> Rows:
    import numpy as np
    import pyarrow as pa

    from fraud.models.columns import ModelColumns

    rows = table.filter(pa.array(taken))
    named = ModelColumns.of(config.dataset, config.features)
    columns = {name: rows[name].cast(pa.float32()).to_numpy() for name in named.numeric}
    for name in named.categorical:
        columns[name] = rows[name].cast(pa.binary()).fill_null(b"").to_numpy()
    columns[named.label] = labels[taken]
    seconds = rows[config.dataset.timestamp].cast(pa.int64()).to_numpy() // 1_000_000
    return Rows(columns, labels[taken], seconds.astype(np.int64), cards[taken])

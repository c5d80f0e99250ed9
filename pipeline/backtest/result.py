"""The metrics of each fold, their summary as JSON and the table that shows it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from fraud.models.spec import MOST_CARDS
from fraud.pipeline.backtest.folds import Fold
from fraud.pipeline.config import Config
from fraud.time import local_days

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fraud.pipeline.backtest.rows import FoldRows

PUBLISHED = {
    "logistic regression": (0.623, 0.868, 0.297),
    "random forest": (0.678, 0.870, 0.299),
    "XGBoost": (0.687, 0.869, 0.303),
    "neural network": (0.675, 0.876, 0.303),
}
"""The handbook's average precision, ROC AUC and Card Precision@100 for its own features, 7 train
days and four folds of its own data."""

HANDBOOK_DAYS = {date(2018, 4, 1): 9488, date(2018, 4, 2): 9583, date(2018, 7, 31): 9705}
"""Transactions on some days of the handbook's data, by which it is recognized."""

COUNTS = ("examples", "positives")


@dataclass(frozen=True)
class Outcome:
    """The outcome of one fold.

    Attributes:
      examples: the number of transactions tested.
      positives: how many of them are frauds.
      by_seed: seed → metrics by name, including `train_cpu_seconds`.
    """

    examples: int
    positives: int
    by_seed: dict[int, dict[str, float]]

    @property
    def mean(self) -> dict[str, float | None]:
        """Each metric's mean over the seeds."""
        return _reduce(list(self.by_seed.values()), statistics.fmean)


def card_precision(config: Config) -> str:
    """The name of Card Precision@k at the configured alert budget."""
    return f"card_precision_at_{cards_checked(config)}"


def cards_checked(config: Config) -> int:
    """The k of Card Precision@k: the configured alert budget, or else the handbook's."""
    return config.evaluation.alert_budget or MOST_CARDS


def evaluate(rows: FoldRows, scores: NDArray, config: Config) -> dict[str, float]:
    """Computes the metrics of one model on the test rows of a fold.

    Args:
      rows: at least one row.
      scores: the model's scores, [n].
      config: the dataset and the alert budget.
    """
    from fraud.models.evaluation import metrics

    values = {
        "average_precision": metrics.average_precision(rows.labels, scores),
        "roc_auc": metrics.roc_auc(rows.labels, scores),
    }
    if config.dataset.card_entity:
        values[card_precision(config)] = metrics.card_precision_at_k(
            rows.labels,
            scores,
            local_days(rows.timestamps, config.dataset.timezone),
            rows.cards,
            cards_checked(config),
        )
    return values


def summary(planned: Sequence[Fold], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Summarizes all folds in the form of `backtest --json` (see docs/backtest.md)."""
    documents = [
        {
            "train": [str(fold.train.first), str(fold.train.last)],
            "test": [str(fold.test.first), str(fold.test.last)],
            **outcome.mean,
            "examples": outcome.examples,
            "positives": outcome.positives,
            "seeds": [
                {"seed": seed, **_reduce([metrics], statistics.fmean)}
                for seed, metrics in outcome.by_seed.items()
            ],
        }
        for fold, outcome in zip(planned, outcomes, strict=True)
    ]
    seeds = list(outcomes[0].by_seed)
    names = [*outcomes[0].by_seed[seeds[0]], *COUNTS]
    by_fold = [{name: document[name] for name in names} for document in documents]
    by_seed = [_reduce([o.by_seed[seed] for o in outcomes], statistics.fmean) for seed in seeds]
    return {
        "folds": documents,
        "mean": _reduce(by_fold, statistics.fmean),
        "spread": {"folds": _reduce(by_fold, _deviation), "seeds": _reduce(by_seed, _deviation)},
    }


def is_handbook(rows_by_day: Mapping[date, int]) -> bool:
    """Whether data is the handbook's, given its number of transactions on each day."""
    known = {day: rows for day, rows in HANDBOOK_DAYS.items() if day in rows_by_day}
    return bool(known) and all(rows_by_day[day] == rows for day, rows in known.items())


def render(result: dict[str, Any], published: bool = False) -> str:
    """Formats a summary as a plain-text table.

    Args:
      result: see `summary`.
      published: whether to show the handbook's figures too, which are for its own data.
    """
    metrics = [name for name in result["mean"] if name not in COUNTS]
    head = "".join(f"{name.replace('_', ' '):>24}" for name in metrics)
    lines = ["", f"  {'test days':<25} {'examples':>9} {'frauds':>7}{head}"]
    for fold in result["folds"]:
        lines.append(_line(" … ".join(fold["test"]), fold, metrics))
    lines += ["", _line("mean", result["mean"], metrics)]
    several_folds, several_seeds = len(result["folds"]) > 1, len(result["folds"][0]["seeds"]) > 1
    for over, shown in (("folds", several_folds), ("seeds", several_seeds)):
        if shown:
            spread = {n: v for n, v in result["spread"][over].items() if n not in COUNTS}
            lines.append(_line(f"  ± over {over}", spread, metrics))
    if not published:
        return "\n".join([*lines, ""])
    names = ("average_precision", "roc_auc", "card_precision_at_100")
    lines += ["", "  published by the handbook for its own data, features and 7 train days:"]
    for model, figures in PUBLISHED.items():
        lines.append(_line(model, dict(zip(names, figures, strict=True)), metrics))
    return "\n".join([*lines, ""])


def figure(value: float | None, digits: int = 4) -> str:
    """Formats a metric; an undefined one is a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def _line(title: str, row: dict[str, Any], metrics: Sequence[str]) -> str:
    counts = [f"{round(row[name]):,}" if name in row else "" for name in COUNTS]
    figures = [
        figure(row[name], 1 if name == "train_cpu_seconds" else 4) if name in row else ""
        for name in metrics
    ]
    return f"  {title:<25} {counts[0]:>9} {counts[1]:>7}" + "".join(f"{f:>24}" for f in figures)


def _reduce(
    rows: Sequence[dict[str, Any]], statistic: Callable[[list[float]], float]
) -> dict[str, float | None]:
    """Returns each metric's statistic over the rows that define it; None if none does."""
    defined = {
        name: [r[name] for r in rows if r[name] is not None and r[name] == r[name]]
        for name in rows[0]
    }
    return {n: round(statistic(values), 6) if values else None for n, values in defined.items()}


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0

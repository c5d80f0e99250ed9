"""Charts of a model: its evaluation, its training, and what moves its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from markupsafe import Markup

from fraud.report import charts
from fraud.report.charts import Axis, Line, Point

CHAMPION, CHALLENGER = "champion", "challenger"

IMPORTANT = 20
"""Columns of which the importance is shown."""

LEAST = 0.0003
"""The lowest score in the chart of the calibration, which is logarithmic."""


def quality(curves: Mapping[str, Any]) -> dict[str, Markup]:
    """The charts of an evaluation, by title; empty if nothing was recorded.

    Args:
      curves: model → `fraud.models.evaluation.curves.describe`.
    """
    models = {name: curves[name] for name in (CHALLENGER, CHAMPION) if curves.get(name)}
    if not models:  # a single model has no name for TFMA
        models = dict(zip((CHALLENGER,), curves.values(), strict=False))
    if not models:
        return {}
    shown: dict[str, Markup] = {}
    percent = Axis("recall", 0, 1)
    shown["Precision and recall"] = charts.lines(
        "Precision by recall of each model on the same examples",
        percent,
        Axis("precision", 0, 1),
        _of_models(models, lambda of: of["precision_recall"]),
    )
    shown["ROC"] = charts.lines(
        "Recall by false positive rate of each model on the same examples",
        Axis("false positive rate", 0, 1),
        percent,
        [*_of_models(models, lambda of: of["roc"]), Line("", [(0, 0), (1, 1)], "aid")],
    )
    shown["Calibration"] = charts.lines(
        "Share of frauds by mean score of each bin that has any",
        Axis("mean score", LEAST, 1, log=True),
        Axis("share of frauds", LEAST, 1, log=True),
        [
            *_of_models(models, lambda of: calibration(of["bins"]), marks=True),
            Line("", [(LEAST, LEAST), (1, 1)], "aid"),
        ],
    )
    shown["Scores"] = _histogram(models[CHALLENGER]["bins"])
    shown |= _thresholds(models)
    days = {
        name: {d["day"]: d["card_precision"] for d in of["days"]} for name, of in models.items()
    }
    if any(days.values()):
        ordinals = sorted({day for of in days.values() for day in of})
        names = [
            date.fromordinal(day + date(1970, 1, 1).toordinal()).strftime("%d %b")
            for day in ordinals
        ]
        series = {name: [of.get(day, 0.0) for day in ordinals] for name, of in days.items()}
        top = max(max(values) for values in series.values()) or 1
        shown["Precision of checks by day"] = charts.bars(
            "Share of those checked, of the budget, who had a fraud, by day",
            Axis("day", 0, 1),
            Axis("precision", 0, top),
            names,
            series,
        )
    return shown


def sample_share(curves: Mapping[str, Any]) -> float:
    """The share of the cards that curves, intervals, costs and checks by day were measured on."""
    return min((of.get("sample_share", 1.0) for of in curves.values()), default=1.0)


def calibration(bins: Sequence[Mapping[str, Any]]) -> list[Point]:
    """(mean score, share of frauds) of each bin; one without frauds is joined with the next.

    A logarithmic chart cannot show a share of 0, and without the transactions of these bins a model
    that is too suspicious would look calibrated.

    Args:
      bins: see `fraud.models.evaluation.curves.describe`.
    """
    joined: list[list[float]] = []  # frauds, transactions, sum of the scores
    is_open = False
    for of in bins:
        total = of["frauds"] + of["genuine"]
        counts = [of["frauds"], total, total * (of["mean_score"] or 0.0)]
        if is_open:
            joined[-1] = [a + b for a, b in zip(joined[-1], counts, strict=True)]
        else:
            joined.append(counts)
        is_open = joined[-1][0] == 0
    if is_open and len(joined) > 1:  # there is no next one
        last = joined.pop()
        joined[-1] = [a + b for a, b in zip(joined[-1], last, strict=True)]
    points = [(scores / total, frauds / total) for frauds, total, scores in joined if frauds]
    return [(score, share) for score, share in points if min(score, share) >= LEAST]


def training(history: Mapping[str, list[float]]) -> dict[str, Markup]:
    """The course of a training, by title.

    Args:
      history: metric → its value in each epoch.
    """
    titles = {
        "loss": "loss on the training data",
        "val_average_precision": "average precision on held-out data",
    }
    shown = {}
    for name, text in titles.items():
        values = [value for value in history.get(name, []) if value is not None]
        if len(values) > 1:
            low, high = min(values), max(values)
            shown[title(text)] = charts.lines(
                f"{text} by epoch",
                Axis("epoch", 1, len(values)),
                Axis(words(name.removeprefix("val_")), low, high if high > low else low + 1),
                [Line("", [(i + 1, v) for i, v in enumerate(values)], marks=len(values) < 40)],
            )
    return shown


def importance(of_columns: Mapping[str, float]) -> Markup | None:
    """What moves the score most; None if that was not recorded.

    Args:
      of_columns: column → mean absolute contribution to the logit, the largest first.
    """
    shown = dict(list(of_columns.items())[:IMPORTANT])
    if not shown:
        return None
    label = "Mean absolute contribution of each column to the logit"
    return charts.rows(label, list(shown), {"importance": list(shown.values())})


def words(name: str) -> str:
    """A metric's name in words."""
    return name.replace("_", " ").replace("roc auc", "ROC AUC").replace("brier", "Brier")


def title(text: str) -> str:
    """A text as the title of a chart."""
    return text[:1].upper() + text[1:]


def _of_models(models: Mapping[str, Any], points: Any, marks: bool = False) -> list[Line]:
    return [Line(name, points(of), f"s{i}", marks) for i, (name, of) in enumerate(models.items())]


def _histogram(bins: Sequence[Mapping[str, Any]]) -> Markup:
    """The scores of frauds and of other transactions, each as shares."""
    totals = {kind: max(sum(b[kind] for b in bins), 1) for kind in ("frauds", "genuine")}
    series = {kind: [b[kind] / totals[kind] for b in bins] for kind in totals}
    names = [charts.number(b["low"]) for b in bins]
    top = max(max(values) for values in series.values()) or 1
    return charts.bars(
        "Scores of frauds and of all others",
        Axis("score, from", 0, 1),
        Axis("share of the class", 0, top),
        names,
        series,
    )


def _thresholds(models: Mapping[str, Any]) -> dict[str, Markup]:
    own = models[CHALLENGER]["thresholds"]
    if len(own) < 2:
        return {}
    low = max(min(row["threshold"] for row in own), 1e-4)
    x = Axis("threshold", low, 1, log=True)
    at = models[CHALLENGER]["threshold"]
    upright = [Line("lowest alert", [(at, 0), (at, 1e12)], "aid")] if at else []
    shown = {}
    keys = ("true_positives", "false_negatives", "false_positives")
    most = max(max(row["true_positives"] + row["false_negatives"] for row in own), 1)
    shown["Confusion by threshold"] = charts.lines(
        "Frauds that alert, frauds missed and false alerts by threshold",
        x,
        Axis("rows", 0, most * 1.5),
        [
            *(
                Line(
                    words(key),
                    [(r["threshold"], r[key]) for r in own if r[key] <= most * 1.5],
                    f"s{i}",
                )
                for i, key in enumerate(keys)
            ),
            *upright,
        ],
    )
    saved = {
        name: [(r["threshold"], r["cost_saved"]) for r in of["thresholds"] if "cost_saved" in r]
        for name, of in models.items()
    }
    if saved[CHALLENGER]:
        amounts = [amount for points in saved.values() for _, amount in points]
        bottom = max(min(*amounts, 0), -max(*amounts, 1))
        shown["Cost saved by threshold"] = charts.lines(
            "What acting on alerts would have saved, by threshold",
            x,
            Axis("saved", bottom, max(*amounts, 1)),
            [
                *(Line(name, points, f"s{i}") for i, (name, points) in enumerate(saved.items())),
                *upright,
            ],
        )
    return shown

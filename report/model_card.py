"""The model card: what a pushed model is for, what it was made from, and what it showed.

The outline is that of Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fraud.report import intervals
from fraud.report.document import Code, Document, Items, Section, Table, Text
from fraud.report.intervals import Interval

INTERVALS = {
    "average_precision": lambda at, n: intervals.average_precision(at, n.frauds),
    "roc_auc": lambda at, n: intervals.roc_auc(at, n.frauds, n.examples - n.frauds),
    "precision_at_budget": lambda at, n: intervals.proportion(at * n.alerts, n.alerts),
    "recall_at_budget": lambda at, n: intervals.proportion(at * n.frauds, n.frauds),
}
"""The metrics that have one, in the order in which they are shown: from its value and `Counts`."""

COUNTS = ("example_count", "true_positives", "false_positives", "false_negatives")
UNKNOWN = "–"


@dataclass(frozen=True)
class Counts:
    """Transactions of a slice of the eval window; NaN where they were not counted."""

    examples: float
    frauds: float
    alerts: float

    @classmethod
    def of(cls, row: Mapping[str, float]) -> Counts:
        """From the Evaluator's metrics of the slice."""
        examples, caught, false, missed = (row.get(name, math.nan) for name in COUNTS)
        return cls(examples, caught + missed, caught + false)


@dataclass(frozen=True)
class Facts:
    """What a card is made from.

    Attributes:
      words: the configured texts: `intended_use`, `limits`, `ethics`, `owners`.
      version: of the pushed model.
      path: where it was pushed.
      as_of: the as-of day; empty where the data has no time.
      windows: split → first and last day; empty where the data has no time.
      rows, positives: split → transactions, frauds.
      label_delay_days: days until labels are known.
      numeric, categorical: the columns that the model reads.
      network: its settings, by name.
      threshold: the lowest score that alerts.
      alert_budget: cards a day.
      validation: metrics on the held-out cards, by name.
      metrics: the Evaluator's: `overall` (by name) and `slices` (slice → by name).
      champion: the same of the champion on the same examples; empty without one.
      demands: the configured `Evaluation`, by name.
      notes: what the data gate could not judge.
      served: how many examples ServingCheck sent.
      run_id: the run that trained the model; empty where it is not known.
      artifacts: what → (id in ML Metadata, folder).
      versions: package → version.
    """

    words: Mapping[str, Any]
    version: str
    path: str
    as_of: str
    windows: Mapping[str, tuple[str, str]]
    rows: Mapping[str, int]
    positives: Mapping[str, int]
    label_delay_days: int
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    network: Mapping[str, Any]
    threshold: float | None
    alert_budget: int
    validation: Mapping[str, float | None]
    metrics: Mapping[str, Any]
    champion: Mapping[str, Any]
    demands: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    served: int | None = None
    run_id: str = ""
    artifacts: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def document(facts: Facts) -> Document:
    """The card's content."""
    words = facts.words
    owners = words["owners"] or ("Nobody is named: set model_card.owners in the configuration.",)
    run = f" by run {facts.run_id}" if facts.run_id else ""
    day = f" as of {facts.as_of}" if facts.as_of else ""
    return Document(
        f"Model card: fraud model {facts.version}",
        f"Trained{run}{day}.",
        (
            Section("Intended use", (Text(words["intended_use"]),)),
            Section("Limits", (Items(tuple(words["limits"])),)),
            Section("Ethics", (Items(tuple(words["ethics"])),)),
            Section("Owners", (Items(tuple(owners)),)),
            _data(facts),
            _features(facts),
            _metrics(facts),
            _calibration(facts),
            _gate(facts),
            Section("Network", (_settings(facts.network),)),
            _lineage(facts),
            _loading(facts),
        ),
    )


def _data(facts: Facts) -> Section:
    rows = []
    for split, count in facts.rows.items():
        first, last = facts.windows.get(split, (UNKNOWN, UNKNOWN))
        frauds = facts.positives.get(split) if split != "recent" else None
        share = frauds / count if frauds is not None and count else None
        rows.append(
            (
                split,
                first,
                last,
                f"{count:,}",
                UNKNOWN if frauds is None else f"{frauds:,}",
                UNKNOWN if share is None else f"{share:.3%}",
            )
        )
    text = "train is learned from, eval is judged on, recent only shows drift."
    if facts.windows:
        text += (
            f" A label is used {facts.label_delay_days} days after its transaction at the earliest:"
            " in features, in training and in evaluation."
        )
    else:
        text += " The data has no time: a hash divides it."
    head = ("window", "first day", "last day", "transactions", "frauds", "share")
    return Section("Data", (Text(text), Table(head, tuple(rows), numbers=True)))


def _features(facts: Facts) -> Section:
    rows = [
        (kind, str(len(columns)), ", ".join(columns))
        for kind, columns in (("numeric", facts.numeric), ("categorical", facts.categorical))
        if columns
    ]
    return Section("Features", (Table(("kind", "columns", "names"), tuple(rows)),))


def _metrics(facts: Facts) -> Section:
    shown = [name for name in INTERVALS if name in facts.metrics.get("overall", {})]
    if not shown:
        return Section("Metrics", (Text("None were measured."),))
    head = ("slice", "transactions", "frauds", *map(_words, shown))
    of_slices = sorted(facts.metrics.get("slices", {}).items())
    rows = []
    for name, row in [("overall", facts.metrics["overall"]), *of_slices]:
        n = Counts.of(row)
        cells = [_with_interval(row.get(m), INTERVALS[m](row.get(m, math.nan), n)) for m in shown]
        rows.append((name, _number(n.examples), _number(n.frauds), *cells))
    text = (
        "On the eval window, with 95 % intervals: Boyd, Eng and Page's logit interval for average "
        "precision, Hanley and McNeil's for ROC AUC, Wilson's for precision and recall. They take "
        "transactions as independent; frauds come in series on one card or terminal, so the real "
        f"uncertainty is larger. A transaction alerts where its score reaches the threshold of "
        f"{facts.alert_budget:,} cards a day."
    )
    return Section("Metrics", (Text(text), Table(head, tuple(rows), numbers=True)))


def _calibration(facts: Facts) -> Section:
    text = (
        f"A transaction alerts from a score of {_number(facts.threshold)} on. Scores are calibrated"
        " (Platt scaling) and the threshold is set on cards held out of training, where the model "
        "showed:"
    )
    rows = [(_words(name), _number(found)) for name, found in sorted(facts.validation.items())]
    table = Table(("metric on held-out cards", "value"), tuple(rows), numbers=True)
    return Section("Calibration and threshold", (Text(text), table))


def _gate(facts: Facts) -> Section:
    found, champion = facts.metrics.get("overall", {}), facts.champion.get("overall", {})
    rows = []
    for name in sorted(set(found) - {"example_count"}):
        change = found[name] - champion[name] if name in champion else None
        least = facts.demands.get(f"min_{name}")
        drop = facts.demands.get(f"max_{name}_drop")
        rows.append(
            (
                _words(name),
                _number(found[name]),
                _number(least, absent=""),
                _number(champion.get(name)),
                UNKNOWN if change is None else f"{change:+.4f}",
                _number(drop, absent=""),
            )
        )
    named = {f"min_{name}" for name in found} | {f"max_{name}_drop" for name in found}
    others = {k: v for k, v in facts.demands.items() if k not in named}
    against = (
        "The champion was judged on the same examples."
        if champion
        else "There was no champion to compare with."
    )
    serving = f"ServingCheck: {facts.served} examples were answered by a fresh process."
    said = [
        "Data gate: passed.",
        *(f"Data gate: {note}." for note in facts.notes),
        f"Evaluator: blessed. {against}",
        *([serving] if facts.served is not None else []),
    ]
    head = ("overall", "this model", "at least", "champion", "change", "may fall by")
    judged = Table(head, tuple(rows), numbers=True)
    return Section("How it was gated", (Items(tuple(said)), judged, _settings(others)))


def _lineage(facts: Facts) -> Section:
    artifacts = [(what, str(number), folder) for what, (number, folder) in facts.artifacts.items()]
    return Section(
        "Lineage",
        (
            Table(("artifact", "id in ML Metadata", "folder"), tuple(artifacts)),
            Table(("made with", "version"), tuple(facts.versions.items())),
        ),
    )


def _loading(facts: Facts) -> Section:
    code = f"""import tensorflow as tf

model = tf.saved_model.load({facts.path!r})
answer = model.signatures["serving_default"](examples=tf.constant([serialized_example]))
answer["score"]  # probability of fraud
answer["alert"]  # 1.0 where the score reaches the threshold"""
    text = (
        "TensorFlow is all it needs. serving_default and explain take serialized tf.train.Example; "
        "predict takes a tensor for each column by its name, in which letters, digits and _ stay "
        "and any other sign becomes _."
    )
    return Section("How to load it", (Text(text), Code(code)))


def _settings(values: Mapping[str, Any]) -> Table:
    return Table(("setting", "value"), tuple((_words(k), str(v)) for k, v in values.items()))


def _words(name: str) -> str:
    return name.replace("_", " ").replace("roc auc", "ROC AUC").replace("brier", "Brier")


def _number(number: float | None, absent: str = UNKNOWN) -> str:
    if number is None:
        return absent
    if not math.isfinite(number):
        return UNKNOWN
    return f"{number:,.0f}" if number == int(number) and abs(number) > 1 else f"{number:.4f}"


def _with_interval(found: float | None, interval: Interval | None) -> str:
    if found is None or math.isnan(found):
        return UNKNOWN
    return f"{found:.3f}" + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else "")

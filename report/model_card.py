"""The model card: the purpose of a pushed model, its origin, and its results.

The outline follows Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fraud.pipeline.artifacts import TOO_FEW_FRAUDS, Change
from fraud.report import figures
from fraud.report.document import Code, Document, Figures, Items, Section, Table, Text

UNKNOWN = "–"
PICTURES = ("Precision and recall", "Calibration", "Confusion by threshold")


@dataclass(frozen=True)
class Facts:
    """Everything a card shows.

    Attributes:
      words: the configured texts: `intended_use`, `limits`, `ethics`, `owners`.
      version, path: of the pushed model, and the folder it was pushed to.
      as_of: the as-of day; empty if the data has no time.
      windows: split → first and last day; empty if the data has no time.
      rows, positives: split → number of transactions, of frauds.
      label_known: from when on a label is known, in words.
      numeric, categorical: the columns the model reads.
      network: its settings by name.
      threshold: the lowest score that raises an alert.
      alert_budget: in words, such as "100 cards a day".
      validation: metrics on the held-out cards by name.
      definitions: the `fraud.models.evaluation.registry.Metric`s, in the order shown.
      metrics: from the Evaluator: `overall` (by name) and `slices` (slice → by name).
      intervals: 95 % intervals of the same metrics, in the same form.
      champion: as `metrics`, for the champion on the same examples; empty if none was evaluated.
      changes: name → `fraud.pipeline.artifacts.Change` from the champion, over all examples.
      demands: the settings of `fraud.models.spec.Evaluation` by name.
      champion_problem: why the champion's inputs could not be computed; empty if they could.
      notes: the checks that the data gate could not make.
      served: the number of examples ServingCheck sent.
      run_id: the run that trained the model; empty if unknown.
      artifacts: type → (id in ML Metadata, folder).
      versions: package → version.
      curves: model → `fraud.models.evaluation.curves.describe`; may be empty.
      importance: column → how much it moves the score; may be empty.
    """

    words: Mapping[str, Any]
    version: str
    path: str
    as_of: str
    windows: Mapping[str, tuple[str, str]]
    rows: Mapping[str, int]
    positives: Mapping[str, int]
    label_known: str
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    network: Mapping[str, Any]
    threshold: float | None
    alert_budget: str
    validation: Mapping[str, float | None]
    definitions: Sequence[Any]
    metrics: Mapping[str, Any]
    intervals: Mapping[str, Any]
    champion: Mapping[str, Any]
    changes: Mapping[str, Change]
    demands: Mapping[str, Any]
    champion_problem: str = ""
    notes: tuple[str, ...] = ()
    served: int | None = None
    run_id: str = ""
    artifacts: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)


def document(facts: Facts) -> Document:
    """The content of the card."""
    words = facts.words
    owners = words["owners"] or ("Not named; set model_card.owners in the configuration.",)
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
            *_pictures(facts),
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
        days = facts.windows.get(split, (UNKNOWN, UNKNOWN))
        labelled = (UNKNOWN, UNKNOWN)
        if split != "recent" and split in facts.positives:
            frauds = facts.positives[split]
            labelled = (f"{frauds:,}", f"{frauds / count:.3%}" if count else UNKNOWN)
        rows.append((split, *days, f"{count:,}", *labelled))
    text = (
        "The model was trained on train and evaluated on eval; recent only served to detect drift."
    )
    if facts.windows:
        text += (
            f" No label was used before {facts.label_known}: "
            "neither in features nor in training or evaluation."
        )
    else:
        text += " The data has no time, so transactions were assigned to splits by a hash."
    head = ("window", "first day", "last day", "transactions", "frauds", "fraud rate")
    return Section("Data", (Text(text), Table(head, tuple(rows), numbers=True)))


def _features(facts: Facts) -> Section:
    rows = [
        (kind, str(len(columns)), ", ".join(columns))
        for kind, columns in (("numeric", facts.numeric), ("categorical", facts.categorical))
        if columns
    ]
    return Section("Features", (Table(("kind", "columns", "names"), tuple(rows)),))


def _metrics(facts: Facts) -> Section:
    overall = facts.metrics.get("overall", {})
    shown = [m for m in facts.definitions if m.headline and m.name in overall]
    if not shown:
        return Section("Metrics", (Text("No metrics were measured."),))
    head = ("slice", "transactions", "frauds", *(metric.title for metric in shown))
    rows = []
    limits = {"overall": facts.intervals.get("overall"), **facts.intervals.get("slices", {})}
    for name, row in [("overall", overall), *sorted(facts.metrics.get("slices", {}).items())]:
        frauds = row.get("true_positives", math.nan) + row.get("false_negatives", math.nan)
        of_slice = limits.get(name) or {}
        cells = [_with_interval(row.get(m.name), of_slice.get(m.name)) for m in shown]
        rows.append((name, _number(row.get("example_count")), _number(frauds), *cells))
    text = (
        "On the eval window, which nothing was chosen on. In parentheses are 95 % intervals, by a "
        "bootstrap that draws whole cards, because frauds come in series on one card; there is "
        "none where fewer than 10 cards have a fraud. Without cards, transactions are drawn. A "
        f"transaction raises an alert if its score reaches the threshold for {facts.alert_budget}."
    )
    return Section("Metrics", (Text(text), Table(head, tuple(rows), numbers=True)))


def _pictures(facts: Facts) -> Iterator[Section]:
    """The charts that a reader of the card needs; the run report has all."""
    shown = figures.quality(facts.curves)
    charts = {title: shown[title] for title in PICTURES if title in shown}
    if importance := figures.importance(facts.importance):
        charts["Mean absolute contribution to the score's logit, on held-out cards"] = importance
    if charts:
        yield Section("Pictures", (Figures(charts),))


def _calibration(facts: Facts) -> Section:
    text = (
        f"A transaction raises an alert if its score is at least {_number(facts.threshold)}. Scores"
        " are calibrated (Platt scaling), and the threshold is set, on cards held out of training. "
        "The results on these cards are optimistic, because epoch, calibration and threshold were "
        "chosen on the same cards:"
    )
    titles = {metric.name: metric.title for metric in facts.definitions}
    rows = [(titles.get(k, _words(k)), _number(v)) for k, v in sorted(facts.validation.items())]
    table = Table(("metric on held-out cards", "value"), tuple(rows), numbers=True)
    return Section("Calibration and threshold", (Text(text), table))


def _gate(facts: Facts) -> Section:
    overall, champion = facts.metrics.get("overall", {}), facts.champion.get("overall", {})
    compared = [m for m in facts.definitions if m.name in overall and m.name != "example_count"]
    rows = []
    for metric in compared:
        value, before = overall[metric.name], champion.get(metric.name)
        change, chance = UNKNOWN, ""
        if told := facts.changes.get(metric.name):
            change, chance = _change(told), _number(told.drop_probability, absent="")
            chance = "not judged" if told.unjudged else chance
        elif before is not None:
            change = f"{value - before:+,.0f}" if metric.is_count else f"{value - before:+.4f}"
        minimum = _number(facts.demands.get(metric.minimum), absent="")
        max_drop = _number(facts.demands.get(metric.max_drop), absent="")
        figures = (_number(value), minimum, _number(before), change, max_drop)
        rows.append((metric.title, *figures, chance))
    in_table = {name for metric in compared for name in (metric.minimum, metric.max_drop)}
    others = {k: v for k, v in facts.demands.items() if k not in in_table}
    against = "There was no champion to compare with."
    if champion:
        against = "The champion was evaluated on the same examples; changes have 95 % intervals."
        if any(told.unjudged for told in facts.changes.values()):
            against += f" Drops were not judged, because {TOO_FEW_FRAUDS}: only the minima applied."
    elif facts.champion_problem:
        against = f"The champion's inputs could not be computed: {facts.champion_problem}."
    checks = [
        "Data gate: passed.",
        *(f"Data gate: {note}." for note in facts.notes),
        f"Evaluator: blessed. {against}",
    ]
    if facts.served is not None:
        checks.append(f"ServingCheck: a fresh process answered {facts.served} examples.")
    columns = ("this model", "minimum", "champion", "change", "largest drop allowed")
    head = ("overall", *columns, "probability of a larger drop")
    table = Table(head, tuple(rows), numbers=True)
    return Section("Checks before the push", (Items(tuple(checks)), table, _settings(others)))


def _lineage(facts: Facts) -> Section:
    artifacts = [(what, str(number), folder) for what, (number, folder) in facts.artifacts.items()]
    return Section(
        "Lineage",
        (
            Table(("artifact", "id in ML Metadata", "folder"), tuple(artifacts)),
            Table(("package", "version"), tuple(facts.versions.items())),
        ),
    )


def _loading(facts: Facts) -> Section:
    code = f"""import tensorflow as tf

model = tf.saved_model.load({facts.path!r})
outputs = model.signatures["serving_default"](examples=tf.constant([serialized_example]))
outputs["score"]  # probability of fraud
outputs["alert"]  # 1.0 where the score reaches the threshold"""
    text = (
        "Only TensorFlow is required. serving_default and explain take serialized "
        "tf.train.Example; predict takes one tensor per column, named after the column with every "
        "character other than letters, digits and _ replaced by _."
    )
    return Section("How to load it", (Text(text), Code(code)))


def _settings(values: Mapping[str, Any]) -> Table:
    return Table(("setting", "value"), tuple((_words(k), str(v)) for k, v in values.items()))


def _words(name: str) -> str:
    return name.replace("_", " ").replace("roc auc", "ROC AUC")


def _number(number: float | None, absent: str = UNKNOWN) -> str:
    if number is None:
        return absent
    if not math.isfinite(number):
        return UNKNOWN
    return f"{number:,.0f}" if number == int(number) and abs(number) > 1 else f"{number:.4f}"


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None or math.isnan(value):
        return UNKNOWN
    return f"{value:.3f}" + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else "")


def _change(told: Change) -> str:
    if told.change is None:
        return UNKNOWN
    limits = "" if told.low is None else f" ({told.low:+.4f} … {told.high:+.4f})"
    return f"{told.change:+.4f}{limits}"

"""The model card: the purpose of a pushed model, its origin, and its results.

The outline follows Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fraud.names import input_name, plural, spoken
from fraud.pipeline.artifacts import MIN_FRAUD_CARDS, TOO_FEW_FRAUDS, Change
from fraud.report import figures
from fraud.report.document import (
    Block,
    Code,
    Document,
    Figures,
    Items,
    Section,
    Table,
    Text,
)

UNKNOWN = "–"
PICTURES = ("Precision and recall", "Calibration", "Confusion by threshold")

MEANINGS = {
    "average_precision": "The area under the curve of precision against recall: 1 ranks every "
    "fraud above all else, chance reaches the share of frauds.",
    "roc_auc": "The probability that a fraud has a higher score than a genuine {row}; 0.5 is "
    "chance.",
    "calibration": "The mean score divided by the share of frauds; 1 is right, above it scores are "
    "too high.",
    "brier": "The mean squared difference between score and label; 0 is perfect.",
    "brier_skill": "How much smaller the Brier score is than that of the share of frauds as the "
    "score of every {row}; 1 is perfect, 0 no better.",
    "expected_calibration_error": "How far scores are from the share of frauds among {rows} "
    "with such a score, on average; 0 is perfect.",
    "example_count": "The number of {rows} that it was measured on.",
    "precision_at_budget": "The share of the alerts that are frauds.",
    "recall_at_budget": "The share of the frauds that raise an alert.",
    "false_positive_rate": "The share of the genuine {rows} that raise an alert.",
    "true_positives": "Frauds that raise an alert.",
    "false_positives": "Genuine {rows} that raise an alert.",
    "false_negatives": "Frauds that raise none.",
    "card_precision": "Of the {entities} that analysts can check in a day, the share with a fraud, "
    "on average; one that was found is not checked again.",
    "expected_cost_saved": "The amounts of frauds that alerts save, less the cost of checking, in "
    "the currency of the amounts.",
    "recall_gap": "Of a slice: how much less of its frauds raise an alert than overall.",
    "false_positive_rate_gap": "Of a slice: how much more of its genuine {rows} raise an "
    "alert than overall.",
}
"""What each metric means, see `meaning`; the formulas are in `fraud.models.evaluation.metrics`."""


@dataclass(frozen=True)
class Facts:
    """Everything a card shows.

    Attributes:
      words: the configured texts: `intended_use`, `limits`, `ethics`, `owners`; the first three are
        None where they shall follow from the data.
      version, path: of the pushed model, and the folder it was pushed to.
      as_of: the as-of day; empty if the data has no time.
      windows: split → first and last day; empty if the data has no time.
      rows, positives: split → number of transactions, of frauds.
      label_known: from when on a label is known, in words.
      numeric, categorical: the columns the model reads.
      card: the column of the entity that alerts are about; empty if the data has none.
      network: its settings by name.
      threshold: the lowest score that raises an alert.
      alert_budget: in words, such as "100 customers a day".
      validation: metrics on held-out rows by name.
      definitions: the `fraud.models.evaluation.registry.Metric`s, in the order shown.
      metrics: from the Evaluator: `overall` (by name) and `slices` (slice → by name).
      intervals: 95 % intervals of the same metrics, in the same form.
      champion: as `metrics`, for the champion on the same examples; empty if none was evaluated.
      changes: name → `fraud.pipeline.artifacts.Change` from the champion, over all examples.
      demands: the settings of `fraud.models.spec.Evaluation` by name.
      champion_problem: why the champion could not be judged; empty if it could.
      notes: the checks that the data gate could not make.
      empty: the columns without any value in train.
      served: the number of examples ServingCheck sent.
      run_id: the run that trained the model; empty if unknown.
      artifacts: type → (id in ML Metadata, folder).
      versions: package → version.
      trained, pushed: when the model was trained and pushed, as text; empty if unknown.
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
    empty: tuple[str, ...] = ()
    served: int | None = None
    run_id: str = ""
    artifacts: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    card: str = ""
    trained: str = ""
    pushed: str = ""

    @property
    def by_day(self) -> bool:
        """Whether analysts check entities by the day."""
        return bool(self.windows and self.card)

    @property
    def row(self) -> str:
        """What a row is called: without time, it may be anything, such as a claim."""
        return "transaction" if self.windows else "row"

    @property
    def rows_are(self) -> str:
        """The plural of `row`."""
        return plural(self.row)

    @property
    def entity(self) -> str:
        """What the values of `card` are called, such as "policy holder"."""
        return spoken(self.card) if self.card else self.row

    @property
    def entities(self) -> str:
        """The plural of `entity`, which are held out of training as a whole."""
        return plural(self.entity)


def document(facts: Facts) -> Document:
    """The content of the card."""
    words = facts.words
    owners = words["owners"] or ("Not named; set model_card.owners in the configuration.",)
    use, limits, ethics = words["intended_use"], words["limits"], words["ethics"]
    run = f" by run {facts.run_id}" if facts.run_id else ""
    day = f" as of {facts.as_of}" if facts.as_of else ""
    trained = f" on {facts.trained}" if facts.trained else ""
    pushed = f", pushed on {facts.pushed}" if facts.pushed else ""
    return Document(
        f"Model card: fraud model {facts.version}",
        f"Trained{trained}{run}{day}{pushed}.",
        (
            _summary(facts),
            Section("Intended use", (Text(_intended_use(facts) if use is None else use),)),
            Section("Limits", (Items(tuple(_limits(facts) if limits is None else limits)),)),
            Section("Ethics", (Items(tuple(_ethics(facts) if ethics is None else ethics)),)),
            Section("Owners", (Items(tuple(owners)),)),
            _data(facts),
            _features(facts),
            _metrics(facts),
            *_pictures(facts),
            _calibration(facts),
            _gate(facts),
            _meanings(facts),
            Section("Network", (_settings(facts.network),)),
            _lineage(facts),
            _loading(facts),
        ),
    )


def _summary(facts: Facts) -> Section:
    overall, champion = facts.metrics.get("overall", {}), facts.champion.get("overall", {})
    limits = facts.intervals.get("overall", {})
    items = []
    if rows := facts.rows.get("train"):
        frauds = facts.positives.get("train", 0)
        items.append(f"Learned from {rows:,} {facts.rows_are}, of which {frauds:,} were frauds.")
    shown = [m for m in facts.definitions if m.name in ("average_precision", "roc_auc")]
    measured = [
        f"{m.title} {_with_interval(overall.get(m.name), limits.get(m.name))}"
        for m in shown
        if m.name in overall
    ]
    if measured:
        count = _count(overall.get("example_count"))
        rate = facts.positives.get("eval", 0) / max(1, facts.rows.get("eval", 0))
        items.append(
            f"On {count} {facts.rows_are} that nothing was chosen on: {', '.join(measured)}. "
            f"Chance would reach {rate:.3f} and 0.5."
        )
    if facts.threshold is not None and facts.threshold <= 0:
        items.append(
            f"Warning: the alert budget covers everything, so every {facts.row} raises an alert "
            "and recall is 1. Lower evaluation.alert_budget, or leave it out."
        )
    elif "recall_at_budget" in overall:
        items.append(
            f"With a budget of {facts.alert_budget}, its alerts find "
            f"{_share(overall.get('recall_at_budget'))} of the frauds; "
            f"{_share(overall.get('precision_at_budget'))} of the alerts are frauds, and "
            f"{_share(overall.get('false_positive_rate'))} of the genuine {facts.rows_are} raise "
            "one."
        )
    change = facts.changes.get("average_precision")
    if champion and change and change.change is not None:
        items.append(
            f"Its average precision is {change.change:+.3f} compared with the model it replaced, "
            f"on the same {facts.rows_are}."
        )
    elif not champion:
        items.append("It was not compared with another model.")
    if facts.empty:
        items.append(f"Ignored, without any value in train: {', '.join(facts.empty)}.")
    if unjudged := _unjudged(facts):
        items.append(f"Too small to be judged by themselves: {len(unjudged)} slices; see Metrics.")
    return Section("Summary", (Items(tuple(items)),))


def _intended_use(facts: Facts) -> str:
    what = "the most suspicious ones first"
    if facts.by_day:
        what = f"the most suspicious {facts.entities} of a day first"
    entity = f" Each {facts.entity} is a value of {facts.card}." if facts.card else ""
    return (
        f"To rank {facts.rows_are} by how likely they are fraud, so that analysts check {what}."
        f"{entity} A person decides what happens next; no one should be refused because of the "
        "score alone."
    )


def _limits(facts: Facts) -> tuple[str, ...]:
    window = "train window" if facts.windows else "train data"
    grows = f"{facts.entities} and {facts.rows_are}" if facts.by_day else facts.rows_are
    return (
        f"It knows the kinds of fraud in its {window}; it detects a new kind only as far as that "
        "resembles them.",
        "Fraud that nobody noticed counts as genuine, in training and in these figures.",
        f"The threshold fits the number of {grows} in its {window}: as they "
        "grow, so do the alerts.",
        f"Scores are for {facts.rows_are} from the source that it learned from, recorded the same "
        "way.",
    )


def _ethics(facts: Facts) -> tuple[str, ...]:
    return (
        "A false alert burdens someone genuine. Compare the figures of the slices; a group whose "
        f"genuine {facts.rows_are} raise more alerts carries more of that burden.",
        "A column can be a proxy for a protected trait or for where people live. Leave such "
        "columns out, or evaluate them as slices.",
        "A score is not proof. Anyone who is refused something should be told why and be able to "
        "object.",
    )


def _data(facts: Facts) -> Section:
    rows = []
    for split, count in facts.rows.items():
        days = facts.windows.get(split, (UNKNOWN, UNKNOWN)) if facts.windows else ()
        labelled = (UNKNOWN, UNKNOWN)
        if split != "recent" and split in facts.positives:
            frauds = facts.positives[split]
            labelled = (f"{frauds:,}", f"{frauds / count:.3%}" if count else UNKNOWN)
        rows.append((split, *days, f"{count:,}", *labelled))
    text = "The model was trained on train and evaluated on eval"
    if facts.windows:
        text += (
            "; recent only served to detect drift."
            f" No label was used before {facts.label_known}: "
            "neither in features nor in training or evaluation."
        )
    else:
        text += ". The data has no time, so rows were assigned to splits by a hash."
    of_time = ("window", "first day", "last day") if facts.windows else ("split",)
    head = (*of_time, facts.rows_are, "frauds", "fraud rate")
    return Section("Data", (Text(text), Table(head, tuple(rows), numbers=True)))


def _features(facts: Facts) -> Section:
    kinds = {"numeric": facts.numeric, "categorical": facts.categorical}
    learned = {kind: [c for c in of if c not in facts.empty] for kind, of in kinds.items()}
    learned["ignored: no value in train"] = list(facts.empty)
    rows = [(kind, str(len(names)), ", ".join(names)) for kind, names in learned.items() if names]
    return Section("Features", (Table(("kind", "columns", "names"), tuple(rows)),))


def _metrics(facts: Facts) -> Section:
    overall = facts.metrics.get("overall", {})
    named = [m for m in facts.definitions if m.headline or m.name == "false_positive_rate"]
    shown = [m for m in named if m.name in overall]
    if not shown:
        return Section("Metrics", (Text("No metrics were measured."),))
    head = ("slice", facts.rows_are, "frauds", *(metric.title for metric in shown))
    rows = []
    limits = {"overall": facts.intervals.get("overall"), **facts.intervals.get("slices", {})}
    for name, row in [("overall", overall), *sorted(facts.metrics.get("slices", {}).items())]:
        frauds = row.get("true_positives", math.nan) + row.get("false_negatives", math.nan)
        of_slice = limits.get(name) or {}
        cells = [_with_interval(row.get(m.name), of_slice.get(m.name)) for m in shown]
        rows.append((name, _count(row.get("example_count")), _count(frauds), *cells))
    where = "the eval window" if facts.windows else "the eval split"
    drawn = (
        f"draws whole {facts.entities}, because the frauds of one come in series; there is none "
        f"where fewer than {MIN_FRAUD_CARDS} {facts.entities} have a fraud"
        if facts.card
        else f"draws {facts.rows_are}; there is none where there are fewer than {MIN_FRAUD_CARDS} "
        "frauds"
    )
    text = (
        f"On {where}, which nothing was chosen on. In parentheses are 95 % intervals, by a "
        f"bootstrap that {drawn}. A {facts.row} raises an alert if its score reaches the threshold "
        f"for {facts.alert_budget}."
    )
    if (share := figures.sample_share(facts.curves)) < 1:
        text += (
            f" There are so many {facts.rows_are} that intervals, curves, costs and checks by day "
            f"were measured on a sample of {100 * share:.3g} % of the {facts.entities}."
        )
    blocks: list[Block] = [Text(text), Table(head, tuple(rows), numbers=True)]
    if unjudged := _unjudged(facts):
        blocks.append(Text("Slices with too few examples to be judged against the others:"))
        blocks.append(Items(tuple(f"{name}: {', '.join(gaps)}" for name, gaps in unjudged.items())))
    return Section("Metrics", tuple(blocks))


def _unjudged(facts: Facts) -> dict[str, list[str]]:
    """Slice → the gaps that it has too few examples for."""
    gaps = [m for m in facts.definitions if m.max_gap]
    found = {
        name: [m.title for m in gaps if m.name in row and row[m.name] is None]
        for name, row in sorted(facts.metrics.get("slices", {}).items())
    }
    return {name: titles for name, titles in found.items() if titles}


def _pictures(facts: Facts) -> Iterator[Section]:
    """The charts that a reader of the card needs; the run report has all."""
    shown = figures.quality(facts.curves)
    charts = {title: shown[title] for title in PICTURES if title in shown}
    if importance := figures.importance(facts.importance):
        title = f"Mean absolute contribution to the score's logit, on held-out {facts.entities}"
        charts[title] = importance
    if charts:
        yield Section("Pictures", (Figures(charts),))


def _calibration(facts: Facts) -> Section:
    text = (
        f"A {facts.row} raises an alert if its score is at least {_number(facts.threshold)}. Scores"
        f" are calibrated (Platt scaling), and the threshold is set, on {facts.entities} held out "
        f"of training. The results on these {facts.entities} are optimistic, because epoch, "
        f"calibration and threshold were chosen on the same {facts.entities}:"
    )
    titles = {metric.name: metric.title for metric in facts.definitions}
    rows = [(titles.get(k, _words(k)), _number(v)) for k, v in sorted(facts.validation.items())]
    table = Table((f"metric on held-out {facts.entities}", "value"), tuple(rows), numbers=True)
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
        number = _count if metric.is_count else _number
        minimum = _number(facts.demands.get(metric.minimum), absent="")
        max_drop = _number(facts.demands.get(metric.max_drop), absent="")
        figures = (number(value), minimum, number(before), change, max_drop)
        rows.append((metric.title, *figures, chance))
    in_table = {name for metric in compared for name in (metric.minimum, metric.max_drop)}
    others = {k: v for k, v in facts.demands.items() if k not in in_table}
    against = "There was no champion to compare with."
    if champion:
        against = "The champion was evaluated on the same examples; changes have 95 % intervals."
        if any(told.unjudged for told in facts.changes.values()):
            against += f" Drops were not judged, because {TOO_FEW_FRAUDS}: only the minima applied."
    elif facts.champion_problem:
        against = f"The champion was not judged: {facts.champion_problem}."
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


def _meanings(facts: Facts) -> Section:
    """What each figure on the card means."""
    names = {
        m.name: m.title for m in facts.definitions if m.name in facts.metrics.get("overall", {})
    }
    names |= {m.name: m.title for m in facts.definitions if m.max_gap}
    titles = {m.name: m.title for m in facts.definitions}
    names |= {name: titles.get(name, _words(name)) for name in sorted(facts.validation)}
    meanings = {name: meaning(name, facts.row, facts.entity) for name in names}
    rows = [(title, meanings[name]) for name, title in names.items() if meanings[name]]
    return Section("What the figures mean", (Table(("figure", "meaning"), tuple(rows)),))


def meaning(name: str, row: str, entity: str) -> str:
    """What a metric means, as a sentence; empty if it is unknown.

    Args:
      name: of the metric.
      row: what the data calls a row, such as "transaction".
      entity: what it calls those who are checked, such as "customer".
    """
    text = MEANINGS.get("card_precision" if name.startswith("card_precision") else name, "")
    return text.format(row=row, rows=plural(row), entities=plural(entity))


def _loading(facts: Facts) -> Section:
    columns = [
        *((c, "float32") for c in facts.numeric),
        *((c, "string") for c in facts.categorical),
    ]
    values = {name: 1.0 if type_ == "float32" else "x" for name, type_ in columns}
    row = "\n".join(f"    {name!r}: {value!r}," for name, value in values.items())
    tensors = "\n".join(f"    {input_name(n)!r}: tf.constant([{v!r}])," for n, v in values.items())
    examples = f"""import tensorflow as tf

model = tf.saved_model.load({facts.path!r})
row = {{  # numbers and text; leave out what is missing
{row}
}}


def feature(value):
    if isinstance(value, str):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
    return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))


features = tf.train.Features(feature={{name: feature(v) for name, v in row.items()}})
serialized = tf.train.Example(features=features).SerializeToString()
outputs = model.signatures["serving_default"](examples=tf.constant([serialized]))
outputs["score"]  # probability of fraud
outputs["alert"]  # 1.0 where the score reaches the threshold"""
    explain = """outputs = model.signatures["explain"](examples=tf.constant([serialized]))
outputs["reason"]  # the columns that contributed most to the score
outputs["contribution"]  # by how much"""
    predict = f"""import tensorflow as tf

model = tf.saved_model.load({facts.path!r})
inputs = {{  # one value per row; NaN and "" mean missing
{tensors}
}}
outputs = model.signatures["predict"](**inputs)
outputs["score"], outputs["alert"]"""
    text = (
        "Only TensorFlow is required. Features that are computed from the history of an entity are "
        "inputs like any other column. serving_default takes serialized tf.train.Example:"
    )
    table = tuple((name, type_, input_name(name)) for name, type_ in columns)
    return Section(
        "How to load it",
        (
            Text(text),
            Code(examples),
            Text("explain takes the same, and also says why:"),
            Code(explain),
            Text(
                "predict takes one tensor per column, named after the column with every character "
                "other than letters, digits and _ replaced by _:"
            ),
            Code(predict),
            Table(("column", "type", "input of predict"), table),
        ),
    )


def _settings(values: Mapping[str, Any]) -> Table:
    rows = tuple((_words(k), "not set" if v is None else str(v)) for k, v in values.items())
    return Table(("setting", "value"), rows)


def _words(name: str) -> str:
    return name.replace("_", " ").replace("roc auc", "ROC AUC")


def _number(number: float | None, absent: str = UNKNOWN) -> str:
    if number is None:
        return absent
    if not math.isfinite(number):
        return UNKNOWN
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4f}"


def _count(number: float | None) -> str:
    return UNKNOWN if number is None or not math.isfinite(number) else f"{number:,.0f}"


def _share(number: float | None) -> str:
    return UNKNOWN if number is None or not math.isfinite(number) else f"{number:.1%}"


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None or math.isnan(value):
        return UNKNOWN
    return f"{value:.3f}" + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else "")


def _change(told: Change) -> str:
    if told.change is None:
        return UNKNOWN
    limits = "" if told.low is None else f" ({told.low:+.4f} … {told.high:+.4f})"
    return f"{told.change:+.4f}{limits}"

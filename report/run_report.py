"""The report on a run: everything that was recorded about it, as one page that loads nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fraud.pipeline import artifacts, distributions, lineage, lineage_graph
from fraud.pipeline.artifacts import Change, ExamplesFacts, RunSummary, Training, Verdict, value
from fraud.pipeline.decisions import Demands
from fraud.pipeline.distributions import Distribution, Divergence
from fraud.pipeline.lineage import NodeRecord
from fraud.pipeline.lineage_graph import Origin
from fraud.pipeline.records import StoreRecords
from fraud.report import charts, figures, lineage_picture, lineage_text
from fraud.report.charts import Axis, Estimate
from fraud.report.figures import CHAMPION, title, words
from fraud.report.pages import render_page

TOO_SMALL = "too few examples"
_SPLITS: tuple[str, ...] = ("train", "eval", "recent")

WORDS = {
    "pushed": "pushed",
    "not_blessed": "not blessed",
    "not_pushed": "not pushed",
    "replay": "replay, not pushed",
    "on_probation": "on probation",
    "gate_stopped": "stopped by the data gate",
}


@dataclass(frozen=True)
class Check:
    """One verdict.

    Attributes:
      name: the node.
      passed: whether it was satisfied; of the Pusher, whether it pushed.
      reasons: what it said.
    """

    name: str
    passed: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """One column of the data.

    Attributes:
      name: of the column.
      splits: split, or "champion" for the champion's train → distribution.
      drift: what it was compared with and of which split → divergence.
      anomalies: why the data gate refused it.
    """

    name: str
    splits: dict[str, Distribution]
    drift: dict[str, Divergence]
    anomalies: tuple[str, ...]

    @property
    def furthest(self) -> tuple[str, Divergence] | None:
        """The comparison with the largest divergence relative to its threshold."""
        return max(
            self.drift.items(),
            key=lambda item: item[1].value / (item[1].threshold or 1),
            default=None,
        )

    @property
    def categories(self) -> list[str]:
        """The categories that have a share; empty for numbers."""
        shares = [d.shares for d in self.splits.values() if isinstance(d, distributions.Categories)]
        return list(dict.fromkeys(name for of_split in shares for name in of_split))

    @property
    def strain(self) -> float:
        """The largest divergence relative to its threshold."""
        if self.furthest is None:
            return 0.0
        return self.furthest[1].value / (self.furthest[1].threshold or 1)


@dataclass(frozen=True)
class Facts:
    """Everything that a report shows. What a run did not get to, or was deleted, is empty.

    Attributes:
      run_id: the run.
      nodes: its nodes in their order.
      summary: None if it has not finished.
      data: its transactions.
      verdict: of the data gate.
      columns: those of the data first, then the features that statistics were made of.
      demands: what the Evaluator demanded.
      curves: model → description; see `fraud.models.evaluation.curves`.
      training: of the challenger.
      origin: the lineage of what it ended with.
    """

    run_id: str
    nodes: tuple[NodeRecord, ...]
    summary: RunSummary | None = None
    data: ExamplesFacts | None = None
    verdict: Verdict | None = None
    columns: tuple[Column, ...] = ()
    demands: Demands = field(default_factory=Demands)
    curves: Mapping[str, Any] = field(default_factory=dict)
    training: Training | None = None
    origin: Origin | None = None


def read(store: Any, pushed: Path, run_folder: Path, run_id: str) -> Facts:
    """Reads the facts about a run.

    Args:
      store: ML Metadata.
      pushed: the push folder.
      run_folder: of the run, with its summary.
      run_id: an existing run.
    """
    nodes = lineage.nodes(store, run_id)
    outputs: dict[str, Any] = {}  # "node.key" → artifact, if its files are there
    for record in nodes.values():
        for key, of_key in record.outputs.items():
            if of_key and lineage.has_files(of_key[-1]):
                outputs[f"{record.name}.{key}"] = of_key[-1]
    examples = next(
        (
            a
            for r in nodes.values()
            for of in r.outputs.values()
            for a in of
            if a.type == "Examples"
        ),
        None,
    )
    verdict = outputs.get("DataGate.verdict")
    model, evaluation = outputs.get("Trainer.model"), outputs.get("Evaluator.evaluation")
    evaluators = lineage.executions(store, run_id, "Evaluator")
    eval_config = value(evaluators[-1], "eval_config") if evaluators else None
    told = Verdict.read(verdict) if verdict else None
    return Facts(
        run_id=run_id,
        nodes=tuple(nodes.values()),
        summary=RunSummary.read(run_folder),
        data=ExamplesFacts.read(examples) if examples else None,
        verdict=told,
        columns=_columns(store, outputs, told),
        demands=Demands.read(eval_config) if eval_config else Demands(),
        curves=artifacts.curves(evaluation) if evaluation else {},
        training=Training.read(model) if model else None,
        origin=_origin(store, pushed, run_id),
    )


def render(facts: Facts, link: str = "") -> str:
    """The report as a page.

    Args:
      facts: about the run.
      link: what the addresses of lineages begin with; "" for a page without links.
    """
    return render_page("run_report.html", link=link, **_content(facts))


def pictures(facts: Facts) -> dict[str, str]:
    """The charts of a run's model, each a page of its own, by file name; empty without a model."""
    training, importance = {}, None
    if facts.training:
        training = figures.training(facts.training.history)
        importance = figures.importance(facts.training.importance)
    drawn: dict[str, Markup] = {
        **_quality(facts),
        **{f"Slices {metric}": chart for metric, chart in _slices(facts).items()},
        **{f"Slices {gap}": chart for gap, chart in _gaps(facts).items()},
        **{f"Training {name}": chart for name, chart in training.items()},
        **({"Importance": importance} if importance else {}),
    }
    return {
        re.sub(r"\W+", "_", name.lower()).strip("_") + ".html": render_page(
            "chart.html", title=name, chart=chart
        )
        for name, chart in drawn.items()
    }


def _columns(store: Any, outputs: Mapping[str, Any], verdict: Verdict | None) -> tuple[Column, ...]:
    statistics = outputs.get("StatisticsGen.statistics")
    if statistics is None:
        return ()
    of_run = distributions.columns(statistics)
    of_champion: dict[str, dict[str, Distribution]] = {}
    drift: dict[str, dict[str, Divergence]] = {}
    compared = {"champion": "DistributionValidator", "reference": "ReferenceValidator"}
    for baseline, node in compared.items():
        anomalies = outputs.get(f"{node}.anomalies")
        if anomalies is None:
            continue
        for split, of_split in distributions.divergences(anomalies).items():
            for name, divergence in of_split.items():
                drift.setdefault(name, {})[f"{split} from {baseline}"] = divergence
        uri = value(anomalies, "baseline")
        if baseline == "champion" and uri and Path(uri).is_dir():
            found = store.get_artifacts_by_uri(uri)
            of_champion = distributions.columns(found[0]) if found else {}
    refused: dict[str, list[str]] = {}
    for anomaly in verdict.anomalies if verdict else ():
        refused.setdefault(anomaly.feature, []).append(
            f"{anomaly.window}: {anomaly.description or anomaly.anomaly}"
        )
    result = []
    for name, splits in of_run.items():
        ordered = {split: splits[split] for split in _SPLITS if split in splits}
        if "train" in of_champion.get(name, {}):
            ordered[CHAMPION] = of_champion[name]["train"]
        result.append(Column(name, ordered, drift.get(name, {}), tuple(refused.get(name, ()))))
    return tuple(sorted(result, key=lambda c: (not c.anomalies, -c.strain)))


def _origin(store: Any, pushed: Path, run_id: str) -> Origin | None:
    found = lineage_graph.find(StoreRecords(store), pushed, run_id)
    return found if isinstance(found, Origin) and found.starts else None


def _content(facts: Facts) -> dict[str, Any]:
    """What the template needs."""
    summary, origin = facts.summary, facts.origin
    failed = [n for n in facts.nodes if n.state in ("FAILED", "CANCELED")]
    named = {column.name for column in facts.columns if column.drift or column.anomalies}
    return {
        "facts": facts,
        "summary": summary,
        "outcome": _outcome(facts, failed),
        "failed": failed,
        "checks": tuple(_checks(facts)),
        "windows": _windows(facts),
        "compared": [c for c in facts.columns if c.name in named],
        "others": [c for c in facts.columns if c.name not in named],
        "column_chart": column_chart,
        "metrics": tuple(_metrics(facts)),
        "quality": _quality(facts),
        "sample_share": figures.sample_share(facts.curves),
        "slices": _slices(facts),
        "gaps": _gaps(facts),
        "training": figures.training(facts.training.history) if facts.training else {},
        "importance": figures.importance(facts.training.importance) if facts.training else None,
        "picture": lineage_picture.picture(origin.back) if origin else None,
        "code": tuple(lineage_text.code_of(origin.back)) if origin else (),
        "seconds": _seconds(facts),
        "number": number,
    }


def _outcome(facts: Facts, failed: Sequence[NodeRecord]) -> tuple[str, str]:
    """A class for the colour, and the outcome in words."""
    if facts.summary:
        kind = "good" if facts.summary.outcome == "pushed" else "bad"
        text = WORDS[facts.summary.outcome]
        if facts.summary.outcome == "pushed":
            text = f"pushed as version {facts.summary.pushed_version}"
        return kind, text
    if failed:
        return "bad", f"failed in {failed[-1].name}"
    return "open", "not finished"


def _checks(facts: Facts) -> Iterator[Check]:
    by_name = {node.name: node for node in facts.nodes}
    if facts.verdict:
        found = tuple(map(str, facts.verdict.anomalies))
        notes = tuple(f"noted: {note}" for note in facts.verdict.notes)
        yield Check("DataGate", facts.verdict.passed, found + notes)
    for name, key in (("Evaluator", "blessing"), ("ServingCheck", "blessing")):
        made = by_name[name].outputs.get(key, []) if name in by_name else []
        if made:
            passed = value(made[-1], "blessed") == 1
            reasons: tuple[str, ...] = ()
            if name == "ServingCheck":
                reasons = tuple(filter(None, [value(made[-1], "reason")]))
            elif facts.summary and not passed:
                reasons = tuple(r for r in facts.summary.reasons if ": " in r)
            yield Check(name, passed, reasons)
    pushes = by_name["Pusher"].outputs.get("pushed_model", []) if "Pusher" in by_name else []
    if pushes:
        push = artifacts.Push.read(pushes[-1])
        yield Check("Pusher", push.pushed, tuple(filter(None, [push.reason])))


def _windows(facts: Facts) -> Markup | None:
    """The windows on a time line, with the gap in which labels became known."""
    if not facts.data or not facts.data.windows:
        return None
    days = {
        s: (date.fromisoformat(a), date.fromisoformat(b))
        for s, (a, b) in facts.data.windows.items()
    }
    first = min(a for a, _ in days.values()).toordinal()
    last = max(b for _, b in days.values()).toordinal() + 1
    drawn = []
    for split, (a, b) in sorted(days.items(), key=lambda item: item[1]):
        rows = facts.data.rows.get(split, 0)
        told = f"{a} … {b}, {rows:,} rows"
        drawn.append((split, a.toordinal(), b.toordinal() + 1, told))
    ticks = [
        (int(day), date.fromordinal(int(day)).strftime("%d %b"))
        for day in charts.round_values(first, last, 4)
    ]
    return charts.spans("Windows of the run", Axis("day", first, last, ticks=ticks), drawn)


def column_chart(column: Column) -> Markup:
    """The distributions of a column in each split."""
    numbers = {
        split: of.quantiles
        for split, of in column.splits.items()
        if isinstance(of, distributions.Numbers) and len(of.quantiles) == 11
    }
    label = f"Distribution of {column.name}"
    if numbers:
        low = min(q[1] for q in numbers.values())
        high = max(q[9] for q in numbers.values())
        is_log = low > 0 and high / low > 50
        return charts.spreads(
            label, Axis("value", low, high if high > low else low + 1, is_log), numbers
        )
    categories = {
        split: of.shares
        for split, of in column.splits.items()
        if isinstance(of, distributions.Categories)
    }
    names = list(dict.fromkeys(name for shares in categories.values() for name in shares))
    series = {
        split: [shares.get(name, 0.0) for name in names] for split, shares in categories.items()
    }
    return charts.rows(label, names, series, "{:.1%}".format) if names else Markup("")


@dataclass(frozen=True)
class Measured:
    """One row of the table of metrics, all but the flag as text."""

    title: str
    value: str
    interval: str
    minimum: str
    champion: str
    change: str
    max_drop: str
    drop_probability: str


def _metrics(facts: Facts) -> Iterator[Measured]:
    if facts.summary is None:
        return
    overall = facts.summary.metrics.get("overall", {})
    before = facts.summary.champion_metrics.get("overall", {})
    intervals = facts.summary.intervals.get("overall", {})
    headline_first = sorted(overall.items(), key=lambda item: item[0] not in artifacts.HEADLINE)
    for name, own in headline_first:
        change = facts.summary.changes.get(name, Change(None, None, None))
        low, high = intervals.get(name, (None, None))
        yield Measured(
            title=words(name),
            value=number(own),
            interval=_interval(low, high),
            minimum=number(facts.demands.minima.get(name), ""),
            champion=number(before.get(name), ""),
            change=number(change.change, "", "+.4f") + _brackets(change.low, change.high),
            max_drop=number(facts.demands.max_drops.get(name), ""),
            drop_probability=number(change.drop_probability, "", ".3f"),
        )


def _quality(facts: Facts) -> dict[str, Markup]:
    """The charts of the evaluation, by title."""
    shown = figures.quality(facts.curves)
    if shown and (changes := _changes(facts)):
        shown["Change from the champion"] = changes
    return shown


def _changes(facts: Facts) -> Markup | None:
    changes = facts.summary.changes if facts.summary else {}
    drawn = [Estimate(words(name), c.change, c.low, c.high) for name, c in changes.items()]
    reach = [abs(v) for e in drawn for v in (e.value, e.low, e.high) if v is not None]
    if not reach:
        return None
    most = max(*reach, 0.01)
    limits = {words(name): -drop for name, drop in facts.demands.max_drops.items()}
    return charts.estimates(
        "Change of each metric from the champion's, with 95 % interval and the drop allowed",
        Axis("challenger − champion", -most * 1.05, most * 1.05),
        drawn,
        at_line=0,
        limits={name: limit for name, limit in limits.items() if -limit <= most * 1.05},
    )


def _slices(facts: Facts) -> dict[str, Markup]:
    """A chart of each headline metric over the slices."""
    summary = facts.summary
    if summary is None or not summary.metrics.get("slices"):
        return {}
    shown = {}
    for metric in artifacts.HEADLINE:
        drawn = []
        of_all = [
            ("overall", summary.metrics["overall"]),
            *sorted(summary.metrics["slices"].items()),
        ]
        for name, row in of_all:
            limits = summary.intervals.get("slices", {}).get(name, {})
            if name == "overall":
                limits = summary.intervals.get("overall", {})
            low, high = limits.get(metric, (None, None))
            drawn.append(Estimate(name, finite(row.get(metric)), low, high))
        overall = drawn[0].value
        shown[title(words(metric))] = charts.estimates(
            f"{words(metric)} of each slice, with 95 % interval",
            Axis(words(metric), 0, 1),
            drawn,
            at_line=overall,
        )
    return shown


def _gaps(facts: Facts) -> dict[str, Markup]:
    """A chart of each gap over the slices, with the largest that is allowed."""
    slices = facts.summary.metrics.get("slices", {}) if facts.summary else {}
    shown = {}
    for name, most in facts.demands.max_gaps.items():
        drawn = [
            Estimate(of_slice, finite(row[name]), absent=TOO_SMALL)
            for of_slice, row in sorted(slices.items())
            if name in row
        ]
        known = [gap.value for gap in drawn if gap.value is not None]
        if known:
            reach = 1.1 * max(abs(most), *map(abs, known))
            shown[title(words(name))] = charts.estimates(
                f"{words(name)} of each slice, with the largest that is allowed",
                Axis("worse than overall by", -reach, reach),
                drawn,
                at_line=0,
                limits={gap.name: most for gap in drawn if gap.value is not None},
            )
    return shown


def _seconds(facts: Facts) -> Markup | None:
    seconds = dict(facts.summary.seconds) if facts.summary else {}
    seconds = seconds or {node.name: node.seconds for node in facts.nodes}
    if not seconds:
        return None
    return charts.rows(
        "Seconds of each node",
        list(seconds),
        {"seconds": list(seconds.values())},
        "{:.1f} s".format,
    )


def finite(number: float | None) -> float | None:
    """A number; None if it is none, or undefined."""
    return number if number is not None and math.isfinite(number) else None


def number(value: float | None, absent: str = "–", form: str = "") -> str:
    """A number as text, counts without decimals."""
    if value is None or not math.isfinite(value):
        return absent
    if form:
        return format(value, form)
    is_count = value == int(value) and abs(value) > 1
    return f"{value:,.0f}" if is_count or abs(value) >= 1000 else f"{value:.4f}"


def _interval(low: float | None, high: float | None) -> str:
    return f"{low:.3f} … {high:.3f}" if low is not None and high is not None else ""


def _brackets(low: float | None, high: float | None) -> str:
    return f" ({low:+.4f} … {high:+.4f})" if low is not None and high is not None else ""

"""A run on the terminal: the progress line of a node, and the summary at the end."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from fraud.pipeline import artifacts
from fraud.pipeline.artifacts import HEADLINE, Change, Push, Row, RunSummary
from fraud.pipeline.lineage import NodeRecord

TENSORBOARD = Path(sys.prefix, "bin", "tensorboard")
"""By its path, because users need not activate the environment."""

VALIDATED = {"threshold": "threshold", "brier": "Brier", "expected_calibration_error": "ECE"}
"""Metric on the held-out cards → its label."""

WHY_NOT = {
    "gate_stopped": "stopped by the data gate",
    "not_blessed": "not pushed: the model was not blessed",
    "replay": "not pushed: replay",
    "not_pushed": "not pushed",
    "on_probation": "not pushed yet: on probation",
}
"""Outcome of a run → what to say about it."""

_ADVICE = {
    "schema": "  If the data is right, let the schema accept it: fraud-pipeline schema --diff"
    "{options} shows how, --update writes it.",
    "no schema": "  If the data is right, name a file for the schema as paths.schema in the "
    "configuration;\n  then let it accept the data: fraud-pipeline schema --update{options}",
    "drift": "  If the change is expected, allow it until it is as old as the windows, by this "
    "in the configuration:\n    data_gate: {{drift_thresholds: {{{columns}}}}}\n"
    "  If it lasts, name a run on data like this as data_gate.reference_run.",
    "empty": "  To go on without these columns, set data_gate.empty_columns to ignore.",
    "labels": "  Choose other windows (windows.train_days, windows.eval_days), or check the labels "
    "of these days.",
    "labels without days": "  Move rows between train and eval (windows.hash_eval_percent), check "
    "the labels,\n  or bring more rows.",
}
"""What failed in the data gate → what to do if the data is right."""


def node_detail(record: NodeRecord) -> str:
    """The result of a node in a few words; empty if there is nothing to tell."""
    for artifact in (a for outputs in record.outputs.values() for a in outputs):
        match artifact.type:
            case "Examples" if record.name == "TransactionExampleGen":
                rows = artifacts.ExamplesFacts.read(artifact).rows
                return " · ".join(f"{split} {count:,} rows" for split, count in rows.items())
            case "fraud.DataVerdict":
                return "passed" if artifacts.value(artifact, "passed") == 1 else "stops the run"
            case "ModelBlessing" | "InfraBlessing":
                return "blessed" if artifacts.value(artifact, "blessed") == 1 else "not blessed"
            case "PushedModel" if record.name == "Pusher":
                push = Push.read(artifact)
                why = f": {push.reason}" if push.reason else ""
                return f"version {push.version}" if push.pushed else f"nothing pushed{why}"
            case "TunerResults":
                scores = artifacts.trial_scores(artifact)
                return f"average precision {max(scores):.3f}, the best of {len(scores)}"
            case "fraud.ModelCard":
                written = artifacts.CardFiles.read(artifact).written
                return "written" if written else "none: nothing pushed"
    return ""


def render(
    summary: RunSummary, options: str = "", has_schema: bool = True, report: Path | None = None
) -> str:
    """The summary of a run: data, model, metrics, what was pushed or why not, where to look.

    Args:
      summary: the run.
      options: `--config` and `--root` as they were given, for the commands that are suggested.
      has_schema: whether the configuration names a file for the curated schema.
      report: the page about the run; None if there is none.
    """
    lines = [""]
    for split, (first, last) in sorted(summary.windows.items(), key=lambda item: item[1]):
        rows, frauds = summary.rows[split], summary.positives.get(split)
        known = f"{frauds:>7,} frauds" if frauds is not None else "labels not known yet"
        lines.append(f"  {split:<7} {first} … {last}  {rows:>10,} rows  {known}")
    stopped = summary.outcome == "gate_stopped"
    lines += ["", "; ".join([f"  data      {'stopped' if stopped else 'passed'}", *summary.notes])]
    if summary.tuned:
        lines.append(f"  tuned     {summary.tuned}")
    if summary.validation:
        figures = [
            f"{label} {_figure(summary.validation.get(name), '.4f')}"
            for name, label in VALIDATED.items()
        ]
        chosen = "optimistic: they also chose epoch, calibration and threshold"
        lines.append(f"  model     {' · '.join(figures)}, on held-out data ({chosen})")
    if summary.metrics:
        lines += ["", *_metric_table(summary)]
        too_small: dict[str, list[str]] = {}
        for name in summary.unjudged:
            group, _, metric = name.rpartition(": ")
            too_small.setdefault(metric, []).append(group)
        lines += [
            f"  unjudged  {metric}, too few examples: {', '.join(slices)}"
            for metric, slices in too_small.items()
        ]
        if drops := [n.replace("_", " ") for n, of in summary.changes.items() if of.unjudged]:
            why = f"{artifacts.TOO_FEW_FRAUDS} in eval; only the minima apply"
            lines.append(f"  unjudged  drops from the champion ({', '.join(drops)}): {why}")
    lines.append("")
    if summary.outcome == "pushed":
        lines.append(f"  pushed    version {summary.pushed_version}: {summary.pushed_path}")
        if summary.model_card:
            lines.append(f"  card      {summary.model_card}")
    else:
        why = WHY_NOT[summary.outcome]
        live = summary.live_version
        lines.append(f"  {why}; {f'version {live} stays live' if live else 'nothing is live'}")
        lines += [f"    - {reason}" for reason in summary.reasons]
        lines += _advice(summary, options, has_schema)
    lines += [f"  warning   {problem}" for problem in summary.disagreements]
    if summary.inferred_schema:
        lines.append(f"  schema    {summary.inferred_schema}: inferred; review it like code")
    lines += [
        "",
        f"  took      {sum(summary.seconds.values()):.0f} s",
        *([f"  report    {report}"] if report else []),
        f"  log       {summary.root}/runs/{summary.run_id}/run.log",
    ]
    if summary.tensorboard:
        logs = shlex.quote(summary.tensorboard)
        lines.append(f"  look      {shlex.quote(str(TENSORBOARD))} --logdir {logs}")
    lines.append("")
    return "\n".join(lines)


def _advice(summary: RunSummary, options: str, has_schema: bool) -> list[str]:
    """What to do about the anomalies of a run, each kind of advice once."""
    sources = {anomaly.source for anomaly in summary.anomalies}
    if "schema" in sources and not has_schema:
        sources = {source.replace("schema", "no schema") for source in sources}
    if "labels" in sources and not summary.windows:  # rows without timestamps, which a hash splits
        sources = {source.replace("labels", "labels without days") for source in sources}
    drifted = dict.fromkeys(a.feature for a in summary.anomalies if a.source == "drift")
    columns = ", ".join(f"{json.dumps(name, ensure_ascii=False)}: 1" for name in drifted)
    return [
        advice.format(options=options, columns=columns)
        for source, advice in _ADVICE.items()
        if source in sources
    ]


def _metric_table(summary: RunSummary) -> list[str]:
    slices = summary.metrics["slices"]
    intervals = summary.intervals.get("overall", {})
    rows = [
        ("", ["examples", *(name.replace("_", " ") for name in HEADLINE)]),
        ("overall", _figures(summary.metrics["overall"])),
        ("  95 %", ["", *(_limits(intervals.get(name)) for name in HEADLINE)]),
    ]
    if champion := summary.champion_metrics.get("overall"):
        changes = [summary.changes.get(name, Change(None, None, None)) for name in HEADLINE]
        rows += [
            ("champion", _figures(champion)),
            ("change", ["", *(_figure(change.change, "+.3f") for change in changes)]),
            ("  95 %", ["", *(_limits((change.low, change.high), "+.3f") for change in changes)]),
        ]
    rows += [(name, _figures(row)) for name, row in sorted(slices.items())]
    width = max(map(len, ("champion", *slices)))
    return [
        f"  {name:<{width}} {count:>10}{''.join(f'{figure:>20}' for figure in figures)}"
        for name, (count, *figures) in rows
    ]


def _figures(row: Row) -> list[str]:
    return [_figure(row.get(name)) for name in ("example_count", *HEADLINE)]


def _limits(limits: tuple[float | None, float | None] | None, form: str = ".3f") -> str:
    low, high = limits or (None, None)
    return "–" if low is None else f"{_figure(low, form)} … {_figure(high, form)}"


def _figure(number: float | None, form: str = ".3f") -> str:
    if number is None or number != number:
        return "–"
    return f"{number:,.0f}" if number > 1.5 else f"{number:{form}}"

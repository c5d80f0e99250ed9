"""What a run came to, read from ML Metadata and the artifacts it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fraud.files import write_atomically
from fraud.models.evaluation.registry import GAPS, HEADLINE
from fraud.models.spec import settings
from fraud.pipeline import lineage
from fraud.pipeline.lineage import NodeRecord, value
from fraud.pipeline.root import Root

FILE = "summary.json"
TUNED_FILE = "tuned.yaml"
LAST = "ModelCard"
"""The node that no other waits for."""
LABELLED = ("train", "eval")
VERDICT = "fraud.DataVerdict"
VALIDATED = {"threshold": "threshold", "brier": "Brier", "expected_calibration_error": "ECE"}
"""What is shown of the metrics on the held-out cards, and under which word."""


def of_run(store: Any, run_id: str, root: Root, seconds: dict[str, float]) -> dict[str, Any]:
    """The summary of a run; the keys are those of `run --json` (see docs/cli.md).

    Args:
      store: ML Metadata.
      run_id: which run.
      root: where it ran.
      seconds: wall seconds by node.
    """
    nodes = lineage.nodes(store, run_id)
    examples = nodes["TransactionExampleGen"].outputs["examples"][0]
    positives = json.loads(value(examples, "positives"))
    verdict = _verdict(nodes["DataGate"])
    metrics: dict[str, Any] = {}
    champion_metrics: dict[str, Any] = {}
    validation: dict[str, float] = {}
    reasons: list[str] = []
    pushed = None
    if not verdict["passed"]:
        outcome = "gate_stopped"
        reasons = [anomaly_line(a) for a in verdict["anomalies"]]
    else:
        validation = _validation(nodes["Trainer"].outputs["model"][0])
        evaluation = nodes["Evaluator"].outputs["evaluation"][0]
        metrics, champion_metrics, reasons = judgement(evaluation.uri)
        infra = nodes["ServingCheck"].outputs["blessing"][0]
        if value(infra, "blessed") != 1:
            reasons.append(f"ServingCheck: {value(infra, 'reason')}")
        pushed = nodes["Pusher"].outputs["pushed_model"][0]
        outcome = "pushed" if value(pushed, "pushed") == 1 else "not_blessed"
    live = next(lineage.champions(store), None)
    return {
        "run_id": run_id,
        "as_of": value(examples, "as_of") or None,
        "outcome": outcome,
        "reasons": reasons,
        "notes": verdict["notes"],
        "pushed_version": value(pushed, "pushed_version") if outcome == "pushed" else None,
        "pushed_path": value(pushed, "pushed_destination") if outcome == "pushed" else None,
        "model_card": _model_card(nodes),
        "live_version": value(live.pushed, "pushed_version") if live else None,
        "windows": json.loads(value(examples, "windows")),
        "rows": json.loads(value(examples, "rows")),
        "positives": {s: n for s, n in positives.items() if s in LABELLED},
        "tuned": str(root.run(run_id) / TUNED_FILE) if "Tuner" in nodes else None,
        "validation": validation,
        "metrics": metrics,
        "champion_metrics": champion_metrics,
        "unjudged": unjudged(metrics),
        "anomalies": verdict["anomalies"],
        "seconds": {name: round(taken, 2) for name, taken in seconds.items()},
        "root": str(root.path),
    }


def write(store: Any, run_id: str, root: Root, seconds: dict[str, float]) -> dict[str, Any]:
    """Writes the summary, and the settings that a Tuner found, into the run's folder.

    Arguments and answer are those of `of_run`.
    """
    result = of_run(store, run_id, root, seconds)
    if result["tuned"]:
        found = lineage.nodes(store, run_id)["Tuner"].outputs["best_hyperparameters"][0]
        write_atomically(Path(result["tuned"]), _as_configuration(found, run_id))
    write_atomically(root.run(run_id) / FILE, to_json(result))
    return result


def write_if_over(store: Any, run_id: str, root: Root) -> None:
    """Writes the summary of a run that an orchestrator does node by node, if nothing can follow."""
    nodes = lineage.nodes(store, run_id)
    complete = LAST in nodes and nodes[LAST].is_finished
    if complete or ("DataGate" in nodes and stopped_by(nodes["DataGate"])):
        write(store, run_id, root, {record.name: record.seconds for record in nodes.values()})


def to_json(summary: dict[str, Any]) -> str:
    """The summary as one JSON document."""
    return json.dumps(summary, indent=1)


def stopped_by(record: NodeRecord) -> bool:
    """Whether this node's verdict ends the run."""
    verdicts = record.outputs.get("verdict", [])
    return any(a.type == VERDICT and value(a, "passed") != 1 for a in verdicts)


def detail(record: NodeRecord) -> str:
    """A few words on what a node did, for its line of progress."""
    for artifacts in record.outputs.values():
        for artifact in artifacts:
            if artifact.type == "Examples":
                rows = json.loads(value(artifact, "rows") or "{}")
                return " · ".join(f"{split} {count:,} rows" for split, count in rows.items())
            if artifact.type == VERDICT:
                return "passed" if value(artifact, "passed") == 1 else "stops the run"
            if artifact.type in ("ModelBlessing", "InfraBlessing"):
                return "blessed" if value(artifact, "blessed") == 1 else "not blessed"
            if artifact.type == "PushedModel" and record.name == "Pusher":
                if value(artifact, "pushed") == 1:
                    return f"version {value(artifact, 'pushed_version')}"
                return "nothing pushed"
            if artifact.type == "TunerResults":
                (file,) = Path(artifact.uri).iterdir()
                trials = json.loads(file.read_text(encoding="utf-8"))
                best = max(trial["score"] for trial in trials)
                return f"average precision {best:.3f}, the best of {len(trials)}"
            if artifact.type == "fraud.ModelCard":
                return "written" if value(artifact, "written") == 1 else "none: nothing pushed"
    return ""


def anomaly_line(anomaly: dict[str, str]) -> str:
    """One anomaly in one line: window, feature, what is wrong."""
    text = f"{anomaly['window']}: {anomaly['feature']}: {anomaly['anomaly']}"
    return f"{text}: {anomaly['description']}" if anomaly["description"] else text


def render(summary: dict[str, Any]) -> str:
    """The summary for a person."""
    lines = [""]
    for split, (first, last) in summary["windows"].items():
        rows, frauds = summary["rows"][split], summary["positives"].get(split)
        known = f"{frauds:>7,} frauds" if frauds is not None else "labels not known yet"
        lines.append(f"  {split:<7} {first} … {last}  {rows:>10,} rows  {known}")
    stopped = summary["outcome"] == "gate_stopped"
    data = "stopped" if stopped else "passed"
    lines += ["", f"  data      {data}" + "".join(f"; {note}" for note in summary["notes"])]
    if summary["tuned"]:
        lines.append(f"  tuned     {summary['tuned']}")
    if summary["validation"]:
        figures = [
            f"{word} {_small(summary['validation'].get(k))}" for k, word in VALIDATED.items()
        ]
        lines.append(f"  model     {' · '.join(figures)}, on held-out cards")
    if summary["metrics"]:
        lines += ["", *_metric_table(summary)]
        lines += [f"  unjudged  {what}: too few examples" for what in summary["unjudged"]]
    lines.append("")
    if summary["outcome"] == "pushed":
        lines.append(f"  pushed    version {summary['pushed_version']}: {summary['pushed_path']}")
        if summary["model_card"]:
            lines.append(f"  card      {summary['model_card']}")
    else:
        why = "stopped by the data gate" if stopped else "not pushed: the model was not blessed"
        live = summary["live_version"]
        stays = f"version {live} stays live" if live else "nothing is live"
        lines.append(f"  {why}; {stays}")
        lines += [f"    - {reason}" for reason in summary["reasons"]]
        if stopped:
            lines.append("  If the data is right, curate the schema: fraud-pipeline schema --diff")
    root = summary["root"]
    lines += [
        "",
        f"  took      {sum(summary['seconds'].values()):.0f} s",
        f"  log       {root}/runs/{summary['run_id']}/run.log",
        f"  look      tensorboard --logdir {root}/artifacts/Trainer/model_run",
        "",
    ]
    return "\n".join(lines)


def _metric_table(summary: dict[str, Any]) -> list[str]:
    metrics, champion = summary["metrics"], summary["champion_metrics"].get("overall", {})
    width = max([len("overall"), len("champion"), *map(len, metrics["slices"])])
    head = "".join(f"{name.replace('_', ' '):>20}" for name in HEADLINE)
    lines = [f"  {'':<{width}} {'examples':>10}{head}"]
    shown = [("overall", metrics["overall"])]
    shown += [("champion", champion)] if champion else []
    shown += sorted(metrics["slices"].items())
    for name, row in shown:
        figures = "".join(f"{_figure(row.get(metric)):>20}" for metric in HEADLINE)
        lines.append(f"  {name:<{width}} {_figure(row.get('example_count')):>10}{figures}")
    return lines


def _figure(number: float | None) -> str:
    if number is None or number != number:
        return "–"
    return f"{number:,.0f}" if number > 1.5 else f"{number:.3f}"


def _small(number: float | None) -> str:
    return "–" if number is None else f"{number:.4f}"


def _validation(model: Any) -> dict[str, float]:
    """The threshold and the metrics on the held-out cards: a Model artifact's real numbers."""
    held = model.custom_properties
    return {n: held[n].double_value for n in sorted(held) if held[n].HasField("double_value")}


def _as_configuration(hyperparameters: Any, run_id: str) -> str:
    """A HyperParameters artifact as a file for `--config`."""
    import yaml

    (file,) = Path(hyperparameters.uri).iterdir()
    values = json.loads(file.read_text(encoding="utf-8"))["values"]
    text = yaml.safe_dump({"network": settings(values)}, default_flow_style=None)
    return f"# Found by run {run_id}; give it to --config after your own file.\n{text}"


def _model_card(nodes: dict[str, NodeRecord]) -> str | None:
    """The card's page, if the run wrote one."""
    from fraud.pipeline.components.types import CARD_PAGE

    cards = nodes[LAST].outputs.get("card", []) if LAST in nodes else []
    return next((str(Path(a.uri) / CARD_PAGE) for a in cards if value(a, "written") == 1), None)


def _verdict(record: NodeRecord) -> dict[str, Any]:
    from fraud.pipeline.components.types import VERDICT_FILE

    path = Path(record.outputs["verdict"][0].uri) / VERDICT_FILE
    return json.loads(path.read_text(encoding="utf-8"))


def judgement(uri: str) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Reads what the Evaluator left in its folder.

    Returns:
      Metrics of the challenger and of the champion, each `overall` by name and `slices` by
      "column=value" and name ({} where there is no champion); why the challenger was refused, if
      it was.
    """
    import tensorflow_model_analysis as tfma

    metrics: dict[str, Any] = {"overall": {}, "slices": {}}
    champion: dict[str, Any] = {"overall": {}, "slices": {}}
    for of_slice in tfma.load_metrics(uri):
        name = _slice_name(of_slice.slice_key)
        for pair in of_slice.metric_keys_and_values:
            if pair.key.is_diff or pair.key.name.startswith("__"):
                continue
            if not name and pair.key.name in GAPS:  # a gap is a slice's
                continue
            into = champion if pair.key.model_name == "champion" else metrics
            row = into["overall"] if not name else into["slices"].setdefault(name, {})
            found = pair.value.double_value.value
            # A slice with too few examples has no gap: see `fraud.models.evaluation.tfma_metrics`.
            row[pair.key.name] = None if found == float("-inf") else found
    reasons = []
    result = tfma.load_validation_result(uri)
    for of_slice in result.metric_validations_per_slice:
        for failure in of_slice.failures:
            reasons.append(f"{_slice_name(of_slice.slice_key) or 'overall'}: {_failure(failure)}")
    for missing in result.missing_slices:
        reasons.append(f"no examples of slice {missing}")
    if not champion["overall"]:
        champion = {}
    return metrics, champion, reasons


def unjudged(metrics: dict[str, Any]) -> list[str]:
    """The slices, and of which gap, that have too few examples to be judged."""
    return [
        f"{name}: {metric.replace('_', ' ')}"
        for name, row in sorted(metrics.get("slices", {}).items())
        for metric in GAPS
        if metric in row and row[metric] is None
    ]


def _failure(failure: Any) -> str:
    """Why one metric failed, as a sentence."""
    name, found = failure.metric_key.name, failure.metric_value.double_value.value
    threshold = failure.metric_threshold
    if failure.message:  # TFMA's own words: the metric could not be judged at all
        return f"{name}: {' '.join(failure.message.split())}"
    if failure.metric_key.is_diff:
        allowed = -threshold.change_threshold.absolute.value
        return f"{name} is {-found:.4f} below the champion's; allowed are {allowed:.4f}"
    if threshold.value_threshold.HasField("upper_bound"):
        most = threshold.value_threshold.upper_bound.value
        return f"{name} is {found:.4f}; at most {most} is allowed"
    return f"{name} is {found:.4f}; at least {threshold.value_threshold.lower_bound.value} is asked"


def _slice_name(slice_key: Any) -> str:
    parts = []
    for single in slice_key.single_slice_keys:
        kind = single.WhichOneof("kind")
        held = getattr(single, kind)
        parts.append(f"{single.column}={held.decode() if isinstance(held, bytes) else held}")
    return ",".join(parts)

"""The outcome of a run, judged from the artifacts that it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fraud.codec import to_json
from fraud.files import write_atomically
from fraud.pipeline import artifacts, distributions, lineage, releases, schemas
from fraud.pipeline.artifacts import GAPS, Evaluation, Metrics, RunSummary
from fraud.pipeline.lineage import NodeRecord
from fraud.pipeline.root import Root
from fraud.pipeline.windows import LABELLED_SPLITS

TUNED_FILE = "tuned.yaml"
BUDGET_TOO_LARGE = (
    "warning: the alert budget covers everything, so everything raises an alert and recall is 1; "
    "lower evaluation.alert_budget, or leave it out"
)
LAST = "ModelCardGen"
"""The node that no other waits for."""


def of_run(
    store: Any,
    run_id: str,
    root: Root,
    seconds: dict[str, float],
    schema_file: str | None = None,
) -> RunSummary:
    """The summary of a finished run.

    Args:
      store: ML Metadata.
      run_id: the run.
      root: where it ran.
      seconds: node → wall seconds.
      schema_file: where to write the inferred schema for review if the data gate passes; None if
        it is not wanted.
    """
    nodes = lineage.nodes(store, run_id)
    examples = artifacts.ExamplesFacts.read(nodes["TransactionExampleGen"].outputs["examples"][0])
    verdict = artifacts.Verdict.read(nodes["DataGate"].outputs["verdict"][0])
    live = next(lineage.champions(store, root.pushed), None)
    logs = root.artifacts / "Trainer" / "model_run"
    result: dict[str, Any] = {
        "run_id": run_id,
        "root": str(root.path),
        "as_of": examples.as_of,
        "notes": verdict.notes,
        "live_version": live.version if live else None,
        "disagreements": releases.disagreements(root, list(lineage.pushes(store))),
        "windows": examples.windows,
        "rows": examples.rows,
        "positives": {s: n for s, n in examples.positives.items() if s in LABELLED_SPLITS},
        "tuned": str(root.run(run_id) / TUNED_FILE) if "Tuner" in nodes else None,
        "anomalies": verdict.anomalies,
        "tensorboard": str(logs) if logs.is_dir() else None,
        "drift": _drift(nodes),
        "seconds": {name: round(wall, 2) for name, wall in seconds.items()},
    }
    if not verdict.passed:
        reasons = artifacts.one_per_feature(verdict.anomalies)
        return RunSummary(outcome="gate_stopped", reasons=reasons, **result)

    if schema_file:
        inferred = nodes["SchemaGen"].outputs["schema"][0]
        write_atomically(Path(schema_file), schemas.for_review(inferred.uri, run_id))
        result["inferred_schema"] = schema_file
    model = artifacts.ModelFacts.read(nodes["Trainer"].outputs["model"][0])
    evaluation = Evaluation.read(nodes["Evaluator"].outputs["evaluation"][0])
    serving = artifacts.ServingCheckResult.read(nodes["ServingCheck"].outputs["blessing"][0])
    push = artifacts.Push.read(nodes["Pusher"].outputs["pushed_model"][0])
    cards = nodes[LAST].outputs.get("card", []) if LAST in nodes else []
    if examples.champion_problem and not evaluation.champion:
        problem = f"champion not judged: {examples.champion_problem}"
        result["notes"] = (*result["notes"], problem)
    pages = [card.page for card in map(artifacts.CardFiles.read, cards) if card.written]
    if push.pushed and push.reason:
        result["notes"] = (*result["notes"], f"pushed although {push.reason}")
    if model.alerts_on_everything:
        result["notes"] = (*result["notes"], BUDGET_TOO_LARGE)
    measured = {"threshold": model.threshold, **model.validation}
    return RunSummary(
        outcome=push.outcome,
        reasons=(
            *([push.reason] if push.reason and not push.pushed else []),
            *evaluation.failures,
            *(f"no examples of slice {name}" for name in evaluation.missing_slices),
            *([] if serving.blessed else [f"ServingCheck: {serving.reason}"]),
        ),
        pushed_version=push.version if push.pushed else None,
        pushed_path=push.path if push.pushed else None,
        model_card=str(pages[0]) if pages else None,
        # Six decimals, as ML Metadata keeps of a property.
        validation={n: round(number, 6) for n, number in measured.items() if number is not None},
        metrics=evaluation.metrics,
        champion_metrics=evaluation.champion,
        intervals=evaluation.intervals,
        changes=evaluation.changes,
        unjudged=unjudged(evaluation.metrics),
        **result,
    )


def write(
    store: Any,
    run_id: str,
    root: Root,
    seconds: dict[str, float],
    schema_file: str | None = None,
) -> RunSummary:
    """Writes the summary, and the settings that a Tuner chose, into the run's folder.

    The arguments and the result are those of `of_run`.
    """
    summary = of_run(store, run_id, root, seconds, schema_file)
    if summary.tuned:
        tuner = lineage.nodes(store, run_id)["Tuner"]
        network = artifacts.tuned_network(tuner.outputs["best_hyperparameters"][0])
        write_atomically(Path(summary.tuned), _as_configuration(network, run_id))
    write_atomically(root.run(run_id) / artifacts.SUMMARY_FILE, to_json(summary, indent=1))
    return summary


def write_if_over(store: Any, run_id: str, root: Root) -> bool:
    """Writes the summary of a run that an orchestrator executes, once no node can follow.

    Returns:
      Whether that is so.
    """
    nodes = lineage.nodes(store, run_id)
    complete = LAST in nodes and nodes[LAST].is_finished
    is_over = complete or ("DataGate" in nodes and stopped_by(nodes["DataGate"]))
    if is_over:
        write(store, run_id, root, {record.name: record.seconds for record in nodes.values()})
    return is_over


def _drift(nodes: dict[str, NodeRecord]) -> dict[str, float]:
    """Column → its largest divergence relative to the threshold."""
    strains: dict[str, float] = {}
    for validator in ("DistributionValidator", "ReferenceValidator"):
        for anomalies in nodes[validator].outputs["anomalies"] if validator in nodes else ():
            for of_split in distributions.divergences(anomalies).values():
                for column, found in of_split.items():
                    if found.threshold:
                        strain = round(found.value / found.threshold, 4)
                        strains[column] = max(strain, strains.get(column, 0.0))
    return strains


def stopped_by(record: NodeRecord) -> bool:
    """Whether the node is a data gate that stopped its run."""
    verdicts = [a for a in record.outputs.get("verdict", []) if a.type == "fraud.DataVerdict"]
    return any(artifacts.value(verdict, "passed") != 1 for verdict in verdicts)


def unjudged(metrics: Metrics) -> tuple[str, ...]:
    """The slices that have too few examples to be judged, each with the metric."""
    return tuple(
        f"{name}: {metric.replace('_', ' ')}"
        for name, row in sorted(metrics.get("slices", {}).items())
        for metric in GAPS
        if metric in row and row[metric] is None
    )


def _as_configuration(network: dict[str, Any], run_id: str) -> str:
    """Tuned settings as a file for `--config`."""
    import yaml

    text = yaml.safe_dump({"network": network}, default_flow_style=None)
    return f"# Found by run {run_id}; pass it to --config after your own file.\n{text}"

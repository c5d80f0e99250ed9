"""Why a run pushed what it pushed, and why a version went live: the facts, from ML Metadata alone.

They are in the artifacts of the run and in the properties of its executions. Where `prune` deleted
an artifact, its properties still say how it was decided, but not by which numbers.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fraud.errors import BadInput
from fraud.models.evaluation.registry import DROP_PROBABILITY
from fraud.pipeline import lineage
from fraud.pipeline.artifacts import Evaluation, ExamplesFacts, Push, ServingCheckResult, Verdict
from fraud.pipeline.data_facts import value
from fraud.pipeline.lineage import Champion, Code


@dataclass(frozen=True)
class Demands:
    """What the Evaluator demanded of a challenger, over all examples and of each slice.

    Attributes:
      minima: metric → the lowest value.
      max_drops: metric → how far it may be below the champion's.
      max_drop_probability: the highest probability that it is further below.
      max_gaps: metric → how much worse a slice may be than all examples.
    """

    minima: dict[str, float] = field(default_factory=dict)
    max_drops: dict[str, float] = field(default_factory=dict)
    max_drop_probability: float | None = None
    max_gaps: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, eval_config: str) -> Demands:
        """Reads the Evaluator's EvalConfig, in JSON."""
        minima: dict[str, float] = {}
        max_drops: dict[str, float] = {}
        max_gaps: dict[str, float] = {}
        highest = None
        for spec in json.loads(eval_config).get("metrics_specs", []):
            for metric in spec.get("metrics", []):
                arguments = json.loads(metric.get("config") or "{}")
                max_drops |= arguments.get("max_drops", {})
                for limit in metric.get("per_slice_thresholds", []):
                    bounds = limit["threshold"].get("value_threshold", {})
                    if "lower_bound" in bounds:
                        minima[arguments["name"]] = bounds["lower_bound"]
                    if "upper_bound" in bounds:
                        max_gaps[arguments["name"]] = bounds["upper_bound"]
            for name, limits in spec.get("per_slice_thresholds", {}).items():
                if name in map(DROP_PROBABILITY.format, max_drops):
                    (limit,) = limits["thresholds"]
                    highest = limit["threshold"]["value_threshold"]["upper_bound"]
        return cls(minima, max_drops, highest, max_gaps)


@dataclass(frozen=True)
class RunFacts:
    """How a run was decided. What it did not get to, or what was deleted, is None.

    Attributes:
      run_id: the run.
      data: its transactions.
      code: the code that made its model, or its data if it made none.
      failed, error: the node that failed or was cancelled, and why; empty if none did.
      last: the last node that ended.
      gate_passed: whether the data gate let it train.
      verdict: the data gate's, with anomalies and notes.
      demands, evaluation: what the Evaluator demanded and measured.
      blessed: by the Evaluator.
      baseline: the version that the challenger was compared with.
      serving: what ServingCheck found.
      push: what the Pusher did.
      pushed_by: the run that had pushed this model, if this one took the result from the cache.
      deleted: whether details were deleted.
    """

    run_id: str
    data: ExamplesFacts | None = None
    code: Code | None = None
    failed: str = ""
    error: str = ""
    last: str = ""
    gate_passed: bool | None = None
    verdict: Verdict | None = None
    demands: Demands | None = None
    evaluation: Evaluation | None = None
    blessed: bool | None = None
    baseline: str | None = None
    serving: ServingCheckResult | None = None
    push: Push | None = None
    pushed_by: str | None = None
    deleted: bool = False


@dataclass(frozen=True)
class VersionFacts:
    """Why a version went live.

    Attributes:
      release: the record of its push or rollback.
      is_live: whether it is live now.
      is_kept: whether its files have not been deleted.
      is_there: whether its folder is in the push folder.
      replaced: the version before it; None if it was the first.
      replaced_by: the record of the version after it; None if there is none.
      run: the run that pushed these weights first.
    """

    release: Push
    is_live: bool
    is_kept: bool
    is_there: bool
    replaced: str | None
    replaced_by: Push | None
    run: RunFacts


def find(store: Any, pushed: Path, name: str) -> VersionFacts | RunFacts:
    """The facts about a version or run.

    Args:
      store: ML Metadata.
      pushed: the push folder.
      name: a version or the id of a run.

    Raises:
      BadInput: there is neither.
    """
    pushes, runs = list(lineage.pushes(store)), lineage.runs(store)
    for number, push in enumerate(pushes):
        if push.version == name:
            live = next(lineage.champions(store, pushed), None)
            after = pushes[number - 1] if number else None
            before = pushes[number + 1] if number + 1 < len(pushes) else None
            return VersionFacts(
                release=Push.read(push.pushed),
                is_live=live is not None and live.version == name,
                is_kept=push.is_kept,
                is_there=(pushed / name).is_dir(),
                replaced=before.version if before else None,
                replaced_by=Push.read(after.pushed) if after else None,
                run=of_run(store, pushes, push.run_id),
            )
    if name in runs:
        return of_run(store, pushes, name)
    known = [*(push.version for push in pushes), *reversed(runs)]
    nearest = ", ".join(difflib.get_close_matches(name, known, n=3, cutoff=0))
    raise BadInput(
        f"{name}: neither a version nor a run; "
        + (f"nearest: {nearest}; `fraud-pipeline status` lists the latest" if known else "no runs")
    )


def of_run(store: Any, pushes: Sequence[Champion], run_id: str) -> RunFacts:
    """The facts about a run.

    Args:
      store: ML Metadata.
      pushes: from `lineage.pushes`.
      run_id: an existing run.
    """
    nodes = lineage.nodes(store, run_id)
    outputs = {a.type: a for r in nodes.values() for of_key in r.outputs.values() for a in of_key}
    examples, verdict = outputs.get("Examples"), outputs.get("fraud.DataVerdict")
    evaluation, blessing = outputs.get("ModelEvaluation"), outputs.get("ModelBlessing")
    serving, pushed = outputs.get("InfraBlessing"), outputs.get("PushedModel")
    made = outputs.get("Model") or examples
    unfinished = [record for record in nodes.values() if not record.is_finished]
    failed = next((r for r in unfinished if r.state in ("FAILED", "CANCELED")), None)
    baseline = value(blessing, "baseline_model_id") if blessing else None
    # By ids, as clocks may have been set back.
    earlier = (
        push.version
        for push in pushes
        if blessing and push.model_id == baseline and push.pushed.id < blessing.id
    )
    maker = next((p.run_id for p in pushes if pushed and p.pushed.id == pushed.id), run_id)
    evaluators = lineage.executions(store, run_id, "Evaluator")
    eval_config = value(evaluators[-1], "eval_config") if evaluators else None
    return RunFacts(
        run_id=run_id,
        data=ExamplesFacts.read(examples) if examples else None,
        code=lineage.code_of(store, made.id) if made else None,
        failed=failed.name if failed else "",
        error=failed.error if failed else "",
        last=next((r.name for r in reversed(nodes.values()) if r.is_finished), ""),
        gate_passed=value(verdict, "passed") == 1 if verdict else None,
        verdict=Verdict.read(verdict) if _has_files(verdict) else None,
        demands=Demands.read(eval_config) if eval_config else None,
        evaluation=Evaluation.read(evaluation) if _has_files(evaluation) else None,
        blessed=value(blessing, "blessed") == 1 if blessing else None,
        baseline=next(earlier, None),
        serving=ServingCheckResult.read(serving) if serving else None,
        push=Push.read(pushed) if pushed else None,
        pushed_by=maker if maker != run_id else None,
        deleted=any(a is not None and not _has_files(a) for a in (verdict, evaluation)),
    )


def _has_files(artifact: Any) -> bool:
    return artifact is not None and Path(artifact.uri).is_dir()

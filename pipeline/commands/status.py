"""`fraud-pipeline status`: the model in production, its origin, and the latest runs."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from fraud.errors import BadInput
from fraud.pipeline import refusals
from fraud.pipeline.artifacts import ExamplesFacts, Push, RunSummary
from fraud.pipeline.commands import common
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root

SHOWN_RUNS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Show which model is live, since when and from which data, and the latest runs.",
        "  fraud-pipeline status --root fraud-root",
    )
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints the status; an empty root is not an error."""
    config, root = common.config_and_root(arguments)
    document = status(config, root)
    common.show(arguments, document, render)
    return 0


def status(config: Config, root: Root) -> dict[str, Any]:
    """The model in production and the latest runs.

    Returns:
      `root`; `live` (version, path, since, identity, run_id, as_of, windows, `code`, of which the
      attributes are those of `lineage.Code`, or None, `rollback`: restored, replaced, user and
      reason, or None, and `judging_problem`: why no challenger can be compared with it, or None; or
      None); `disagreements` between the push folder and ML Metadata; `runs`, the latest first
      (run_id, outcome; one that was refused before it began has at and reason instead of a
      run_id).
    """
    from fraud.pipeline import lineage, production, releases

    store = lineage.find_store(config.metadata, root)
    if store is None:
        refused = [_refused(refusal) for refusal in reversed(refusals.read(root))]
        return {
            "root": str(root.path),
            "live": None,
            "disagreements": list(releases.disagreements(root, [])),
            "runs": refused[:SHOWN_RUNS],
        }
    champion = next(lineage.champions(store, root.pushed), None)
    runs = lineage.runs(store)
    live = None
    if champion:
        found = production.described(store, root, champion)
        examples = lineage.artifacts_of_run(store, champion.run_id, "Examples")
        code = lineage.code_of(store, champion.model_id)
        push = Push.read(champion.pushed)
        data = ExamplesFacts.read(examples[-1]) if examples else None
        live = {
            "version": found.version,
            "path": str(found.folder),
            "since": push.since.isoformat(timespec="seconds"),
            "identity": found.identity,
            "run_id": found.run_id,
            "as_of": found.as_of or None,
            "windows": data.windows if data else {},
            "code": asdict(code) if code else None,
            "rollback": {
                "restored": push.restored,
                "replaced": push.replaced,
                "user": push.user,
                "reason": push.reason,
            }
            if push.restored
            else None,
            "judging_problem": production.judging_problem(store, champion, runs[-1]) or None,
        }
    latest = [
        (
            lineage.began(store, [run_id]),
            {"run_id": run_id, "outcome": _outcome(root, store, run_id)},
        )
        for run_id in runs[-SHOWN_RUNS:]
    ]
    latest += [(refusal.at.timestamp(), _refused(refusal)) for refusal in refusals.read(root)]
    latest.sort(key=lambda dated: dated[0], reverse=True)
    disagreements = list(releases.disagreements(root, list(lineage.pushes(store))))
    return {
        "root": str(root.path),
        "live": live,
        "disagreements": disagreements,
        "runs": [run for _, run in latest[:SHOWN_RUNS]],
    }


def render(document: dict[str, Any]) -> str:
    """The status as text."""
    live = document["live"]
    if live is None:
        lines = [f"nothing is live in {document['root']}"]
    else:
        lines = [
            f"live      version {live['version']} since {live['since']}",
            f"  path    {live['path']}",
            f"  from    run {live['run_id']}"
            + (f" as of {live['as_of']}" if live["as_of"] else ""),
        ]
        if code := live["code"]:
            dirty = " and edits" if code["dirty"] else ""
            commit = f", commit {code['commit'][:12]}{dirty}" if code["commit"] else ""
            lines.append(f"  code    version {code['version']}{commit}")
        if back := live["rollback"]:
            lines.append(
                f"  weights of version {back['restored']}, rolled back from {back['replaced']} by "
                f"{back['user']}: {back['reason']}"
            )
        lines += [f"  {split:<7} {a} … {b}" for split, (a, b) in live["windows"].items()]
        if problem := live["judging_problem"]:
            lines += [
                f"warning   no challenger can be compared with the live model: {problem}",
                "  to do   put back what is missing (`fraud-pipeline verify --repair` restores a "
                "model's files),",
                "          or go live with another model: `fraud-pipeline rollback`, or without a",
                "          comparison `fraud-pipeline run --accept-unjudged-champion`",
            ]
    lines += [f"warning   {problem}" for problem in document["disagreements"]]
    lines += [
        f"run       {run['run_id']}  {run['outcome']}"
        if "run_id" in run
        else f"refused   {run['at']}  {run['reason']}"
        for run in document["runs"]
    ]
    if not document["runs"]:
        lines.append("no runs yet: fraud-pipeline run --data PATH")
    return "\n".join(lines)


def _refused(refusal: refusals.Refusal) -> dict[str, str]:
    at = refusal.at.isoformat(" ", timespec="seconds")
    return {"outcome": "refused", "at": at, "reason": refusal.reason}


def _outcome(root: Root, store: Any, run_id: str) -> str:
    """The outcome of a finished run, or how far another one got."""
    from fraud.pipeline import lineage

    try:
        summary = RunSummary.read(root.run(run_id))
    except BadInput as error:  # says nothing about the live model, nor about the other runs
        return f"unknown: {error}"
    if summary:
        return summary.outcome
    records = lineage.nodes(store, run_id).values()
    failed = [r.name for r in records if r.state in ("FAILED", "CANCELED")]
    running = [r.name for r in records if r.state == "RUNNING"]
    if failed:
        return f"failed in {', '.join(failed)}"
    return f"running {', '.join(running)}" if running else "ended early"

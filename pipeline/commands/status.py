"""`fraud-pipeline status`: the model in production, its origin, and the latest runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fraud.errors import BadInput
from fraud.pipeline import refusals
from fraud.pipeline.artifacts import ExamplesFacts, Push, RunSummary
from fraud.pipeline.commands import common
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root

if TYPE_CHECKING:
    from fraud.monitoring.journal import Entry

SHOWN_RUNS = 5
SHOWN_DAYS = 10
"""What the text has at most of what the loop did; the JSON has all."""


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
      run_id); `loop`, see `_loop`.
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
            "loop": _loop(config, root),
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
        "loop": _loop(config, root),
    }


def _loop(config: Config, root: Root) -> dict[str, Any] | None:
    """What the loop does and did; None if it never ran.

    Returns:
      `doing`, `since` and `beat`, or None; the last `day` with its `decision` and `reasons`, and
      `again`: when and why it was looked at again (at, changed days, decision before);
      `held`: days that trainings leave out, the latest first (day, reasons);
      `approved`: those that a person approved of (day, user, reason, at);
      `promotions`, the latest first (day, version, reasons, and taken_back: why, or None);
      `refused`: models that are on probation or were not pushed (day, outcome, run_id, model,
      reasons).
    """
    from fraud.monitoring import journal, loop

    kept = journal.Journal(root.path / "loop")
    entries, held, faults = kept.entries(), kept.broken(), kept.faults()
    if not entries:
        return None
    state: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        state = json.loads((root.path / "loop" / loop.STATE_FILE).read_text("utf-8"))
    last = entries[-1].decision
    return {
        **{key: state.get(key) for key in ("doing", "since", "beat")},
        "day": str(entries[-1].day),
        "decision": last.action if last else None,
        "reasons": list(last.reasons) if last else [],
        "again": [
            {
                "at": look.at,
                "changed": [str(day) for day in look.changed],
                "decision": look.decision.action if look.decision else None,
            }
            for look in entries[-1].looks
        ],
        "held": [{"day": str(day), "reasons": list(faults[day])} for day in reversed(held)],
        "approved": [
            {**asdict(approval), "day": str(approval.day)}
            for approval in reversed(kept.approvals())
        ],
        "promotions": [
            {
                "day": str(entry.went_live),
                "version": entry.pushed,
                "reasons": list(entry.decision.reasons) if entry.decision else [],
                "taken_back": _taken_back(entries, entry.pushed),
            }
            for entry in reversed(entries)
            if entry.pushed
        ],
        "refused": [
            {
                "day": str(day),
                "outcome": training.outcome,
                "run_id": training.run_id,
                "model": training.model,
                "reasons": list(training.reasons),
            }
            for day, training in journal.refused(entries, config.loop.refused_days)
        ],
    }


def _taken_back(entries: Sequence[Entry], version: str) -> str | None:
    return next((e.reason for e in entries if e.bad_version == version and e.restored), None)


def render(document: dict[str, Any]) -> str:
    """The status as text."""
    from fraud.report.terminal import WHY_NOT

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
        f"run       {run['run_id']}  {WHY_NOT.get(run['outcome'], run['outcome'])}"
        if "run_id" in run
        else f"refused   {run['at']}  {run['reason']}"
        for run in document["runs"]
    ]
    if not document["runs"]:
        lines.append("no runs yet: fraud-pipeline run --data PATH")
    if loop := document["loop"]:
        lines.append(f"loop      {loop['doing']}; alive at {loop['beat']}")
        lines.append(
            f"  {loop['day']}  {': '.join([loop['decision'] or 'undecided', *loop['reasons']])}"
        )
        for one in loop["again"]:
            days = ", ".join(one["changed"])
            lines.append(f"    was {one['decision']} until {one['at']}: files of {days} changed")
        for one in loop["held"][:SHOWN_DAYS]:
            lines.append(f"  {one['day']}  not trained on: {'; '.join(one['reasons'])}")
        for one in loop["approved"][:SHOWN_DAYS]:
            lines.append(
                f"  {one['day']}  approved by {one['user']} at {one['at']}: {one['reason']}"
            )
        for one in loop["promotions"][:SHOWN_DAYS]:
            back = f"; taken back: {one['taken_back']}" if one["taken_back"] else ""
            why = "; ".join(one["reasons"])
            lines.append(f"  {one['day']}  version {one['version']} went live: {why}{back}")
        for one in loop["refused"]:
            why = ": ".join([one["outcome"].replace("_", " "), *one["reasons"][:1]])
            lines.append(f"  {one['day']}  {why} ({one['model']})")
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

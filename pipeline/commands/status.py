"""`fraud-pipeline status`: what is live, since when, from what; and what the last runs came to."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from typing import Any

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
    found = status(config, root)
    print(json.dumps(found, indent=1) if arguments.json else render(found))
    return 0


def status(config: Config, root: Root) -> dict[str, Any]:
    """What is live and what ran.

    Returns:
      `live` (version, path, since, run_id, as_of, windows; or None) and `runs`, the latest first
      (run_id, state, nodes by state).
    """
    from fraud.pipeline import lineage

    store = lineage.find_store(config.metadata, root)
    if store is None:
        return {"root": str(root.path), "live": None, "runs": []}
    live = next(lineage.champions(store), None)
    described = None
    if live:
        examples = lineage.artifacts_of_run(store, live.run_id, "Examples")
        pushed_at = live.pushed.create_time_since_epoch / 1000
        described = {
            "version": lineage.value(live.pushed, "pushed_version"),
            "path": lineage.value(live.pushed, "pushed_destination"),
            "since": datetime.fromtimestamp(pushed_at).isoformat(timespec="seconds"),
            "run_id": live.run_id,
            "as_of": lineage.value(examples[-1], "as_of") or None,
            "windows": json.loads(lineage.value(examples[-1], "windows") or "{}"),
        }
    latest = [_run(root, store, run_id) for run_id in reversed(lineage.runs(store)[-SHOWN_RUNS:])]
    return {"root": str(root.path), "live": described, "runs": latest}


def render(found: dict[str, Any]) -> str:
    """The status for a person."""
    live = found["live"]
    if live is None:
        lines = [f"nothing is live in {found['root']}"]
    else:
        lines = [
            f"live      version {live['version']} since {live['since']}",
            f"  path    {live['path']}",
            f"  from    run {live['run_id']}"
            + (f" as of {live['as_of']}" if live["as_of"] else ""),
        ]
        lines += [f"  {split:<7} {a} … {b}" for split, (a, b) in live["windows"].items()]
    lines += [f"run       {run['run_id']}  {run['outcome']}" for run in found["runs"]]
    if not found["runs"]:
        lines.append("no runs yet: fraud-pipeline run --data PATH")
    return "\n".join(lines)


def _run(root: Root, store: Any, run_id: str) -> dict[str, Any]:
    from fraud.pipeline import lineage, summary

    path = root.run(run_id) / summary.FILE
    if path.exists():
        return {"run_id": run_id, "outcome": json.loads(path.read_text("utf-8"))["outcome"]}
    records = lineage.nodes(store, run_id).values()
    failed = [r.name for r in records if r.state in ("FAILED", "CANCELED")]
    running = [r.name for r in records if r.state == "RUNNING"]
    if failed:
        return {"run_id": run_id, "outcome": f"failed in {', '.join(failed)}"}
    return {
        "run_id": run_id,
        "outcome": f"running {', '.join(running)}" if running else "ended early",
    }

"""`fraud-pipeline report`: everything about a run as one page."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from fraud.errors import BadInput
from fraud.pipeline.commands import common
from fraud.pipeline.root import Root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Write the report on a run: verdicts, data and drift, quality against the champion,\n"
        "slices, training, lineage. It is one file that needs no network. Every run writes its\n"
        "own when it ends; for a run that failed, this shows how far it got.",
        "  fraud-pipeline report --root fraud-root",
    )
    parser.add_argument("run_id", nargs="?", metavar="RUN", help="default: the latest run")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: report.html in the run's folder"
    )
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Writes the report and prints where it is.

    Raises:
      BadInput: there is no such run, or the file cannot be written.
    """
    config, root = common.config_and_root(arguments)

    from fraud.pipeline import lineage

    store = lineage.find_store(config.metadata, root)
    known = lineage.runs(store) if store else []
    if not known:
        raise BadInput(f"{root.path}: nothing has run here; check --root")
    run_id = arguments.run_id or known[-1]
    if run_id not in known:
        raise BadInput(f"{run_id}: no such run; `fraud-pipeline status` lists the latest")
    path = write(store, root, run_id, arguments.out)
    print(json.dumps({"run_id": run_id, "report": str(path)}) if arguments.json else path)
    return 0


def write(store: Any, root: Root, run_id: str, out: Path | None = None) -> Path:
    """Writes the report on a run; returns its path."""
    from fraud.files import write_asked
    from fraud.report import run_report

    path = out or root.report(run_id)
    facts = run_report.read(store, root.pushed, root.run(run_id), run_id)
    write_asked(path, run_report.render(facts))
    return path


def write_of_finished(store: Any, root: Root, run_id: str) -> Path | None:
    """Writes the report at the end of a run, which does not fail if that does; None then."""
    try:
        return write(store, root, run_id)
    except Exception:  # the run itself is over, and recorded
        logging.exception("the report on run %s was not written", run_id)
        return None

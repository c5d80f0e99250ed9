"""`fraud-pipeline decide`: the loop's steps before and after a training, for an orchestrator.

And what only a person can decide: that a day whose data the loop takes for broken is not.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from fraud.errors import BadInput
from fraud.pipeline.commands import common

GRAPH = "graph"
"""The folder in `ROOT/loop` with the graph of the training that was decided."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Do what `watch` does on a day before a training: observe, decide, verify the newest\n"
        "version, roll back. If a training should follow, compile its graph. A decided day is\n"
        "decided again only if files have changed. With --run, do what `watch` does after the\n"
        "training. With --approve, let a day be trained on that is held.",
        "  fraud-pipeline decide --data transactions --as-of 2018-07-31 --json\n"
        "  fraud-pipeline decide --data transactions --as-of 2018-07-31 --run 20180801-031500\n"
        "  fraud-pipeline decide --as-of 2018-07-30 --approve 'CHANNEL is empty: a strike'",
    )
    parser.add_argument("--data", metavar="PATH", help="as of `watch`")
    parser.add_argument("--as-of", type=common.day, metavar="DAY", required=True, help="the day")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--run",
        dest="run_id",
        metavar="ID",
        help="the run that trained; also if it failed, or was stopped",
    )
    instead.add_argument(
        "--approve",
        metavar="REASON",
        help="train on the day although its data was found to be broken, from the next training "
        "on; for the record, say why. `watch` need not be stopped",
    )
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Decides, or records what became of the training, or that a day is approved of.

    Raises:
      BadInput: the data has no days, a loop looks after the root already, or the day is not held.
      FraudPipelineError: a step failed; repeat the command.
    """
    if arguments.approve is not None:
        return _approve(arguments, arguments.as_of)
    from fraud.monitoring import journal
    from fraud.pipeline.commands.watch import looked_after

    day = arguments.as_of
    with looked_after(arguments, is_simulated=False) as (made, steps, _, _):
        if arguments.run_id:
            entry = made.begin(day)
            if not journal.is_training_due(entry) and entry.training is None:
                raise BadInput(f"--run: no training was decided as of {day}")
            entry = made.end(day, steps.training_of(arguments.run_id))
        else:
            made.reopen(day)
            entry = made.begin(day)
        assert entry.decision is not None
        document: dict[str, Any] = {
            "as_of": str(day),
            "decision": entry.decision.action,
            "reasons": list(entry.decision.reasons),
            "graph": None,
        }
        if journal.is_training_due(entry):
            settings = steps.write_settings(
                made.broken(day), made.is_tried_first(entry), entry.is_urgent
            )
            document["graph"] = str(_compile(arguments, settings))
        elif not entry.done:
            made.end(day)
    common.show(
        arguments,
        document,
        lambda shown: f"{shown['as_of']}  {shown['decision']}: {'; '.join(shown['reasons'])}",
    )
    return 0


def _approve(arguments: argparse.Namespace, day: date) -> int:
    """Records that a held day may be trained on."""
    from fraud.monitoring.journal import Approval, Journal
    from fraud.pipeline import releases

    if not arguments.approve.strip():
        raise BadInput("--approve: say why, for the record")
    _, root = common.config_and_root(arguments)
    at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    approval = Approval(day, releases.user(), arguments.approve, at)
    Journal(root.path / "loop").approve(approval)
    common.show(
        arguments,
        {**asdict(approval), "day": str(day)},
        lambda shown: f"{shown['day']}  approved by {shown['user']}: {shown['reason']}",
    )
    return 0


def _compile(arguments: argparse.Namespace, settings: Path) -> Path:
    """Writes the graph of a training that adds some settings; returns the folder."""
    import os

    from fraud.pipeline.console import Console

    arguments.config = [*arguments.config, str(settings)]
    config, root = common.config_and_root(arguments)
    data = common.data_path(arguments, config)
    console = Console(sys.stderr)
    with console.logging_to(Path(os.devnull)):
        from fraud.pipeline.runners import local

        local.load_tfx()
        from fraud.pipeline.runners import compiled
    folder = root.path / "loop" / GRAPH
    compiled.write(config, root, data, folder)
    return folder

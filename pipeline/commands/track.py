"""`fraud-pipeline track`: send finished runs to MLflow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from fraud.pipeline.commands import common
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root
from fraud.text import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Send finished runs and backtests to MLflow, with their models, and register what was\n"
        "pushed; the alias champion is what is live. What the server has already is not sent\n"
        "again. With tracking.uri, or MLFLOW_TRACKING_URI, every run, backtest and rollback does\n"
        "this when it ends; use the command for what an orchestrator ran, or while a server was\n"
        "down.",
        "  MLFLOW_TRACKING_URI=http://localhost:5000 fraud-pipeline track",
    )
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Sends and says what was sent.

    Raises:
      BadInput: no server is configured.
      FraudPipelineError: it cannot be reached.
    """
    config, root = common.config_and_root(arguments)
    from fraud.pipeline.console import Console
    from fraud.pipeline.tracking import mirror

    with Console(sys.stderr).quiet():
        sent = mirror.send(config, root, lambda run_id: charts(config, root, run_id))
    common.show(arguments, sent, render)
    return 0


def send_finished(config: Config, root: Root) -> None:
    """What commands do when they end, if there is a server.

    They have done their work, so whatever goes wrong is only said.
    """
    from fraud.pipeline.console import Console
    from fraud.pipeline.tracking import mirror

    if not mirror.uri(config):
        return
    try:
        with Console(sys.stderr).quiet():
            mirror.send(config, root, lambda run_id: charts(config, root, run_id))
    except Exception as error:
        print(f"fraud-pipeline: warning: {plain(str(error))}", file=sys.stderr)


def charts(config: Config, root: Root, run_id: str) -> Mapping[str, str]:
    """The charts of a run, by the name of their file."""
    from fraud.pipeline import lineage
    from fraud.report import run_report

    store = lineage.find_store(config.metadata, root)
    return run_report.pictures(run_report.read(store, root.pushed, root.run(run_id), run_id))


def render(sent: Any) -> str:
    """What was sent, as text."""
    lines = [f"sent      {name}" for name in sent.runs] or ["nothing new to send"]
    if sent.champion:
        lines.append(f"champion  version {sent.champion} of the registered model")
    return "\n".join(lines)

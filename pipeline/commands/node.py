"""`fraud-pipeline node`: one node of the compiled graph, for an orchestrator."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

from fraud.errors import FraudPipelineError, StoppedByDataGate
from fraud.pipeline.commands import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Run one node of the graph that `fraud-pipeline compile` wrote. The nodes of a run share\n"
        "its run id; repeat the command to try again: what succeeded is not done twice.",
        "  fraud-pipeline node --ir graph/ir.json --node Trainer --run-id 2018-07-31 "
        "--as-of 2018-07-31\n\n"
        "exit codes: 0 succeeded, 1 failure, 2 bad input, 3 stopped by the data gate",
    )
    parser.add_argument("--ir", required=True, type=Path, metavar="FILE", help="the compiled graph")
    parser.add_argument("--node", required=True, metavar="ID", help="which node")
    parser.add_argument("--run-id", required=True, metavar="ID", help="which run it belongs to")
    parser.add_argument(
        "--as-of",
        type=lambda text: common.day(text) if text else None,
        metavar="DAY",
        help="the day the run pretends it is (default, and with '': the last day of the data)",
    )
    parser.add_argument(
        "--data", metavar="PATH", help="what to read instead of what the graph was compiled with"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the node; everything that happens is logged to stdout.

    Raises:
      FraudPipelineError: see `fraud.pipeline.runners.launch.run_node`.
    """
    started = time.monotonic()
    from fraud.pipeline import lineage, startup, summary

    startup.import_tfx()
    from fraud.pipeline.runners import compiled
    from fraud.pipeline.runners import launch as node

    # Not before the imports: there is nothing to learn from what they say.
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stdout,
        format="%(asctime)s %(levelname)s %(message)s",
        force=True,  # an import may have set it up already
    )
    ir = compiled.read(arguments.ir)
    data = common.data_path(arguments)
    graph = compiled.for_run(ir, arguments.run_id, arguments.as_of, data)
    root = compiled.root_of(graph)
    connection = compiled.connection_of(graph)
    with root.turn_of(arguments.run_id, arguments.node, alone=connection.HasField("sqlite")):
        try:
            record = node.run_node(graph, arguments.node)
        except FraudPipelineError:
            raise
        except Exception as error:
            logging.exception("%s failed", arguments.node)
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise FraudPipelineError(f"{arguments.node} failed: {reason[0]}") from None
        summary.write_if_over(lineage.open_store(connection), arguments.run_id, root)
    print(f"{record.name}: {record.state} in {time.monotonic() - started:.1f} s")
    if summary.stopped_by(record):
        raise StoppedByDataGate(f"{record.name} stopped run {arguments.run_id}")
    return 0

"""`fraud-pipeline node`: runs one node of the compiled graph, for an orchestrator."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from fraud import files
from fraud.errors import BadInput, StoppedByDataGate
from fraud.names import check_run_id
from fraud.pipeline.commands import common, report
from fraud.pipeline.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's description and options."""
    common.example(
        parser,
        "Run one node of the graph that `fraud-pipeline compile` wrote. All nodes of a run get\n"
        "the same run id. To retry, repeat the command: a node that succeeded is not repeated.",
        "  fraud-pipeline node --ir graph/ir.json --node Trainer --run-id 2018-07-31 "
        "--as-of 2018-07-31\n\n"
        "exit codes: 0 succeeded, 1 failure, 2 bad input, 3 stopped by the data gate",
    )
    parser.add_argument("--ir", required=True, type=Path, metavar="FILE", help="compiled graph")
    parser.add_argument("--node", required=True, metavar="ID", help="id of the node")
    parser.add_argument("--run-id", required=True, metavar="ID", help="id of the run")
    parser.add_argument(
        "--as-of",
        type=lambda text: common.day(text) if text else None,
        metavar="DAY",
        help="run as if today were DAY (default, and if empty: the last day of the data)",
    )
    parser.add_argument(
        "--data", metavar="PATH", help="data to read instead of the path given to `compile`"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="log everything to stdout instead of the run's log"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the node. Prints its progress to stdout; everything else goes to the run's log.

    Raises:
      FraudPipelineError: see `fraud.pipeline.runners.launch.failure`.
    """
    check_run_id(arguments.run_id)
    started = time.monotonic()
    console = Console(sys.stdout)

    def logging_to(log: Path) -> AbstractContextManager[None]:
        return nullcontext() if arguments.verbose else console.logging_to(log)

    # What imports print is always the same and irrelevant to the run.
    with logging_to(Path(os.devnull)):
        from fraud.pipeline import lineage, summary
        from fraud.pipeline.runners import local
        from fraud.report import terminal

        if arguments.run_id.startswith(lineage.MONITOR_RUN):
            raise BadInput(
                f"run id {arguments.run_id!r}: those that begin with {lineage.MONITOR_RUN} are the "
                "monitor's; use another"
            )
        local.load_tfx()
        from fraud.pipeline.runners import compiled, launch

    node_id, run_id = arguments.node, arguments.run_id
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stdout,
        # Nodes that run side by side share the log.
        format=f"%(asctime)s {node_id.replace('%', '%%')} %(levelname)s %(message)s",
        force=True,  # an import may have configured logging already
    )
    ir = compiled.read(arguments.ir)
    data = files.resolve(arguments.data) if arguments.data else None
    graph = compiled.for_run(ir, run_id, arguments.as_of, data)
    launch.node_of(graph, node_id)
    root = compiled.root_of(graph)
    connection = compiled.connection_of(graph)
    log = root.log(run_id)
    as_of = arguments.as_of or "the last day of the data"
    console.say(f"{node_id}: run {run_id} as of {as_of}")
    with root.turn_of(run_id, node_id, alone=connection.HasField("sqlite")), logging_to(log):
        try:
            if arguments.as_of:
                launch.check_same_day(lineage.open_store(connection), run_id, arguments.as_of)
            record = launch.run_node(graph, node_id)
        except Exception as error:
            logging.exception("%s failed", node_id)
            failure = launch.failure(node_id, error, "above" if arguments.verbose else log)
            seconds = time.monotonic() - started
            console.say(f"{node_id}: exit code {failure.exit_code} after {seconds:.1f} s")
            raise failure from None
        finally:
            store = lineage.open_store(connection)
            for line in _artifacts(store, run_id, node_id):
                console.say(line)
        if summary.write_if_over(store, run_id, root):
            report.write_of_finished(store, root, run_id)
        seconds = time.monotonic() - started
        result = f"{node_id}: {record.state} in {seconds:.1f} s"
        console.say(f"{result}  {terminal.node_detail(record)}".rstrip())
    if summary.stopped_by(record):
        raise StoppedByDataGate(f"{node_id} stopped run {run_id}")
    return 0


def _artifacts(store: Any, run_id: str, node_id: str) -> Iterator[str]:
    """A line for each input and output of the node: key, artifact type, id and URI."""
    from ml_metadata.proto.metadata_store_pb2 import Event

    from fraud.pipeline import lineage

    for execution in lineage.executions(store, run_id, node_id)[-1:]:
        events = store.get_events_by_execution_ids([execution.id])
        artifacts = {a.id: a for a in store.get_artifacts_by_id([e.artifact_id for e in events])}
        for event in events:
            artifact = artifacts[event.artifact_id]
            direction = Event.Type.Name(event.type).rpartition("_")[2].lower()
            key = event.path.steps[0].key if event.path.steps else ""
            key = key.removeprefix("_")  # the input of a condition: _DataGate.verdict
            yield f"  {direction:<6} {key:<20} {artifact.type} {artifact.id}  {artifact.uri}"

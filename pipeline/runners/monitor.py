"""Runs the monitor's graph on this machine."""

from __future__ import annotations

import logging
from datetime import date, datetime, timezone

from tfx.dsl.compiler import compiler

from fraud.monitoring.checks import Observation
from fraud.pipeline import artifacts, lineage, monitoring_graph
from fraud.pipeline.config import Config
from fraud.pipeline.console import Console
from fraud.pipeline.root import Root
from fraud.pipeline.runners import compiled, launch

LOG = "monitor.log"
"""In `Root.monitoring`: everything that TFX printed in the last look."""


def look(config: Config, root: Root, data: str, as_of: date, console: Console) -> Observation:
    """Looks at production once, and records it; waits while a run uses the root.

    Args:
      config: thresholds, and everything the live version's data depends on.
      root: where everything is recorded.
      data: day folders or a file.
      as_of: the last day.
      console: keeps what TFX prints away from the terminal.

    Raises:
      BadInput: the data or the log is unusable.
      FraudPipelineError: the disk is full; or the component failed, and the message names the log.
    """
    log = root.monitoring / LOG
    with root.turn():
        root.require_space()
        log.unlink(missing_ok=True)
        with console.logging_to(log):
            store = lineage.open_store(lineage.connection_config(config.metadata, root))
            run_id = f"{lineage.MONITOR_RUN}{datetime.now(timezone.utc):%Y%m%d-%H%M%S-%f}"
            pipeline = monitoring_graph.create_pipeline(config, root, data, as_of, store)
            graph = compiled.for_run(compiler.Compiler().compile(pipeline), run_id, as_of)
            for node in graph.nodes:
                node_id = node.pipeline_node.node_info.id
                try:
                    record = launch.run_node(graph, node_id)
                except Exception as error:
                    logging.exception("node %s failed", node_id)
                    raise launch.failure(node_id, error, log) from None
    (artifact,) = record.outputs["observation"]
    return artifacts.observation(artifact)

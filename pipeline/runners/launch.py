"""Runs one node of the compiled graph.

Every runner uses this module, so lineage is the same whichever one runs the graph.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import date
from pathlib import Path

from ml_metadata.errors import StatusError
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher, outputs_utils
from tfx.proto.orchestration import pipeline_pb2

from fraud import tracing
from fraud.errors import BadInput, FraudPipelineError, StoppedByDataGate
from fraud.pipeline import lineage, releases, summary
from fraud.pipeline.data_facts import value
from fraud.pipeline.lineage import NodeRecord
from fraud.pipeline.root import Root
from fraud.pipeline.runners import code, compiled

PUSHER = "tfx.components.pusher.component.Pusher"
"""The type of the node that pushes."""


def run_node(graph: pipeline_pb2.Pipeline, node_id: str) -> NodeRecord:
    """Runs one node with the launcher that LocalDagRunner uses.

    A node that has already succeeded in this run is not repeated. One that failed or was killed
    starts over, after its partial outputs are removed. The caller must ensure that no other process
    runs the same node of the same run.

    Args:
      graph: the compiled graph, bound to a run by `compiled.for_run`.
      node_id: id of the node.

    Returns:
      The node's record in ML Metadata.

    Raises:
      BadInput: the graph has no such node, or an upstream node has not succeeded yet.
      StoppedByDataGate: the data gate rejected the data of this run, so the node must not run.
      FraudPipelineError: the inputs could not be resolved, which the launcher only records.
      Exception: whatever the executor raised; ML Metadata records the node as FAILED.
    """
    node = node_of(graph, node_id)
    run_id = compiled.run_id_of(graph)
    deployment = runner_utils.extract_local_deployment_config(graph)
    connection = lineage.with_password(compiled.connection_of(graph))
    recorder = _Connection(connection, compiled.root_of(graph))
    with recorder as handle:
        records = lineage.nodes(handle.store, run_id)
        if node_id in records and records[node_id].is_finished:
            return records[node_id]
        _check_upstream(node, records, run_id)
        _forget_attempt(handle.store, graph, node)
    is_pusher = node.node_info.type.name == PUSHER
    with (
        _alone(graph, run_id) if is_pusher else nullcontext(),
        tracing.span(node_id, {"fraud.run": run_id}),
    ):
        launcher.Launcher(
            pipeline_node=node,
            mlmd_connection=recorder,
            pipeline_info=graph.pipeline_info,
            pipeline_runtime_spec=graph.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(deployment, node_id),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
        ).launch()
    with metadata.Metadata(connection) as handle:
        lineage.record_code(handle.store, run_id, node_id, code.origin())
        record = lineage.nodes(handle.store, run_id)[node_id]
        if record.state == "COMPLETE":
            lineage.record_digests(handle.store, record)
            record = lineage.nodes(handle.store, run_id)[node_id]
    if not record.is_finished:
        raise FraudPipelineError(f"ended as {record.state}: {record.error or 'see the log'}")
    return record


def check_same_day(store: metadata_store.MetadataStore, run_id: str, as_of: date) -> None:
    """Checks that a run whose data has been read is of a day: it would not be read again.

    Raises:
      BadInput: it is of another day.
    """
    for examples in lineage.artifacts_of_run(store, run_id, "Examples"):
        recorded = value(examples, "as_of")
        if recorded and recorded != str(as_of):
            raise BadInput(
                f"run {run_id} is as of {recorded}, not {as_of}; give each day its own --run-id"
            )


def node_of(graph: pipeline_pb2.Pipeline, node_id: str) -> pipeline_pb2.PipelineNode:
    """A node of the compiled graph.

    Raises:
      BadInput: the graph has no such node.
    """
    by_id = {n.pipeline_node.node_info.id: n.pipeline_node for n in graph.nodes}
    if node_id not in by_id:
        raise BadInput(f"--node {node_id!r}: no such node; the graph has {', '.join(by_id)}")
    return by_id[node_id]


class _Connection(metadata.Metadata):
    """A connection to ML Metadata that is not opened while the disk is full."""

    def __init__(self, connection: mlmd.ConnectionConfig, root: Root):
        super().__init__(connection)
        self._root = root

    def __enter__(self) -> metadata.Metadata:
        self._root.require_space()
        lineage.remove_broken_links(self._connection_config)
        return super().__enter__()


@contextmanager
def _alone(graph: pipeline_pb2.Pipeline, run_id: str) -> Iterator[None]:
    """Locks the push folder from the decision to push until ML Metadata has recorded the push.

    What killed processes left is recovered first, and what this one leaves if it fails, after.
    """
    root, connection = compiled.root_of(graph), compiled.connection_of(graph)
    with root.pushing():
        for done in releases.recover(root, lineage.open_store(connection), keep_run=run_id):
            logging.warning(done)
        try:
            yield
        finally:
            try:
                releases.recover(root, lineage.open_store(connection))
            except (OSError, RuntimeError, FraudPipelineError):  # the next one will do it
                logging.exception("%s: the journal could not be brought up to date", root.releases)


def failure(node_id: str, error: Exception, log: Path | str) -> FraudPipelineError:
    """The error to report when a node fails.

    Args:
      node_id: id of the node.
      error: what `run_node` raised.
      log: where to look for the details.
    """
    if isinstance(error, BadInput | StoppedByDataGate):
        return error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = lines or [type(error).__name__]
    # Autograph's messages start with a header ending in a colon and end with the reason.
    reason = lines[-1] if lines[0].endswith(":") else lines[0]
    if isinstance(error, StatusError):
        reason = f"ML Metadata did not record it: {lineage.cause(error)}"
    return FraudPipelineError(
        f"{node_id} failed: {reason}\nFull log: {log}. Fix the cause and run the same command "
        "again: nodes that succeeded are not repeated."
    )


def _check_upstream(
    node: pipeline_pb2.PipelineNode, records: dict[str, NodeRecord], run_id: str
) -> None:
    """Raises if the upstream nodes have not all succeeded.

    Otherwise the launcher would register an execution without inputs, and every retry would reuse
    it.
    """
    stopped = [record.name for record in records.values() if summary.stopped_by(record)]
    missing = [i for i in node.upstream_nodes if i not in records or not records[i].is_finished]
    if stopped and (missing or set(stopped) & set(node.upstream_nodes)):
        raise StoppedByDataGate(f"{node.node_info.id}: not run: {stopped[0]} stopped run {run_id}")
    if missing:
        raise BadInput(
            f"{node.node_info.id}: {', '.join(missing)} must succeed before it in run {run_id}"
        )


def _forget_attempt(
    store: metadata_store.MetadataStore,
    graph: pipeline_pb2.Pipeline,
    node: pipeline_pb2.PipelineNode,
) -> None:
    """Removes what a failed or killed attempt left.

    The launcher reuses the execution of that attempt, and so its folders; after a kill it is still
    RUNNING. A resolver has no folders and gets a new execution each time; its old one must not look
    as if it were still running.
    """
    node_id = node.node_info.id
    for execution in lineage.executions(store, compiled.run_id_of(graph), node_id):
        logging.warning(
            "%s: an earlier attempt ended as %s; starting over",
            node_id,
            mlmd.Execution.State.Name(execution.last_known_state),
        )
        folder = Path(outputs_utils.get_node_dir(graph.runtime_spec, node_id))
        for key in node.outputs.outputs:
            shutil.rmtree(folder / key / str(execution.id), ignore_errors=True)
        executor_output = Path(outputs_utils.get_executor_output_uri(str(folder), execution.id))
        shutil.rmtree(executor_output.parent, ignore_errors=True)
        execution.last_known_state = mlmd.Execution.CANCELED
        execution.custom_properties.pop("__execution_result__", None)
        store.put_executions([execution])

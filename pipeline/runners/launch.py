"""One node of the compiled graph. Every runner goes through here, so lineage is the same in all."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher, outputs_utils
from tfx.proto.orchestration import pipeline_pb2

from fraud.errors import BadInput, FraudPipelineError, StoppedByDataGate
from fraud.pipeline import lineage, summary
from fraud.pipeline.lineage import NodeRecord
from fraud.pipeline.runners import compiled


def run_node(graph: pipeline_pb2.Pipeline, node_id: str) -> NodeRecord:
    """Runs one node: what LocalDagRunner does for each, by the same launcher.

    A node that already succeeded in this run is not run again; one that failed or was killed
    starts anew, without what it had left. The caller sees to it that no other process runs the
    same node of the same run.

    Args:
      graph: the compiled graph, bound to a run by `compiled.for_run`.
      node_id: which node.

    Returns:
      What ML Metadata holds of the node now.

    Raises:
      BadInput: the graph has no such node, or a node before it has not succeeded yet.
      StoppedByDataGate: the node must not run: the data of this run was refused.
      FraudPipelineError: its inputs could not be resolved. (The launcher only records that.)
      Exception: whatever the node's executor raised; ML Metadata has it as FAILED.
    """
    by_id = {n.pipeline_node.node_info.id: n.pipeline_node for n in graph.nodes}
    if node_id not in by_id:
        raise BadInput(f"--node {node_id}: no such node; the graph has {', '.join(by_id)}")
    run_id = compiled.run_id_of(graph)
    deployment = runner_utils.extract_local_deployment_config(graph)
    connection = lineage.with_password(compiled.connection_of(graph))
    with metadata.Metadata(connection) as handle:
        records = lineage.nodes(handle.store, run_id)
        if node_id in records and records[node_id].is_finished:
            return records[node_id]
        _check_upstream(by_id[node_id], records, run_id)
        _forget_attempt(handle.store, graph, by_id[node_id])
    launcher.Launcher(
        pipeline_node=by_id[node_id],
        mlmd_connection=metadata.Metadata(connection),
        pipeline_info=graph.pipeline_info,
        pipeline_runtime_spec=graph.runtime_spec,
        executor_spec=runner_utils.extract_executor_spec(deployment, node_id),
        custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
    ).launch()
    with metadata.Metadata(connection) as handle:
        record = lineage.nodes(handle.store, run_id)[node_id]
    if not record.is_finished:
        raise FraudPipelineError(f"ended as {record.state}: {record.error or 'see the log'}")
    return record


def _check_upstream(
    node: pipeline_pb2.PipelineNode, records: dict[str, NodeRecord], run_id: str
) -> None:
    """Refuses a node whose turn has not come.

    The launcher would register an execution without inputs, which no retry could put right.
    """
    stopped = [record.name for record in records.values() if summary.stopped_by(record)]
    missing = [i for i in node.upstream_nodes if i not in records or not records[i].is_finished]
    if stopped and (missing or set(stopped) & set(node.upstream_nodes)):
        raise StoppedByDataGate(f"{node.node_info.id}: not run: {stopped[0]} stopped run {run_id}")
    if missing:
        raise BadInput(
            f"{node.node_info.id}: {', '.join(missing)} must succeed before it in run {run_id}"
        )


def _forget_attempt(store, graph: pipeline_pb2.Pipeline, node: pipeline_pb2.PipelineNode) -> None:  # type: ignore[no-untyped-def]
    """Takes away what an attempt left that failed or was killed.

    The launcher gives the execution of that attempt, and so its folders, to the next one. (A killed
    process leaves it RUNNING.) A resolver, which has no folders, gets an execution of its own each
    time; the old one must not be taken for one that is still at work.
    """
    node_id = node.node_info.id
    for execution in lineage.executions(store, compiled.run_id_of(graph), node_id):
        logging.warning(
            "%s: an earlier attempt ended as %s; starting anew",
            node_id,
            mlmd.Execution.State.Name(execution.last_known_state),
        )
        folder = Path(outputs_utils.get_node_dir(graph.runtime_spec, node_id))
        for key in node.outputs.outputs:
            shutil.rmtree(folder / key / str(execution.id), ignore_errors=True)
        of_executor = Path(outputs_utils.get_executor_output_uri(str(folder), execution.id)).parent
        shutil.rmtree(of_executor, ignore_errors=True)
        execution.last_known_state = mlmd.Execution.CANCELED
        execution.custom_properties.pop("__execution_result__", None)
        store.put_executions([execution])

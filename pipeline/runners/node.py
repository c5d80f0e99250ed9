"""One node of the compiled graph. Every runner goes through here, so lineage is the same in all."""

from __future__ import annotations

from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2

from pipeline import lineage
from pipeline.errors import FraudPipelineError
from pipeline.lineage import NodeRecord


def compile_graph(pipeline: Pipeline) -> pipeline_pb2.Pipeline:
    """Compiles a pipeline to TFX's intermediate representation; nodes in topological order."""
    return compiler.Compiler().compile(pipeline)


def for_run(graph: pipeline_pb2.Pipeline, run_id: str) -> pipeline_pb2.Pipeline:
    """A copy of the compiled graph that stands for one run."""
    bound = pipeline_pb2.Pipeline()
    bound.CopyFrom(graph)
    runtime_parameter_utils.substitute_runtime_parameter(
        bound, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
    )
    return bound


def node_ids(graph: pipeline_pb2.Pipeline) -> list[str]:
    """The nodes in an order in which they can run."""
    return [node.pipeline_node.node_info.id for node in graph.nodes]


def run_node(graph: pipeline_pb2.Pipeline, node_id: str) -> NodeRecord:
    """Runs one node: what LocalDagRunner does for each, by the same launcher.

    A node that already succeeded in this run is not run again.

    Args:
      graph: the compiled graph, bound to a run by `for_run`.
      node_id: which node.

    Returns:
      What ML Metadata holds of the node now.

    Raises:
      KeyError: the graph has no such node.
      FraudPipelineError: its inputs could not be resolved. (The launcher only records that.)
      Exception: whatever the node's executor raised; ML Metadata has it as FAILED.
    """
    by_id = {n.pipeline_node.node_info.id: n.pipeline_node for n in graph.nodes}
    deployment = runner_utils.extract_local_deployment_config(graph)
    connection = deployment.metadata_connection_config
    connection = getattr(connection, connection.WhichOneof("connection_config"))
    launcher.Launcher(
        pipeline_node=by_id[node_id],
        mlmd_connection=metadata.Metadata(connection),
        pipeline_info=graph.pipeline_info,
        pipeline_runtime_spec=graph.runtime_spec,
        executor_spec=runner_utils.extract_executor_spec(deployment, node_id),
        custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
    ).launch()
    run_id = graph.runtime_spec.pipeline_run_id.field_value.string_value
    with metadata.Metadata(connection) as handle:
        record = lineage.nodes(handle.store, run_id)[node_id]
    if record.state not in ("COMPLETE", "CACHED"):
        raise FraudPipelineError(f"ended as {record.state}: {record.error or 'see the log'}")
    return record

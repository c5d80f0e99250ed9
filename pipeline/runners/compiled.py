"""The compiled graph: written once, read by every process that runs one of its nodes.

`write` compiles the graph to TFX's intermediate representation (IR) and writes it to a folder,
together with an outline in plain JSON for orchestrators. The run's id, the as-of day and the data
are parameters, which `for_run` fills in.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import runtime_parameter_utils
from tfx.proto.orchestration import (  # The IR holds messages of these types as Any.
    executable_spec_pb2,  # noqa: F401
    local_deployment_config_pb2,  # noqa: F401
    pipeline_pb2,
)

from fraud.errors import BadInput
from fraud.files import write_atomically
from fraud.names import check_run_id
from fraud.pipeline import graph, lineage
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root
from fraud.pipeline.runners import code

IR_FILE = "ir.json"
OUTLINE_FILE = "graph.json"


def write(config: Config, root: Root, data: str, out: Path) -> Path:
    """Compiles the graph into a folder: the IR, its outline, and the curated schema.

    Args:
      config: everything a run depends on.
      root: where runs keep artifacts, metadata and models.
      data: the default of the data parameter.
      out: the folder; it can be moved as a whole.

    Returns:
      The path of the IR.

    Raises:
      BadInput: the curated schema cannot be read, or the folder cannot be written.
    """
    config = with_schema_by_content(config, out)
    ir = compiler.Compiler().compile(graph.create_pipeline(config, root, data))
    text = json_format.MessageToJson(ir, sort_keys=True)
    write_atomically(out / IR_FILE, text)
    write_atomically(
        out / OUTLINE_FILE, json.dumps(outline(ir, root, data, config.dataset.timezone), indent=1)
    )
    return out / IR_FILE


def read(path: Path) -> pipeline_pb2.Pipeline:
    """Reads the IR that `write` wrote.

    Raises:
      BadInput: the file is missing, or this TFX cannot read it.
    """
    try:
        ir = json_format.Parse(path.read_text(encoding="utf-8"), pipeline_pb2.Pipeline())
    except OSError as error:
        raise BadInput(
            f"{path}: cannot read the compiled graph: {error.strerror}; `fraud-pipeline compile` "
            "writes it"
        ) from None
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{path}: not a compiled graph: {error}; write it again with `fraud-pipeline compile`"
        ) from None
    for node in ir.nodes:
        for value in node.pipeline_node.parameters.parameters.values():
            if value.runtime_parameter.name == graph.SCHEMA:
                default = value.runtime_parameter.default_value
                default.string_value = str(path.resolve().parent / default.string_value)
    return ir


def for_run(
    ir: pipeline_pb2.Pipeline, run_id: str, as_of: date | None = None, data: str | None = None
) -> pipeline_pb2.Pipeline:
    """A copy of the compiled graph with the parameters of one run filled in.

    To the parameters of each node with an executor it adds the fingerprint of its code, which thus
    becomes part of TFX's cache key. (TFX does not cache the others, the resolvers.)

    Args:
      ir: the compiled graph, from `read`.
      run_id: identifies the run; all nodes of a run share it.
      as_of: run as if today were this day; None for the last day of data.
      data: overrides the data given when the graph was compiled.

    Raises:
      BadInput: the run id is none; see `fraud.names.check_run_id`.
    """
    check_run_id(run_id)
    bound = pipeline_pb2.Pipeline()
    bound.CopyFrom(ir)
    parameters = {
        constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id,
        graph.AS_OF: as_of.isoformat() if as_of else "",
    }
    if data is not None:
        parameters[graph.DATA] = data
    runtime_parameter_utils.substitute_runtime_parameter(bound, parameters)
    _add_fingerprints(bound)
    return bound


def _add_fingerprints(bound: pipeline_pb2.Pipeline) -> None:
    deployment = runner_utils.extract_local_deployment_config(bound)
    for node in (n.pipeline_node for n in bound.nodes):
        node_id, parameters = node.node_info.id, node.parameters.parameters
        executor = runner_utils.extract_executor_spec(deployment, node_id)
        if executor is not None:
            driver = runner_utils.extract_custom_driver_spec(deployment, node_id)
            texts = [value.field_value.string_value for value in parameters.values()]
            fingerprint = code.fingerprint([str(executor), str(driver), *texts])
            parameters[lineage.CODE_FINGERPRINT].field_value.string_value = fingerprint


def run_id_of(bound: pipeline_pb2.Pipeline) -> str:
    """The run id of a graph from `for_run`."""
    return bound.runtime_spec.pipeline_run_id.field_value.string_value


def root_of(bound: pipeline_pb2.Pipeline) -> Root:
    """The root that a graph from `for_run` was compiled for."""
    return Root(Path(bound.runtime_spec.pipeline_root.field_value.string_value).parent)


def connection_of(ir: pipeline_pb2.Pipeline) -> mlmd.ConnectionConfig:
    """The ML Metadata connection, without the password; see `lineage.with_password`."""
    config = runner_utils.extract_local_deployment_config(ir).metadata_connection_config
    return getattr(config, config.WhichOneof("connection_config"))


def outline(ir: pipeline_pb2.Pipeline, root: Root, data: str, timezone: str) -> dict[str, Any]:
    """The outline of the graph for orchestrators, readable without TFX.

    Returns:
      `name`; `ir`, the name of the IR's file in the same folder; `root` and `data`, as given to
      `write`; `timezone`, which defines the days; `side_by_side`, whether several nodes may run at
      the same time (not with SQLite); `nodes` in an order in which they can run, each with `id` and
      `upstream`, the ids of the nodes that must succeed first.
    """
    nodes = [node.pipeline_node for node in ir.nodes]
    return {
        "name": ir.pipeline_info.id,
        "ir": IR_FILE,
        "root": str(root.path),
        "data": data,
        "timezone": timezone,
        "side_by_side": not connection_of(ir).HasField("sqlite"),
        "nodes": [
            {"id": node.node_info.id, "upstream": sorted(node.upstream_nodes)} for node in nodes
        ],
    }


def with_schema_by_content(config: Config, out: Path) -> Config:
    """Copies the curated schema into the folder, under a name derived from its content.

    TFX caches the import of a schema by file name, so an edited schema needs another name.

    Returns:
      The configuration with the name of the copy, without the folder, as its schema.

    Raises:
      BadInput: the curated schema cannot be read, or the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{out}: cannot write there: {error.strerror}") from None
    curated = config.curated_schema
    if curated is None:
        return config
    try:
        text = Path(curated).read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{curated}: cannot read the curated schema: {error.strerror}; create it with "
            "`fraud-pipeline schema --update`, or remove paths.schema from the configuration"
        ) from None
    name = f"schema-{hashlib.sha256(text.encode()).hexdigest()[:16]}.pbtxt"
    write_atomically(out / name, text)
    return replace(config, paths=replace(config.paths, schema=name))

"""Questions asked of ML Metadata. Imports ml_metadata alone, so that it answers fast."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.errors import BadInput, FraudPipelineError
from fraud.pipeline.config import Metadata
from fraud.pipeline.root import Root

PASSWORD = "FRAUD_METADATA_PASSWORD"
"""The environment variable with the password of a metadata server."""

RUN_CONTEXT = "pipeline_run"
_NUMBERED = re.compile(r"/\d+(?![\w-])")
_OWN_PROPERTIES = {"name", "current_model_id", "baseline_model_id", "pushed_version", "answer"}
"""Properties of artifacts that are an id, a time, or a duration."""
_INPUT = (mlmd.Event.INPUT, mlmd.Event.DECLARED_INPUT)
_OUTPUT = (mlmd.Event.OUTPUT, mlmd.Event.DECLARED_OUTPUT)


@dataclass(frozen=True)
class Champion:
    """The model in production.

    Attributes:
      pushed: the PushedModel artifact.
      model_id: id of the Model artifact that was pushed.
      run_id: the run that pushed it.
    """

    pushed: mlmd.Artifact
    model_id: int
    run_id: str


@dataclass(frozen=True)
class NodeRecord:
    """What one node of a run left.

    Attributes:
      state: COMPLETE, CACHED, FAILED, CANCELED, RUNNING, …
      outputs: artifacts by output key.
      seconds: from registration to the last update.
      error: what the executor said when it failed.
    """

    name: str
    state: str
    outputs: dict[str, list[mlmd.Artifact]] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether it succeeded, by work or from the cache."""
        return self.state in ("COMPLETE", "CACHED")


def connection(config: Metadata, root: Root) -> mlmd.ConnectionConfig:
    """How to reach the ML Metadata of a root, without the password, so that it may be written down.

    See `with_password`.
    """
    found = mlmd.ConnectionConfig()
    if config.store == "sqlite":
        found.sqlite.filename_uri = str(root.metadata)
        found.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    else:
        found.mysql.host = config.host
        found.mysql.port = config.port
        found.mysql.database = config.database
        found.mysql.user = config.user
        # Nodes at work side by side abort each other's transactions now and then.
        found.retry_options.max_num_retries = 20
    return found


def with_password(found: mlmd.ConnectionConfig) -> mlmd.ConnectionConfig:
    """The same connection with the password that the environment has."""
    complete = mlmd.ConnectionConfig()
    complete.CopyFrom(found)
    password = os.environ.get(PASSWORD)
    if password and found.HasField("mysql"):
        complete.mysql.password = password
    return complete


def open_store(found: mlmd.ConnectionConfig) -> metadata_store.MetadataStore:
    """Opens ML Metadata; creates it where there is none.

    Args:
      found: of `connection`.

    Raises:
      FraudPipelineError: the server does not answer, or not to us.
    """
    if found.HasField("sqlite"):
        Path(found.sqlite.filename_uri).parent.mkdir(parents=True, exist_ok=True)
    try:
        return metadata_store.MetadataStore(with_password(found))
    except Exception as error:
        server = getattr(found, found.WhichOneof("config"))
        reason = " ".join(str(error).split())
        if found.HasField("sqlite"):
            raise BadInput(f"{server.filename_uri}: cannot be opened: {reason}") from None
        raise FraudPipelineError(
            f"metadata: no connection to {server.host}:{server.port} as {server.user}: {reason}; "
            f"see metadata in the configuration, and {PASSWORD} in the environment"
        ) from None


def find_store(config: Metadata, root: Root) -> metadata_store.MetadataStore | None:
    """Opens the ML Metadata of a root to ask it something; None where nothing has run yet.

    Raises:
      FraudPipelineError: see `open_store`.
    """
    if config.store == "sqlite" and not root.metadata.exists():
        return None
    return open_store(connection(config, root))


def sqlite_store(path: Path) -> metadata_store.MetadataStore:
    """Opens a SQLite file of ML Metadata; creates it where there is none."""
    found = mlmd.ConnectionConfig()
    found.sqlite.filename_uri = str(path)
    found.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    return open_store(found)


def value(holder: Any, name: str) -> Any:
    """A property or custom property of an artifact or execution; None where it has none."""
    for properties in (holder.properties, holder.custom_properties):
        if name in properties:
            kind = properties[name].WhichOneof("value")
            held = getattr(properties[name], kind) if kind else None
            if kind == "struct_value":  # TFX wraps JSON values so
                from google.protobuf import json_format

                held = json_format.MessageToDict(held).get("__value__", held)
            return held
    return None


def champions(store: metadata_store.MetadataStore) -> Iterator[Champion]:
    """Every model that was really pushed, the one in production first, then back in time."""
    pushed = [a for a in store.get_artifacts_by_type("PushedModel") if value(a, "pushed") == 1]
    for artifact in sorted(pushed, key=lambda a: -a.id):
        executions = _executions_that_made(store, artifact.id)
        models = [m for e in executions for m in _artifacts_of(store, e.id, _INPUT)["model"]]
        runs = [c.name for e in executions for c in _run_contexts(store, e.id)]
        # The first execution pushed it; later ones were answered from the cache.
        yield Champion(artifact, models[0].id, runs[0])


def runs(store: metadata_store.MetadataStore) -> list[str]:
    """Ids of all runs, oldest first."""
    try:
        contexts = store.get_contexts_by_type(RUN_CONTEXT)
    except Exception:  # the type exists only after the first run
        return []
    return [c.name for c in sorted(contexts, key=lambda c: c.id)]


def nodes(store: metadata_store.MetadataStore, run_id: str) -> dict[str, NodeRecord]:
    """What each node of a run left, by node id, in the order they ran. Empty for an unknown run."""
    context = store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
    if context is None:
        return {}
    types = {t.id: t.name for t in store.get_execution_types()}
    records = {}
    for execution in sorted(store.get_executions_by_context(context.id), key=lambda e: e.id):
        name = _node_name(store, execution) or types[execution.type_id]
        took = execution.last_update_time_since_epoch - execution.create_time_since_epoch
        records[name] = NodeRecord(
            name=name,
            state=mlmd.Execution.State.Name(execution.last_known_state),
            outputs=_artifacts_of(store, execution.id, _OUTPUT),
            seconds=took / 1000,
            error=str(value(execution, "__execution_result__") or ""),
        )
    return records


def executions(
    store: metadata_store.MetadataStore, run_id: str, node_id: str
) -> list[mlmd.Execution]:
    """The executions of one node in one run, oldest first."""
    context = store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
    found = store.get_executions_by_context(context.id) if context else []
    return sorted((e for e in found if _node_name(store, e) == node_id), key=lambda e: e.id)


def cancel_dead_executions(store: metadata_store.MetadataStore) -> list[str]:
    """Marks executions that a killed process left RUNNING as CANCELED.

    Call it only while holding the root's lock: then no process can be running them.

    Returns:
      The names of the nodes that were cancelled.
    """
    dead = [
        e
        for e in store.get_executions()
        if e.last_known_state in (mlmd.Execution.RUNNING, mlmd.Execution.NEW)
    ]
    names = [_node_name(store, e) for e in dead]
    for execution in dead:
        execution.last_known_state = mlmd.Execution.CANCELED
    if dead:
        store.put_executions(dead)
    return names


def artifacts_of_run(
    store: metadata_store.MetadataStore, run_id: str, type_name: str
) -> list[mlmd.Artifact]:
    """The artifacts of one type that the nodes of a run left, oldest first."""
    found = {}
    for record in nodes(store, run_id).values():
        for artifacts in record.outputs.values():
            found.update({a.id: a for a in artifacts if a.type == type_name})
    return [found[i] for i in sorted(found)]


def comparable(
    store: metadata_store.MetadataStore, run_id: str, names: dict[str, str]
) -> dict[str, Any]:
    """What a run left, in a form that is equal for runs that did the same, wherever and whenever.

    Args:
      store: ML Metadata.
      run_id: which run.
      names: text → what stands for it, for what may differ: paths, for example.

    Returns:
      Node id → its executions, each with type, state, contexts, properties, and events with the
      artifacts at their other end. Ids, times and hashes are left out.
    """
    others = dict.fromkeys(runs(store), "ANOTHER RUN")
    stands_for = {**names, **others, run_id: "RUN"}

    def plain(text: str) -> str:
        for part, stands in stands_for.items():
            text = text.replace(part, stands)
        return _NUMBERED.sub("/#", text)

    def properties(holder: mlmd.Artifact | mlmd.Execution) -> dict[str, str]:
        return {name: plain(str(value(holder, name))) for name in _property_names(holder)}

    def events(execution: mlmd.Execution) -> list[Any]:
        found = store.get_events_by_execution_ids([execution.id])
        by_id = {a.id: a for a in store.get_artifacts_by_id([e.artifact_id for e in found])}
        described = []
        for event in found:
            artifact = by_id[event.artifact_id]
            kind = mlmd.Event.Type.Name(event.type)
            path = [_input_name(step.key) or str(step.index) for step in event.path.steps]
            state = mlmd.Artifact.State.Name(artifact.state)
            described.append(
                (kind, path, artifact.type, state, plain(artifact.uri), properties(artifact))
            )
        return sorted(described, key=str)

    def described(execution: mlmd.Execution) -> dict[str, Any]:
        contexts = store.get_contexts_by_execution(execution.id)
        return {
            "type": execution.type,
            "state": mlmd.Execution.State.Name(execution.last_known_state),
            "properties": properties(execution),
            # A cache's name is a hash of what went in, paths too.
            "contexts": sorted(
                (c.type, "" if c.type == "execution_cache" else plain(c.name)) for c in contexts
            ),
            "events": events(execution),
        }

    return {
        node_id: [described(execution) for execution in executions(store, run_id, node_id)]
        for node_id in sorted(nodes(store, run_id))
    }


def _input_name(key: str) -> str:
    """The name of an input, of a condition's too: `_DataGate.verdict` → `verdict`.

    Of an artifact that a node both takes and waits for, ML Metadata keeps one event, under either
    name, as it happens.
    """
    return key.rpartition(".")[2] if key.startswith("_") else key


def _property_names(holder: mlmd.Artifact | mlmd.Execution) -> list[str]:
    return sorted({*holder.properties, *holder.custom_properties} - _OWN_PROPERTIES)


def _executions_that_made(
    store: metadata_store.MetadataStore, artifact_id: int
) -> list[mlmd.Execution]:
    events = store.get_events_by_artifact_ids([artifact_id])
    ids = sorted({e.execution_id for e in events if e.type in _OUTPUT})
    return sorted(store.get_executions_by_id(ids), key=lambda e: e.id)


def _artifacts_of(
    store: metadata_store.MetadataStore, execution_id: int, kinds: tuple[int, ...]
) -> dict[str, list[mlmd.Artifact]]:
    events = [e for e in store.get_events_by_execution_ids([execution_id]) if e.type in kinds]
    by_id = {a.id: a for a in store.get_artifacts_by_id(sorted({e.artifact_id for e in events}))}
    found: dict[str, list[mlmd.Artifact]] = {}
    for event in events:
        key = event.path.steps[0].key if event.path.steps else ""
        found.setdefault(key, []).append(by_id[event.artifact_id])
    return found


def _run_contexts(store: metadata_store.MetadataStore, execution_id: int) -> list[mlmd.Context]:
    contexts = store.get_contexts_by_execution(execution_id)
    return [c for c in contexts if c.type == RUN_CONTEXT]


def _node_name(store: metadata_store.MetadataStore, execution: mlmd.Execution) -> str:
    contexts = store.get_contexts_by_execution(execution.id)
    for context in contexts:
        if context.type == "node":
            return context.name.split(".", 1)[1]
    return ""

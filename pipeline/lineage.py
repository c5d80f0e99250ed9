"""Queries of ML Metadata. Nothing heavier than ml_metadata is imported, so they answer fast."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud import files
from fraud.errors import BadInput, FraudPipelineError
from fraud.pipeline import tls
from fraud.pipeline.config import Metadata
from fraud.pipeline.data_facts import value
from fraud.pipeline.records import ROLLBACK, RUN_CONTEXT, Code, code_of_properties
from fraud.pipeline.root import Root

PASSWORD = "FRAUD_METADATA_PASSWORD"
"""The environment variable that contains the password of a metadata server."""

OBSERVATION = "fraud.Observation"
"""The artifact type of what the monitor saw."""
MONITOR_RUN = "monitor-"
"""How the ids of the monitor's own runs begin; they train nothing."""
CODE_FINGERPRINT = "code_fingerprint"
PUSHED_TO = "pushed_destination"
"""The property of a PushedModel that names the folder of the version."""

IDENTITY, DIGEST = "identity", "digest"
"""Properties of a PushedModel: `identity_of` its model, and the digest of all files. Other
artifacts have the second one, too."""

_THRESHOLD = "assets.extra/threshold.json"
"""A file next to a SavedModel's graph; what writes it is too heavy to import here."""

_LEARNT = ("variables", "assets", "assets.extra/specification.json")
"""The parts of a SavedModel that differ if something was learnt differently."""

_LINKS = [
    ("Event", "artifact_id", "Artifact"),
    ("Event", "execution_id", "Execution"),
    ("EventPath", "event_id", "Event"),
    ("Association", "execution_id", "Execution"),
    ("Attribution", "artifact_id", "Artifact"),
]
"""Tables of ML Metadata's SQLite file, a column of each, and the table whose id that is."""

_FULL = "the disk is full"

UNFINISHED = (mlmd.Execution.RUNNING, mlmd.Execution.NEW)
INPUT_EVENTS = (mlmd.Event.INPUT, mlmd.Event.DECLARED_INPUT)
OUTPUT_EVENTS = (mlmd.Event.OUTPUT, mlmd.Event.DECLARED_OUTPUT)
"""What a node read, and what it wrote or took from the cache."""


@dataclass(frozen=True)
class Champion:
    """A model that is or was in production, as one version.

    Attributes:
      pushed: the PushedModel artifact.
      version: the version, as text.
      model_id: id of the Model artifact that was pushed.
      run_id: the run that pushed these weights first.
      restored: the version whose weights a rollback restored as this one; None after a push.
      identity: see `identity_of`; versions of one model have the same.
    """

    pushed: mlmd.Artifact
    version: str
    model_id: int
    run_id: str
    restored: str | None = None
    identity: str = ""

    def __post_init__(self) -> None:
        if not self.identity:  # an early release of this package pushed it; its files are gone
            object.__setattr__(self, "identity", f"model {self.model_id}")

    @property
    def is_kept(self) -> bool:
        """Whether ML Metadata says that its files are kept."""
        return is_kept(self.pushed)


@dataclass(frozen=True)
class NodeRecord:
    """One node of a run in ML Metadata.

    Attributes:
      state: COMPLETE, CACHED, FAILED, CANCELED, RUNNING, …
      outputs: artifacts by output key.
      seconds: from the registration to the last update of its execution.
      error: the error that the executor reported; empty if it succeeded.
    """

    name: str
    state: str
    outputs: dict[str, list[mlmd.Artifact]] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether it succeeded, by running or from the cache."""
        return self.state in ("COMPLETE", "CACHED")


def connection_config(config: Metadata, root: Root) -> mlmd.ConnectionConfig:
    """How to reach the ML Metadata of a root.

    It has no password, so it may be written down; see `with_password`.
    """
    connection = mlmd.ConnectionConfig()
    if config.store == "sqlite":
        connection.sqlite.filename_uri = str(root.metadata)
        connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        return connection
    connection.mysql.host = config.host
    connection.mysql.port = config.port
    connection.mysql.database = config.database
    connection.mysql.user = config.user
    if config.tls_ca:
        connection.mysql.ssl_options.ca = config.tls_ca
        connection.mysql.ssl_options.cert = config.tls_certificate or ""
        connection.mysql.ssl_options.key = config.tls_key or ""
    # Nodes that run side by side sometimes abort each other's transactions.
    connection.retry_options.max_num_retries = 20
    return connection


def with_password(connection: mlmd.ConnectionConfig) -> mlmd.ConnectionConfig:
    """A copy of the connection with the password from the environment, if it needs one.

    With TLS, the server must prove who it is before it is trusted with that.

    Raises:
      BadInput, FraudPipelineError: see `fraud.pipeline.tls.check_server`.
    """
    if connection.mysql.HasField("ssl_options"):
        tls.check_server(connection.mysql)
    complete = mlmd.ConnectionConfig()
    complete.CopyFrom(connection)
    password = os.environ.get(PASSWORD)
    if password and connection.HasField("mysql"):
        complete.mysql.password = password
    return complete


def open_store(connection: mlmd.ConnectionConfig) -> metadata_store.MetadataStore:
    """Opens ML Metadata and creates it if there is none.

    Args:
      connection: from `connection_config`.

    Raises:
      BadInput: the SQLite file cannot be opened, or a file for TLS.
      FraudPipelineError: the disk is full; or the server does not answer or refuses the login.
    """
    if connection.HasField("sqlite"):
        Path(connection.sqlite.filename_uri).parent.mkdir(parents=True, exist_ok=True)
    complete = with_password(connection)
    try:
        remove_broken_links(connection)
        return metadata_store.MetadataStore(complete)
    except Exception as error:
        server = getattr(connection, connection.WhichOneof("config"))
        reason = cause(error)
        if connection.HasField("sqlite"):
            kind = FraudPipelineError if reason == _FULL else BadInput
            raise kind(f"{server.filename_uri}: cannot be opened: {reason}") from None
        raise FraudPipelineError(
            f"metadata: no connection to {server.host}:{server.port} as {server.user}: {reason}; "
            f"see metadata in the configuration, and {PASSWORD} in the environment"
        ) from None


def remove_broken_links(connection: mlmd.ConnectionConfig) -> None:
    """Removes what remains in the SQLite file of a record that a full disk broke off.

    SQLite takes the whole transaction back, but ML Metadata goes on, and writes links to records
    that are not there. The next record would get their ids, and thus the links.

    Args:
      connection: from `connection_config`; a server needs none of this.

    Raises:
      sqlite3.Error: the file cannot be read, or written where that is needed.
    """
    path = connection.sqlite.filename_uri
    if not path or not os.path.exists(path):
        return
    database = sqlite3.connect(path, timeout=60)
    try:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        for table, column, of in _LINKS:
            if not tables >= {table, of}:
                continue  # ML Metadata is just being created, or was not completely
            # Ids ascend, and nothing is ever deleted.
            broken = f"FROM {table} WHERE {column} > (SELECT ifnull(max(id), 0) FROM {of})"
            if database.execute(f"SELECT 1 {broken} LIMIT 1").fetchone():
                with database:
                    database.execute(f"DELETE {broken}")
    finally:
        database.close()


def cause(error: Exception) -> str:
    """Why ML Metadata did not record something, as one line without SQL."""
    text = " ".join(str(error).split())
    # SQLite has already taken the transaction back when ML Metadata commits it; see above.
    if "disk is full" in text or "no transaction is active" in text:
        return _FULL
    return text


def find_store(config: Metadata, root: Root) -> metadata_store.MetadataStore | None:
    """Opens the ML Metadata of a root; None if nothing has run there yet.

    Raises:
      BadInput, FraudPipelineError: see `open_store`.
    """
    if config.store == "sqlite" and not root.metadata.exists():
        return None
    return open_store(connection_config(config, root))


def pushes(store: metadata_store.MetadataStore) -> Iterator[Champion]:
    """Every version that was really pushed or rolled back to, newest first, kept or not."""
    pushed = [a for a in store.get_artifacts_by_type("PushedModel") if value(a, "pushed") == 1]
    for artifact in sorted(pushed, key=lambda a: (-int(value(a, "pushed_version")), -a.id)):
        model_id, run_id = _origin(store, artifact)
        version, restored = value(artifact, "pushed_version"), value(artifact, "restored_version")
        identity = value(artifact, IDENTITY) or _identity_by_files(artifact)
        yield Champion(artifact, version, model_id, run_id, restored, identity)


def champions(
    store: metadata_store.MetadataStore, pushed: Path | None = None
) -> Iterator[Champion]:
    """Every version that is recorded and whose folder exists, newest first: the first one is live.

    Args:
      store: ML Metadata.
      pushed: the push folder; None means where each version was pushed to.
    """
    for push in pushes(store):
        folder = pushed / push.version if pushed else Path(value(push.pushed, PUSHED_TO))
        if push.is_kept and folder.is_dir():
            yield push


def standing_champions(store: metadata_store.MetadataStore) -> Iterator[Champion]:
    """What is live, then what was live before it, without what was rolled back from."""
    versions = list(pushes(store))
    for champion in champions(store):
        if not is_rolled_back(versions, champion.identity):
            yield champion


def is_rolled_back(pushes: Sequence[Champion], identity: str) -> bool:
    """Whether a model was taken back by a rollback, and did not go live since.

    A rollback takes back every model that went live after the one that it restores. A version that
    a rollback made counts as the one that it restored: so a rollback that undoes another does not
    take back what that one had restored.

    Args:
      pushes: every version ever, newest first, from `pushes`.
      identity: of the model, see `identity_of`.
    """
    by_version = {push.version: push for push in pushes}

    def first(push: Champion) -> int:
        while push.restored in by_version:
            push = by_version[push.restored]
        return int(push.version)

    latest = next((push for push in pushes if push.identity == identity), None)
    return latest is not None and any(
        push.restored and int(push.version) > int(latest.version) and first(push) < first(latest)
        for push in pushes
    )


def identity_of(model: str | Path) -> str:
    """What makes two SavedModels the same model, however often it is trained: a digest.

    It covers weights, vocabularies, alert threshold and the specification of the inputs. It does
    not cover the graph, in whose file TensorFlow numbers things as it pleases, nor settings and
    metrics of the training, nor the requests that warm a server up.

    Args:
      model: the folder of the SavedModel.
    """
    learnt = files.digest(model, only=_LEARNT)
    file = Path(model, _THRESHOLD)
    threshold = json.loads(file.read_bytes()).get("threshold") if file.exists() else None
    return hashlib.sha256(f"{learnt} {threshold}".encode()).hexdigest()


def model_folder(model: mlmd.Artifact) -> Path:
    """The SavedModel of a Model artifact."""
    return Path(model.uri, "Format-Serving")


def as_of(store: metadata_store.MetadataStore, champion: Champion) -> str:
    """The as-of day of the data that a model was trained on; "" if it has no timestamp."""
    (model,) = store.get_artifacts_by_id([champion.model_id])
    if day := value(model, "as_of"):
        return day
    # Models of earlier releases of this package do not say it themselves.
    examples = artifacts_of_run(store, champion.run_id, "Examples")
    return next((value(e, "as_of") for e in examples), None) or ""


def record_rollback(
    store: metadata_store.MetadataStore, restored: Champion, folder: Path, facts: dict[str, str]
) -> None:
    """Records in one transaction that earlier weights went live as a new version.

    Args:
      store: ML Metadata.
      restored: the version whose weights were restored.
      folder: the new version's.
      facts: properties of the execution and of the new PushedModel.
    """
    kind = store.put_execution_type(mlmd.ExecutionType(name=ROLLBACK), can_add_fields=True)
    execution = mlmd.Execution(
        type_id=kind,
        name=f"rollback to {folder.name}",
        last_known_state=mlmd.Execution.COMPLETE,
    )
    (model,) = store.get_artifacts_by_id([restored.model_id])
    new = mlmd.Artifact(type_id=restored.pushed.type_id, uri=str(folder), state=mlmd.Artifact.LIVE)
    new.custom_properties["pushed"].int_value = 1
    new.custom_properties["pushed_version"].string_value = folder.name
    new.custom_properties[PUSHED_TO].string_value = str(folder)
    for name, fact in facts.items():
        execution.custom_properties[name].string_value = fact
        new.custom_properties[name].string_value = fact
    linked = [
        (model, mlmd.Event.INPUT, "model"),
        (restored.pushed, mlmd.Event.INPUT, "pushed_model"),
        (new, mlmd.Event.OUTPUT, "pushed_model"),
    ]
    contexts = store.get_contexts_by_artifact(restored.pushed.id)
    store.put_execution(
        execution,
        [(artifact, _event(direction, key)) for artifact, direction, key in linked],
        [context for context in contexts if context.type == "pipeline"],
    )


def is_kept(artifact: mlmd.Artifact) -> bool:
    """Whether ML Metadata says that the files of an artifact are kept."""
    return artifact.state not in (mlmd.Artifact.MARKED_FOR_DELETION, mlmd.Artifact.DELETED)


def runs(store: metadata_store.MetadataStore) -> list[str]:
    """Ids of all runs of the graph, oldest first; without those of the monitor."""
    try:
        contexts = store.get_contexts_by_type(RUN_CONTEXT)
    except Exception:  # the type exists only after the first run
        return []
    names = [c.name for c in sorted(contexts, key=lambda c: c.id)]
    return [name for name in names if not name.startswith(MONITOR_RUN)]


def observations(store: metadata_store.MetadataStore) -> list[mlmd.Artifact]:
    """What the monitor saw, the first look first."""
    try:
        found = store.get_artifacts_by_type(OBSERVATION)
    except Exception:  # the type exists only after the first look
        return []
    return sorted((a for a in found if is_kept(a)), key=lambda a: a.id)


def began(store: metadata_store.MetadataStore, run_ids: Iterable[str]) -> float:
    """When the first of some runs began, in seconds since 1970; 0 without runs."""
    contexts = [store.get_context_by_type_and_name(RUN_CONTEXT, run_id) for run_id in run_ids]
    return min((c.create_time_since_epoch for c in contexts if c), default=0) / 1000


def last_update(store: metadata_store.MetadataStore, run_id: str) -> int:
    """When a run recorded something last, in Unix milliseconds; 0 for an unknown run."""
    context = store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
    of_run = store.get_executions_by_context(context.id) if context else []
    return max((e.last_update_time_since_epoch for e in of_run), default=0)


def began_after(store: metadata_store.MetadataStore, run_id: str, artifact: mlmd.Artifact) -> bool:
    """Whether a run began after an artifact was recorded, by ids, as clocks may be set back."""
    context = store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
    of_run = store.get_executions_by_context(context.id) if context else []
    made = _producers_of(store, artifact.id)[0].id
    return bool(of_run) and min(e.id for e in of_run) > made


def nodes(store: metadata_store.MetadataStore, run_id: str) -> dict[str, NodeRecord]:
    """The nodes of a run by node id, in the order in which they ran; empty for an unknown run."""
    context = store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
    if context is None:
        return {}
    types = {t.id: t.name for t in store.get_execution_types()}
    records = {}
    for execution in sorted(store.get_executions_by_context(context.id), key=lambda e: e.id):
        name = _node_name(store, execution) or types[execution.type_id]
        milliseconds = execution.last_update_time_since_epoch - execution.create_time_since_epoch
        records[name] = NodeRecord(
            name=name,
            state=mlmd.Execution.State.Name(execution.last_known_state),
            outputs=_artifacts_of(store, execution.id, OUTPUT_EVENTS),
            seconds=milliseconds / 1000,
            error=str(value(execution, "__execution_result__") or ""),
        )
    return records


def executions(
    store: metadata_store.MetadataStore, run_id: str, node_id: str
) -> list[mlmd.Execution]:
    """The executions of one node in one run, oldest first."""
    context = store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
    all_nodes = store.get_executions_by_context(context.id) if context else []
    return sorted((e for e in all_nodes if _node_name(store, e) == node_id), key=lambda e: e.id)


def record_code(store: metadata_store.MetadataStore, run_id: str, node_id: str, code: Code) -> None:
    """Adds the code that a node ran to its execution, as custom properties."""
    execution = executions(store, run_id, node_id)[-1]
    properties = execution.custom_properties
    properties["fraud_version"].string_value = code.version
    properties["git_commit"].string_value = code.commit
    properties["git_dirty"].int_value = int(code.dirty)
    properties["package_versions"].string_value = json.dumps(code.packages)
    store.put_executions([execution])


def record_digests(store: metadata_store.MetadataStore, record: NodeRecord) -> None:
    """Adds the digest of its files to each artifact that a node wrote, as a custom property.

    With it, `verify` can tell whether files that were lost and are back are the same.
    """
    written = [artifact for artifacts in record.outputs.values() for artifact in artifacts]
    changed = []
    for artifact in written:
        # A resolver names what others wrote.
        is_own = len(_producers_of(store, artifact.id)) == 1
        if is_own and value(artifact, DIGEST) is None and has_files(artifact):
            artifact.custom_properties[DIGEST].string_value = files.digest(artifact.uri)
            changed.append(artifact)
    if changed:
        store.put_artifacts(changed)


def has_files(artifact: mlmd.Artifact) -> bool:
    """Whether there is anything in the folder of an artifact."""
    return bool(artifact.uri) and os.path.isdir(artifact.uri) and bool(os.listdir(artifact.uri))


def code_of(store: metadata_store.MetadataStore, artifact_id: int) -> Code | None:
    """The code that made an artifact; None if that was not recorded."""
    # Later executions reused the artifact from the cache.
    return code_recorded(_producers_of(store, artifact_id)[0])


def code_recorded(execution: mlmd.Execution) -> Code | None:
    """The code that an execution ran; None if that was not recorded."""
    names = ("package_versions", "fraud_version", "git_commit", "git_dirty")
    return code_of_properties({name: value(execution, name) for name in names})


def cancel_dead_executions(store: metadata_store.MetadataStore) -> list[str]:
    """Marks executions that a killed process left RUNNING as CANCELED.

    Call it only while holding the root's lock, which guarantees that no process is running them.

    Returns:
      The names of the nodes that were cancelled.
    """
    dead = [e for e in store.get_executions() if e.last_known_state in UNFINISHED]
    names = [_node_name(store, e) for e in dead]
    for execution in dead:
        execution.last_known_state = mlmd.Execution.CANCELED
    if dead:
        store.put_executions(dead)
    return names


def artifacts_of_run(
    store: metadata_store.MetadataStore, run_id: str, type_name: str
) -> list[mlmd.Artifact]:
    """The artifacts of one type that a run produced or reused, oldest first."""
    by_id = {}
    for record in nodes(store, run_id).values():
        for artifacts in record.outputs.values():
            by_id.update({a.id: a for a in artifacts if a.type == type_name})
    return [by_id[i] for i in sorted(by_id)]


def used_by(store: metadata_store.MetadataStore, run_ids: Iterable[str]) -> set[int]:
    """The ids of the artifacts that runs wrote, read or took from the cache.

    What a resolver considered does not count, only what a node then read.
    """
    contexts = [store.get_context_by_type_and_name(RUN_CONTEXT, run_id) for run_id in run_ids]
    in_runs = [e.id for c in contexts if c for e in store.get_executions_by_context(c.id)]
    events = store.get_events_by_execution_ids(in_runs) if in_runs else []
    return {event.artifact_id for event in events if event.type in (*INPUT_EVENTS, *OUTPUT_EVENTS)}


def _origin(store: metadata_store.MetadataStore, pushed: mlmd.Artifact) -> tuple[int, str]:
    """The Model artifact behind a push or rollback, and the run that pushed it first."""
    producers = _producers_of(store, pushed.id)
    inputs = _artifacts_of(store, producers[0].id, INPUT_EVENTS)
    if "pushed_model" in inputs:  # a rollback
        return _origin(store, inputs["pushed_model"][0])
    contexts = [c for e in producers for c in store.get_contexts_by_execution(e.id)]
    runs = [context.name for context in contexts if context.type == RUN_CONTEXT]
    # The first execution pushed it; later ones reused its result from the cache.
    return inputs["model"][0].id, runs[0]


@lru_cache
def _identity_of_files(*folders: str) -> str:
    return next((identity_of(folder) for folder in folders if os.path.isdir(folder)), "")


def _identity_by_files(pushed: mlmd.Artifact) -> str:
    """The identity of a model whose push did not record it; "" if its files are gone."""
    return _identity_of_files(pushed.uri, value(pushed, PUSHED_TO) or "")


def _event(direction: mlmd.Event.Type, key: str) -> mlmd.Event:
    event = mlmd.Event(type=direction)
    event.path.steps.add().key = key
    event.path.steps.add().index = 0
    return event


def _producers_of(store: metadata_store.MetadataStore, artifact_id: int) -> list[mlmd.Execution]:
    events = store.get_events_by_artifact_ids([artifact_id])
    ids = sorted({e.execution_id for e in events if e.type in OUTPUT_EVENTS})
    return sorted(store.get_executions_by_id(ids), key=lambda e: e.id)


def _artifacts_of(
    store: metadata_store.MetadataStore, execution_id: int, kinds: tuple[int, ...]
) -> dict[str, list[mlmd.Artifact]]:
    events = [e for e in store.get_events_by_execution_ids([execution_id]) if e.type in kinds]
    by_id = {a.id: a for a in store.get_artifacts_by_id(sorted({e.artifact_id for e in events}))}
    by_key: dict[str, list[mlmd.Artifact]] = {}
    for event in events:
        key = event.path.steps[0].key if event.path.steps else ""
        by_key.setdefault(key, []).append(by_id[event.artifact_id])
    return by_key


def _node_name(store: metadata_store.MetadataStore, execution: mlmd.Execution) -> str:
    contexts = store.get_contexts_by_execution(execution.id)
    return next((c.name.split(".", 1)[1] for c in contexts if c.type == "node"), "")

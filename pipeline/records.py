"""The records of ML Metadata as plain values, many at a time.

ML Metadata's client answers few kinds of questions, takes a sixth of a second to be imported and,
since 1.21, cannot filter. A SQLite file is therefore read directly; a server is asked by the
client. Nothing is ever written here.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from fraud.errors import BadInput
from fraud.pipeline.config import Metadata
from fraud.pipeline.root import Root

RUN_CONTEXT, NODE_CONTEXT = "pipeline_run", "node"
ROLLBACK = "fraud.Rollback"
"""The execution type of a rollback."""

SCHEMA_VERSION = 10
"""Of ML Metadata's tables, the same in 1.16 and 1.21."""

OUTPUT_EVENTS, INPUT_EVENTS = (4, 1), (3, 2)
DELETED_STATES = (3, 4)
EXECUTION_STATES = ("UNKNOWN", "NEW", "RUNNING", "COMPLETE", "FAILED", "CACHED", "CANCELED")
"""ML Metadata's enumerations, as its tables number them."""

_STRUCTURE = "mlmd-struct::"
_MOST_STARTS = 100  # ML Metadata's limit of the nodes that a subgraph starts from
_HIDDEN, _RESULT = "__", "__execution_result__"


@dataclass(frozen=True)
class Code:
    """The code of the process that ran a node.

    Attributes:
      version: of this package; empty if it is not installed.
      commit: the git commit of the sources; empty outside a git work tree.
      dirty: whether the sources differ from that commit.
      packages: name → version of the packages that results depend on.
    """

    version: str
    commit: str
    dirty: bool
    packages: dict[str, str]


@dataclass(frozen=True)
class ArtifactRecord:
    """An artifact.

    Attributes:
      id, type, uri: as in ML Metadata.
      created: Unix milliseconds.
      is_kept: whether ML Metadata says that its files are kept.
      properties: by name; TFX's own and ours.
    """

    id: int
    type: str
    uri: str
    created: int
    is_kept: bool
    properties: dict[str, Any]


@dataclass(frozen=True)
class ExecutionRecord:
    """An execution.

    Attributes:
      id, type: as in ML Metadata.
      state: COMPLETE, CACHED, FAILED, …
      created, updated: Unix milliseconds.
      properties: by name, without TFX's own, which begin with two underscores.
      error: what the executor reported; empty if it succeeded.
    """

    id: int
    type: str
    state: str
    created: int
    updated: int
    properties: dict[str, Any]
    error: str


@dataclass(frozen=True)
class Link:
    """An event: an execution read an artifact, or wrote it.

    Attributes:
      artifact_id, execution_id: what is linked.
      is_output: whether it was written, or taken from the cache.
      key: as which input or output; may be empty.
    """

    artifact_id: int
    execution_id: int
    is_output: bool
    key: str


class Records(Protocol):
    """What can be asked, about many records at once; an unknown id has no answer."""

    def artifacts(self, ids: Collection[int]) -> list[ArtifactRecord]:
        """The artifacts with these ids."""

    def artifacts_of_type(self, name: str) -> list[ArtifactRecord]:
        """All artifacts of a type, by id; none if the type is unknown."""

    def artifacts_at(self, uri: str) -> list[ArtifactRecord]:
        """The artifacts in a folder."""

    def executions(self, ids: Collection[int]) -> list[ExecutionRecord]:
        """The executions with these ids."""

    def links_of_artifacts(self, ids: Collection[int]) -> list[Link]:
        """What read or wrote these artifacts."""

    def links_of_executions(self, ids: Collection[int]) -> list[Link]:
        """What these executions read and wrote."""

    def places(self, execution_ids: Collection[int]) -> dict[int, tuple[str, str]]:
        """Execution → its node and its run; empty texts where there is none."""

    def executions_of_run(self, run_id: str) -> list[int] | None:
        """The ids of a run's executions; None if there is no such run."""


def find_records(config: Metadata, root: Root) -> Records | None:
    """The records of a root; None if nothing has run there yet.

    Raises:
      BadInput, FraudPipelineError: see `fraud.pipeline.lineage.open_store`; or the SQLite file
        cannot be read.
    """
    if config.store == "sqlite":
        if not root.metadata.exists():
            return None
        records = SqliteRecords(root.metadata)
        if records.schema_version == SCHEMA_VERSION:
            return records
    from fraud.pipeline import lineage

    store = lineage.find_store(config, root)
    return StoreRecords(store) if store else None


class SqliteRecords:
    """The records in a SQLite file. One thread at a time may ask.

    Args:
      path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Not read-only: what a killed process left half written has to be taken back first.
        address = f"{path.resolve().as_uri()}?mode=rw"
        try:
            self._database = sqlite3.connect(
                address, uri=True, timeout=60, check_same_thread=False, isolation_level=None
            )
        except sqlite3.Error as error:
            raise BadInput(f"{path}: cannot be opened: {error}") from None
        self._rows("PRAGMA query_only = ON")

    @cached_property
    def schema_version(self) -> int | None:
        """Of the tables; None before ML Metadata has created them."""
        if not self._rows("SELECT 1 FROM sqlite_master WHERE name = 'MLMDEnv'"):
            return None
        return next((version for (version,) in self._rows("SELECT * FROM MLMDEnv")), None)

    def artifacts(self, ids: Collection[int]) -> list[ArtifactRecord]:
        """See `Records`."""
        return self._artifacts("a.id IN (SELECT value FROM json_each(?))", _array(ids))

    def artifacts_of_type(self, name: str) -> list[ArtifactRecord]:
        """See `Records`."""
        of_type = "a.type_id IN (SELECT id FROM Type WHERE type_kind = 1 AND name = ?)"
        return self._artifacts(of_type, name)

    def artifacts_at(self, uri: str) -> list[ArtifactRecord]:
        """See `Records`."""
        return self._artifacts("a.uri = ?", uri)

    def executions(self, ids: Collection[int]) -> list[ExecutionRecord]:
        """See `Records`."""
        rows = self._rows(
            "SELECT e.id, t.name, e.last_known_state, e.create_time_since_epoch, "
            "e.last_update_time_since_epoch FROM Execution e JOIN Type t ON t.id = e.type_id "
            "WHERE e.id IN (SELECT value FROM json_each(?)) ORDER BY e.id",
            _array(ids),
        )
        # What TFX hides there may be as long as a schema.
        shown = f"(name = '{_RESULT}' OR substr(name, 1, {len(_HIDDEN)}) != '{_HIDDEN}')"
        properties = self._properties("execution", [row[0] for row in rows], shown)
        return [
            ExecutionRecord(
                id=id_,
                type=kind,
                state=EXECUTION_STATES[state or 0],
                created=created,
                updated=updated,
                error=str(properties.get(id_, {}).pop(_RESULT, None) or ""),
                properties=properties.get(id_, {}),
            )
            for id_, kind, state, created, updated in rows
        ]

    def links_of_artifacts(self, ids: Collection[int]) -> list[Link]:
        """See `Records`."""
        return self._links("artifact_id", ids)

    def links_of_executions(self, ids: Collection[int]) -> list[Link]:
        """See `Records`."""
        return self._links("execution_id", ids)

    def places(self, execution_ids: Collection[int]) -> dict[int, tuple[str, str]]:
        """See `Records`."""
        contexts = self._rows(
            "SELECT s.execution_id, t.name, c.name FROM Association s "
            "JOIN Context c ON c.id = s.context_id JOIN Type t ON t.id = c.type_id "
            "WHERE s.execution_id IN (SELECT value FROM json_each(?))",
            _array(execution_ids),
        )
        return _places(execution_ids, contexts)

    def executions_of_run(self, run_id: str) -> list[int] | None:
        """See `Records`."""
        contexts = self._rows(
            "SELECT c.id FROM Context c JOIN Type t ON t.id = c.type_id "
            "WHERE t.name = ? AND c.name = ?",
            RUN_CONTEXT,
            run_id,
        )
        if not contexts:
            return None
        of_run = "SELECT execution_id FROM Association WHERE context_id = ? ORDER BY execution_id"
        return [id_ for (id_,) in self._rows(of_run, *contexts[0])]

    def _artifacts(self, condition: str, parameter: str) -> list[ArtifactRecord]:
        rows = self._rows(
            "SELECT a.id, t.name, a.uri, a.create_time_since_epoch, a.state FROM Artifact a "
            f"JOIN Type t ON t.id = a.type_id WHERE {condition} ORDER BY a.id",
            parameter,
        )
        properties = self._properties("artifact", [row[0] for row in rows], "1")
        return [
            ArtifactRecord(
                id_, kind, uri or "", created, state not in DELETED_STATES, properties.get(id_, {})
            )
            for id_, kind, uri, created, state in rows
        ]

    def _properties(
        self, of: str, ids: Collection[int], condition: str
    ) -> dict[int, dict[str, Any]]:
        """By id and name; a property goes before a custom one of the same name."""
        found: dict[int, dict[str, Any]] = {}
        for id_, name, integer, real, text, truth in self._rows(
            f"SELECT {of}_id, name, int_value, double_value, string_value, bool_value "
            f"FROM {of}Property WHERE {of}_id IN (SELECT value FROM json_each(?)) "
            f"AND {condition} ORDER BY is_custom_property DESC",
            _array(ids),
        ):
            values = (integer, real, text, None if truth is None else bool(truth))
            content = next((value for value in values if value is not None), None)
            if isinstance(content, str) and content.startswith(_STRUCTURE):
                content = _structure(content)
            found.setdefault(id_, {})[name] = content
        return found

    def _links(self, column: str, ids: Collection[int]) -> list[Link]:
        # Where a full disk broke a record off, a link may lead to nothing.
        rows = self._rows(
            "SELECT e.artifact_id, e.execution_id, e.type, p.step_key FROM Event e "
            "JOIN Artifact a ON a.id = e.artifact_id JOIN Execution x ON x.id = e.execution_id "
            "LEFT JOIN EventPath p ON p.event_id = e.id AND NOT p.is_index_step "
            f"WHERE e.{column} IN (SELECT value FROM json_each(?)) GROUP BY e.id",
            _array(ids),
        )
        return [
            Link(artifact_id, execution_id, kind in OUTPUT_EVENTS, key or "")
            for artifact_id, execution_id, kind, key in rows
            if kind in (*OUTPUT_EVENTS, *INPUT_EVENTS)
        ]

    def _rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise BadInput(f"{self._path}: cannot be read: {error}") from None


class StoreRecords:
    """The records of a store, asked by ML Metadata's client.

    Args:
      store: ML Metadata.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    def artifacts(self, ids: Collection[int]) -> list[ArtifactRecord]:
        """See `Records`."""
        found = self._store.get_artifacts_by_id(sorted(ids)) if ids else []
        return sorted(map(_artifact, found), key=lambda a: a.id)

    def artifacts_of_type(self, name: str) -> list[ArtifactRecord]:
        """See `Records`."""
        found = map(_artifact, self._store.get_artifacts_by_type(name))
        return sorted(found, key=lambda a: a.id)

    def artifacts_at(self, uri: str) -> list[ArtifactRecord]:
        """See `Records`."""
        return sorted(map(_artifact, self._store.get_artifacts_by_uri(uri)), key=lambda a: a.id)

    def executions(self, ids: Collection[int]) -> list[ExecutionRecord]:
        """See `Records`."""
        found = self._store.get_executions_by_id(sorted(ids)) if ids else []
        return sorted(map(_execution, found), key=lambda e: e.id)

    def links_of_artifacts(self, ids: Collection[int]) -> list[Link]:
        """See `Records`."""
        return _links(self._store.get_events_by_artifact_ids(sorted(ids)) if ids else [])

    def links_of_executions(self, ids: Collection[int]) -> list[Link]:
        """See `Records`."""
        return _links(self._store.get_events_by_execution_ids(sorted(ids)) if ids else [])

    def places(self, execution_ids: Collection[int]) -> dict[int, tuple[str, str]]:
        """See `Records`."""
        return _places(execution_ids, list(self._contexts(sorted(execution_ids))))

    def executions_of_run(self, run_id: str) -> list[int] | None:
        """See `Records`."""
        context = self._store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
        if context is None:
            return None
        return sorted(e.id for e in self._store.get_executions_by_context(context.id))

    def _contexts(self, execution_ids: Sequence[int]) -> Iterator[tuple[int, str, str]]:
        """(execution, type of a context of it, the context's name)."""
        from ml_metadata import errors
        from ml_metadata.proto import metadata_store_pb2 as mlmd

        # One question for each execution would search all of ML Metadata's associations each time.
        for start in range(0, len(execution_ids), _MOST_STARTS):
            ids = execution_ids[start : start + _MOST_STARTS]
            query = mlmd.LineageSubgraphQueryOptions(max_num_hops=0)
            query.starting_executions.filter_query = f"id IN ({', '.join(map(str, ids))})"
            wanted = ["contexts", "associations", "context_types"]
            try:
                found = self._store.get_lineage_subgraph(query, wanted)
            except errors.UnimplementedError:  # ML Metadata 1.21 has no filters any more
                for i in ids:
                    with suppress(errors.NotFoundError):  # a rollback has none
                        for context in self._store.get_contexts_by_execution(i):
                            yield i, context.type, context.name
                continue
            types = {kind.id: kind.name for kind in found.context_types}
            contexts = {context.id: context for context in found.contexts}
            for association in found.associations:
                context = contexts[association.context_id]
                yield association.execution_id, types[context.type_id], context.name


def code_of_properties(properties: Mapping[str, Any]) -> Code | None:
    """The code that an execution ran; None if that was not recorded."""
    packages = properties.get("package_versions")
    if packages is None:
        return None
    return Code(
        properties["fraud_version"],
        properties["git_commit"],
        properties["git_dirty"] == 1,
        json.loads(packages),
    )


def _places(
    ids: Collection[int], contexts: Collection[tuple[Any, ...]]
) -> dict[int, tuple[str, str]]:
    """Execution → node and run, from rows of execution, type of a context, and its name."""
    nodes = {i: name.split(".", 1)[1] for i, kind, name in contexts if kind == NODE_CONTEXT}
    runs = {i: name for i, kind, name in contexts if kind == RUN_CONTEXT}
    return {i: (nodes.get(i, ""), runs.get(i, "")) for i in ids}


def _artifact(record: Any) -> ArtifactRecord:
    return ArtifactRecord(
        id=record.id,
        type=record.type,
        uri=record.uri,
        created=record.create_time_since_epoch,
        is_kept=record.state not in DELETED_STATES,
        properties=dict(_named(record)),
    )


def _execution(record: Any) -> ExecutionRecord:
    properties = dict(_named(record))
    return ExecutionRecord(
        id=record.id,
        type=record.type,
        state=EXECUTION_STATES[record.last_known_state],
        created=record.create_time_since_epoch,
        updated=record.last_update_time_since_epoch,
        properties={n: content for n, content in properties.items() if not n.startswith(_HIDDEN)},
        error=str(properties.get(_RESULT) or ""),
    )


def _named(record: Any) -> Iterator[tuple[str, Any]]:
    from fraud.pipeline.data_facts import value

    for name in {*record.properties, *record.custom_properties}:
        content = value(record, name)
        if hasattr(content, "DESCRIPTOR"):
            from google.protobuf import json_format

            content = json_format.MessageToDict(content)
        yield name, content


def _links(events: Collection[Any]) -> list[Link]:
    return [
        Link(
            event.artifact_id,
            event.execution_id,
            event.type in OUTPUT_EVENTS,
            event.path.steps[0].key if event.path.steps else "",
        )
        for event in events
        if event.type in (*OUTPUT_EVENTS, *INPUT_EVENTS)
    ]


def _structure(text: str) -> Any:
    """A structure, as ML Metadata writes it into a column of text."""
    from google.protobuf import json_format, struct_pb2

    message = struct_pb2.Struct.FromString(base64.b64decode(text.removeprefix(_STRUCTURE)))
    content = json_format.MessageToDict(message)
    return content.get("__value__", content)


def _array(ids: Collection[int]) -> str:
    return json.dumps(sorted(ids))

"""Where an artifact comes from, and what came of it: walks through ML Metadata.

Every step of a walk asks for all of its artifacts and executions at once, so that an answer takes a
fraction of a second among the records of thousands of runs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from functools import cached_property
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from fraud.errors import BadInput
from fraud.pipeline.records import (
    ROLLBACK,
    ArtifactRecord,
    Code,
    ExecutionRecord,
    Records,
    code_of_properties,
)

COMPARED = ("baseline_model", "baseline_statistics")
"""Inputs that something was compared with. A walk back names them, but does not go on from them:
the champion was compared with the one before it, and so on to the first run."""

FEATURES = "features"
"""The role of a day that only features looked back on."""

_PLAN = "plan"
_NOT_SETTINGS = {
    *("code_fingerprint", "fraud_version", "git_commit", "git_dirty", "package_versions"),
    *("input_fingerprint", "bad_input", "state_change_time", _PLAN),
}
"""Properties of an execution that are told apart from its settings."""


@dataclass(frozen=True)
class Artifact:
    """An artifact in ML Metadata.

    Attributes:
      id: in ML Metadata.
      type: for example "Examples".
      uri: its folder.
      created: ISO 8601, UTC.
      is_kept: whether ML Metadata says that its files are kept.
      properties: by name; TFX's own and ours.
    """

    id: int
    type: str
    uri: str
    created: str
    is_kept: bool
    properties: dict[str, Any]


@dataclass(frozen=True)
class File:
    """A file of transactions that a run read.

    Attributes:
      name: below the data directory.
      days: the days of its rows; empty without timestamps.
      rows: how many it has.
      fingerprint: identifies its content; empty in records of earlier versions of this package.
    """

    name: str
    days: tuple[str, ...]
    rows: int
    fingerprint: str


@dataclass(frozen=True)
class Execution:
    """A node of a run, or a rollback, in ML Metadata.

    Attributes:
      id: in ML Metadata.
      node: the node's id, or "rollback".
      run_id: the run; empty for a rollback.
      state: COMPLETE, CACHED, FAILED, …
      began: ISO 8601, UTC.
      seconds: from its registration to its last update.
      code: the code that ran; None if that was not recorded.
      settings: what it was configured with, by name.
      files: the transactions that it read.
      inputs, outputs: key → ids of artifacts.
      error: what the executor reported; empty if it succeeded.
    """

    id: int
    node: str
    run_id: str
    state: str
    began: str
    seconds: float
    code: Code | None
    settings: dict[str, Any]
    files: tuple[File, ...]
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    error: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether it succeeded, by running or from the cache."""
        return self.state in ("COMPLETE", "CACHED")


@dataclass(frozen=True)
class Graph:
    """Artifacts, and the executions between them, each in the order of their ids."""

    artifacts: tuple[Artifact, ...] = ()
    executions: tuple[Execution, ...] = ()

    @cached_property
    def by_id(self) -> dict[int, Artifact]:
        """The artifacts by id."""
        return {artifact.id: artifact for artifact in self.artifacts}

    @cached_property
    def makers(self) -> dict[int, Execution]:
        """Artifact → the execution that made it. Later ones took it from the cache."""
        made: dict[int, Execution] = {}
        for execution in self.executions:
            for ids in execution.outputs.values():
                for artifact_id in ids:
                    made.setdefault(artifact_id, execution)
        return made


@dataclass(frozen=True)
class Release:
    """A version: a push by a run, or a rollback.

    Attributes:
      version: the version.
      artifact_id: of its PushedModel.
      since: when it went live, ISO 8601, UTC.
      until, replaced_by: when the next version went live, and that version; None for the newest.
      is_live: whether it is live.
      is_kept: whether its files are kept.
      restored: of a rollback, the version whose weights it restored; else None.
      user, reason: of a rollback, who did it and why; of a push, what was accepted.
    """

    version: str
    artifact_id: int
    since: str
    until: str | None
    replaced_by: str | None
    is_live: bool
    is_kept: bool
    restored: str | None
    user: str
    reason: str


@dataclass(frozen=True)
class Data:
    """The transactions behind an Examples artifact.

    Attributes:
      examples: id of the artifact.
      path: where they were read.
      fingerprint: of the windows and of all files together.
      as_of: the as-of day; None without timestamps.
      windows: split → first and last day; and `FEATURES`: from the first day to the last that
        features looked back on.
      rows: split → number of transactions.
      files: everything that was read.
    """

    examples: int
    path: str
    fingerprint: str
    as_of: str | None
    windows: dict[str, tuple[str, str]]
    rows: dict[str, int]
    files: tuple[File, ...]

    def role(self, day: str) -> str | None:
        """What a day was used for: a split, or `FEATURES`; None if it was not read."""
        splits = (split for split in self.windows if split != FEATURES)
        for name in (*splits, FEATURES):
            if name in self.windows and self.windows[name][0] <= day <= self.windows[name][1]:
                return name
        return None


@dataclass(frozen=True)
class Origin:
    """Where something comes from.

    Attributes:
      asked: what was asked for.
      kind: "version", "run" or "artifact".
      starts: ids of the artifacts that the walk began at.
      release: of a version, its record.
      restored, taken_back: of a version, the later rollbacks that restored its weights, and those
        that took it back.
      data: the transactions, one entry for each Examples artifact.
      back: everything that it was made from, and how.
      forward: everything that was made from it.
    """

    asked: str
    kind: str
    starts: tuple[int, ...]
    release: Release | None
    restored: tuple[Release, ...]
    taken_back: tuple[Release, ...]
    data: tuple[Data, ...]
    back: Graph
    forward: Graph = field(default_factory=Graph)


@dataclass(frozen=True)
class Touched:
    """What a day went into: one Examples artifact and what came of it.

    Attributes:
      examples: id of the artifact.
      runs: the runs that made it, or took it from the cache, oldest first.
      as_of: their as-of day.
      role: a split, or `FEATURES`.
      fingerprints: of the day's files when they were read.
      gate: "passed", "refused", or "not judged"; or "refused, then passed" and the like.
      models: ids of the models trained on these examples.
      releases: every version with these models, oldest first.
    """

    examples: int
    runs: tuple[str, ...]
    as_of: str
    role: str
    fingerprints: tuple[str, ...]
    gate: str
    models: tuple[int, ...]
    releases: tuple[Release, ...]


@dataclass(frozen=True)
class Reach:
    """What a day of data went into.

    Attributes:
      day: the day.
      touched: by as-of day.
      forward: the examples with this day, the verdicts on them, their models and the pushes.
    """

    day: str
    touched: tuple[Touched, ...]
    forward: Graph


def find(records: Records, pushed: Path, asked: str | None = None) -> Origin | Reach:
    """The lineage of a version, a day, a run or an artifact.

    Args:
      records: of the root.
      pushed: the push folder.
      asked: a version, a day (YYYY-MM-DD), a run, or an artifact by its id or folder; None for the
        version that is live.

    Raises:
      BadInput: there is no such thing.
    """
    if asked is not None and re.fullmatch(r"\d{4}-\d\d-\d\d", asked):
        return reach(records, pushed, asked)
    known = releases(records, pushed)
    if asked is None:
        live = next((r for r in known if r.is_live), None)
        if live is None:
            raise BadInput("nothing is live; name a version, a day, a run or an artifact")
        return _of_release(records, known, live.version, live)
    release = next((r for r in known if r.version == asked), None)
    if release:
        return _of_release(records, known, asked, release)
    if is_run(records, asked):
        return _of_run(records, asked)
    found = []
    if asked.isdecimal() and len(asked) < 19:  # ids have 64 bits
        found = records.artifacts([int(asked)])
    elif "/" in asked:
        found = records.artifacts_at(asked.rstrip("/"))
        found = found or records.artifacts_at(os.path.abspath(asked))
    if not found:
        raise BadInput(
            f"{asked}: no version, day, run or artifact; `fraud-pipeline status` lists runs and "
            "the live version, an artifact is named by its id or its folder"
        )
    ids = [artifact.id for artifact in found]
    back = walk_back(records, ids)
    forward = walk_forward(records, ids)
    return Origin(asked, "artifact", tuple(ids), None, (), (), data_of(back), back, forward)


def is_run(records: Records, run_id: str) -> bool:
    """Whether there is such a run."""
    return records.executions_of_run(run_id) is not None


def executions_of_run(records: Records, run_id: str) -> tuple[Execution, ...]:
    """The last execution of each node of a run, without what it read and wrote; in their order."""
    ids = records.executions_of_run(run_id) or ()
    places = records.places(ids)
    last = {places[record.id][0]: record for record in records.executions(ids)}
    return tuple(_execution(record, node, run_id, {}, {}) for node, record in last.items())


def reach(records: Records, pushed: Path, day: str) -> Reach:
    """What a day of data went into.

    Raises:
      BadInput: it is not a day, or no run has read it.
    """
    try:
        date.fromisoformat(day)
    except ValueError as error:
        raise BadInput(f"{day}: {error}") from None
    of_examples = {}
    first, last = "9999", ""
    for artifact in records.artifacts_of_type("Examples"):
        windows = _windows(artifact.properties)
        if windows:
            role = Data(artifact.id, "", "", None, windows, {}, ()).role(day)
            first = min(first, *(a for a, _ in windows.values()))
            last = max(last, *(b for _, b in windows.values()))
            if role:
                of_examples[artifact.id] = role
    if not of_examples:
        read = f"runs have read {first} … {last}" if last else "no run has read data with days"
        raise BadInput(f"{day}: no run has read this day; {read}")
    forward = walk_forward(records, of_examples, ("verdict", "model", "pushed_model"))
    by_id, known = forward.by_id, releases(records, pushed)
    readers = _readers(forward)
    data = {facts.examples: facts for facts in data_of(forward)}
    runs: dict[int, list[str]] = {examples: [] for examples in of_examples}
    for execution in forward.executions:
        for made in _ids(execution.outputs):
            if made in runs:
                runs[made].append(execution.run_id)
    touched = []
    for examples, role in of_examples.items():
        of_day = [f for f in data[examples].files if day in f.days]
        reached = _reached(examples, readers)
        models = sorted(i for i in reached if by_id[i].type == "Model")
        pushes = {i for i in reached if by_id[i].type == "PushedModel"}
        # A run that takes the examples from the cache may come to another verdict.
        verdicts = sorted(i for i in reached if by_id[i].type == "fraud.DataVerdict")
        told = ["passed" if by_id[i].properties.get("passed") == 1 else "refused" for i in verdicts]
        gate = ", then ".join(word for word, _ in groupby(told)) or "not judged"
        touched.append(
            Touched(
                examples=examples,
                runs=tuple(runs[examples]),
                as_of=data[examples].as_of or "",
                role=role,
                fingerprints=tuple(f.fingerprint for f in of_day if f.fingerprint),
                gate=gate,
                models=tuple(models),
                releases=tuple(r for r in known if r.artifact_id in pushes),
            )
        )
    return Reach(day, tuple(sorted(touched, key=lambda t: (t.as_of, t.examples))), forward)


def releases(records: Records, pushed: Path) -> tuple[Release, ...]:
    """Every version, oldest first.

    Args:
      records: of the root.
      pushed: the push folder.
    """
    found = [a for a in records.artifacts_of_type("PushedModel") if a.properties.get("pushed") == 1]
    versions = {a.id: a.properties["pushed_version"] for a in found}
    artifacts = sorted(found, key=lambda a: (int(versions[a.id]), a.id))
    # The rule of lineage.champions: recorded, kept, and there.
    live = next(
        (a.id for a in reversed(artifacts) if a.is_kept and (pushed / versions[a.id]).is_dir()),
        None,
    )
    result = []
    for artifact, after in zip_longest(artifacts, artifacts[1:]):
        result.append(
            Release(
                version=versions[artifact.id],
                artifact_id=artifact.id,
                since=_iso(artifact.created),
                until=_iso(after.created) if after else None,
                replaced_by=versions[after.id] if after else None,
                is_live=artifact.id == live,
                is_kept=artifact.is_kept,
                restored=artifact.properties.get("restored_version"),
                user=artifact.properties.get("user") or "",
                reason=artifact.properties.get("reason") or "",
            )
        )
    return tuple(result)


def walk_back(records: Records, artifact_ids: Iterable[int]) -> Graph:
    """Everything that artifacts were made from, up to the files of transactions.

    What they were only compared with (see `COMPARED`) is included, but not what that was made from.
    """
    known, compared, executions = set(artifact_ids), set[int](), set[int]()
    artifacts = frontier = set(known)
    while frontier:
        made_by: dict[int, int] = {}
        for link in records.links_of_artifacts(frontier):
            if link.is_output:
                before = made_by.get(link.artifact_id, link.execution_id)
                made_by[link.artifact_id] = min(link.execution_id, before)
        makers = set(made_by.values()) - executions
        executions |= makers
        inputs = set[int]()
        for link in records.links_of_executions(makers):
            if not link.is_output:
                (compared if link.key in COMPARED else inputs).add(link.artifact_id)
        frontier = inputs - artifacts
        artifacts = artifacts | frontier
    return _graph(records, executions, artifacts | compared)


def walk_forward(
    records: Records,
    artifact_ids: Iterable[int],
    keys: Collection[str] | None = None,
) -> Graph:
    """Everything that was made from artifacts, and the executions that made them.

    What was only compared with them is not.

    Args:
      records: of the root.
      artifact_ids: where to begin.
      keys: the outputs of nodes to go through; None means all.
    """
    artifacts = frontier = set(artifact_ids)
    links = records.links_of_artifacts(frontier)
    executions = {link.execution_id for link in links if link.is_output}
    while frontier:
        readers = {
            link.execution_id
            for link in records.links_of_artifacts(frontier)
            if not link.is_output and link.key not in COMPARED
        } - executions
        makers = {
            link.artifact_id: link.execution_id
            for link in records.links_of_executions(readers)
            if link.is_output and (keys is None or link.key in keys)
        }
        # With some keys only, the nodes that have none of them do not matter.
        executions |= readers if keys is None else set(makers.values())
        frontier = set(makers) - artifacts
        artifacts = artifacts | frontier
    return _graph(records, executions, artifacts, None if keys is None else artifacts)


def data_of(graph: Graph) -> tuple[Data, ...]:
    """The transactions behind every Examples artifact of a graph."""
    result = []
    for artifact in graph.artifacts:
        maker = graph.makers.get(artifact.id)
        if artifact.type != "Examples" or maker is None:
            continue
        result.append(
            Data(
                examples=artifact.id,
                path=str(maker.settings.get("data", "")),
                fingerprint=artifact.properties.get("input_fingerprint", ""),
                as_of=artifact.properties.get("as_of") or None,
                windows=_windows(artifact.properties),
                rows=_json(artifact.properties.get("rows")) or {},
                files=maker.files,
            )
        )
    return tuple(result)


def _of_release(
    records: Records, known: tuple[Release, ...], asked: str, release: Release
) -> Origin:
    by_version = {r.version: r for r in known}

    def first(version: Release) -> int:
        """The push of its weights; see `lineage.is_rolled_back`."""
        while version.restored in by_version:
            version = by_version[version.restored]
        return int(version.version)

    later = [r for r in known if r.restored and int(r.version) > int(release.version)]
    back = walk_back(records, [release.artifact_id])
    return Origin(
        asked,
        "version",
        (release.artifact_id,),
        release,
        tuple(r for r in later if first(r) == first(release)),
        tuple(r for r in later if first(r) < first(release)),
        data_of(back),
        back,
    )


def _of_run(records: Records, run_id: str) -> Origin:
    """What the last nodes of a run made: what no other node of it made anything of."""
    of_run = records.links_of_executions(records.executions_of_run(run_id) or ())
    made = {link.artifact_id for link in of_run if link.is_output}
    makers = {link.execution_id for link in of_run if link.is_output}
    read = {x.artifact_id for x in of_run if not x.is_output and x.execution_id in makers}
    starts = tuple(sorted(made - read or made))
    back = walk_back(records, starts)
    return Origin(run_id, "run", starts, None, (), (), data_of(back), back)


def _reached(start: int, readers: Mapping[int, list[Execution]]) -> set[int]:
    """The artifacts that were made from one."""
    reached, frontier = {start}, [start]
    while frontier:
        for execution in readers.get(frontier.pop(), ()):
            for artifact_id in _ids(execution.outputs):
                if artifact_id not in reached:
                    reached.add(artifact_id)
                    frontier.append(artifact_id)
    return reached


def _readers(graph: Graph) -> dict[int, list[Execution]]:
    readers: dict[int, list[Execution]] = {}
    for execution in graph.executions:
        for key, ids in execution.inputs.items():
            if key not in COMPARED:
                for artifact_id in ids:
                    readers.setdefault(artifact_id, []).append(execution)
    return readers


def _ids(of_keys: Mapping[str, tuple[int, ...]]) -> Iterator[int]:
    for ids in of_keys.values():
        yield from ids


def _graph(
    records: Records,
    execution_ids: Collection[int],
    artifact_ids: set[int],
    only: Collection[int] | None = None,
) -> Graph:
    """The records of executions and artifacts, and of what else the executions read and wrote.

    Args:
      records: of the root.
      execution_ids, artifact_ids: the records.
      only: the artifacts that the executions may refer to; None means all.
    """
    sides: dict[int, tuple[dict[str, list[int]], dict[str, list[int]]]] = {}
    for link in records.links_of_executions(execution_ids):
        if only is None or link.artifact_id in only:
            side = sides.setdefault(link.execution_id, ({}, {}))[link.is_output]
            side.setdefault(link.key, []).append(link.artifact_id)
    linked = {i for side in sides.values() for keys in side for ids in keys.values() for i in ids}
    places = records.places(execution_ids)
    return Graph(
        tuple(map(_artifact, records.artifacts(artifact_ids | linked))),
        tuple(
            _execution(record, *places[record.id], *sides.get(record.id, ({}, {})))
            for record in records.executions(execution_ids)
        ),
    )


def _execution(
    record: ExecutionRecord,
    node: str,
    run_id: str,
    inputs: Mapping[str, Iterable[int]],
    outputs: Mapping[str, Iterable[int]],
) -> Execution:
    return Execution(
        id=record.id,
        node="rollback" if record.type == ROLLBACK else node,
        run_id=run_id,
        state=record.state,
        began=_iso(record.created),
        seconds=(record.updated - record.created) / 1000,
        code=code_of_properties(record.properties),
        settings={
            name: _json(content)
            for name, content in sorted(record.properties.items())
            if name not in _NOT_SETTINGS
        },
        files=_files(record.properties.get(_PLAN)),
        inputs={key: tuple(sorted(ids)) for key, ids in sorted(inputs.items())},
        outputs={key: tuple(sorted(ids)) for key, ids in sorted(outputs.items())},
        error=record.error,
    )


def _artifact(record: ArtifactRecord) -> Artifact:
    return Artifact(
        id=record.id,
        type=record.type,
        uri=record.uri,
        created=_iso(record.created),
        is_kept=record.is_kept,
        properties=dict(sorted(record.properties.items())),
    )


def _windows(properties: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The windows of an Examples artifact, with the days that features looked back on."""
    windows = {
        split: (first, last)
        for split, (first, last) in (_json(properties.get("windows")) or {}).items()
    }
    if not windows:
        return {}
    first = date.fromisoformat(min(first for first, _ in windows.values()))
    history = _json(properties.get("history")) or {}
    looked_back = timedelta(days=history.get("available", 0))
    return windows | {FEATURES: (str(first - looked_back), properties["as_of"])}


def _files(plan: str | None) -> tuple[File, ...]:
    """The files in the plan of an ingestion (fraud.pipeline.ingestion.source.IngestionPlan)."""
    if not plan:
        return ()
    recorded = json.loads(plan)
    files, rows = recorded["files"], recorded["rows"]
    contents = recorded.get("contents") or [""] * len(files)
    return tuple(
        File(file["name"], tuple(file["days"]), count, content)
        for file, count, content in zip(files, rows, contents, strict=True)
    )


def _json(content: Any) -> Any:
    """The document that a property contains, if it contains one; else the property."""
    if isinstance(content, str) and content[:1] in ("{", "["):
        with suppress(ValueError):
            return json.loads(content)
    return content


def _iso(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")

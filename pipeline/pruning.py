"""Pruning a root: what is kept, and deleting the rest so that a kill at any point does no harm.

What goes is first marked in ML Metadata, in one transaction: from then on no resolver, cache or
rollback takes it. Then its files are deleted, and then it is recorded as deleted. If the process
ends in between, the next run, `prune` or `verify --repair` does the rest; see `complete`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.errors import FraudPipelineError
from fraud.pipeline import lineage, releases
from fraud.pipeline.data_facts import value
from fraud.pipeline.root import Root


@dataclass(frozen=True)
class Plan:
    """What a pruning keeps and deletes.

    Attributes:
      runs: the runs that are kept whole, oldest first.
      versions: the versions that are kept, oldest first.
      artifacts: those to delete.
      leftovers: old logs, and files and folders that nothing uses.
    """

    runs: tuple[str, ...]
    versions: tuple[str, ...]
    artifacts: tuple[mlmd.Artifact, ...]
    leftovers: tuple[Path, ...]


@dataclass(frozen=True)
class Freed:
    """What deleting one kind of files and folders frees.

    Attributes:
      what: a type of artifact, "versions" or "logs and leftovers".
      count: how many of them.
      size: in bytes.
    """

    what: str
    count: int
    size: int


def plan(
    root: Root,
    store: Any,
    keep: int,
    reference_run: str | None,
    also: Collection[str] = (),
) -> Plan:
    """Decides what to delete: the artifacts that none of these needs, and leftovers.

    - The last runs, the run that pushed the live version, and the one that pushed the version which
      a rollback would restore. They need what they wrote, read or took from the cache.
    - The reference for drift. It needs its statistics.
    - What the monitor saw, which is small, and history.

    Call it while holding `root.pushing()`, and no run uses the root.

    Args:
      root: what to prune.
      store: its ML Metadata.
      keep: how many of the last runs are kept, at least 1.
      reference_run: `data_gate.reference_run`.
      also: further runs to keep.

    Raises:
      FraudPipelineError: a recorded version is missing in the push folder.
    """
    pushes = list(lineage.pushes(store))
    for push in pushes:
        if push.is_kept and not (root.pushed / push.version).is_dir():
            raise FraudPipelineError(
                f"version {push.version}: recorded, but {root.pushed / push.version} is missing, "
                "so what is live is uncertain; `fraud-pipeline verify` says what to do"
            )
    runs = lineage.runs(store)
    kept_runs = {*runs[-keep:], *(run_id for run_id in also if run_id in runs)}
    if live := next(lineage.champions(store, root.pushed), None):
        kept_runs |= {push.run_id for push in (live, releases.before(pushes, live)) if push}
    # What a run took from the cache may be the push of another, which its rollback needs whole.
    used = lineage.used_by(store, kept_runs)
    kept_runs |= {push.run_id for push in pushes if push.pushed.id in used}
    kept = lineage.used_by(store, kept_runs)
    kept |= {push.pushed.id for push in pushes if push.run_id in kept_runs}
    kept |= {artifact.id for artifact in lineage.observations(store)}
    references = {push.run_id for push in pushes[-1:]} | {reference_run or ""}
    for run_id in references:
        kept |= {a.id for a in lineage.artifacts_of_run(store, run_id, "ExampleStatistics")}
    return Plan(
        runs=tuple(run_id for run_id in runs if run_id in kept_runs),
        versions=tuple(p.version for p in reversed(pushes) if p.is_kept and p.pushed.id in kept),
        artifacts=tuple(
            artifact
            for artifact in store.get_artifacts()
            if _is_marked(artifact)
            or (lineage.is_kept(artifact) and artifact.id not in kept and _paths(root, artifact))
        ),
        leftovers=tuple(
            dict.fromkeys(
                [
                    *_older_than(lineage.began(store, runs[-keep:]), root, kept_runs),
                    *unfinished_outputs(root, store),
                    *root.staging.glob("*"),
                ]
            )
        ),
    )


def freed(root: Root, planned: Plan) -> list[Freed]:
    """What executing a plan frees, by kind; the largest first."""
    paths: dict[str, list[Path]] = {}
    for artifact in planned.artifacts:
        for path in _paths(root, artifact):
            kind = "versions" if path.parent == root.pushed else artifact.type
            paths.setdefault(kind, []).append(path)
    if planned.leftovers:
        paths["logs and leftovers"] = list(planned.leftovers)
    sizes = _sizes(paths)
    found = [Freed(kind, len(of_kind), sizes[kind]) for kind, of_kind in paths.items()]
    return sorted(found, key=lambda one: -one.size)


def execute(root: Root, store: Any, planned: Plan) -> None:
    """Deletes what was planned. Call it while still holding the locks under which it was planned.

    Raises:
      FraudPipelineError: the disk is full, or something cannot be deleted.
    """
    for path in planned.leftovers:  # may make the space that records need
        remove(path)
    root.require_space()
    _record(store, planned.artifacts, mlmd.Artifact.MARKED_FOR_DELETION)
    complete(root, store)


def interrupted(store: Any) -> list[mlmd.Artifact]:
    """The artifacts that were marked for deletion and are not recorded as deleted."""
    return [artifact for artifact in store.get_artifacts() if _is_marked(artifact)]


def complete(root: Root, store: Any) -> str:
    """Deletes what has been marked for deletion, and records that.

    Call it while no run uses the root.

    Returns:
      What was done.

    Raises:
      FraudPipelineError: the disk is full, or something cannot be deleted.
    """
    with root.pushing():
        marked = interrupted(store)
        for artifact in marked:
            for path in _paths(root, artifact):
                if path.parent == root.pushed:
                    releases.withdraw(root, path.name)
                else:
                    remove(path)
        root.require_space()
        _record(store, marked, mlmd.Artifact.DELETED)
    return f"deleted {len(marked)} artifacts"


def unfinished_outputs(root: Root, store: Any) -> Iterator[Path]:
    """Temporary files, and outputs of executions that ended without recording them.

    Call it while no run uses the root.
    """
    for folder in ("runs/*", "graph"):
        yield from root.path.glob(f"{folder}/.*.*.[0-9]*")  # see files.write_atomically
    yield from root.artifacts.glob("*/.system/executor_execution/*/.temp")
    # Empty ones are no burden; TFX makes one for each execution, and ours write nothing there.
    yield from root.artifacts.glob("*/.system/stateful_working_dir/*/*")
    uris = {artifact.uri.rstrip("/") for artifact in store.get_artifacts()}
    ended = (mlmd.Execution.FAILED, mlmd.Execution.CANCELED, *lineage.UNFINISHED)
    dead = {str(e.id) for e in store.get_executions() if e.last_known_state in ended}
    for path in root.artifacts.glob("*/[!.]*/[0-9]*"):
        if path.name in dead and str(path) not in uris:
            yield path


def remove(path: Path) -> None:
    """Deletes a file or folder, if it is there.

    Raises:
      FraudPipelineError: it cannot be deleted.
    """
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise FraudPipelineError(f"{error.filename}: cannot be deleted: {error.strerror}") from None


def _is_marked(artifact: mlmd.Artifact) -> bool:
    return artifact.state == mlmd.Artifact.MARKED_FOR_DELETION


def _paths(root: Root, artifact: mlmd.Artifact) -> list[Path]:
    """The folders of an artifact as far as they are in this root; a version has two."""
    paths = [Path(artifact.uri)]
    if value(artifact, "pushed") == 1:
        paths.append(root.pushed / value(artifact, "pushed_version"))
    own = (root.artifacts, root.pushed)
    return [path for path in dict.fromkeys(paths) if not {*path.parents}.isdisjoint(own)]


def _older_than(began: float, root: Root, kept_runs: set[str]) -> Iterator[Path]:
    """Logs and TFX's own folders that were last changed before the last runs began.

    Args:
      began: when the first of the last runs began, in seconds since 1970.
      root: where.
      kept_runs: keep their logs.
    """
    logs = [log for log in root.path.glob("runs/*/run.log") if log.parent.name not in kept_runs]
    for path in [*logs, *root.artifacts.glob("*/.system/*/*")]:
        if path.stat().st_mtime < began:
            yield path


def _sizes(paths: dict[str, list[Path]]) -> dict[str, int]:
    """The bytes that deleting files and folders frees; a file is gone with its last link."""
    links: Counter[tuple[int, int]] = Counter()
    sizes = dict.fromkeys(paths, 0)
    for kind, of_kind in paths.items():
        for path in _files(of_kind):
            status = path.lstat()
            inode = (status.st_dev, status.st_ino)
            links[inode] += 1
            if links[inode] == status.st_nlink:
                sizes[kind] += status.st_size
    return sizes


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (below for below in path.rglob("*") if not below.is_dir())
        elif path.exists():
            yield path


def _record(store: Any, artifacts: Iterable[mlmd.Artifact], state: int) -> None:
    """Records the state of artifacts, in one transaction."""
    changed = list(artifacts)
    for artifact in changed:
        artifact.state = state
    if changed:
        store.put_artifacts(changed)

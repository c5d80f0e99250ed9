"""Does a root agree with itself? Records against files, and what killed processes left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud import files
from fraud.errors import FraudPipelineError
from fraud.pipeline import lineage, pruning, releases
from fraud.pipeline.artifacts import value
from fraud.pipeline.lineage import Champion
from fraud.pipeline.root import Root


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
      problem: what, as a sentence.
      repair: puts it right, and returns what it did; None if that takes a decision.
      advice: what a person can do if there is no repair.
    """

    problem: str
    repair: Callable[[], str] | None = None
    advice: str = ""


def of_pushes(root: Root, store: Any) -> Iterator[Finding]:
    """The push folder, its journal and ML Metadata. Call it while holding `root.pushing()`."""
    pushes = list(lineage.pushes(store))
    recorded = {push.version for push in pushes}
    deleted = {p.version for p in pushes if p.pushed.state == mlmd.Artifact.DELETED}
    entries = releases.journal(root)
    interrupted = {r.version for r in entries if r.state == "prepared"} - recorded
    left = [*root.staging.glob("*"), *root.releases.glob(".*.json.*")]
    if interrupted or left:
        named = ", ".join([*sorted(interrupted), *map(str, left)])
        yield Finding(
            f"a push or rollback was interrupted: {named}",
            lambda: "; ".join(releases.recover(root, store)) or "removed its unfinished copy",
        )
    unknown = {r.version for r in entries if r.state == "recorded"} - recorded
    for version in sorted(unknown):
        yield Finding(
            f"version {version}: in {root.releases}, but not in ML Metadata",
            advice="was ML Metadata replaced by an older copy? restore the newer one",
        )
    folders = set(releases.folders(root))
    for name in sorted(folders - recorded - interrupted - unknown):
        yield Finding(
            f"{root.pushed / name}: ML Metadata has no record of it",
            advice="move it out of the push folder; only runs and rollbacks put models there",
        )
    for name in sorted(folders & deleted):
        yield Finding(
            f"{root.pushed / name}: recorded as deleted", advice="move it out of the push folder"
        )
    kept = [push for push in pushes if push.is_kept]
    # If all are missing, the push folder may not be mounted.
    is_mounted = any(push.version in folders for push in kept)
    for push in kept:
        if releases.fresh_copy(root, push.version).is_dir():
            continue  # an interrupted repair, which the first finding completes
        if push.version not in folders:
            yield _missing(root, store, push, is_mounted)
        elif value(push.pushed, "digest") not in (None, files.digest(root.pushed / push.version)):
            yield _damaged(root, push)


def of_files(root: Root, store: Any) -> Iterator[Finding]:
    """Recorded artifacts whose files are gone."""
    pushes = list(lineage.pushes(store))
    pushed = {push.pushed.id for push in pushes}
    of_versions = {push.model_id: push.version for push in pushes if push.is_kept}
    recorded = [
        artifact
        for artifact in store.get_artifacts()
        if artifact.uri and artifact.state == mlmd.Artifact.LIVE and artifact.id not in pushed
    ]
    # If all are missing, the folder may not be mounted, or the root may have been moved.
    inside = [Path(a.uri) for a in recorded if root.artifacts in Path(a.uri).parents]
    is_mounted = any(path.exists() for path in inside)
    for artifact in recorded:
        if Path(artifact.uri).exists():
            continue
        problem = f"{artifact.uri}: recorded as {artifact.type} {artifact.id}, but missing"
        if not is_mounted:
            yield Finding(problem, advice=f"is {root.artifacts} mounted? Nothing recorded is in it")
        elif version := of_versions.get(artifact.id):
            yield Finding(
                problem,
                advice=f"no challenger can be compared with version {version}; put the files back",
            )
        else:
            yield Finding(problem, partial(_mark_deleted, store, artifact))


def of_leftovers(root: Root, store: Any) -> Iterator[Finding]:
    """What killed runs left. Call it only while `root.idle()`."""
    running = [e for e in store.get_executions() if e.last_known_state in lineage.UNFINISHED]
    if running:
        ids = ", ".join(str(e.id) for e in running)
        yield Finding(
            f"recorded as running, but no process is: execution {ids}",
            lambda: f"cancelled {', '.join(lineage.cancel_dead_executions(store))}",
        )
    if marked := pruning.interrupted(store):
        yield Finding(
            f"pruning was interrupted: {len(marked)} artifacts are still to be deleted",
            partial(pruning.complete, root, store),
        )
    for path in pruning.unfinished_outputs(root, store):
        yield Finding(f"{path}: left by a process that was killed", partial(_removed, path))


def remove_leftovers(root: Root, store: Any) -> list[str]:
    """Removes what killed runs left. Call it only while no other process uses the root.

    Returns:
      What was undone that someone may have seen: pushes.

    Raises:
      FraudPipelineError: the disk is full.
    """
    root.require_space()
    with root.pushing():
        done = releases.recover(root, store)
    for finding in of_leftovers(root, store):
        if finding.repair:
            finding.repair()
    return done


def _missing(root: Root, store: Any, push: Champion, is_mounted: bool) -> Finding:
    problem = f"version {push.version}: recorded, but {root.pushed / push.version} is missing"
    if not is_mounted:
        return Finding(problem, advice="is the push folder mounted? No recorded version is in it")
    return Finding(problem, partial(_mark_deleted, store, push.pushed))


def _damaged(root: Root, push: Champion) -> Finding:
    folder = root.pushed / push.version
    problem = f"{folder}: not the files that were pushed"
    try:
        intact = releases.intact_copy(root, push)
    except FraudPipelineError:
        return Finding(
            problem, advice="no intact copy is left; `fraud-pipeline rollback` to another version"
        )

    def restore() -> str:
        releases.replace_folder(root, push.version, intact)
        return f"replaced by the intact copy {intact}"

    return Finding(problem, restore)


def _mark_deleted(store: Any, artifact: mlmd.Artifact) -> str:
    artifact.state = mlmd.Artifact.DELETED
    store.put_artifacts([artifact])
    return f"recorded {artifact.type} {artifact.id} as deleted"


def _removed(path: Path) -> str:
    pruning.remove(path)
    return "removed"

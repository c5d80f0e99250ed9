"""Does a root agree with itself? Records against files, and what killed processes left."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud import files
from fraud.errors import BadInput, FraudPipelineError
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


def findings(root: Root, store: Any, idle: bool) -> list[Finding]:
    """Everything that is wrong and can be judged now.

    Args:
      root: what to check; call it while holding `root.pushing()`.
      store: its ML Metadata.
      idle: whether no run uses the root, see `root.idle()`; otherwise leftovers are not judged.
    """
    if place := list(of_place(root, store)):
        return place
    leftovers = of_leftovers(root, store) if idle else ()
    return [*of_pushes(root, store), *of_files(root, store), *leftovers]


def of_missing_metadata(root: Root) -> Iterator[Finding]:
    """A root that has versions, but no ML Metadata."""
    versions = {entry.version for entry in releases.journal(root)} | {*releases.folders(root)}
    if versions:
        yield Finding(
            f"{root.metadata}: missing, although there are versions: {', '.join(sorted(versions))}",
            advice="restore it from a backup; without it, nothing is known to be live, and the "
            "next run pushes without comparing",
        )


def of_place(root: Root, store: Any) -> Iterator[Finding]:
    """Whether the root is where ML Metadata says; if not, nothing else can be judged.

    Call it while holding `root.pushing()`.
    """
    places: Counter[Path] = Counter()
    for artifact in store.get_artifacts():
        for path in _recorded_paths(artifact):
            place = _root_of(path)
            if place and place != root.path and (root.path / path.relative_to(place)).exists():
                places[place] += 1
    for place, count in places.items():
        yield Finding(
            f"{count} folders of this root are recorded in {place}: it was moved or copied from "
            "there, or is mounted elsewhere on this machine",
            partial(_record_place, root, store, place),
            "if it is only mounted elsewhere here, use it by its other path; otherwise "
            "`fraud-pipeline verify --repair` records where it is now, and judges the rest",
        )


def check_place(root: Root, store: Any) -> None:
    """Checks that the root is where ML Metadata says, before anything reads or deletes by that.

    Raises:
      BadInput: it was moved or copied, or is mounted elsewhere.
    """
    for finding in of_place(root, store):
        raise BadInput(f"{finding.problem}; {finding.advice}")


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
    for push in pushes:
        if push.version in folders & deleted:
            yield _returned_version(root, store, push)
    kept = [push for push in pushes if push.is_kept]
    # If all are missing, the push folder may not be mounted.
    is_mounted = any((root.pushed / push.version).is_dir() for push in kept)
    for push in kept:
        if releases.fresh_copy(root, push.version).is_dir():
            continue  # an interrupted repair, which the first finding completes
        if not (root.pushed / push.version).is_dir():
            yield _missing(root, store, push, is_mounted)
            continue
        digest = value(push.pushed, lineage.DIGEST)
        if digest not in (None, files.digest(root.pushed / push.version)):
            yield _damaged(root, store, push)


def of_files(root: Root, store: Any) -> Iterator[Finding]:
    """Recorded artifacts whose files are gone."""
    pushes = list(lineage.pushes(store))
    pushed = {push.pushed.id for push in pushes}
    of_versions = {push.model_id: push for push in reversed(pushes) if push.is_kept}
    recorded = [
        artifact
        for artifact in store.get_artifacts()
        if artifact.uri and artifact.state == mlmd.Artifact.LIVE and artifact.id not in pushed
    ]
    for artifact in store.get_artifacts():
        is_deleted = artifact.state == mlmd.Artifact.DELETED and artifact.id not in pushed
        if is_deleted and lineage.has_files(artifact):
            yield _returned(store, artifact)
    # If all are missing, the folder may not be mounted, or the root may have been moved.
    inside = [Path(a.uri) for a in recorded if root.artifacts in Path(a.uri).parents]
    is_mounted = any(path.exists() for path in inside)
    for artifact in recorded:
        version = of_versions.get(artifact.id)
        if Path(artifact.uri).exists():
            if version and is_mounted and not _is_model_of(artifact, version):
                yield _lost_model(root, store, artifact, version, "not the model that was pushed")
            continue
        problem = f"{artifact.uri}: recorded as {artifact.type} {artifact.id}, but missing"
        if not is_mounted:
            yield Finding(problem, advice=f"is {root.artifacts} mounted? Nothing recorded is in it")
        elif version:
            yield _lost_model(root, store, artifact, version, "missing")
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
      BadInput: see `check_place`.
      FraudPipelineError: the disk is full.
    """
    root.require_space()
    check_place(root, store)
    with root.pushing():
        done = releases.recover(root, store)
    for finding in of_leftovers(root, store):
        if finding.repair:
            finding.repair()
    return done


def _missing(root: Root, store: Any, push: Champion, is_mounted: bool) -> Finding:
    problem = f"version {push.version}: recorded, but {root.pushed / push.version} is missing"
    if not is_mounted:
        return Finding(
            problem,
            advice="is the push folder mounted? No recorded version is in it; if they were "
            "deleted, `fraud-pipeline run --accept-unjudged-champion`",
        )
    try:
        intact = releases.intact_copy(root, store, push)
    except FraudPipelineError:
        return Finding(problem, partial(_mark_deleted, store, push.pushed))

    def restore() -> str:
        releases.replace_folder(root, push.version, intact)
        live = next(lineage.champions(store, root.pushed), None)
        is_live = " and is live" if live and live.version == push.version else ""
        return f"restored from the intact copy {intact}; the version is there again{is_live}"

    return Finding(problem, restore)


def _returned_version(root: Root, store: Any, push: Champion) -> Finding:
    folder = root.pushed / push.version
    problem = f"{folder}: recorded as deleted"
    digest = value(push.pushed, lineage.DIGEST)
    if digest is None or digest != files.digest(folder):
        return Finding(problem, advice="not the files that were pushed; move it out of the folder")
    problem += ", but its files are back, as they were pushed"
    return Finding(problem, partial(_mark_live, store, push.pushed))


def _returned(store: Any, artifact: mlmd.Artifact) -> Finding:
    problem = f"{artifact.uri}: recorded as deleted, but there are files"
    digest = value(artifact, lineage.DIGEST)
    if digest is None:
        return Finding(problem, advice="no digest was recorded to compare them with; remove them")
    if digest != files.digest(artifact.uri):
        return Finding(problem, advice="not the files that were written; remove them")
    return Finding(f"{problem}, as they were written", partial(_mark_live, store, artifact))


def _is_model_of(artifact: mlmd.Artifact, version: Champion) -> bool:
    folder = lineage.model_folder(artifact)
    digest = value(version.pushed, lineage.DIGEST)
    return folder.is_dir() and digest in (None, files.digest(folder))


def _lost_model(
    root: Root, store: Any, artifact: mlmd.Artifact, version: Champion, what: str
) -> Finding:
    """The model of a version, without which no challenger can be compared with it."""
    problem = f"{artifact.uri}: recorded as {artifact.type} {artifact.id}, but {what}"
    try:
        intact = releases.intact_copy(root, store, version)
    except FraudPipelineError:
        return Finding(
            problem,
            advice=f"no challenger can be compared with version {version.version}; put the files "
            "back",
        )

    def restore() -> str:
        folder = lineage.model_folder(artifact)
        fresh = folder.with_name(f".{folder.name}")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.parent.mkdir(parents=True, exist_ok=True)
        releases.copy(intact, fresh)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
        return f"restored from {intact}"

    return Finding(problem, restore)


def _recorded_paths(artifact: mlmd.Artifact) -> list[Path]:
    """The folders of an artifact, wherever they are recorded to be; a version has two."""
    return [Path(text) for text in (artifact.uri, value(artifact, lineage.PUSHED_TO)) if text]


def _root_of(path: Path) -> Path | None:
    """The root that a recorded folder lies in; None if it does not look like that."""
    names = (Root(Path()).artifacts.name, Root(Path()).pushed.name)
    return next((parent.parent for parent in path.parents if parent.name in names), None)


def _record_place(root: Root, store: Any, place: Path) -> str:
    """Records that what lies in another root lies in this one."""
    moved = []
    for artifact in store.get_artifacts():
        if not any(_root_of(path) == place for path in _recorded_paths(artifact)):
            continue
        if artifact.uri:
            artifact.uri = str(root.path / Path(artifact.uri).relative_to(place))
        if path := value(artifact, lineage.PUSHED_TO):
            properties = artifact.custom_properties
            properties[lineage.PUSHED_TO].string_value = str(
                root.path / Path(path).relative_to(place)
            )
        moved.append(artifact)
    store.put_artifacts(moved)
    return f"recorded {len(moved)} artifacts in {root.path}"


def _damaged(root: Root, store: Any, push: Champion) -> Finding:
    folder = root.pushed / push.version
    problem = f"{folder}: not the files that were pushed"
    try:
        intact = releases.intact_copy(root, store, push)
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


def _mark_live(store: Any, artifact: mlmd.Artifact) -> str:
    artifact.state = mlmd.Artifact.LIVE
    store.put_artifacts([artifact])
    return f"recorded {artifact.type} {artifact.id} as kept"


def _removed(path: Path) -> str:
    pruning.remove(path)
    return "removed"

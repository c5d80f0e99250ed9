"""Releases: how a model becomes a version, exactly once and whole, and how that is taken back.

A version is live once its folder is in the push folder and ML Metadata has recorded it. Both cannot
happen in one step, so each version first gets a file in the root's journal, `releases/`. Whoever
holds the lock of the push folder (`Root.pushing`) finds there what a killed process left half done,
and undoes it. See docs/releases.md.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import time
import uuid
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from fraud import files
from fraud.codec import from_json, to_json
from fraud.errors import BadInput, FraudPipelineError
from fraud.pipeline import lineage
from fraud.pipeline.data_facts import value
from fraud.pipeline.lineage import Champion, is_rolled_back
from fraud.pipeline.root import Root


@dataclass(frozen=True)
class Release:
    """One version in the journal.

    Attributes:
      version: the folder's name in the push folder; "" before it has one.
      kind: whether a run pushed it or a rollback restored it.
      state: "prepared" before the folder appears, "recorded" once ML Metadata knows it, "undone" if
        that never happened.
      model_id: id of the Model artifact.
      run_id, execution_id: who pushed it; empty for a rollback.
      as_of: the as-of day of the model's data; "" without timestamps.
      digest: of the folder; see `fraud.files.digest`.
      identity: of the model; see `lineage.identity_of`.
      time: of the push, ISO 8601.
      user: who pushed it, as user@host.
      reason: why it was rolled back; empty for a push.
      replaced: the version that was live before; None if there was none.
      restored: the version whose weights a rollback restored.
    """

    kind: Literal["push", "rollback"]
    model_id: int
    run_id: str = ""
    execution_id: str = ""
    as_of: str = ""
    reason: str = ""
    replaced: str | None = None
    restored: str | None = None
    version: str = ""
    state: Literal["prepared", "recorded", "undone"] = "prepared"
    digest: str = ""
    identity: str = ""
    time: str = ""
    user: str = ""


@dataclass(frozen=True)
class Challenger:
    """What the Pusher knows about the model that it may push.

    Attributes:
      model_id: id of the Model artifact.
      identity: see `lineage.identity_of`.
      as_of: the as-of day of its data; "" without timestamps.
      is_blessed: by the Evaluator and by ServingCheck.
      judged_against: id of the Model artifact that the Evaluator compared it with; 0 for none.
    """

    model_id: int
    identity: str
    as_of: str
    is_blessed: bool
    judged_against: int


@dataclass(frozen=True)
class Decision:
    """Whether to push.

    Attributes:
      outcome: "pushed", "replay", "not_pushed", "not_blessed" or "on_probation", as in a run's
        summary.
      reason: why not, as a sentence; or what was accepted although it speaks against a push.
    """

    outcome: str
    reason: str = ""


def decide(
    challenger: Challenger,
    pushes: Sequence[Champion],
    champions: Sequence[Champion],
    live_as_of: str = "",
    live_reason: str = "",
    push_replays: bool = False,
    accept_unjudged_champion: bool = False,
    probation: bool = False,
) -> Decision:
    """Decides whether a challenger may replace what is live.

    Args:
      challenger: the model.
      pushes: every version ever, from `lineage.pushes`.
      champions: those whose files are there, from `lineage.champions`: the first one is live.
      live_as_of: the as-of day of its data.
      live_reason: what was accepted to push it.
      push_replays, accept_unjudged_champion, probation: the configuration's section `release`.
    """
    accepted = []
    live = champions[0] if champions else None
    same = [push for push in pushes if push.identity == challenger.identity]
    if live and live.identity == challenger.identity:
        if live.model_id == challenger.model_id and not live.restored:
            return Decision("pushed", live_reason)  # so that the cache answers
        return Decision("not_pushed", f"identical to version {live.version}, which is live")
    if is_rolled_back(pushes, challenger.identity):
        taken_back = f"identical to version {same[0].version}, which was rolled back from"
        if kept := next((push.version for push in same if push.is_kept), None):
            taken_back += f"; `fraud-pipeline rollback --to {kept}` would restore it"
        return Decision("not_pushed", taken_back)
    if live and (replay := _replay(challenger, champions, live_as_of)):
        if not push_replays:
            return Decision("replay", f"{replay}; --push-replays pushes it all the same")
        accepted.append(replay)
    if not challenger.is_blessed:
        return Decision("not_blessed")
    if not live and any(push.is_kept for push in pushes):
        unjudged = (
            "no recorded version is in the push folder, so it was compared with none; is the "
            "folder mounted? `fraud-pipeline verify` says what is missing"
        )
        if not accept_unjudged_champion:
            return Decision(
                "not_pushed", f"{unjudged}; --accept-unjudged-champion pushes it all the same"
            )
        accepted.append(unjudged)
    elif live and is_rolled_back(pushes, live.identity):
        unjudged = (
            f"version {live.version} is live although it was rolled back from, because the folder "
            "of a newer version is missing; `fraud-pipeline verify --repair` restores that"
        )
        if not accept_unjudged_champion:
            return Decision(
                "not_pushed", f"{unjudged}; --accept-unjudged-champion pushes it all the same"
            )
        accepted.append(unjudged)
    elif live and not challenger.judged_against:
        unjudged = f"not compared with live version {live.version}"
        if not accept_unjudged_champion:
            return Decision(
                "not_pushed", f"{unjudged}; --accept-unjudged-champion pushes it all the same"
            )
        accepted.append(unjudged)
    elif live and challenger.judged_against != live.model_id:
        return Decision(
            "not_pushed",
            f"champion changed: version {live.version} went live after the evaluation; run again",
        )
    if probation and live:
        return Decision("on_probation", "may be pushed, and is tried in the shadow first")
    return Decision("pushed", "; ".join(accepted))


def _replay(challenger: Challenger, champions: Sequence[Champion], live_as_of: str) -> str:
    """Why a challenger would repeat the past; "" if it would not. The arguments are `decide`'s."""
    live, *replaced = champions
    if challenger.as_of and challenger.as_of <= live_as_of:
        return (
            f"replay: as of {challenger.as_of}, and live version {live.version} is as of "
            f"{live_as_of}"
        )
    for earlier in replaced:
        if earlier.identity == challenger.identity:
            return (
                f"replay: identical to version {earlier.version}, which version {live.version} "
                "replaced"
            )
    return ""


def to_restore(pushes: Sequence[Champion], live: Champion | None, version: str | None) -> Champion:
    """The version whose weights a rollback restores.

    Args:
      pushes: from `lineage.pushes`.
      live: the version in production.
      version: the one asked for; None for the newest before the live one that has other weights
        and was not rolled back from.

    Raises:
      BadInput: there is no such version, or it is live already.
    """
    if live is None:
        raise BadInput("nothing is live, so there is nothing to roll back")
    if version is None:
        if earlier := before(pushes, live):
            return earlier
        raise BadInput(
            f"version {live.version} is live, and there is no earlier model to go back to"
        )
    for push in pushes:
        if push.version == version:
            if push.identity == live.identity:
                raise BadInput(
                    f"--to {version}: these weights are live already, as version {live.version}"
                )
            if not push.is_kept:
                raise BadInput(f"--to {version}: its files were deleted; choose another version")
            return push
    known = ", ".join(push.version for push in pushes)
    raise BadInput(f"--to {version}: no such version; ML Metadata knows {known}")


def before(pushes: Sequence[Champion], live: Champion) -> Champion | None:
    """The newest version before the live one that has other weights and was not rolled back from.

    The arguments are those of `to_restore`.
    """
    for push in pushes:
        is_other = push.identity != live.identity and int(push.version) < int(live.version)
        if is_other and push.is_kept and not is_rolled_back(pushes, push.identity):
            return push
    return None


def is_version(name: str) -> bool:
    """Whether a server takes a folder of this name for a version: a number of at most 63 bits."""
    return name.isascii() and name.isdigit() and int(name) < 2**63 - 1


def next_version(now: float, taken: Iterable[str]) -> str:
    """A version above all others, as servers take the highest: seconds since 1970 if possible.

    Raises:
      FraudPipelineError: one of the others is the highest that there can be.
    """
    version = str(max([int(now), *(int(name) + 1 for name in taken if is_version(name))]))
    if not is_version(version):
        raise FraudPipelineError(
            f"no version can be higher than {int(version) - 1}, which is in the push folder; move "
            "it out of there"
        )
    return version


def disagreements(root: Root, pushes: Sequence[Champion]) -> tuple[str, ...]:
    """What the push folder and ML Metadata disagree about, a sentence each."""
    names = folders(root)
    kept = [push.version for push in pushes if push.is_kept]
    recorded = {push.version for push in pushes}
    unfinished = {r.version for r in journal(root) if r.state == "prepared"}
    highest = max((name for name in names if is_version(name)), key=int, default="")
    found = []
    for name in sorted(set(names) - set(kept)):
        if not is_version(name):
            problem = "no version, so servers ignore it"
        elif name in unfinished:
            problem = "its push is under way, or was interrupted: the next run will undo it"
        elif name in recorded:
            problem = "ML Metadata has recorded it as deleted"
        else:
            problem = "ML Metadata has no record of it; was it added by hand?"
        served = " (a server takes it, because it is the highest)" if name == highest else ""
        found.append(f"{root.pushed / name}: {problem}{served}")
    found += [
        f"{root.pushed / version}: recorded, but the folder is missing"
        for version in kept
        if not (root.pushed / version).is_dir()
    ]
    places = {os.path.dirname(value(push.pushed, lineage.PUSHED_TO) or "") for push in pushes}
    found += [
        f"{root.pushed}: some versions are recorded in {place}: was the root moved, or is it "
        "mounted elsewhere? `fraud-pipeline verify` says what to do"
        for place in sorted(places - {str(root.pushed), ""})
    ]
    return tuple(found)


def folders(root: Root) -> list[str]:
    """The names in the push folder, without hidden ones."""
    if not root.pushed.is_dir():
        return []
    return [path.name for path in root.pushed.iterdir() if not path.name.startswith(".")]


def journal(root: Root) -> list[Release]:
    """All entries of the journal, oldest version first.

    Raises:
      FraudPipelineError: a file is not an entry.
    """
    found = []
    paths = [path for path in root.releases.glob("*.json") if is_version(path.stem)]
    for path in sorted(paths, key=lambda path: int(path.stem)):
        try:
            release = from_json(Release, path.read_bytes())
            # What is undone or completed by an entry is a folder of that name.
            if release.version != path.stem:
                raise BadInput(f"it is of version {release.version!r}")
        except BadInput as error:
            raise FraudPipelineError(
                f"{path}: not an entry of the journal: {error}; remove it"
            ) from None
        found.append(release)
    return found


def publish(root: Root, source: str | Path, release: Release) -> Release:
    """Makes a copy of a model appear in the push folder as a new version, by one rename.

    Call it while holding `root.pushing()`. If it raises, or the process ends before ML Metadata has
    recorded the version, `recover` undoes it.

    Args:
      root: where.
      source: the folder of the SavedModel.
      release: what is known about it.

    Returns:
      The entry in the journal, with version and digest.

    Raises:
      OSError, FraudPipelineError: for example because the disk is full.
    """
    staged = root.staging / uuid.uuid4().hex
    try:
        copy(source, staged)
        taken = [*folders(root), *(entry.version for entry in journal(root))]
        release = replace(
            release,
            version=next_version(time.time(), taken),
            digest=files.digest(staged),
            identity=release.identity or lineage.identity_of(staged),
            time=datetime.now().astimezone().isoformat(timespec="seconds"),
            user=user(),
        )
        _write(root, release)
        os.rename(staged, root.pushed / release.version)
        files.sync_tree(root.pushed, recurse=False)
    finally:
        shutil.rmtree(root.staging, ignore_errors=True)
    return release


def published(root: Root, run_id: str, model_id: int) -> Release | None:
    """What an attempt of the same run published without living to record it, if it is whole."""
    for release in journal(root):
        mine = run_id and (release.run_id, release.model_id) == (run_id, model_id)
        folder = root.pushed / release.version
        is_open = mine and release.state == "prepared" and folder.is_dir()
        if is_open and files.digest(folder) == release.digest:
            return release
    return None


def newest(root: Root) -> Release | None:
    """The newest entry of the journal that was not undone and whose folder exists."""
    entries = [r for r in journal(root) if (root.pushed / r.version).is_dir()]
    return next((r for r in reversed(entries) if r.state != "undone"), None)


def recover(root: Root, store: Any, keep_run: str = "") -> list[str]:
    """Completes or undoes what killed processes left in the push folder and its journal.

    Call it while holding `root.pushing()`: then no process is still at work on it.

    Args:
      root: whose push folder.
      store: its ML Metadata.
      keep_run: a run that is about to try again, and whose unrecorded version stays for that.

    Returns:
      What was undone or completed that someone may have seen, a sentence each.
    """
    entries, done = journal(root), []
    for release in entries:  # see `replace_folder`
        folder, fresh = root.pushed / release.version, fresh_copy(root, release.version)
        is_lost = release.state == "recorded" and fresh.is_dir() and not folder.exists()
        if is_lost and files.digest(fresh) == release.digest:
            os.rename(fresh, folder)
            files.sync_tree(root.pushed, recurse=False)
            done.append(f"version {release.version}: its repair was interrupted; it is there again")
    shutil.rmtree(root.staging, ignore_errors=True)
    for temporary in root.releases.glob(".*.json.*"):
        temporary.unlink()
    recorded: Collection[str] | None = None
    for release in entries:
        if release.state != "prepared":
            continue
        if recorded is None:
            recorded = {push.version for push in lineage.pushes(store)}
        if release.version in recorded:
            _write(root, replace(release, state="recorded"))
        elif not (keep_run and release.run_id == keep_run):
            done.append(_undo(root, release))
    return done


def roll_back(root: Root, store: Any, to: str | None, reason: str) -> Release:
    """Makes the weights of an earlier version live as a new one, and records it.

    Call it while holding `root.pushing()`, after `recover`.

    Args:
      root: whose push folder.
      store: its ML Metadata.
      to: the version; None for the one before the live one.
      reason: for the record.

    Raises:
      BadInput: there is nothing to go back to; see `to_restore`.
      FraudPipelineError: the disk is full; the files of that version are gone or damaged; or ML
        Metadata did not record the rollback, which was then undone.
    """
    root.require_space()
    pushes = list(lineage.pushes(store))
    live = next(lineage.champions(store, root.pushed), None)
    restored = to_restore(pushes, live, to)
    assert live is not None  # or there would have been nothing to restore
    release = publish(
        root,
        intact_copy(root, store, restored),
        Release(
            kind="rollback",
            model_id=restored.model_id,
            identity=restored.identity,
            as_of=lineage.as_of(store, restored),
            reason=reason,
            replaced=live.version,
            restored=restored.version,
        ),
    )
    facts = {
        lineage.DIGEST: release.digest,
        lineage.IDENTITY: release.identity,
        "reason": reason,
        "replaced_version": live.version,
        "restored_version": restored.version,
        "user": release.user,
    }
    try:
        lineage.record_rollback(store, restored, root.pushed / release.version, facts)
    except Exception as error:
        _undo(root, release)
        raise FraudPipelineError(
            f"not rolled back: ML Metadata did not record it: {lineage.cause(error)}"
        ) from None
    with suppress(OSError):  # a full disk; the next one to hold the lock will bring it up to date
        recover(root, store)
    return replace(release, state="recorded")


def intact_copy(root: Root, store: Any, push: Champion) -> Path:
    """A folder with the files of a version: its own, or else any copy that is as they were.

    Copies are the Pusher's artifact, other versions of the same model, and the model itself.

    Raises:
      FraudPipelineError: none is as it was when the version was pushed.
    """
    own = root.pushed / push.version
    if (digest := value(push.pushed, lineage.DIGEST)) is None:  # by an early release
        candidates = [own, Path(push.pushed.uri)]
    else:
        (model,) = store.get_artifacts_by_id([push.model_id])
        same = [other for other in lineage.pushes(store) if other.identity == push.identity]
        candidates = [own, Path(push.pushed.uri), lineage.model_folder(model)]
        candidates += [root.pushed / other.version for other in same]
        candidates += [Path(other.pushed.uri) for other in same]
    for folder in dict.fromkeys(candidates):
        if folder.is_dir() and digest in (None, files.digest(folder)):
            return folder
    raise FraudPipelineError(
        f"version {push.version}: its files are gone or damaged, in {own} and wherever there was a "
        "copy; choose another version"
    )


def replace_folder(root: Root, version: str, source: Path) -> None:
    """Replaces a version's damaged or lost files. Call it while holding `root.pushing()`."""
    fresh, damaged = fresh_copy(root, version), root.staging / uuid.uuid4().hex
    try:
        copy(source, fresh)
        if os.path.lexists(root.pushed / version):
            os.rename(root.pushed / version, damaged)
        os.rename(fresh, root.pushed / version)
        files.sync_tree(root.pushed, recurse=False)
    finally:
        shutil.rmtree(root.staging, ignore_errors=True)


def fresh_copy(root: Root, version: str) -> Path:
    """What will replace a version's damaged files.

    If the process dies while the version has no folder, `recover` finds this one by its name.
    """
    return root.staging / f"{version}.fresh"


def withdraw(root: Root, version: str) -> None:
    """Removes a version's folder, for servers by one rename, if there is one.

    Call it while holding `root.pushing()`.
    """
    folder, removed = root.pushed / version, root.staging / version
    if folder.is_dir():
        root.staging.mkdir(parents=True, exist_ok=True)
        os.rename(folder, removed)
        files.sync_tree(root.pushed, recurse=False)
        shutil.rmtree(root.staging)


def user() -> str:
    """Who runs this process, as user@host."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name  # not the environment's, which anyone may set
    except KeyError:  # a container's user has no name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def _undo(root: Root, release: Release) -> str:
    """Takes a version out of the push folder that ML Metadata has never recorded."""
    problem = "never reached the push folder"
    if (root.pushed / release.version).is_dir():
        withdraw(root, release.version)
        problem = "was never recorded in ML Metadata, so it was removed"
    _write(root, replace(release, state="undone"))
    return f"version {release.version}: its {release.kind} was interrupted; it {problem}"


def copy(source: str | Path, target: Path) -> None:
    """Copies a folder and flushes it to disk.

    Raises:
      OSError, FraudPipelineError: for example because the disk is full.
    """
    try:
        shutil.copytree(source, target)
    except shutil.Error as error:  # it lists every file
        path, _, text = error.args[0][0]
        reason = text.partition(": '")[0]  # without the paths, which it repeats
        raise FraudPipelineError(f"{path}: cannot be copied to {target}: {reason}") from None
    files.sync_tree(target)


def _write(root: Root, release: Release) -> None:
    path = root.releases / f"{release.version}.json"
    files.write_atomically(path, to_json(release, indent=1))
    files.sync_tree(root.releases, recurse=False)

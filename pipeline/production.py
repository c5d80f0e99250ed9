"""What is live, and how to take it back: for the server, the monitor and other programs.

`fraud-pipeline status` and `rollback` call the same functions. Nothing heavier than ML Metadata's
client is imported until a specification is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fraud.errors import BadInput, FraudPipelineError
from fraud.pipeline import lineage, releases
from fraud.pipeline.config import Metadata
from fraud.pipeline.data_facts import value
from fraud.pipeline.releases import Release
from fraud.pipeline.root import Root
from fraud.text import is_plain

if TYPE_CHECKING:
    from fraud.models.specification import InputSpecification


@dataclass(frozen=True)
class Live:
    """The version in production.

    Attributes:
      version: the name of its folder in the push folder, a number.
      folder: its SavedModel.
      since: when it went live, in UTC.
      identity: equal for versions that are the same model, such as one and its restoration by a
        rollback; see `lineage.identity_of`.
      digest: of its files, see `fraud.files.digest`; "" if an early release pushed it.
      run_id: the run that pushed these weights first.
      as_of: the as-of day of the data that it was trained on; "" without timestamps.
      restored: the version whose weights a rollback restored as this one; None after a push.
    """

    version: str
    folder: Path
    since: datetime
    identity: str
    digest: str
    run_id: str
    as_of: str
    restored: str | None

    def specification(self) -> InputSpecification:
        """What the inputs of the model are computed from.

        Raises:
          BadInput: the model does not say, or not in a form that this version can read.
        """
        from fraud.models.specification import InputSpecification

        return InputSpecification.read(self.folder)


def live(metadata: Metadata, root: Root) -> Live | None:
    """What is live: the newest version on which the push folder and ML Metadata agree.

    It takes no lock and changes nothing, so it may be asked as often as one likes. A version that
    is being pushed, or whose push was interrupted, is not live.

    Args:
      metadata: where ML Metadata is, from the configuration.
      root: whose push folder.

    Returns:
      The version; None if nothing is live.

    Raises:
      BadInput, FraudPipelineError: ML Metadata cannot be opened; see `lineage.open_store`.
    """
    store = lineage.find_store(metadata, root)
    champion = next(lineage.champions(store, root.pushed), None) if store else None
    return described(store, root, champion) if champion else None


def described(store: Any, root: Root, champion: lineage.Champion) -> Live:
    """A version that is recorded and whose folder exists, for programs."""
    return Live(
        version=champion.version,
        folder=root.pushed / champion.version,
        since=datetime.fromtimestamp(
            champion.pushed.create_time_since_epoch / 1000, tz=timezone.utc
        ),
        identity=champion.identity,
        digest=value(champion.pushed, lineage.DIGEST) or "",
        run_id=champion.run_id,
        as_of=lineage.as_of(store, champion),
        restored=champion.restored,
    )


def roll_back(
    metadata: Metadata, root: Root, reason: str, to: str | None = None
) -> tuple[Release, list[str]]:
    """Makes the weights of an earlier version live again, as a new version, and records that.

    Waits for a push or rollback that is under way, and undoes what a killed one left. A run that is
    under way is not waited for: its Pusher will find that the champion changed.

    Args:
      metadata: where ML Metadata is, from the configuration.
      root: whose push folder.
      reason: why, for the record: plain text on one line.
      to: the version whose weights to restore; None for the one before the live one.

    Returns:
      The new version, and what was undone before, a sentence each.

    Raises:
      BadInput: the reason is empty or not plain text; or there is nothing to go back to.
      FraudPipelineError: the files of that version are gone or damaged, or the disk is full;
        nothing was rolled back.
    """
    reason = " ".join(reason.split())
    if not reason:
        raise BadInput("reason: it is empty; say why, for the record")
    if not is_plain(reason):
        raise BadInput("reason: it contains control characters; use plain text")
    store = lineage.find_store(metadata, root)
    if store is None:
        raise BadInput(f"{root.path}: no run has ended here; check --root")
    try:
        with root.pushing():
            undone = releases.recover(root, store)
            return releases.roll_back(root, store, to, reason), undone
    except OSError as error:
        raise FraudPipelineError(
            f"{error.filename or root.path}: {error.strerror}; nothing was rolled back"
        ) from None


def judging_problem(store: Any, champion: lineage.Champion, last_run: str = "") -> str:
    """Why no challenger can be compared with a champion; "" if one can, as far as is known.

    Args:
      store: ML Metadata.
      champion: the version.
      last_run: the latest run, which may have missed a column that the champion reads.
    """
    from fraud.models.specification import InputSpecification, check_code

    (model,) = store.get_artifacts_by_id([champion.model_id])
    if not lineage.is_kept(model):
        return f"its model, artifact {model.id}, is recorded as deleted"
    try:
        folder = lineage.model_folder(model)
        check_code(folder, InputSpecification.read(folder))
    except BadInput as error:
        return str(error)
    if last_run and lineage.began_after(store, last_run, champion.pushed):
        examples = lineage.artifacts_of_run(store, last_run, "Examples")
        # Those that the champion was trained on tell of the champion before it.
        own = {e.id for e in lineage.artifacts_of_run(store, champion.run_id, "Examples")}
        problems = [value(e, "champion_problem") for e in examples if e.id not in own]
        return (problems and problems[-1]) or ""
    return ""

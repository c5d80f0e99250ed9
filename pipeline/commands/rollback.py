"""`fraud-pipeline rollback`: earlier weights go live as a new version."""

from __future__ import annotations

import argparse
import unicodedata
from typing import Any

from fraud.codec import to_json
from fraud.errors import BadInput
from fraud.pipeline.commands import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Make the weights of an earlier version live again, as a new version: servers take the\n"
        "highest. The next run is compared with them; what this takes back stays back.",
        '  fraud-pipeline rollback --reason "twice the usual alerts since 9:00"',
    )
    parser.add_argument(
        "--to",
        metavar="VERSION",
        help="the version (default: the one before the live one); all later ones are taken back",
    )
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why, for the record")
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Rolls back and prints what is live now.

    Raises:
      BadInput: there is nothing to go back to.
      FraudPipelineError: the files of the version are gone or damaged, or the disk is full.
    """
    config, root = common.config_and_root(arguments)
    reason = " ".join(arguments.reason.split())
    if not reason:
        raise BadInput("--reason: it is empty; say why, for the record")
    # It is printed wherever the rollback is shown, and must not look like anything else there.
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in reason):
        raise BadInput("--reason: it contains control characters; use plain text")

    from fraud.errors import FraudPipelineError
    from fraud.pipeline import lineage, releases

    store = lineage.find_store(config.metadata, root)
    if store is None:
        raise BadInput(f"{root.path}: no run has ended here; check --root")
    try:
        with root.pushing():
            undone = releases.recover(root, store)
            release = releases.roll_back(root, store, arguments.to, reason)
    except OSError as error:
        raise FraudPipelineError(
            f"{error.filename or root.path}: {error.strerror}; nothing was rolled back"
        ) from None
    print(to_json(release, indent=1) if arguments.json else render(release, root.pushed, undone))
    return 0


def render(release: Any, pushed: Any, undone: list[str]) -> str:
    """What was done, as text."""
    as_of = f", as of {release.as_of}" if release.as_of else ""
    return "\n".join(
        [
            *undone,
            f"live      version {release.version}: {pushed / release.version}",
            f"  weights of version {release.restored} (model {release.model_id}{as_of})",
            f"  instead of version {release.replaced}",
            f"  by      {release.user}: {release.reason}",
        ]
    )

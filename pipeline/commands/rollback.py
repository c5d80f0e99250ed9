"""`fraud-pipeline rollback`: earlier weights go live as a new version."""

from __future__ import annotations

import argparse
from typing import Any

from fraud.pipeline.commands import common, track


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

    from fraud.pipeline import production

    release, undone = production.roll_back(config.metadata, root, arguments.reason, arguments.to)
    common.show(arguments, release, lambda shown: render(shown, root.pushed, undone))
    track.send_finished(config, root)
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

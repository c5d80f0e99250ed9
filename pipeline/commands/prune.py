"""`fraud-pipeline prune`: deletes what neither the live model nor the last runs need."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from fraud.errors import BadInput, FraudPipelineError
from fraud.pipeline.commands import common
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root

KEEP = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Delete artifacts, versions and logs, except those that belong to the last runs, to the\n"
        "live version, to the version that a rollback would restore, or to a model that the loop\n"
        "tries or refused lately, and the statistics of the reference for drift. Give it the\n"
        "configuration of the runs.",
        "  fraud-pipeline prune --keep 20 --dry-run --root fraud-root",
    )
    parser.add_argument(
        "--keep",
        type=common.positive_int,
        default=KEEP,
        metavar="N",
        help=f"how many of the last runs are kept, whatever their outcome (default {KEEP})",
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would be deleted")
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prunes and prints what that freed.

    Raises:
      BadInput: a run is using the root, or it was moved.
      FraudPipelineError: what is live is uncertain, or something cannot be deleted or recorded.
    """
    config, root = common.config_and_root(arguments)
    document = prune(config, root, arguments.keep, arguments.dry_run)
    common.show(arguments, document, render)
    return 0


def prune(config: Config, root: Root, keep: int, dry_run: bool) -> dict[str, Any]:
    """Prunes the root, unless `dry_run`.

    Returns:
      `root`; `dry_run`; `runs` and `versions` that are kept, oldest first; `deleted`, each with
      `what`, `count` and `size` in bytes, the largest first; `freed`, in bytes.

    Raises:
      BadInput, FraudPipelineError: see `run`.
    """
    from fraud.monitoring import journal
    from fraud.pipeline import lineage, pruning, verification

    document: dict[str, Any] = {"root": str(root.path), "dry_run": dry_run}
    store = lineage.find_store(config.metadata, root)
    if store is None:
        return {**document, "runs": [], "versions": [], "deleted": [], "freed": 0}
    with root.idle() as idle:
        if not idle:
            raise BadInput(
                f"{root.path}: a run is using this root, or another prune or verify; prune when "
                "it has ended"
            )
        verification.check_place(root, store)
        with root.pushing():
            entries = journal.Journal(root.path / "loop").entries()
            tried = journal.refused(entries, config.loop.refused_days)
            also = [training.run_id for _, training in tried]
            planned = pruning.plan(root, store, keep, config.data_gate.reference_run, also)
            freed = pruning.freed(root, planned)
            if not dry_run:
                try:
                    pruning.execute(root, store, planned)
                except OSError as error:
                    raise FraudPipelineError(
                        f"{error.filename or root.path}: {error.strerror}; prune again"
                    ) from None
    return {
        **document,
        "runs": list(planned.runs),
        "versions": list(planned.versions),
        "deleted": [asdict(one) for one in freed],
        "freed": sum(one.size for one in freed),
    }


def render(document: dict[str, Any]) -> str:
    """The result as text."""
    lines = [f"kept      {len(document['runs'])} runs"]
    lines += [f"  version {version}" for version in document["versions"]]
    verb = "would delete" if document["dry_run"] else "deleted"
    lines.append(verb if document["deleted"] else f"{document['root']}: nothing to delete")
    lines += [
        f"  {one['what']:<20} {one['count']:>6,} {size(one['size']):>10}"
        for one in document["deleted"]
    ]
    if document["deleted"]:
        lines.append(
            f"{'would free' if document['dry_run'] else 'freed'} {size(document['freed'])}"
        )
    return "\n".join(lines)


def size(count: float) -> str:
    """A number of bytes for people: 1.5 MB is 1,500,000 bytes."""
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:,.1f} TB"

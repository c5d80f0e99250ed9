"""`fraud-pipeline verify`: does the root agree with itself?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from fraud.errors import FraudPipelineError
from fraud.pipeline.commands import common
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root

if TYPE_CHECKING:
    from fraud.pipeline.verification import Finding

MOST_PASSES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Compare records with files, pushed models with what was pushed, and look for what killed\n"
        "runs left.",
        "  fraud-pipeline verify --root fraud-root\n\n"
        "exit codes: 0 clean (or all repaired), 1 something is wrong, 2 bad input",
    )
    parser.add_argument(
        "--repair", action="store_true", help="put right what can be put right safely"
    )
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints what is wrong; an empty root is clean."""
    config, root = common.config_and_root(arguments)
    document = verify(config, root, arguments.repair)
    common.show(arguments, document, render)
    return 0 if document["clean"] else 1


def verify(config: Config, root: Root, repair: bool) -> dict[str, Any]:
    """Checks the root, and repairs it.

    Returns:
      `root`; `clean`, whether nothing is wrong any more; `idle`, whether no run was using the root
      (if one was, leftovers were not judged); `findings`, each with `problem`, and `repaired` (what
      was done, or null) or `advice`.

    Raises:
      BadInput: a restore is half done.
      FraudPipelineError: something could not be read or repaired, for example because the disk is
        full; what was repaired before stays.
    """
    from fraud.pipeline import lineage, verification

    root.require_whole()
    store = lineage.find_store(config.metadata, root)
    if store is None:
        found = [_settled(finding, repair) for finding in verification.of_missing_metadata(root)]
        return _document(root, idle=True, found=found)
    with root.idle() as idle, root.pushing():
        if repair:
            root.require_space()
        repaired: list[dict[str, Any]] = []
        # A repair may be what the next one needs, such as a version to restore its model from.
        for _ in range(MOST_PASSES):
            try:
                found = [_settled(one, repair) for one in verification.findings(root, store, idle)]
            except OSError as error:
                where = error.filename or root.path
                raise FraudPipelineError(f"{where}: {error.strerror}; verify again") from None
            done = [entry for entry in found if entry["repaired"]]
            repaired += done
            if not done:
                break
        return _document(root, idle, [*repaired, *(e for e in found if not e["repaired"])])


def _settled(finding: Finding, repair: bool) -> dict[str, Any]:
    """What was found, and what was or is to be done."""
    done = finding.repair() if repair and finding.repair else None
    entry = {"problem": finding.problem, "repaired": done}
    advice = finding.advice or "fraud-pipeline verify --repair"
    return entry if done else {**entry, "advice": advice}


def _document(root: Root, idle: bool, found: list[dict[str, Any]]) -> dict[str, Any]:
    clean = all(entry["repaired"] for entry in found)
    return {"root": str(root.path), "clean": clean, "idle": idle, "findings": found}


def render(document: dict[str, Any]) -> str:
    """The result as text."""
    lines = []
    for entry in document["findings"]:
        done = entry["repaired"]
        lines += [
            entry["problem"],
            f"  {'repaired' if done else 'to do'}: {done or entry['advice']}",
        ]
    if not document["idle"]:
        lines.append("a run is using this root: what killed runs left was not judged")
    lines.append(f"{document['root']}: {'clean' if document['clean'] else 'not clean'}")
    return "\n".join(lines)

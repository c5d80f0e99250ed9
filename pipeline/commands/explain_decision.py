"""`fraud-pipeline explain-decision`: why is this version live, why was that challenger refused?"""

from __future__ import annotations

import argparse

from fraud.errors import BadInput
from fraud.pipeline.commands import common
from fraud.pipeline.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Say why a version went live, or why a run pushed nothing, as ML Metadata recorded it.\n"
        "Numbers in brackets are 95 % intervals.",
        "  fraud-pipeline explain-decision 1795449062 --root fraud-root",
    )
    parser.add_argument(
        "name", metavar="VERSION|RUN", help="a folder in pushed/, or a run that `status` lists"
    )
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints the explanation.

    Raises:
      BadInput: there is no such version or run.
    """
    config, root = common.config_and_root(arguments)

    from fraud.pipeline import decisions, lineage
    from fraud.report import decision

    store = lineage.find_store(config.metadata, root)
    if store is None:
        raise BadInput(f"{root.path}: nothing has run here; check --root")
    with Console().quiet():
        facts = decisions.find(store, root.pushed, arguments.name)
    common.show(arguments, facts, decision.render)
    return 0

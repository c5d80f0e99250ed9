"""`fraud-pipeline compile`: the graph, written down for an orchestrator."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands import common
from pipeline.errors import BadInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Write the graph once, for an orchestrator that then runs it node by node with\n"
        "`fraud-pipeline node`. See docs/orchestrators.md.",
        "  fraud-pipeline compile --data transactions --root fraud-root --out graph",
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for ir.json and graph.json"
    )
    parser.add_argument(
        "--data", metavar="PATH", help="what runs read unless `node --data` names something else"
    )
    common.add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compiles; the data need not exist yet.

    Raises:
      BadInput: the configuration is wrong, or the folder cannot be written.
    """
    config, root = common.config_and_root(arguments)
    data = common.data_path(arguments, config)
    if data is None:
        raise BadInput("no data: give --data PATH, or set paths.data in the configuration")

    from pipeline.runners import compiled

    print(compiled.write(config, root, data, Path(arguments.out).expanduser().resolve()))
    return 0

"""`fraud-pipeline lineage`: where a version comes from, and what a day of data went into."""

from __future__ import annotations

import argparse
import sys

from fraud.errors import BadInput
from fraud.pipeline.commands import common

FORMATS = ("text", "json", "dot", "html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Show what a version, a run or an artifact was made from: days of data with fingerprints,\n"
        "code, settings, checks and rollbacks; or every model that a day of data went into.",
        "  fraud-pipeline lineage                      of what is live\n"
        "  fraud-pipeline lineage 2026-02-10           which models saw that day?\n"
        "  fraud-pipeline lineage --format html > lineage.html\n"
        "  fraud-pipeline lineage --openlineage http://localhost:5000",
    )
    parser.add_argument(
        "asked",
        nargs="?",
        metavar="VERSION|DAY|RUN|ARTIFACT",
        help="an artifact by its id in ML Metadata or its folder (default: the live version)",
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="text", help="of what is printed (default text)"
    )
    parser.add_argument(
        "--openlineage",
        metavar="FILE|URL",
        help="instead of printing, write the lineage as OpenLineage events to a file, one a line, "
        "or send them to a server; its key is read from OPENLINEAGE_API_KEY",
    )
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints the lineage.

    Raises:
      BadInput: there is no such thing.
      FraudPipelineError: the OpenLineage server cannot be reached, or refuses the events.
    """
    config, root = common.config_and_root(arguments)

    from fraud.codec import to_json
    from fraud.pipeline import lineage_graph
    from fraud.pipeline.records import find_records

    records = find_records(config.metadata, root)
    if records is None:
        raise BadInput(f"{root.path}: nothing has run here; check --root")
    found = lineage_graph.find(records, root.pushed, arguments.asked)
    if arguments.openlineage:
        from fraud.report import openlineage_events

        sent = openlineage_events.send(found, arguments.openlineage)
        print(f"{sent} events to {arguments.openlineage}", file=sys.stderr)
        return 0
    shown = "json" if arguments.json else arguments.format
    if shown == "json":
        print(to_json(found, indent=1))
    elif shown == "text":
        from fraud.report import lineage_text

        print(lineage_text.render(found))
    else:
        from fraud.report import lineage_picture

        draw = lineage_picture.to_dot if shown == "dot" else lineage_picture.to_html
        print(draw(found))
    return 0

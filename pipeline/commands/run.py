"""`fraud-pipeline run`: one run of the graph."""

from __future__ import annotations

import argparse
from dataclasses import replace

from fraud.errors import BadInput
from fraud.pipeline.commands import common

EXIT_GATE_STOPPED = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Validate a window of transactions, train, judge against the champion, and push.",
        "  fraud-pipeline run --data transactions --as-of 2018-07-31\n\n"
        "exit codes: 0 completed (pushed or not), 1 failure, 2 bad input, 3 stopped by the gate",
    )
    parser.add_argument(
        "--data", metavar="PATH", help="folders date=YYYY-MM-DD/*.parquet|csv|csv.gz, or one file"
    )
    parser.add_argument(
        "--as-of",
        type=common.day,
        metavar="DAY",
        help="the day the run pretends it is (default: the last day of the data)",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="first search for better settings of the network, as tuning.* says; what is found is "
        "used, and kept as a file for --config",
    )
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Checks everything that can be checked without work, then runs.

    Raises:
      FraudPipelineError: see `fraud.pipeline.runners.local.run`.
    """
    config, root = common.config_and_root(arguments)
    if arguments.tune:
        config = replace(config, tuning=replace(config.tuning, enabled=True))
    data = common.data_path(arguments, config)
    if data is None:
        raise BadInput("no data: give --data PATH, or set paths.data in the configuration")

    from fraud.pipeline.ingestion import source

    found = source.discover(data, config.dataset)
    windows = source.plan(found, config, arguments.as_of)
    source.check_columns(found, windows, config.dataset)

    from fraud.pipeline import summary
    from fraud.pipeline.console import Console
    from fraud.pipeline.runners import local

    as_of = windows.as_of if windows else None
    result = local.run(config, root, data, as_of, Console())
    print(summary.to_json(result) if arguments.json else summary.render(result))
    return EXIT_GATE_STOPPED if result["outcome"] == "gate_stopped" else 0

"""`fraud-pipeline arrived`: tells whether a day's data is complete, for an orchestrator."""

from __future__ import annotations

import argparse

from fraud import files
from fraud.errors import FraudPipelineError
from fraud.pipeline.commands import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Tell whether a day's data is complete: whether the file _SUCCESS, or enough rows, are in\n"
        "its folder. Prints the day if so.",
        "  fraud-pipeline arrived --data transactions --day 2018-07-31 --min-rows 100000\n\n"
        "exit codes: 0 complete, 1 cannot tell, 2 bad input, 4 not yet",
    )
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="folders date=YYYY-MM-DD; a path or URI"
    )
    parser.add_argument(
        "--day", type=common.day, metavar="DAY", help="the day (default: the last in the data)"
    )
    parser.add_argument(
        "--min-rows",
        type=common.positive_int,
        metavar="N",
        help="rows from which on a day is complete even without _SUCCESS (default: it is not)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the day if it is complete.

    Raises:
      NotYet: it is not complete.
      FraudPipelineError: see `fraud.pipeline.ingestion.arrival.check`.
    """
    from fraud.pipeline.ingestion import arrival

    data = files.resolve(arguments.data)
    try:
        print(arrival.check(data, arguments.day, arguments.min_rows))
    except OSError as error:
        raise FraudPipelineError(f"{data}: cannot be read: {error}") from None
    return 0

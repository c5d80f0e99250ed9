"""`fraud-pipeline simulate`: write simulated transactions."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from datetime import date
from pathlib import Path

from fraud.data.spec import DRIFTS, FORMATS, Drift, Simulation, parse_drift
from fraud.errors import BadInput
from fraud.pipeline.commands import common

EXAMPLE = """\
  fraud-pipeline simulate --out transactions --days 90 --customers 5000 --terminals 10000 \\
      --drift new_fraud@2026-03-01 --drift amount_shift@2026-03-15

drift scenarios, each in effect from the beginning of its day:
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    default = Simulation()
    common.example(
        parser,
        "Write day folders of simulated card transactions, some of them fraudulent.",
        EXAMPLE + "\n".join(f"  {name:14} {meaning}" for name, meaning in DRIFTS.items()),
    )
    add = parser.add_argument
    add("--out", required=True, type=Path, metavar="DIR", help="parent of the day folders")
    for name, meaning in (
        ("days", "number of days"),
        ("customers", "number of customers; each makes about two purchases a day"),
        ("terminals", "number of terminals"),
        ("seed", "random seed; equal seeds and options give equal transactions"),
    ):
        add(
            f"--{name}",
            type=int,
            default=getattr(default, name),
            metavar="N",
            help=f"{meaning} (default %(default)s)",
        )
    add(
        "--start",
        type=common.day,
        default=default.start,
        metavar="DAY",
        help="the first day (default %(default)s)",
    )
    add("--format", choices=FORMATS, default=FORMATS[0], help="file format (default %(default)s)")
    add(
        "--drift",
        type=_drift,
        action="append",
        default=[],
        metavar="SCENARIO@DAY",
        help="a change that takes effect on a day; repeatable",
    )
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Writes the day folders.

    Raises:
      BadInput: an option is out of range, a day folder exists already or cannot be written.
    """
    from fraud.data.writer import write_days

    def progress(day: date, transactions: int) -> None:
        sys.stderr.write(f"\r  … {day}  {transactions:,} transactions\x1b[K")

    on_terminal = sys.stderr.isatty()
    try:
        written = write_days(
            simulation(arguments),
            arguments.out,
            arguments.format,
            progress if on_terminal else None,
        )
    except OSError as error:
        raise BadInput(str(error)) from None
    finally:
        if on_terminal:
            sys.stderr.write("\r\x1b[K")
    if arguments.json:
        print(json.dumps({**dataclasses.asdict(written), "folder": str(written.folder)}))
    else:
        print(written)
    return 0


def simulation(arguments: argparse.Namespace) -> Simulation:
    """The simulation that the options describe.

    Raises:
      BadInput: an option is out of range.
    """
    options = ("days", "customers", "terminals", "start", "seed")
    values = {name: getattr(arguments, name) for name in options}
    return Simulation(**values, drift=tuple(arguments.drift))


def _drift(text: str) -> Drift:
    """`parse_drift` as an argparse type."""
    try:
        return parse_drift(text)
    except BadInput as error:
        raise argparse.ArgumentTypeError(str(error)) from None

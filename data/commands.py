"""`fraud-pipeline simulate`: its options, and what it does. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fraud.data.spec import DRIFTS, FORMATS, Simulation, parse_day, parse_drift

if TYPE_CHECKING:
    from fraud.data.writer import Written

Parsed = TypeVar("Parsed")

DESCRIPTION = "Write day folders of simulated card transactions, some of them fraud."

EPILOG = """\
drift scenarios, each from the beginning of its day on:
{drifts}

example:
  fraud-pipeline simulate --out transactions --days 90 --customers 5000 --terminals 10000 \\
      --drift new_fraud@2026-03-01 --drift amount_shift@2026-03-15
""".format(drifts="\n".join(f"  {name:14} {meaning}" for name, meaning in DRIFTS.items()))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the description, the options and the example of `simulate`."""
    default = Simulation()
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--out", required=True, type=Path, metavar="DIR", help="folder for date=YYYY-MM-DD/…")
    for name, meaning in (
        ("days", "how many days"),
        ("customers", "how many customers; each buys about twice a day"),
        ("terminals", "how many terminals"),
        ("seed", "another number, other transactions; the same one, the same"),
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
        type=_for_argparse(parse_day),
        default=default.start,
        metavar="DAY",
        help="the first day (default %(default)s)",
    )
    add("--format", choices=FORMATS, default=FORMATS[0], help="of the files (default %(default)s)")
    add(
        "--drift",
        type=_for_argparse(parse_drift),
        action="append",
        default=[],
        metavar="SCENARIO@DAY",
        help="a change that starts on a day; may be repeated",
    )


def from_arguments(arguments: argparse.Namespace) -> Simulation:
    """The simulation that the options ask for.

    Raises:
      ValueError: an option makes no sense; the message says which.
    """
    return Simulation(
        days=arguments.days,
        customers=arguments.customers,
        terminals=arguments.terminals,
        start=arguments.start,
        seed=arguments.seed,
        drift=tuple(arguments.drift),
    )


def run(
    arguments: argparse.Namespace, progress: Callable[[dt.date, int], None] | None = None
) -> Written:
    """Simulate and write as the options say; see `fraud.data.writer.write_days`.

    Raises:
      ValueError: bad options, or day folders that exist already.
    """
    from fraud.data.writer import write_days

    return write_days(from_arguments(arguments), arguments.out, arguments.format, progress)


def _for_argparse(parse: Callable[[str], Parsed]) -> Callable[[str], Parsed]:
    """`parse` for argparse, which keeps the message of no other error than its own."""

    def parsed(text: str) -> Parsed:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed

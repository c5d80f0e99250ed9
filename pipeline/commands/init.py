"""`fraud-pipeline init`: looks at data and writes a configuration that runs."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fraud import files
from fraud.errors import BadInput
from fraud.pipeline.commands import common

if TYPE_CHECKING:
    from fraud.pipeline.inspection.columns import Column
    from fraud.pipeline.inspection.proposal import WindowChoice
    from fraud.pipeline.inspection.roles import Roles


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Look at a file or folder of transactions, guess what its columns are, and write a\n"
        "configuration with the reasons. On a terminal it asks; --yes accepts every guess.",
        "  fraud-pipeline init --data claims.csv --yes\n  fraud-pipeline run --config fraud.yaml",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="folders date=YYYY-MM-DD/*.parquet|csv|csv.gz, or one file",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="fraud.yaml",
        help="the configuration to write, which must not exist (default %(default)s)",
    )
    parser.add_argument("--label", metavar="COLUMN", help="the column that tells frauds apart")
    parser.add_argument("--yes", action="store_true", help="accept every guess without asking")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Inspects the data and writes the configuration.

    Raises:
      BadInput: the data cannot be read or has no label, or the file exists.
    """
    out = Path(files.resolve(arguments.out))
    if out.exists():
        raise BadInput(f"{out}: exists already; choose another --out, or remove it")
    if not out.parent.is_dir():
        raise BadInput(f"{out.parent}: no such folder; create it, or choose another --out")
    asks = not arguments.yes
    if asks and (arguments.json or not sys.stdin.isatty()):
        raise BadInput("there is nobody to ask: give --yes to accept every guess")
    data = files.resolve(arguments.data)

    from fraud.codec import to_json
    from fraud.pipeline.inspection import columns, proposal, roles, sample

    taken = sample.read(data)
    described = columns.describe(taken.table, taken.csv.decimal, _has_csv(data))
    chosen: dict[str, str | None] = {"label": arguments.label} if arguments.label else {}
    guessed = roles.guess(described, chosen)
    if asks:
        guessed = _asked(described, guessed, chosen)
    guessed, windows = _windows(data, taken, guessed)
    text = proposal.text(data, out, taken, guessed, windows)
    _check(text, out, data)
    try:
        files.write_atomically(out, text)
    except OSError as error:
        raise BadInput(f"{out}: cannot be written: {error.strerror}") from None
    warnings = proposal.warnings(taken, guessed)
    following = f"fraud-pipeline run --config {shlex.quote(arguments.out)}"
    if arguments.json:
        document = {
            "config": str(out),
            "roles": guessed.roles,
            "warnings": warnings,
            "next": following,
        }
        print(to_json(document, indent=1))
        return 0
    print(f"{proposal.count(taken)}, {guessed.fraud_rate:.3%} of them frauds\n")
    print(proposal.table(guessed))
    if windows:
        print(
            f"\n  windows      train {windows.train_days}, eval {windows.eval_days} and label "
            f"delay {_days(windows.label_delay_days)}"
        )
    if warnings:
        print()
    for warning in warnings:
        print(f"  warning      {warning}")
    print(f"\n{arguments.out} is written; check it, then: {following}")
    return 0


def _has_csv(data: str) -> bool:
    from fraud.features.spec import Dataset
    from fraud.pipeline.ingestion.source import discover

    return any(not f.is_parquet for f in discover(data, Dataset(timestamp=None)).all_files)


def _asked(described: list[Column], guessed: Roles, chosen: dict[str, str | None]) -> Roles:
    """Shows the guesses and asks about those that matter most; returns what was decided."""
    from fraud.pipeline.inspection import proposal, roles

    print(proposal.table(guessed))
    print("\nEnter keeps a guess; type another column's name, or - for none.")
    for role in (roles.LABEL, roles.TIMESTAMP, roles.AMOUNT, roles.ID):
        while True:
            before = guessed.one(role)
            answer = input(f"  {role} [{before or '-'}]: ").strip()
            if not answer:
                break
            choice = None if answer == "-" else answer
            try:
                if role == roles.LABEL and choice is None:
                    raise BadInput("label: there must be one")
                guessed = roles.guess(described, {**chosen, role: choice})
            except BadInput as error:
                print(f"  {error}")
                continue
            chosen[role] = choice
            break
    return guessed


def _windows(data: str, taken: object, guessed: Roles) -> tuple[Roles, WindowChoice | None]:
    """Window lengths that the data covers; without enough days, roles without a timestamp."""
    import numpy as np

    from fraud.features.spec import Dataset
    from fraud.pipeline.ingestion.source import discover
    from fraud.pipeline.inspection import proposal, roles
    from fraud.pipeline.inspection.sample import Sample
    from fraud.time import day_number

    assert isinstance(taken, Sample)
    timestamp = guessed.one(roles.TIMESTAMP)
    if timestamp is None:
        return guessed, None
    dataset = Dataset(
        timestamp=timestamp,
        time_format=guessed.time_format,
        csv_delimiter=taken.csv.delimiter,
        csv_decimal=taken.csv.decimal,
        csv_encoding=taken.csv.encoding,
    )
    days = np.array([day_number(day) for day in discover(data, dataset).days])
    if (stray := proposal.stray_days(days)).size:
        named = [str(np.datetime64(int(day), "D")) for day in stray[:3]]
        raise BadInput(
            f"{data}: {timestamp} has transactions on {', '.join(named)}, years away from all "
            "others: placeholders? Correct or remove these rows"
        )
    frauds = guessed.fraud_rate * taken.rows
    chosen = proposal.choose_windows(days, frauds)
    if chosen is None:
        span = int(days[-1] - days[0]) + 1
        return guessed.without_time(f"times of {_days(span)} only: too few for windows"), None
    return guessed, chosen


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _check(text: str, out: Path, data: str) -> None:
    """Checks that the configuration can be read and that a run could begin with it.

    Raises:
      BadInput: says why not.
    """
    import tempfile

    from fraud.pipeline import config
    from fraud.pipeline.ingestion.source import plan_ingestion

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, out.name)
        path.write_text(text, encoding="utf-8")
        try:
            plan_ingestion(data, config.load(path), None)
        except BadInput as error:
            message = str(error).removeprefix(f"{path}: ")
            raise BadInput(f"cannot write a configuration that runs: {message}") from None

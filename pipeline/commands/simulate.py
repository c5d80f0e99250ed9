"""`fraud-pipeline simulate`: see `fraud.data.commands`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from datetime import date

from fraud.data import commands
from fraud.errors import BadInput
from fraud.pipeline.commands import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    commands.add_arguments(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Writes the day folders.

    Raises:
      BadInput: an option makes no sense, or the folders exist already.
    """

    def progress(day: date, transactions: int) -> None:
        sys.stderr.write(f"\r  … {day}  {transactions:,} transactions\x1b[K")

    on_terminal = sys.stderr.isatty()
    try:
        written = commands.run(arguments, progress if on_terminal else None)
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from None
    finally:
        if on_terminal:
            sys.stderr.write("\r\x1b[K")
    if arguments.json:
        print(json.dumps({**dataclasses.asdict(written), "folder": str(written.folder)}))
    else:
        print(written)
    return 0

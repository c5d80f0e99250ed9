"""`fraud-pipeline simulate`: see `data.commands`."""

from __future__ import annotations

import argparse

from data import commands
from pipeline.errors import BadInput

add_arguments = commands.add_arguments


def run(arguments: argparse.Namespace) -> int:
    """Writes the day folders.

    Raises:
      BadInput: an option makes no sense, or the folders exist already.
    """
    try:
        written = commands.run(arguments)
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from None
    print(written)
    return 0

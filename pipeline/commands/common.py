"""Options that several commands share."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

from fraud.pipeline import config
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--root`."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        help="YAML that says what differs from the built-in defaults; may be given several times, "
        "later files go before",
    )
    parser.add_argument(
        "--root", metavar="DIR", help=f"where everything is kept (default {Config().paths.root})"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def example(parser: argparse.ArgumentParser, description: str, text: str) -> None:
    """Sets what `--help` says before and after the options."""
    parser.description = description
    parser.epilog = f"example:\n{text}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def config_and_root(arguments: argparse.Namespace) -> tuple[Config, Root]:
    """Reads the configuration and finds the root; the option goes before the file.

    Raises:
      BadInput: the configuration is wrong.
    """
    loaded = config.load(*arguments.config)
    return loaded, Root(Path(arguments.root or loaded.paths.root).expanduser().resolve())


def day(text: str) -> date:
    """An argparse type: YYYY-MM-DD."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day; write it as 2018-07-31") from None


def data_path(arguments: argparse.Namespace, config: Config | None = None) -> str | None:
    """`--data`, or else the configuration's, as an absolute path; a URI stays as it is."""
    data = arguments.data or (config.paths.data if config else None)
    return data if data is None or "://" in data else str(Path(data).expanduser().resolve())

"""Options shared by several commands."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TypeVar

from fraud import files
from fraud.errors import BadInput
from fraud.pipeline import config
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root
from fraud.text import plain
from fraud.time import parse_day

T = TypeVar("T")


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--root`."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        help="YAML file with what differs from the defaults; may be repeated, and later files "
        "override earlier ones",
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        help=f"folder for everything that runs produce (default {Config().paths.root})",
    )


def add_state(parser: argparse.ArgumentParser) -> None:
    """`--state`."""
    parser.add_argument(
        "--state",
        metavar="LOCATION",
        help="the server's state: a folder, or the URL of a Redis server (default: the folder "
        "state of the root)",
    )


def state_location(arguments: argparse.Namespace, root: Root) -> str:
    """`--state`, or else the root's folder."""
    return files.resolve(arguments.state or str(root.state))


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def example(parser: argparse.ArgumentParser, description: str, text: str) -> None:
    """Sets the text that `--help` prints before and after the options."""
    parser.description = description
    parser.epilog = f"example:\n{text}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def show(arguments: argparse.Namespace, document: T, render: Callable[[T], str]) -> None:
    """Prints a result: as one JSON document with `--json`, otherwise as `render` says it.

    Texts in it may come from anywhere; see `fraud.text.plain`. In JSON they are as they were
    recorded, with everything that is not ASCII escaped.
    """
    if arguments.json:
        from fraud.codec import to_json

        plain_values = document if isinstance(document, dict) else json.loads(to_json(document))
        print(json.dumps(plain_values, indent=1))
    else:
        print(render(plain(document)))


def config_and_root(arguments: argparse.Namespace, whole: bool = True) -> tuple[Config, Root]:
    """The configuration and the root; `--root` overrides the configuration.

    Args:
      arguments: with what `add_config` adds.
      whole: refuse a root that is half restored.

    Raises:
      BadInput: the configuration contains a mistake, the root is a URI, or see `whole`.
    """
    loaded = config.load(*arguments.config)
    root = files.resolve(arguments.root or loaded.paths.root)
    if files.is_uri(root):
        raise BadInput(f"{root}: the root must be a local or mounted folder, not a URI")
    found = Root(Path(root))
    if whole:
        found.require_whole()
    return loaded, found


def options_given(arguments: argparse.Namespace) -> str:
    """`--config` and `--root` as they were given, for a command that is printed for the user."""
    words = [word for path in arguments.config for word in ("--config", path)]
    words += ["--root", arguments.root] if arguments.root else []
    return "".join(f" {shlex.quote(word)}" for word in words)


def day(text: str) -> date:
    """An argparse type: YYYY-MM-DD."""
    try:
        return parse_day(text)
    except BadInput as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive_int(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is too small; the least is 1")
    return number


def port(text: str) -> int:
    """An argparse type: a port, or 0."""
    if not 0 <= (port := int(text)) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{port} is no port; use 0 to 65535")
    return port


def data_path(arguments: argparse.Namespace, config: Config) -> str:
    """`--data`, or else the configuration's, as an absolute path or URI.

    Raises:
      BadInput: neither is given.
    """
    if data := arguments.data or config.paths.data:
        return files.resolve(data)
    raise BadInput("no data: give --data PATH, or set paths.data in the configuration")

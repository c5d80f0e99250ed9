"""`fraud-pipeline config`: the effective configuration, or its JSON Schema."""

from __future__ import annotations

import argparse
from dataclasses import replace

from fraud.pipeline.commands import common
from fraud.pipeline.config import Config
from fraud.pipeline.config.loading import Dumper


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Print the configuration that the other commands use: the files merged over the defaults.",
        "  fraud-pipeline config --config fraud.yaml > effective.yaml",
    )
    parser.add_argument(
        "--schema", action="store_true", help="print the JSON Schema of configuration files instead"
    )
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints YAML or JSON that `--config` reads back as the same configuration.

    Raises:
      BadInput: the configuration contains a mistake, or the root is a URI.
    """
    import yaml
    from pydantic import TypeAdapter

    from fraud.codec import to_json

    adapter = TypeAdapter(Config)
    if arguments.schema:
        print(to_json(adapter.json_schema(), indent=1))
        return 0
    config, root = common.config_and_root(arguments, whole=False)
    config = replace(config, paths=replace(config.paths, root=str(root.path)))
    document = adapter.dump_python(config, mode="json")
    if arguments.json:
        print(to_json(document, indent=1))
    else:
        text = yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
        print(text, end="")
    return 0

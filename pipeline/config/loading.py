"""Configuration files: reading, merging and resolving their paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fraud import codec, files
from fraud.errors import BadInput
from fraud.pipeline.config.checks import check
from fraud.pipeline.config.sections import TLS_FILES, Config


def load(*paths: str | Path) -> Config:
    """Reads a configuration; without files it is the built-in defaults.

    Args:
      paths: files; later ones override earlier ones key by key.

    Raises:
      BadInput: a file cannot be read or contains a mistake.
    """
    if not paths:
        return Config()  # whose check costs imports
    merged: dict[str, Any] = {}
    for path in paths:
        try:
            merged = _merged(merged, _read(Path(os.path.expanduser(path))))
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from None
    config = codec.from_values(Config, merged)
    try:
        check(config)
    except BadInput as error:
        raise BadInput(f"{', '.join(map(str, paths))}: {error}") from None
    return config


class _Loader(yaml.SafeLoader):
    """Plain YAML, in which keys are text and none is given twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                line = key.start_mark.line + 1
                raise BadInput(f"line {line}: key {key.value!r} is already given; keep one of them")
            key.tag = "tag:yaml.org,2002:str"
            seen.add(key.value)
        return node


def _text(loader: yaml.SafeLoader, node: Any) -> str:
    return str(loader.construct_scalar(node))


class Dumper(yaml.SafeDumper):
    """Writes YAML that `load` reads back: text is quoted if it looks like a number there."""


# As in JSON and YAML 1.2, 1e-5 is a number; YAML 1.1 requires 1.0e-5.
for _class in (_Loader, Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"),
        list("-+0123456789"),
    )
for _tag in ("timestamp", "binary"):  # no key has such a value: a date is text, as it is written
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _text)


def _read(path: Path) -> dict[str, Any]:
    """The valid keys and values of one file, with its paths resolved."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise BadInput(f"cannot read the configuration: {reason}") from None
    except RecursionError:
        raise BadInput("not valid YAML: nested too deeply") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f"line {where.line + 1}: " if where else ""
        raise BadInput(f"{line}not valid YAML: {getattr(error, 'problem', error)}") from None
    if document is None:
        return {}
    if isinstance(document, dict):  # a section without keys has its defaults
        document = {key: {} if value is None else value for key, value in document.items()}
    codec.from_values(Config, document)  # here, so that the message names this file
    for name, section, key in _paths(document):
        value = section[key]
        try:
            section[key] = value and files.resolve(value, path.parent)
        except ValueError:
            raise BadInput(
                f"{name}.{key}: {value!r} is no path; remove the NUL character"
            ) from None
    return document


def _paths(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The keys of a document that are paths, as (name of the section, section, key)."""
    serving = document.get("serving", {})
    for name, section, keys in (
        ("paths", document.get("paths", {}), None),
        ("metadata", document.get("metadata", {}), TLS_FILES),
        ("serving.challenger", serving.get("challenger", {}), {"model"}),
    ):
        for key in section.keys() if keys is None else section.keys() & keys:
            yield name, section, key


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The nested keys and values of both; `second` overrides `first`."""
    both = {**first, **second}
    for key in first.keys() & second.keys():
        if isinstance(first[key], dict) and isinstance(second[key], dict):
            both[key] = _merged(first[key], second[key])
    return both

"""Writes docs/configuration.md from the dataclasses of the configuration: `make docs`.

What a key means stands once, in its dataclass; a test holds that the page is up to date.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import typing
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "configuration.md"

HEAD = """# Configuration

One YAML file, given by `--config`. It names only what differs from the defaults below; without a
file all defaults hold. An unknown key, a wrong type or an impossible value is one message with the
key, the value and the fix, and exit code 2, before any work is done. `data/sample/config.yaml` is
an example.

This page is made from the code by `make docs`.
"""


def page() -> str:
    """The whole page."""
    from fraud.pipeline.config import Config

    parts = [HEAD]
    defaults = Config()
    for field in dataclasses.fields(Config):
        parts.append(_section(field.name, getattr(defaults, field.name)))
    return "\n".join(parts)


def _section(name: str, value: object) -> str:
    lines = [
        f"## {name}",
        "",
        _summary(type(value)),
        "",
        "| key | default | meaning |",
        "|---|---|---|",
    ]
    return "\n".join([*lines, *_rows(name, value), ""])


def _rows(prefix: str, value: object) -> list[str]:
    rows = []
    meanings = _attributes(type(value))
    for field in dataclasses.fields(typing.cast(typing.Any, value)):
        held = getattr(value, field.name)
        key = f"{prefix}.{field.name}"
        if dataclasses.is_dataclass(held):
            rows.append(f"| `{key}` | | {meanings[field.name]} |")
            rows += _rows(key, held)
        else:
            rows.append(f"| `{key}` | `{_yaml(held)}` | {meanings[field.name]} |")
    return rows


def _yaml(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_yaml(v) for v in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_yaml(v)}" for k, v in value.items()) + "}"
    return str(value)


def _summary(kind: type) -> str:
    return inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def _attributes(kind: type) -> dict[str, str]:
    """The meaning of each attribute, from the docstring's Attributes section."""
    text = inspect.cleandoc(kind.__doc__ or "").split("Attributes:\n", 1)[-1]
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in text.splitlines():
        starts = re.match(r"  (\w+(?:, \w+)*): (.*)", line)
        if starts:
            names = starts[1].split(", ")
            meanings.update(dict.fromkeys(names, starts[2].strip()))
        elif line.startswith("    ") and names:
            for name in names:
                meanings[name] += f" {line.strip()}"
        else:
            names = []
    return meanings


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    PAGE.write_text(page(), encoding="utf-8")

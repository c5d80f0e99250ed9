"""Writes docs/configuration.md and docs/config.schema.json from the configuration: `make docs`.

A key's type, default and meaning are declared once, on its field; a test checks that both files are
up to date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent

HEAD = """# Configuration

One YAML file, given by `--config`. It names only what differs from the defaults below; without a
file all defaults apply. An unknown key, a wrong type or an impossible value is reported before any
work starts, in one message with the key, the value and the fix, and exit code 2.
`data/sample/config.yaml` is an example, and `fraud-pipeline config` prints the effective
configuration.

Editors with YAML support complete and check keys by [config.schema.json](config.schema.json):

```yaml
# yaml-language-server: $schema=docs/config.schema.json
```

This page is generated from the code by `make docs`.
"""


def documents() -> dict[str, str]:
    """The generated files: name in docs/ to content."""
    from pydantic import TypeAdapter

    from fraud.pipeline.config import Config

    schema = TypeAdapter(Config).json_schema()
    page = "\n".join([HEAD, *_sections(schema, schema, "")])
    return {
        "configuration.md": page,
        "config.schema.json": json.dumps(schema, indent=1, ensure_ascii=False) + "\n",
    }


def _sections(schema: dict[str, Any], section: dict[str, Any], name: str) -> Iterator[str]:
    """The text of a section, and of those within it; the whole has no name."""
    within = {
        key: schema["$defs"][field["$ref"].rpartition("/")[2]]
        for key, field in section["properties"].items()
        if "$ref" in field
    }
    if name:
        lines = [f"## {name}", "", section["description"], ""]
        rows = [row for key, row in _rows(name, section) if key not in within]
        if rows:
            lines += ["| key | default | meaning |", "|---|---|---|", *rows, ""]
        yield "\n".join(lines)
    for key, of_key in within.items():
        yield from _sections(schema, of_key, f"{name}.{key}".lstrip("."))


def _rows(name: str, section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, its row of the table)."""
    for key, field in section["properties"].items():
        default, meaning = _yaml(field.get("default", {})), field.get("description", "")
        cells = [f"`{name}.{key}`", f"`{default}`", meaning]
        yield key, f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _yaml(value: Any) -> str:
    """A value as it is written on one line of a YAML file."""
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=sys.maxsize
    )
    return text.removesuffix("\n").removesuffix("\n...")


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    for name, text in documents().items():
        (REPOSITORY / "docs" / name).write_text(text, encoding="utf-8")

"""Writes docs/configuration.md and docs/config.schema.json from the configuration: `make docs`.

A key's type, default and meaning are declared once, on its field; a test checks that both files are
up to date.
"""

from __future__ import annotations

import json
import sys
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
    sections = {
        name: schema["$defs"][section["$ref"].rpartition("/")[2]]
        for name, section in schema["properties"].items()
    }
    page = "\n".join([HEAD, *(_section(name, section) for name, section in sections.items())])
    return {
        "configuration.md": page,
        "config.schema.json": json.dumps(schema, indent=1, ensure_ascii=False) + "\n",
    }


def _section(name: str, schema: dict[str, Any]) -> str:
    lines = [f"## {name}", "", schema["description"], ""]
    lines += ["| key | default | meaning |", "|---|---|---|"]
    for key, field in schema["properties"].items():
        default, meaning = _yaml(field.get("default", {})), field["description"]
        row = [f"`{name}.{key}`", f"`{default}`", meaning]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |")
    return "\n".join([*lines, ""])


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

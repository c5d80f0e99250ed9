"""Deletes from a site-packages folder what the server does not use: `python trim.py SITE_PACKAGES`.

Of `fraud`, the modules stay that the commands `serve` and `state` import, wherever in their code:
so there is no code of training in the image, and the command offers only these two. Of TensorFlow,
the library and the messages stay; see docs/adr/0024-models-are-loaded-through-the-c-api.md.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

STARTS = (
    "fraud.pipeline.cli",
    "fraud.pipeline.commands.serve",
    "fraud.pipeline.commands.state",
    "fraud.schema",  # whose file is the default of `paths.schema`
)
LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")
MESSAGES = "_pb2.py"


def file_of(module: str, site: Path) -> Path | None:
    """The file of a module below a folder; None if there is none."""
    path = site.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def named(source: str) -> Iterator[str]:
    """All that a module's source imports, wherever in it; `a.b` for `from a import b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def needed(starts: Iterable[str], site: Path) -> dict[str, Path]:
    """The modules of `fraud` that some of its modules import, directly or not, with their files."""
    found: dict[str, Path] = {}
    waiting = list(starts)
    while waiting:
        module = waiting.pop()
        file = file_of(module, site)
        if module in found or file is None or module.partition(".")[0] != "fraud":
            continue
        found[module] = file
        waiting += named(file.read_text(encoding="utf-8"))
        if "." in module:
            waiting.append(module.rpartition(".")[0])
    return found


def trim(site: Path) -> None:
    """Deletes what is not needed, compiled files included. Data stays with its package."""
    keep = {*needed(STARTS, site).values()}
    for file in [*(site / "fraud").rglob("*.*")]:
        package = file if file.suffix == ".py" else file.with_name("__init__.py")
        if file.is_file() and package not in keep and file.parent.name != "__pycache__":
            file.unlink()
            for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
                compiled.unlink()
    tensorflow = site / "tensorflow"
    keep = {tensorflow / name for name in ("__init__.py", *LIBRARIES)}
    for file in [*tensorflow.rglob("*")]:
        if not file.is_dir() and file not in keep and not file.name.endswith(MESSAGES):
            file.unlink()
    paths = [*(site / "fraud").rglob("*"), *tensorflow.rglob("*")]
    for folder in sorted(paths, reverse=True):  # what contains a folder comes after it
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


if __name__ == "__main__":
    trim(Path(sys.argv[1]))

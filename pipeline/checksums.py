"""The checksums of a backup: a list of its files that `sha256sum --check` can read.

Links have no contents, so the list has them in comments: `# link {"state/current": "generation-1"}`
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fraud import files
from fraud.errors import FraudPipelineError

NAME = "SHA256SUMS"
"""The list, in the folder of the backup."""

Progress = Callable[[int, int], None]
"""Told how many bytes were read, and how many there are."""

_LINE = re.compile(rb"(\\?)([0-9a-f]{64}) [ *](.+)")
_LINK = b"# link "
_SHOWN = 3
"""How many files of a kind a message names."""


@dataclass(frozen=True)
class Differences:
    """The files and links, by their names in the folder, that are not what the list says."""

    changed: list[str]
    missing: list[str]
    additional: list[str]

    def __str__(self) -> str:
        """The first few of each kind; "" if there are none."""
        return "; ".join(
            f"{kind}: {', '.join(names[:_SHOWN])}"
            + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
            for kind, names in vars(self).items()
            if names
        )


def write(folder: Path) -> None:
    """Lists what a folder contains, without empty folders and locks, in its file `NAME`.

    Raises:
      OSError: something cannot be read, or the list not be written.
    """
    found = _found(folder, lambda read, total: None)
    lines = b"".join(_line(name, content) for name, content in found.items())
    (folder / NAME).write_bytes(lines)


def differences(folder: Path, progress: Progress) -> Differences | None:
    """How a folder differs from its list; None if it has none.

    Raises:
      FraudPipelineError: the list is damaged.
      OSError: something cannot be read.
    """
    try:
        text = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None
    listed = dict(_parsed(folder / NAME, text))
    found = _found(folder, progress)
    return Differences(
        changed=[name for name in found if name in listed and listed[name] != found[name]],
        missing=[name for name in listed if name not in found],
        additional=[name for name in found if name not in listed],
    )


@dataclass(frozen=True)
class _Link:
    """Where a link leads."""

    target: str


def _found(folder: Path, progress: Progress) -> dict[str, str | _Link]:
    """What is in a folder: checksums of files, links, and "" for what is neither, by name."""
    paths = list(_paths(folder))
    status = {path: path.lstat() for path in paths}
    # Hard links to one file are read once.
    sizes = {(of.st_dev, of.st_ino): of.st_size for of in status.values()}
    total, before = sum(sizes.values()), 0
    known: dict[tuple[int, int], str] = {}
    found: dict[str, str | _Link] = {}

    def so_far(before: int) -> Callable[[int], None]:
        return lambda read: progress(before + read, total)

    for path in paths:
        name, file = str(path.relative_to(folder)), (status[path].st_dev, status[path].st_ino)
        if path.is_symlink():
            found[name] = _Link(os.readlink(path))
        elif not path.is_file():
            found[name] = ""
        else:
            if file not in known:
                known[file] = _digest(path, so_far(before))
                before += sizes[file]
            found[name] = known[file]
    return found


def _digest(path: Path, progress: Callable[[int], None]) -> str:
    try:
        return files.digest_of_file(path, progress)
    except OSError as error:  # which of reading a file does not name it
        raise OSError(error.errno, error.strerror, str(path)) from None


def _paths(folder: Path, top: bool = True) -> Iterator[Path]:
    """What is in a folder, in order, but for folders, locks, and the list itself."""
    for path in sorted(folder.iterdir()):
        if path.name == ".lock" or (top and path.name in (NAME, "lost+found")):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _paths(path, top=False)
        else:
            yield path


def _line(name: str, content: str | _Link) -> bytes:
    if isinstance(content, _Link):
        return _LINK + json.dumps({name: content.target}).encode() + b"\n"
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "" if escaped == name else "\\"
    return os.fsencode(f"{mark}{content}  {escaped}\n")


def _parsed(file: Path, text: bytes) -> Iterator[tuple[str, str | _Link]]:
    """The entries of a list.

    Raises:
      FraudPipelineError: a line is none.
    """
    for number, line in enumerate(text.removesuffix(b"\n").split(b"\n") if text else (), 1):
        if line.startswith(_LINK):
            try:
                ((name, target),) = json.loads(line[len(_LINK) :]).items()
            except (ValueError, AttributeError):
                target = None
            if isinstance(target, str):
                yield name, _Link(target)
                continue
        elif line.startswith(b"#"):
            continue
        elif found := _LINE.fullmatch(line):
            mark, digest, escaped = found.groups()
            name = os.fsdecode(escaped)
            if mark:
                name = re.sub(r"\\([\\nr])", lambda one: _ESCAPES[one[1]], name)
            yield name, digest.decode()
            continue
        raise FraudPipelineError(
            f"{file}: line {number} is no checksum, so the list is damaged, and perhaps the rest"
        )


_ESCAPES = {"\\": "\\", "n": "\n", "r": "\r"}

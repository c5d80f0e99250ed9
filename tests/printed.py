"""The commands that the documents and the program print, as they would be typed."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from fraud.pipeline import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*ROOT.glob("*.md"), *sorted(ROOT.glob("docs/*.md"))]
PACKAGES = ("data", "deploy", "features", "models", "monitoring", "pipeline", "report", "serving")
SOURCES = [path for name in PACKAGES for path in sorted(ROOT.glob(f"{name}/**/*.py"))]

_PROGRAMS = (
    "fraud-pipeline|make|python|tensorboard|mlflow|airflow|docker|kubectl|pip|curl|promtool|"
    r"setup_\w+\.sh|modern\.sh|mutants\.py|image\.sh"
)
_BEFORE = r"(?:(?:nice|/usr/bin/time -v|[A-Z_]+=\S+) )*"
_COMMAND = re.compile(rf"{_BEFORE}(?:\S*/)?(?:{_PROGRAMS})(?: |$)")
_PLACEHOLDER = re.compile(r"[\[…]|(?<![-\w$\"'{])(?:[A-Z]{2,}|N|R)\b(?!=)")


@functools.cache
def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    (commands,) = [
        action
        for action in cli._parser(command)._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    return commands.choices[command]


def commands_of(text: str) -> Iterator[str]:
    """The commands that a page wants typed.

    They are the lines of its blocks that begin with a program's name, and what else it shows as
    code if that has arguments, unless there are brackets or, outside blocks, placeholders in it
    (`rollback --to VERSION`): that describes a syntax.
    """
    blocks = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    for _, language, block in blocks:
        if language not in ("", "sh"):
            continue
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if "[-" not in line:
                yield from _typed(line)
    outside = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", outside):
        is_typed = re.match(r"make [a-z]|.* -|fraud-pipeline \S+ \S", code)
        if is_typed and not _PLACEHOLDER.search(code):
            yield from _typed(code.replace(r"\|", "|"))


def examples_of(command: str) -> Iterator[str]:
    """The commands at the end of a command's help."""
    for line in re.sub(r"\\\n\s*", "", parser_of(command).epilog or "").splitlines():
        yield from _typed(line)


def hints() -> dict[str, str]:
    """The commands that messages and descriptions name, with their options → the source."""
    named: dict[str, str] = {}
    for path in SOURCES:
        # A literal may go on in the next line.
        text = re.sub(r'"\n\s*f?"', "", path.read_text(encoding="utf-8"))
        for found in re.findall(r"fraud-pipeline [a-z][a-z-]+(?: (?:--[a-z-]+))*", text):
            if found.split()[1] in cli.COMMANDS:
                named.setdefault(found, str(path.relative_to(ROOT)))
    return named


def everything() -> dict[str, str]:
    """Every command → where it is printed first.

    Of hints, only those with options that no page and no help shows with the same command.
    """
    found: dict[str, str] = {}
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            for line in commands_of(page.read_text(encoding="utf-8")):
                found.setdefault(line, page.name)
    for command in cli.COMMANDS:
        for line in examples_of(command):
            found.setdefault(line, f"{command} --help")
    shown = [set(line.split()) for line in found]
    for hint, source in hints().items():
        if not any(set(hint.split()) <= words for words in shown):
            found[hint] = source
    return found


def _typed(line: str) -> Iterator[str]:
    # After blanks, or a #, a line explains its command.
    line = re.split(r" {2,}| #", line.strip().removeprefix("$ "))[0]
    if _COMMAND.match(line):
        yield line

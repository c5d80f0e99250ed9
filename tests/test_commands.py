"""Every command that the documents or the program print is one that exists, with its options.

Those that can be typed as they are printed are also executed: `tests.e2e.test_printed_commands`.
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from fraud.pipeline import cli
from tests.printed import PAGES, ROOT, SOURCES, parser_of

PROSE = {"command", "versions"}
"""What follows the program's name without being a command; docs/extending.md adds `versions`."""


def typed(text: str) -> list[str]:
    """The commands in the fenced blocks of a page, as they would be typed.

    A line with brackets describes a command's syntax and is none.
    """
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    parts = [part.strip().removeprefix("$ ") for line in lines for part in line.split(" && ")]
    commands = [part for part in parts if re.match(r"(\S*/)?fraud-pipeline [a-z]", part)]
    return [command for command in commands if "[--" not in command]


def problem(line: str) -> str:
    """Why a command line cannot be parsed; empty if it can."""
    # What follows is the shell's, or, after blanks, explains the command.
    only_command = re.split(r" (?:\|\|?|2?>>?|&)(?: |$)| {2,}", line)[0]
    _, *words = shlex.split(only_command, comments=True)
    if words[0] not in cli.COMMANDS:
        return f"no command {words[0]}"
    try:
        parser_of(words[0]).parse_args(words[1:])
    except SystemExit:
        return "cannot be parsed"
    except argparse.ArgumentError as error:
        return str(error)
    return ""


def unknown(text: str) -> list[str]:
    """Commands and options that a text names, wherever in it, but that do not exist."""
    missing = []
    named = re.findall(r"fraud-pipeline ([a-z][a-z-]+)((?: (?:--[a-z-]+|[A-Z]+))*)", text)
    for command, rest in named:
        if command in PROSE:
            continue
        if command not in cli.COMMANDS:
            missing.append(command)
            continue
        options = {o for action in parser_of(command)._actions for o in action.option_strings}
        missing += [f"{command} {o}" for o in re.findall(r"--[a-z-]+", rest) if o not in options]
    return missing


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_commands_of_a_page_can_be_parsed(page: Path) -> None:
    found = {line: problem(line) for line in typed(page.read_text(encoding="utf-8"))}
    assert not {line: why for line, why in found.items() if why}


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_the_examples_of_a_command_can_be_parsed(command: str) -> None:
    text = re.sub(r"\\\n\s*", "", parser_of(command).epilog or "")
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("fraud-pipe")]
    assert not {line: problem(line) for line in lines if problem(line)}


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_no_option_takes_the_place_of_the_function_that_runs_the_command(command: str) -> None:
    parser = parser_of(command)
    assert callable(parser.get_default("run"))
    assert "run" not in {action.dest for action in parser._actions if action.option_strings}


def test_commands_and_options_that_are_named_anywhere_exist() -> None:
    texts = {
        path: path.read_text(encoding="utf-8") for path in [*PAGES, *SOURCES, ROOT / "Makefile"]
    }
    found = {str(path.relative_to(ROOT)): unknown(text) for path, text in texts.items()}
    assert not {path: names for path, names in found.items() if names}


def test_the_targets_of_make_that_are_named_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    named = {
        (page.name, target)
        for page in PAGES
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE)
    }
    assert named
    assert not {(page, target) for page, target in named if target not in targets}


def test_what_does_not_exist_is_noticed() -> None:
    page = (
        "```\nfraud-pipeline run --data x \\\n  --as-of 2026-01-01 # today\n$ fraud-pipeline rn\n"
    )
    page += "fraud-pipeline status    what is live\nfraud-pipeline run [--fast]\n```"
    assert [problem(line) for line in typed(page)] == ["", "no command rn", ""]
    assert problem("fraud-pipeline run --fast") == "cannot be parsed"
    text = "`fraud-pipeline run --fast --data DIR` and fraud-pipeline go"
    assert unknown(text) == ["run --fast", "go"]

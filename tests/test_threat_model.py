"""The tests that docs/threat-model.md names are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PAGE = Path("docs", "threat-model.md")


def named_tests(text: str) -> list[tuple[str, str]]:
    """(file, function) of each test that a text names."""
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)


def missing_tests(text: str, repository: Path) -> list[str]:
    """The tests that a text names and that are not there."""
    missing = []
    for name, function in named_tests(text):
        path = repository / name
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
        if function not in {getattr(node, "name", "") for node in tree.body}:
            missing.append(f"{name}::{function}")
    return missing


def statements_without_test(text: str) -> list[str]:
    """The rows of tables with a column of tests that name none."""
    tables = re.findall(r"^\|.*\| tests \|\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert tables
    return [row for table in tables for row in table.splitlines() if not named_tests(row)]


def test_each_statement_has_tests_and_they_exist(repository):
    text = (repository / PAGE).read_text(encoding="utf-8")
    assert not missing_tests(text, repository)
    assert not statements_without_test(text)


def test_a_missing_test_is_noticed(repository):
    text = "| a | tests |\n|---|---|\n| x | `tests/test_threat_model.py::test_none` |\n| y | z |\n"
    assert missing_tests(text, repository) == ["tests/test_threat_model.py::test_none"]
    assert statements_without_test(text) == ["| y | z |"]

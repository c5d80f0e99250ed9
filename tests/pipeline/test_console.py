"""What libraries print stays out of the way, and comes to light if something fails."""

from __future__ import annotations

import os

import pytest

from fraud.errors import BadInput
from fraud.pipeline.console import Console


def talk() -> None:
    os.write(1, b"an output of C++ code\n")
    os.write(2, b"a warning of C++ code\n")


def test_what_libraries_print_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    with Console().quiet():
        talk()
    print("the result")
    assert capfd.readouterr() == ("the result\n", "")


def test_a_foreseen_failure_needs_no_more_than_its_message(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(BadInput), Console().quiet():
        talk()
        raise BadInput("no such column")
    assert capfd.readouterr() == ("", "")


def test_before_an_unforeseen_failure_comes_what_was_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ZeroDivisionError), Console().quiet():
        talk()
        raise ZeroDivisionError
    out, err = capfd.readouterr()
    assert out == ""
    assert sorted(err.splitlines()) == ["a warning of C++ code", "an output of C++ code"]


def test_a_line_of_progress_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    Console().say("  ✗ node  \x1b[2J\nlive  version 9")
    assert capfd.readouterr().err == "  ✗ node  \\x1b[2J live  version 9\n"

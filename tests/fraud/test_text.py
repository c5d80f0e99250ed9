"""Nothing that was recorded can pass for output of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from fraud.text import is_plain, plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bad \x1b[2J", "bad \\x1b[2J"),
        ("bad\nlive      version 9", "bad live      version 9"),
        ("bad\r\n\tworse", "bad worse"),
        ("a\u202eb", "a\\u202eb"),
        ("\x9b2J", "\\x9b2J"),
        ("a\u2028b\x85c\x0bd", "a\\u2028b\\x85c\\x0bd"),
        ("\udcff", "\\udcff"),
        ("\U000e0041", "\\U000e0041"),
        ("Zahlungsausfälle – 三月 🙂", "Zahlungsausfälle – 三月 🙂"),
    ],
)
def test_what_does_not_show_as_itself_is_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert is_plain(shown)
    assert is_plain(text) == (text == shown)


@dataclass(frozen=True)
class Record:
    reason: str
    where: Path
    others: tuple[str, ...] = ()


def test_texts_are_found_wherever_they_are() -> None:
    record = Record("a\nb", Path("c"), ("d\x1b",))
    document = {"k\x07": [record, 3, None], "t": ("x\ny", 1.5)}
    expected = {"k\\x07": [Record("a b", Path("c"), ("d\\x1b",)), 3, None], "t": ("x y", 1.5)}
    assert plain(document) == expected

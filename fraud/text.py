"""Text from outside on a terminal: nothing that was recorded can pass for our own output."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control and format characters (escape sequences, changes of direction),
halves of characters, and separators of lines and paragraphs."""


def is_plain(text: str) -> bool:
    """Whether every character of a text shows as itself, on one line."""
    return not any(unicodedata.category(character) in _HIDDEN for character in text)


def plain(value: T) -> T:
    r"""The same value with texts that are safe to print on one line, however deep they are in it.

    Line breaks and tabs become spaces; what would otherwise not show as itself is written as in a
    Python string, for example an escape character as `\x1b`.

    Args:
      value: a text, or mappings, lists, tuples and dataclasses of texts; anything else stays.
    """
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        if is_plain(value):
            return value
        one_line = re.sub(r"\s*[\t\n\r]\s*", " ", value)
        return "".join(c if is_plain(c) else _escaped(c) for c in one_line)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()

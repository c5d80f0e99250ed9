"""What a long step reports while it works, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_listeners: list[Callable[[str], None]] = []


def report(line: str) -> None:
    """Hands a line to the listener; without one it is printed, hence in the log of the node."""
    (_listeners[-1] if _listeners else _print)(line)


@contextmanager
def reported_to(listener: Callable[[str], None]) -> Iterator[None]:
    """Hands every line to `listener` until the block ends."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.pop()


def _print(line: str) -> None:
    print(line, flush=True)

"""What the user sees while a run is at work, and where everything else goes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


class Console:
    """Progress on the terminal; whatever libraries print goes to a log file.

    Args:
      out: where progress is written; a terminal also gets a line that counts the seconds.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr

    def say(self, line: str) -> None:
        """Writes one line."""
        self._out.write(f"{line}\n")
        self._out.flush()

    @contextmanager
    def logging_to(self, log: Path) -> Iterator[None]:
        """Sends everything that is printed, by C++ code too, to `log` until the block ends.

        TFX, Beam and TensorFlow print a great deal that a user can do nothing about; it is kept for
        the day it is needed.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        kept = [os.dup(1), os.dup(2)]
        before = self._out
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            self._out = os.fdopen(os.dup(kept[1]), "w", encoding="utf-8", errors="replace")
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, original in zip((1, 2), kept, strict=True):
                os.dup2(original, target)
                os.close(original)
            os.close(descriptor)
            self._out.close()
            self._out = before

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """On a terminal, shows what is at work and for how long, until the block ends."""
        if not self._out.isatty():
            yield
            return
        done = threading.Event()
        started = time.monotonic()

        def tick() -> None:
            while not done.wait(0.5):
                self._out.write(f"\r  … {name}  {time.monotonic() - started:.0f} s")
                self._out.flush()

        ticker = threading.Thread(target=tick, daemon=True)
        ticker.start()
        try:
            yield
        finally:
            done.set()
            ticker.join()
            self._out.write("\r\x1b[K")
            self._out.flush()

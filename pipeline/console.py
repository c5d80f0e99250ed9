"""Progress for the user, with the output of libraries redirected to a log file."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from fraud.errors import FraudPipelineError
from fraud.text import plain


class Console:
    """Prints progress.

    Args:
      out: `sys.stderr` (default) or `sys.stdout`. A terminal also gets a running count of seconds.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr

    def say(self, line: str) -> None:
        """Prints one line; what was recorded in it cannot pass for another."""
        print(plain(line), file=self._out, flush=True)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Keeps all other output of the process to itself, including that of C++ code.

        If the block fails in a way that was not foreseen, the output is printed after all.
        """
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "output")
            try:
                with self.logging_to(log):
                    yield
            except FraudPipelineError:
                raise
            except Exception:
                print(log.read_text(errors="replace"), file=self._out, end="", flush=True)
                raise

    @contextmanager
    def logging_to(self, log: Path) -> Iterator[None]:
        """Appends all other output of the process, including that of C++ code, to `log`.

        TFX, Beam and TensorFlow print thousands of lines that matter only when something fails.
        If `log` cannot be opened, that is printed once and the output stays where it is.
        """
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            self.say(f"{log}: cannot write the log: {error.strerror}; printing it here instead")
            yield
            return
        sys.stdout.flush()
        sys.stderr.flush()
        originals = [os.dup(1), os.dup(2)]
        out = self._out
        own = originals[0] if out is sys.stdout else originals[1]
        try:
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            self._out = os.fdopen(os.dup(own), "w", encoding="utf-8", errors="replace")
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, original in zip((1, 2), originals, strict=True):
                os.dup2(original, target)
                os.close(original)
            os.close(descriptor)
            self._out.close()
            self._out = out

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """On a terminal, shows `name` and the seconds elapsed until the block ends."""
        if not self._out.isatty():
            yield
            return
        done = threading.Event()
        started = time.monotonic()

        def tick() -> None:
            while not done.wait(0.5):
                seconds = time.monotonic() - started
                print(f"\r  … {name}  {seconds:.0f} s", end="", file=self._out, flush=True)

        ticker = threading.Thread(target=tick, daemon=True)
        ticker.start()
        try:
            yield
        finally:
            done.set()
            ticker.join()
            print("\r\x1b[K", end="", file=self._out, flush=True)

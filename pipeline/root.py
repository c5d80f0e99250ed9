"""Where everything of one installation lies, and the lock that lets one run at a time in."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import BadInput


@dataclass(frozen=True)
class Root:
    """The folders and files of a root.

    Attributes:
      path: the root itself, absolute.
    """

    path: Path

    @property
    def metadata(self) -> Path:
        """ML Metadata's SQLite file."""
        return self.path / "metadata.sqlite"

    @property
    def artifacts(self) -> Path:
        """What the nodes of the graph write."""
        return self.path / "artifacts"

    @property
    def pushed(self) -> Path:
        """The pushed models, one folder a version: what a server watches."""
        return self.path / "pushed"

    def run(self, run_id: str) -> Path:
        """The folder of one run: its log and its summary."""
        return self.path / "runs" / run_id

    @contextmanager
    def locked(self, wait: bool = False) -> Iterator[None]:
        """Holds the root for one run, or one node of one. The lock dies with its process.

        Args:
          wait: wait for another that holds it, instead of refusing.

        Raises:
          BadInput: the root cannot be written, or another run holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / ".lock", "a+", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise BadInput(f"{self.path}: cannot use it as root: {error.strerror}") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError:
                file.seek(0)
                raise BadInput(
                    f"{self.path}: another run ({file.read().strip() or 'unknown process'}) is at "
                    "work in this root; wait for it, or choose another --root"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()}")
            file.flush()
            yield

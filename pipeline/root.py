"""Where everything of one installation lies, and the lock that lets one run at a time in."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from fraud.errors import BadInput


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
    def locked(self) -> Iterator[None]:
        """Holds the root for one run. The lock dies with its process.

        Raises:
          BadInput: the root cannot be written, or another run holds it.
        """
        with self._open(self.path / ".lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise BadInput(
                    f"{self.path}: another run ({file.read().strip() or 'unknown process'}) is at "
                    "work in this root; wait for it, or choose another --root"
                ) from None
            self._sign(file)
            yield

    @contextmanager
    def turn_of(self, run_id: str, node_id: str, alone: bool) -> Iterator[None]:
        """Waits until one node of a run may work, and holds the root for it.

        A retry waits here for an attempt that its orchestrator gave up but that is still at work.

        Args:
          run_id, node_id: which node. It is at work once at a time.
          alone: no other node of any run may be at work, which SQLite asks for.

        Raises:
          BadInput: the root cannot be written.
        """
        with (
            self._open(self.path / ".lock") as of_root,
            self._open(self.run(run_id) / f".{node_id}.lock") as of_node,
        ):
            fcntl.flock(of_node, fcntl.LOCK_EX)
            fcntl.flock(of_root, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            self._sign(of_root)
            yield

    def _open(self, path: Path) -> TextIO:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return open(path, "a+", encoding="utf-8")
        except OSError as error:
            raise BadInput(f"{self.path}: cannot use it as root: {error.strerror}") from None

    def _sign(self, file: TextIO) -> None:
        """Says who holds a lock, for whoever is refused."""
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()

"""The folders of an installation, and the locks that keep its runs apart."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from fraud import files
from fraud.errors import BadInput, FraudPipelineError

SPACE = 1 << 20
"""Bytes that must be free before anything is recorded: many times what one record takes."""

RESTORING = ".restoring"
"""A folder of a root in which a restore is half done, or was interrupted."""

_held: set[Path] = set()
"""The locks of push folders that this process holds."""


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
        """The artifacts that the nodes of the graph write."""
        return self.path / "artifacts"

    @property
    def pushed(self) -> Path:
        """The pushed models, one folder per version; a server watches it."""
        return self.path / "pushed"

    @property
    def releases(self) -> Path:
        """The journal of the pushed models, one file per version."""
        return self.path / "releases"

    @property
    def predictions(self) -> Path:
        """The log of what the server scored."""
        return self.path / "predictions"

    @property
    def monitoring(self) -> Path:
        """The monitor's log, and its latest checks for Prometheus."""
        return self.path / "monitoring"

    @property
    def alerts(self) -> Path:
        """What people were told, a file for each alert."""
        return self.path / "alerts"

    @property
    def staging(self) -> Path:
        """Models on their way into the push folder, hidden in it: that may be mounted by itself."""
        return self.pushed / ".staging"

    @property
    def state(self) -> Path:
        """What the server remembers of each entity."""
        return self.path / "state"

    @property
    def workers(self) -> Path:
        """Where the Trainer and its workers find one another; empty between trainings."""
        return self.path / "workers"

    def run(self, run_id: str) -> Path:
        """The folder of one run, with its log and its summary."""
        return self.path / "runs" / run_id

    def log(self, run_id: str) -> Path:
        """Everything that TFX, Beam and TensorFlow printed in a run."""
        return self.run(run_id) / "run.log"

    def report(self, run_id: str) -> Path:
        """The page about one run."""
        return self.run(run_id) / "report.html"

    def require_space(self) -> None:
        """Checks that there is space for records. Call it before writing to ML Metadata.

        When the disk is full, SQLite rolls the whole transaction back, but ML Metadata goes on in
        the middle of it: what it writes then, later runs take for theirs.

        Raises:
          FraudPipelineError: the disk is nearly full.
        """
        free = shutil.disk_usage(self.path).free
        if free < SPACE:
            raise FraudPipelineError(
                f"{self.path}: the disk is full, with {free >> 10} kB left; free some space, at "
                f"least {SPACE >> 10} kB, and try again"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the root for one run, until the process ends at the latest.

        Raises:
          BadInput: the root is not writable, or another run has locked it.
        """
        with self._open(self.path / ".lock") as file:
            if owner := files.try_lock(file):
                raise BadInput(
                    f"{self.path}: another run ({owner}) is using this root; wait for it, or "
                    "choose another --root"
                )
            yield

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits until no run uses the root, and locks it.

        Raises:
          BadInput: the root is not writable.
        """
        with self._waited_for(self.path / ".lock"):
            yield

    @contextmanager
    def turn_of(self, run_id: str, node_id: str, alone: bool) -> Iterator[None]:
        """Waits until a node of a run may start, and locks the root for it.

        A retry waits here for an attempt that its orchestrator abandoned but that still runs.

        Args:
          run_id, node_id: the node; two attempts at it never run at once.
          alone: no other node of any run may run meanwhile, as SQLite requires.

        Raises:
          BadInput: the root is not writable.
        """
        with (
            self._waited_for(self.run(run_id) / f".{node_id}.lock"),
            self._waited_for(self.path / ".lock", shared=not alone),
        ):
            yield

    @contextmanager
    def pushing(self) -> Iterator[None]:
        """Waits until no other process changes the push folder or its journal, and locks them.

        A process that holds this lock may enter again.

        Raises:
          BadInput: the root is not writable.
        """
        path = (self.releases / ".lock").resolve()
        if path in _held:
            yield
            return
        with self._waited_for(path):
            _held.add(path)
            try:
                yield
            finally:
                _held.remove(path)

    @contextmanager
    def idle(self) -> Iterator[bool]:
        """Whether no run is using the root; if so, none can start meanwhile."""
        with self._open(self.path / ".lock") as file:
            yield not files.try_lock(file)

    def is_in_use(self) -> bool | None:
        """Whether the process that used the root last is alive; None if that cannot be told.

        Unlike `idle`, it keeps no run from starting.
        """
        return files.is_signed_by_living(self.path / ".lock")

    def require_whole(self) -> None:
        """Checks that no restore is half done.

        Raises:
          BadInput: one is, or was interrupted.
        """
        if os.path.lexists(self.path / RESTORING):
            raise BadInput(
                f"{self.path}: a restore has not come to its end, so what is here does not belong "
                "together; wait for it, or restore again if it was interrupted"
            )

    @contextmanager
    def _waited_for(self, path: Path, shared: bool = False) -> Iterator[None]:
        """Waits for a lock of this root. A restore may have been what was waited for."""
        while True:
            with self._open(path) as file:
                files.lock(file, shared)
                self.require_whole()
                if files.is_named(file, path):
                    yield
                    return

    def _open(self, path: Path) -> TextIO:
        self.require_whole()
        try:
            return files.open_lock(path)
        except OSError as error:
            raise BadInput(f"{self.path}: cannot be used as root: {error.strerror}") from None

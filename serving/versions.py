"""Which version of the model answers, and the folder that decides it.

The newest version in the push folder answers. A new one is loaded and warmed up beside the old one,
then requests go to it from one moment to the next; the old one is freed when the last request that
uses it is answered. A version that cannot be loaded is refused, and the old one stays.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fraud.errors import FraudPipelineError
from fraud.serving.errors import NotFound, NotReady
from fraud.serving.logs import log
from fraud.serving.models import LoadedModel

State = Literal["LOADING", "AVAILABLE", "UNLOADING", "END"]

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_RETRY = 60.0
"""After this long a refused version is tried again, as the reason may have been a full memory."""
SECONDS_TO_WAIT = 5.0
"""As long if the reason was no fault of the version, such as a state whose server is down."""

_REMEMBERED = 20
_LOADING_NICENESS = 10


@dataclass(frozen=True)
class VersionStatus:
    """How a version is doing.

    Attributes:
      version: its name.
      state: in TensorFlow Serving's terms; END is unloaded, or refused if there is an `error`.
      error: why it was refused; else empty.
    """

    version: str
    state: State
    error: str = ""


class Versions:
    """The loaded versions. All methods may be called from several threads.

    Args:
      changed: called with each new status, in the thread that brings it about.
    """

    def __init__(self, changed: Callable[[VersionStatus], None] = lambda status: None) -> None:
        self._changed = changed
        self._live: LoadedModel | None = None
        self._leases: Counter[LoadedModel] = Counter()
        self._statuses: dict[str, VersionStatus] = {}
        self._lock = threading.Condition()

    @property
    def live(self) -> str | None:
        """The version that answers; None before the first one is loaded."""
        model = self._live
        return model.version if model else None

    @property
    def statuses(self) -> list[VersionStatus]:
        """Of the latest versions, the newest first."""
        with self._lock:
            return sorted(self._statuses.values(), key=lambda s: int(s.version), reverse=True)

    @contextmanager
    def lease(self, version: str | None = None) -> Iterator[LoadedModel]:
        """The model that answers, which is not freed within the block.

        Args:
          version: the one that the request names; None for whichever answers.

        Raises:
          NotReady: none is loaded yet.
          NotFound: another one answers.
        """
        with self._lock:
            model = self._live
            if model is None:
                raise NotReady("no version of the model is loaded yet; try again soon")
            if version is not None and version != model.version:
                raise NotFound(f"version {version} is not loaded; version {model.version} is live")
            self._leases[model] += 1
        try:
            yield model
        finally:
            self.release(model)

    def retain(self, model: LoadedModel) -> None:
        """Leases a model that is leased already once more, until `release`.

        For work in another thread, which goes on when the request that waits for it is given up.
        """
        with self._lock:
            self._leases[model] += 1

    def release(self, model: LoadedModel) -> None:
        """Gives back a lease."""
        with self._lock:
            self._leases[model] -= 1
            if not self._leases[model]:
                self._lock.notify_all()

    def replace(self, model: LoadedModel | None) -> None:
        """Lets a model answer from now on, waits until the one before is not used, and frees it."""
        with self._lock:
            before, self._live = self._live, model
        if model:
            self.report(VersionStatus(model.version, "AVAILABLE"))
        if before:
            self.report(VersionStatus(before.version, "UNLOADING"))
            with self._lock:
                self._lock.wait_for(lambda: not self._leases[before])
                del self._leases[before]
            before.close()
            self.report(VersionStatus(before.version, "END"))

    def report(self, status: VersionStatus) -> None:
        """Remembers how a version is doing."""
        with self._lock:
            self._statuses[status.version] = status
            for version in sorted(self._statuses, key=int)[:-_REMEMBERED]:
                del self._statuses[version]
        self._changed(status)


class Watch:
    """Keeps the newest version of a push folder loaded.

    Args:
      folder: has a folder per version, named by its number.
      versions: where to load them.
      check: raises an exception if a loaded version cannot be used for other reasons.

    Attributes:
      has_looked: set once the first look is over, whether or not there was a version to load.
    """

    def __init__(
        self,
        folder: Path,
        versions: Versions,
        check: Callable[[LoadedModel], None] = lambda model: None,
    ) -> None:
        self._folder, self._versions, self._check = folder, versions, check
        self._refused: dict[str, tuple[object, float, bool]] = {}
        self.has_looked, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Starts to watch, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Ends watching, once what is being loaded is loaded, and frees the model."""
        self._stopping.set()
        self._thread.join()
        self._versions.replace(None)

    def look(self) -> None:
        """Looks once: loads the newest version that can be loaded, unless it is."""
        found = _versions(self._folder)
        for version in sorted(found, key=int, reverse=True):
            if version == self._versions.live or self._stopping.is_set():
                break
            if not self._is_refused(version) and self._try(version):
                break
        for version in self._refused.keys() - found:
            del self._refused[version]

    def _run(self) -> None:
        self._look_safely()
        self.has_looked.set()
        # What is there by now stays, and is no garbage: looking through it would delay requests.
        gc.collect()
        gc.freeze()
        _be_nice()  # from now on there is a model whose requests go first
        while not self._stopping.is_set():
            self._look_safely()
            self._stopping.wait(SECONDS_BETWEEN_LOOKS)

    def _look_safely(self) -> None:
        try:
            self.look()
        except Exception as error:  # such as no file descriptors for a moment
            log(logging.ERROR, "cannot look for versions", exc_info=error, folder=self._folder)

    def _is_refused(self, version: str) -> bool:
        state, when, is_at_fault = self._refused.get(version, (None, 0.0, True))
        seconds = SECONDS_TO_RETRY if is_at_fault else SECONDS_TO_WAIT
        return state == _fingerprint(self._folder / version) and time.monotonic() - when < seconds

    def _try(self, version: str) -> bool:
        """Loads a version and lets it answer, or refuses it."""
        folder = self._folder / version
        state = _fingerprint(folder)
        self._versions.report(VersionStatus(version, "LOADING"))
        model = None
        try:
            model = LoadedModel(folder)
            model.warm_up()
            self._check(model)
        except Exception as error:  # whatever is wrong with it, the version before goes on
            if model:
                model.close()
            is_at_fault = not isinstance(error, NotReady)
            self._refused[version] = (state, time.monotonic(), is_at_fault)
            text = str(error) if isinstance(error, FraudPipelineError) else repr(error)
            self._versions.report(VersionStatus(version, "END", text))
            return False
        self._refused.pop(version, None)
        self._versions.replace(model)
        return True


def _versions(folder: Path) -> set[str]:
    """The names of the versions in a push folder; none if there is no such folder."""
    with suppress(FileNotFoundError):
        names = (entry.name for entry in os.scandir(folder) if entry.is_dir())
        return {n for n in names if n.isascii() and n.isdigit() and int(n) < 2**63 - 1}
    return set()


def _fingerprint(folder: Path) -> object:
    """Changes when the files of a version are replaced or completed."""
    found = []
    for path in (folder, *sorted(folder.rglob("*"))):
        with suppress(OSError):
            status = path.stat()
            found.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
    return found


def _be_nice() -> None:
    """Lets requests go before the loading of a model, where threads have priorities."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOADING_NICENESS)

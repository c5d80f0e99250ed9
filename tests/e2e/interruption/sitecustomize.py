"""Interrupts the process that has this folder in PYTHONPATH, at a given change of its root.

A change is an audit event of Python: a file is opened to be written, flushed, renamed, removed, or
ML Metadata is about to be written. The environment variable INTERRUPTION is JSON:
  below: the folder whose changes count.
  match: a regular expression that the path must contain.
  at: the number of the change, from 1, at which it happens; 0 for never.
  trace: a file to which each change is appended, as a line.
  kill_after: seconds after which the whole process group gets SIGKILL; None for no kill.
  leave: bytes to leave free on the disk, which `filler` fills; None to leave the disk alone.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading

CHANGES = {
    *("os.rename", "os.remove", "os.rmdir", "shutil.copyfile", "shutil.copytree"),
    "sqlite3.connect",  # see `lineage.remove_broken_links`, which precedes every record
}
WRITING = os.O_WRONLY | os.O_RDWR

_plan = json.loads(os.environ.get("INTERRUPTION", "null"))
_lock = threading.RLock()
_count = 0
_busy = False


def _changed(event: str, arguments: tuple[object, ...]) -> str | None:
    """The path that an audit event changes; opening a folder is for flushing it."""
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, str | bytes):
            return None
        name = os.fsdecode(path)
        # Journal entries are read more often from run to run, so reading them does not count.
        is_change = isinstance(flags, int) and (flags & WRITING or not name.endswith(".json"))
        return name if is_change else None
    if event in CHANGES:
        # A new name says more than the old one; the rest are directory descriptors.
        names = [os.fsdecode(a) for a in arguments if isinstance(a, str | bytes | os.PathLike)]
        return names[-1] if names else None
    return None


def _interrupt(event: str, arguments: tuple[object, ...]) -> None:
    global _count, _busy
    if _busy or not (event == "open" or event in CHANGES):
        return
    path = _changed(event, arguments)
    if path is None or not path.startswith(_plan["below"]) or not re.search(_plan["match"], path):
        return
    with _lock:
        if _busy:
            return
        _count += 1
        _busy = True
        try:
            if _plan["trace"]:
                with open(_plan["trace"], "a") as file:
                    file.write(f"{event} {path}\n")
            if _count == _plan["at"]:
                _act()
        finally:
            _busy = False


def _act() -> None:
    if _plan["leave"] is not None:
        free = os.statvfs(_plan["below"])
        size = free.f_bavail * free.f_frsize - _plan["leave"]
        if size > 0:
            with open(_plan["filler"], "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
    if _plan["kill_after"] == 0:
        os.killpg(0, signal.SIGKILL)
    elif _plan["kill_after"]:
        after = f"sleep {_plan['kill_after']}; kill -9 -{os.getpgid(0)}"
        subprocess.Popen(["/bin/sh", "-c", after])


if _plan:
    sys.addaudithook(_interrupt)

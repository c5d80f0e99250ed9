"""Paths, URIs, locks, and writing files that are never incomplete."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from fraud.errors import BadInput, FraudPipelineError


def is_uri(path: str) -> bool:
    """Whether this is a URI (s3://bank/transactions) rather than a path on this machine."""
    return "://" in path


def resolve(path: str, folder: Path | None = None) -> str:
    """The absolute path, with ~ expanded; a URI is returned unchanged.

    Args:
      path: a path or URI.
      folder: what a relative path is relative to; None means the working directory.
    """
    if is_uri(path):
        return path
    return str(Path(folder or "", os.path.expanduser(path)).resolve())


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file atomically: even after a crash, its content is the old or all of the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_asked(path: Path, text: str) -> None:
    """Writes a file that a person named, as `write_atomically` does.

    Raises:
      BadInput: it cannot be written there.
      OSError: the disk is full.
    """
    try:
        write_atomically(path.absolute(), text)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from None


def open_lock(path: Path) -> TextIO:
    """Opens a file that serves as a lock, and creates it if necessary.

    Raises:
      OSError: that is impossible.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return open(path, "a+", encoding="utf-8")


def is_named(file: TextIO, path: Path) -> bool:
    """Whether a path still leads to an open file, which may have been moved or deleted."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def try_lock(file: TextIO) -> str:
    """Locks an open file until it is closed, or the process ends.

    Returns:
      Who has locked it already; "" if it is ours now.

    Raises:
      FraudPipelineError: the file system has no locks.
    """
    try:
        _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file.read().strip() or "unknown process"
    sign(file)
    return ""


def lock(file: TextIO, shared: bool = False) -> None:
    """Waits until an open file can be locked, and locks it until it is closed.

    Args:
      file: from `open_lock`.
      shared: others may lock it as shared, too.

    Raises:
      FraudPipelineError: the file system has no locks.
    """
    _flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    sign(file)


def sign(file: TextIO) -> None:
    """Writes into a lock who has it, for `try_lock` of others."""
    with suppress(OSError):  # a full disk must not keep anyone from repairing things
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())


def is_signed_by_living(path: Path) -> bool | None:
    """Whether the process that locked a file last is alive; the lock is not touched.

    Returns:
      None if that cannot be told: nobody has locked it, or a process of another machine.
    """
    try:
        _, number, _, host = path.read_text(encoding="utf-8").split(" ", 3)
        if host != socket.gethostname():
            return None
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    except (OSError, ValueError):
        return None
    return True


def _flock(file: TextIO, operation: int) -> None:
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        raise
    except OSError as error:  # not to be taken for a lock of another process
        raise FraudPipelineError(
            f"{file.name}: cannot be locked: {error.strerror}; use a file system that has flock, "
            "such as NFS 4"
        ) from None


def sync_tree(directory: str | Path, recurse: bool = True) -> None:
    """Flushes a directory to disk, with `recurse` including everything below it."""
    paths = [Path(directory)]
    if recurse:  # a link has no contents, and may lead nowhere
        paths += sorted(path for path in Path(directory).rglob("*") if not path.is_symlink())
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def link_tree(source: str | Path, target: str | Path) -> None:
    """Fills a directory with hard links to another's files; with copies where it cannot have links.

    They share the space and outlive the source, but whoever changes a file changes it in both.
    """

    def link(file: str, name: str) -> None:
        try:
            os.link(file, name)
        except OSError:
            shutil.copyfile(file, name)

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=link)


def digest(directory: str | Path, only: Collection[str] = ()) -> str:
    """SHA-256 of the names and contents of all files in a directory, as hexadecimal text.

    Args:
      directory: where.
      only: paths in it, of files or folders; if there are any, nothing else counts.
    """
    of_tree = hashlib.sha256()
    for path in sorted(p for p in Path(directory).rglob("*") if p.is_file()):
        inside = path.relative_to(directory)
        name = inside.as_posix()
        if not only or any(str(part) in only for part in (inside, *inside.parents)):
            of_tree.update(f"{digest_of_file(path)}  {name}\n".encode())
    return of_tree.hexdigest()


def digest_of_file(path: Path, progress: Callable[[int], None] = lambda read: None) -> str:
    """SHA-256 of a file, as hexadecimal text.

    Args:
      path: of the file.
      progress: told after each part how many bytes were read.
    """
    of_file, read = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            of_file.update(part)
            progress(read := read + len(part))
    return of_file.hexdigest()

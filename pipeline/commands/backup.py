"""`fraud-pipeline backup`: copies a root as of one moment, while servers use it.

`restore` is the way back.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from fraud import files
from fraud.errors import BadInput, FraudPipelineError
from fraud.pipeline import checksums
from fraud.pipeline.commands import common
from fraud.pipeline.config import Config
from fraud.pipeline.root import RESTORING, Root

DUMP = "metadata.sql"
"""The file of a backup with what an ML Metadata server had."""

COPYING = ".restore-copy"
"""A folder of a root into which a restore copies a backup, before it changes anything."""

SET_ASIDE = ".before-restore-"
"""How the names of folders begin in which a restore keeps what was there before."""

TIME = "%Y-%m-%dT%H%M%SZ"
"""The name of a backup that gets its name from the time."""

_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d{6}Z")
_DUMP_PROGRAMS = ("mariadb-dump", "mysqldump")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Copy everything of a root into a new folder: models, journal, artifacts, ML Metadata,\n"
        "predictions and state. It waits for a run to end, and runs and rollbacks wait for it;\n"
        "servers go on. `fraud-pipeline restore` makes it a root again. See docs/operations.md.",
        "  fraud-pipeline backup /backups/before-upgrade --root fraud-root\n"
        "  fraud-pipeline backup /backups --keep 14 --root fraud-root",
    )
    parser.add_argument(
        "out",
        type=Path,
        metavar="FOLDER",
        help="a folder that does not exist; with --keep, a folder of backups",
    )
    parser.add_argument(
        "--keep",
        type=common.positive_int,
        metavar="N",
        help="name the backup by the time, and delete all but the N newest that are named so",
    )
    common.add_state(parser)
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Backs up and prints what was copied.

    Raises:
      BadInput: the folder exists or lies in the root, or there is no root.
      FraudPipelineError: something cannot be read, or the database not be dumped.
    """
    config, root = common.config_and_root(arguments)
    location = common.state_location(arguments, root)
    out = arguments.out.resolve()
    with tidy_at_sigterm():
        if arguments.keep is None:
            document = backup(config, root, location, out)
        else:
            document = backup_and_keep(config, root, location, out, arguments.keep)
    common.show(arguments, document, render)
    return 0


def backup_and_keep(
    config: Config, root: Root, location: str, folder: Path, keep: int
) -> dict[str, Any]:
    """Makes a backup in a folder of backups, then deletes old ones and what killed ones left.

    Args:
      config, root, location: see `backup`.
      folder: made if it is not there.
      keep: how many backups stay, with the new one. Only those named as `TIME` are counted.

    Returns:
      What `backup` does, and `deleted`, the names of the deleted backups.

    Raises:
      BadInput: see `run`; or another process is making a backup there.
      FraudPipelineError: see `run`; or an old backup cannot be deleted.
    """
    try:
        lock = files.open_lock(folder / ".lock")
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written: {error.strerror}") from None
    with lock:
        if owner := files.try_lock(lock):
            raise BadInput(f"{folder}: another backup ({owner}) is being made there; wait for it")
        new = folder / time.strftime(TIME, time.gmtime())
        document = backup(config, root, location, new)
        # The new one stays, even if the clock went back.
        others = [path for path in dated(folder) if path.name != new.name]
        deleted = others[: max(len(others) - keep + 1, 0)]
        try:
            for path in deleted:  # first its name, so that no half of it is ever taken for one
                path.rename(path.with_name(f".{path.name}.{os.getpid()}"))
            for path in folder.iterdir():
                if _NAME.match(path.name[1:]) and path.name[0] == ".":
                    if path.is_symlink():  # to a backup elsewhere, which stays
                        path.unlink()
                    else:
                        shutil.rmtree(path)
        except OSError as error:
            where = error.filename or folder
            raise FraudPipelineError(f"{where}: cannot be deleted: {error.strerror}") from None
    return {**document, "deleted": [path.name for path in deleted]}


def dated(folder: Path) -> list[Path]:
    """The backups in a folder that are named by their time, oldest first."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())


def backup(config: Config, root: Root, location: str, out: Path) -> dict[str, Any]:
    """Copies a root.

    Args:
      config: says where ML Metadata is.
      root: what to copy.
      location: of the state: a folder, or the URL of a server, whose state is not copied.
      out: where to; does not exist afterwards if anything fails.

    Returns:
      `root`; `backup`; `files` and `bytes` copied; `metadata`: `sqlite`, a file name, or None if
      there is no ML Metadata; `state`: whether there was one to copy; `seconds`.

    Raises:
      BadInput, FraudPipelineError: see `run`.
    """
    from fraud.serving import log_writer, state

    started = time.monotonic()
    if not root.path.is_dir():
        raise BadInput(f"{root.path}: there is no root; name it with --root")
    root.require_whole()
    if not any(path.exists() for path in (root.metadata, root.artifacts, root.pushed)):
        # A volume that was lost and is empty now must not become the newest of the backups.
        raise BadInput(f"{root.path}: is empty; there is nothing to back up")
    if out.exists():
        raise BadInput(f"{out}: exists; name a folder that does not, such as one with today's date")
    if out.is_relative_to(root.path):
        raise BadInput(f"{out}: lies in the root; a backup belongs on another disk")
    own_folder = not state.is_server(location)
    has_state = own_folder and (Path(location) / "current").exists()
    temporary = out  # nothing yet
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # In another container there may be a process of the same number, and so of the same name.
        name = f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}"
        temporary = out.parent / name  # known before it exists: SIGTERM may come right after
        temporary.mkdir(mode=0o700)
        # The locks of runs and of pushes: nobody writes to ML Metadata, artifacts or `pushed`.
        with root.turn(), root.pushing():
            copied_of = _identity(root)
            metadata = _copy_metadata(config, root, temporary)
            apart = {root.metadata, root.predictions, root.state, temporary}
            apart |= {Path(f"{root.metadata}-journal"), *not_of_root(root)}
            apart.add(root.path / checksums.NAME)  # of a backup that was copied here by hand
            copy_tree(root.path, temporary, apart)
        if root.predictions.is_dir():
            log_writer.copy_log(root.predictions, temporary / root.predictions.name)
        if has_state:
            state.copy_state(Path(location), temporary / root.state.name)
        # A restore does not wait for what is copied without locks.
        root.require_whole()
        if not copied_of <= _identity(root):
            raise FraudPipelineError(
                f"{root.path}: was restored while it was backed up, so what was copied does not "
                "belong together; back up again"
            )
        copied = size(temporary)
        # After the locks are free: what was just written is read from memory, if it has room.
        checksums.write(temporary)
        files.sync_tree(temporary)
        os.rename(temporary, out)
    except shutil.Error as error:  # of `copytree`, which collects what fails
        source, _, reason = error.args[0][0]
        raise FraudPipelineError(f"{source}: cannot be copied to {out}: {reason}") from None
    except OSError as error:
        raise FraudPipelineError(f"{error.filename or out}: {error.strerror}") from None
    finally:
        if temporary != out:
            shutil.rmtree(temporary, ignore_errors=True)
    return {
        "root": str(root.path),
        "backup": str(out),
        **copied,
        "metadata": metadata,
        "state": has_state,
        "seconds": round(time.monotonic() - started, 1),
    }


def size(folder: Path) -> dict[str, int]:
    """How many `files` a folder has, and their `bytes`; hard links to one file count once."""
    sizes = {
        (found.st_dev, found.st_ino): found.st_size
        for found in (path.lstat() for path in folder.rglob("*") if path.is_file())
    }
    return {"files": len(sizes), "bytes": sum(sizes.values())}


def not_of_root(root: Root) -> set[Path]:
    """What may lie in the folder of a root, but does not belong to it."""
    restores = (path for path in root.path.iterdir() if path.name.startswith(SET_ASIDE))
    # A file system of its own may have lost+found, which belongs to the system's root.
    return {*restores, root.path / COPYING, root.path / RESTORING, root.path / "lost+found"}


@contextmanager
def tidy_at_sigterm() -> Iterator[None]:
    """Within it, SIGTERM is an exception, so that what is half copied is deleted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def render(document: dict[str, Any]) -> str:
    """The result as text."""
    copied = f"{document['files']:,} files, {document['bytes'] / 1e6:,.0f} MB"
    metadata = document["metadata"] or "none yet"
    state = "copied" if document["state"] else "not in a folder here"
    deleted = document.get("deleted")
    return (
        f"{document['backup']}: {copied}, in {document['seconds']} s\n"
        f"  ML Metadata  {metadata}\n"
        f"  state        {state}"
    ) + (f"\n  deleted      {', '.join(deleted)}" if deleted else "")


def _identity(root: Root) -> set[tuple[int, int]]:
    """Which files and folders a root consists of; a restore puts others in their place."""
    found = set()
    for path in (root.metadata, root.artifacts, root.pushed):
        with suppress(FileNotFoundError):
            status = path.lstat()
            found.add((status.st_dev, status.st_ino))
    return found


def _copy_metadata(config: Config, root: Root, target: Path) -> str | None:
    """Copies ML Metadata into a folder; returns the name of its file there, None for none."""
    if config.metadata.store == "mysql":
        dump(config, target / DUMP)
        return DUMP
    if not root.metadata.exists():
        return None
    copied = target / root.metadata.name
    # Not read-only: what a killed process left half written has to be taken back first.
    address = f"{root.metadata.as_uri()}?mode=rw"
    try:
        with (
            closing(sqlite3.connect(address, uri=True)) as source,
            closing(sqlite3.connect(copied)) as database,
        ):
            source.backup(database)
    except sqlite3.Error as error:
        raise FraudPipelineError(f"{root.metadata}: cannot be copied: {error}") from None
    return copied.name


def dump(config: Config, file: Path) -> None:
    """Writes what an ML Metadata server has into a file, by the database's own program.

    Raises:
      FraudPipelineError: there is no such program, or it failed.
    """
    with open(file, "wb") as out:
        problem = database_program(config, _DUMP_PROGRAMS, ["--single-transaction"], stdout=out)
    if problem:
        file.unlink()
        raise FraudPipelineError(f"{config.metadata.host}: ML Metadata cannot be dumped: {problem}")


def database_program(
    config: Config, names: tuple[str, ...], options: list[str], **streams: Any
) -> str:
    """Runs a client program of MariaDB or MySQL on the database of ML Metadata.

    Args:
      config: says where the database is; the password comes from the environment.
      names: of the program; the first one that is here is run.
      options: of that program.
      **streams: `stdin` or `stdout` of the process.

    Returns:
      What it complains about, if it fails; else "".

    Raises:
      FraudPipelineError: there is no such program.
    """
    from fraud.pipeline.lineage import PASSWORD

    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        raise FraudPipelineError(
            f"ML Metadata is in a database, and neither {' nor '.join(names)} is here; "
            "install MariaDB's or MySQL's client programs (Debian: mariadb-client)"
        )
    where = config.metadata
    command = [program, *options, f"--host={where.host}", f"--port={where.port}"]
    command += [f"--user={where.user}", "--protocol=tcp"]
    for option, path in (
        ("--ssl-ca", where.tls_ca),
        ("--ssl-cert", where.tls_certificate),
        ("--ssl-key", where.tls_key),
    ):
        command += [f"{option}={path}"] if path else []
    done = subprocess.run(
        [*command, where.database],
        stderr=subprocess.PIPE,
        env={**os.environ, "MYSQL_PWD": os.environ.get(PASSWORD, "")},
        check=False,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **streams},
    )
    return done.stderr.decode(errors="replace").strip() if done.returncode else ""


def copy_tree(source: Path, target: Path, apart: set[Path], changes: bool = True) -> None:
    """Copies what a folder contains. Hard links stay links to each other; locks stay out.

    Links stay links, too, but those that lead out of the folder: a backup has what they lead to.
    Absolute ones that lead into it become relative, or the copy would depend on its source. Who
    copies may write to the copies.

    Args:
      source: what to copy.
      target: exists, and is absolute.
      apart: paths that are left out.
      changes: others may add files and remove some, which are copied or not; otherwise it is an
        error if one vanishes.
    """
    links: dict[tuple[int, int], Path] = {}

    vanished = (FileNotFoundError,) if changes else ()

    def copy(path: str, to: str) -> None:
        with suppress(*vanished):  # a journal's temporary file
            found = os.lstat(path)
            first = links.setdefault((found.st_dev, found.st_ino), Path(to))
            if found.st_nlink > 1 and first != Path(to):
                os.link(first, to)
            else:
                shutil.copy2(path, to, follow_symlinks=False)

    root, whole_target = source.resolve(), target

    def copy_folder(source: Path, target: Path) -> None:
        elsewhere: list[Path] = []
        inside = source.resolve()

        def is_apart(path: Path) -> bool:
            """Whether a link leads out, or is absolute and leads in."""
            if not path.is_symlink() or not path.exists():
                return False
            return path.readlink().is_absolute() or counterpart(path.resolve()) is None

        def counterpart(found: Path) -> Path | None:
            """Where the copy of a path is to be, None if it is not copied."""
            for folder, copied in ((inside, target), (root, whole_target)):
                if found.is_relative_to(folder):
                    return copied / found.relative_to(folder)
            return None

        def left_out(folder: str, names: list[str]) -> list[str]:
            paths = [Path(folder, name) for name in names]
            out = [path for path in paths if path.name == ".lock" or path in apart]
            links = [path for path in paths if path not in out and is_apart(path)]
            elsewhere.extend(links)
            return [path.name for path in out + links]

        shutil.copytree(
            source, target, symlinks=True, ignore=left_out, copy_function=copy, dirs_exist_ok=True
        )
        for link in elsewhere:
            found, to = link.resolve(), target / link.relative_to(source)
            if copied := counterpart(found):
                to.symlink_to(os.path.relpath(copied, to.parent))
            elif found.is_dir():
                copy_folder(found, to)
            else:
                copy(str(found), str(to))

    copy_folder(source, target)
    for folder, _, names in os.walk(target):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            mode = os.lstat(path).st_mode
            if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                needed = stat.S_IRWXU if stat.S_ISDIR(mode) else stat.S_IRUSR | stat.S_IWUSR
                if mode & needed != needed:
                    os.chmod(path, stat.S_IMODE(mode) | needed)

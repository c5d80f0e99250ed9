"""`fraud-pipeline backup`: copies a root as of one moment, while servers use it."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sqlite3
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
from fraud.pipeline.commands import common
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root

DUMP = "metadata.sql"
"""The file of a backup with what an ML Metadata server had."""

_DUMP_PROGRAMS = ("mariadb-dump", "mysqldump")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Copy everything of a root into a new folder: models, journal, artifacts, ML Metadata,\n"
        "predictions and state. It waits for a run to end, and runs and rollbacks wait for it;\n"
        "servers go on. A backup becomes a root again by copying it to where it came from.\n"
        "See docs/operations.md.",
        "  fraud-pipeline backup /backups/2026-03-21 --root fraud-root",
    )
    parser.add_argument("out", type=Path, metavar="FOLDER", help="a folder that does not exist")
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
    with _tidy_at_sigterm():
        document = backup(config, root, location, arguments.out.resolve())
    common.show(arguments, document, render)
    return 0


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
    if out.exists():
        raise BadInput(f"{out}: exists; name a folder that does not, such as one with today's date")
    if out.is_relative_to(root.path):
        raise BadInput(f"{out}: lies in the root; a backup belongs on another disk")
    own_folder = not state.is_server(location)
    has_state = own_folder and (Path(location) / "current").exists()
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        # The locks of runs and of pushes: nobody writes to ML Metadata, artifacts or `pushed`.
        with root.turn(), root.pushing():
            metadata = _copy_metadata(config, root, temporary)
            apart = {root.metadata, root.predictions, root.state, temporary}
            _copy(root.path, temporary, apart | {Path(f"{root.metadata}-journal")})
        if root.predictions.is_dir():
            log_writer.copy_log(root.predictions, temporary / root.predictions.name)
        if has_state:
            state.copy_state(Path(location), temporary / root.state.name)
        files.sync_tree(temporary)
        os.rename(temporary, out)
    except shutil.Error as error:  # of `copytree`, which collects what fails
        source, _, reason = error.args[0][0]
        raise FraudPipelineError(f"{source}: cannot be copied to {out}: {reason}") from None
    except OSError as error:
        raise FraudPipelineError(f"{error.filename or out}: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sizes = {
        (found.st_dev, found.st_ino): found.st_size
        for found in (path.lstat() for path in out.rglob("*") if path.is_file())
    }
    return {
        "root": str(root.path),
        "backup": str(out),
        "files": len(sizes),
        "bytes": sum(sizes.values()),
        "metadata": metadata,
        "state": has_state,
        "seconds": round(time.monotonic() - started, 1),
    }


@contextmanager
def _tidy_at_sigterm() -> Iterator[None]:
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
    size = f"{document['files']:,} files, {document['bytes'] / 1e6:,.0f} MB"
    metadata = document["metadata"] or "none yet"
    state = "copied" if document["state"] else "not in a folder here"
    return (
        f"{document['backup']}: {size}, in {document['seconds']} s\n"
        f"  ML Metadata  {metadata}\n"
        f"  state        {state}"
    )


def _copy_metadata(config: Config, root: Root, target: Path) -> str | None:
    """Copies ML Metadata into a folder; returns the name of its file there, None for none."""
    if config.metadata.store == "mysql":
        _dump(config, target / DUMP)
        return DUMP
    if not root.metadata.exists():
        return None
    copied = target / root.metadata.name
    try:
        with (
            closing(sqlite3.connect(f"file:{root.metadata}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copied)) as database,
        ):
            source.backup(database)
    except sqlite3.Error as error:
        raise FraudPipelineError(f"{root.metadata}: cannot be copied: {error}") from None
    return copied.name


def _dump(config: Config, file: Path) -> None:
    """Writes what an ML Metadata server has into a file, by the database's own program.

    Raises:
      FraudPipelineError: there is no such program, or it failed.
    """
    from fraud.pipeline.lineage import PASSWORD

    program = next(filter(None, map(shutil.which, _DUMP_PROGRAMS)), None)
    if program is None:
        raise FraudPipelineError(
            f"ML Metadata is in a database, and neither {' nor '.join(_DUMP_PROGRAMS)} is here; "
            "install MariaDB's or MySQL's client programs (Debian: mariadb-client)"
        )
    where = config.metadata
    command = [program, "--single-transaction", f"--host={where.host}", f"--port={where.port}"]
    command += [f"--user={where.user}", "--protocol=tcp"]
    for option, path in (
        ("--ssl-ca", where.tls_ca),
        ("--ssl-cert", where.tls_certificate),
        ("--ssl-key", where.tls_key),
    ):
        command += [f"{option}={path}"] if path else []
    environment = {**os.environ, "MYSQL_PWD": os.environ.get(PASSWORD, "")}
    with open(file, "wb") as out:
        done = subprocess.run(
            [*command, where.database],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            env=environment,
            check=False,
        )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise FraudPipelineError(f"{where.host}: ML Metadata cannot be dumped: {reason}")


def _copy(source: Path, target: Path, apart: set[Path]) -> None:
    """Copies what a folder contains. Hard links stay links to each other; locks stay out.

    Links stay links, too, but those that lead out of the folder: a backup has what they lead to.

    Args:
      source: what others may add files to and remove some from, which are copied or not.
      target: exists.
      apart: paths that are left out.
    """
    links: dict[tuple[int, int], Path] = {}

    def copy(path: str, to: str) -> None:
        with suppress(FileNotFoundError):  # a journal's temporary file
            found = os.lstat(path)
            first = links.setdefault((found.st_dev, found.st_ino), Path(to))
            if found.st_nlink > 1 and first != Path(to):
                os.link(first, to)
            else:
                shutil.copy2(path, to, follow_symlinks=False)

    root = source.resolve()

    def copy_folder(source: Path, target: Path) -> None:
        elsewhere: list[Path] = []
        inside = source.resolve()

        def leads_out(path: Path) -> bool:
            if not path.is_symlink() or not path.exists():
                return False
            found = path.resolve()
            return not found.is_relative_to(inside) and not found.is_relative_to(root)

        def left_out(folder: str, names: list[str]) -> list[str]:
            paths = [Path(folder, name) for name in names]
            out = [path for path in paths if path.name == ".lock" or path in apart]
            links = [path for path in paths if path not in out and leads_out(path)]
            elsewhere.extend(links)
            return [path.name for path in out + links]

        shutil.copytree(
            source, target, symlinks=True, ignore=left_out, copy_function=copy, dirs_exist_ok=True
        )
        for link in elsewhere:
            found, to = link.resolve(), target / link.relative_to(source)
            if found.is_dir():
                copy_folder(found, to)
            else:
                copy(str(found), str(to))

    copy_folder(source, target)

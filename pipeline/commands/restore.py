"""`fraud-pipeline restore`: makes a backup the root again."""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fraud import files
from fraud.errors import BadInput, FraudPipelineError
from fraud.pipeline import checksums
from fraud.pipeline.commands import common
from fraud.pipeline.commands.backup import (
    COPYING,
    DUMP,
    SET_ASIDE,
    TIME,
    copy_tree,
    database_program,
    dated,
    dump,
    not_of_root,
    size,
    tidy_at_sigterm,
)
from fraud.pipeline.config import Config
from fraud.pipeline.root import RESTORING, Root
from fraud.text import plain

_CLIENTS = ("mariadb", "mysql")
_DROPS = """
    SELECT CONCAT(
        IF(TABLE_TYPE = 'VIEW', 'DROP VIEW `', 'DROP TABLE `'), REPLACE(TABLE_NAME, '`', '``'), '`;'
    ) FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = DATABASE()
"""
"""Asks a database for the statements that empty it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Put a backup in the place of what is in the root; a database of ML Metadata gets what it\n"
        "had, too. First stop whatever uses the root, servers included. What was there before is\n"
        "kept in the root, in a folder .before-restore-TIME. The root may be a folder at which a\n"
        "volume is mounted: its contents are replaced, not the folder. See docs/operations.md.",
        "  fraud-pipeline restore /backups/before-upgrade --root fraud-root\n"
        "  fraud-pipeline restore /backups --newest --root fraud-root",
    )
    parser.add_argument("backup", type=Path, metavar="FOLDER", help="what `backup` made")
    parser.add_argument(
        "--newest",
        action="store_true",
        help="FOLDER is one of backups that `backup --keep` made: take the newest",
    )
    parser.add_argument(
        "--unchecked",
        action="store_true",
        help="restore what is in the backup, even if its checksums say that this was damaged",
    )
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Restores, and prints what was restored and where the rest is.

    Raises:
      BadInput: there is no such backup, it is of another kind of root, or the root is in use.
      FraudPipelineError: the backup is damaged, or something cannot be copied or moved.
    """
    config, root = common.config_and_root(arguments, whole=False)
    backup = arguments.backup.resolve()
    if arguments.newest:
        backup = _newest(backup)
    with tidy_at_sigterm():
        document = restore(config, root, backup, check=not arguments.unchecked)
    common.show(arguments, document, render)
    return 0


def restore(config: Config, root: Root, backup: Path, check: bool = True) -> dict[str, Any]:
    """Replaces what a root contains by what a backup contains.

    Nothing changes until the backup was checked and is copied as a whole. From then on the root
    has a folder RESTORING, and nobody may use it until all of the backup is in place. A restore
    that was interrupted is repeated from its beginning.

    Args:
      config: says where ML Metadata is.
      root: its folder is made if there is none. It is kept, so it may be where a volume is mounted.
      backup: what `backup` made; only read.
      check: compare the backup with its checksums, if it has any.

    Returns:
      `root`; `backup`; `kept`, the folder with what was there before, or None if nothing was;
      `files` and `bytes` copied; `checked`: whether there are checksums, which were right;
      `metadata`: a file name, or None as in the backup; `seconds`.

    Raises:
      BadInput, FraudPipelineError: see `run`.
    """
    started = time.monotonic()
    name = time.strftime(f"{SET_ASIDE}{TIME}", time.gmtime())
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    copy, moving = root.path / COPYING, root.path / RESTORING
    try:
        has_dump = _check(config, root, backup)
        if root.path.is_dir():  # ask before what takes long
            with _nobody_uses(root):
                pass
        checked = check and _check_contents(backup)
        kept = next(path for path in map(root.path.joinpath, names) if not path.exists())
        root.path.mkdir(parents=True, exist_ok=True)
        with _nobody_uses(root):
            try:
                shutil.rmtree(copy, ignore_errors=True)
                copy.mkdir()
                apart = {backup / DUMP, backup / checksums.NAME, *not_of_root(Root(backup))}
                copy_tree(backup, copy, apart, changes=False)
                copied = size(copy)
                files.sync_tree(copy)
                kept.mkdir()
                if has_dump:
                    dump(config, kept / DUMP)
                # Of an interrupted restore: its folder goes in the moment when this one's comes.
                if moving.is_symlink():  # nothing of a restore, and what it leads to is not ours
                    moving.unlink()
                for path in moving.iterdir() if moving.is_dir() else ():
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
                copy.rename(moving)
            except BaseException:
                shutil.rmtree(copy, ignore_errors=True)
                if kept.is_dir() and not any(kept.iterdir()):
                    kept.rmdir()
                raise
            stays = {kept, root.path / ".lock", *not_of_root(root)}
            for path in [path for path in root.path.iterdir() if path not in stays]:
                path.rename(kept / path.name)
            for path in list(moving.iterdir()):
                path.rename(root.path / path.name)
            if has_dump:
                _load(config, backup / DUMP)
            files.sync_tree(root.path, recurse=False)
            moving.rmdir()
            files.sync_tree(root.path, recurse=False)
            if not any(kept.iterdir()):
                kept.rmdir()
    except shutil.Error as error:  # of `copytree`, which collects what fails
        source, _, reason = error.args[0][0]
        raise FraudPipelineError(f"{source}: cannot be copied to {root.path}: {reason}") from None
    except OSError as error:
        raise FraudPipelineError(f"{error.filename or root.path}: {error.strerror}") from None
    return {
        "root": str(root.path),
        "backup": str(backup),
        "kept": str(kept) if kept.exists() else None,
        **copied,
        "checked": checked,
        "metadata": DUMP if has_dump else root.metadata.name if root.metadata.exists() else None,
        "seconds": round(time.monotonic() - started, 1),
    }


def render(document: dict[str, Any]) -> str:
    """The result as text."""
    copied = f"{document['files']:,} files, {document['bytes'] / 1e6:,.0f} MB"
    return (
        f"{document['root']}: {copied} of {document['backup']}, in {document['seconds']} s\n"
        f"  checksums    {'right' if document['checked'] else 'not checked'}\n"
        f"  ML Metadata  {document['metadata'] or 'none yet'}\n"
        f"  before       {document['kept'] or 'the root was empty'}"
    )


def _newest(folder: Path) -> Path:
    """The newest of a folder of backups, but for those of the future, which a warning names.

    Raises:
      BadInput: there is none.
      FraudPipelineError: the folder cannot be read.
    """
    try:
        past, future = _by_time(folder) if folder.is_dir() else ([], [])
    except OSError as error:
        raise FraudPipelineError(f"{error.filename}: {error.strerror}") from None
    names = ", ".join(path.name for path in future)
    if not past and future:
        raise BadInput(f"{folder}: contains only backups dated in the future: {names}; name one")
    if not past:
        raise BadInput(f"{folder}: contains no backup that is named by its time")
    if future:
        print(
            f"fraud-pipeline: warning: {plain(str(folder))}: dated in the future, so not taken for "
            f"the newest: {names}; taking {past[-1].name}",
            file=sys.stderr,
        )
    return past[-1]


def _by_time(folder: Path) -> tuple[list[Path], list[Path]]:
    """The backups in a folder named by a time of the past, and those of the future."""
    now = time.strftime(TIME, time.gmtime())
    found = dated(folder)
    return [path for path in found if path.name <= now], [p for p in found if p.name > now]


def _check(config: Config, root: Root, backup: Path) -> bool:
    """Checks what can be checked before anything is done; returns whether there is a dump to load.

    Raises:
      BadInput: see `run`.
    """
    if not backup.is_dir():
        raise BadInput(f"{backup}: there is no such backup")
    copied = Root(backup)
    copied.require_whole()  # it may be a root that was copied by hand
    has_dump = (backup / DUMP).is_file()
    if not has_dump and not any(
        path.exists() for path in (copied.metadata, copied.artifacts, copied.pushed)
    ):
        found, _ = _by_time(backup)
        several = f"; it contains backups: --newest takes {found[-1].name}" if found else ""
        raise BadInput(f"{backup}: is no backup of a root{several}")
    if backup.is_relative_to(root.path) or root.path.is_relative_to(backup):
        raise BadInput(f"{backup}: a backup must lie outside the root to be restored")
    if has_dump != (config.metadata.store == "mysql") and (has_dump or copied.metadata.exists()):
        where = "a database (metadata.store: mysql)" if has_dump else "SQLite"
        raise BadInput(f"{backup}: its ML Metadata is of {where}, that of the configuration is not")
    for path in root.path.iterdir() if root.path.is_dir() else ():
        if path.is_mount() and path.name != "lost+found":
            raise BadInput(
                f"{path}: is mounted by itself, and cannot be replaced; mount only {root.path}, "
                "and restore there"
            )
    return has_dump


def _check_contents(backup: Path) -> bool:
    """Compares a backup with its checksums; returns whether it has any.

    Raises:
      FraudPipelineError: it is not what was backed up.
    """
    on_terminal, shown = sys.stderr.isatty(), ""

    def show(read: int, total: int) -> None:
        nonlocal shown
        line = f"\r  … checking {total / 1e6:,.0f} MB  {read * 100 // max(total, 1)}%\x1b[K"
        if on_terminal and line != shown:
            print(line, end="", file=sys.stderr, flush=True)
            shown = line

    advice = (
        "Nothing was restored. Restore another backup; if there is none, --unchecked restores this "
        "one as it is"
    )
    try:
        found = checksums.differences(backup, show)
    except FraudPipelineError as error:
        raise FraudPipelineError(f"{error}. {advice}") from None
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if found is None:
        print(
            f"fraud-pipeline: warning: {plain(str(backup))}: has no {checksums.NAME}, perhaps "
            "since an earlier release made it; whether it is what was backed up cannot be checked",
            file=sys.stderr,
        )
    elif different := str(found):
        raise FraudPipelineError(f"{backup}: is not what was backed up: {different}. {advice}")
    return found is not None


@contextmanager
def _nobody_uses(root: Root) -> Iterator[None]:
    """Nobody uses the root, and within it no run, no loop and no build of the state starts.

    Raises:
      BadInput: something uses it.
    """
    from fraud.serving import log_writer

    others = (folder / ".lock" for folder in (root.path / "loop", root.releases, root.state))
    with ExitStack() as locks:
        for path in [root.path / ".lock", *(path for path in others if path.exists())]:
            file = locks.enter_context(files.open_lock(path))
            if owner := files.try_lock(file):
                raise BadInput(f"{root.path}: {owner} is using this root; stop it first")
        if not locks.enter_context(log_writer.unused(root.predictions)):
            raise BadInput(f"{root.path}: a server is using this root; stop it first")
        yield


def _load(config: Config, file: Path) -> None:
    """Gives the database what it had, and nothing else.

    Raises:
      FraudPipelineError: it refuses.
    """
    # The dump drops only those tables that are in it.
    with tempfile.TemporaryFile() as drops:
        drops.write(b"SET FOREIGN_KEY_CHECKS = 0;\n")
        drops.flush()
        listing = ["--batch", "--raw", "--skip-column-names", f"--execute={_DROPS}"]
        problem = database_program(config, _CLIENTS, listing, stdout=drops)
        drops.seek(0)
        problem = problem or database_program(config, _CLIENTS, [], stdin=drops)
    with open(file, "rb") as sql:
        problem = problem or database_program(config, _CLIENTS, [], stdin=sql)
    if problem:
        raise FraudPipelineError(f"{config.metadata.host}: ML Metadata cannot be loaded: {problem}")

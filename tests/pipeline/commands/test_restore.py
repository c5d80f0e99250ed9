"""`fraud-pipeline restore` on roots without runs; with them: see tests/e2e/test_restore.py."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from fraud import files
from fraud.errors import BadInput, FraudPipelineError
from fraud.features.spec import Dataset
from fraud.pipeline import checksums
from fraud.pipeline.cli import main
from fraud.pipeline.root import Root
from fraud.serving import log_writer
from fraud.serving.log_writer import LogWriter
from fraud.serving.spec import PredictionLogSettings
from fraud.serving.state import lmdb_store
from tests.small_disk import mounted


def fill(root, text):
    """Makes a root whose files all say `text`."""
    for name in ("artifacts/model", "pushed/1", "releases", "loop", "state/generation-1"):
        (root / name).mkdir(parents=True)
    (root / "artifacts/model/saved_model.pb").write_text(text)
    os.link(root / "artifacts/model/saved_model.pb", root / "pushed/1/saved_model.pb")
    (root / "releases/1.json").write_text(text)
    (root / "state/current").symlink_to("generation-1")
    (root / "state/generation-1/data").write_text(text)
    with sqlite3.connect(root / "metadata.sqlite") as database:
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (?)", (text,))
    database.close()


def contents(root):
    """What there is, but for locks: files with their text, links with where they lead."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file() and path.name != ".lock":
            found[name] = path.read_bytes()
    return found


def set_aside(root):
    return sorted(root.glob(".before-restore-*"))


@pytest.fixture
def backup(tmp_path):
    fill(tmp_path / "backups" / "2026-03-02T000000Z", "then")
    (tmp_path / "backups" / "2026-03-01T000000Z").mkdir()
    (tmp_path / "backups" / ".lock").touch()
    return tmp_path / "backups" / "2026-03-02T000000Z"


@pytest.fixture
def root(tmp_path):
    fill(tmp_path / "root", "now")
    return tmp_path / "root"


def restore(root, backup, *options):
    return main(["restore", str(backup), "--root", str(root), *options])


def test_what_was_there_is_kept_beside_what_is_restored(root, backup, capsys):
    (root / "runs").mkdir()
    before = contents(root)
    assert restore(root, backup, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    kept = Path(document["kept"])
    assert set_aside(root) == [kept] and contents(kept) == before and (kept / "runs").is_dir()
    restored = root / "artifacts/model/saved_model.pb"
    assert restored.samefile(root / "pushed/1/saved_model.pb")
    assert not restored.samefile(backup / "pushed/1/saved_model.pb")
    shutil.rmtree(kept)
    assert contents(root) == contents(backup)
    assert {path.name for path in root.iterdir()} - {".lock"} == {
        path.name for path in backup.iterdir()
    }
    assert document["metadata"] == "metadata.sqlite" and document["files"] == 4


def test_a_mounted_folder_stays_where_it_is(small_disk, tmp_path, backup):
    """Neither an empty volume nor one with contents can be renamed, or deleted."""
    volume = tmp_path / "volume"
    volume.mkdir()
    with mounted(volume, megabytes=16):
        (volume / "lost+found").mkdir()
        device = volume.stat().st_dev
        assert restore(volume, backup) == 0
        assert not set_aside(volume), "it was empty"
        (volume / "pushed/1/saved_model.pb").write_text("broken")
        assert restore(volume, backup) == 0
        (kept,) = set_aside(volume)
        assert (kept / "pushed/1/saved_model.pb").read_text() == "broken"
        assert not (kept / "lost+found").exists() and (volume / "lost+found").is_dir()
        assert (volume / "pushed/1/saved_model.pb").read_text() == "then"
        assert volume.stat().st_dev == device != tmp_path.stat().st_dev


def test_a_root_that_is_gone_is_made(tmp_path, backup):
    assert restore(tmp_path / "new" / "root", backup) == 0
    assert contents(tmp_path / "new" / "root") == contents(backup)


def test_the_newest_is_taken_on_request(root, backup, capsys):
    assert restore(root, backup.parent) == 2
    assert "--newest takes 2026-03-02T000000Z" in capsys.readouterr().err
    assert restore(root, backup.parent, "--newest") == 0
    assert (root / "releases/1.json").read_text() == "then"
    assert restore(root, root / "loop", "--newest") == 2
    assert "contains no backup that is named by its time" in capsys.readouterr().err


def test_what_cannot_be_restored_is_refused(root, backup, tmp_path, capsys):
    before = contents(root)
    for given, message in (
        (tmp_path / "none", "there is no such backup"),
        (backup / "loop", "is no backup of a root"),
        (root, "must lie outside the root"),
        (root / "artifacts", "is no backup"),
    ):
        assert restore(root, given) == 2
        assert message in capsys.readouterr().err
    assert restore(backup / "root", backup) == 2
    assert "must lie outside the root" in capsys.readouterr().err
    (backup / ".restoring").mkdir()
    assert restore(root, backup) == 2
    assert "a restore has not come to its end" in capsys.readouterr().err
    (backup / ".restoring").rmdir()
    (tmp_path / "fraud.yaml").write_text("metadata: {store: mysql}\n")
    assert restore(root, backup, "--config", str(tmp_path / "fraud.yaml")) == 2
    assert "its ML Metadata is of SQLite" in capsys.readouterr().err
    (backup / "metadata.sql").write_text("")
    assert restore(root, backup) == 2
    assert "its ML Metadata is of a database" in capsys.readouterr().err
    assert contents(root) == before and not set_aside(root)


@pytest.mark.parametrize("lock", [".lock", "loop/.lock", "releases/.lock"])
def test_a_root_in_use_is_not_touched(root, backup, capsys, lock):
    before = contents(root)
    with files.open_lock(root / lock) as file:
        assert files.try_lock(file) == ""
        assert restore(root, backup) == 2
    assert f"root: process {os.getpid()} on " in capsys.readouterr().err
    assert contents(root) == before


def test_a_root_whose_state_is_being_built_is_not_touched(root, backup, capsys):
    """At its end, the build would delete the restored state, which it takes for the old one."""
    before = contents(root)
    with lmdb_store.locked(root / "state", fcntl.LOCK_EX):
        assert restore(root, backup) == 2
    assert f"root: process {os.getpid()} on " in capsys.readouterr().err
    assert contents(root) == before and not set_aside(root)


def test_a_root_with_a_server_is_not_touched(root, backup, capsys):
    (root / "predictions" / "_open").mkdir(parents=True)
    with open(root / "predictions" / "_open" / "1", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert restore(root, backup) == 2
        assert "a server is using this root; stop it first" in capsys.readouterr().err
    assert restore(root, backup) == 0


def test_a_root_with_a_server_that_nobody_asks_is_not_touched(root, backup, capsys):
    """It has no file open, but the state, and would log into what was set aside."""
    writer = LogWriter(root / "predictions", PredictionLogSettings(), Dataset())
    assert restore(root, backup) == 2
    assert "a server is using this root; stop it first" in capsys.readouterr().err
    writer.close()
    assert restore(root, backup) == 0


def test_a_server_that_starts_during_a_restore_does_not_log(root):
    (root / "predictions").mkdir()
    (root / "predictions/.lock").touch()
    with log_writer.unused(root / "predictions") as unused:
        assert unused
        with pytest.raises(FraudPipelineError, match="a restore is replacing it"):
            LogWriter(root / "predictions", PredictionLogSettings(), Dataset())
    LogWriter(root / "predictions", PredictionLogSettings(), Dataset()).close()


def test_what_is_mounted_within_is_named(root, backup, capsys):
    with mounted(root / "pushed", megabytes=1):
        assert restore(root, backup) == 2
        assert "pushed: is mounted by itself" in capsys.readouterr().err


def test_a_disk_without_room_for_both_keeps_what_it_has(root, backup, tmp_path, capsys):
    (backup / "artifacts/large").write_bytes(bytes(2_000_000))
    volume = tmp_path / "volume"
    volume.mkdir()
    with mounted(volume, megabytes=1):
        fill(volume / "root", "now")
        before = contents(volume / "root")
        assert restore(volume / "root", backup) == 1
        assert "No space left on device" in capsys.readouterr().err
        assert contents(volume / "root") == before
        assert not [path for path in (volume / "root").iterdir() if "restore" in path.name]


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from fraud.pipeline.cli import main
number, rename = int(sys.argv[1]), Path.rename
def counted(self, target):
    global number
    number -= 1
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = counted
sys.exit(main(sys.argv[2:]))
"""


def test_a_restore_that_is_killed_is_repeated_and_loses_nothing(root, backup, capsys):
    """Killed before each of its steps: the root is as it was, or refuses to be used."""
    command = ["restore", str(backup), "--root", str(root)]
    before = contents(root)
    for step in range(100):
        shutil.rmtree(root)
        fill(root, "now")
        done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(step), *command])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        if step == 0:
            there = contents(root).items()
            assert {k: v for k, v in there if not k.startswith(".restore-copy/")} == before
        else:
            for refused in (["verify"], ["backup", str(backup.parent / "x")]):
                assert main([*refused, "--root", str(root)]) == 2
                assert "a restore has not come to its end" in capsys.readouterr().err
            with pytest.raises(BadInput, match="a restore has not"), Root(root).locked():
                pass
        assert main(command) == 0
        found = {item for kept in set_aside(root) for item in contents(kept).items()}
        assert found >= {*before.items()}
        for kept in set_aside(root):
            shutil.rmtree(kept)
        assert contents(root) == contents(backup)
    assert step > 10


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["score", "x.csv", "--out", "y.csv"],
        ["serve", "--port", "0"],
        ["state", "check", "--data", "x"],
        ["lineage"],
        ["restore", "none"],
        ["config"],
    ],
    ids=lambda command: command[0],
)
def test_nothing_reads_what_is_half_restored(root, capsys, monkeypatch, command):
    monkeypatch.setattr("fraud.serving.server.serve", lambda *_: None)
    (root / ".restoring").mkdir()
    code = main([*command, "--root", str(root)])
    refused = "a restore has not come to its end" in capsys.readouterr().err
    assert (code, refused) == {"restore": (2, False), "config": (0, False)}.get(
        command[0], (2, True)
    )


@pytest.mark.parametrize("lock", ["turn", "pushing"])
def test_who_waited_for_a_restore_that_was_killed_does_not_use_the_root(root, monkeypatch, lock):
    wait = files.lock

    def lock_after_a_restore(file, shared=False):
        (root / ".restoring").mkdir()  # and the restore is killed, so that its locks are free
        wait(file, shared)

    monkeypatch.setattr(files, "lock", lock_after_a_restore)
    with pytest.raises(BadInput, match="a restore has not"), getattr(Root(root), lock)():
        pass


def test_who_waited_for_a_restore_has_the_lock_that_others_see(root, monkeypatch):
    """A restore moves the lock of pushes away with what was there before."""
    wait = files.lock

    def lock_after_a_restore(file, shared=False):
        monkeypatch.undo()
        (root / "releases").rename(root / ".before-restore-1")
        (root / "releases").mkdir()
        wait(file, shared)

    monkeypatch.setattr(files, "lock", lock_after_a_restore)
    with Root(root).pushing(), files.open_lock(root / "releases/.lock") as other:
        assert files.try_lock(other)


def test_a_second_restore_that_is_killed_leaves_no_root_that_looks_whole(root, backup, monkeypatch):
    """At no moment of a repeated restore is there a mixture without a mark."""
    (root / ".restoring").mkdir()
    (root / ".restoring/artifacts").mkdir()
    rename = Path.rename

    def looked_at(path, target):
        if path.name == ".restore-copy":
            assert (root / ".restoring").is_dir()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", looked_at)
    assert restore(root, backup) == 0
    assert not (root / ".restoring").exists()
    assert (root / "artifacts/model/saved_model.pb").read_text() == "then"


def test_a_file_that_vanishes_from_the_backup_is_missed(root, backup, monkeypatch, capsys):
    """As when old backups are deleted meanwhile."""
    copy = shutil.copy2

    def vanishing(path, *arguments, **options):
        if Path(path) == backup / "releases/1.json":
            Path(path).unlink()
        return copy(path, *arguments, **options)

    before = contents(root)
    monkeypatch.setattr(shutil, "copy2", vanishing)
    assert restore(root, backup) == 1
    assert "releases/1.json: cannot be copied" in capsys.readouterr().err
    assert contents(root) == before and not set_aside(root)


def test_a_backup_that_nobody_may_change_makes_a_root_that_can_be_changed(root, backup):
    for path in [backup, *backup.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    assert restore(root, backup) == 0
    for path in root.rglob("*"):
        assert path.is_symlink() or path.stat().st_mode & 0o200, path


def test_what_may_not_be_read_is_said(root, backup, monkeypatch, capsys):
    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_dir", refuse)
    for options in ([], ["--newest"]):
        assert restore(root, backup, *options) == 1
        assert f"fraud-pipeline: {backup}: Permission denied" in capsys.readouterr().err


@pytest.fixture
def listed(backup):
    """A backup with checksums, of its files and its link."""
    (backup / "predictions/date=2026-03-01").mkdir(parents=True)
    (backup / "predictions/date=2026-03-01/1.parquet").write_text("scores")
    checksums.write(backup)
    return backup


def flip_a_bit(backup):
    (backup / "artifacts/model/saved_model.pb").write_text("thfn")


def lose_a_folder(backup):
    shutil.rmtree(backup / "state/generation-1")


def lose_a_link(backup):
    (backup / "state/current").unlink()


def lead_elsewhere(backup):
    (backup / "state/current").unlink()
    (backup / "state/current").symlink_to("generation-2")


def a_link_instead_of_a_file(backup):
    (backup / "releases/1.json").rename(backup.parent / "1.json")
    (backup / "releases/1.json").symlink_to(backup.parent / "1.json")


def add_a_file(backup):
    (backup / "pushed/2").mkdir()
    (backup / "pushed/2/saved_model.pb").touch()


def add_a_pipe(backup):
    os.mkfifo(backup / "loop/pipe")


def change_much(backup):
    flip_a_bit(backup)
    add_a_file(backup)
    shutil.rmtree(backup / "predictions")
    for number in range(5):
        (backup / f"loop/{number}").touch()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, "changed: artifacts/model/saved_model.pb, pushed/1/saved_model.pb."),
        (lose_a_folder, "missing: state/generation-1/data."),
        (lose_a_link, "missing: state/current."),
        (lead_elsewhere, "changed: state/current."),
        (a_link_instead_of_a_file, "changed: releases/1.json."),
        (add_a_file, "additional: pushed/2/saved_model.pb."),
        (add_a_pipe, "additional: loop/pipe."),
        (
            change_much,
            "changed: artifacts/model/saved_model.pb, pushed/1/saved_model.pb; "
            "missing: predictions/date=2026-03-01/1.parquet; "
            "additional: loop/0, loop/1, loop/2 and 3 more.",
        ),
    ],
)
@pytest.mark.parametrize("newest", [False, True])
def test_a_backup_that_is_not_what_it_was_is_not_restored(
    root, listed, tmp_path, capsys, damage, message, newest
):
    damage(listed)
    before = contents(root)
    given = (listed.parent, "--newest") if newest else (listed,)
    for target in (root, tmp_path / "new"):
        assert restore(target, *given) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"fraud-pipeline: {listed}: is not what was backed up: {message}")
        assert "Restore another backup" in line and "--unchecked restores this one" in line
    assert contents(root) == before and not set_aside(root) and not (tmp_path / "new").exists()
    if damage is not add_a_pipe:
        assert restore(root, *given, "--unchecked") == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is not what was backed up: additional: "),
        (b"0123  loop/1\n", "SHA256SUMS: line 1 is no checksum"),
        (b"# a remark\n# link {\n", "SHA256SUMS: line 2 is no checksum"),
        (b'# link ["a"]\n', "SHA256SUMS: line 1 is no checksum"),
        (b'# link {"a": 1}\n', "SHA256SUMS: line 1 is no checksum"),
        (b"\xff\n", "SHA256SUMS: line 1 is no checksum"),
    ],
)
def test_a_list_that_is_damaged_is_said(root, listed, capsys, text, message):
    before = contents(root)
    (listed / "SHA256SUMS").write_bytes(text)
    assert restore(root, listed) == 1
    error = capsys.readouterr().err
    assert message in error and "Restore another backup" in error
    assert contents(root) == before


def test_a_list_that_was_cut_off_is_not_the_list(root, listed, capsys):
    text = (listed / "SHA256SUMS").read_bytes()
    for size in range(0, len(text) - 1, 17):
        (listed / "SHA256SUMS").write_bytes(text[:size])
        assert restore(root, listed) == 1, text[:size]
    (listed / "SHA256SUMS").write_bytes(text)
    assert restore(root, listed) == 0


def test_what_was_checked_is_said_and_the_list_stays_in_the_backup(root, listed, capsys):
    assert restore(root, listed, "--json") == 0
    done = capsys.readouterr()
    assert json.loads(done.out)["checked"] is True and not done.err
    assert not (root / "SHA256SUMS").exists() and (listed / "SHA256SUMS").exists()
    assert restore(root, listed) == 0
    assert "  checksums    right\n" in capsys.readouterr().out


def test_a_backup_without_a_list_is_restored_and_a_warning_says_so(root, backup, capsys):
    assert restore(root, backup, "--json") == 0
    done = capsys.readouterr()
    assert json.loads(done.out)["checked"] is False
    (line,) = done.err.splitlines()
    assert line.startswith(f"fraud-pipeline: warning: {backup}: has no SHA256SUMS")
    assert restore(root, backup) == 0
    assert "  checksums    not checked\n" in capsys.readouterr().out


def test_a_backup_that_was_looked_at_as_a_root_is_what_it_was(root, listed):
    """Whoever asks for locks makes their files, and a volume has lost+found."""
    with Root(listed).turn(), Root(listed).pushing():
        pass
    (listed / "lost+found").mkdir()
    (listed / "lost+found" / "1").touch()
    assert restore(root, listed) == 0
    assert not (root / "lost+found").exists()


def test_a_root_in_use_is_said_before_a_backup_is_read(root, listed, capsys):
    flip_a_bit(listed)
    with files.open_lock(root / ".lock") as file:
        assert files.try_lock(file) == ""
        assert restore(root, listed) == 2
    assert "is using this root; stop it first" in capsys.readouterr().err


def test_a_disk_that_cannot_read_a_file_is_said(root, listed, monkeypatch, capsys):
    def read(path, *_):
        raise OSError(errno.EIO, "Input/output error")

    before = contents(root)
    monkeypatch.setattr(files, "digest_of_file", read)
    assert restore(root, listed) == 1
    assert f"{listed}/artifacts/model/saved_model.pb: Input/output" in capsys.readouterr().err
    assert contents(root) == before


def test_a_terminal_shows_how_far_checking_is(root, listed, monkeypatch, capsys):
    (listed / "artifacts/large").write_bytes(bytes(3_000_000))
    checksums.write(listed)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert restore(root, listed) == 0
    shown = capsys.readouterr().err
    assert "\r  … checking 3 MB  34%\x1b[K" in shown and shown.endswith("\r\x1b[K")


def test_the_newest_is_not_one_of_the_future(root, backup, capsys):
    """A clock that was wrong must not hide all backups that were made since."""
    future = backup.with_name("2999-01-01T000000Z")
    shutil.copytree(backup, future, symlinks=True)
    (future / "releases/1.json").write_text("never")
    assert restore(root, backup.parent) == 2
    assert "--newest takes 2026-03-02T000000Z" in capsys.readouterr().err
    assert restore(root, backup.parent, "--newest") == 0
    assert (root / "releases/1.json").read_text() == "then"
    warning = capsys.readouterr().err.splitlines()[0]
    assert warning == (
        f"fraud-pipeline: warning: {backup.parent}: dated in the future, so not taken for the "
        "newest: 2999-01-01T000000Z; taking 2026-03-02T000000Z"
    )
    shutil.rmtree(backup)
    (backup.parent / "2026-03-01T000000Z").rmdir()
    assert restore(root, backup.parent, "--newest") == 2
    assert "only backups dated in the future: 2999-01-01T000000Z" in capsys.readouterr().err


def test_a_copy_of_a_root_by_hand_may_have_what_an_earlier_restore_kept(root, backup):
    """That is not restored: there is no more reason to keep it than in a backup."""
    for name in (".before-restore-2026-03-01T000000Z", ".restore-copy", "lost+found"):
        (backup / name / "large").mkdir(parents=True)
    assert restore(root, backup) == 0
    assert not [path for path in root.iterdir() if path.name in (".restore-copy", "lost+found")]
    assert not list(root.glob(".before-restore-2026-03-01*"))


def test_what_a_link_of_the_name_of_a_half_done_restore_leads_to_stays(root, backup, tmp_path):
    (tmp_path / "elsewhere/precious").mkdir(parents=True)
    (root / ".restoring").symlink_to(tmp_path / "elsewhere")
    assert restore(root, backup) == 0
    assert (tmp_path / "elsewhere/precious").is_dir() and not (root / ".restoring").is_symlink()

"""`fraud-pipeline backup` on roots without runs; with them: see tests/e2e/test_restore.py."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from fraud import files
from fraud.errors import FraudPipelineError
from fraud.pipeline import checksums
from fraud.pipeline.cli import main
from fraud.pipeline.commands import backup as backup_module
from fraud.pipeline.root import Root
from fraud.serving import log_writer

HOLD = """
import sys
from pathlib import Path
from fraud.pipeline.root import Root
root = Root(Path(sys.argv[1]))
with getattr(root, sys.argv[2])():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path):
    """A root with a model twice, a journal, ML Metadata, locks and a link."""
    folder = tmp_path / "root"
    for name in ("artifacts/model", "releases", "pushed/1", "state", "loop"):
        (folder / name).mkdir(parents=True)
    (folder / "artifacts/model/saved_model.pb").write_text("weights")
    (folder / "pushed/1/saved_model.pb").write_text("weights")
    (folder / "artifacts/pushed").symlink_to("model")
    os.link(folder / "artifacts/model/saved_model.pb", folder / "artifacts/linked.pb")
    (folder / "releases/1.json").write_text("{}")
    (folder / "releases/.lock").write_text("process 1")
    with sqlite3.connect(folder / "metadata.sqlite") as database:
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (7)")
    database.close()
    return folder


def back_up(root, out, *options):
    return main(["backup", str(out), "--root", str(root), *options])


def test_a_backup_has_what_the_root_has_but_no_locks(root, tmp_path, capsys):
    assert back_up(root, tmp_path / "backups" / "1", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    copy = tmp_path / "backups" / "1"
    assert document["metadata"] == "metadata.sqlite" and not document["state"]
    assert (copy / "pushed/1/saved_model.pb").read_text() == "weights"
    assert (copy / "artifacts/pushed").readlink().name == "model"
    assert (copy / "artifacts/linked.pb").samefile(copy / "artifacts/model/saved_model.pb")
    assert not (copy / "artifacts/linked.pb").samefile(root / "artifacts/linked.pb")
    assert not list(copy.rglob(".lock"))
    with sqlite3.connect(copy / "metadata.sqlite") as database:
        assert database.execute("SELECT x FROM t").fetchall() == [(7,)]
    database.close()
    copied = [path for path in copy.rglob("*") if path.is_file() and not path.is_symlink()]
    assert document["files"] == len(copied) - 2, "hard links are one file; a list is none of them"
    assert [path.name for path in copy.parent.iterdir()] == ["1"]


def test_what_lies_outside_the_root_behind_a_link_is_copied(root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for name in ("artifacts", "releases/1.json"):
        moved = tmp_path / "elsewhere" / name.replace("/", "-")
        shutil.move(root / name, moved)
        (root / name).symlink_to(moved)
    (root / "latest").symlink_to("pushed")
    assert back_up(root, tmp_path / "copy") == 0
    shutil.rmtree(tmp_path / "elsewhere")
    copy = tmp_path / "copy"
    assert (copy / "artifacts/model/saved_model.pb").read_text() == "weights"
    assert (copy / "artifacts/linked.pb").samefile(copy / "artifacts/model/saved_model.pb")
    assert (copy / "artifacts/pushed").readlink().name == "model"
    assert (copy / "releases/1.json").read_text() == "{}"
    assert (copy / "latest").readlink().name == "pushed"


def test_a_backup_that_is_ended_leaves_nothing(root, tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), "locked"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout and holder.stdout.readline() == "held\n"
    command = [sys.executable, "-m", "fraud.pipeline.cli", "backup", str(tmp_path / "copy")]
    backup = subprocess.Popen([*command, "--root", str(root)])
    while not list(tmp_path.glob(".copy.*")):
        assert backup.poll() is None
        time.sleep(0.05)
    backup.send_signal(signal.SIGTERM)
    assert backup.wait(60) == 128 + signal.SIGTERM
    holder.communicate("")
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_one_that_is_ended_as_soon_as_its_folder_is_made_leaves_nothing(
    root, tmp_path, monkeypatch
):
    make = Path.mkdir

    def ended(folder, *options, **more):
        make(folder, *options, **more)
        if folder.name.startswith(".copy."):
            sys.exit(128 + signal.SIGTERM)  # as tidy_at_sigterm does

    monkeypatch.setattr(Path, "mkdir", ended)
    with pytest.raises(SystemExit):
        back_up(root, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


@pytest.mark.parametrize("lock", ["locked", "pushing"])
def test_it_waits_for_runs_and_rollbacks(root, tmp_path, lock):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), lock],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout and holder.stdout.readline() == "held\n"
    done = threading.Thread(target=back_up, args=(root, tmp_path / "copy"))
    done.start()
    done.join(0.5)
    assert done.is_alive() and not (tmp_path / "copy").exists()
    holder.communicate("")
    done.join(60)
    assert (tmp_path / "copy").is_dir()


def test_what_cannot_be_backed_up_is_refused(root, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    assert back_up(root, tmp_path / "there") == 2
    assert "there: exists; name a folder that does not" in capsys.readouterr().err
    assert back_up(root, root / "backup") == 2
    assert "lies in the root" in capsys.readouterr().err
    assert back_up(tmp_path / "none", tmp_path / "copy") == 2
    assert "none: there is no root" in capsys.readouterr().err
    (tmp_path / "empty" / "loop").mkdir(parents=True)
    assert back_up(tmp_path / "empty", tmp_path / "copy") == 2
    assert "empty: is empty; there is nothing to back up" in capsys.readouterr().err


def test_damaged_metadata_is_no_backup(root, tmp_path, capsys):
    (root / "metadata.sqlite").write_text("no database")
    assert back_up(root, tmp_path / "copy") == 1
    assert "metadata.sqlite: cannot be copied: file is not a database" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_on_a_full_disk_nothing_is_left(small_disk, root, capsys):
    (root / "artifacts/large").write_bytes(bytes(9_000_000))
    assert back_up(root, small_disk / "copy") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in small_disk.iterdir()] == ["root"]


def test_without_the_databases_program_it_says_what_to_install(root, tmp_path, capsys, monkeypatch):
    (tmp_path / "fraud.yaml").write_text("metadata: {store: mysql}\n")
    monkeypatch.setenv("PATH", "")
    assert back_up(root, tmp_path / "copy", "--config", str(tmp_path / "fraud.yaml")) == 1
    assert "Debian: mariadb-client" in capsys.readouterr().err
    assert not (tmp_path / "copy").exists()


def test_the_newest_are_kept(root, tmp_path, capsys):
    backups = tmp_path / "backups"
    others = ("2026-03-21", "before-upgrade", ".2026-03-01T000000Z.7", "2026-03-01T000000Z.old")
    for name in (*others, "2026-03-01T000000Z", "2026-03-02T000000Z", "2026-03-03T000000Z"):
        (backups / name / "pushed").mkdir(parents=True)
    assert back_up(root, backups, "--keep", "2", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    made = Path(document["backup"])
    assert made.parent == backups and (made / "pushed/1/saved_model.pb").exists()
    assert document["deleted"] == ["2026-03-01T000000Z", "2026-03-02T000000Z"]
    left = {"2026-03-21", "before-upgrade", "2026-03-01T000000Z.old"}  # whoever named them
    left |= {"2026-03-03T000000Z", made.name, ".lock"}
    assert {path.name for path in backups.iterdir()} == left


def test_without_a_new_backup_no_old_one_is_deleted(root, tmp_path, capsys):
    (tmp_path / "backups" / "2026-03-01T000000Z").mkdir(parents=True)
    (root / "metadata.sqlite").write_text("no database")
    assert back_up(root, tmp_path / "backups", "--keep", "1") == 1
    assert (tmp_path / "backups" / "2026-03-01T000000Z").is_dir()


def test_two_backups_do_not_delete_each_others(root, tmp_path, capsys):
    (tmp_path / "backups").mkdir()
    with files.open_lock(tmp_path / "backups" / ".lock") as file:
        assert files.try_lock(file) == ""
        assert back_up(root, tmp_path / "backups", "--keep", "1") == 2
    assert "another backup (process" in capsys.readouterr().err
    assert not list((tmp_path / "backups").glob("*Z"))


def test_what_a_restore_left_is_not_backed_up(root, tmp_path):
    for name in (".before-restore-2026-03-01T000000Z", ".restore-copy", "lost+found"):
        (root / name / "large").mkdir(parents=True)
    assert back_up(root, tmp_path / "copy") == 0
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {
        "SHA256SUMS", "artifacts", "loop", "metadata.sqlite", "pushed", "releases"
    }  # fmt: skip


def test_a_link_that_leads_nowhere_is_copied(root, tmp_path):
    (root / "artifacts/lost").symlink_to("nowhere")
    assert back_up(root, tmp_path / "copy") == 0
    assert (tmp_path / "copy/artifacts/lost").readlink() == Path("nowhere")


def test_an_absolute_link_within_the_root_leads_within_the_backup(root, tmp_path):
    """Or a restore would take what is damaged in the root for what is in the backup."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/model").symlink_to(root / "artifacts/model")
    (root / "pushed/latest").symlink_to(root / "artifacts/model")
    (root / "elsewhere").symlink_to(tmp_path / "elsewhere")
    assert back_up(root, tmp_path / "copy") == 0
    for name in ("pushed/latest", "elsewhere/model"):
        link = tmp_path / "copy" / name
        assert link.is_symlink() and not link.readlink().is_absolute()
        assert link.resolve() == tmp_path / "copy/artifacts/model"


def test_the_new_backup_is_never_one_of_the_old(root, tmp_path):
    """After a clock went back, or somebody's file has such a name."""
    folder = tmp_path / "backups"
    for name in ("2099-01-01T000000Z", "2099-01-02T000000Z"):
        (folder / name).mkdir(parents=True)
    (folder / "2000-01-01T000000Z").write_text("a file")
    assert back_up(root, folder, "--keep", "2") == 0
    kept = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert len(kept) == 2 and kept[1] == "2099-01-02T000000Z"
    assert (kept[0] > "2000") and (folder / kept[0] / "metadata.sqlite").exists()
    assert (folder / "2000-01-01T000000Z").is_file()


def sums(copy):
    """The checksums in a backup by the name of their file, and what else is in their list."""
    lines = (copy / "SHA256SUMS").read_text("utf-8").splitlines()
    files = dict(reversed(line.split("  ", 1)) for line in lines if not line.startswith("#"))
    return files, [line for line in lines if line.startswith("#")]


def test_a_list_of_checksums_has_every_file_and_link(root, tmp_path):
    (root / "predictions/date=2026-03-01").mkdir(parents=True)
    (root / "predictions/date=2026-03-01/1.parquet").write_text("scores")
    assert back_up(root, tmp_path / "copy") == 0
    copy = tmp_path / "copy"
    listed, links = sums(copy)
    assert listed == {
        str(path.relative_to(copy)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in copy.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name != "SHA256SUMS"
    }
    assert len(listed) == 6 and "predictions/date=2026-03-01/1.parquet" in listed
    assert links == ['# link {"artifacts/pushed": "model"}']


def test_sha256sum_reads_the_list_whatever_files_are_called(root, tmp_path):
    for name in (
        b"two\nlines",
        b"back\\slash",
        b"latin-\xe9",
        b"\\leading",
        b" -> ",
        b"cr\r",
        b"# link {}",
    ):
        Path(os.fsdecode(os.path.join(os.fsencode(root / "artifacts"), name))).write_text("x")
        os.symlink(name, os.path.join(os.fsencode(root / "loop"), name))
    assert back_up(root, tmp_path / "copy") == 0
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(check, cwd=tmp_path / "copy", capture_output=True, check=True)
    assert done.stdout.count(b": OK") == 5 + 7
    (tmp_path / "copy/artifacts/two\nlines").write_text("y")
    assert subprocess.run(check, cwd=tmp_path / "copy", check=False).returncode == 1
    (tmp_path / "copy/artifacts/two\nlines").write_text("x")
    assert main(["restore", str(tmp_path / "copy"), "--root", str(tmp_path / "new")]) == 0


def test_a_list_that_came_into_a_root_with_a_copy_of_a_backup_is_not_backed_up(root, tmp_path):
    (root / "SHA256SUMS").write_text("of another moment")
    assert back_up(root, tmp_path / "copy") == 0
    assert "SHA256SUMS" not in sums(tmp_path / "copy")[0]
    assert main(["restore", str(tmp_path / "copy"), "--root", str(tmp_path / "new")]) == 0
    assert not (tmp_path / "new/SHA256SUMS").exists()


def test_runs_do_not_wait_for_checksums(root, tmp_path, monkeypatch):
    write, free = checksums.write, []

    def write_while_others_run(folder):
        with Root(root).idle() as idle:
            free.append(idle)
        write(folder)

    monkeypatch.setattr(checksums, "write", write_while_others_run)
    assert back_up(root, tmp_path / "copy") == 0
    assert free == [True]


def test_a_backup_that_ends_before_it_has_checksums_is_none(root, tmp_path, monkeypatch, capsys):
    def fail(folder):
        raise OSError(errno.EIO, "Input/output error", str(folder))

    monkeypatch.setattr(checksums, "write", fail)
    assert back_up(root, tmp_path / "copy") == 1
    assert "Input/output error" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


@pytest.mark.parametrize("name", ["what?", "a#b", "100%41", "new\nline"])
def test_metadata_is_in_the_backup_whatever_the_root_is_called(root, tmp_path, name):
    root = root.rename(tmp_path / name)
    assert back_up(root, tmp_path / "copy") == 0
    with sqlite3.connect(tmp_path / "copy/metadata.sqlite") as database:
        assert database.execute("SELECT x FROM t").fetchall() == [(7,)]
    database.close()
    assert {path.name for path in tmp_path.iterdir()} == {name, "copy"}


KILLED = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 5")  # or nothing would be in the file before the end
database.execute("BEGIN")
database.executemany("INSERT INTO t VALUES (?)", [("half written" * 50,)] * 1000)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_half_written_in_metadata_is_taken_back(root, tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(root / "metadata.sqlite")], check=False)
    assert (root / "metadata.sqlite-journal").stat().st_size
    assert back_up(root, tmp_path / "copy") == 0
    with sqlite3.connect(tmp_path / "copy/metadata.sqlite") as database:
        assert database.execute("SELECT x FROM t").fetchall() == [(7,)]
    database.close()


def test_backups_by_processes_of_the_same_number_do_not_delete_each_others(
    root, tmp_path, monkeypatch, capsys
):
    """In containers, most have the number 1."""
    dumped = backup_module._copy_metadata

    def meanwhile(*arguments):
        result = dumped(*arguments)
        monkeypatch.undo()
        with monkeypatch.context() as patch:
            patch.setattr(backup_module, "_copy_metadata", fail)
            assert back_up(root, tmp_path / "copy") == 1
        assert "the other one fails" in capsys.readouterr().err
        return result

    def fail(*_):
        raise FraudPipelineError("the other one fails")

    monkeypatch.setattr(backup_module, "_copy_metadata", meanwhile)
    monkeypatch.setattr(Root, "turn", nullcontext)
    monkeypatch.setattr(Root, "pushing", nullcontext)
    assert back_up(root, tmp_path / "copy") == 0
    assert (tmp_path / "copy/metadata.sqlite").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"root", "copy"}


def test_a_root_that_is_restored_meanwhile_is_no_backup(root, tmp_path, monkeypatch, capsys):
    """Or it would have the models of before, and the predictions and the state of the restored."""
    (root / "predictions").mkdir()
    assert back_up(root, tmp_path / "before") == 0
    copy_log = log_writer.copy_log

    def meanwhile(folder, target):
        assert main(["restore", str(tmp_path / "before"), "--root", str(root)]) == 0
        copy_log(folder, target)

    monkeypatch.setattr(log_writer, "copy_log", meanwhile)
    assert back_up(root, tmp_path / "copy") == 1
    assert "was restored while it was backed up" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"root", "before"}


def test_a_link_among_the_old_backups_is_deleted_but_not_what_it_leads_to(root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "backups").mkdir()
    (tmp_path / "backups/2026-03-01T000000Z").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "backups/2026-03-02T000000Z").mkdir()
    assert back_up(root, tmp_path / "backups", "--keep", "1") == 0
    assert len(list((tmp_path / "backups").iterdir())) == 2, "the new one, and the lock"
    assert (tmp_path / "elsewhere").is_dir()

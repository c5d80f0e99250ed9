import errno
import fcntl
import os
import shutil
import socket

import pytest

from fraud.errors import FraudPipelineError
from fraud.files import digest, link_tree, lock, open_lock, try_lock, write_atomically


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "summary.json"
    write_atomically(path, "old")

    def no_sync(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_sync)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["summary.json"]


def test_a_write_replaces_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "summary.json"
    write_atomically(path, "old")
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["summary.json"]


def test_a_lock_has_one_owner_and_says_which(tmp_path):
    path = tmp_path / "deep" / ".lock"
    for _ in range(2):  # the second time, it has been signed already
        with open_lock(path) as mine, open_lock(path) as theirs:
            assert try_lock(mine) == ""
            owner = f"process {os.getpid()} on {socket.gethostname()}"
            assert try_lock(theirs) == owner == path.read_text()
    path.write_text("")
    with open_lock(path) as mine, open_lock(path) as theirs:
        fcntl.flock(mine, fcntl.LOCK_EX)
        assert try_lock(theirs) == "unknown process"


@pytest.mark.parametrize("locked", [try_lock, lock])
def test_a_file_system_without_locks_is_not_taken_for_another_process(
    tmp_path, monkeypatch, locked
):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".lock").write_text("process 1 on another host")  # long gone
    with (
        open_lock(tmp_path / ".lock") as file,
        pytest.raises(FraudPipelineError, match=r"\.lock: cannot be locked: No locks available"),
    ):
        locked(file)


def test_a_digest_covers_names_and_contents(tmp_path):
    def made(name, **contents):
        for path, text in contents.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        return digest(tmp_path / name)

    first = made("1", a="x", b="y")
    assert made("2", b="y", a="x") == first
    assert len({first, made("3", a="y", b="x"), made("4", a="x", c="y"), made("5", a="xy")}) == 4


@pytest.mark.parametrize("can_link", [True, False])
def test_a_tree_of_links_outlives_its_source(tmp_path, monkeypatch, can_link):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_text("x")
    (target / "left").mkdir(parents=True)
    if not can_link:

        def refused(*_):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(os, "link", refused)
    expected = digest(source)
    link_tree(source, target)
    assert os.path.samefile(source / "deep" / "file", target / "deep" / "file") == can_link
    shutil.rmtree(source)
    assert digest(target) == expected
    assert os.listdir(target) == ["deep"]

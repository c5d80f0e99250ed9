import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.root import Root

HOLD = (
    "import sys, time; from pathlib import Path; from pipeline.root import Root\n"
    "with Root(Path(sys.argv[1])).locked(): print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path, repository):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, cwd=repository
    )
    assert process.stdout and process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_in_one_root_is_refused_and_told_who_holds_it(holder, tmp_path):
    with pytest.raises(BadInput, match=f"process {holder.pid}.*--root"), Root(tmp_path).locked():
        pass


def test_the_lock_dies_with_its_process(holder, tmp_path):
    holder.kill()
    holder.wait()
    started = time.monotonic()
    with Root(tmp_path).locked():
        assert time.monotonic() - started < 1


def test_the_lock_is_free_after_use(tmp_path):
    for _ in range(2):
        with Root(tmp_path / "new").locked():
            pass


def test_a_root_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot use it as root"), Root(tmp_path / "file").locked():
        pass


def test_everything_lies_below_the_root():
    root = Root(Path("/r"))
    for path in (root.metadata, root.artifacts, root.pushed, root.run("1")):
        assert path.is_relative_to(root.path)

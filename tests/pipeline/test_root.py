import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fraud.errors import BadInput
from fraud.pipeline.root import Root

HOLD = (
    "import sys, time; from pathlib import Path; from fraud.pipeline.root import Root\n"
    "with Root(Path(sys.argv[1])).locked(): print('held', flush=True); time.sleep(60)"
)


TURN = (
    "import sys, time; from pathlib import Path; from fraud.pipeline.root import Root\n"
    "with Root(Path(sys.argv[1])).turn_of(*sys.argv[2:4], sys.argv[4] == 'alone'):\n"
    "    print('held', flush=True); time.sleep(60)"
)


def has_its_turn(process: subprocess.Popen, seconds: float = 2) -> bool:
    """Whether the process says so within some time."""
    return bool(select.select([process.stdout], [], [], seconds)[0])


@pytest.fixture
def turn(tmp_path, repository):
    """Starts processes that wait for the turn of a node, and hold it until they are killed."""
    started = []

    def start(run_id: str, node_id: str, how: str) -> subprocess.Popen:
        command = [sys.executable, "-c", TURN, str(tmp_path), run_id, node_id, how]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, cwd=repository))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


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


def test_alone_a_node_waits_for_any_other(turn):
    first = turn("monday", "Trainer", "alone")
    assert has_its_turn(first, 60)
    second = turn("monday", "Evaluator", "alone")
    assert not has_its_turn(second)
    first.kill()
    assert has_its_turn(second, 60)


def test_side_by_side_a_node_waits_for_its_own_earlier_attempt_only(turn):
    first = turn("monday", "Trainer", "beside")
    assert has_its_turn(first, 60)
    assert has_its_turn(turn("monday", "Evaluator", "beside"), 60)
    assert has_its_turn(turn("tuesday", "Trainer", "beside"), 60)
    again = turn("monday", "Trainer", "beside")
    assert not has_its_turn(again)
    first.kill()
    assert has_its_turn(again, 60)


def test_a_local_run_is_refused_while_a_node_is_at_work(turn, tmp_path):
    assert has_its_turn(turn("monday", "Trainer", "beside"), 60)
    with pytest.raises(BadInput, match="is using this root"), Root(tmp_path).locked():
        pass


def test_a_root_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be used as root"), Root(tmp_path / "file").locked():
        pass


def test_everything_lies_below_the_root():
    root = Root(Path("/r"))
    for path in (root.metadata, root.artifacts, root.pushed, root.run("1")):
        assert path.is_relative_to(root.path)


def test_pushes_exclude_each_other_and_a_process_may_enter_twice(tmp_path, repository):
    code = (
        "import sys; from pathlib import Path; from fraud.pipeline.root import Root\n"
        "with Root(Path(sys.argv[1])).pushing(): print('held', flush=True)"
    )
    root = Root(tmp_path)
    with root.pushing():
        with root.pushing():
            pass
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=repository
        )
        assert not has_its_turn(other, seconds=3)
    assert other.communicate()[0] == b"held\n"


def test_a_root_is_idle_unless_a_run_holds_it(tmp_path, holder):
    with Root(tmp_path).idle() as idle:
        assert not idle
    holder.kill()
    holder.wait()
    with Root(tmp_path).idle() as idle:
        assert idle

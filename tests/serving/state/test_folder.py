"""What is special about the state in a folder: generations, and the loss of power."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fraud.errors import BadInput, FraudPipelineError
from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.models.specification import InputSpecification
from fraud.serving.state import (
    Outcome,
    State,
    StateDefinition,
    Transactions,
    copy_state,
    create_state,
    open_state,
    rebuild_state,
)
from fraud.serving.state.build import fill
from fraud.serving.state.lmdb_store import LmdbStore

DEFINITION = StateDefinition.of(InputSpecification(Dataset(entities=("CARD",)), Features(), 7))
NOON = np.datetime64("2024-06-01T12:00", "us")
ONE = Transactions(np.array([NOON]), np.ones(1), {"CARD": ["a"]}, [1])


def test_the_loss_of_power_is_noticed(tmp_path):
    folder = tmp_path / "state"
    state = create_state(str(folder), DEFINITION)
    state.record(ONE)
    (marker,) = folder.glob("generation-*/boot")
    boot = marker.read_text()
    state.close()
    assert not marker.exists(), "all is flushed"
    marker.write_text(boot)  # as when its users were killed
    open_state(str(folder)).close()
    marker.write_text("another boot")
    with pytest.raises(FraudPipelineError, match="the machine stopped before the state was flush"):
        open_state(str(folder))


def test_a_state_that_is_moved_away_while_in_use_takes_nothing_more(tmp_path):
    folder = tmp_path / "state"
    state = create_state(str(folder), DEFINITION)
    state.record(ONE)
    folder.rename(tmp_path / "aside")
    create_state(str(folder), DEFINITION).close()
    with pytest.raises(FraudPipelineError, match="was moved away or deleted while it is in use"):
        state.record(ONE)
    state.close()


HOLD = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX, 1, int(sys.argv[2]))
    print("held", flush=True)
    sys.stdin.read()
"""
"""Uses a state as LMDB does in a process with another number, which only containers bring about."""


def test_a_process_with_the_same_number_in_another_container_is_named(tmp_path):
    folder = tmp_path / "state"
    create_state(str(folder), DEFINITION).close()
    (lock,) = folder.glob("generation-*/lock.mdb")
    command = [sys.executable, "-c", HOLD, str(lock), str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(BadInput, match=f"the same number, {os.getpid()}, .* another container"):
            open_state(str(folder))
        other.communicate()
    open_state(str(folder)).close()


def test_where_each_call_is_flushed_the_loss_of_power_does_no_harm(tmp_path):
    store = LmdbStore.create(tmp_path / "state", DEFINITION, "power")
    State(store).record(ONE)
    assert not list(tmp_path.glob("state/generation-*/boot"))
    store.close()


def test_a_build_that_was_killed_before_it_replaced_the_link_is_in_use(tmp_path):
    folder = tmp_path / "state"
    create_state(str(folder), DEFINITION).close()
    link = folder / "current"
    before = link.readlink()
    aside = folder / before.name.replace("generation", "aside")
    with rebuild_state(str(folder), DEFINITION) as rebuild:
        fill(rebuild, [], NOON)
        (folder / before).rename(aside)  # out of the way of the cleaning
    after = link.readlink()
    assert after != before
    aside.rename(folder / before)
    link.unlink()
    link.symlink_to(before)
    state = open_state(str(folder))
    assert state.record(ONE).outcomes == (Outcome.NEW,)
    state.close()
    link.unlink()
    link.symlink_to(after)
    state = open_state(str(folder))
    assert state.record(ONE).outcomes == (Outcome.REPEATED,)
    state.close()


def test_old_generations_and_those_of_killed_builds_are_removed(tmp_path):
    folder = tmp_path / "state"
    create_state(str(folder), DEFINITION).close()
    (folder / "generation-7").mkdir()
    with rebuild_state(str(folder), DEFINITION) as rebuild:
        fill(rebuild, [], NOON)
    assert [path.name for path in folder.glob("generation-*")] == ["generation-8"]
    assert Path(folder / "current").readlink() == Path("generation-8")


def test_on_a_full_disk_calls_fail_as_a_whole_and_nothing_acknowledged_is_lost(small_disk):
    state = create_state(str(small_disk / "state"), DEFINITION)
    acknowledged = 0
    with pytest.raises(FraudPipelineError, match="if the disk is full, free some space"):
        while acknowledged < 1_000_000:
            times = NOON + acknowledged + np.arange(1000)
            ids = [f"{acknowledged + i}" for i in range(1000)]
            state.record(Transactions(times, np.ones(1000), {"CARD": ["a"] * 1000}, ids))
            acknowledged += 1000
    assert acknowledged
    later = Transactions(np.array([NOON + np.timedelta64(1, "h")]), None, {"CARD": ["a"]}, ["last"])
    model = InputSpecification(
        Dataset(entities=("CARD",)), Features(groups=(FeatureGroup(("count",), (7,)),)), 7
    )
    assert state.read(later).features(model)["CARD_count_7d"] == [acknowledged + 1]
    state.close()


COUNTS = InputSpecification(
    Dataset(entities=("CARD",)), Features(groups=(FeatureGroup(("count",), (7,)),)), 7
)


def rows_in(folder):
    """How many transactions of card `a` a state has."""
    state = open_state(str(folder))
    later = Transactions(np.array([NOON + np.timedelta64(1, "h")]), None, {"CARD": ["a"]}, ["last"])
    (count,) = state.read(later).features(COUNTS)["CARD_count_7d"]
    state.close()
    return int(count) - 1


def test_a_copy_has_all_that_was_acknowledged_and_lives_on_by_itself(tmp_path):
    folder, stopping = tmp_path / "state", threading.Event()
    state = create_state(str(folder), DEFINITION)
    acknowledged = 0

    def write():
        nonlocal acknowledged
        while not stopping.is_set():
            one = Transactions(
                np.array([NOON + acknowledged]), np.ones(1), {"CARD": ["a"]}, [f"{acknowledged}"]
            )
            state.record(one)
            acknowledged += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            while acknowledged < 20 * (number + 1):
                pass
            before = acknowledged
            copy_state(folder, tmp_path / f"copy-{number}")
            assert before <= rows_in(tmp_path / f"copy-{number}") <= acknowledged + 1
    finally:
        stopping.set()
        writer.join()
        state.close()
    copied = open_state(str(tmp_path / "copy-0"))
    copied.record(Transactions(np.array([NOON]), np.ones(1), {"CARD": ["a"]}, ["another"]))
    copied.close()
    assert rows_in(folder) == acknowledged
    assert not list(tmp_path.glob("copy-*/generation-*/boot")), "all of a copy is on disk"


def test_a_copy_during_a_build_is_of_what_is_in_use_and_no_build_goes_on_in_it(tmp_path):
    folder = tmp_path / "state"
    state = create_state(str(folder), DEFINITION)
    state.record(ONE)
    with rebuild_state(str(folder), DEFINITION) as rebuild:
        list(rebuild.changes())  # from here on, changes are noted for the build
        copy_state(folder, tmp_path / "copy")
        fill(rebuild, [], NOON)
    state.close()
    assert rows_in(tmp_path / "copy") == 1
    store = LmdbStore(tmp_path / "copy")
    with store._generation.env.begin() as txn:
        assert txn.get(b"journaling", db=store._generation.meta) is None
    store.close()

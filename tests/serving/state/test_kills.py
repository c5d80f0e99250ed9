"""Processes that use a state are killed under load: what they acknowledged is there, once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.models.specification import InputSpecification
from fraud.serving.state import Outcome, StateDefinition, Transactions, create_state

MODEL = InputSpecification(
    Dataset(entities=("CARD",)),
    Features(calendar=(), groups=(FeatureGroup(("count", "known_count", "fraud_count"), (30,)),)),
    0,
)
NOON = np.datetime64("2024-06-01T12:00", "us")

# Records and labels transactions without end, and says so after each call.
WORKER = """
import sys
import numpy as np
from fraud.serving.state import Labels, Transactions, open_state

location, number = sys.argv[1], int(sys.argv[2])
state = open_state(location)
noon = np.datetime64("2024-06-01T12:00", "us")
for call in range(1_000_000):
    ids = [f"{number}-{call}-{i}" for i in range(3)]
    times = noon + np.arange(3) + 3 * call + 3_000_000 * number
    state.record(Transactions(times, np.ones(3), {"CARD": ["a", "a", "a"]}, ids))
    print("recorded", *ids, flush=True)
    state.label(Labels(ids[:2], [1, 0], times[:2]))
    print("labelled", *ids[:2], flush=True)
"""


def started(location: str, number: int) -> subprocess.Popen:
    command = [sys.executable, "-c", WORKER, location, str(number)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def acknowledged(process: subprocess.Popen, calls: int) -> Iterator[list[str]]:
    """What a worker acknowledged in so many calls, and in those until it was killed."""
    assert process.stdout is not None
    for _ in range(calls):
        yield process.stdout.readline().split()
    process.kill()
    for line in process.stdout:
        if line.endswith("\n"):
            yield line.split()
    process.wait()


@pytest.mark.e2e
def test_every_acknowledged_transaction_and_label_survives_kills_exactly_once(location):
    kills = 3 if location.startswith("unix://") else 10
    state = create_state(location, StateDefinition.of(MODEL))
    generator = random.Random(0)
    recorded: set[str] = set()
    labelled: set[str] = set()
    # The next worker is already running when one is killed.
    workers = [started(location, 0)]
    for number in range(kills):
        if number + 1 < kills:
            workers.append(started(location, number + 1))
        for kind, *ids in acknowledged(workers[number], generator.randint(2, 40)):
            (recorded if kind == "recorded" else labelled).update(ids)
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL] * kills
    assert len(recorded) > 3 * kills and len(labelled) > kills

    last = NOON + np.timedelta64(1, "D")
    whole = state.read(Transactions(np.array([last]), np.ones(1), {"CARD": ["a"]}, ["last"]))
    counts = {name: values[0] for name, values in whole.features(MODEL).items()}
    # Of each worker, one call may have been carried out but not acknowledged.
    ids = [f"{n}-{call}-{i}" for n in range(kills) for call in range(3000) for i in range(3)]
    nobody = Transactions(np.full(len(ids), last), None, {"CARD": [None] * len(ids)}, ids)
    outcomes = zip(ids, state.read(nobody).outcomes, strict=True)
    there = {i for i, outcome in outcomes if outcome is Outcome.CONFLICT}
    assert recorded <= there and len(there) <= len(recorded) + 3 * kills
    assert counts["CARD_count_30d"] == len(there) + 1
    known = counts["CARD_known_count_30d"]
    assert len(labelled) <= known <= len(labelled) + 2 * kills
    assert counts["CARD_fraud_count_30d"] == known / 2
    state.close()

"""Measures what the state of entities costs, in several stores.

    python -m benchmarks.state [--redis URL]

For each store, 1,000 cards and 2,000 terminals with 70 and 35 transactions each are recorded; then
single transactions and batches of 100 of random cards and terminals, and batches of 100 labels.
Prints one JSON document per store: milliseconds per call, as the median and the 99th
percentile, and CPU milliseconds of this process per call; `record` is the call of the state,
`features` what the default features then take. All stores see the same transactions, in turns, so
that a busy machine slows all of them down.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sqlite_state import SqliteStore
from fraud.features.spec import Dataset, Features
from fraud.models.specification import InputSpecification
from fraud.serving.state import Labels, State, StateDefinition, Transactions
from fraud.serving.state.lmdb_store import LmdbStore

MODEL = InputSpecification(Dataset(), Features(), 7)
CARDS, TERMINALS, ROWS = 1_000, 2_000, 70_000
START = np.datetime64("2024-01-01", "us")
DAYS = 38


class Meter:
    """Wall and CPU times of calls."""

    def __init__(self) -> None:
        self._times: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function and notes its times."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = function(*arguments)
        self._times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
        return result

    def document(self) -> dict[str, dict[str, float]]:
        """Name → milliseconds per call."""
        document = {}
        for name, times in self._times.items():
            wall, cpu = np.array(times).T * 1000
            p50, p99 = np.percentile(wall, [50, 99])
            document[name] = {
                "p50": round(p50, 2),
                "p99": round(p99, 2),
                "cpu": round(float(np.mean(cpu)), 2),
            }
        return document


def stores(folder: Path, redis: str | None) -> dict[str, State]:
    """The states to compare, empty."""
    definition = StateDefinition.of(MODEL)
    found: dict[str, State] = {
        "LMDB, flushed every second": State(LmdbStore.create(folder / "second", definition)),
        "LMDB, flushed by each call": State(LmdbStore.create(folder / "call", definition, "power")),
        "SQLite, synchronous=NORMAL": State(
            SqliteStore(folder / "normal.sqlite", definition, "NORMAL")
        ),
        "SQLite, synchronous=FULL": State(SqliteStore(folder / "full.sqlite", definition, "FULL")),
    }
    if redis:
        from fraud.serving.state.redis_store import RedisStore

        found["Redis"] = State(RedisStore.create(redis, definition))
    return found


def transactions(first_id: int, times: np.ndarray, generator: np.random.Generator) -> Transactions:
    """Transactions of random cards and terminals at some times."""
    count = len(times)
    entities = {
        "CUSTOMER_ID": generator.integers(0, CARDS, count),
        "TERMINAL_ID": generator.integers(0, TERMINALS, count),
    }
    amounts = generator.lognormal(3, 1, count).round(2)
    return Transactions(times, amounts, entities, np.arange(first_id, first_id + count))


def measure(states: dict[str, State], rounds: int) -> dict[str, Meter]:
    """Fills the states and measures calls of each in turns."""
    generator = np.random.default_rng(0)
    meters = {name: Meter() for name in states}
    moments = np.sort(generator.integers(0, DAYS * 86_400_000_000, ROWS))
    for start in range(0, ROWS, 10_000):
        part = moments[start : start + 10_000].astype("timedelta64[us]")
        some = transactions(start, START + part, generator)
        for state in states.values():
            state.record(some)
    first_id, now = ROWS, START + np.timedelta64(DAYS, "D")
    for _ in range(rounds):
        for size in (1, 100):
            now += np.timedelta64(1, "s")
            some = transactions(first_id, now + np.arange(size), generator)
            first_id += size
            for name, state in states.items():
                seen = meters[name].call(f"record {size}", state.record, some)
                meters[name].call(f"features {size}", seen.features, MODEL)
        labels = Labels(generator.integers(0, ROWS, 100), generator.integers(0, 2, 100))
        for name, state in states.items():
            meters[name].call("label 100", state.label, labels)
    return meters


def main() -> None:
    """Parses the arguments, measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--redis", metavar="URL", help="an empty server to compare, too")
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir="."))
    try:
        states = stores(folder, arguments.redis)
        for name, meter in measure(states, arguments.rounds).items():
            print(json.dumps({"store": name, **meter.document()}), flush=True)
        for state in states.values():
            state.close()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

"""Measures raw transactions: features, state and score, through the server.

    python -m benchmarks.serving.raw --root fraud-root

The server gets the live model of a root and a state that is built from the sample, as by `make
serve`. What it is sent are the sample's latest transactions, moved to the days after it. First one
at a time at a steady rate, then as many as it can answer, one at a time and in batches, in turns
with one worker and with two. The steps of one request are measured in a process of their own.
Writes build/serving/raw.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import dataset

from benchmarks.serving.__main__ import (
    BATCH,
    CLIENTS,
    REPOSITORY,
    Contestant,
    cpu_seconds,
    load,
    newest,
    quantile,
    running,
)

PATH = "/v1/transactions:score"
SAMPLE = REPOSITORY / "data" / "sample"
CONFIGURATION, DATA = SAMPLE / "config.yaml", SAMPLE / "transactions"
ID, TIME = "TRANSACTION_ID", "TX_DATETIME"
LABELS = ("TX_FRAUD", "TX_FRAUD_SCENARIO", "date")
RATE = 100
"""Transactions a second of the steady load."""
RATE_CLIENTS = BATCH_CLIENTS = 8


def transactions(count: int) -> list[dict[str, Any]]:
    """The latest transactions of the sample, as new ones of the days after it, in time order."""
    table = dataset.dataset(DATA, partitioning="hive").to_table().sort_by(TIME)
    columns = [name for name in table.column_names if name not in LABELS]
    latest = table.select(columns).slice(table.num_rows - count)
    first_id = pc.max(table[ID]).as_py() + 1
    days = (table[TIME][-1].as_py().date() - latest[TIME][0].as_py().date()).days + 1
    moved = pc.add(latest[TIME], pa.scalar(timedelta(days=days)))
    times = pc.strftime(moved.cast(pa.timestamp("us")), "%Y-%m-%dT%H:%M:%S")
    rows = latest.drop([ID, TIME]).to_pylist()
    return [
        {ID: first_id + row, TIME: moment, **other}
        for row, (moment, other) in enumerate(zip(times.to_pylist(), rows, strict=True))
    ]


def bodies(rows: list[dict[str, Any]], size: int) -> list[str]:
    """Requests of `size` transactions each."""
    starts = range(0, len(rows) - size + 1, size)
    return [json.dumps({"transactions": rows[start : start + size]}) for start in starts]


@contextmanager
def serving(root: Path, workers: int, log: Path) -> Iterator[tuple[str, int]]:
    """A server with a state of its own: its address and process id."""
    with tempfile.TemporaryDirectory(dir=log.parent) as folder:
        (Path(folder) / "pushed").symlink_to(root / "pushed")
        command = (
            f"{sys.executable} -m fraud.pipeline.cli serve --config {CONFIGURATION} --data {DATA} "
            f"--root {folder} --port {{port}} --grpc-port {{free}} --workers {workers}"
        )
        with running("ours", Contestant(command, PATH, "/readyz"), log) as (address, pid):
            if workers > 1:
                time.sleep(5)  # until the others are ready, too
            yield address, pid


def steps(root: Path, count: int) -> dict[str, dict[str, float]]:
    """Milliseconds of the steps of one request, as percentiles of many."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pushed").symlink_to(root / "pushed")
        (Path(folder) / "rows.json").write_text(json.dumps(transactions(count)))
        last_day = max(path.name.partition("=")[2] for path in DATA.glob("date=*"))
        command = [sys.executable, "-m", "fraud.pipeline.cli", "state", "build"]
        options = ["--config", CONFIGURATION, "--data", DATA, "--as-of", last_day, "--root", folder]
        subprocess.run([*command, *map(str, options)], check=True, stdout=subprocess.DEVNULL)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.serving.steps", newest(root), folder],
            stdout=subprocess.PIPE,
            check=True,
            cwd=REPOSITORY,
        )
    return {
        name: {"p50_ms": quantile(seconds, 0.5), "p99_ms": quantile(seconds, 0.99)}
        for name, seconds in json.loads(done.stdout).items()
    }


def main() -> None:
    """Runs all rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("fraud-root"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=20, help="of steady load in each round")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("build/serving"))
    arguments = parser.parse_args()
    root, out = arguments.root.resolve(), arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    at_rate, single = arguments.seconds * RATE, arguments.requests
    batches = max(single // 5, BATCH_CLIENTS)
    rows = transactions(at_rate + single * (len(CLIENTS) + 1) + 2 * batches * BATCH)
    latencies: list[float] = []
    cpu: list[float] = []
    rates: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(arguments.rounds):
        for workers in (1, 2):
            rest = iter(rows)

            def some(count: int, rest: Iterator[dict[str, Any]] = rest) -> list[dict[str, Any]]:
                return [next(rest) for _ in range(count)]

            with serving(root, workers, out / "raw.log") as (address, pid):
                load(address, PATH, bodies(some(200), 1), 1, 200)
                if workers == 1:
                    before = cpu_seconds(pid)
                    sent = bodies(some(at_rate), 1)
                    seen = load(address, PATH, sent, RATE_CLIENTS, at_rate, RATE)
                    latencies += seen["latencies"]
                    cpu.append((cpu_seconds(pid) - before) / at_rate)
                for clients in CLIENTS:
                    seen = load(address, PATH, bodies(some(single), 1), clients, single)
                    rate = len(seen["latencies"]) / seen["wall"]
                    rates[str(workers)][str(clients)].append(rate)
                sent = bodies(some(batches * BATCH), BATCH)
                seen = load(address, PATH, sent, BATCH_CLIENTS, batches)
                rates[str(workers)]["batch"].append(BATCH * len(seen["latencies"]) / seen["wall"])
    report = {
        "cores": os.cpu_count(),
        "date": date.today().isoformat(),
        "load": os.getloadavg(),
        "rounds": arguments.rounds,
        "at_rate": {
            "rate": RATE,
            "requests": len(latencies),
            "p50_ms": quantile(latencies, 0.5),
            "p99_ms": quantile(latencies, 0.99),
            "cpu_ms": 1000 * statistics.median(cpu),
        },
        "steps": steps(root, 2000),
        "transactions_per_second": {
            workers: {key: statistics.median(values) for key, values in of.items()}
            for workers, of in rates.items()
        },
    }
    (out / "raw.json").write_text(json.dumps(report, indent=1))
    print(table(report))


def table(report: dict[str, Any]) -> str:
    """The results as tables in Markdown."""
    at_rate = report["at_rate"]
    lines = ["| | p50 ms | p99 ms |", "|---|---:|---:|"]
    lines.append(
        f"| one transaction, {at_rate['rate']} a second | {at_rate['p50_ms']:.2f} "
        f"| {at_rate['p99_ms']:.2f} |"
    )
    lines += [
        f"| {name}, alone in a process | {of['p50_ms']:.2f} | {of['p99_ms']:.2f} |"
        for name, of in report["steps"].items()
    ]
    clients = " | ".join(f"{c} client{'s' * (c > 1)}" for c in CLIENTS)
    lines += ["", f"| transactions a second | {clients} | batches of {BATCH} |"]
    lines.append("|---|" + "---:|" * (len(CLIENTS) + 1))
    for workers, of in report["transactions_per_second"].items():
        cells = " | ".join(f"{rate:,.0f}" for rate in of.values())
        lines.append(f"| {workers} worker{'s' * (workers != '1')} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

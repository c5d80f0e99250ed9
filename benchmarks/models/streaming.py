"""Compares ways to train on many transactions: in memory, streamed, with a share of the genuine.

    python -m benchmarks.models.streaming quality DATA --first-test-day 2018-07-04
    python -m benchmarks.models.streaming memory ROOT --times 60
    python -m benchmarks.models.streaming workers ROOT --times 20

`quality` trains on the folds of a backtest and prints the mean average precision and CPU seconds of
a fold. A fold of the handbook's data has 35 blocks, which would all fit in the buffer in which rows
are shuffled, so here it has 4. `memory` reads the examples of a run in a root so many times, as a
train split, and trains for two epochs on it, in a process for each way. `workers` does the same in
one process, and in two that train together on this machine. Prints JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from statistics import fmean
from time import process_time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fraud.models.examples import Examples
    from fraud.models.network.team import Team

WAYS: dict[str, dict[str, Any]] = {
    "in memory": {},
    "streamed": {"rows_in_memory": 1},
    "a tenth of the genuine": {"genuine_share": 0.1, "epochs": 12, "batch_size": 256},
}
BUFFER_BLOCKS = 4
FEW_ROWS = 100_000
PORTS = (29_871, 29_872)


def quality(data: str, first_test_day: date, folds: int) -> None:
    """Prints how good each way is."""
    from benchmarks.models.compare import read_folds
    from fraud.models import streamed
    from fraud.models.columns import ModelColumns
    from fraud.models.examples import Examples
    from fraud.models.network import training
    from fraud.models.preprocessing import in_memory
    from fraud.pipeline import config
    from fraud.pipeline.backtest import result, rows

    defaults = config.load()
    names = ModelColumns.of(defaults.dataset, defaults.features)
    budget = defaults.evaluation.budget(defaults.dataset)
    planned, table = read_folds(data, first_test_day, folds, defaults)
    streamed.BUFFER_BLOCKS = BUFFER_BLOCKS
    results: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for fold in planned:
        train, test = rows.split(table, fold, defaults)
        for way, settings in WAYS.items():
            network = dataclasses.replace(defaults.network, **settings)
            started = process_time()
            with tempfile.TemporaryDirectory() as temporary:
                encode = in_memory.learn(train.columns, names, network, temporary)
                examples = Examples(
                    encode(train.columns), train.labels, train.timestamps, train.cards
                )
                if network.rows_in_memory < train.labels.size:
                    examples = in_a_file(examples)
                fitted = training.fit(network, examples, encode.vocabularies, budget)
                seconds = process_time() - started
                metrics = result.evaluate(test, fitted.scores(encode(test.columns)), defaults)
            results[way].append((metrics["average_precision"], seconds))
            print(fold.test, way, results[way][-1], file=sys.stderr, flush=True)
    means = {
        way: {
            "average_precision": fmean(precision for precision, _ in each),
            "cpu_seconds": fmean(seconds for _, seconds in each),
        }
        for way, each in results.items()
    }
    print(json.dumps(means, indent=1))


def in_a_file(examples: Examples) -> Examples:
    """The same examples, whose inputs are in a temporary file."""
    import numpy as np

    from fraud.models.streamed import Streamed

    inputs = {}
    for name, array in examples.inputs.items():
        inputs[name] = Streamed()
        inputs[name].append(np.asarray(array))
    return dataclasses.replace(examples, inputs=inputs)


def memory(root: Path, times: int, way: str | None) -> None:
    """Prints the peak memory of each way, or of one in this process."""
    if way is None:
        for each in ("in memory", "streamed"):
            command = [sys.executable, "-m", "benchmarks.models.streaming", "memory", str(root)]
            subprocess.run([*command, "--times", str(times), "--way", each], check=True)
        return
    before = resident("VmRSS")
    trained = train(root, times, FEW_ROWS if way == "streamed" else sys.maxsize, None)
    print(json.dumps({"way": way, "gb_before": before, **trained}))


def workers(root: Path, times: int, settings: str, index: int | None) -> None:
    """Prints the cost of one process and of two workers, or trains as one of these."""
    if index is not None:
        from fraud.models.network.team import Team

        trained = train(root, times, sys.maxsize, Team.joined(2, index), settings)
        print(json.dumps({"worker": index, **trained}))
        return
    alone = train(root, times, sys.maxsize, None, settings)
    print(json.dumps({"alone": True, **alone}), flush=True)
    command = [sys.executable, "-m", "benchmarks.models.streaming", "workers", str(root)]
    cluster = {"worker": [f"127.0.0.1:{port}" for port in PORTS]}
    processes = []
    for number in range(2):
        task = {"type": "worker", "index": number}
        tf_config = json.dumps({"cluster": cluster, "task": task})
        arguments = [*command, "--times", str(times), "--network", settings, "--index", str(number)]
        processes.append(subprocess.Popen(arguments, env={**os.environ, "TF_CONFIG": tf_config}))
    codes = [process.wait() for process in processes]
    if any(codes):
        sys.exit(1)


def train(
    root: Path, times: int, rows_in_memory: int, team: Team | None, settings: str = "{}"
) -> dict[str, Any]:
    """Reads the examples of a run so many times and trains on them; what it took."""
    import tensorflow_transform as tft

    from fraud.models.columns import ModelColumns
    from fraud.models.examples import load_split
    from fraud.models.network import training
    from fraud.models.preprocessing.transform_fn import vocabulary_sizes
    from fraud.pipeline import config

    sample = config.load("data/sample/config.yaml")
    columns = ModelColumns.of(sample.dataset, sample.features)
    artifacts = root / "artifacts"
    files = max(artifacts.glob("TransactionExampleGen/examples/*/Split-train"))
    transform = tft.TFTransformOutput(str(max(artifacts.glob("Transform/transform_graph/*"))))
    started = process_time()
    examples = load_split([f"{files}/*"] * times, transform, columns, rows_in_memory)
    read, peak_of_reading = process_time(), resident("VmHWM")
    network = dataclasses.replace(sample.network, epochs=2, members=1)
    network = network.tuned(json.loads(settings))
    sizes = vocabulary_sizes(transform, columns, network)
    training.fit(network, examples, sizes, sample.evaluation.budget(sample.dataset), team=team)
    return {
        "rows": examples.labels.size,
        "gb_peak_of_reading": peak_of_reading,
        "gb_peak": resident("VmHWM"),
        "cpu_seconds": process_time(),
        "cpu_seconds_of_reading": read - started,
        "cpu_seconds_of_training": process_time() - read,
    }


def resident(field: str) -> float:
    """This process's memory in GB: VmRSS is now, VmHWM the peak so far."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{field}:")[1].split()[0]) / 1e6


def main() -> None:
    """Measures quality or memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    of_quality = commands.add_parser("quality")
    of_quality.add_argument("data", help="folders date=YYYY-MM-DD/*.parquet")
    of_quality.add_argument("--first-test-day", type=date.fromisoformat, required=True)
    of_quality.add_argument("--folds", type=int, default=4)
    of_memory = commands.add_parser("memory")
    of_memory.add_argument("root", type=Path, help="a root with a run on the sample")
    of_memory.add_argument("--times", type=int, default=60)
    of_memory.add_argument("--way", choices=WAYS)
    of_workers = commands.add_parser("workers")
    of_workers.add_argument("root", type=Path, help="a root with a run on the sample")
    of_workers.add_argument("--times", type=int, default=20)
    of_workers.add_argument("--network", default="{}", help="settings of the network, as JSON")
    of_workers.add_argument("--index", type=int)
    options = parser.parse_args()

    from fraud.pipeline.startup import import_tfx

    import_tfx()
    if options.command == "quality":
        quality(options.data, options.first_test_day, options.folds)
    elif options.command == "workers":
        workers(options.root, options.times, options.network, options.index)
    else:
        memory(options.root, options.times, options.way)


if __name__ == "__main__":
    main()

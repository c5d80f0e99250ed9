"""Compares the network with logistic regression, trees and boosting by the same protocol.

    make bench-models DATA=transactions FIRST=2018-07-04

All use the features, folds and protocol of `fraud-pipeline backtest`. For each contestant, the
setting with the best average precision on as many folds right before the first test day is
evaluated on the test folds. The network is evaluated as the pipeline configures it, once per seed;
its settings were chosen on folds before 2018-07-04 of the handbook's data. Prints a table, or JSON
with --json; --only selects contestants.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.models.contestants import CONTESTANTS

if TYPE_CHECKING:
    import pyarrow as pa

    from fraud.pipeline.backtest.folds import Fold
    from fraud.pipeline.backtest.rows import FoldRows
    from fraud.pipeline.config import Config

NETWORK = "this pipeline's network"
PYTHON = Path(".venv-bench/bin/python")

SavedFold: TypeAlias = "tuple[Path, FoldRows]"
"""The folder of a fold, and its test rows."""


def save(at: Path, rows: Sequence[tuple[FoldRows, FoldRows]], config: Config) -> list[SavedFold]:
    """Saves the rows of folds, for processes without this project."""
    import numpy as np

    from fraud.models.columns import ModelColumns

    names = ModelColumns.of(config.dataset, config.features).numeric
    saved = []
    for number, (train, test) in enumerate(rows):
        folder = at / str(number)
        folder.mkdir(parents=True)
        for part, file in ((train, "train"), (test, "test")):
            np.save(folder / file, np.stack([part.columns[name] for name in names], axis=1))
        np.save(folder / "labels", train.labels)
        saved.append((folder, test))
    return saved


def evaluate(
    folds: Sequence[SavedFold], name: str, setting: int, config: Config
) -> list[dict[str, float]]:
    """Returns the metrics of a contestant with one of its settings for each fold."""
    import numpy as np

    from fraud.pipeline.backtest import result

    def evaluate_one(fold: SavedFold) -> dict[str, float]:
        folder, test = fold
        command = [PYTHON, Path(__file__).with_name("contestants.py"), folder, name, setting]
        done = subprocess.run(
            list(map(str, command)), stdout=subprocess.PIPE, check=True, text=True
        )
        metrics = result.evaluate(test, np.load(folder / "scores.npy"), config)
        return {**metrics, "train_cpu_seconds": float(done.stdout)}

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each waits for a single-threaded process
        return list(pool.map(evaluate_one, folds))


def read_folds(
    data: str, first_test_day: date, count: int, config: Config
) -> tuple[list[Fold], pa.Table]:
    """Plans folds of a week, and reads the transactions of all of them."""
    from fraud.pipeline.backtest import folds, rows
    from fraud.pipeline.ingestion.source import discover

    planned = folds.plan_folds(
        first_test_day,
        count,
        test_days=7,
        train_days=config.windows.train_days,
        delay_days=config.windows.label_delay_days,
    )
    source = discover(data, config.dataset)
    return planned, rows.read(source, rows.check_covered(source, planned, config), config)


def main() -> None:
    """Chooses settings on the earlier folds, evaluates on the test folds, and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("data", help="folders date=YYYY-MM-DD/*.parquet")
    parser.add_argument("--first-test-day", type=date.fromisoformat, required=True)
    parser.add_argument("--folds", type=int, default=4, help="test folds, and folds to choose on")
    parser.add_argument("--seeds", type=int, default=3, help="networks per fold")
    parser.add_argument("--only", nargs="*", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if not PYTHON.exists():
        parser.error(f"{PYTHON} is missing: create it with scripts/setup_beside.sh bench")

    from fraud.pipeline import config
    from fraud.pipeline.backtest import processes, rows

    defaults = config.load()
    before = options.first_test_day - timedelta(days=7 * options.folds)
    planned, table = read_folds(options.data, before, 2 * options.folds, defaults)
    metrics: dict[str, list[dict[str, Any]]] = {}
    chosen: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        at = Path(temporary)
        split = [rows.split(table, fold, defaults) for fold in planned]
        earlier = save(at / "earlier", split[: options.folds], defaults)
        test = save(at / "test", split[options.folds :], defaults)
        del split
        for name in options.only:
            settings = CONTESTANTS[name][1]
            tried = [0.0]
            if len(settings) > 1:
                each = (evaluate(earlier, name, i, defaults) for i in range(len(settings)))
                tried = [_mean(folds, "average_precision") for folds in each]
            best = tried.index(max(tried))
            chosen[name], metrics[name] = settings[best], evaluate(test, name, best, defaults)
            print(f"{_line(name, metrics[name])} {settings[best]}", file=sys.stderr, flush=True)
        seeds = [defaults.network.seed + i for i in range(options.seeds)]
        done = processes.run(table, planned[options.folds :], defaults, seeds, at, 1)
        outcomes = [outcome for _, outcome in sorted(done, key=lambda pair: pair[0])]
        metrics[NETWORK] = [dict(outcome.mean) for outcome in outcomes]
        by_seed = [
            statistics.fmean(o.by_seed[seed]["average_precision"] for o in outcomes)
            for seed in seeds
        ]
    document = {
        "test": [[str(f.test.first), str(f.test.last)] for f in planned[options.folds :]],
        "chosen": chosen,
        "folds": metrics,
        "mean": {name: {k: _mean(each, k) for k in each[0]} for name, each in metrics.items()},
        "network_average_precision_by_seed": by_seed,
    }
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        print("| model | AP | worst fold | ROC AUC | CP@100 | CPU s a fold |")
        print("|---|---|---|---|---|---|")
        print("\n".join(_line(name, each) for name, each in metrics.items()))


def _line(name: str, folds: Sequence[dict[str, float]]) -> str:
    """Formats a row of the table."""
    worst = min(fold["average_precision"] for fold in folds)
    return (
        f"| {name} | {_mean(folds, 'average_precision'):.4f} | {worst:.4f} | "
        f"{_mean(folds, 'roc_auc'):.4f} | {_mean(folds, 'card_precision_at_100'):.4f} | "
        f"{_mean(folds, 'train_cpu_seconds'):.1f} |"
    )


def _mean(folds: Sequence[dict[str, float]], name: str) -> float:
    return statistics.fmean(fold[name] for fold in folds)


if __name__ == "__main__":
    main()

"""Compares settings of the network where the train window has many rows and few frauds.

    python -m benchmarks.models.few_frauds DATA --first-test-day 2018-06-06 --frauds 150

Of the frauds of each train window only so many are left, drawn at random; the test weeks are whole.
Prints the mean over the folds as a table.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from datetime import date
from statistics import fmean
from time import process_time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fraud.pipeline.backtest.rows import FoldRows

WAYS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "three members": {"members": 3, "validation_percent": 20},
    "five members, a fifth of the genuine": {
        "members": 5,
        "validation_percent": 20,
        "genuine_share": 0.2,
    },
}
SEED = 100


def main() -> None:
    """Trains each way on each fold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("data", help="folder of day files like the handbook's")
    parser.add_argument("--first-test-day", type=date.fromisoformat, required=True)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--frauds", type=int, default=150, help="left in each train window")
    options = parser.parse_args()

    from fraud.pipeline.startup import import_tfx

    import_tfx()
    from benchmarks.models.compare import read_folds
    from fraud.models.columns import ModelColumns
    from fraud.models.examples import Examples
    from fraud.models.network import training
    from fraud.models.preprocessing import in_memory
    from fraud.pipeline import config
    from fraud.pipeline.backtest import result, rows

    defaults = config.load()
    names = ModelColumns.of(defaults.dataset, defaults.features)
    budget = defaults.evaluation.budget(defaults.dataset)
    planned, table = read_folds(options.data, options.first_test_day, options.folds, defaults)
    results: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number, fold in enumerate(planned):
        train, test = rows.split(table, fold, defaults)
        train = with_few_frauds(train, options.frauds, SEED + number)
        for way, settings in WAYS.items():
            network = dataclasses.replace(defaults.network, **settings)
            started = process_time()
            with tempfile.TemporaryDirectory() as temporary:
                encode = in_memory.learn(train.columns, names, network, temporary)
                inputs = encode(train.columns)
                examples = Examples(inputs, train.labels, train.timestamps, train.cards)
                fitted = training.fit(network, examples, encode.vocabularies, budget)
                seconds = process_time() - started
                metrics = result.evaluate(test, fitted.scores(encode(test.columns)), defaults)
            results[way].append((metrics["average_precision"], seconds))
            print(fold.test, way, results[way][-1], file=sys.stderr, flush=True)
    print("| settings | average precision | CPU s a fold |\n|---|---|---|")
    for way, each in results.items():
        print(f"| {way} | {fmean(ap for ap, _ in each):.4f} | {fmean(s for _, s in each):.0f} |")


def with_few_frauds(train: FoldRows, frauds: int, seed: int) -> FoldRows:
    """The rows without all but some frauds."""
    import numpy as np

    from benchmarks.models.tables import at

    kept = np.ones(train.labels.size, bool)
    kept[np.random.default_rng(seed).permutation(np.flatnonzero(train.labels == 1))[frauds:]] = (
        False
    )
    return at(train, kept)


if __name__ == "__main__":
    main()

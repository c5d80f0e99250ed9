"""Measures training on a case of `benchmarks.speed`, by the number of passes.

    python -m benchmarks.speed.training build/speed/1200000 --epochs 6 4 3 --seeds 7 8
    python -m benchmarks.speed.training build/speed/1200000 --epochs 4 --precision mixed_bfloat16

The case must have been measured with the contestant `floor` or `stock`. Prints JSON lines: CPU
seconds, and average precision on the held-out cards and in the eval window.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

from benchmarks.speed.case import Case

if TYPE_CHECKING:
    from fraud.models.examples import Examples


def examples_of(case: Case) -> tuple[Examples, Examples, dict[str, int]]:
    """The encoded train and eval examples, and the number of indices by categorical column."""
    import numpy as np
    from pyarrow import parquet

    from fraud.models.columns import ModelColumns
    from fraud.models.examples import Examples
    from fraud.models.preprocessing import in_memory
    from fraud.pipeline import config as configuration

    config = configuration.load(case.config)
    names = ModelColumns.of(config.dataset, config.features)

    def raw(table: Any) -> dict[str, Any]:
        columns = {name: table[name].to_numpy().astype(np.float32) for name in names.numeric}
        for name in names.categorical:
            words = table[name].to_pylist()
            columns[name] = np.array([(word or "").encode() for word in words], object)
        return columns

    train, evaluation = (parquet.read_table(case.parquet(split)) for split in ("train", "eval"))
    with tempfile.TemporaryDirectory() as temporary:
        columns = {**raw(train), names.label: train[names.label].to_numpy()}
        encode = in_memory.learn(columns, names, config.network, temporary)
        sides = (names.label, names.timestamp, names.card)
        encoded = [
            Examples(encode(raw(table)), *(table[side].to_numpy() for side in sides))
            for table in (train, evaluation)
        ]
        return encoded[0], encoded[1], encode.vocabularies


def passes(case: Case, epochs: Iterable[int], seeds: Iterable[int]) -> None:
    """Trains with each number of passes and each seed."""
    from fraud.models.evaluation import metrics
    from fraud.models.network import training
    from fraud.models.spec import AlertBudget, Network

    train, evaluation, vocabularies = examples_of(case)
    for count in epochs:
        for seed in seeds:
            started = process_time()
            network = Network(epochs=count, seed=seed)
            fitted = training.fit(network, train, vocabularies, AlertBudget(100))
            measured = {
                "epochs": count,
                "seed": seed,
                "cpu_seconds": process_time() - started,
                "held_out": fitted.validation["average_precision"],
                "eval": metrics.average_precision(
                    evaluation.labels, fitted.scores(evaluation.inputs)
                ),
            }
            print(json.dumps(measured), flush=True)


def main() -> None:
    """Prints a line for each number of passes and seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("case", type=Path, help="a folder that benchmarks.speed made")
    parser.add_argument("--epochs", type=int, nargs="+", default=[6, 4, 3, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8])
    parser.add_argument("--precision", default="float32", help="a dtype policy of Keras")
    options = parser.parse_args()

    from fraud.pipeline.startup import import_tfx

    import_tfx()
    from fraud.models.network import architecture

    # The layers with the multiplications. What encodes their inputs and joins outputs is exact.
    architecture.Members = partial(architecture.Members, dtype=options.precision)  # type: ignore
    passes(Case(options.case), options.epochs, options.seeds)


if __name__ == "__main__":
    main()

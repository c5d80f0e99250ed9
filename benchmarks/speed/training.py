"""Measures training on a case of `benchmarks.speed`: by passes, and other ways to compute a step.

    python -m benchmarks.speed.training passes build/speed/1200000 --epochs 6 4 3 --seeds 7 8
    python -m benchmarks.speed.training steps build/speed/1200000

`passes` prints CPU seconds and average precision, on the held-out cards and the eval window, by
passes and seed. `steps` prints the CPU milliseconds of a training step: as it is, its input alone,
without deterministic kernels and with XLA, which needs that; and those of the matrix products of
the first layer, in float32 and bfloat16. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

from benchmarks.speed.case import Case

if TYPE_CHECKING:
    from fraud.models.examples import Examples

STEPS = 300
BATCH = 1024


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


def steps(case: Case) -> None:
    """Measures the steps of one member on a part of the train examples."""
    import keras
    import numpy as np
    import tensorflow as tf

    from fraud.models.network import defaults, training
    from fraud.models.network.architecture import build_network, member_logits
    from fraud.models.spec import Network

    train, _, vocabularies = examples_of(case)
    some = train.at(np.arange(STEPS * BATCH))
    numeric = some.inputs["numeric"].shape[1]
    spec = defaults.resolve(
        dataclasses.replace(Network(), members=1, batch_size=BATCH), some.labels.size, 0
    )
    drawn = training._PassRows(np.arange(some.labels.size), some.labels, 1.0)

    def batches() -> tf.data.Dataset:
        return training._batches(some, drawn, np.ones((some.labels.size, 1), bool), BATCH, spec)

    def say(what: str, repeat: Callable[[], Any]) -> None:
        repeat()
        started = process_time()
        repeat()
        milliseconds = 1000 * (process_time() - started) / STEPS
        print(json.dumps({"what": what, "cpu_milliseconds": round(milliseconds, 2)}), flush=True)

    say("input", lambda: list(batches()))

    def fitting(xla: bool) -> Callable[[], Any]:
        model = member_logits(build_network(spec, numeric, vocabularies))
        optimizer = keras.optimizers.AdamW(weight_decay=1e-2, use_ema=True, ema_momentum=0.999)
        model.compile(
            optimizer,
            training.MemberLoss(),
            steps_per_execution=training.STEPS_PER_EXECUTION,
            jit_compile=xla,
        )
        return lambda: model.fit(batches(), verbose=0)

    say("not deterministic", fitting(xla=False))
    say("not deterministic, XLA", fitting(xla=True))
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(7)
    say("as it is", fitting(xla=False))

    width = numeric * (spec.bins + 1)
    for kind in (tf.float32, tf.bfloat16):
        inputs = tf.cast(tf.random.uniform([BATCH, width], seed=7), kind)
        kernel = tf.cast(tf.random.normal([width, 128], seed=7), kind)

        @tf.function(autograph=False)
        def products(inputs: tf.Tensor = inputs, kernel: tf.Tensor = kernel) -> tf.Tensor:
            return tf.matmul(inputs, tf.matmul(inputs, kernel), transpose_a=True)

        say(
            f"the first layer's products in {kind.name}",
            lambda products=products: [products() for _ in range(STEPS)],
        )


def main() -> None:
    """Measures passes or steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("passes", "steps"):
        command = commands.add_parser(name)
        command.add_argument("case", type=Path, help="a folder that benchmarks.speed made")
        if name == "passes":
            command.add_argument("--epochs", type=int, nargs="+", default=[6, 4, 3, 2])
            command.add_argument("--seeds", type=int, nargs="+", default=[7, 8])
    options = parser.parse_args()

    from fraud.pipeline.startup import import_tfx

    import_tfx()
    if options.command == "passes":
        passes(Case(options.case), options.epochs, options.seeds)
    else:
        steps(Case(options.case))


if __name__ == "__main__":
    main()

"""Compares the network with variants of it on tables of a few thousand rows.

    python -m benchmarks.models.variants --only attrition caravan-insurance churn

The variants are ideas from the literature that the pipeline does not use, or not in this form, and
the network without what it does use. Each changes one thing about the default network and keeps its
training, epochs and number of members:

- one member: a plain multilayer perceptron with a single hold-out of 20 %;
- TabM: members share the weights of each layer up to factors for its inputs and outputs
  (Gorishniy, Kotelnikov, Babenko, ICLR 2025), and here also the embeddings and fraud rates;
- packed: members in four groups with different learning rates, weight decays and dropout; the two
  groups with the best held-out average precision are kept (after TabPack, Gorishniy et al., 2026);
- Mish, label smoothing, scaled inputs: three of the tricks of RealMLP (Holzmüller, Grinsztajn,
  Steinwart, NeurIPS 2024), each alone;
- category counts: beside each category, the logarithm of the number of its train rows, plus one;
- no fraud rates: categories without their fraud rate beside them.

Results that exist are not computed again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

from benchmarks.models.tables import splits, write_generated

if TYPE_CHECKING:
    from fraud.models.spec import Network
    from fraud.pipeline.backtest.rows import FoldRows
    from fraud.pipeline.config import Config

SMOOTHING = 0.1
GROUPS: list[dict[str, float]] = [
    {},
    {"learning_rate": 2e-3, "weight_decay": 0.1},
    {"dropout": 0.4},
    {"learning_rate": 8e-3, "weight_decay": 0.03, "dropout": 0.3},
]


def main() -> None:
    """Fits what is missing, and prints the mean average precision of each variant by table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("build/tables"), help="for the results")
    parser.add_argument("--folder", type=Path, nargs="*", default=[], help="folders of more tables")
    parser.add_argument("--only", nargs="*", help="names of tables", required=True)
    parser.add_argument("--variants", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--splits", type=int, default=2)
    options = parser.parse_args()

    from fraud.pipeline.startup import import_tfx

    write_generated(options.out / "data", options.only)
    import_tfx()
    files = {
        file.stem: file
        for folder in (options.out / "data", *options.folder)
        for file in folder.glob("*.yaml")
    }
    if unknown := set(options.only) - set(files):
        parser.error(f"--only: no table {', '.join(sorted(unknown))}")
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    for table in options.only:
        for number, (config, train, test) in enumerate(splits(files[table], options.splits)):
            for name in options.variants:
                kept = options.out / "variants" / table / f"{name}-{number}.json"
                if not kept.exists():
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    measured = measure(VARIANTS[name], config, train, test)
                    kept.write_text(json.dumps(measured), encoding="utf-8")
                result = json.loads(kept.read_text(encoding="utf-8"))
                results.setdefault(name, {}).setdefault(table, []).append(result)
                print(table, number, name, result, file=sys.stderr, flush=True)
    print(f"| average precision | {' | '.join(options.only)} | mean | CPU s a fit |")
    print("|---|" + "---|" * (len(options.only) + 2))
    for name, of_tables in results.items():
        means = [statistics.fmean(r["average_precision"] for r in of_tables[t]) for t in of_tables]
        seconds = statistics.fmean(r["cpu_seconds"] for runs in of_tables.values() for r in runs)
        cells = " | ".join(f"{mean:.3f}" for mean in [*means, statistics.fmean(means)])
        print(f"| {name} | {cells} | {seconds:.0f} |")


Fit = Callable[["Config", "FoldRows", "FoldRows"], Any]
"""Returns the scores of the test rows."""


def measure(fit: Fit, config: Config, train: FoldRows, test: FoldRows) -> dict[str, float]:
    """Fits a variant; returns its average precision on the test rows, and CPU seconds."""
    import keras

    from fraud.models.evaluation import metrics

    started = process_time()
    scores = fit(config, train, test)
    keras.utils.clear_session()
    return {
        "average_precision": metrics.average_precision(test.labels, scores),
        "cpu_seconds": process_time() - started,
    }


def default(config: Config, train: FoldRows, test: FoldRows) -> Any:
    """The network as it is."""
    return _fitted(config, train, test, config.network)[0]


def one_member(config: Config, train: FoldRows, test: FoldRows) -> Any:
    """A single network that holds out 20 % of the rows."""
    network = dataclasses.replace(config.network, members=1, validation_percent=20)
    return _fitted(config, train, test, network)[0]


def tabm(config: Config, train: FoldRows, test: FoldRows) -> Any:
    """Members that share their weights up to factors."""
    with _members(_shared):
        return default(config, train, test)


def mish(config: Config, train: FoldRows, test: FoldRows) -> Any:
    """Another activation."""
    with _members(_mish):
        return default(config, train, test)


def scaled(config: Config, train: FoldRows, test: FoldRows) -> Any:
    """A factor for each input, learnt six times as fast as the weights, as RealMLP does."""
    with _members(_scaled):
        return default(config, train, test)


def smoothed(config: Config, train: FoldRows, test: FoldRows) -> Any:
    """Labels that are not quite 0 and 1; the calibration undoes what that does to the scores."""
    from fraud.models.network import training

    plain = training.MemberLoss

    class SmoothedLoss(plain):  # type: ignore[misc, valid-type]
        def call(self, y_true, y_pred):  # type: ignore[no-untyped-def]
            import keras

            known = y_true != training.NO_LABEL
            return super().call(
                keras.ops.where(known, y_true * (1 - SMOOTHING) + SMOOTHING / 2, y_true), y_pred
            )

    training.MemberLoss = SmoothedLoss  # type: ignore[misc]
    try:
        return default(config, train, test)
    finally:
        training.MemberLoss = plain  # type: ignore[misc]


def packed(config: Config, train: FoldRows, test: FoldRows) -> Any:
    """Groups of members with settings of their own, of which the better half is kept."""
    from fraud.models.network import defaults

    names = _names(config)
    members = defaults.resolve(config.network, train.labels.size, len(names.categorical)).members
    outcomes = []
    for number, group in enumerate(GROUPS):
        settings: dict[str, Any] = {"members": max(3, members // len(GROUPS)), **group}
        network = dataclasses.replace(config.network, seed=config.network.seed + number, **settings)
        outcomes.append(_fitted(config, train, test, network))
    best = sorted(outcomes, key=lambda outcome: outcome[1], reverse=True)[: len(GROUPS) // 2]
    return sum(scores for scores, _ in best) / len(best)


def category_counts(config: Config, train: FoldRows, test: FoldRows) -> Any:
    """How often each category occurs, as one more number."""
    import numpy as np

    names = _names(config).categorical
    counts: dict[str, tuple[Any, Any]] = {}
    for name in names:
        values, rows = np.unique(train.columns[name], return_counts=True)
        counts[f"{name}_count"] = values, rows

    def counted(rows: FoldRows) -> FoldRows:
        columns = dict(rows.columns)
        for name in names:
            values, of_each = counts[f"{name}_count"]
            place = np.searchsorted(values, columns[name]).clip(0, len(values) - 1)
            known = values[place] == columns[name]
            logs = np.log1p(np.where(known, of_each[place], 0))
            columns[f"{name}_count"] = logs.astype(np.float32)
        return dataclasses.replace(rows, columns=columns)

    dataset = config.dataset
    dataset = dataclasses.replace(dataset, numeric=(*dataset.numeric, *counts))
    return default(dataclasses.replace(config, dataset=dataset), counted(train), counted(test))


def without_rates(config: Config, train: FoldRows, test: FoldRows) -> Any:
    """All categories have the average fraud rate."""
    import numpy as np

    from fraud.models.network import rates

    plain = rates.log_odds

    def zeros(*args: Any) -> list[Any]:
        return [np.zeros_like(table) for table in plain(*args)]

    rates.log_odds = zeros  # type: ignore[assignment]
    try:
        return default(config, train, test)
    finally:
        rates.log_odds = plain


VARIANTS: dict[str, Fit] = {
    "this network": default,
    "one member": one_member,
    "TabM": tabm,
    "packed": packed,
    "Mish": mish,
    "label smoothing": smoothed,
    "scaled inputs": scaled,
    "category counts": category_counts,
    "no fraud rates": without_rates,
}


def _names(config: Config) -> Any:
    from fraud.models.columns import ModelColumns

    return ModelColumns.of(config.dataset, config.features)


def _fitted(config: Config, train: FoldRows, test: FoldRows, network: Network) -> tuple[Any, float]:
    """The scores of the test rows, and the average precision on held-out rows."""
    from fraud.models.examples import Examples
    from fraud.models.network import training
    from fraud.models.preprocessing import in_memory

    names = _names(config)
    with tempfile.TemporaryDirectory() as folder:
        encode = in_memory.learn(train.columns, names, network, folder)
        examples = Examples(encode(train.columns), train.labels, train.timestamps, train.cards)
        budget = config.evaluation.budget(config.dataset)
        fitted = training.fit(network, examples, encode.vocabularies, budget)
        return fitted.scores(encode(test.columns)), fitted.validation["average_precision"]


@contextlib.contextmanager
def _members(variant: Callable[[type], type]) -> Iterator[None]:
    """Networks that are built meanwhile have members of another class."""
    from fraud.models.network import architecture

    plain = architecture.Members
    architecture.Members = variant(plain)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        architecture.Members = plain  # type: ignore[misc]


def _shared(plain: type) -> type:
    """TabM: one kernel per layer for all members; of each member its own factors and biases."""
    import keras
    import numpy as np
    from keras import ops

    class SharedMembers(plain):
        def build(self, input_shape: Any) -> None:
            widths = (int(input_shape[-1]), *self.hidden, 1)
            self.layers_of: list[tuple[Any, Any, Any, Any]] = []
            for i, (width, units) in enumerate(itertools.pairwise(widths)):
                limit = np.sqrt(6 / (width + units))
                uniform = keras.initializers.RandomUniform(-limit, limit, seed=self.seed + i)
                signs = np.sign(np.random.default_rng(self.seed).normal(size=(self.members, width)))
                # Only the first layer's factors differ at the start; the last layer is not shared.
                start = signs if i == 0 else np.ones((self.members, width))
                last = i == len(self.hidden)
                shape = (self.members, width, units) if last else (width, units)
                self.layers_of.append(
                    (
                        self.add_weight(name=f"kernel_{i}", shape=shape, initializer=uniform),
                        self.add_weight(
                            name=f"inputs_{i}",
                            shape=start.shape,
                            initializer=keras.initializers.Constant(start),
                        ),
                        self.add_weight(
                            name=f"outputs_{i}", shape=(self.members, units), initializer="ones"
                        ),
                        self.add_weight(
                            name=f"bias_{i}", shape=(self.members, units), initializer="zeros"
                        ),
                    )
                )

        def call(self, encoded, training=False):  # type: ignore[no-untyped-def]
            x = ops.expand_dims(encoded, 1)
            for i, (kernel, inputs, outputs, bias) in enumerate(self.layers_of):
                if i:
                    x = self.dropouts[i - 1](ops.relu(x), training=training)
                x = x * inputs
                product = (
                    ops.einsum("bmi,mio->bmo", x, kernel)
                    if i == len(self.hidden)
                    else ops.matmul(x, kernel)
                )
                x = product * outputs + bias
            return x[:, :, 0]

    return SharedMembers


def _mish(plain: type) -> type:
    from keras import ops

    class MishMembers(plain):
        def activate(self, x):  # type: ignore[no-untyped-def]
            return x * ops.tanh(ops.softplus(x))

    return MishMembers


def _scaled(plain: type) -> type:
    class ScaledMembers(plain):
        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            # A weight that acts sixfold is learnt six times as fast by Adam.
            self.scale = self.add_weight(
                name="scale", shape=(int(input_shape[-1]),), initializer="zeros"
            )

        def call(self, encoded, training=False):  # type: ignore[no-untyped-def]
            return super().call(encoded * (1 + 6 * self.scale), training=training)

    return ScaledMembers


if __name__ == "__main__":
    main()

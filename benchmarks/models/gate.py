"""Measures which challengers the comparison with the champion refuses, and how often.

    nice python -m benchmarks.models.gate --scores build/gate

Simulates small banks with the sample's parameters but other seeds, and trains on them as a run
does, in memory. Each champion is compared with three challengers: one whose network started from
another seed, one trained on a train window with 20 % of the labels flipped, and one without any
feature of known labels. Prints for each kind how many the Evaluator's rule refuses with the
sample's settings, and how many would be refused if the drops themselves were compared with what is
allowed. Scores are kept in the folder; a bank whose scores are there is not trained again.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fraud.features.spec import Features
    from fraud.models.evaluation.bootstrap import Replicates
    from fraud.pipeline.backtest.rows import FoldRows
    from fraud.pipeline.config import Config

SAMPLE = "data/sample/config.yaml"
FLIPPED = 0.2
SEED, LABELS, RISK = "another seed", "20 % of labels flipped", "no risk features"


def main() -> None:
    """Trains what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--scores", type=Path, required=True, help="the folder for the scores")
    parser.add_argument("--banks", type=int, default=4, help="simulated data sets")
    parser.add_argument("--seeds", type=int, default=10, help="champions trained on each")
    options = parser.parse_args()

    import numpy as np

    from fraud.pipeline import config

    sample = config.load(SAMPLE)
    options.scores.mkdir(parents=True, exist_ok=True)
    trials: dict[str, list[Replicates]] = {SEED: [], LABELS: [], RISK: []}
    for bank in range(options.banks):
        file = options.scores / f"bank-{bank}.npz"
        if not file.exists():
            np.savez(file, **dict(scores(bank, options.seeds, sample)))
        with np.load(file) as saved:
            for kind, replicates in compared(dict(saved), options.seeds):
                trials[kind].append(replicates)
    print(table_of(trials, sample))


def scores(bank: int, seeds: int, sample: Config) -> Iterator[tuple[str, NDArray]]:
    """Trains all models of a bank.

    Args:
      bank: the seed of the simulation.
      seeds: the number of champions.
      sample: the configuration.

    Yields:
      The labels and cards of the eval window, then for each model its scores there, with its
      threshold at the end.
    """
    import keras
    import numpy as np

    from fraud.pipeline.startup import import_tfx

    import_tfx()
    from fraud.models.network import training

    blind = replace(sample, features=without_risk(sample.features))
    (train, test), (train_blind, test_blind) = windows(bank, sample, blind)
    yield "labels", test.labels
    yield "cards", test.cards
    random = np.random.default_rng(bank)
    with tempfile.TemporaryDirectory() as temporary:
        encoded = encode(train, test, sample, Path(temporary, "whole"))
        encoded_blind = encode(train_blind, test_blind, blind, Path(temporary, "blind"))
        for seed in range(seeds):
            flipped = np.where(random.random(train.labels.size) < FLIPPED, 1, 0) ^ train.labels
            columns = {**train.columns, sample.dataset.label: flipped}
            wrong = replace(train, columns=columns, labels=flipped)
            models = {
                SEED: encoded,
                LABELS: encode(wrong, test, sample, Path(temporary, str(seed))),
                RISK: encoded_blind,
            }
            for kind, (examples, vocabularies, inputs) in models.items():
                # A challenger has another seed than its champion, whatever else differs.
                network = replace(sample.network, seed=seed if kind == SEED else seeds + seed)
                fitted = training.fit(
                    network, examples, vocabularies, sample.evaluation.alert_budget
                )
                yield f"{kind} {seed}", np.append(fitted.scores(inputs), fitted.threshold)
                keras.utils.clear_session()


def windows(bank: int, *configs: Config) -> list[tuple[FoldRows, FoldRows]]:
    """Simulates a bank; returns the train and the eval window of a run for each configuration."""
    from fraud.data.spec import Simulation
    from fraud.data.writer import write_days
    from fraud.features.batch import history_days
    from fraud.pipeline.backtest import folds, rows
    from fraud.pipeline.ingestion.source import discover
    from fraud.pipeline.windows import windows_for

    lengths, delay = configs[0].windows, configs[0].windows.label_delay_days
    history = history_days(configs[0].features, delay)
    days = history + lengths.train_days + delay + lengths.eval_days + delay
    simulation = Simulation(days=days, seed=bank)
    planned = windows_for(
        simulation.start + timedelta(days=days - 1),
        train_days=lengths.train_days,
        eval_days=lengths.eval_days,
        label_delay_days=delay,
        history_days=history,
    )
    # The Evaluator knows no blocked cards: no fraud is "known" before the window is over.
    after = planned.eval.last + timedelta(days=1)
    fold = folds.Fold(planned.train, planned.eval, known_since=after)
    with tempfile.TemporaryDirectory() as data:
        write_days(simulation, data)
        table = rows.read(discover(data, configs[0].dataset), planned, configs[0])
    return [rows.split(table, fold, config) for config in configs]


def without_risk(features: Features) -> Features:
    """The same features except for those that read known labels."""
    from fraud.features.definitions import FAMILIES

    groups = [
        replace(group, families=tuple(f for f in group.families if FAMILIES[f].kind != "risk"))
        for group in features.groups
    ]
    return replace(features, groups=tuple(group for group in groups if group.families))


def encode(train: FoldRows, test: FoldRows, config: Config, folder: Path) -> tuple[Any, Any, Any]:
    """Learns the encoding of a train window.

    Returns:
      The encoded train window, the vocabularies, and the inputs of the eval window.
    """
    from fraud.models.columns import ModelColumns
    from fraud.models.examples import Examples
    from fraud.models.preprocessing import in_memory

    folder.mkdir()
    columns = ModelColumns.of(config.dataset, config.features)
    encoding = in_memory.learn(train.columns, columns, config.network, str(folder))
    examples = Examples(encoding(train.columns), train.labels, train.timestamps, train.cards)
    return examples, encoding.vocabularies, encoding(test.columns)


def compared(saved: Mapping[str, NDArray], seeds: int) -> Iterator[tuple[str, Replicates]]:
    """Compares each champion with its challengers; yields kind and replicates."""
    from fraud.models.evaluation import bootstrap

    def outputs(kind: str, seed: int) -> bootstrap.Outputs:
        *_, limit = of_model = saved[f"{kind} {seed}"]
        return bootstrap.Outputs(of_model[:-1], of_model[:-1] >= limit)

    for seed in range(seeds):
        # The next champion is the challenger that differs in its seed alone.
        for kind, of in ((SEED, (seed + 1) % seeds), (LABELS, seed), (RISK, seed)):
            both = {"champion": outputs(SEED, seed), "challenger": outputs(kind, of)}
            yield kind, bootstrap.replicate(saved["labels"], both, saved["cards"])


def table_of(trials: Mapping[str, list[Replicates]], sample: Config) -> str:
    """Formats the refusals as a Markdown table."""
    from fraud.models.evaluation import registry

    allowed = {
        metric.name: getattr(sample.evaluation, metric.max_drop)
        for metric in registry.METRICS
        if metric.max_drop
    }
    highest = sample.evaluation.max_drop_probability
    lines = [
        "| challenger | trials | refused | by point values | median change of average precision |",
        "|---|---|---|---|---|",
    ]
    for kind, each in trials.items():
        refused = by_value = 0
        for one in each:
            chances = [
                one.drop_probability(metric, "challenger", "champion", tolerance)
                for metric, tolerance in allowed.items()
            ]
            changes = {m: one.change(m, "challenger", "champion")[0] for m in allowed}
            refused += any(not chance <= highest for chance in chances)
            by_value += any(not changes[m] >= -tolerance for m, tolerance in allowed.items())
        median = statistics.median(
            one.change("average_precision", "challenger", "champion")[0] for one in each
        )
        lines.append(f"| {kind} | {len(each)} | {refused} | {by_value} | {median:+.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

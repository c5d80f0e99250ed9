"""Measures which challengers the comparison with the champion refuses, and how often.

    nice python -m benchmarks.models.gate --scores build/gate

Simulates small banks with the sample's parameters but other seeds, and trains on them as a run
does, in memory. Each champion is compared with four challengers: one whose network started from
another seed; itself, if the champion is one trained a week earlier; one trained on a window with
20 % of the labels flipped, from the encoding to the threshold; and one without any feature of known
labels. Prints for each kind how many the Evaluator's rule refuses with the sample's settings, how
many it would refuse without Brier skill, and how many would be refused if the drops themselves were
compared with what is allowed; first with an eval window of one week, then of four. Scores are kept
in the folder; a champion whose scores are there is not trained again.

The limits were chosen on banks 0 to 3.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fraud.features.spec import Features
    from fraud.models.evaluation.bootstrap import Replicates
    from fraud.pipeline.backtest.rows import FoldRows
    from fraud.pipeline.config import Config

SAMPLE = "data/sample/config.yaml"
EVAL_DAYS = (7, 28)
FLIPPED = 0.2
WEEK = 7  # days
SEED, NEWER = "another seed", "a week newer"
LABELS, RISK = "20 % of labels flipped", "no risk features"
EARLIER = "a week earlier"


def main() -> None:
    """Trains what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--scores", type=Path, required=True, help="the folder for the scores")
    parser.add_argument("--banks", type=int, nargs="+", default=[4, 5, 6, 7], help="their seeds")
    parser.add_argument("--champions", type=int, default=10, help="champions of each bank")
    options = parser.parse_args()

    from fraud.pipeline import config

    sample = config.load(SAMPLE)
    options.scores.mkdir(parents=True, exist_ok=True)
    for bank in options.banks:
        train_missing(bank, range(options.champions), sample, options.scores)
    lines = [
        "| challenger | eval days | trials | refused | without Brier skill | by point values "
        "| change of AP, median |",
        "|---|---|---|---|---|---|---|",
    ]
    for days in EVAL_DAYS:
        trials: dict[str, list[Replicates]] = {kind: [] for kind in (SEED, NEWER, LABELS, RISK)}
        for bank in options.banks:
            for kind, replicates in compared(options.scores, bank, options.champions, days):
                trials[kind].append(replicates)
        lines += [line(kind, days, each, sample) for kind, each in trials.items()]
    print("\n".join(lines))


def file_of(folder: Path, bank: int, seed: int) -> Path:
    """The scores of a champion and its challengers."""
    return folder / f"bank-{bank}-champion-{seed}.npz"


def train_missing(bank: int, seeds: Iterable[int], sample: Config, folder: Path) -> None:
    """Trains the champions and challengers of a bank whose scores are not in the folder.

    Saves labels, cards and days of the eval window and, for each kind, the scores with the
    model's threshold at the end. What `SEED` names is the champion, and also the challenger of the
    champion before it and of the one that `EARLIER` names.

    Args:
      bank: the seed of the simulation.
      seeds: those of the champions' networks.
      sample: the configuration.
      folder: where scores are.
    """
    missing = [seed for seed in seeds if not file_of(folder, bank, seed).exists()]
    if not missing:
        return
    import keras
    import numpy as np

    from fraud.pipeline.startup import import_tfx

    import_tfx()
    from fraud.models.network import training
    from fraud.time import SECONDS_PER_DAY

    blind = replace(sample, features=without_risk(sample.features))
    (earlier, train, test), (_, train_blind, test_blind) = windows(bank, sample, blind)
    with tempfile.TemporaryDirectory() as temporary:
        whole = encode(train, test, sample, Path(temporary, "whole"))
        before = encode(earlier, test, sample, Path(temporary, "earlier"))
        without = encode(train_blind, test_blind, blind, Path(temporary, "blind"))
        for seed in missing:
            flips = np.random.default_rng([bank, seed]).random(train.labels.size) < FLIPPED
            labels = np.where(flips, 1 - train.labels, train.labels)
            columns = {**train.columns, sample.dataset.label: labels}
            wrong = replace(train, labels=labels, columns=columns)
            flipped = encode(wrong, test, sample, Path(temporary, f"flipped-{seed}"))
            saved = {
                "labels": test.labels,
                "cards": test.cards,
                "days": test.timestamps // SECONDS_PER_DAY - test.timestamps[0] // SECONDS_PER_DAY,
            }
            for kind, (examples, vocabularies, inputs) in (
                (SEED, whole),
                (EARLIER, before),
                (LABELS, flipped),
                (RISK, without),
            ):
                budget = sample.evaluation.budget(sample.dataset)
                network = replace(sample.network, seed=seed if kind == SEED else 1000 + seed)
                fitted = training.fit(network, examples, vocabularies, budget)
                saved[kind] = np.append(fitted.scores(inputs), fitted.threshold)
                keras.utils.clear_session()
            np.savez(file_of(folder, bank, seed), **saved)


def windows(bank: int, *configs: Config) -> list[tuple[FoldRows, FoldRows, FoldRows]]:
    """Simulates a bank.

    Returns:
      For each configuration the train window of a run a week earlier, the train window, and the
      eval window.
    """
    from fraud.data.spec import Simulation
    from fraud.data.writer import write_days
    from fraud.features.batch import history_days
    from fraud.pipeline.backtest import folds, rows
    from fraud.pipeline.ingestion.source import discover
    from fraud.pipeline.windows import Window, windows_for

    lengths, delay = configs[0].windows, configs[0].windows.label_delay_days
    eval_days, train_days = max(EVAL_DAYS), WEEK + lengths.train_days
    history = history_days(configs[0].features, configs[0].dataset, delay)
    days = history + train_days + delay + eval_days + delay
    simulation = Simulation(days=days, seed=bank)
    planned = windows_for(
        simulation.start + timedelta(days=days - 1),
        train_days=train_days,
        eval_days=eval_days,
        label_delay_days=delay,
        history_days=history,
    )
    week = timedelta(days=WEEK)
    train = Window(planned.train.first + week, planned.train.last)
    earlier = Window(planned.train.first, planned.train.last - week)
    # The Evaluator knows no blocked cards: no fraud is "known" before the window is over.
    after = planned.eval.last + timedelta(days=1)
    with tempfile.TemporaryDirectory() as data:
        write_days(simulation, data)
        table = rows.read(discover(data, configs[0].dataset), planned, configs[0])
    of_runs = [folds.Fold(window, planned.eval, after) for window in (earlier, train)]
    splits = [[rows.split(table, fold, config) for fold in of_runs] for config in configs]
    return [(before, now, test) for (before, _), (now, test) in splits]


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


def compared(
    folder: Path, bank: int, champions: int, days: int
) -> Iterator[tuple[str, Replicates]]:
    """Compares each champion of a bank with its challengers on the first days of the eval window.

    Yields:
      The kind of the challenger, and the replicates of both.
    """
    import numpy as np

    from fraud.models.evaluation import bootstrap

    saved = [dict(np.load(file_of(folder, bank, seed))) for seed in range(champions)]
    for seed, of in enumerate(saved):
        rows = np.flatnonzero(of["days"] < days)
        of_kinds = {
            SEED: (of[SEED], saved[(seed + 1) % champions][SEED]),
            NEWER: (of[EARLIER], of[SEED]),
            LABELS: (of[SEED], of[LABELS]),
            RISK: (of[SEED], of[RISK]),
        }
        for kind, pair in of_kinds.items():
            outputs = {}
            for name, scores in zip(("champion", "challenger"), pair, strict=True):
                outputs[name] = bootstrap.Outputs(scores[rows], scores[rows] >= scores[-1])
            yield kind, bootstrap.replicate(of["labels"][rows], outputs, of["cards"][rows])


def line(kind: str, days: int, trials: list[Replicates], sample: Config) -> str:
    """Formats the refusals of one kind of challenger as a row of a Markdown table."""
    from fraud.models.evaluation import registry

    allowed = {
        metric.name: getattr(sample.evaluation, metric.max_drop)
        for metric in registry.METRICS
        if metric.max_drop
    }
    refused = by_rank = by_value = 0
    for trial in trials:
        over, below = set(), set()
        for metric, most in allowed.items():
            drop = trial.drop_probability(metric, "challenger", "champion", most)
            if drop is not None and not drop <= sample.evaluation.max_drop_probability:
                over.add(metric)
            if not trial.change(metric, "challenger", "champion")[0] >= -most:
                below.add(metric)
        refused += bool(over)
        by_rank += bool(over - {"brier_skill"})
        by_value += bool(below)
    median = statistics.median(
        trial.change("average_precision", "challenger", "champion")[0] for trial in trials
    )
    counts = f"{len(trials)} | {refused} | {by_rank} | {by_value}"
    return f"| {kind} | {days} | {counts} | {median:+.3f} |"


if __name__ == "__main__":
    main()

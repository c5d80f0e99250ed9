"""Trains and tests each fold in a process of its own, which loads TensorFlow."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from time import process_time

import pyarrow as pa

from fraud.errors import BadInput, FraudPipelineError
from fraud.pipeline.backtest.folds import Fold
from fraud.pipeline.backtest.result import Outcome, evaluate
from fraud.pipeline.backtest.rows import split
from fraud.pipeline.config import Config

PROCESS_BYTES = 1_200_000_000
"""The memory a process needs besides its data: TensorFlow, Beam and their working space."""

COPIES = 6
"""How many copies of a fold's columns are in memory at once: read, in Transform, as inputs."""


def run(
    table: pa.Table,
    planned: Sequence[Fold],
    config: Config,
    seeds: Sequence[int],
    folder: Path,
    jobs: int,
) -> Generator[tuple[int, Outcome], None, None]:
    """Trains and tests all folds.

    Args:
      table: the result of `rows.read`.
      planned: the folds.
      config: the dataset, features, network and alert budget.
      seeds: one model of each fold is trained for each.
      folder: an existing folder for the folds' logs.
      jobs: how many folds run at once.

    Yields:
      (index of the fold, its outcome), in the order in which folds finish.

    Raises:
      FraudPipelineError: a fold failed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = os.path.join(temporary, "rows.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        # A child must not share TensorFlow's or Arrow's threads with its parent.
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=fresh) as pool:
            waiting = {}
            for number, fold in enumerate(planned):
                log = str(folder / f"fold-{number + 1}.log")
                submitted = pool.submit(fit_and_evaluate, fold, path, config, seeds, log)
                waiting[submitted] = number, log
            try:
                for done in as_completed(waiting):
                    number, log = waiting[done]
                    try:
                        yield number, done.result()
                    except BrokenProcessPool:
                        raise FraudPipelineError(
                            "a backtest process was killed, perhaps because memory ran out; "
                            f"try --jobs {max(1, jobs - 1)}; logs: {folder}"
                        ) from None
                    except FraudPipelineError:
                        raise
                    except Exception as error:
                        reason = str(error).strip().splitlines() or [type(error).__name__]
                        raise FraudPipelineError(
                            f"fold {number + 1} failed: {reason[-1]}; log: {log}"
                        ) from None
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def jobs_that_fit(table: pa.Table, planned: Sequence[Fold]) -> int:
    """How many folds can run at once, limited by cores and available memory."""
    days = max(fold.train.days + fold.test.days for fold in planned)
    all_days = (planned[-1].test.last - planned[0].train.first).days + 1
    needed = PROCESS_BYTES + COPIES * table.nbytes * min(1, days / all_days)
    try:
        memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(memory["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return 1  # this system does not report its available memory
    return max(1, min(len(planned), os.cpu_count() or 1, int(free / needed)))


def fit_and_evaluate(
    fold: Fold, table_file: str, config: Config, seeds: Sequence[int], log_file: str
) -> Outcome:
    """Trains a model per seed on the train rows of a fold and evaluates each on its test rows.

    Runs in a process of its own, whose output goes to `log_file`. `table_file` has the rows of all
    folds.

    Raises:
      BadInput: no train row is a fraud, or there are no test rows.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    with pa.memory_map(table_file) as source:
        table = pa.ipc.open_file(source).read_all()
        train, test = split(table, fold, config)
    if not train.labels.any():
        raise BadInput(f"no fraud in the train window {fold.train}: nothing to learn from")
    if not test.labels.size:
        raise BadInput(f"no rows to test on in {fold.test}: everyone had a known fraud before")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    from fraud.models.columns import ModelColumns
    from fraud.models.examples import Examples
    from fraud.models.network import training
    from fraud.models.preprocessing import in_memory

    columns = ModelColumns.of(config.dataset, config.features)
    by_seed = {}
    with tempfile.TemporaryDirectory() as learned:
        started = process_time()
        preprocessing = in_memory.learn(train.columns, columns, config.network, learned)
        examples = Examples(
            preprocessing(train.columns), train.labels, train.timestamps, train.cards
        )
        prepared = process_time() - started
        inputs = preprocessing(test.columns)
        for seed in seeds:
            started = process_time()
            fitted = training.fit(
                dataclasses.replace(config.network, seed=seed),
                examples,
                preprocessing.vocabularies,
                config.evaluation.budget(config.dataset),
            )
            seconds = prepared + process_time() - started
            metrics = evaluate(test, fitted.scores(inputs), config)
            by_seed[seed] = {**metrics, "train_cpu_seconds": seconds}
    return Outcome(test.labels.size, int(test.labels.sum()), by_seed)

"""The folds of a backtest, each fitted and judged in a process that has TensorFlow."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from fraud.errors import BadInput, FraudPipelineError
from fraud.pipeline import backtest
from fraud.pipeline.backtest import Fold, Outcome
from fraud.pipeline.config import Config

PROCESS_BYTES = 1_200_000_000
"""What a process needs besides data: TensorFlow, Beam, and room for their work."""

COPIES = 6
"""How often the columns of a fold are in memory at once: as columns, in Transform, as inputs."""


@dataclass(frozen=True)
class Task:
    """What a process is told.

    Attributes:
      fold: which.
      table: the file that has the rows of all folds.
      config: the dataset, features, network and alert budget.
      seeds: of the models.
      log: where what libraries print goes.
    """

    fold: Fold
    table: str
    config: Config
    seeds: tuple[int, ...]
    log: str


def run(
    table: pa.Table,
    planned: Sequence[Fold],
    config: Config,
    seeds: Sequence[int],
    folder: Path,
    jobs: int,
) -> Generator[tuple[int, Outcome], None, None]:
    """Fits and judges all folds.

    Args:
      table: of `backtest.read`.
      planned: the folds.
      config: the dataset, features, network and alert budget.
      seeds: of the models of each fold.
      folder: for the folds' logs; it exists.
      jobs: how many folds at once.

    Yields:
      (number of the fold, its outcome), as they come.

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
                task = Task(fold, path, config, tuple(seeds), log)
                waiting[pool.submit(fit_and_judge, task)] = number, log
            try:
                for done in as_completed(waiting):
                    number, log = waiting[done]
                    try:
                        yield number, done.result()
                    except BrokenProcessPool:
                        raise FraudPipelineError(
                            f"a process of the backtest was killed, perhaps for want of memory; "
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
    """How many folds can be at work at once: no more than there are cores, and memory for."""
    days = max(fold.train.days + fold.test.days for fold in planned)
    all_days = (planned[-1].test.last - planned[0].train.first).days + 1
    needed = PROCESS_BYTES + COPIES * table.nbytes * min(1, days / all_days)
    try:
        memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(memory["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return 1  # this system does not say
    return max(1, min(len(planned), os.cpu_count() or 1, int(free / needed)))


def fit_and_judge(task: Task) -> Outcome:
    """Learns from the train rows of a fold, once for each seed, and judges on its test rows.

    Raises:
      BadInput: there is no fraud to learn from, or nothing to judge on.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(task.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    with pa.memory_map(task.table) as source:
        table = pa.ipc.open_file(source).read_all()
        train, test = backtest.split(table, task.fold, task.config)
    if not train.labels.any():
        raise BadInput(f"no fraud in the train window {task.fold.train}: nothing to learn from")
    if not test.labels.size:
        raise BadInput(
            f"nothing to judge on in {task.fold.test}: all cards had a known fraud before"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    from fraud.models.columns import ModelColumns
    from fraud.models.examples import Examples
    from fraud.models.network import training
    from fraud.models.preprocessing import in_memory

    config = task.config
    columns = ModelColumns.of(config.dataset, config.features)
    by_seed = {}
    with tempfile.TemporaryDirectory() as learned:
        started = _cpu_seconds()
        preprocessing = in_memory.learn(train.columns, columns, config.network, learned)
        examples = Examples(
            preprocessing(train.columns), train.labels, train.timestamps, train.cards
        )
        prepared = _cpu_seconds() - started
        inputs = preprocessing(test.columns)
        for seed in task.seeds:
            started = _cpu_seconds()
            fitted = training.fit(
                dataclasses.replace(config.network, seed=seed),
                examples,
                preprocessing.vocabularies,
                config.evaluation.alert_budget,
            )
            seconds = prepared + _cpu_seconds() - started
            found = backtest.judged(test, fitted.scores(inputs), config)
            by_seed[seed] = {**found, "train_cpu_seconds": seconds}
    return Outcome(test.labels.size, int(test.labels.sum()), by_seed)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

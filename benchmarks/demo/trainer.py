"""The trainings that all policies share: as of a day, without some days, each made once.

A training learns preprocessing, network, calibration and threshold as the Trainer does, but in
memory (as `fraud-pipeline backtest` does). It scores the days from its eval window on until a
weekly successor would be there; further days are scored when somebody asks. Trainings are kept in a
folder by everything they depend on but the code.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from time import process_time

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.demo.bank import Bank
from fraud.codec import from_json, to_json
from fraud.pipeline.config import Config
from fraud.pipeline.windows import Windows

Key = tuple[date, tuple[date, ...], int]
"""As-of day, days of the train window that are left out, and days of the eval window."""
HORIZON = timedelta(days=8)
"""After the as-of day; what is scored by the training itself."""


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
      as_of: the last day of its data.
      excluded: days that are neither in its train nor in its eval window.
      windows: its days, those included.
      threshold: scores from which on it alerts.
      cpu_seconds: that the training took, scoring not counted.
      scores: of rows of the bank, none before its eval window.
    """

    as_of: date
    excluded: tuple[date, ...]
    windows: Windows
    threshold: float
    cpu_seconds: float
    scores: Callable[[slice | NDArray[np.int64]], NDArray[np.float32]]


class Said:
    """The scores of a model, kept in files: until the horizon, and all, once somebody asks.

    Args:
      first: the first row that it scored.
      scores: of that row and those after it, [rows].
      more: scores all rows of the bank from the first one on.
    """

    def __init__(
        self, first: int, scores: NDArray[np.float32], more: Callable[[], NDArray[np.float32]]
    ) -> None:
        self._first, self._scores, self._more = first, scores, more

    def __call__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of rows."""
        begin, end = (
            (rows.start, rows.stop)
            if isinstance(rows, slice)
            else (int(rows.min()), int(rows.max()) + 1)
        )
        if begin < self._first:
            raise ValueError(
                f"row {begin} is before the eval window, which begins at {self._first}"
            )
        if end > self._first + len(self._scores):
            self._scores = self._more()
        if isinstance(rows, slice):
            return self._scores[begin - self._first : end - self._first]
        return self._scores[rows - self._first]


class Trainer:
    """Trains models of a bank, in processes of its own.

    Args:
      bank: whose.
      folder: where trainings are kept.
      jobs: processes that train at once.
    """

    def __init__(self, bank: Bank, folder: Path, jobs: int) -> None:
        self._bank, self._folder = bank, folder
        self._models: dict[Key, Model] = {}
        folder.mkdir(parents=True, exist_ok=True)
        table = folder / "bank.arrow"
        bank.save(table)
        network = to_json(
            [bank.config.network, bank.config.windows, bank.config.features, bank.config.evaluation]
        )
        described = network.encode() + hashlib.sha256(table.read_bytes()).digest()
        self._digest = hashlib.sha256(described).hexdigest()[:16]
        fresh = multiprocessing.get_context("spawn")  # TensorFlow's threads must not be shared
        arguments = str(table), bank.config, str(folder / "trainings.log")
        self._pool = ProcessPoolExecutor(jobs, fresh, _start, arguments)

    def close(self) -> None:
        """Ends the processes."""
        self._pool.shutdown()

    def model(
        self, as_of: date, excluded: Sequence[date] = (), eval_days: int | None = None
    ) -> Model:
        """The model trained as of a day without some days; see `Bank.windows`."""
        windows = self._bank.windows(as_of, eval_days)
        left_out = tuple(day for day in sorted(excluded) if day in windows.train)
        key = as_of, left_out, windows.eval.days
        if key not in self._models:
            self.train([key])
        return replace(self._models[key], excluded=tuple(sorted(excluded)))

    def train(self, keys: Collection[Key], told: Callable[[int], None] = lambda left: None) -> None:
        """Trains what is missing, several at once; tells how many are left."""
        missing = [key for key in keys if not (self._path(key) / _SCORES).exists()]
        running = [self._pool.submit(_fit, *key, str(self._path(key))) for key in missing]
        for done, training in enumerate(as_completed(running), 1):
            training.result()
            told(len(missing) - done)
        self._models.update({key: self._load(key) for key in keys})

    def _path(self, key: Key) -> Path:
        as_of, excluded, eval_days = key
        without = hashlib.sha256(" ".join(map(str, excluded)).encode()).hexdigest()[:8]
        name = f"{as_of}-{eval_days}{f'-{without}' if excluded else ''}"
        return self._folder / self._digest / name

    def _load(self, key: Key) -> Model:
        path = self._path(key)

        def more() -> NDArray[np.float32]:
            if not (path / _ALL).exists():
                self._pool.submit(_score, key[0], key[2], str(path)).result()
            return np.load(path / _ALL)

        with np.load(path / _SCORES) as saved:
            said = Said(int(saved["first"]), saved["scores"], more)
            as_of, excluded, eval_days = key
            windows = self._bank.windows(as_of, eval_days)
            threshold, seconds = float(saved["threshold"]), float(saved["cpu_seconds"])
            return Model(as_of, excluded, windows, threshold, seconds, said)


# What follows runs in the processes that train.

_SCORES, _ALL = "scores.npz", "all.npy"
_WEIGHTS, _NETWORK, _TRANSFORM = "weights.npz", "network.json", "transform"
_bank: Bank
_columns: dict[str, NDArray]


def _start(table: str, config: Config, log: str) -> None:
    """Prepares a process that trains; what it prints goes to the log."""
    global _bank, _columns
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(sink, stream)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    import tensorflow as tf

    # As many processes as cores train at once.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from fraud.models.columns import ModelColumns

    _bank = Bank.open(Path(table), config)
    names = ModelColumns.of(config.dataset, config.features)
    _columns = {name: _bank.table[name].cast(pa.float32()).to_numpy() for name in names.numeric}
    for name in names.categorical:
        _columns[name] = _bank.table[name].cast(pa.binary()).fill_null(b"").to_numpy()
    _columns[names.label] = _bank.labels


def _fit(as_of: date, excluded: tuple[date, ...], eval_days: int, path: str) -> None:
    """Trains one model, scores, and saves both."""
    import keras

    from fraud.models.columns import ModelColumns
    from fraud.models.examples import Examples
    from fraud.models.network import training
    from fraud.models.preprocessing import in_memory

    started, config = process_time(), _bank.config
    windows = _bank.windows(as_of, eval_days)
    rows = _bank.without(_bank.rows(windows.train.first, windows.train.last), excluded)
    folder = Path(path)
    shutil.rmtree(folder, ignore_errors=True)  # an attempt that was interrupted
    (folder / _TRANSFORM).mkdir(parents=True)
    names = ModelColumns.of(config.dataset, config.features)
    columns = _of(rows)
    preprocessing = in_memory.learn(columns, names, config.network, str(folder / _TRANSFORM))
    seconds = _bank.table[config.dataset.timestamp].cast(pa.int64()).to_numpy() // 1_000_000
    fitted = training.fit(
        config.network,
        Examples(preprocessing(columns), _bank.labels[rows], seconds[rows], _bank.cards[rows]),
        preprocessing.vocabularies,
        config.evaluation.budget(config.dataset),
    )
    spent = process_time() - started
    (folder / _NETWORK).write_text(to_json(fitted.spec), "utf-8")
    np.savez(folder / _WEIGHTS, *fitted.model.get_weights())
    scored = _bank.rows(windows.eval.first, as_of + HORIZON)
    scores = fitted.scores(preprocessing(_of(scored)))
    keras.utils.clear_session()
    partial = folder / f"partial-{_SCORES}"
    np.savez(
        partial,
        first=scored.start,
        scores=scores,
        threshold=fitted.threshold,
        cpu_seconds=spent,
    )
    os.replace(partial, folder / _SCORES)


def _score(as_of: date, eval_days: int, path: str) -> None:
    """Scores all days from the eval window on with a model that was saved."""
    import tensorflow_transform as tft

    from fraud.models.columns import ModelColumns
    from fraud.models.network.architecture import build_network
    from fraud.models.network.training import PREDICT_BATCH
    from fraud.models.preprocessing.in_memory import Preprocessing
    from fraud.models.preprocessing.transform_fn import NUMERIC
    from fraud.models.spec import ResolvedNetwork

    config, folder = _bank.config, Path(path)
    names = ModelColumns.of(config.dataset, config.features)
    transform = tft.TFTransformOutput(str(folder / _TRANSFORM))
    preprocessing = Preprocessing(transform, names, config.network)
    first = _bank.rows(_bank.windows(as_of, eval_days).eval.first, as_of).start
    inputs = preprocessing(_of(slice(first, len(_bank.days))))
    with np.load(folder / _WEIGHTS) as saved:
        weights = [saved[name] for name in saved.files]
    spec = from_json(ResolvedNetwork, (folder / _NETWORK).read_bytes())
    model = build_network(spec, inputs[NUMERIC].shape[1], preprocessing.vocabularies)
    model.set_weights(weights)
    partial = folder / f"partial-{_ALL}"
    np.save(partial, model.predict(inputs, batch_size=PREDICT_BATCH, verbose=0).reshape(-1))
    os.replace(partial, folder / _ALL)


def _of(rows: slice | NDArray[np.int64]) -> dict[str, NDArray]:
    return {name: values[rows] for name, values in _columns.items()}

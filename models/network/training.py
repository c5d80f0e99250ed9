"""Fitting the network: arrays in, a calibrated model with its alert threshold out.

The Trainer and the backtest both come here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from fraud.models.evaluation import metrics
from fraud.models.network import architecture as network
from fraud.models.network import threshold
from fraud.models.spec import Network

DAY = 86400
PREDICT_BATCH = 8192
MIN_STEPS_PER_EPOCH = 50
STEPS_PER_EXECUTION = 16  # what Python does between steps costs as much as a small step


@dataclass(frozen=True)
class Examples:
    """Examples in memory.

    Attributes:
      inputs: what the network reads: `numeric` float32 and `categorical` int64, [n, columns].
      labels: 0 or 1, [n].
      timestamps: epoch seconds, [n]; all 0 where the data has no time.
      cards: the card of each, int64 or bytes [n]; the row's number where the data has no entities.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray
    timestamps: np.ndarray
    cards: np.ndarray

    def at(self, rows: np.ndarray) -> Examples:
        """The examples at some rows."""
        return Examples(
            {name: array[rows] for name, array in self.inputs.items()},
            self.labels[rows],
            self.timestamps[rows],
            self.cards[rows],
        )


@dataclass(frozen=True)
class Fitted:
    """A trained, calibrated network.

    Attributes:
      model: from inputs to the fraud probability.
      threshold: the lowest score that alerts, at the alert budget.
      validation: metrics on the held-out cards, by name.
    """

    model: keras.Model
    threshold: float
    validation: dict[str, float]

    def scores(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Fraud probability of each example, float32 [n]."""
        return self.model.predict(inputs, batch_size=PREDICT_BATCH, verbose=0).reshape(-1)


def fit(
    spec: Network,
    examples: Examples,
    vocabularies: Mapping[str, int],
    alert_budget: int,
    log_dir: str | None = None,
) -> Fitted:
    """Trains, chooses the best epoch, calibrates and sets the alert threshold.

    All choices are made on cards that are held out of training, over the whole train window: what
    they need is what production meets, other customers; and no day is lost for training.

    Args:
      spec: the network.
      examples: of the train window, in a fixed order.
      vocabularies: by categorical column, in order, how many indices it has.
      alert_budget: cards a day.
      log_dir: where TensorBoard's logs go; None for none.
    """
    keras.utils.set_random_seed(spec.seed)
    tf.config.experimental.enable_op_determinism()
    held_out = held_out_cards(examples.cards, spec.validation_percent)
    train, validation = np.flatnonzero(~held_out), examples.at(held_out)
    model = network.build(spec, examples.inputs["numeric"].shape[1], vocabularies)
    logits = network.logits(model)

    # Few examples make small batches: without enough steps nothing is learned.
    batch = min(spec.batch_size, max(1, train.size // MIN_STEPS_PER_EPOCH))
    steps = train.size // batch * spec.epochs
    # An average over more steps than there are would mostly hold the untrained weights.
    momentum = min(spec.ema_momentum, 1 - 4 / max(steps, 4))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.05 * spec.learning_rate,
        max(1, steps - steps // 20),
        alpha=0.02,
        warmup_target=spec.learning_rate,
        warmup_steps=steps // 20,
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=spec.weight_decay, use_ema=True, ema_momentum=momentum
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    logits.compile(optimizer, _loss(spec.focal_gamma), steps_per_execution=STEPS_PER_EXECUTION)
    best = BestEpoch(validation, spec.patience, optimizer)
    logits.fit(
        _batches(examples, train, batch, spec),
        epochs=spec.epochs,
        verbose=2,
        callbacks=[best, *_tensorboard(log_dir, spec, best)],
    )
    of_validation = logits.predict(validation.inputs, PREDICT_BATCH, verbose=0).reshape(-1)
    network.calibrate(model, of_validation, validation.labels)
    fitted = Fitted(model, 0.0, {})
    scores = fitted.scores(validation.inputs)
    limit = threshold.for_budget(
        scores,
        validation.timestamps // DAY,
        validation.cards,
        alert_budget,
        share=np.unique(validation.cards).size / np.unique(examples.cards).size,
    )
    return Fitted(model, limit, _judged(validation.labels, scores, limit))


def _loss(focal_gamma: float) -> keras.losses.Loss:
    """Cross-entropy of logits, focal if gamma is not 0.

    Keras's focal loss with gamma 0 has the right value but the gradient 0 · 0⁻¹ = NaN once a
    score is so sure that it rounds to its label.
    """
    if focal_gamma == 0:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return keras.losses.BinaryFocalCrossentropy(gamma=focal_gamma, from_logits=True)


def held_out_cards(cards: np.ndarray, percent: int) -> np.ndarray:
    """Which rows are held out: all rows of about `percent` in a hundred cards.

    The choice hangs on the card alone, so that it is the same in every run.

    Args:
      cards: int64 or bytes [n].
      percent: 1 to 50.

    Returns:
      bool [n]; neither all nor none, if there are at least two cards.
    """
    values, index = np.unique(cards, return_inverse=True)
    keys = [v if isinstance(v, bytes) else str(v).encode() for v in values.tolist()]
    draw = np.array([zlib.crc32(key) % 9973 for key in keys])
    count = min(max(1, round(values.size * percent / 100)), max(1, values.size - 1))
    chosen = np.zeros(values.size, bool)
    chosen[np.argsort(draw, kind="stable")[:count]] = True
    return chosen[index]


class BestEpoch(keras.callbacks.Callback):
    """Judges the moving average of the weights after each epoch and keeps the best.

    Adds `val_average_precision` to the logs. When training ends the model has the kept weights.

    Args:
      validation: what is judged on.
      patience: epochs without a better one after which training stops.
      optimizer: holds the moving average.

    Attributes:
      validation: as given.
      logit: of the validation examples, float32 [n], at the end of the last epoch.
    """

    def __init__(
        self, validation: Examples, patience: int, optimizer: keras.optimizers.Optimizer
    ) -> None:
        super().__init__()
        self.validation, self._patience, self._optimizer = validation, patience, optimizer
        self.logit = np.zeros(validation.labels.size, np.float32)
        self._best, self._waited = -1.0, 0
        self._kept: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """See keras.callbacks.Callback."""
        trained = self.model.get_weights()
        self._optimizer.finalize_variable_values(self.model.trainable_variables)
        logit = self.model.predict(self.validation.inputs, PREDICT_BATCH, verbose=0)
        self.logit = logit.reshape(-1)
        found = metrics.average_precision(self.validation.labels, self.logit)
        if logs is not None:
            logs["val_average_precision"] = found
        # Without any fraud among the held-out cards no epoch can be told from another.
        if not self._kept or found > self._best or np.isnan(found):
            self._best, self._kept, self._waited = found, self.model.get_weights(), 0
        else:
            self._waited += 1
            self.model.stop_training = self._waited >= self._patience
        self.model.set_weights(trained)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """See keras.callbacks.Callback."""
        self.model.set_weights(self._kept)


class ScoreHistograms(keras.callbacks.Callback):
    """Writes the distribution of scores by label, and the learning rate, for TensorBoard.

    Args:
      log_dir: where its logs go.
      judged: comes before this one in the callbacks.
    """

    def __init__(self, log_dir: str, judged: BestEpoch) -> None:
        super().__init__()
        self._writer = tf.summary.create_file_writer(f"{log_dir}/validation")
        self._judged = judged

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """See keras.callbacks.Callback."""
        scores = 1 / (1 + np.exp(-self._judged.logit))
        labels = self._judged.validation.labels
        rate = self.model.optimizer.learning_rate
        with self._writer.as_default(step=epoch):
            for label, name in ((0, "genuine"), (1, "fraud")):
                tf.summary.histogram(f"scores/{name}", scores[labels == label])
            tf.summary.scalar("learning_rate", float(keras.ops.convert_to_numpy(rate)))
        self._writer.flush()


def _tensorboard(
    log_dir: str | None, spec: Network, judged: BestEpoch
) -> list[keras.callbacks.Callback]:
    if log_dir is None:
        return []
    settings = {k: str(v) if isinstance(v, tuple) else v for k, v in asdict(spec).items()}
    return [
        ScoreHistograms(log_dir, judged),
        keras.callbacks.TensorBoard(log_dir, write_graph=True),
        hparams.KerasCallback(log_dir, settings),
    ]


def _batches(examples: Examples, train: np.ndarray, batch: int, spec: Network) -> tf.data.Dataset:
    """Batches (inputs, labels, weights) of the rows `train`, in another order each epoch."""
    random = np.random.default_rng(spec.seed)
    labels = examples.labels.reshape(-1, 1).astype(np.float32)
    weights = np.where(labels == 1, np.float32(spec.positive_weight), np.float32(1))
    steps = train.size // batch

    # numpy gathers: as tensors in a graph the examples would be in memory three times.
    def epoch() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
        for rows in random.permutation(train)[: steps * batch].reshape(steps, batch):
            taken = {name: array[rows] for name, array in examples.inputs.items()}
            yield taken, labels[rows], weights[rows]

    def of(array: np.ndarray) -> tf.TensorSpec:
        return tf.TensorSpec([batch, *array.shape[1:]], array.dtype)

    inputs = {name: of(array) for name, array in examples.inputs.items()}
    batches = tf.data.Dataset.from_generator(
        epoch, output_signature=(inputs, of(labels), of(weights))
    )
    return batches.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(4)


def _judged(labels: np.ndarray, scores: np.ndarray, limit: float) -> dict[str, float]:
    alerts = scores >= limit
    return {
        "average_precision": metrics.average_precision(labels, scores),
        "roc_auc": metrics.roc_auc(labels, scores),
        "brier": metrics.brier(labels, scores),
        "expected_calibration_error": metrics.expected_calibration_error(labels, scores),
        "precision_at_budget": metrics.precision_at_budget(labels, alerts),
        "recall_at_budget": metrics.recall_at_budget(labels, alerts),
    }

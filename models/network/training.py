"""Training, for Trainer and backtest: from arrays to a calibrated model and its alert threshold."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from fraud.models.evaluation import metrics
from fraud.models.examples import Examples
from fraud.models.network import threshold
from fraud.models.network.architecture import build_network, logit_model
from fraud.models.network.calibration import calibrate
from fraud.models.spec import AlertBudget, Network

PREDICT_BATCH = 8192
MIN_STEPS_PER_EPOCH = 50
EXPLAINED = 200  # of each class
STEPS_PER_EXECUTION = 16  # Python's overhead per execution is as large as a small step


@dataclass(frozen=True)
class Fitted:
    """A trained, calibrated network.

    Attributes:
      model: from inputs to the fraud probability.
      threshold: the lowest score that raises an alert, at the alert budget.
      validation: metrics on the held-out cards, by name.
      history: `loss` of the training examples and `val_average_precision` on the held-out cards,
        of each epoch.
      sample: rows of the examples to explain the model by: held-out frauds and as many others.
    """

    model: keras.Model
    threshold: float
    validation: dict[str, float]
    history: dict[str, list[float]] = field(default_factory=dict)
    sample: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def scores(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Fraud probability of each example, float32 [n]."""
        return self.model.predict(inputs, batch_size=PREDICT_BATCH, verbose=0).reshape(-1)


def fit(
    spec: Network,
    examples: Examples,
    vocabularies: Mapping[str, int],
    budget: AlertBudget,
    log_dir: str | None = None,
) -> Fitted:
    """Trains, chooses the best epoch, calibrates and sets the alert threshold.

    All choices are made on cards held out of training over the whole train window. They stand for
    the unseen customers of production, and no day is lost for training.

    Args:
      spec: the network's settings.
      examples: the train window, in an order that is the same in every run.
      vocabularies: number of indices of each categorical column, in order.
      budget: the alerts that the threshold allows.
      log_dir: the folder of TensorBoard's logs; None for no logs.
    """
    keras.utils.set_random_seed(spec.seed)
    tf.config.experimental.enable_op_determinism()
    held_out = held_out_cards(examples.cards, spec.validation_percent)
    train, validation = np.flatnonzero(~held_out), examples.at(held_out)
    model = build_network(spec, examples.inputs["numeric"].shape[1], vocabularies)
    trained = logit_model(model)

    # Few examples mean small batches: with too few steps the network learns nothing.
    batch = min(spec.batch_size, max(1, train.size // MIN_STEPS_PER_EPOCH))
    steps = train.size // batch * spec.epochs
    # A moving average over more steps than there are would mostly hold the initial weights.
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
    trained.compile(optimizer, _loss(spec.focal_gamma), steps_per_execution=STEPS_PER_EXECUTION)
    best = BestEpoch(validation, spec.patience, optimizer)
    history = trained.fit(
        _batches(examples, train, batch, spec),
        epochs=spec.epochs,
        verbose=2,
        callbacks=[best, *_tensorboard(log_dir, spec, best)],
    )
    logit = trained.predict(validation.inputs, PREDICT_BATCH, verbose=0).reshape(-1)
    calibrate(model, logit, validation.labels)
    fitted = Fitted(model, 0.0, {})
    scores = fitted.scores(validation.inputs)
    alert_threshold = threshold.alert_threshold(
        budget,
        scores,
        validation.timestamps,
        validation.cards,
        share=np.unique(validation.cards).size / np.unique(examples.cards).size,
    )
    measured = _validation_metrics(validation.labels, scores, scores >= alert_threshold)
    by_epoch = {name: [float(v) for v in values] for name, values in history.history.items()}
    sample = _to_explain(held_out, examples.labels)
    return Fitted(model, alert_threshold, measured, by_epoch, sample)


def _to_explain(held_out: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows of held-out frauds and of as many other held-out examples, evenly spread."""
    rows = []
    for label in (0, 1):
        of_label = np.flatnonzero(held_out & (labels == label))
        count = min(EXPLAINED, of_label.size)
        rows.append(of_label[np.linspace(0, of_label.size - 1, count).astype(np.int64)])
    return np.concatenate(rows)


def _loss(focal_gamma: float) -> keras.losses.Loss:
    """Cross-entropy of logits; focal loss if gamma is not 0.

    With gamma 0, Keras's focal loss has the right value, but its gradient is 0 · 0⁻¹ = NaN as soon
    as a score rounds to its label.
    """
    if focal_gamma == 0:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return keras.losses.BinaryFocalCrossentropy(gamma=focal_gamma, from_logits=True)


def held_out_cards(cards: np.ndarray, percent: int) -> np.ndarray:
    """Selects the held-out rows: all rows of about `percent` in a hundred cards.

    The choice depends on the cards alone, so it is the same in every run.

    Args:
      cards: int64 or bytes [n].
      percent: 1 to 50.

    Returns:
      bool [n]; with at least two cards, neither all True nor all False.
    """
    values, index = np.unique(cards, return_inverse=True)
    keys = [v if isinstance(v, bytes) else str(v).encode() for v in values.tolist()]
    draw = np.array([zlib.crc32(key) % 9973 for key in keys])
    count = min(max(1, round(values.size * percent / 100)), max(1, values.size - 1))
    chosen = np.zeros(values.size, bool)
    chosen[np.argsort(draw, kind="stable")[:count]] = True
    return chosen[index]


class BestEpoch(keras.callbacks.Callback):
    """Evaluates the moving average of the weights after each epoch and keeps the best.

    Adds `val_average_precision` to the logs. When training ends, the model gets the best weights.

    Args:
      validation: the examples to evaluate on.
      patience: training stops after this many epochs in a row without improvement.
      optimizer: holds the moving average.

    Attributes:
      logit: logits of the validation examples after the latest epoch, float32 [n].
    """

    def __init__(
        self, validation: Examples, patience: int, optimizer: keras.optimizers.Optimizer
    ) -> None:
        super().__init__()
        self.validation, self._patience, self._optimizer = validation, patience, optimizer
        self.logit = np.zeros(validation.labels.size, np.float32)
        self._best, self._waited = -1.0, 0
        self._best_weights: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """See keras.callbacks.Callback."""
        trained = self.model.get_weights()
        self._optimizer.finalize_variable_values(self.model.trainable_variables)
        logit = self.model.predict(self.validation.inputs, PREDICT_BATCH, verbose=0)
        self.logit = logit.reshape(-1)
        score = metrics.average_precision(self.validation.labels, self.logit)
        if logs is not None:
            logs["val_average_precision"] = score
        # Without fraud on the held-out cards the epochs cannot be compared: the latest one is kept.
        if not self._best_weights or score > self._best or np.isnan(score):
            self._best, self._best_weights, self._waited = score, self.model.get_weights(), 0
        else:
            self._waited += 1
            self.model.stop_training = self._waited >= self._patience
        self.model.set_weights(trained)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """See keras.callbacks.Callback."""
        self.model.set_weights(self._best_weights)


class ScoreHistograms(keras.callbacks.Callback):
    """Writes the distribution of scores by label, and the learning rate, for TensorBoard.

    `best` has the logits and must come before this callback.
    """

    def __init__(self, log_dir: str, best: BestEpoch) -> None:
        super().__init__()
        self._writer = tf.summary.create_file_writer(f"{log_dir}/validation")
        self._best = best

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """See keras.callbacks.Callback."""
        scores = 1 / (1 + np.exp(-self._best.logit))
        labels = self._best.validation.labels
        rate = self.model.optimizer.learning_rate
        with self._writer.as_default(step=epoch):
            for label, name in ((0, "genuine"), (1, "fraud")):
                tf.summary.histogram(f"scores/{name}", scores[labels == label])
            tf.summary.scalar("learning_rate", float(keras.ops.convert_to_numpy(rate)))
        self._writer.flush()


def _tensorboard(
    log_dir: str | None, spec: Network, best: BestEpoch
) -> list[keras.callbacks.Callback]:
    if log_dir is None:
        return []
    settings = {k: str(v) if isinstance(v, tuple) else v for k, v in asdict(spec).items()}
    return [
        ScoreHistograms(log_dir, best),
        keras.callbacks.TensorBoard(log_dir, write_graph=True),
        hparams.KerasCallback(log_dir, settings),
    ]


def _batches(examples: Examples, train: np.ndarray, batch: int, spec: Network) -> tf.data.Dataset:
    """Batches (inputs, labels, weights) of the rows `train`, reshuffled for each epoch."""
    random = np.random.default_rng(spec.seed)
    labels = examples.labels.reshape(-1, 1).astype(np.float32)
    weights = np.where(labels == 1, np.float32(spec.positive_weight), np.float32(1))
    steps = train.size // batch

    # numpy gathers the rows: as tensors the examples would be in memory three times.
    def epoch() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
        for rows in random.permutation(train)[: steps * batch].reshape(steps, batch):
            gathered = {name: array[rows] for name, array in examples.inputs.items()}
            yield gathered, labels[rows], weights[rows]

    def spec_of(array: np.ndarray) -> tf.TensorSpec:
        return tf.TensorSpec([batch, *array.shape[1:]], array.dtype)

    inputs = {name: spec_of(array) for name, array in examples.inputs.items()}
    batches = tf.data.Dataset.from_generator(
        epoch, output_signature=(inputs, spec_of(labels), spec_of(weights))
    )
    return batches.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(4)


def _validation_metrics(
    labels: np.ndarray, scores: np.ndarray, alerts: np.ndarray
) -> dict[str, float]:
    return {
        "average_precision": metrics.average_precision(labels, scores),
        "roc_auc": metrics.roc_auc(labels, scores),
        "brier": metrics.brier(labels, scores),
        "expected_calibration_error": metrics.expected_calibration_error(labels, scores),
        "precision_at_budget": metrics.precision_at_budget(labels, alerts),
        "recall_at_budget": metrics.recall_at_budget(labels, alerts),
    }

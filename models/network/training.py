"""Training, for Trainer and backtest: from arrays to a calibrated model and its alert threshold."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from fraud.errors import BadInput
from fraud.models import streamed
from fraud.models.evaluation import metrics
from fraud.models.examples import Examples
from fraud.models.network import defaults, rates, threshold
from fraud.models.network.architecture import (
    SCORE,
    build_network,
    member_logits,
    rate_layer,
)
from fraud.models.network.calibration import calibrate
from fraud.models.network.team import Team
from fraud.models.preprocessing.transform_fn import CATEGORICAL, NUMERIC
from fraud.models.spec import AlertBudget, Network, ResolvedNetwork
from fraud.models.streamed import Streamed

PREDICT_BATCH = 8192
MIN_STEPS_PER_EPOCH = 50
EXPLAINED = 200  # of each class
STEPS_PER_EXECUTION = 16  # Python's overhead per execution is as large as a small step
NO_LABEL = -1.0
VALIDATION_SCORE = "val_average_precision"


@dataclass(frozen=True)
class Fitted:
    """A trained, calibrated network.

    Attributes:
      model: from inputs to the fraud probability.
      threshold: the lowest score that raises an alert, at the alert budget.
      validation: metrics on the held-out cards, by name.
      held_out_scores: the score of each training example by members that were not trained on it,
        float32 [n]; NaN if there is none.
      spec: the network's settings, each with the value that was used.
      history: `loss` of the training examples and `val_average_precision` on the held-out cards,
        of each epoch.
      sample: rows of the examples to explain the model by: held-out frauds and as many others.
    """

    model: keras.Model
    threshold: float
    validation: dict[str, float]
    held_out_scores: np.ndarray
    spec: ResolvedNetwork
    history: dict[str, list[float]] = field(default_factory=dict)
    sample: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def scores(self, inputs: Mapping[str, np.ndarray | Streamed]) -> np.ndarray:
        """Fraud probability of each example, whose inputs must be in memory, float32 [n]."""
        return self.model.predict(dict(inputs), batch_size=PREDICT_BATCH, verbose=0).reshape(-1)


def fit(
    network: Network,
    examples: Examples,
    vocabularies: Mapping[str, int],
    budget: AlertBudget,
    log_dir: str | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    team: Team | None = None,
) -> Fitted:
    """Trains, chooses the best epoch, calibrates and sets the alert threshold.

    Each member of the network is trained without some of the cards, over the whole train window,
    and all choices are made on the scores of members for the cards they were not trained on. These
    stand for the unseen customers of production, and no day is lost for training.

    Args:
      network: its settings; what is None there follows the data (see `defaults`).
      examples: the train window, in an order that is the same in every run.
      vocabularies: number of indices of each categorical column, in order.
      budget: the alerts that the threshold allows.
      log_dir: the folder of TensorBoard's logs; None for no logs.
      callbacks: further ones; the logs of an epoch have `VALIDATION_SCORE`.
      team: the workers that train together, this process one of them; all return the same.

    Raises:
      BadInput: there are too few examples.
    """
    team = team or Team()
    spec = defaults.resolve(network, examples.labels.size, examples.categories)
    keras.utils.set_random_seed(spec.seed)
    tf.config.experimental.enable_op_determinism()
    held_out = held_out_cards(examples.cards, spec.validation_percent, spec.members)
    team.require_same(examples.labels, examples.timestamps, held_out)
    train = np.flatnonzero(~held_out.all(axis=1))
    numeric = examples.inputs[NUMERIC].shape[1] if NUMERIC in examples.inputs else 0
    sizes = tuple(vocabularies.values())
    groups = rate_groups(examples.cards, spec.validation_percent, spec.members)
    with team.scope():
        together = build_network(spec, numeric, vocabularies, groups.folds.size)
    trained = member_logits(together)
    if sizes:
        log_odds = rates.log_odds(examples.inputs[CATEGORICAL], examples.labels, groups, sizes)
        for i, of_column in enumerate(log_odds):
            together.get_layer(rate_layer(i)).log_odds.assign(of_column)

    drawn = _PassRows(train, examples.labels, spec.genuine_share)
    # Few examples mean small batches: with too few steps the network learns nothing.
    batch = min(spec.batch_size, max(1, drawn.size // MIN_STEPS_PER_EPOCH))
    batch = max(1, batch // team.size) * team.size  # all workers have as many rows of it
    if drawn.size < batch:
        raise BadInput(
            f"the train window has too few rows to learn from ({examples.labels.size}), for some "
            "are held out; raise windows.train_days, or bring more data"
        )
    steps = drawn.size // batch * spec.epochs
    # A moving average over more steps than there are would mostly hold the initial weights.
    momentum = min(spec.ema_momentum, 1 - 4 / max(steps, 4))
    spec = replace(spec, batch_size=batch, ema_momentum=momentum)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.05 * spec.learning_rate,
        max(1, steps - steps // 20),
        alpha=0.02,
        warmup_target=spec.learning_rate,
        warmup_steps=steps // 20,
    )
    with team.scope():
        optimizer = keras.optimizers.AdamW(
            schedule, weight_decay=spec.weight_decay, use_ema=True, ema_momentum=momentum
        )
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        trained.compile(
            optimizer,
            MemberLoss(spec.focal_gamma, spec.genuine_share),
            steps_per_execution=STEPS_PER_EXECUTION,
        )
    team.prepare(trained, STEPS_PER_EXECUTION)
    tested = np.asarray(held_out.any(axis=1))
    unseen = examples.at(tested)
    inputs = _for_groups(unseen.inputs, groups.of_rows[tested], sizes)
    validation = Validation(replace(unseen, inputs=inputs), held_out[tested])
    best = BestEpoch(validation, spec.patience, optimizer, team)
    history = trained.fit(
        _batches(examples, groups.of_rows, sizes, drawn, ~held_out, batch, spec, team.part),
        epochs=spec.epochs,
        verbose=2 if team.index == 0 else 0,
        callbacks=[best, *callbacks, *_tensorboard(log_dir, spec, best)],
    )
    if team.size > 1:  # without variables that are shared with processes that end
        alone = build_network(spec, numeric, vocabularies, groups.folds.size)
        alone.set_weights(together.get_weights())
        together = alone
    logits = member_logits(together).predict(validation.inputs, PREDICT_BATCH, verbose=0)
    logit = validation.logit(logits)
    model = build_network(spec, numeric, vocabularies)
    _copy_weights(together, model)
    calibrate(model, logit, validation.labels)
    scores = model.get_layer(SCORE)(logit.reshape(-1, 1)).numpy().reshape(-1)
    alert_threshold = threshold.alert_threshold(
        budget,
        scores,
        validation.examples.timestamps,
        validation.examples.cards,
        share=np.unique(validation.examples.cards).size / np.unique(examples.cards).size,
    )
    measured = _validation_metrics(validation.labels, scores, scores >= alert_threshold)
    held_out_scores = np.full(tested.size, np.nan, np.float32)
    held_out_scores[tested] = scores
    by_epoch = {name: [float(v) for v in values] for name, values in history.history.items()}
    sample = _to_explain(tested, examples.labels)
    return Fitted(model, alert_threshold, measured, held_out_scores, spec, by_epoch, sample)


def _copy_weights(trained: keras.Model, served: keras.Model) -> None:
    """Gives a network without groups the weights of one with groups, which it needs no longer."""
    for own, weight in zip(served.weights, trained.weights, strict=True):
        own.assign(weight if own.shape == weight.shape else weight[:1])


def _to_explain(held_out: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows of held-out frauds and of as many other held-out examples, evenly spread."""
    rows = []
    for label in (0, 1):
        of_label = np.flatnonzero(held_out & (labels == label))
        count = min(EXPLAINED, of_label.size)
        rows.append(of_label[np.linspace(0, of_label.size - 1, count).astype(np.int64)])
    return np.concatenate(rows)


@dataclass(frozen=True)
class Validation:
    """The examples that at least one member was not trained on.

    Attributes:
      examples: these, n of them.
      held_out: which members were not trained on each, bool [n, members].
    """

    examples: Examples
    held_out: np.ndarray

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """The network's inputs, which are in memory."""
        return cast("dict[str, np.ndarray]", self.examples.inputs)

    @property
    def labels(self) -> np.ndarray:
        """0 or 1, [n]."""
        return self.examples.labels

    def logit(self, logits: np.ndarray) -> np.ndarray:
        """The logit of the mean probability of members that were not trained on an example.

        Args:
          logits: those of all members, float [n, members].

        Returns:
          float32 [n].
        """
        others = np.where(self.held_out, logits, -np.inf)
        fraud = np.logaddexp.reduce(_log_sigmoid(others), axis=1)
        others = np.where(self.held_out, logits, np.inf)
        genuine = np.logaddexp.reduce(_log_sigmoid(-others), axis=1)
        return (fraud - genuine).astype(np.float32)


def _log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -x)


class MemberLoss(keras.losses.Loss):
    """The mean cross-entropy of the members; focal loss if gamma is not 0.

    A label is 0 or 1, or NO_LABEL where the member is not to be trained on the example.

    With gamma 0, Keras's focal loss has the right value, but its gradient is 0 · 0⁻¹ = NaN as soon
    as a score rounds to its label.

    Where only a share s of the genuine examples is drawn, the odds of fraud among those drawn are
    1 / s times the true odds. The logits are those of the true odds, so the loss adds log (1 / s)
    to them (King, Zeng, "Logistic regression in rare events data", Political Analysis 9, 2001,
    section 4.1).
    """

    def __init__(self, focal_gamma: float = 0.0, genuine_share: float = 1.0) -> None:
        super().__init__(name="member_loss")
        self.focal_gamma = focal_gamma
        self.genuine_share = genuine_share

    def call(self, y_true, y_pred):  # type: ignore[no-untyped-def]
        """Labels and logits, float32 [batch, members] → float32 [batch]."""
        trained_on = keras.ops.cast(y_true != NO_LABEL, "float32")
        labels = y_true * trained_on
        y_pred = y_pred - float(np.log(self.genuine_share))
        loss = keras.ops.binary_crossentropy(labels, y_pred, from_logits=True)
        if self.focal_gamma:
            score = keras.ops.sigmoid(y_pred)
            wrong = labels * (1 - score) + (1 - labels) * score
            loss = loss * wrong**self.focal_gamma
        return keras.ops.mean(loss * trained_on, axis=-1)


def held_out_cards(cards: np.ndarray, percent: int, members: int = 1) -> np.ndarray:
    """Selects the rows that each member is not trained on: all rows of about `percent` % of cards.

    In an order by hash, the first member's cards come first, then the second's, and so on; after
    the last card, the first follow again. The choice depends on the cards alone, so it is the same
    in every run.

    Args:
      cards: int64 or bytes [n].
      percent: 1 to 50.
      members: number of members.

    Returns:
      bool [n, members]; with at least two cards, no column is all True or all False.
    """
    place = _places(cards)
    return _held_out(place.max() + 1, percent, members)[place]


def rate_groups(cards: np.ndarray, percent: int, members: int) -> rates.Groups:
    """The groups of the cards that the fraud rates of categories leave out; see `rates`."""
    place = _places(cards)
    return rates.Groups.of(_held_out(place.max() + 1, percent, members), place)


def _held_out(cards: int, percent: int, members: int) -> np.ndarray:
    """The members that hold out each card, in the order of `_places`: bool [cards, members]."""
    count = min(max(1, round(cards * percent / 100)), max(1, cards - 1))
    first = np.arange(members) * count
    return (np.arange(cards)[:, np.newaxis] - first) % cards < count


def _places(cards: np.ndarray) -> np.ndarray:
    """The place of each row's card in an order of the distinct cards by hash, from 0: [n]."""
    values, index = np.unique(cards, return_inverse=True)
    keys = [v if isinstance(v, bytes) else str(v).encode() for v in values.tolist()]
    draw = np.array([zlib.crc32(key) % 9973 for key in keys])
    place = np.empty(values.size, np.int64)
    place[np.argsort(draw, kind="stable")] = np.arange(values.size)
    return place[index]


def _for_groups(
    inputs: Mapping[str, Any], groups: np.ndarray, sizes: Sequence[int]
) -> dict[str, Any]:
    """Inputs, in memory, with the fraud rates of categories for rows of these groups."""
    if CATEGORICAL not in inputs:
        return dict(inputs)
    return {**inputs, CATEGORICAL: rates.for_group(inputs[CATEGORICAL], groups, sizes)}


class BestEpoch(keras.callbacks.Callback):
    """Evaluates the moving average of the weights after each epoch and keeps the best.

    Adds `VALIDATION_SCORE` to the logs. When training ends, the model gets the best weights.

    Args:
      validation: the examples to evaluate on.
      patience: training stops after this many epochs in a row without improvement.
      optimizer: holds the moving average.
      team: the workers, which keep the same epoch and end after the same one.

    Attributes:
      logit: logits of the validation examples after the latest epoch, float32 [n].
    """

    def __init__(
        self,
        validation: Validation,
        patience: int,
        optimizer: keras.optimizers.Optimizer,
        team: Team | None = None,
    ) -> None:
        super().__init__()
        self._team = team or Team()
        self.validation, self._patience, self._optimizer = validation, patience, optimizer
        self.logit = np.zeros(validation.labels.size, np.float32)
        self._best, self._waited = -1.0, 0
        self._best_weights: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """See keras.callbacks.Callback."""
        trained = self.model.get_weights()
        self._optimizer.finalize_variable_values(self.model.trainable_variables)
        logits = self.model.predict(self.validation.inputs, PREDICT_BATCH, verbose=0)
        self.logit = self.validation.logit(logits)
        score = metrics.average_precision(self.validation.labels, self.logit)
        score = self._team.mean(score)
        if logs is not None:
            logs[VALIDATION_SCORE] = score
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
    log_dir: str | None, spec: ResolvedNetwork, best: BestEpoch
) -> list[keras.callbacks.Callback]:
    if log_dir is None:
        return []
    settings = {k: str(v) if isinstance(v, tuple) else v for k, v in asdict(spec).items()}
    return [
        ScoreHistograms(log_dir, best),
        keras.callbacks.TensorBoard(log_dir, write_graph=True),
        hparams.KerasCallback(log_dir, settings),
    ]


class _PassRows:
    """The rows of a pass over the examples: all frauds and, drawn anew, some of the others.

    Args:
      train: the rows to train on, ascending, int64 [n].
      labels: 0 or 1, of all examples.
      genuine_share: how much of the rows without fraud a pass has.

    Attributes:
      size: the number of rows of a pass.
    """

    def __init__(self, train: np.ndarray, labels: np.ndarray, genuine_share: float) -> None:
        fraud = labels[train] == 1
        self._train, self._frauds, self._genuine = train, train[fraud], train[~fraud]
        self._drawn = round(genuine_share * self._genuine.size)
        self.size = self._frauds.size + self._drawn

    def draw(self, random: np.random.Generator) -> np.ndarray:
        """The rows of the next pass, ascending."""
        if self._drawn == self._genuine.size:
            return self._train
        genuine = random.choice(self._genuine, self._drawn, replace=False, shuffle=False)
        return np.sort(np.concatenate([self._frauds, genuine]))


def _batches(
    examples: Examples,
    groups: np.ndarray,
    sizes: tuple[int, ...],
    drawn: _PassRows,
    trained_on: np.ndarray,
    batch: int,
    spec: ResolvedNetwork,
    part: slice = slice(None),
) -> tf.data.Dataset:
    """Parts of batches (inputs, labels, weights) of rows drawn and shuffled for each epoch.

    Labels are [batch, members], with NO_LABEL where `trained_on` (bool [n, members]) is False.
    """
    random = np.random.default_rng(spec.seed)
    weights = np.where(examples.labels == 1, spec.positive_weight, 1).astype(np.float32)
    streams = any(isinstance(array, Streamed) for array in examples.inputs.values())
    shuffled = _shuffled_while_streaming if streams else _shuffled_in_memory

    def epoch() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
        for inputs, rows in shuffled(examples, drawn.draw(random), batch, random, part):
            labels = np.where(trained_on[rows], examples.labels[rows, np.newaxis], NO_LABEL)
            inputs = _for_groups(inputs, groups[rows], sizes)
            yield inputs, labels.astype(np.float32), weights[rows]

    size = len(range(batch)[part])

    def spec_of(array: np.ndarray | Streamed) -> tf.TensorSpec:
        return tf.TensorSpec([size, *array.shape[1:]], array.dtype)

    inputs = {name: spec_of(array) for name, array in examples.inputs.items()}
    labels = tf.TensorSpec([size, trained_on.shape[1]], tf.float32)
    batches = tf.data.Dataset.from_generator(
        epoch, output_signature=(inputs, labels, tf.TensorSpec([size], tf.float32))
    )
    steps = drawn.size // batch
    return batches.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(4)


def _shuffled_in_memory(
    examples: Examples, rows: np.ndarray, batch: int, random: np.random.Generator, part: slice
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Parts of batches of the inputs of rows, and the rows, in random order."""
    steps = rows.size // batch
    # numpy gathers the rows: as tensors the examples would be in memory three times.
    for some in random.permutation(rows)[: steps * batch].reshape(steps, batch)[:, part]:
        yield {name: array[some] for name, array in examples.inputs.items()}, some


def _shuffled_while_streaming(
    examples: Examples, rows: np.ndarray, batch: int, random: np.random.Generator, part: slice
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """The same from a file: rows of blocks all over the file are read and shuffled together."""
    left = {name: array[rows[:0]] for name, array in examples.inputs.items()}
    left_rows = rows[:0]
    for window in streamed.windows(rows, examples.labels.size, random):
        window_rows = np.concatenate([left_rows, window])
        buffer = {
            name: np.concatenate([left[name], array[window]])
            for name, array in examples.inputs.items()
        }
        order = random.permutation(window_rows.size)
        steps = order.size // batch
        for some in order[: steps * batch].reshape(steps, batch)[:, part]:
            yield {name: values[some] for name, values in buffer.items()}, window_rows[some]
        rest = order[steps * batch :]
        left, left_rows = {name: values[rest] for name, values in buffer.items()}, window_rows[rest]
        del buffer  # before the next one is read


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

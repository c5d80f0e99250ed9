import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from fraud.models.examples import Examples
from fraud.models.network import training
from fraud.models.spec import AlertBudget, Network
from fraud.time import SECONDS_PER_DAY

SPEC = Network(bins=8, towers=((16,),), epochs=5, batch_size=64, learning_rate=0.02)


def random_examples(rows=6000, seed=0, cards=600):
    random = np.random.default_rng(seed)
    numeric = random.uniform(0, 4, (rows, 3)).astype(np.float32)
    labels = (random.random(rows) < 0.4 * (numeric[:, 0] > 3.5)).astype(int)
    timestamps = np.sort(random.integers(0, 30 * SECONDS_PER_DAY, rows))
    return Examples({"numeric": numeric}, labels, timestamps, random.integers(0, cards, rows))


@pytest.fixture(scope="module")
def fitted():
    return training.fit(SPEC, random_examples(), {}, AlertBudget(20))


def test_the_model_ranks_and_is_calibrated_on_new_transactions(fitted):
    new = random_examples(seed=1)
    scores = fitted.scores(new.inputs)
    assert scores[new.labels == 1].mean() > 3 * scores[new.labels == 0].mean()
    assert scores.mean() == pytest.approx(new.labels.mean(), rel=0.35)


def test_the_alert_threshold_spends_the_budget_on_the_held_out_cards(fitted):
    examples = random_examples()
    held_out = examples.at(training.held_out_cards(examples.cards, SPEC.validation_percent))
    alerts = {
        (day, card)
        for day, card, score in zip(
            held_out.timestamps // SECONDS_PER_DAY,
            held_out.cards,
            fitted.scores(held_out.inputs),
            strict=True,
        )
        if score >= fitted.threshold
    }
    share = np.unique(held_out.cards).size / np.unique(examples.cards).size
    assert len(alerts) == round(20 * 30 * share)
    assert fitted.validation["recall_at_budget"] > 0


def test_held_out_cards_teach_the_network_nothing():
    examples = random_examples()
    held_out = training.held_out_cards(examples.cards, SPEC.validation_percent)
    labels = np.where(held_out, 1 - examples.labels, examples.labels)
    one_epoch = dataclasses.replace(SPEC, epochs=1)  # with more, they would choose among them
    first, second = (
        training.fit(one_epoch, some, {}, AlertBudget(20)).model
        for some in (examples, dataclasses.replace(examples, labels=labels))
    )
    for one, other in zip(
        training.logit_model(first).get_weights(),
        training.logit_model(second).get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_one_seed_gives_one_model(fitted):
    again = training.fit(SPEC, random_examples(), {}, AlertBudget(20))
    for first, second in zip(fitted.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_logs_for_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    training.fit(SPEC, random_examples(), {}, AlertBudget(20), str(tmp_path))
    logs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    tags = {tag for run in logs.Runs().values() for tag in run["tensors"]}
    assert {"epoch_loss", "epoch_average_precision", "learning_rate"} <= tags
    assert {"scores/fraud", "scores/genuine"} <= tags
    assert any("hparams" in tag for tag in tags)
    assert "keras" in tags  # the model's graph


def test_whole_cards_are_held_out_and_always_the_same_ones():
    cards = np.random.default_rng(3).integers(0, 500, 20_000)
    held = training.held_out_cards(cards, 10)
    assert not set(cards[held]) & set(cards[~held])
    assert np.unique(cards[held]).size == 50
    shuffled = np.random.default_rng(4).permutation(cards)
    assert set(shuffled[training.held_out_cards(shuffled, 10)]) == set(cards[held])


@pytest.mark.parametrize("cards", [np.array([1, 2]), np.array([b"a", b"b", b"b"])])
def test_neither_all_nor_none_is_held_out(cards):
    held = training.held_out_cards(cards, 1)
    assert 0 < held.sum() < cards.size


def test_fewer_examples_than_a_batch_can_be_trained_on():
    fitted = training.fit(SPEC, random_examples(rows=100, cards=50), {}, AlertBudget(1))
    assert np.isfinite(fitted.scores(random_examples(rows=10).inputs)).all()


def test_the_best_epoch_is_kept_not_the_last():
    validation = random_examples(rows=2000)
    inputs = keras.Input((3,), name="numeric")
    model = keras.Model({"numeric": inputs}, keras.layers.Dense(1, name="logit")(inputs))
    optimizer = keras.optimizers.SGD(0.0, use_ema=True, ema_momentum=0.0)
    model.compile(optimizer, "mse")
    good, bad = (
        [np.array([[1.0], [0], [0]]), np.zeros(1)],
        [np.array([[-1.0], [0], [0]]), np.zeros(1)],
    )
    best = training.BestEpoch(validation, 2, optimizer)
    best.set_model(model)
    for epoch, weights in enumerate((bad, good, bad, bad)):
        model.set_weights(weights)
        model.fit(validation.inputs, validation.labels, batch_size=2000, verbose=0)
        best.on_epoch_end(epoch, {})
    assert model.stop_training
    best.on_train_end()
    np.testing.assert_allclose(model.get_weights()[0], good[0])


@pytest.mark.parametrize("focal_gamma", [0.0, 2.0])
def test_extreme_scores_have_a_finite_gradient(focal_gamma):
    """A NaN would spread to all weights in one step."""
    logits = tf.Variable([[-30.0], [30.0], [40.0], [-40.0]])
    with tf.GradientTape() as tape:
        loss = training._loss(focal_gamma)(tf.constant([[0.0], [1.0], [0.0], [1.0]]), logits)
    assert np.isfinite(tape.gradient(loss, logits)).all()


def test_each_epoch_has_every_row_once_in_a_different_order() -> None:
    rows = np.arange(103)
    inputs = {"numeric": rows.astype(np.float32).reshape(-1, 1)}
    examples = Examples(inputs, np.zeros(103, np.int64), np.zeros(103), rows)
    batches = training._batches(examples, rows[3:], 10, Network())
    epochs = [
        [int(n) for batch, _, _ in batches for n in batch["numeric"].numpy().ravel()]
        for _ in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(3, 103))
    assert epochs[0] != epochs[1]

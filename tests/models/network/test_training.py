import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from fraud.errors import BadInput
from fraud.models import streamed
from fraud.models.evaluation import metrics
from fraud.models.examples import Examples
from fraud.models.network import rates, training
from fraud.models.network.architecture import SCORE, member_logits, rate_layer
from fraud.models.network.explain import Explainer, typical_genuine
from fraud.models.spec import AlertBudget, ResolvedNetwork
from fraud.models.streamed import Streamed
from fraud.time import SECONDS_PER_DAY

SPEC = ResolvedNetwork(
    bins=8, towers=((16,),), members=3, epochs=5, batch_size=64, learning_rate=0.02
)


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
    tested = ~np.isnan(fitted.held_out_scores)
    held_out = examples.at(tested)
    alerts = {
        (day, card)
        for day, card, score in zip(
            held_out.timestamps // SECONDS_PER_DAY,
            held_out.cards,
            fitted.held_out_scores[tested],
            strict=True,
        )
        if score >= fitted.threshold
    }
    share = np.unique(held_out.cards).size / np.unique(examples.cards).size
    assert len(alerts) == round(20 * 30 * share)
    assert fitted.validation["recall_at_budget"] > 0


@pytest.mark.parametrize("member", range(SPEC.members))
def test_held_out_cards_teach_a_member_nothing(member):
    examples = random_examples()
    # A category of one card, as a zip code may be: what is learned from it is about that card.
    categorical = np.stack([examples.cards, examples.cards % 3], axis=1)
    examples = dataclasses.replace(examples, inputs={**examples.inputs, "categorical": categorical})
    sizes = {"zip": 600, "channel": 3}
    held_out = training.held_out_cards(examples.cards, SPEC.validation_percent, SPEC.members)
    labels = np.where(held_out[:, member], 1 - examples.labels, examples.labels)
    one_epoch = dataclasses.replace(SPEC, epochs=1)  # with more, they would choose among them
    first, second = (
        member_logits(training.fit(one_epoch, some, sizes, AlertBudget(20)).model)
        for some in (examples, dataclasses.replace(examples, labels=labels))
    )
    for i in range(2):  # which a new transaction gets are those of all cards
        name = rate_layer(i)
        second.get_layer(name).log_odds.assign(first.get_layer(name).log_odds)
    one, other = (model.predict(examples.inputs, 1000, verbose=0) for model in (first, second))
    np.testing.assert_array_equal(one[:, member], other[:, member])
    others = np.arange(SPEC.members) != member
    assert (one[:, others] != other[:, others]).any(axis=0).all()


def test_fraud_rates_of_categories_are_those_of_the_row_in_training_and_of_all_rows_later(
    monkeypatch,
):
    random = np.random.default_rng(3)
    examples = random_examples()
    categorical = np.stack([random.integers(0, size, 6000) for size in (40, 5)], axis=1)
    inputs = {**examples.inputs, "categorical": categorical}
    labels = (random.random(6000) < 0.05 + 0.1 * (categorical[:, 1] == 2)).astype(int)
    examples = dataclasses.replace(examples, inputs=inputs, labels=labels)
    sizes = {"shop": 40, "channel": 5}
    groups = training.rate_groups(examples.cards, SPEC.validation_percent, SPEC.members)
    tables = rates.log_odds(categorical, labels, groups, [40, 5])
    assert all((np.abs(table).max(axis=(1, 2)) > 0.1).all() for table in tables)
    validations = []

    class Watched(training.BestEpoch):
        def on_train_begin(self, logs=None):
            super().on_train_begin(logs)
            validations.append(self.validation)
            for i, table in enumerate(tables):
                log_odds = self.model.get_layer(rate_layer(i)).log_odds
                np.testing.assert_array_equal(log_odds, table)

    monkeypatch.setattr(training, "BestEpoch", Watched)
    one_epoch = dataclasses.replace(SPEC, epochs=1)
    model = training.fit(one_epoch, examples, sizes, AlertBudget(20)).model
    (validation,) = validations
    tested = training.held_out_cards(examples.cards, SPEC.validation_percent, SPEC.members).any(
        axis=1
    )
    with_rates = rates.for_group(categorical[tested], groups.of_rows[tested], [40, 5])
    np.testing.assert_array_equal(validation.inputs["categorical"], with_rates)
    for i, size in enumerate(sizes.values()):
        frauds, rows = (np.bincount(categorical[:, i], weights, size) for weights in (labels, None))
        average = labels.mean()
        rate = (frauds + 3) / (rows + 3 / average)
        expected = np.log(rate / (1 - rate)) - np.log(average / (1 - average))
        served = model.get_layer(rate_layer(i)).log_odds.numpy()
        np.testing.assert_allclose(served, np.tile(expected[None, :, None], (1, 1, 3)), atol=1e-5)


def test_held_out_scores_are_those_of_members_that_were_not_trained_on_a_card(fitted):
    examples = random_examples()
    held_out = training.held_out_cards(examples.cards, SPEC.validation_percent, SPEC.members)
    assert (np.isnan(fitted.held_out_scores) == ~held_out.any(axis=1)).all()
    logits = member_logits(fitted.model).predict(examples.inputs, 1000, verbose=0)
    slope, intercept = fitted.model.get_layer(SCORE).get_weights()
    for member in range(SPEC.members):  # 3 members that hold out 10 % each: no card twice
        rows = held_out[:, member]
        expected = 1 / (1 + np.exp(-(slope * logits[rows, member] + intercept)))
        np.testing.assert_allclose(fitted.held_out_scores[rows], expected, rtol=1e-4)


def test_the_logit_of_several_members_is_that_of_their_mean_probability():
    held_out = np.array([[True, True], [True, False], [False, True]])
    validation = training.Validation(random_examples(rows=3), held_out)
    logits = np.array([[-2.0, 1.0], [3.0, -50.0], [90.0, -1.0]])
    mean = (1 / (1 + np.exp(-logits[0]))).mean()
    expected = [np.log(mean / (1 - mean)), 3.0, -1.0]
    np.testing.assert_allclose(validation.logit(logits), expected, rtol=1e-5)


def test_one_seed_gives_one_model(fitted):
    again = training.fit(SPEC, random_examples(), {}, AlertBudget(20))
    for first, second in zip(fitted.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_single_example_is_one_clear_message():
    with pytest.raises(BadInput, match=r"too few rows to learn from \(1\).*windows.train_days"):
        training.fit(SPEC, random_examples(rows=1), {}, AlertBudget(20))


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
    held = training.held_out_cards(cards, 10)[:, 0]
    assert not set(cards[held]) & set(cards[~held])
    assert np.unique(cards[held]).size == 50
    shuffled = np.random.default_rng(4).permutation(cards)
    assert set(shuffled[training.held_out_cards(shuffled, 10)[:, 0]]) == set(cards[held])


def test_each_member_holds_out_other_cards_until_all_are_held_out():
    cards = np.arange(50).repeat(2)
    held_out = training.held_out_cards(cards, 20, 7)
    assert (held_out[:, :5].sum(axis=1) == 1).all()
    assert (held_out[:, 5:] == held_out[:, :2]).all()
    assert (held_out[:, :1] == training.held_out_cards(cards, 20)).all()


@pytest.mark.parametrize("cards", [np.array([1, 2]), np.array([b"a", b"b", b"b"])])
def test_neither_all_nor_none_is_held_out(cards):
    held = training.held_out_cards(cards, 1)
    assert 0 < held.sum() < cards.size


def test_fewer_examples_than_a_batch_can_be_trained_on():
    fitted = training.fit(SPEC, random_examples(rows=100, cards=50), {}, AlertBudget(1))
    assert np.isfinite(fitted.scores(random_examples(rows=10).inputs)).all()


def test_the_settings_are_those_that_were_used():
    """A pass over 100 rows has 50 batches, and there are fewer steps than the average asks for."""
    spec = dataclasses.replace(SPEC, batch_size=512, epochs=2, ema_momentum=0.999)
    fitted = training.fit(spec, random_examples(rows=100, cards=50), {}, AlertBudget(1))
    assert fitted.spec.batch_size < 3
    assert fitted.spec.ema_momentum < 0.97


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
    everything = training.Validation(validation, np.ones((2000, 1), bool))
    best = training.BestEpoch(everything, 2, optimizer)
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
        loss = training.MemberLoss(focal_gamma)(tf.constant([[0.0], [1], [0], [1]]), logits)
    assert np.isfinite(tape.gradient(loss, logits)).all()


@pytest.mark.parametrize("focal_gamma", [0.0, 2.0])
def test_the_loss_is_kerass_on_the_labels_a_member_is_trained_on(focal_gamma):
    labels, logits = np.array([[0.0, 1], [1, -1]]), np.array([[0.5, -1.0], [2.0, 3.0]])
    with_one = keras.losses.BinaryFocalCrossentropy(gamma=focal_gamma, from_logits=True)
    each = [
        float(with_one([[labels[i, j]]], [[logits[i, j]]])) for i, j in ((0, 0), (0, 1), (1, 0))
    ]
    loss = training.MemberLoss(focal_gamma)(labels.astype("float32"), logits.astype("float32"))
    assert float(loss) == pytest.approx(sum(each) / 4, rel=1e-5)


def in_a_file(examples: Examples) -> Examples:
    inputs = {}
    for name, array in examples.inputs.items():
        inputs[name] = Streamed()
        for begin in range(0, len(array), 1000):
            inputs[name].append(array[begin : begin + 1000])
    return dataclasses.replace(examples, inputs=inputs)


@pytest.mark.parametrize("streams", [False, True])
def test_each_epoch_has_every_row_once_in_a_different_order(monkeypatch, streams) -> None:
    monkeypatch.setattr(streamed, "BLOCK", 8)
    monkeypatch.setattr(streamed, "BUFFER_BLOCKS", 4)
    rows = np.arange(103)
    groups, sizes = rows % 6, (4, 3)
    categorical = np.stack([rows % 4, rows % 3], axis=1)
    inputs = {"numeric": rows.astype(np.float32).reshape(-1, 1), "categorical": categorical}
    examples = Examples(inputs, rows % 2, np.zeros(103), rows)
    if streams:
        examples = in_a_file(examples)
    trained_on = np.stack([rows % 3 > 0, rows > 0], axis=1)
    drawn = training._PassRows(rows[3:], examples.labels, 1.0)
    spec = ResolvedNetwork(positive_weight=5)
    batches = training._batches(examples, groups, sizes, drawn, trained_on, 10, spec)
    epochs = []
    for _ in range(2):
        epochs.append([])
        for batch, labels, weights in batches:
            numbers = batch["numeric"].numpy().ravel().astype(int)
            expected = np.where(trained_on[numbers], numbers[:, np.newaxis] % 2, training.NO_LABEL)
            np.testing.assert_array_equal(labels, expected)
            np.testing.assert_array_equal(weights, np.where(numbers % 2, 5, 1))
            with_rates = rates.for_group(categorical[numbers], groups[numbers], sizes)
            np.testing.assert_array_equal(batch["categorical"], with_rates)
            epochs[-1] += numbers.tolist()
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(3, 103))
    assert epochs[0] != epochs[1]
    if streams:  # not one block after the other
        assert len({number // 8 for number in epochs[0][:10]}) > 2


def test_streamed_examples_give_a_model_that_is_as_good(monkeypatch, fitted) -> None:
    monkeypatch.setattr(streamed, "BLOCK", 50)
    monkeypatch.setattr(streamed, "BUFFER_BLOCKS", 20)
    from_file = training.fit(SPEC, in_a_file(random_examples()), {}, AlertBudget(20))
    new = random_examples(seed=1)
    one, other = (
        metrics.average_precision(new.labels, model.scores(new.inputs))
        for model in (from_file, fitted)
    )
    assert one == pytest.approx(other, abs=0.03)


def test_a_pass_has_every_fraud_and_other_genuine_rows_than_the_one_before() -> None:
    labels = np.arange(1000) % 10 == 0
    drawn = training._PassRows(np.arange(100, 1000), labels, 0.1)
    random = np.random.default_rng(1)
    first, second = (drawn.draw(random) for _ in range(2))
    for rows in (first, second):
        assert drawn.size == rows.size == np.unique(rows).size == 90 + 81
        assert labels[rows].sum() == 90 and rows.min() >= 100
        assert (np.diff(rows) > 0).all()
    assert len(set(first[~labels[first]]) & set(second[~labels[second]])) < 30


def test_with_some_of_the_genuine_the_scores_of_the_members_are_still_probabilities() -> None:
    spec = dataclasses.replace(SPEC, genuine_share=0.1, epochs=15)
    trained = member_logits(training.fit(spec, random_examples(), {}, AlertBudget(20)).model)
    new = random_examples(seed=1)
    # Before the calibration, which would hide a wrong correction.
    scores = 1 / (1 + np.exp(-trained.predict(new.inputs, 1000, verbose=0)))
    assert scores.mean(axis=0) == pytest.approx(new.labels.mean(), rel=0.35)


def test_with_some_of_the_genuine_the_loss_is_that_of_the_odds_among_those_drawn() -> None:
    labels, logits = np.array([[0.0], [1.0]], "float32"), np.array([[-1.0], [2.0]], "float32")
    of_share = training.MemberLoss(genuine_share=0.25)(labels, logits)
    shifted = training.MemberLoss()(labels, logits + np.float32(np.log(4)))
    assert float(of_share) == pytest.approx(float(shifted), rel=1e-6)


def test_categories_alone_are_enough():
    random = np.random.default_rng(1)
    channel = random.integers(0, 4, (3000, 1))
    labels = (random.random(3000) < np.where(channel[:, 0] == 2, 0.3, 0.02)).astype(int)
    inputs = {"categorical": channel}
    examples = Examples(inputs, labels, np.zeros(3000, int), np.arange(3000))
    fitted = training.fit(SPEC, examples, {"channel": 4}, AlertBudget(20))
    scores = fitted.scores({"categorical": np.arange(4).reshape(-1, 1)})
    assert scores.argmax() == 2 and scores[2] == pytest.approx(0.3, abs=0.06)
    typical = typical_genuine(inputs, labels)
    explainer = Explainer(fitted.model, typical, (), ("channel",))
    assert list(explainer.importance(inputs)) == ["channel"]

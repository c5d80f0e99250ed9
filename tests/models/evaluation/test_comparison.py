"""Whether the Evaluator blesses a challenger, given a champion on the same examples."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from fraud.features.spec import Dataset
from fraud.models.evaluation import bootstrap, eval_config, metrics
from fraud.models.spec import Evaluation
from fraud.pipeline.artifacts import Evaluation as Evaluated
from fraud.pipeline.components.batched_reading import EvaluatorExecutor
from tests.models.evaluation.test_extractors import evaluate

DATASET = Dataset(
    label="FRAUD", timestamp=None, entities=("CARD",), amount=None, slices=("CHANNEL",)
)
REQUIRED = Evaluation(min_average_precision=0.1, min_roc_auc=0.1, min_recall_at_budget=0.1)
LIMIT = np.float32(0.3)


class Column(tf.Module):
    """A model whose score is a column of the examples."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.column = name

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def score(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        feature = {self.column: tf.io.FixedLenFeature([], tf.float32)}
        score = tf.io.parse_example(examples, feature)[self.column]
        return {"score": score, "alert": tf.cast(score >= LIMIT, tf.float32)}


def two_models(seed: int, noise: float, worse: float, fraud_cards: int = 58) -> SimpleNamespace:
    """An eval week with 110 frauds, scored by two models alike up to their noise.

    Args:
      seed: of the week.
      noise: of each model: by transaction, and by card for frauds.
      worse: by how much the challenger's logits of frauds are lower.
      fraud_cards: the cards of the frauds.
    """
    random = np.random.default_rng(seed)
    label = np.zeros(4000, int)
    label[:110] = 1
    card = np.concatenate([random.integers(0, fraud_cards, 110), random.integers(0, 700, 3890)])
    common = random.normal(2.0 * label) + 0.7 * label * random.normal(size=700)[card]

    def scores(offset: float) -> np.ndarray:
        own = random.normal(size=4000) + random.normal(size=700)[card] * label
        return (1 / (1 + np.exp(3 - common - noise * own + offset * label))).astype(np.float32)

    champion = scores(0.0)
    return SimpleNamespace(label=label, card=card, champion=champion, challenger=scores(worse))


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """Has TFX's Evaluator judge the challenger.

    Returns:
      The files of the blessing, what the Evaluator measured.
    """

    def judged(world, requirements=REQUIRED, dataset=DATASET, with_champion=True):
        folder = tmp_path_factory.mktemp("judged")
        split = folder / "examples" / "Split-eval"
        split.mkdir(parents=True)
        name = str(split / "data_tfrecord-00000-of-00001.gz")
        with tf.io.TFRecordWriter(name, "GZIP") as writer:
            for i in range(world.label.size):
                example = tf.train.Example()
                feature = example.features.feature
                feature["FRAUD"].int64_list.value.append(world.label[i])
                feature["CARD"].int64_list.value.append(world.card[i])
                feature["CHANNEL"].bytes_list.value.append(b"web" if i % 3 else b"chip")
                for model in ("champion", "challenger"):
                    feature[model].float_list.value.append(getattr(world, model)[i])
                writer.write(example.SerializeToString())
        for model in ("champion", "challenger"):
            tf.saved_model.save(Column(model), str(folder / model / "Format-Serving"))
        config = eval_config.eval_config(dataset, requirements)
        place = SimpleNamespace(directory=folder)
        *_, files = evaluate(place, folder, EvaluatorExecutor, config, with_champion)
        return files, Evaluated.read(SimpleNamespace(uri=str(folder / "evaluation")))

    return judged


@pytest.fixture(scope="module")
def noise():
    """The case of the issue: models alike, of which one has bad luck in ROC AUC alone."""
    return two_models(2464, noise=0.33, worse=0.0)


def slow_changes(world, metric, replicates=300):
    """The change of a metric on the week itself, and on weeks of cards drawn one after another."""
    random = np.random.default_rng(1)
    cards = [np.flatnonzero(world.card == card) for card in np.unique(world.card)]
    changes = []
    for _ in range(replicates):
        rows = np.concatenate([cards[i] for i in random.integers(0, len(cards), len(cards))])
        changes.append(
            metric(world.label[rows], world.challenger[rows])
            - metric(world.label[rows], world.champion[rows])
        )
    whole = metric(world.label, world.challenger) - metric(world.label, world.champion)
    return whole, np.array(changes)


def test_a_drop_that_may_be_chance_does_not_refuse(noise, judge):
    drop, replicated = slow_changes(noise, metrics.roc_auc)
    assert drop == pytest.approx(-0.0264, abs=5e-5)
    assert np.std(replicated) == pytest.approx(0.014, abs=1e-3)
    precision = slow_changes(noise, metrics.average_precision, 1)[0]
    assert precision > 0  # the challenger is better there
    files, evaluated = judge(noise)
    assert (files, evaluated.failures) == (["BLESSED"], ())
    change = evaluated.changes["roc_auc"]
    assert change.change == pytest.approx(drop, abs=1e-6)
    assert (change.low, change.high) == pytest.approx(
        np.quantile(replicated, [0.025, 0.975]), abs=4e-3
    )
    assert change.drop_probability == pytest.approx(np.mean(replicated < -0.01), abs=0.05)

    def recall(label, scores):
        return metrics.recall_at_budget(label, scores >= LIMIT)

    more_caught = slow_changes(noise, recall, 1)[0]
    assert more_caught != 0
    assert evaluated.changes["recall_at_budget"].change == pytest.approx(more_caught)


def test_the_same_drop_refuses_where_it_cannot_be_chance(judge):
    """The same frauds, scored by models that hardly differ in noise."""
    world = two_models(41, noise=0.1, worse=0.2)
    drop, replicated = slow_changes(world, metrics.roc_auc)
    assert drop == pytest.approx(-0.0264, abs=1e-3)
    assert np.std(replicated) < 0.006
    files, evaluated = judge(world)
    assert files == ["NOT_BLESSED"]
    (reason,) = [reason for reason in evaluated.failures if "roc_auc" in reason]
    assert reason.startswith(f"overall: roc_auc changes by {drop:+.4f} (95 % interval ")
    assert reason.endswith(
        "from the champion's; the probability of a drop larger than evaluation.max_roc_auc_drop "
        "is 1.000; at most 0.9 is accepted"
    )


@pytest.mark.parametrize("fraud_cards", [9, 10])
def test_drops_on_fewer_than_ten_cards_are_not_judged_and_said_to_be(fraud_cards, judge):
    world = two_models(41, noise=0.1, worse=0.2, fraud_cards=fraud_cards)
    # Genuine transactions of these cards count among the cards, not among the frauds.
    files, evaluated = judge(world)
    limited = {"average_precision", "roc_auc", "recall_at_budget", "brier_skill"}
    unjudged = {name for name, change in evaluated.changes.items() if change.unjudged}
    if fraud_cards < 10:
        assert (files, evaluated.failures) == (["BLESSED"], ())
        assert unjudged == limited
        assert all(evaluated.changes[name].drop_probability is None for name in limited)
        assert evaluated.changes["roc_auc"].change < -0.01
        demanding = dataclasses.replace(REQUIRED, min_average_precision=0.99)
        files, evaluated = judge(world, demanding)
        assert (files, len(evaluated.failures)) == (["NOT_BLESSED"], 1)
        assert "at least 0.99 is required" in evaluated.failures[0]
    else:
        assert files == ["NOT_BLESSED"]
        assert unjudged == set()


def test_scores_that_are_no_probabilities_are_refused(noise, judge):
    """As from a model trained on flipped labels: it may rank and alert like the champion."""
    world = SimpleNamespace(**vars(noise))
    quiet = noise.champion < LIMIT
    world.challenger = np.where(quiet, noise.champion / 2 + LIMIT / 2, noise.champion)
    files, evaluated = judge(world)
    assert files == ["NOT_BLESSED"]
    (reason,) = evaluated.failures
    assert reason.startswith("overall: brier_skill changes by -")


def test_the_accepted_probability_is_configured(noise, judge):
    strict = dataclasses.replace(REQUIRED, max_drop_probability=0.5)
    files, evaluated = judge(noise, strict)
    assert files == ["NOT_BLESSED"]
    assert ["roc_auc" in reason for reason in evaluated.failures] == [True]


def test_without_cards_transactions_are_drawn_one_by_one(noise, judge):
    """Frauds of one card are alike here, so that leaving the cards out overstates certainty."""
    by_row = dataclasses.replace(DATASET, entities=())
    _, evaluated = judge(noise, dataset=by_row)
    _, clustered = judge(noise)
    width = {}
    for name, of in (("row", evaluated), ("card", clustered)):
        low, high = of.intervals["overall"]["average_precision"]
        width[name] = high - low
    assert width["row"] < 0.95 * width["card"]


def test_the_first_model_has_no_change_and_passes(noise, judge):
    files, evaluated = judge(noise, with_champion=False)
    assert (files, evaluated.changes) == (["BLESSED"], {})
    assert evaluated.intervals["overall"].keys() == bootstrap.METRICS.keys()


def test_what_cannot_be_compared_is_refused(noise, judge):
    genuine = noise.label == 0
    world = SimpleNamespace(**{name: values[genuine] for name, values in vars(noise).items()})
    anything = Evaluation(min_average_precision=0, min_roc_auc=0, min_recall_at_budget=0)
    files, evaluated = judge(world, anything)
    assert files == ["NOT_BLESSED"]
    for metric in ("average_precision", "roc_auc", "recall_at_budget", "brier_skill"):
        reason = f"overall: {metric} cannot be compared with the champion's: it is undefined"
        assert reason in evaluated.failures

import dataclasses
import json

import keras
import keras_tuner
import numpy as np
import pytest
from tfx.components.tuner import executor
from tfx.types.standard_artifacts import HyperParameters, TunerResults

from fraud import progress
from fraud.codec import from_json, to_json
from fraud.models.examples import Examples
from fraud.models.network import training
from fraud.models.network.tuning import MedianStopping, NetworkTuner
from fraud.models.spec import AlertBudget, ResolvedNetwork, Tuning, settings
from fraud.time import SECONDS_PER_DAY

SPEC = ResolvedNetwork(bins=4, towers=((4,),), epochs=1, batch_size=64, learning_rate=1e-6)
KEPT = dict.fromkeys(("weight_decay", "epochs", "members", "dropout", "column_dropout"), ())
TUNING = Tuning(trials=4, learning_rate=(0.05, 0.02), towers=(((8, 4),), ((4,),)), **KEPT)


def random_examples(rows=3000):
    random = np.random.default_rng(0)
    numeric = random.uniform(0, 4, (rows, 2)).astype(np.float32)
    labels = (random.random(rows) < 0.4 * (numeric[:, 0] > 3)).astype(int)
    days = np.sort(random.integers(0, 10 * SECONDS_PER_DAY, rows))
    return Examples({"numeric": numeric}, labels, days, random.integers(0, 300, rows))


def search(folder, examples, tuning=TUNING, network=SPEC):
    tuner = NetworkTuner(network, tuning, AlertBudget(5), str(folder))
    tuner.search(examples=examples, vocabularies={})
    return tuner


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    return search(tmp_path_factory.mktemp("trials"), random_examples())


def trials(tuner):
    return [(t.hyperparameters.values, t.score) for _, t in sorted(tuner.oracle.trials.items())]


def test_the_configured_settings_are_tried_first_then_others(searched):
    tried = [values for values, _ in trials(searched)]
    assert tried[0] == {"learning_rate": 1e-6, "towers": "[[4]]"}
    assert len({json.dumps(values) for values in tried}) > 2


def test_the_best_by_average_precision_is_found(searched):
    scores = [score for _, score in trials(searched)]
    (best,) = searched.get_best_hyperparameters()
    assert best.values == max(trials(searched), key=lambda trial: trial[1])[0]
    assert max(scores) > scores[0]  # a learning rate of 1e-6 learns nothing in an epoch


def test_what_is_better_only_by_chance_does_not_replace_the_configured_settings(tmp_path):
    good = dataclasses.replace(SPEC, learning_rate=0.05, epochs=3)
    certain = Tuning(
        trials=3,
        learning_rate=(0.04, 0.06),
        towers=(((4,),),),
        min_improvement_probability=1.0,
        **KEPT,
    )
    tuner = search(tmp_path, random_examples(), certain, good)
    scores = [score for _, score in trials(tuner)]
    assert 0 < max(scores) - scores[0] < 0.05
    assert tuner.get_best_hyperparameters()[0].values == trials(tuner)[0][0]
    assert len(tuner.get_best_hyperparameters(2)) == 2


def test_a_trial_that_most_earlier_ones_were_ahead_of_is_stopped():
    earlier = [[0.1, 0.2, 0.3, 0.4], [0.1, 0.5, 0.5, 0.5], [0.2, 0.3]]

    def epochs_of(curve, earlier=earlier):
        stopping = MedianStopping(earlier, 4)
        stopping.set_model(keras.Sequential())
        for epoch, score in enumerate(curve):
            stopping.on_epoch_end(epoch, {training.VALIDATION_SCORE: score})
            if stopping.stopped:
                return epoch + 1
        return "all"

    assert epochs_of([0.05, 0.9, 0.9, 0.9]) == 1
    assert epochs_of([0.1, 0.15, 0.9, 0.9]) == 2
    assert epochs_of([0.3, 0.1, 0.1, 0.3]) == 4
    assert epochs_of([0.2, 0.2, 0.2, 0.9]) == 3
    assert epochs_of([0.2, 0.3, 0.3, 0.4]) == "all"
    assert epochs_of([0, 0, 0, 0], earlier[:2]) == "all"


def test_progress_names_each_trial(tmp_path):
    lines = []
    with progress.reported_to(lines.append):
        search(tmp_path, random_examples(1000))
    *of_trials, decision = lines
    assert [line.split(":")[0] for line in of_trials] == [f"trial {n} of 4" for n in (1, 2, 3, 4)]
    assert decision.startswith("the best settings are used")


def test_the_search_is_the_same_each_time(searched, tmp_path):
    assert trials(search(tmp_path, random_examples())) == trials(searched)


def test_the_hyperparameters_that_tfx_writes_can_be_read_back(searched, tmp_path):
    best, results = HyperParameters(), TunerResults()
    best.uri, results.uri = str(tmp_path / "best"), str(tmp_path / "results")
    executor.write_best_hyperparameters(
        searched, {"best_hyperparameters": [best], "tuner_results": [results]}
    )
    (file,) = (tmp_path / "best").iterdir()
    values = json.loads(file.read_text())["values"]
    network = SPEC.tuned(values)
    assert network.learning_rate == values["learning_rate"] != SPEC.learning_rate
    assert network.towers in {((8, 4),), ((4,),)}
    assert dataclasses.replace(network, learning_rate=1e-6, towers=((4,),)) == SPEC
    assert settings(values)["towers"] == json.loads(values["towers"])


def test_a_search_without_frauds_fails(tmp_path):
    examples = random_examples(200)
    with pytest.raises(keras_tuner.errors.FatalValueError, match="no fraud among the held-out"):
        search(tmp_path, dataclasses.replace(examples, labels=0 * examples.labels))


def test_tuning_survives_its_way_to_the_component_as_json():
    tuning = from_json(Tuning, to_json(TUNING))
    assert tuning == TUNING
    assert tuning.choices(SPEC) == {"learning_rate": (0.05, 0.02), "towers": (((8, 4),), ((4,),))}


def test_epochs_and_members_to_try_follow_the_network():
    choices = Tuning().choices(ResolvedNetwork(epochs=10, members=5))
    assert choices["epochs"] == (5, 20)
    assert choices["members"] == (10,)

"""The Tuner's entry point: a search for better settings of the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow_transform as tft
from keras_tuner.engine import base_tuner
from keras_tuner.engine import trial as trials
from tfx.components.tuner.component import TunerFnResult

from fraud.codec import from_json
from fraud.models.columns import ModelColumns
from fraud.models.examples import Examples, load_split
from fraud.models.network import training
from fraud.models.preprocessing.transform_fn import vocabulary_sizes
from fraud.models.spec import AlertBudget, Network, Tuning

OBJECTIVE = "average_precision"


def tuner_fn(fn_args: Any) -> TunerFnResult:
    """Prepares the search. Called by TFX's Tuner.

    Args:
      fn_args: TFX's FnArgs; `custom_config` is the Trainer's (see
        `fraud.models.entry_point.run_fn`) plus `tuning` (JSON of Tuning).
    """
    config = fn_args.custom_config
    columns = from_json(ModelColumns, config["columns"])
    spec = from_json(Network, config["network"])
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    tuning = from_json(Tuning, config["tuning"])
    budget = from_json(AlertBudget, config["alert_budget"])
    return TunerFnResult(
        tuner=NetworkTuner(spec, tuning, budget, fn_args.working_dir),
        fit_kwargs={
            "examples": load_split(fn_args.train_files, transform, columns),
            "vocabularies": vocabulary_sizes(transform, columns, spec),
        },
    )


class ConfiguredFirst(keras_tuner.oracles.RandomSearchOracle):
    """Random search that tries the configured settings first, so the best are never worse."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """See keras_tuner.Oracle."""
        if not self.start_order:
            defaults = {hp.name: hp.default for hp in self.get_space().space}
            return {"status": trials.TrialStatus.RUNNING, "values": defaults}
        return super().populate_space(trial_id)


class NetworkTuner(base_tuner.BaseTuner):
    """Trains a network in each trial as the Trainer would; evaluates it on the held-out cards.

    With few trials, random search is a good choice: Bergstra, Bengio, "Random search for
    hyper-parameter optimization", JMLR 13 (2012).

    Args:
      spec: the configured network; its seed is also that of the search.
      tuning: the values to try and the number of trials.
      budget: see `training.fit`.
      directory: the folder for KerasTuner's records of the trials.
    """

    def __init__(self, spec: Network, tuning: Tuning, budget: AlertBudget, directory: str) -> None:
        space = keras_tuner.HyperParameters()
        for name, values in tuning.choices.items():
            configured = _scalar(getattr(spec, name))
            candidates = dict.fromkeys([configured, *map(_scalar, values)])
            space.Choice(name, list(candidates), default=configured)
        oracle = ConfiguredFirst(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            max_trials=tuning.trials,
            hyperparameters=space,
            seed=spec.seed,
        )
        super().__init__(oracle, directory=directory, project_name="trials", overwrite=True)
        self._spec, self._budget = spec, budget

    def run_trial(
        self, trial: trials.Trial, examples: Examples, vocabularies: Mapping[str, int]
    ) -> dict[str, float]:
        """Trains and evaluates one network; every trial holds out the same cards.

        Raises:
          FatalValueError: there is no fraud on the held-out cards to compare trials by.
        """
        spec = self._spec.tuned(trial.hyperparameters.values)
        fitted = training.fit(spec, examples, vocabularies, self._budget)
        score = fitted.validation[OBJECTIVE]
        keras.backend.clear_session()
        if np.isnan(score):
            raise keras_tuner.errors.FatalValueError(
                "no fraud among the held-out cards, so settings cannot be compared; increase "
                "windows.train_days or network.validation_percent"
            )
        return {OBJECTIVE: score}


def _scalar(value: Any) -> Any:
    """Converts a setting to a type that KerasTuner supports: a list becomes JSON text."""
    return json.dumps(value) if isinstance(value, (list, tuple)) else value

"""Tuner's entry point: the search for better settings of the network."""

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

from fraud import codec
from fraud.models.columns import ModelColumns
from fraud.models.examples import load_split
from fraud.models.network import training
from fraud.models.network.training import Examples
from fraud.models.preprocessing import transform_fn as preprocessing
from fraud.models.spec import Network, Tuning

OBJECTIVE = "average_precision"


def tuner_fn(fn_args: Any) -> TunerFnResult:
    """Prepares the search. Called by TFX's Tuner.

    Args:
      fn_args: TFX's FnArgs; `custom_config` is the Trainer's (see `fraud.models.entry_point.run_fn`) with
        `tuning` (JSON of Tuning).
    """
    config = fn_args.custom_config
    columns = ModelColumns.from_json(config["columns"])
    spec = codec.from_json(Network, config["network"])
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    search = NetworkTuner(
        spec, codec.from_json(Tuning, config["tuning"]), config["alert_budget"], fn_args.working_dir
    )
    return TunerFnResult(
        tuner=search,
        fit_kwargs={
            "examples": load_split(fn_args.train_files, transform, columns),
            "vocabularies": preprocessing.vocabulary_sizes(transform, columns, spec),
        },
    )


class ConfiguredFirst(keras_tuner.oracles.RandomSearchOracle):
    """Random search that begins with the configured settings: the best found is no worse."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """See keras_tuner.Oracle."""
        if not self.start_order:
            defaults = {hp.name: hp.default for hp in self.get_space().space}
            return {"status": trials.TrialStatus.RUNNING, "values": defaults}
        return super().populate_space(trial_id)


class NetworkTuner(base_tuner.BaseTuner):
    """Trains a network for each trial, as the Trainer would, and judges it on the held-out cards.

    Random search is the one for few trials: Bergstra, Bengio, "Random search for hyper-parameter
    optimization", JMLR 13 (2012).

    Args:
      spec: the configured network; its seed is that of the search too.
      tuning: which values are tried, and how many trials there are.
      alert_budget: cards a day.
      directory: where trials are noted.
    """

    def __init__(self, spec: Network, tuning: Tuning, alert_budget: int, directory: str) -> None:
        space = keras_tuner.HyperParameters()
        for name, values in tuning.choices.items():
            configured = _scalar(getattr(spec, name))
            tried = dict.fromkeys([configured, *map(_scalar, values)])
            space.Choice(name, list(tried), default=configured)
        oracle = ConfiguredFirst(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            max_trials=tuning.trials,
            hyperparameters=space,
            seed=spec.seed,
        )
        super().__init__(oracle, directory=directory, project_name="trials", overwrite=True)
        self._spec, self._alert_budget = spec, alert_budget

    def run_trial(
        self, trial: trials.Trial, examples: Examples, vocabularies: Mapping[str, int]
    ) -> dict[str, float]:
        """Trains and judges.

        Args:
          trial: holds the settings.
          examples: of the train window; the same cards are held out in every trial.
          vocabularies: see `training.fit`.

        Raises:
          FatalValueError: no trial can be told from another.
        """
        spec = self._spec.tuned(trial.hyperparameters.values)
        found = training.fit(spec, examples, vocabularies, self._alert_budget).validation[OBJECTIVE]
        keras.backend.clear_session()
        if np.isnan(found):
            raise keras_tuner.errors.FatalValueError(
                "no fraud among the held-out cards: there is nothing to choose settings by; a "
                "longer windows.train_days or a larger network.validation_percent may have some"
            )
        return {OBJECTIVE: found}


def _scalar(value: Any) -> Any:
    """A setting as KerasTuner can hold it: a list as JSON."""
    return json.dumps(value) if isinstance(value, (list, tuple)) else value

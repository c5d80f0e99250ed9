"""The Tuner's entry point: a search for better settings of the network."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import keras
import keras_tuner
import numpy as np
import sklearn
import sklearn.exceptions
import sklearn.gaussian_process
import tensorflow_transform as tft
from keras_tuner.engine import base_tuner
from keras_tuner.engine import trial as trials
from tfx.components.tuner.component import TunerFnResult

from fraud import progress
from fraud.codec import from_json
from fraud.models.columns import ModelColumns
from fraud.models.evaluation import bootstrap, metrics
from fraud.models.examples import Examples, load_split
from fraud.models.network import defaults, training
from fraud.models.preprocessing.transform_fn import vocabulary_sizes
from fraud.models.spec import AlertBudget, Network, ResolvedNetwork, Tuning

OBJECTIVE = "average_precision"

# A run imports KerasTuner without scikit-learn, which only this search needs; see `startup`.
sys.modules[keras_tuner.oracles.BayesianOptimizationOracle.__module__].sklearn = sklearn  # type: ignore[attr-defined]


def tuner_fn(fn_args: Any) -> TunerFnResult:
    """Prepares the search. Called by TFX's Tuner.

    Args:
      fn_args: TFX's FnArgs; `custom_config` is the Trainer's (see
        `fraud.models.entry_point.run_fn`) plus `tuning` (JSON of Tuning).
    """
    config = fn_args.custom_config
    columns = from_json(ModelColumns, config["columns"])
    network = from_json(Network, config["network"])
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    tuning = from_json(Tuning, config["tuning"])
    budget = from_json(AlertBudget, config["alert_budget"])
    examples = load_split(fn_args.train_files, transform, columns, network.rows_in_memory)
    resolved = defaults.resolve(network, examples.labels.size, examples.categories)
    return TunerFnResult(
        tuner=NetworkTuner(resolved, tuning, budget, fn_args.working_dir),
        fit_kwargs={
            "examples": examples,
            "vocabularies": vocabulary_sizes(transform, columns, network),
        },
    )


class ConfiguredFirst(keras_tuner.oracles.BayesianOptimizationOracle):
    """Bayesian optimization that tries the configured settings first."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """See keras_tuner.Oracle."""
        if not self.start_order:
            defaults = {hp.name: hp.default for hp in self.get_space().space}
            return {"status": trials.TrialStatus.RUNNING, "values": defaults}
        return super().populate_space(trial_id)


class MedianStopping(keras.callbacks.Callback):
    """Stops a trial whose best epoch so far is worse than that of most earlier trials by then.

    The median stopping rule of Golovin et al., "Google Vizier: a service for black-box
    optimization", KDD 2017, section 3.2.2. Trials with different numbers of epochs are compared at
    the same share of their epochs. The first `GRACE` trials, and the first quarter of each, are
    never stopped.

    Args:
      earlier: best average precision so far after each epoch, of each earlier trial.
      epochs: the maximum number of epochs of this trial.

    Attributes:
      curve: that of this trial.
      stopped: whether the trial was stopped.
    """

    GRACE = 3

    def __init__(self, earlier: list[list[float]], epochs: int) -> None:
        super().__init__()
        self._earlier, self._epochs = earlier, epochs
        self.curve: list[float] = []
        self.stopped = False

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """See keras.callbacks.Callback."""
        score = (logs or {}).get(training.VALIDATION_SCORE, np.nan)
        self.curve.append(max([score, *self.curve[-1:]]))
        share = (epoch + 1) / self._epochs
        if len(self._earlier) < self.GRACE or share < 0.25:
            return
        by_then = [curve[max(0, round(share * len(curve)) - 1)] for curve in self._earlier]
        if self.curve[-1] < np.median(by_then):
            self.stopped = self.model.stop_training = True


class NetworkTuner(base_tuner.BaseTuner):
    """Trains a network in each trial as the Trainer would; evaluates it on the held-out cards.

    Settings are proposed by Bayesian optimization (Snoek, Larochelle, Adams, "Practical Bayesian
    optimization of machine learning algorithms", NeurIPS 2012), the first ones at random. The best
    of many trials looks better than it is, so it replaces the configured settings only if a
    bootstrap of the cards says that it is better, see `Tuning.min_improvement_probability`.

    Args:
      network: the configured network; its seed is also that of the search.
      tuning: the values to try and the number of trials.
      budget: see `training.fit`.
      directory: the folder for KerasTuner's records of the trials.
    """

    def __init__(
        self, network: ResolvedNetwork, tuning: Tuning, budget: AlertBudget, directory: str
    ) -> None:
        space = keras_tuner.HyperParameters()
        for name, values in tuning.choices(network).items():
            configured = getattr(network, name)
            candidates = sorted({configured, *values})
            if name == "members":  # every trial is compared on the same held-out cards
                candidates = [count for count in candidates if count >= configured]
            space.Choice(name, list(map(_scalar, candidates)), default=_scalar(configured))
        oracle = ConfiguredFirst(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            max_trials=tuning.trials,
            num_initial_points=max(4, tuning.trials // 2),
            hyperparameters=space,
            seed=network.seed,
        )
        super().__init__(oracle, directory=directory, project_name="trials", overwrite=True)
        self._network, self._tuning, self._budget = network, tuning, budget
        self._curves: list[list[float]] = []
        self._tried: dict[ResolvedNetwork, float] = {}
        self._configured_scores = self._best_scores = np.zeros(0)
        self._improvement_probability = 0.0

    def run_trial(
        self, trial: trials.Trial, examples: Examples, vocabularies: Mapping[str, int]
    ) -> dict[str, float]:
        """Trains and evaluates one network; every trial is evaluated on the same held-out cards.

        Raises:
          FatalValueError: there is no fraud on the held-out cards to compare trials by.
        """
        network = self._network.tuned(trial.hyperparameters.values)
        number = f"trial {len(self.oracle.trials)} of {self._tuning.trials}"
        if network in self._tried:
            progress.report(f"{number}: the same settings as before")
            return {OBJECTIVE: self._tried[network]}
        stopping = MedianStopping(self._curves, network.epochs)
        fitted = training.fit(network, examples, vocabularies, self._budget, callbacks=[stopping])
        keras.backend.clear_session()
        if not self._tried:
            self._configured_scores = fitted.held_out_scores
        tested = ~np.isnan(self._configured_scores)
        score = metrics.average_precision(examples.labels[tested], fitted.held_out_scores[tested])
        if np.isnan(score):
            raise keras_tuner.errors.FatalValueError(
                "no fraud among the held-out cards, so settings cannot be compared; increase "
                "windows.train_days or network.validation_percent"
            )
        if score > max(self._tried.values(), default=-1.0):
            self._best_scores = fitted.held_out_scores
            self._improvement_probability = self._probability(examples, tested)
        self._curves.append(stopping.curve)
        self._tried[network] = score
        best = max(self._tried.values())
        stopped = f", stopped after {len(stopping.curve)} epochs" if stopping.stopped else ""
        progress.report(
            f"{number}: average precision {score:.4f}{stopped}; best {best:.4f}, "
            f"configured {self._tried[self._network]:.4f}"
        )
        return {OBJECTIVE: score}

    def on_search_end(self) -> None:
        """Reports the decision."""
        better = f"better with a probability of {self._improvement_probability:.2f}"
        if max(self._tried, key=self._tried.__getitem__) == self._network:
            progress.report("the configured settings are the best")
        elif self._improves:
            progress.report(f"the best settings are used: {better}")
        else:
            progress.report(f"the configured settings are kept: the best are only {better}")

    @property
    def _improves(self) -> bool:
        return self._improvement_probability >= self._tuning.min_improvement_probability

    def get_best_hyperparameters(self, num_trials: int = 1) -> list[keras_tuner.HyperParameters]:
        """The best settings; the configured ones if chance may explain the difference."""
        best = super().get_best_hyperparameters(num_trials)
        if self._improves:
            return best
        first = self.oracle.trials[self.oracle.start_order[0]].hyperparameters
        return [first, *best][:num_trials]

    def _probability(self, examples: Examples, tested: np.ndarray) -> float:
        """The share of replicates of the held-out cards on which the best settings are better."""
        outputs = {
            name: bootstrap.Outputs(scores[tested], scores[tested] >= 0.5)
            for name, scores in (("best", self._best_scores), ("first", self._configured_scores))
        }
        replicates = bootstrap.replicate(examples.labels[tested], outputs, examples.cards[tested])
        worse = replicates.drop_probability(OBJECTIVE, "best", "first", 0.0)
        return 0.0 if worse is None else 1 - worse  # None: too few frauds to tell


def _scalar(value: Any) -> Any:
    """Converts a setting to a type that KerasTuner supports: a list becomes JSON text."""
    return json.dumps(value) if isinstance(value, (list, tuple)) else value

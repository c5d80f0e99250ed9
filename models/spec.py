"""The network and the requirements it must meet: the configuration that `models` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from fraud import codec
from fraud.codec import STRICT
from fraud.features.spec import Dataset

# A tuned setting has the same range as the setting itself.
Epochs = Annotated[int, Field(ge=1)]
LearningRate = Annotated[float, Field(gt=0)]
WeightDecay = Annotated[float, Field(ge=0)]
Towers = Annotated[tuple[tuple[Annotated[int, Field(ge=1)], ...], ...], Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class Network:
    """The Keras model and its training."""

    bins: int = Field(
        default=16,
        ge=1,
        description="Number of bins in the piecewise-linear encoding of each numeric column.",
    )
    towers: Towers = Field(
        default=((128, 64),),
        description="Units in the hidden layers of each tower; the logits of the towers are "
        "averaged.",
    )
    embedding_dim: int = Field(
        default=8, ge=1, description="Width of the embedding of each categorical column."
    )
    vocabulary_size: int = Field(
        default=1000,
        ge=1,
        description="Number of most frequent values kept per categorical column; the rest share "
        "the `oov_buckets` buckets.",
    )
    oov_buckets: int = Field(
        default=4, ge=1, description="Number of hash buckets for values outside the vocabulary."
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        le=0.99,
        description="Fraction of hidden units dropped in each training step.",
    )
    batch_size: int = Field(default=1024, ge=1, description="Examples per training step.")
    epochs: Epochs = Field(
        default=6,
        description="Maximum number of passes over the train split; the pass with the best "
        "average precision on the validation cards is kept.",
    )
    patience: int = Field(
        default=3, ge=1, description="Passes without improvement after which training stops."
    )
    learning_rate: LearningRate = Field(
        default=4e-3,
        description="Peak learning rate of AdamW, reached after a warm-up and followed by a cosine "
        "decay.",
    )
    weight_decay: WeightDecay = Field(default=1e-2, description="Weight decay of AdamW.")
    ema_momentum: float = Field(
        default=0.999,
        ge=0,
        le=1,
        description="Momentum of the exponential moving average of the weights; it is lowered "
        "automatically when there are few steps.",
    )
    positive_weight: float = Field(
        default=1.0,
        gt=0,
        description="Weight of a fraud in the loss, relative to a genuine transaction.",
    )
    focal_gamma: float = Field(
        default=0.0,
        ge=0,
        description="Exponent of the focal loss (Lin et al. 2017), at least 1; 0 means plain "
        "cross-entropy.",
    )
    validation_percent: int = Field(
        default=10,
        ge=1,
        le=50,
        description="Percentage of cards (of rows, if there are no entities) held out of training "
        "to choose the epoch, calibrate the scores and set the threshold.",
    )
    seed: int = Field(
        default=7, description="Random seed of initial weights, shuffling and dropout."
    )

    def tuned(self, values: Mapping[str, Any]) -> Network:
        """The same network with some settings replaced by `values`, in the form `settings` reads.

        Raises:
          BadInput: a setting is unknown or out of range.
        """
        return codec.from_values(Network, {**asdict(self), **settings(values)})


def settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Network settings from a Tuner's hyperparameters, in which lists are JSON text."""
    return {k: json.loads(v) if isinstance(v, str) else v for k, v in values.items()}


@dataclass(frozen=True, config=STRICT)
class Tuning:
    """The search for better network settings before the model is trained."""

    enabled: bool = Field(
        default=False, description="Whether a run searches; `run --tune` turns it on."
    )
    trials: int = Field(
        default=8,
        ge=1,
        description="Maximum number of settings to try, starting with those of `network`; each "
        "takes as long as a training.",
    )
    learning_rate: tuple[LearningRate, ...] = Field(
        default=(1e-3, 2e-3, 4e-3, 8e-3),
        description="Values of `network.learning_rate` to try; an empty list keeps its value.",
    )
    weight_decay: tuple[WeightDecay, ...] = Field(
        default=(1e-3, 1e-2, 1e-1),
        description="Values of `network.weight_decay` to try; an empty list keeps its value.",
    )
    epochs: tuple[Epochs, ...] = Field(
        default=(4, 6, 9),
        description="Values of `network.epochs` to try; an empty list keeps its value.",
    )
    towers: tuple[Towers, ...] = Field(
        default=(((64, 32),), ((128, 64),), ((256, 128),), ((128, 64), (128, 64))),
        description="Values of `network.towers` to try; an empty list keeps its value.",
    )

    @property
    def choices(self) -> dict[str, tuple]:
        """The values to try, by the name of the network's setting."""
        names = ("learning_rate", "weight_decay", "epochs", "towers")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@dataclass(frozen=True, config=STRICT)
class AlertBudget:
    """What analysts can check: cards per day or, without timestamps, alerts per transactions.

    Attributes:
      size: the number of cards or alerts.
      transactions: the number of transactions that `size` alerts are for; None for cards per day.
    """

    size: int
    transactions: int | None = None

    def __str__(self) -> str:
        if self.transactions is None:
            return f"{self.size:,} cards a day"
        return f"{self.size:,} alerts per {self.transactions:,} transactions"


@dataclass(frozen=True, config=STRICT)
class Evaluation:
    """The requirements a model must meet to be blessed."""

    alert_budget: int = Field(
        default=100,
        ge=1,
        description="Number of cards that analysts can check per day; without `dataset.timestamp`, "
        "number of alerts per `budget_transactions` transactions.",
    )
    budget_transactions: int = Field(
        default=2000,
        ge=1,
        description="Number of transactions that `alert_budget` alerts are for if the data has no "
        "timestamp, hence no days.",
    )
    min_average_precision: float = Field(
        default=0.3, ge=0, le=1, description="Minimum average precision on the eval window."
    )
    min_roc_auc: float = Field(
        default=0.75, ge=0, le=1, description="Minimum area under the ROC curve on the eval window."
    )
    min_recall_at_budget: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Minimum recall within the alert budget on the eval window.",
    )
    max_average_precision_drop: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="How far a challenger's average precision may be below the champion's on the "
        "same examples.",
    )
    max_roc_auc_drop: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="How far a challenger's area under the ROC curve may be below the champion's "
        "on the same examples.",
    )
    max_recall_at_budget_drop: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="How far a challenger's recall within the alert budget may be below the "
        "champion's on the same examples.",
    )
    max_slice_recall_gap: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="How far a slice's recall within the alert budget may be below the overall "
        "recall.",
    )
    max_slice_fpr_gap: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="How far a slice's false-positive rate may be above the overall rate.",
    )
    min_slice_examples: int = Field(
        default=50,
        ge=1,
        description="Minimum number of frauds (for recall) and of genuine transactions (for the "
        "false-positive rate) a slice needs to be evaluated; with fewer, chance dominates.",
    )
    check_cost: float = Field(
        default=5.0, ge=0, description="Cost of checking one card, in the currency of the amounts."
    )
    saved_share: float = Field(
        default=0.8, ge=0, le=1, description="Fraction of a fraud's amount that an alert saves."
    )

    def budget(self, dataset: Dataset) -> AlertBudget:
        """What the alert budget means for this data."""
        return AlertBudget(
            self.alert_budget, None if dataset.timestamp else self.budget_transactions
        )

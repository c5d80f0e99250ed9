"""The network and the requirements it must meet: the configuration that `models` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from fraud import codec
from fraud.codec import STRICT, Count, Share
from fraud.features.spec import Dataset
from fraud.names import plural, spoken

Dropout = Annotated[float, Field(ge=0, le=0.99)]
Percent = Annotated[int, Field(ge=1, le=50)]
Towers = Annotated[tuple[tuple[Count, ...], ...], Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class Network:
    """The Keras model and its training."""

    bins: Count = 16
    """Number of bins in the piecewise-linear encoding of each numeric column."""
    towers: Towers | None = None
    """Units in the hidden layers of each tower; the logits of the towers are averaged; null
    follows the number of rows and categories."""
    members: Count | None = None
    """Number of networks that are trained side by side, each without other cards, and whose
    probabilities are averaged; null follows the number of rows."""
    embedding_dim: Count = 8
    """Width of the embedding of a categorical column with more than 32 values; others are
    one-hot."""
    vocabulary_size: Count = 1000
    """Number of most frequent values kept per categorical column; the rest share the `oov_buckets`
    buckets."""
    oov_buckets: Count = 4
    """Number of hash buckets for values outside the vocabulary."""
    dropout: Dropout | None = None
    """Fraction of hidden units dropped in each training step; null follows the number of rows and
    categories."""
    column_dropout: Dropout | None = None
    """Fraction of columns that the network does not see of each example in a training step; null
    follows the number of rows and categories."""
    batch_size: Count | None = None
    """Examples per training step; null follows the number of rows."""
    epochs: Count | None = None
    """Maximum number of passes over the train split; the pass with the best average precision on
    the held-out cards is kept; null follows the number of rows."""
    patience: Count | None = None
    """Passes without improvement after which training stops; null is half of the epochs."""
    learning_rate: PositiveFloat = 4e-3
    """Peak learning rate of AdamW, reached after a warm-up and followed by a cosine decay."""
    weight_decay: NonNegativeFloat = 1e-2
    """Weight decay of AdamW."""
    ema_momentum: Share = 0.999
    """Momentum of the exponential moving average of the weights; it is lowered automatically when
    there are few steps."""
    positive_weight: PositiveFloat = 1.0
    """Weight of a fraud in the loss, relative to a genuine transaction."""
    focal_gamma: NonNegativeFloat = 0.0
    """Exponent of the focal loss (Lin et al. 2017), at least 1; 0 means plain cross-entropy."""
    genuine_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the genuine transactions that a pass trains on, drawn anew for each pass, beside all
    frauds; below 1, training costs less, and the scores are still probabilities."""
    rows_in_memory: Count = 5_000_000
    """Transactions of the train window up to which training has them in memory; more are streamed
    from a temporary file (in the folder that TMPDIR names), a quarter of a million at a time."""
    workers: Count = 1
    """Number of processes, on as many machines, that train together, each on its share of every
    batch; with more than 1, TF_CONFIG describes them (see docs/model.md)."""
    workers_wait_minutes: Count = 10
    """How long the Trainer waits for the other workers before it gives up."""
    validation_percent: Percent | None = None
    """Percentage of cards (of rows, if there are no entities) that each member is not trained on:
    its scores for them choose the epoch, calibrate the scores and set the threshold; null follows
    the number of rows."""
    seed: int = 7
    """Random seed of initial weights, shuffling and dropout."""

    def tuned(self, values: Mapping[str, Any]) -> Self:
        """The same network with some settings replaced by `values`, in the form `settings` reads.

        Raises:
          BadInput: a setting is unknown or out of range.
        """
        return codec.from_values(type(self), {**asdict(self), **settings(values)})


@dataclass(frozen=True, config=STRICT)
class ResolvedNetwork(Network):
    """A network without open settings, see `fraud.models.network.defaults.resolve`."""

    towers: Towers = ((128, 64),)
    members: Count = 1
    dropout: Dropout = 0.0
    column_dropout: Dropout = 0.0
    batch_size: Count = 1024
    epochs: Count = 6
    patience: Count = 3
    validation_percent: Percent = 10


def settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Network settings from a Tuner's hyperparameters, in which lists are JSON text."""
    return {k: json.loads(v) if isinstance(v, str) else v for k, v in values.items()}


@dataclass(frozen=True, config=STRICT)
class Tuning:
    """The search for better network settings before the model is trained."""

    enabled: bool = False
    """Whether a run searches; `run --tune` turns it on."""
    trials: Count = 12
    """Maximum number of settings to try, starting with those of `network`; each takes as long as a
    training, unless it is hopeless and stops early."""
    min_improvement_probability: Share = 0.8
    """Probability, by a bootstrap of the cards, that the best settings are better than those of
    `network`; with less, these are kept."""
    learning_rate: tuple[PositiveFloat, ...] = (1e-3, 2e-3, 4e-3, 8e-3)
    """Values of `network.learning_rate` to try; an empty list keeps its value."""
    weight_decay: tuple[NonNegativeFloat, ...] = (1e-3, 1e-2, 3e-2, 1e-1)
    """Values of `network.weight_decay` to try; an empty list keeps its value."""
    dropout: tuple[Dropout, ...] = (0.0, 0.1, 0.2, 0.3, 0.5)
    """Values of `network.dropout` to try; an empty list keeps its value."""
    column_dropout: tuple[Dropout, ...] = (0.0, 0.15, 0.3, 0.45)
    """Values of `network.column_dropout` to try; an empty list keeps its value."""
    epochs: tuple[Count, ...] | None = None
    """Values of `network.epochs` to try; null tries half and twice its value, an empty list keeps
    it."""
    members: tuple[Count, ...] | None = None
    """Values of `network.members` to try; null tries twice its value, an empty list keeps it."""
    towers: tuple[Towers, ...] = (((64, 32),), ((128, 64),), ((256, 128),))
    """Values of `network.towers` to try; an empty list keeps its value."""

    def choices(self, network: ResolvedNetwork) -> dict[str, tuple]:
        """The values to try, by the name of the network's setting."""
        epochs, members = network.epochs, network.members
        values = {
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "dropout": self.dropout,
            "column_dropout": self.column_dropout,
            "epochs": (max(1, epochs // 2), 2 * epochs) if self.epochs is None else self.epochs,
            "members": (2 * members,) if self.members is None else self.members,
            "towers": self.towers,
        }
        return {name: each for name, each in values.items() if each}


MOST_CARDS = 100
"""Cards a day that are checked at most unless a budget is configured; the handbook's number."""


@dataclass(frozen=True, config=STRICT)
class AlertBudget:
    """What analysts can check: cards per day or, without timestamps, alerts per transactions."""

    size: int | None
    """The number of cards or alerts; None means `share` of the cards of a day."""
    transactions: int | None = None
    """The number of transactions that `size` alerts are for; None for cards per day."""
    timezone: str = "UTC"
    """The timezone of the days."""
    share: float = 0.0
    """The share of the cards of a day, of which at most `MOST_CARDS` are checked."""
    called: str = "cards"
    """What the data calls them, in the plural."""

    def cards(self, cards_a_day: float) -> float:
        """How many cards a day are checked where so many have transactions."""
        if self.size is not None:
            return self.size
        return min(MOST_CARDS, self.share * cards_a_day)

    def __str__(self) -> str:
        if self.size is None:
            return f"{100 * self.share:.3g} % of the {self.called} of a day, at most {MOST_CARDS}"
        if self.transactions is None:
            return f"{self.size:,} {self.called} a day"
        return f"{self.size:,} alerts per {self.transactions:,} rows"


@dataclass(frozen=True, config=STRICT)
class Evaluation:
    """The requirements a model must meet to be blessed."""

    alert_budget: Count | None = None
    """Number of cards that analysts can check per day; without `dataset.timestamp`, number of
    alerts per `budget_transactions` transactions; null means `alert_share` of them."""
    alert_share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Without `alert_budget`: share of the cards of a day that are checked, at most 100; without
    `dataset.timestamp`, share of the transactions that alert."""
    budget_transactions: Count = 2000
    """Number of transactions that `alert_budget` alerts are for if the data has no timestamp, hence
    no days."""
    min_average_precision: Share = 0.3
    """Minimum average precision on the eval window."""
    min_roc_auc: Share = 0.75
    """Minimum area under the ROC curve on the eval window."""
    min_recall_at_budget: Share = 0.3
    """Minimum recall on the eval window of the model's alerts, whose threshold kept to the alert
    budget on held-out cards; if scores have risen since, there are more alerts than that."""
    max_average_precision_drop: Share = 0.01
    """How far a challenger's average precision may be below the champion's on the same examples."""
    max_roc_auc_drop: Share = 0.01
    """How far a challenger's area under the ROC curve may be below the champion's on the same
    examples."""
    max_recall_at_budget_drop: Share = 0.1
    """How far the recall of a challenger's alerts may be below the champion's on the same
    examples."""
    max_brier_skill_drop: Share = 0.05
    """How far a challenger's Brier skill (1 − Brier / p (1 − p), with p the share of frauds) may be
    below the champion's on the same examples: how good its scores are as probabilities of fraud."""
    max_drop_probability: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """The probability of a drop larger than allowed above which a challenger is refused, by a
    bootstrap of the cards: below it, the drop may well be chance."""
    max_slice_recall_gap: Share = 0.2
    """How far the recall of the alerts of a slice may be below the overall recall."""
    max_slice_fpr_gap: Share = 0.02
    """How far a slice's false-positive rate may be above the overall rate."""
    min_slice_examples: Count = 50
    """Minimum number of frauds (for recall) and of genuine transactions (for the false-positive
    rate) a slice needs to be evaluated; with fewer, chance dominates."""
    check_cost: NonNegativeFloat = 5.0
    """Cost of checking one card, in the currency of the amounts."""
    saved_share: Share = 0.8
    """Fraction of a fraud's amount that an alert saves."""

    def budget(self, dataset: Dataset) -> AlertBudget:
        """What the alert budget means for this data."""
        if dataset.timestamp:
            card = dataset.card_entity
            called = plural(spoken(card)) if card else "transactions"
            return AlertBudget(self.alert_budget, None, dataset.timezone, self.alert_share, called)
        alerts = self.alert_budget or max(1, round(self.alert_share * self.budget_transactions))
        return AlertBudget(alerts, self.budget_transactions, dataset.timezone)

    @property
    def cards_checked(self) -> int:
        """The number of cards checked a day; 0 if it is `alert_share` of them."""
        return self.alert_budget or 0

"""What the network is and what it must show: the part of the configuration that `models` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Network:
    """The Keras model and how it is trained.

    Attributes:
      bins: bins of the piecewise-linear encoding of each numeric column.
      towers: units of the hidden layers of each tower; the towers' logits are averaged.
      embedding_dim: width of each category's embedding.
      vocabulary_size: most frequent values kept of each categorical column; the rest share the
        `oov_buckets` buckets.
      oov_buckets: hash buckets of unseen values, at least 1.
      dropout: share of hidden units dropped in training, in [0, 1).
      batch_size: examples per step.
      epochs: passes over the train split; the best one by average precision on the validation
        cards is kept, and training ends once `patience` passes brought none better.
      patience: see `epochs`.
      learning_rate: AdamW's, at its peak; it warms up and then falls as a cosine.
      weight_decay: AdamW's.
      ema_momentum: of the moving average of the weights that is kept; less where steps are few.
      positive_weight: weight of a fraud in the loss, a genuine transaction having 1.
      focal_gamma: exponent of the focal loss (Lin et al. 2017), at least 1; 0 is plain
        cross-entropy.
      validation_percent: share of the cards (of the rows, without entities) that are held out of
        training to choose the epoch, calibrate, and set the threshold.
      seed: of weights, shuffling and dropout.
    """

    bins: int = 16
    towers: tuple[tuple[int, ...], ...] = ((128, 64),)
    embedding_dim: int = 8
    vocabulary_size: int = 1000
    oov_buckets: int = 4
    dropout: float = 0.0
    batch_size: int = 1024
    epochs: int = 6
    patience: int = 3
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    ema_momentum: float = 0.999
    positive_weight: float = 1.0
    focal_gamma: float = 0.0
    validation_percent: int = 10
    seed: int = 7

    @classmethod
    def from_json(cls, text: str) -> Network:
        """Reads what `fraud.pipeline.config.to_json` wrote."""
        document = json.loads(text)
        return cls(**{**document, "towers": tuple(map(tuple, document["towers"]))})

    def tuned(self, values: Mapping[str, Any]) -> Network:
        """The same network with some other settings, `values` as in `settings`."""
        return Network.from_json(json.dumps({**asdict(self), **settings(values)}))


def settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the network out of a Tuner's hyperparameters, which hold lists as JSON text."""
    return {k: json.loads(v) if isinstance(v, str) else v for k, v in values.items()}


@dataclass(frozen=True)
class Tuning:
    """The search for better settings of the network, before it is trained.

    Attributes:
      enabled: whether a run searches; `run --tune` sets it.
      trials: how many settings are tried at most, those of `network` first. Each takes as long as
        a training.
      learning_rate, weight_decay, epochs, towers: values that are tried besides the one in
        `network`; an empty list leaves that one.
    """

    enabled: bool = False
    trials: int = 8
    learning_rate: tuple[float, ...] = (1e-3, 2e-3, 4e-3, 8e-3)
    weight_decay: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    epochs: tuple[int, ...] = (4, 6, 9)
    towers: tuple[tuple[tuple[int, ...], ...], ...] = (
        ((64, 32),),
        ((128, 64),),
        ((256, 128),),
        ((128, 64), (128, 64)),
    )

    @property
    def choices(self) -> dict[str, tuple]:
        """The values to try, by the name of the network's setting."""
        names = ("learning_rate", "weight_decay", "epochs", "towers")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    @classmethod
    def from_json(cls, text: str) -> Tuning:
        """Reads what `fraud.pipeline.config.to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Evaluation:
    """What a model must show to be blessed.

    Attributes:
      alert_budget: how many cards a day analysts can check.
      min_average_precision, min_roc_auc, min_recall_at_budget: absolute thresholds on the eval
        window.
      max_average_precision_drop, max_roc_auc_drop, max_recall_at_budget_drop: how far a challenger
        may stay behind the champion on the same examples.
      max_slice_recall_gap: how far the recall at the budget of a slice may stay below the overall
        one.
      max_slice_fpr_gap: how far the false-positive rate of a slice may lie above the overall one.
      min_slice_examples: how many frauds (for the recall) and how many genuine transactions (for
        the false-positive rate) a slice must have to be judged; with fewer, chance decides.
      check_cost: what checking a card costs, in the currency of the amounts.
      saved_share: of a fraud's amount, what an alert saves.
    """

    alert_budget: int = 100
    min_average_precision: float = 0.3
    min_roc_auc: float = 0.75
    min_recall_at_budget: float = 0.3
    max_average_precision_drop: float = 0.01
    max_roc_auc_drop: float = 0.01
    max_recall_at_budget_drop: float = 0.1
    max_slice_recall_gap: float = 0.2
    max_slice_fpr_gap: float = 0.02
    min_slice_examples: int = 50
    check_cost: float = 5.0
    saved_share: float = 0.8

"""What the network is and what it must show: the part of the configuration that `models` reads."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """The Keras model and how it is trained.

    Attributes:
      bins: bins of the piecewise-linear encoding of each numeric column.
      towers: units of the hidden layers of each tower; the towers' logits are averaged.
      embedding: width of each category's embedding.
      vocabulary: most frequent values kept of each categorical column; the rest share the
        `out_of_vocabulary` buckets.
      out_of_vocabulary: hash buckets of unseen values, at least 1.
      dropout: share of hidden units dropped in training, in [0, 1).
      batch: examples per step.
      epochs: passes over the train split; the best one by average precision on the validation
        cards is kept, and training ends once `patience` passes brought none better.
      patience: see `epochs`.
      learning_rate: AdamW's, at its peak; it warms up and then falls as a cosine.
      weight_decay: AdamW's.
      ema_momentum: of the moving average of the weights that is kept; less where steps are few.
      positive_weight: weight of a fraud in the loss, a genuine transaction having 1.
      focal_gamma: exponent of the focal loss (Lin et al. 2017); 0 is plain cross-entropy.
      validation_percent: share of the cards (of the rows, without entities) that are held out of
        training to choose the epoch, calibrate, and set the threshold.
      seed: of weights, shuffling and dropout.
    """

    bins: int = 16
    towers: tuple[tuple[int, ...], ...] = ((128, 64),)
    embedding: int = 8
    vocabulary: int = 1000
    out_of_vocabulary: int = 4
    dropout: float = 0.0
    batch: int = 1024
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
        """Reads what `pipeline.config.to_json` wrote."""
        document = json.loads(text)
        return cls(**{**document, "towers": tuple(map(tuple, document["towers"]))})


@dataclass(frozen=True)
class Evaluation:
    """What a model must show to be blessed.

    Attributes:
      alert_budget: how many cards a day analysts can check.
      min_average_precision, min_roc_auc: absolute thresholds on the eval window.
      max_average_precision_drop, max_roc_auc_drop: how far a challenger may stay behind the
        champion on the same examples.
    """

    alert_budget: int = 100
    min_average_precision: float = 0.3
    min_roc_auc: float = 0.75
    max_average_precision_drop: float = 0.01
    max_roc_auc_drop: float = 0.01

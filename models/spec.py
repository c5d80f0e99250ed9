"""What the network is and what it must show: the part of the configuration that `models` reads."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """The Keras model and how it is trained.

    Attributes:
      bins: quantile bins of the piecewise-linear encoding of each numeric column.
      layers: units of each hidden layer.
      embedding: width of each category's embedding.
      vocabulary: most frequent values kept of each categorical column; the rest share
        `out_of_vocabulary` hash buckets.
      out_of_vocabulary: hash buckets of unseen values, at least 1.
      dropout: share of hidden units dropped in training, in [0, 1).
      batch: examples per step.
      epochs: passes over the train split at most; the best epoch by average precision is kept.
      learning_rate: AdamW's, at its peak.
      weight_decay: AdamW's.
      positive_weight: weight of a fraud in the loss, a genuine transaction having 1.
      seed: of weights, shuffling and dropout.
    """

    bins: int = 16
    layers: tuple[int, ...] = (128, 64)
    embedding: int = 8
    vocabulary: int = 1000
    out_of_vocabulary: int = 4
    dropout: float = 0.1
    batch: int = 1024
    epochs: int = 6
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    positive_weight: float = 1.0
    seed: int = 7

    @classmethod
    def from_json(cls, text: str) -> Network:
        """Reads what `pipeline.config.to_json` wrote."""
        document = json.loads(text)
        return cls(**{**document, "layers": tuple(document["layers"])})


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

"""Which columns of the examples the model reads."""

from __future__ import annotations

import json
from dataclasses import dataclass

from fraud import features
from fraud.features.spec import Dataset, Features


@dataclass(frozen=True)
class ModelColumns:
    """The model's inputs and its label, by the names they have in the examples.

    Attributes:
      numeric: floats; a missing one has no value in its example.
      categorical: texts; likewise.
      label: 0 or 1.
      timestamp: epoch seconds, or None.
      card: the entity that the alert budget counts, or None.
    """

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    label: str
    timestamp: str | None
    card: str | None

    @classmethod
    def of(cls, dataset: Dataset, spec: Features) -> ModelColumns:
        """The columns that a dataset and its features give. Entities are not read: a model that
        knows a customer by number cannot judge a new one.
        """
        amount = (dataset.amount,) if dataset.amount else ()
        numeric = (*amount, *dataset.numeric, *features.feature_names(spec, dataset))
        return cls(
            numeric, dataset.categorical, dataset.label, dataset.timestamp, dataset.card_entity
        )

    @classmethod
    def from_json(cls, text: str) -> ModelColumns:
        """Reads what `fraud.pipeline.config.to_json` wrote."""
        document = json.loads(text)
        return cls(
            tuple(document["numeric"]),
            tuple(document["categorical"]),
            document["label"],
            document["timestamp"],
            document["card"],
        )

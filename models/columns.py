"""The columns of the examples that the model reads."""

from __future__ import annotations

from dataclasses import dataclass

from fraud.features.batch import feature_names
from fraud.features.spec import Dataset, Features


@dataclass(frozen=True)
class ModelColumns:
    """The model's inputs and its label, by their names in the examples.

    Attributes:
      numeric: float columns; a missing value is absent from its example.
      categorical: text columns; likewise.
      label: 0 or 1.
      timestamp: epoch seconds, or None.
      card: the column of the entity that the alert budget counts, or None.
    """

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    label: str
    timestamp: str | None
    card: str | None

    @classmethod
    def of(cls, dataset: Dataset, spec: Features) -> ModelColumns:
        """The columns of a dataset and its features.

        Entities are left out: a model that knows customers by their ids cannot score a new one.
        """
        amount = (dataset.amount,) if dataset.amount else ()
        numeric = (*amount, *dataset.numeric, *feature_names(spec, dataset))
        return cls(
            numeric, dataset.categorical, dataset.label, dataset.timestamp, dataset.card_entity
        )

"""Computes the features of transactions as they arrive, from what is remembered of their entities.

The definitions are those of `fraud.features.batch`: here they are evaluated for the new
transactions alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fraud.features.batch import calendar_features, entity_features
from fraud.features.history import Queries
from fraud.features.spans import Floats, Ints
from fraud.features.spec import Dataset, Features


@dataclass(frozen=True)
class EntityRows:
    """What is remembered of some values of one entity.

    Attributes:
      keys: the values as integer codes, [rows].
      timestamps: datetime64[us] in UTC, [rows].
      amounts: NaN where missing, [rows].
      labels: 1, 0 or NaN where not known, [rows].
      label_times: when each label became known, NaT where it did not, [rows].
      query_keys: the codes of the values that the new transactions have, negative where they have
        none, [new].
    """

    keys: Ints
    timestamps: NDArray[np.datetime64]
    amounts: Floats
    labels: Floats
    label_times: NDArray[np.datetime64]
    query_keys: Ints


def online_features(
    spec: Features,
    dataset: Dataset,
    delay_days: int,
    timestamps: NDArray[np.datetime64],
    amounts: Floats,
    histories: Mapping[str, EntityRows],
) -> dict[str, NDArray[np.float32]]:
    """The features of new transactions, equal to those that `add_features` computes.

    A transaction sees the rows of its entities that are earlier than itself. For transactions of a
    batch to see each other, they must be among the rows.

    Args:
      spec, dataset, delay_days: the definitions.
      timestamps: of the new transactions, datetime64[us] in UTC, [new].
      amounts: NaN where missing, [new].
      histories: entity → its rows. All rows of the last `history_days` must be present.

    Returns:
      name → values, [new] each, in the order of `feature_names`; NaN where undefined.

    Raises:
      BadInput: as in `entity_features`.
    """
    features = calendar_features(spec, dataset, timestamps)
    delay = np.timedelta64(delay_days, "D")
    for entity in dataset.entities:
        rows = histories[entity]
        features |= entity_features(
            spec,
            dataset,
            entity,
            rows.keys,
            rows.timestamps,
            rows.amounts,
            rows.labels,
            delay,
            rows.label_times if dataset.label_time else None,
            Queries(rows.query_keys, timestamps, amounts),
        )
    return features

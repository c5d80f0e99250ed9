"""Computes the features of transactions as they arrive, from what is remembered of their entities.

The definitions are those of `fraud.features.batch`: here they are evaluated for the new
transactions alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fraud.features.batch import calendar_features, entity_history, features_of_entities
from fraud.features.history import Queries
from fraud.features.spans import Floats, Ints
from fraud.features.spec import Dataset, Features


@dataclass(frozen=True)
class EntityRows:
    """What is remembered of some values of some entities.

    Attributes:
      keys: the values as integer codes, which differ between entities, [rows].
      timestamps: datetime64[us] in UTC, [rows].
      amounts: NaN where missing, [rows].
      labels: 1, 0 or NaN where not known, [rows].
      label_times: when each label became known, NaT where it did not, [rows].
      query_keys: entity → the codes of the values that the new transactions have, negative where
        they have none, [new] each.
    """

    keys: Ints
    timestamps: NDArray[np.datetime64]
    amounts: Floats
    labels: Floats
    label_times: NDArray[np.datetime64]
    query_keys: Mapping[str, Ints]


def online_features(
    spec: Features,
    dataset: Dataset,
    delay_days: int,
    timestamps: NDArray[np.datetime64],
    amounts: Floats,
    rows: EntityRows,
) -> dict[str, NDArray[np.float32]]:
    """The features of new transactions, equal to those that `add_features` computes.

    A transaction sees the rows of its entities that are earlier than itself. For transactions of a
    batch to see each other, they must be among the rows.

    Args:
      spec, dataset, delay_days: the definitions.
      timestamps: of the new transactions, datetime64[us] in UTC, [new].
      amounts: NaN where missing, [new].
      rows: of all entities of the dataset. All rows of the last `history_days` must be present.

    Returns:
      name → values, [new] each, in the order of `feature_names`; NaN where undefined.

    Raises:
      BadInput: as in `entity_features`.
    """
    features = calendar_features(spec, dataset, timestamps)
    if not dataset.entities:
        return features
    keys = {entity: rows.query_keys[entity] for entity in dataset.entities}
    # All entities at once: for few transactions, the number of calls is what takes time.
    history = entity_history(
        spec,
        rows.keys,
        rows.timestamps,
        rows.amounts,
        rows.labels,
        np.timedelta64(delay_days, "D"),
        rows.label_times if dataset.label_time else None,
        Queries(
            np.concatenate(list(keys.values())),
            np.concatenate([timestamps] * len(keys)),
            np.concatenate([amounts] * len(keys)),
        ),
    )
    return features | features_of_entities(spec, dataset, history, keys)

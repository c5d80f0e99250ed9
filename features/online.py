"""Computes the features of transactions as they arrive, from what is remembered of their entities.

The definitions are those of `fraud.features.batch`: here they are evaluated for the new
transactions alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fraud.features.batch import calendar_features, entity_history, features_of_entities
from fraud.features.history import FEW, Queries
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
    # For few transactions the number of calls is what takes time; for many, it is that features of
    # one entity would be computed of all.
    together = len(timestamps) <= FEW
    groups = [dataset.entities] if together else [(entity,) for entity in dataset.entities]
    for entities in filter(None, groups):
        features |= _of_entities(spec, dataset, delay_days, timestamps, amounts, rows, entities)
    return features


def _of_entities(
    spec: Features,
    dataset: Dataset,
    delay_days: int,
    timestamps: NDArray[np.datetime64],
    amounts: Floats,
    rows: EntityRows,
    entities: Sequence[str],
) -> dict[str, NDArray[np.float32]]:
    """The features of some entities; arguments and result as of `online_features`."""
    keys = {entity: rows.query_keys[entity] for entity in entities}
    asked = np.concatenate(list(keys.values()))
    mine = slice(None) if len(keys) == len(rows.query_keys) else np.isin(rows.keys, asked)
    history = entity_history(
        spec,
        rows.keys[mine],
        rows.timestamps[mine],
        rows.amounts[mine],
        rows.labels[mine],
        np.timedelta64(delay_days, "D"),
        rows.label_times[mine] if dataset.label_time else None,
        Queries(
            asked,
            np.concatenate([timestamps] * len(keys)),
            np.concatenate([amounts] * len(keys)),
        ),
    )
    return features_of_entities(spec, dataset, history, keys)

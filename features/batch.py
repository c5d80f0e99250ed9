"""Computes the feature columns that a specification defines from columns of transactions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.features.definitions import CALENDAR, FAMILIES, Family
from fraud.features.history import History
from fraud.features.spans import Floats, Ints
from fraud.features.spec import CARD, Dataset, Features

if TYPE_CHECKING:
    import pyarrow as pa


def check_features(spec: Features, dataset: Dataset) -> None:
    """Rejects features that this dataset cannot have.

    Raises:
      BadInput: the message names the key, the value and the fix.
    """
    for name in spec.calendar:
        if name not in CALENDAR:
            raise BadInput(f"features.calendar: unknown '{name}'; one of {_listed(CALENDAR)}")
    for i, group in enumerate(spec.groups):
        at = f"features.groups[{i}]"
        for name in group.families:
            if name not in FAMILIES:
                raise BadInput(f"{at}.families: unknown '{name}'; one of {_listed(FAMILIES)}")
        for name in group.entities or ():
            if name not in (*dataset.entities, CARD):
                raise BadInput(
                    f"{at}.entities: '{name}' is not an entity of the dataset; add it to "
                    f"dataset.entities or use one of {_listed((*dataset.entities, CARD))}"
                )
        if not group.families:
            raise BadInput(f"{at}.families: empty; choose from {_listed(FAMILIES)}")
        if not group.windows:
            raise BadInput(f"{at}.windows: empty; list lengths in days, such as [1, 7, 30]")


def feature_names(spec: Features, dataset: Dataset) -> tuple[str, ...]:
    """Names of all derived columns, in a fixed order.

    A dataset without a timestamp has no features; one without an amount lacks the families that
    need it.
    """
    calendar = spec.calendar if dataset.timestamp else ()
    entities = (entity_feature_names(spec, dataset, entity) for entity in dataset.entities)
    return (*calendar, *itertools.chain.from_iterable(entities))


def entity_feature_names(spec: Features, dataset: Dataset, entity: str) -> tuple[str, ...]:
    """Names of the columns that `entity_features` computes for one entity, in a fixed order."""
    return tuple(_plan(spec, dataset, entity))


def history_days(spec: Features, delay_days: int) -> int:
    """The number of days before a row that its features depend on.

    Loading older rows changes no value. `delay_days` is the number of days until a label is known.
    """
    days = [0]
    for group in spec.groups:
        for family in map(FAMILIES.__getitem__, group.families):
            days += [delay_days * (family.kind == "risk") + window for window in group.windows]
            days += [spec.normal_days] * ("normal_days" in family.parameters)
    return max(days)


def calendar_features(
    spec: Features, timestamps: NDArray[np.datetime64]
) -> dict[str, NDArray[np.float32]]:
    """The features that depend on the timestamp alone: name -> values, [rows] each."""
    return {name: CALENDAR[name](timestamps).astype(np.float32) for name in spec.calendar}


def entity_features(
    spec: Features,
    dataset: Dataset,
    entity: str,
    keys: Ints,
    timestamps: NDArray[np.datetime64],
    amounts: Floats | None,
    labels: Floats,
    delay: np.timedelta64,
) -> dict[str, NDArray[np.float32]]:
    """The features of one entity (customer, terminal, ...), for any set of its values.

    Rows may be in any order. For each value, all rows of the last `history_days` must be present;
    rows of other values make no difference.

    Args:
      spec, dataset: the features, and the columns that they are computed from.
      entity: the column of the entity.
      keys: the entity's values as integer codes, [rows]; negative where missing.
      timestamps: [rows].
      amounts: [rows], NaN where missing; None if the dataset has no amount.
      labels: 1, 0 or NaN where unknown, [rows].
      delay: how long after a transaction its label becomes known.

    Returns:
      name -> values in the order of the input, [rows] each; NaN where undefined or where
      the key is missing.

    Raises:
      BadInput: a timestamp is missing or an amount is too large.
    """
    plan = _plan(spec, dataset, entity)
    if not plan:
        return {}
    if amounts is None:
        amounts = np.full(len(keys), np.nan)
    history = History(keys, timestamps, amounts, labels, delay)
    features = {}
    for name, (family, window) in plan.items():
        parameters = {parameter: getattr(spec, parameter) for parameter in family.parameters}
        values = np.empty(len(keys), np.float32)
        values[history.order] = family.compute(history, window, **parameters)
        values[keys < 0] = np.nan
        features[name] = values
    return features


def add_features(table: pa.Table, dataset: Dataset, spec: Features, delay_days: int) -> pa.Table:
    """Adds all features to transactions in memory.

    Args:
      table: the dataset's columns. If the label column is absent, no label is known.
      dataset, spec: the roles of the columns, and the features.
      delay_days: days until a label is known.

    Returns:
      The table with the columns of `feature_names(spec, dataset)` appended.

    Raises:
      BadInput: as in `check_features` and `entity_features`.
    """
    import pyarrow as pa

    check_features(spec, dataset)
    if dataset.timestamp is None:
        return table

    def numbers(name: str) -> Floats:
        return table[name].cast(pa.float64()).to_numpy().astype(np.float64)

    timestamps = table[dataset.timestamp].cast(pa.timestamp("us"), safe=False).to_numpy()
    amounts = numbers(dataset.amount) if dataset.amount else None
    has_label = dataset.label in table.column_names
    labels = numbers(dataset.label) if has_label else np.full(len(timestamps), np.nan)
    features = calendar_features(spec, timestamps)
    for entity in dataset.entities:
        codes = table[entity].combine_chunks().dictionary_encode()
        keys = codes.indices.fill_null(-1).to_numpy().astype(np.int64)
        delay = np.timedelta64(delay_days, "D")
        features |= entity_features(spec, dataset, entity, keys, timestamps, amounts, labels, delay)
    for name, values in features.items():
        table = table.append_column(name, pa.array(values))
    return table


def _plan(spec: Features, dataset: Dataset, entity: str) -> dict[str, tuple[Family, int]]:
    """The features of an entity: column name -> (family, window in days)."""
    if dataset.timestamp is None:
        return {}
    plan: dict[str, tuple[Family, int]] = {}
    names = {entity, CARD} if entity == dataset.card_entity else {entity}
    for group in spec.groups:
        if group.entities is not None and names.isdisjoint(group.entities):
            continue
        for name in group.families:
            if dataset.amount is None and FAMILIES[name].needs_amount:
                continue
            for window in group.windows:
                plan[f"{entity}_{name}_{window}d"] = FAMILIES[name], window
    return plan


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))

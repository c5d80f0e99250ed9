"""Computes the feature columns that a specification defines from columns of transactions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.features.definitions import CALENDAR, FAMILIES, Family
from fraud.features.history import History, Queries
from fraud.features.spans import Floats, Ints
from fraud.features.spec import CARD, Dataset, Features
from fraud.time import UTC, local_times

if TYPE_CHECKING:
    import pyarrow as pa


_NAN = np.float32(np.nan)


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


@lru_cache(64)
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


def definitions(spec: Features, dataset: Dataset, delay_days: int) -> dict[str, tuple]:
    """Derived column -> everything besides the transactions that its values depend on.

    Equal names do not mean equal values; equal definitions do.

    Args:
      spec: the feature specification.
      dataset: the columns of the data and their roles.
      delay_days: days until a label is known.
    """
    if dataset.timestamp is None:
        return {}
    # Only what is known to make no difference, or to be of single columns, is left out: a field
    # that is added to Dataset or Features counts.
    of_columns = {"id", "entities", "card", "numeric", "categorical", "slices"}
    of_columns.update(("calendar", "groups"), *(family.parameters for family in FAMILIES.values()))
    fields = {**asdict(dataset), **asdict(spec)}
    common = {name: value for name, value in fields.items() if name not in of_columns}
    defined: dict[str, tuple] = {name: (name, common) for name in spec.calendar}
    for entity in dataset.entities:
        for name, (family, window) in _plan(spec, dataset, entity).items():
            parameters = {parameter: getattr(spec, parameter) for parameter in family.parameters}
            delay = delay_days if family.kind == "risk" else None
            computed = family.compute.__name__
            defined[name] = (computed, entity, window, parameters, delay, common)
    return defined


def history_days(spec: Features, dataset: Dataset, delay_days: int) -> int:
    """The number of days before a row that its features depend on.

    Loading older rows changes no value. `delay_days` is the number of days until a label is known,
    unless the dataset has label times.
    """
    days = [0]
    if dataset.label_time:
        delay_days = spec.max_label_delay_days
    for group in spec.groups:
        for family in map(FAMILIES.__getitem__, group.families):
            days += [delay_days * (family.kind == "risk") + window for window in group.windows]
            days += [spec.normal_days] * ("normal_days" in family.parameters)
    # Where clocks change, so many local days can be an hour short of so many times 24 hours.
    return max(days) + (max(days) > 0 and dataset.timezone != UTC)


def calendar_features(
    spec: Features, dataset: Dataset, timestamps: NDArray[np.datetime64]
) -> dict[str, NDArray[np.float32]]:
    """The features that depend on the timestamp alone: name -> values, [rows] each.

    `timestamps` are datetime64[us] in UTC; the features are those of the dataset's timezone.
    """
    local = local_times(timestamps, dataset.timezone)
    return {name: CALENDAR[name](local).astype(np.float32) for name in spec.calendar}


def entity_features(
    spec: Features,
    dataset: Dataset,
    entity: str,
    keys: Ints,
    timestamps: NDArray[np.datetime64],
    amounts: Floats | None,
    labels: Floats,
    delay: np.timedelta64,
    label_times: NDArray[np.datetime64] | None,
    queries: Queries | None = None,
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
      delay: how long after a transaction its label becomes known, unless there are `label_times`.
      label_times: when each label became known, NaT where it is not, [rows]; None without
        `dataset.label_time`.
      queries: what to compute the features of; None for the rows themselves.

    Returns:
      name -> values in the order of the queries, [queries] each; NaN where undefined or where
      the key is missing.

    Raises:
      BadInput: a timestamp is missing, an amount is too large, or a label was known before its
        transaction.
    """
    if not _plan(spec, dataset, entity):
        return {}
    history = entity_history(spec, keys, timestamps, amounts, labels, delay, label_times, queries)
    return features_of_entities(
        spec, dataset, history, {entity: keys if queries is None else queries.keys}
    )


def entity_history(
    spec: Features,
    keys: Ints,
    timestamps: NDArray[np.datetime64],
    amounts: Floats | None,
    labels: Floats,
    delay: np.timedelta64,
    label_times: NDArray[np.datetime64] | None,
    queries: Queries | None = None,
) -> History:
    """The history that features are computed from; arguments as of `entity_features`.

    Values of several entities may be in one history, if their codes differ.
    """
    if amounts is None:
        amounts = np.full(len(keys), np.nan)
    if label_times is not None:
        longest = np.timedelta64(spec.max_label_delay_days, "D")
        labels = np.where(label_times - timestamps > longest, np.nan, labels)
    return History(keys, timestamps, amounts, labels, delay, label_times, queries)


def features_of_entities(
    spec: Features, dataset: Dataset, history: History, keys: Mapping[str, Ints]
) -> dict[str, NDArray[np.float32]]:
    """The features of one entity after the other.

    Args:
      spec, dataset: the features, and the columns that they are computed from.
      history: of all the entities. Its queries are those of the first entity, then those of the
        second, and so on.
      keys: entity → the codes of its queries, [n] each; negative where missing.

    Returns:
      name → values, [n] each; NaN where undefined or where the key is missing.
    """
    of_queries: dict[tuple[Any, int], NDArray[np.float32]] = {}

    def compute(family: Family, window: int) -> NDArray[np.float32]:
        values = of_queries.get((family.compute, window))
        if values is None:
            parameters = {name: getattr(spec, name) for name in family.parameters}
            values = np.empty(len(history.order), np.float32)
            values[history.order] = family.compute(history, window, **parameters)
            of_queries[family.compute, window] = values
        return values

    features: dict[str, NDArray[np.float32]] = {}
    start = 0
    for entity, codes in keys.items():
        end = start + len(codes)
        is_missing = codes < 0
        any_missing = is_missing.any()
        for name, (family, window) in _plan(spec, dataset, entity).items():
            values = compute(family, window)[start:end]
            features[name] = np.where(is_missing, _NAN, values) if any_missing else values
        start = end
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

    def times(name: str) -> NDArray[np.datetime64]:
        return table[name].cast(pa.timestamp("us"), safe=False).to_numpy()

    timestamps = times(dataset.timestamp)
    label_times = times(dataset.label_time) if dataset.label_time else None
    amounts = numbers(dataset.amount) if dataset.amount else None
    has_label = dataset.label in table.column_names
    labels = numbers(dataset.label) if has_label else np.full(len(timestamps), np.nan)
    features = calendar_features(spec, dataset, timestamps)
    for entity in dataset.entities:
        codes = table[entity].combine_chunks().dictionary_encode()
        keys = codes.indices.fill_null(-1).to_numpy().astype(np.int64)
        delay = np.timedelta64(delay_days, "D")
        features |= entity_features(
            spec, dataset, entity, keys, timestamps, amounts, labels, delay, label_times
        )
    for name, values in features.items():
        table = table.append_column(name, pa.array(values))
    return table


@lru_cache(256)
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

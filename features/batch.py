"""From a specification and columns of transactions to columns of features."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from fraud.features.definitions import CALENDAR, FAMILIES, Family
from fraud.features.history import Floats, History, Ints
from fraud.features.spec import CARD, Dataset, Features

if TYPE_CHECKING:
    import pyarrow as pa

    Columns = TypeVar("Columns", pa.Table, Mapping[str, NDArray])


def check(spec: Features, dataset: Dataset) -> None:
    """Refuses features that this dataset cannot have.

    Raises:
      ValueError: names the key, the value and the fix.
    """
    for name in spec.calendar:
        if name not in CALENDAR:
            raise ValueError(f"features.calendar: unknown '{name}'; one of {_listed(CALENDAR)}")
    for i, group in enumerate(spec.groups):
        at = f"features.groups[{i}]"
        for name in group.families:
            if name not in FAMILIES:
                raise ValueError(f"{at}.families: unknown '{name}'; one of {_listed(FAMILIES)}")
        for name in group.entities or ():
            if name not in (*dataset.entities, CARD):
                raise ValueError(
                    f"{at}.entities: '{name}' is not an entity of the dataset; add it to "
                    f"dataset.entities or use one of {_listed((*dataset.entities, CARD))}"
                )
        if not group.families:
            raise ValueError(f"{at}.families: empty; choose from {_listed(FAMILIES)}")
        if not group.windows:
            raise ValueError(f"{at}.windows: empty; list lengths in days, such as [1, 7, 30]")


def feature_names(spec: Features, dataset: Dataset) -> tuple[str, ...]:
    """Names of all derived columns, in a fixed order.

    A dataset without timestamp has none, one without amount lacks the families that need it.
    """
    calendar = spec.calendar if dataset.timestamp else ()
    entities = (entity_feature_names(spec, dataset, entity) for entity in dataset.entities)
    return (*calendar, *itertools.chain.from_iterable(entities))


def entity_feature_names(spec: Features, dataset: Dataset, entity: str) -> tuple[str, ...]:
    """Names of the columns that `entity_features` makes for one entity, in a fixed order."""
    return tuple(_plan(spec, dataset, entity))


def history_days(spec: Features, delay_days: int) -> int:
    """How many days before a row its features look back on.

    Loading more than that changes no value.

    Args:
      spec: which features.
      delay_days: days until a label is known.
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
    """The features read off the timestamp alone.

    Args:
      spec: which features.
      timestamps: [rows].

    Returns:
      name → values, [rows] each.
    """
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

    Rows come in any order. All rows of a value must be there, as far back as `history_days`;
    rows of other values make no difference.

    Args:
      spec: which features.
      dataset: which entities there are, and whether there is an amount.
      entity: its column.
      keys: which value, as codes, [rows]; negative where missing.
      timestamps: [rows].
      amounts: [rows], NaN where missing; None if the dataset has no amount.
      labels: 1, 0 or NaN where unknown, [rows]. A label counts from t + delay on.
      delay: how long after a transaction its label is known.

    Returns:
      name -> values in the order of the input, [rows] each; NaN where undefined or the key
      missing.

    Raises:
      ValueError: a timestamp is missing or an amount too large.
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


def add_features(columns: Columns, dataset: Dataset, spec: Features, delay_days: int) -> Columns:
    """All features of transactions in memory, beside the columns they came from.

    Args:
      columns: the dataset's columns, as an Arrow table or name → array. Without the label column
        no label is known.
      dataset: which column is what.
      spec: which features.
      delay_days: days until a label is known.

    Returns:
      The same with `feature_names(spec, dataset)` appended, in the order of the input rows.

    Raises:
      ValueError: as `check` and `entity_features`.
    """
    import pyarrow as pa

    check(spec, dataset)
    if isinstance(columns, Mapping):
        arrays = {name: pa.array(values, from_pandas=True) for name, values in columns.items()}
        table = add_features(pa.table(arrays), dataset, spec, delay_days)
        made = feature_names(spec, dataset)
        return {**columns, **{name: table[name].to_numpy() for name in made}}
    if dataset.timestamp is None:
        return columns

    def numbers(name: str) -> Floats:
        return columns[name].cast(pa.float64()).to_numpy().astype(np.float64)

    timestamps = columns[dataset.timestamp].cast(pa.timestamp("us"), safe=False).to_numpy()
    amounts = numbers(dataset.amount) if dataset.amount else None
    labelled = dataset.label in columns.column_names
    labels = numbers(dataset.label) if labelled else np.full(len(timestamps), np.nan)
    features = calendar_features(spec, timestamps)
    for entity in dataset.entities:
        codes = columns[entity].combine_chunks().dictionary_encode()
        keys = codes.indices.fill_null(-1).to_numpy().astype(np.int64)
        delay = np.timedelta64(delay_days, "D")
        features |= entity_features(spec, dataset, entity, keys, timestamps, amounts, labels, delay)
    for name, values in features.items():
        columns = columns.append_column(name, pa.array(values))
    return columns


def _plan(spec: Features, dataset: Dataset, entity: str) -> dict[str, tuple[Family, int]]:
    """The features of an entity: name -> family and window in days."""
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

"""From a specification and columns of transactions to columns of features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.definitions import CALENDAR, FAMILIES
from features.history import Floats, History, Ints
from features.spec import Dataset, FeatureGroup, Features

if TYPE_CHECKING:
    import pyarrow as pa

    Columns = TypeVar("Columns", pa.Table, Mapping[str, NDArray])

KINDS = ("entity", "risk")


def check(spec: Features, dataset: Dataset) -> None:
    """Refuses a specification that cannot be computed.

    Raises:
      ValueError: names the key, the value and the fix.
    """
    for name in spec.calendar:
        if name not in CALENDAR:
            raise ValueError(f"features.calendar: unknown '{name}'; one of {_listed(CALENDAR)}")
    for kind in KINDS:
        group: FeatureGroup = getattr(spec, kind)
        known = [name for name, family in FAMILIES.items() if family.kind == kind]
        for name in group.families:
            if name not in known:
                raise ValueError(
                    f"features.{kind}.families: unknown '{name}'; one of {_listed(known)}"
                )
        for name in group.entities or ():
            if name not in dataset.entities:
                raise ValueError(
                    f"features.{kind}.entities: '{name}' is not an entity of the dataset; add it "
                    f"to dataset.entities or use one of {_listed(dataset.entities)}"
                )
        for days in group.windows:
            if days < 1:
                raise ValueError(
                    f"features.{kind}.windows: {days} is not a length; use whole days ≥ 1"
                )
        if group.families and not group.windows:
            raise ValueError(
                f"features.{kind}.windows: empty, but families are named; give days, as [1, 7, 30]"
            )


def feature_names(spec: Features, dataset: Dataset) -> tuple[str, ...]:
    """Names of all derived columns, in a fixed order.

    A dataset without timestamp has none, one without amount lacks the families that need it.
    """
    if dataset.timestamp is None:
        return ()
    names = list(spec.calendar)
    for entity in dataset.entities:
        names += [name for name, _, _ in _plan(spec, entity, dataset.amount is not None)]
    return tuple(names)


def history_days(spec: Features, delay_days: int) -> int:
    """How many days before a row its features look back on.

    Loading more than that changes no value.

    Args:
      spec: which features.
      delay_days: days until a label is known.
    """
    past = max(spec.entity.windows, default=0) if spec.entity.families else 0
    known = delay_days + max(spec.risk.windows, default=0) if spec.risk.families else 0
    return max(past, known)


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
    entity: str,
    keys: Ints,
    timestamps: NDArray[np.datetime64],
    amounts: Floats | None,
    labels: Floats,
    delay: np.timedelta64,
) -> dict[str, NDArray[np.float32]]:
    """The features of one entity (customer, terminal, …), for any set of its values.

    Rows come in any order. All rows of a value must be there, as far back as `history_days`;
    rows of other values make no difference.

    Args:
      spec: which features.
      entity: its column.
      keys: which value, as codes, [rows]; negative where missing.
      timestamps: [rows].
      amounts: [rows], NaN where missing; None if the dataset has no amount.
      labels: 1, 0 or NaN where unknown, [rows]. A label counts from t + delay on.
      delay: how long after a transaction its label is known.

    Returns:
      name → values in the order of the input, [rows] each; NaN where undefined or the key missing.

    Raises:
      ValueError: a timestamp is missing or an amount too large.
    """
    plan = list(_plan(spec, entity, amounts is not None))
    if not plan:
        return {}
    history = History(keys, timestamps, amounts, labels, delay)
    features = {}
    for name, family, window in plan:
        values = np.empty(len(keys), np.float32)
        values[history.order] = FAMILIES[family].compute(history, window)
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
        features |= entity_features(spec, entity, keys, timestamps, amounts, labels, delay)
    for name, values in features.items():
        columns = columns.append_column(name, pa.array(values))
    return columns


def _plan(spec: Features, entity: str, has_amount: bool) -> Iterator[tuple[str, str, int]]:
    """(feature name, family, window in days) of an entity's features."""
    for kind in KINDS:
        group: FeatureGroup = getattr(spec, kind)
        if group.entities is not None and entity not in group.entities:
            continue
        for family in group.families:
            if FAMILIES[family].needs_amount and not has_amount:
                continue
            for window in group.windows:
                yield f"{entity}_{family}_{window}d", family, window


def _listed(names: object) -> str:
    return ", ".join(sorted(names)) or "none"  # type: ignore[call-overload]

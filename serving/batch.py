"""Scores tables of transactions, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.serving.scorer import Model

CHUNK = 8192
"""Rows that are scored at once."""
EXPLAINED_AT_ONCE = 256

REASONS = pa.list_(pa.struct([("column", pa.string()), ("contribution", pa.float32())]))


def score_table(
    model: Model,
    table: pa.Table,
    explain: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> pa.Table:
    """Scores transactions whose features are known.

    Args:
      model: what scores them.
      table: all columns that the model reads, and any others.
      explain: whether to explain the alerts.
      progress: told how many rows are scored.

    Returns:
      `prediction_score`, `prediction_alert`, `prediction_version` and, if asked for,
      `prediction_reasons`, null where there is no alert, in the order of the table.
    """
    scores, alerts, reasons = [np.empty(0, np.float32)], [np.empty(0, bool)], []
    for start in range(0, len(table), CHUNK):
        columns = _inputs(model, table.slice(start, CHUNK))
        said = model.score(columns)
        scores.append(said.score)
        alerts.append(said.alert)
        if explain:
            reasons += _reasons(model, columns, said.alert)
        progress(start + len(said.score))
    scored = {
        "prediction_score": pa.array(np.concatenate(scores)),
        "prediction_alert": pa.array(np.concatenate(alerts)),
        "prediction_version": pa.array([model.version] * len(table), pa.string()),
    }
    if explain:
        scored["prediction_reasons"] = pa.array(reasons, REASONS)
    return pa.table(scored)


def with_scores(table: pa.Table, scored: pa.Table, features: Collection[str]) -> pa.Table:
    """What is written: the transactions with times in UTC, without features, and their scores.

    Raises:
      BadInput: a column of the transactions has the name of one that is added.
    """
    columns = [name for name in table.column_names if name not in features]
    for name in scored.column_names:
        if name in columns:
            raise BadInput(f"dataset: column {name!r} has the name of a column that is added")
    both = table.select(columns)
    for index, field in enumerate(both.schema):
        if pa.types.is_timestamp(field.type):
            in_utc = both[field.name].cast(pa.timestamp("us", "UTC"))
            both = both.set_column(index, field.name, in_utc)
    for name in scored.column_names:
        both = both.append_column(name, scored[name])
    return both


def _inputs(model: Model, table: pa.Table) -> dict[str, NDArray]:
    """The model's inputs: float32, NaN where missing, or bytes as objects, b"" where missing."""
    columns = {name: table[name].cast(pa.float32()).to_numpy() for name in model.columns.numeric}
    for name in model.columns.categorical:
        columns[name] = table[name].cast(pa.binary()).fill_null(b"").to_numpy()
    return columns


def _reasons(
    model: Model, columns: dict[str, NDArray], alerts: NDArray[np.bool_]
) -> list[list[dict] | None]:
    reasons: list[list[dict] | None] = [None] * len(alerts)
    rows = np.flatnonzero(alerts)
    for start in range(0, len(rows), EXPLAINED_AT_ONCE):
        some = rows[start : start + EXPLAINED_AT_ONCE]
        explained = model.explain({name: values[some] for name, values in columns.items()})
        for row, names, contributions in zip(
            some.tolist(), explained.columns, explained.contributions.tolist(), strict=True
        ):
            reasons[row] = [
                {"column": name, "contribution": contribution}
                for name, contribution in zip(names, contributions, strict=True)
            ]
    return reasons

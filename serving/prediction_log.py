"""The prediction log: what was scored live, in Parquet files by day.

    PredictionLog(root / "predictions").read(first, last)

The folder is laid out like the pipeline's input, `date=YYYY-MM-DD/*.parquet` by the day of the
transaction, and its columns have the names of the dataset: it can be read as transactions whose
labels are not yet known. `fraud.serving.log_writer` writes it; docs/prediction-log.md describes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from fraud.errors import BadInput
from fraud.time import UTC, parse_day

OWN_COLUMNS = pa.schema(
    [
        ("prediction_time", pa.timestamp("us", UTC)),
        ("prediction_version", pa.string()),
        ("prediction_score", pa.float32()),
        ("prediction_alert", pa.bool_()),
        ("prediction_outcome", pa.string()),
        ("prediction_canary", pa.bool_()),
        ("prediction_shadow_version", pa.string()),
        ("prediction_shadow_score", pa.float32()),
        ("prediction_latency_ms", pa.float32()),
    ]
)
"""The columns that the log adds, with their types."""

FEATURES = b"fraud.features"
"""Key of a file's metadata: the names of its columns that are features, as a JSON list."""

IDENTIFIER = b"fraud.id"
"""Key of a file's metadata: the name of the column with the transactions' ids; empty for none."""

_REPEATED = "repeated"
_DAY_FOLDER = "date="


@dataclass(frozen=True)
class Predictions:
    """Scored transactions, in the order of their files.

    A transaction that was recorded is here once, though a client sent it again; its `outcome` is
    "repeated" if the answer to the first request was lost, with the server or in it. Where it is
    "conflict", the id is that of an earlier one with other values.

    Attributes:
      transactions: the dataset's columns, without the label, as far as they are logged. Identifiers
        are text, as are columns whose type differs among the versions.
      features: what the model that answered read besides those columns, float32; null where
        undefined, or where the version that answered has no such feature.
      time: when each was scored, datetime64[us] in UTC, [rows].
      version: the model version that answered, text [rows].
      score: its fraud probability, float32 [rows].
      alert: whether the answer was an alert, [rows].
      outcome: what became of it in the state, text [rows]; see `fraud.serving.state.Outcome`.
      canary: whether the challenger answered, [rows].
      shadow_version: the version that scored without answering, text [rows]; empty where none did.
      shadow_score: its score, float32 [rows]; NaN where none did.
      latency_ms: from the arrival of the request to its scores, in milliseconds, float32 [rows].
    """

    transactions: pa.Table
    features: pa.Table
    time: NDArray[np.datetime64]
    version: NDArray[np.str_]
    score: NDArray[np.float32]
    alert: NDArray[np.bool_]
    outcome: NDArray[np.str_]
    canary: NDArray[np.bool_]
    shadow_version: NDArray[np.str_]
    shadow_score: NDArray[np.float32]
    latency_ms: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class PredictionLog:
    """A folder of logged predictions.

    Attributes:
      folder: its path. A folder that does not exist is an empty log.
    """

    folder: Path

    def days(self) -> tuple[date, ...]:
        """The days of transactions that the log has files of, sorted.

        Raises:
          BadInput: a folder `date=…` is not named after a day.
        """
        return tuple(sorted({day for day, _ in self._files()}))

    def read(self, first: date | None = None, last: date | None = None) -> Predictions:
        """The predictions of transactions from the day `first` to the day `last`, both included.

        Predictions of the last `serving.prediction_log.file_seconds` may not be there yet.

        Raises:
          BadInput: a file is damaged.
        """
        tables, features = [], dict[str, None]()
        for day, path in self._files():
            if (first is None or first <= day) and (last is None or day <= last):
                tables.append(table := _read(path))
                features.update(dict.fromkeys(feature_names(table.schema)))
        merged = _once(concat([OWN_COLUMNS.empty_table(), *tables]), tables)
        own = {name: merged[name].combine_chunks() for name in OWN_COLUMNS.names}
        columns = [name for name in merged.column_names if name not in {*own, *features}]

        def text(name: str) -> NDArray[np.str_]:
            return np.asarray(own[name].fill_null("").to_pylist(), dtype=np.str_)

        def values(name: str) -> NDArray:
            return own[name].to_numpy(zero_copy_only=False)

        return Predictions(
            transactions=merged.select(columns),
            features=merged.select(list(features)),
            time=values("prediction_time").astype("datetime64[us]"),
            version=text("prediction_version"),
            score=values("prediction_score"),
            alert=values("prediction_alert").astype(bool),
            outcome=text("prediction_outcome"),
            canary=values("prediction_canary").astype(bool),
            shadow_version=text("prediction_shadow_version"),
            shadow_score=values("prediction_shadow_score").astype(np.float32),
            latency_ms=values("prediction_latency_ms"),
        )

    def _files(self) -> Iterator[tuple[date, Path]]:
        """(day, file) in the order of days, then of names, hence of scoring."""
        for folder in sorted(self.folder.glob(f"{_DAY_FOLDER}*")):
            try:
                day = parse_day(folder.name[len(_DAY_FOLDER) :])
            except BadInput:
                raise BadInput(f"{folder}: not a day; name the folder date=YYYY-MM-DD") from None
            for path in sorted(folder.glob("[!._]*.parquet")):
                yield day, path


def feature_names(schema: pa.Schema) -> list[str]:
    """The names of the features among a file's columns."""
    return json.loads((schema.metadata or {}).get(FEATURES, b"[]"))


def concat(tables: Sequence[pa.Table]) -> pa.Table:
    """All rows of tables whose columns differ; null where a table has no such column.

    A column that has two types, as a number in one version and a category in another, is text.
    """
    types: dict[str, pa.DataType] = {}
    for table in tables:
        for column in table.schema:
            if types.setdefault(column.name, column.type) != column.type:
                types[column.name] = pa.string()
    schema = pa.schema(types.items())
    return pa.concat_tables(
        pa.table(
            [
                table[column.name].cast(column.type)
                if column.name in table.column_names
                else pa.nulls(table.num_rows, column.type)
                for column in schema
            ],
            schema=schema,
        )
        for table in tables
    )


def _once(merged: pa.Table, tables: Sequence[pa.Table]) -> pa.Table:
    """The rows without those of transactions that were answered again and are logged twice."""
    names = {(table.schema.metadata or {}).get(IDENTIFIER, b"").decode() for table in tables}
    outcomes = merged["prediction_outcome"].to_pylist()
    if _REPEATED not in outcomes or len(names - {""}) != 1:
        return merged
    ids = merged[(names - {""}).pop()].to_pylist()
    seen = {id_ for id_, outcome in zip(ids, outcomes, strict=True) if outcome != _REPEATED}
    keep = []
    for id_, outcome in zip(ids, outcomes, strict=True):
        keep.append(outcome != _REPEATED or id_ not in seen)
        seen.add(id_)
    return merged.filter(pa.array(keep))


def _read(path: Path) -> pa.Table:
    try:
        # Not read_table, which would add a column for the folder's name.
        return parquet.ParquetFile(path).read()
    except FileNotFoundError:  # its retention ended meanwhile
        return OWN_COLUMNS.empty_table()
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{path}: damaged ({error}); remove it") from None

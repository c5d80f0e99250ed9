"""Data of one size: for our pipeline, and as the examples that stock TFX and the floor read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from fraud.pipeline.config import Config

DAYS = 122
_ROWS_A_CUSTOMER = 236  # in DAYS days
SPLITS = ("train", "eval", "recent")

CONFIG = """
dataset:
  categorical: [MERCHANT_CATEGORY, CHANNEL, COUNTRY, CUSTOMER_AGE_BAND]
  slices: [CHANNEL, CUSTOMER_AGE_BAND]
windows: {train_days: 64}  # the longest window with its history in the data
evaluation:  # always push, however many frauds the alert budget meets
  min_average_precision: 0
  min_roc_auc: 0
  min_recall_at_budget: 0
  max_slice_recall_gap: 1
  max_slice_fpr_gap: 1
"""


@dataclass(frozen=True)
class Case:
    """Transactions of one size, simulated once and kept.

    Attributes:
      folder: contains all files of the case.
    """

    folder: Path

    @property
    def transactions(self) -> Path:
        """The day folders of history, train, eval and recent days."""
        return self.folder / "transactions"

    @property
    def config(self) -> Path:
        """The configuration of the run."""
        return self.folder / "config.yaml"

    def csv(self, split: str) -> Path:
        """The examples of a split with their features, as CSV."""
        return self.folder / "csv" / split / "examples.csv"

    def parquet(self, split: str) -> Path:
        """The examples of a split with their features, as Parquet."""
        return self.folder / "parquet" / f"{split}.parquet"

    @property
    def rows(self) -> dict[str, int]:
        """The number of rows `read` and, if `copied`, in each split."""
        return json.loads((self.folder / "rows.json").read_text(encoding="utf-8"))

    @classmethod
    def of(cls, rows: int, kept: Path, copied: bool) -> Case:
        """Returns a case of about `rows` rows, creating it if it does not exist.

        The days are always the same; the number of customers grows with the rows.

        Args:
          rows: the approximate number of rows.
          kept: the folder of all cases.
          copied: whether to write the examples as CSV and Parquet too.
        """
        case = cls(kept / str(rows))
        if not (case.folder / "rows.json").exists():
            case._simulate(rows)
        if copied and "train" not in case.rows:
            case._copy()
        return case

    def _simulate(self, rows: int) -> None:
        from fraud.data.spec import Simulation
        from fraud.data.writer import write_days

        customers = round(rows / _ROWS_A_CUSTOMER)
        population = Simulation(
            days=DAYS, customers=customers, terminals=max(2 * customers, 2000), seed=1
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(CONFIG, encoding="utf-8")
        if not self.transactions.exists():
            write_days(population, self.transactions, "parquet", None)
        self._count({"read": _parquet_rows(self.transactions)})

    def _copy(self) -> None:
        from fraud.pipeline import config

        counts = self.rows
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            written = _ingested(config.load(self.config), self.transactions, Path(folder))
            for split in SPLITS:
                counts[split] = self._write(split, _tables(written / f"Split-{split}"))
        self._count(counts)

    def _count(self, rows: dict[str, int]) -> None:
        (self.folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")

    def _write(self, split: str, batches: Iterator[pa.Table]) -> int:
        """Writes a split as CSV and Parquet; returns the number of rows."""
        from pyarrow import parquet

        for path in (self.csv(split), self.parquet(split)):
            path.parent.mkdir(parents=True, exist_ok=True)
        first = next(batches)
        rows = 0
        with (
            self.csv(split).open("w", encoding="utf-8") as text,
            parquet.ParquetWriter(str(self.parquet(split)), first.schema) as columns,
        ):
            for table in (first, *batches):
                # With pandas, because pyarrow writes 1.0 as 1, which CsvExampleGen could treat as
                # an integer in one split and not in the other.
                table.to_pandas().to_csv(text, header=rows == 0, index=False)
                columns.write_table(table)
                rows += table.num_rows
        return rows


def _ingested(config: Config, transactions: Path, folder: Path) -> Path:
    """Runs TransactionExampleGen; returns the folder of its examples."""
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.types import standard_artifacts

    from fraud.codec import to_json
    from fraud.pipeline.components.transaction_example_gen import Executor

    examples = standard_artifacts.Examples()
    examples.uri = str(folder / "examples")
    context = BaseBeamExecutor.Context(tmp_dir=str(folder / "tmp"), unique_id="1")
    properties = {
        "data": str(transactions),
        "as_of": "",
        "dataset": to_json(config.dataset),
        "windows": to_json(config.windows),
        "features": to_json(config.features),
    }
    Executor(context).Do({}, {"examples": [examples]}, properties)
    return folder / "examples"


def _tables(split: Path) -> Iterator[pa.Table]:
    """Yields the examples of a split with a column per feature; null if it has no value."""
    import tensorflow as tf

    from fraud.pipeline.components.batched_reading import ExampleParser

    parser = ExampleParser(None)
    files = sorted(map(str, split.glob("*.gz")))
    for examples in tf.data.TFRecordDataset(files, "GZIP").batch(65536):
        batch = parser.parse(examples)
        names = sorted(batch.schema.names)
        yield pa.table(
            {name: _flat(batch.column(batch.schema.get_field_index(name))) for name in names}
        )


def _flat(lists: pa.Array) -> pa.Array:
    """The single value of each list; null if the list is empty."""
    if pa.types.is_null(lists.type):  # the label of recent days
        return pa.nulls(len(lists), pa.int64())
    flat = lists.flatten().take(_positions(lists))
    return flat.cast(pa.string()) if pa.types.is_large_binary(flat.type) else flat


def _positions(lists: pa.Array) -> pa.Array:
    """The position of each list's value among all values; null for an empty list."""
    present = np.asarray(lists.is_valid())
    return pa.array(np.cumsum(present) - 1, mask=~present)


def _parquet_rows(folder: Path) -> int:
    from pyarrow import parquet

    return sum(parquet.ParquetFile(file).metadata.num_rows for file in folder.rglob("*.parquet"))

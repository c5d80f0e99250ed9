"""Data of one size: for our pipeline, and as the examples that stock TFX and the floor read."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import examples

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
        self._count({"read": write_days(population, self.transactions).transactions})

    def _copy(self) -> None:
        from pyarrow import parquet

        from fraud.pipeline import config
        from fraud.pipeline.components.transaction_example_gen import Executor

        counts = self.rows
        properties = examples.properties_of(config.load(self.config), str(self.transactions))
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            written = examples.execute(Executor, properties, Path(folder))
            for split in SPLITS:
                table = examples.read(Path(written.uri, f"Split-{split}"))
                for path in (self.csv(split), self.parquet(split)):
                    path.parent.mkdir(parents=True, exist_ok=True)
                # With pandas, because pyarrow writes 1.0 as 1, which CsvExampleGen could treat as
                # an integer in one split and not in the other.
                table.to_pandas().to_csv(self.csv(split), index=False)
                parquet.write_table(table, self.parquet(split))
                counts[split] = table.num_rows
        self._count(counts)

    def _count(self, rows: dict[str, int]) -> None:
        (self.folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")

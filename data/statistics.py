"""Compares folders of transactions by the statistics that matter for fraud.

Example: ``python -m fraud.data.statistics data/sample/transactions handbook``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fraud.errors import BadInput

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
COLUMNS = ["CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_TIME_SECONDS", "TX_FRAUD_SCENARIO"]


def read(folder: Path) -> tuple[int, pa.Table]:
    """The number of Parquet day folders in `folder`, and `COLUMNS` of all their transactions.

    Raises:
      BadInput: there are none.
    """
    files = sorted(folder.glob("date=*/*.parquet"))
    if not files:
        raise BadInput(f"{folder} has no date=YYYY-MM-DD/*.parquet")
    return len({file.parent for file in files}), pq.read_table(files, columns=COLUMNS)


def statistics(days: int, table: pa.Table) -> dict[str, str]:
    """The statistics of a folder: name -> formatted value."""
    column = {name: table[name].to_numpy() for name in COLUMNS}
    amount, scenario = column["TX_AMOUNT"], column["TX_FRAUD_SCENARIO"]
    customers = len(np.unique(column["CUSTOMER_ID"]))
    hour = column["TX_TIME_SECONDS"] % 86_400 / 3_600
    quantiles = np.quantile(amount, QUANTILES)
    return {
        "days": f"{days}",
        "transactions": f"{len(table):,}",
        "customers seen": f"{customers:,}",
        "terminals seen": f"{len(np.unique(column['TERMINAL_ID'])):,}",
        "transactions a day and customer": f"{len(table) / days / customers:.3f}",
        "between 22:00 and 06:00": f"{np.mean((hour < 6) | (hour >= 22)):.2%}",
        "fraud": f"{np.mean(scenario > 0):.3%}",
        **{f"fraud of scenario {n}": f"{np.mean(scenario == n):.3%}" for n in (1, 2, 3)},
        **{
            f"amount, {quantile:.1%} quantile": f"{value:.2f}"
            for quantile, value in zip(QUANTILES, quantiles, strict=True)
        },
        "amount, largest": f"{amount.max():.2f}",
    }


def table_of(folders: Iterable[Path]) -> str:
    """The statistics of every folder side by side, as a Markdown table."""
    columns = {str(folder): statistics(*read(folder)) for folder in folders}
    head = ["", *columns]
    rows = [[name, *(c[name] for c in columns.values())] for name in next(iter(columns.values()))]
    rule = ["---", *("---:" for _ in columns)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def main() -> None:
    """Prints the comparison of the folders given on the command line."""
    parser = argparse.ArgumentParser(prog="python -m fraud.data.statistics", description=__doc__)
    parser.add_argument("folder", nargs="+", type=Path, help="contains date=YYYY-MM-DD/*.parquet")
    try:
        print(table_of(parser.parse_args().folder))
    except BadInput as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

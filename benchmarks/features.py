"""Measures the cost of the point-in-time features.

    python -m benchmarks.features DATA

Computes the features of all transactions in DATA twice: the default ones, then every family over
1, 7 and 30 days for every entity. Prints one JSON document for each: number of features and rows,
CPU and wall seconds, and the peak memory of the process in MB, including the transactions.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

from benchmarks.meter import Meter
from fraud.features.batch import add_features


def main(data: str) -> None:
    """Reads the data once, then measures both specifications."""
    from fraud.features.definitions import CALENDAR, FAMILIES
    from fraud.features.spec import FeatureGroup, Features
    from fraud.pipeline import config
    from fraud.pipeline.backtest import rows
    from fraud.pipeline.ingestion.source import discover
    from fraud.pipeline.windows import Window, Windows

    defaults = config.load()
    source = discover(data, defaults.dataset)
    *before, last = source.days
    windows = Windows(last, None, Window(before[0], before[-1]), Window(last, last), None)
    none = replace(defaults, features=Features(calendar=(), groups=()))
    table = rows.read(source, windows, none)
    every = Features(calendar=tuple(CALENDAR), groups=(FeatureGroup(tuple(FAMILIES)),))
    for name, spec in (("default", Features()), ("every family", every)):
        meter = Meter()
        with meter.stage("features"):
            columns = add_features(table, defaults.dataset, spec, defaults.windows.label_delay_days)
        cost = meter.costs["features"]
        measurement = {
            "which": name,
            "features": len(columns.column_names) - len(table.column_names),
            "rows": table.num_rows,
            "cpu_s": round(cost.cpu, 1),
            "wall_s": round(cost.wall, 1),
            "peak_mb": cost.mb,
        }
        del columns
        print(json.dumps(measurement), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

"""What the point-in-time features cost.

    python -m benchmarks.features DATA

All transactions in DATA, once with the default features and once with every family over 1, 7 and
30 days of every entity. Prints a JSON document for each: features, rows, CPU and wall seconds, and
the peak memory of the process in MB, the transactions in it included.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

from benchmarks.meter import Meter
from fraud import features


def main(data: str) -> None:
    """Reads once, then measures."""
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
    for name, wanted in (("default", Features()), ("every family", every)):
        meter = Meter()
        with meter.stage("features"):
            made = features.add_features(
                table, defaults.dataset, wanted, defaults.windows.label_delay_days
            )
        cost = meter.costs["features"]
        found = {
            "which": name,
            "features": len(made.column_names) - len(table.column_names),
            "rows": table.num_rows,
            "cpu_s": round(cost.cpu, 1),
            "wall_s": round(cost.wall, 1),
            "peak_mb": cost.mb,
        }
        del made
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

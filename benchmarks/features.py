"""Measures the cost of the point-in-time features.

    python -m benchmarks.features DATA

Computes the features of all transactions in DATA twice: the default ones, then every family over
1, 7 and 30 days for every entity. Prints one JSON document for each: number of features and rows,
CPU and wall seconds, and the peak memory of the process in MB, including the transactions.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import replace

from fraud import features


def main(data: str) -> None:
    """Reads the data once, then measures both specifications."""
    from fraud.features.definitions import CALENDAR, FAMILIES
    from fraud.features.spec import FeatureGroup, Features
    from fraud.pipeline import backtest, config
    from fraud.pipeline.ingestion.source import discover
    from fraud.pipeline.windows import Window, Windows

    defaults = config.load()
    source = discover(data, defaults.dataset)
    *before, last = source.days
    windows = Windows(last, None, Window(before[0], before[-1]), Window(last, last), None)
    none = replace(defaults, features=Features(calendar=(), groups=()))
    table = backtest.read(source, windows, none)
    every = Features(calendar=tuple(CALENDAR), groups=(FeatureGroup(tuple(FAMILIES)),))
    for name, spec in (("default", Features()), ("every family", every)):
        wall, cpu = time.monotonic(), time.process_time()
        columns = features.add_features(
            table, defaults.dataset, spec, defaults.windows.label_delay_days
        )
        measurement = {
            "which": name,
            "features": len(columns.column_names) - len(table.column_names),
            "rows": table.num_rows,
            "cpu_s": round(time.process_time() - cpu, 1),
            "wall_s": round(time.monotonic() - wall, 1),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        del columns
        print(json.dumps(measurement), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

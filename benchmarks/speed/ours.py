"""Measures a run of `fraud-pipeline`: python -m benchmarks.speed.ours CASE ROOT COSTS."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.meter import Meter
from benchmarks.speed.case import Case


def main(folder: str, root: str, costs: str) -> int:
    """Runs the command as a user would, and writes the costs of its nodes to `costs`."""
    case, meter = Case(Path(folder)), Meter()
    with meter.stage("imports"):
        from fraud.pipeline import cli
        from fraud.pipeline.runners import local

        local.load_tfx()
    with meter.nodes():
        code = cli.main(
            ["run", "--config", str(case.config), "--data", str(case.transactions), "--root", root]
        )
    if not any(Path(root, "pushed").glob("*")):  # a refused model skips the Pusher
        raise SystemExit("our run pushed nothing")
    meter.write(costs)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

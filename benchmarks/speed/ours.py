"""A run of `fraud-pipeline`, measured: python -m benchmarks.speed.ours CASE ROOT COSTS."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.speed.case import Case
from benchmarks.speed.meter import Meter


def main(folder: str, root: str, costs: str) -> int:
    """Runs the command as a user would.

    Args:
      folder: of the case.
      root: where the run leaves everything.
      costs: the file for what the nodes cost.
    """
    case, meter = Case(Path(folder)), Meter()
    with meter.stage("imports"):
        from fraud.pipeline import cli
        from fraud.pipeline.runners import local

        local.load_tfx()
    with meter.nodes():
        code = cli.main(
            ["run", "--config", str(case.config), "--data", str(case.transactions), "--root", root]
        )
    if not any(Path(root, "pushed").glob("*")):  # a refused model leaves the Pusher out
        raise SystemExit("our run pushed nothing")
    meter.write(costs)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

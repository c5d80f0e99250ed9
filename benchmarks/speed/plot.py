"""Plots CPU seconds by rows: python -m benchmarks.speed.plot JSON SVG, in an environment with
matplotlib (.venv-bench).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(source: str, target: str) -> None:
    """Plots a line for each contestant.

    Args:
      source: the JSON file that `benchmarks.speed` wrote.
      target: the image file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = json.loads(Path(source).read_text(encoding="utf-8"))["sizes"]
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name in ("stock", "ours", "floor"):
        measured = [size for size in sizes if name in size["costs"]]
        if measured:
            rows = [size["rows"]["read"] for size in measured]
            cpu = [size["costs"][name]["all"]["cpu"] for size in measured]
            axes.loglog(rows, cpu, marker="o", label=name)
    axes.set(xlabel="rows read", ylabel="CPU seconds of a whole run")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(target)


if __name__ == "__main__":
    main(*sys.argv[1:])

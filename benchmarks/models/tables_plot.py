"""Plots the comparison on tables: python -m benchmarks.models.tables_plot JSON SVG, in an
environment with matplotlib (.venv-bench).
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

REFERENCE = "LightGBM, tuned"


def main(source: str, target: str) -> None:
    """Plots each model's average precision minus that of tuned LightGBM, table by table.

    Args:
      source: the JSON file that `benchmarks.models.tables` wrote.
      target: the image file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    results = json.loads(Path(source).read_text(encoding="utf-8"))
    means = {
        table: {
            model: statistics.fmean(run["average_precision"] for run in runs)
            for model, runs in of_models.items()
        }
        for table, of_models in results.items()
    }
    models = [model for model in next(iter(means.values())) if model != REFERENCE]
    figure, axes = pyplot.subplots(figsize=(8, 1.5 + 0.5 * len(means)), layout="constrained")
    for number, model in enumerate(models):
        axes.plot(
            [of_models[model] - of_models[REFERENCE] for of_models in means.values()],
            range(len(means)),
            linestyle="none",
            marker="D" if number == 0 else "o",
            markersize=9 if number == 0 else 5,
            zorder=3 if number == 0 else 2,
            label=model,
        )
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(means)), list(means))
    axes.set(xlabel=f"average precision minus that of {REFERENCE}")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(target)


if __name__ == "__main__":
    main(*sys.argv[1:])

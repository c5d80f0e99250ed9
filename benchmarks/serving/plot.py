"""Plots servers of one model: python -m benchmarks.serving.plot JSON SVG, in an environment with
matplotlib (.venv-bench).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(source: str, target: str) -> None:
    """Plots latency of one request, and throughput by clients, of each contestant.

    Args:
      source: the JSON file that `benchmarks.serving` wrote.
      target: the image file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    results = json.loads(Path(source).read_text(encoding="utf-8"))["results"]
    figure, (latency, throughput) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    names = list(results)
    latency.barh(names, [results[n]["one_p99_ms"] for n in names], color="#c6d4e8", label="p99")
    latency.barh(names, [results[n]["one_p50_ms"] for n in names], color="#2f5c9e", label="p50")
    latency.invert_yaxis()
    latency.set(xlabel="ms for one transaction, features ready-made")
    latency.legend()
    for name in names:
        rates = results[name]["requests_per_second"]
        if rates:
            throughput.plot(list(rates), list(rates.values()), marker="o", label=name)
    throughput.set(xlabel="clients", ylabel="requests a second", ylim=(0, None))
    throughput.grid(visible=True, alpha=0.3)
    throughput.legend()
    figure.savefig(target)


if __name__ == "__main__":
    main(*sys.argv[1:])

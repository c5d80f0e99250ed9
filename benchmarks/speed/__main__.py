"""Compares the cost of a run with stock TFX and the floor, at several sizes.

    python -m benchmarks.speed [--rows N …] [--repeats N] [--out FILE]

Each measurement runs in its own process; contestants take turns, and medians are kept. Data are
simulated once into --kept. Results for other sizes and contestants in --out are kept and shown too:
stock TFX at 1,200,000 rows takes more than ten minutes and need not be measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.meter import Cost
from benchmarks.speed.case import Case

CONTESTANTS = ("ours", "stock", "floor")
ALL = "all"


def measure(contestant: str, case: Case) -> dict[str, Cost]:
    """Runs one contestant in its own process; returns the cost of each stage and of all."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "wb") as nowhere:
        log, out = Path(folder, "log"), Path(folder, "costs.json")
        module = f"benchmarks.speed.{contestant}"
        command = [sys.executable, "-m", module, str(case.folder), f"{folder}/root", str(out)]
        started = time.monotonic()
        with log.open("wb") as sink:
            process = subprocess.Popen(command, stdin=nowhere, stdout=sink, stderr=sink)
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - started
        if process.returncode:
            raise SystemExit(f"{contestant} failed:\n{log.read_text(errors='replace')[-4000:]}")
        stages = json.loads(out.read_text(encoding="utf-8"))
    costs = {name: Cost(**cost) for name, cost in stages.items()}
    peak = max(cost.mb for cost in costs.values())
    costs[ALL] = Cost(round(wall, 2), round(used.ru_utime + used.ru_stime, 2), peak)
    return costs


def medians(runs: list[dict[str, Cost]]) -> dict[str, dict[str, float]]:
    """The median over the runs of each figure of each stage."""
    return {
        stage: {
            figure: round(median(asdict(run[stage])[figure] for run in runs), 2)
            for figure in ("wall", "cpu", "mb")
        }
        for stage in runs[0]
    }


def machine() -> dict[str, Any]:
    """The machine and the versions that the figures depend on."""
    from importlib import metadata

    packages = ("tfx", "tensorflow", "apache-beam")
    return {
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("model name")).split(": ")[1]
    except (OSError, StopIteration):
        return platform.processor()


def table(sizes: list[dict[str, Any]]) -> str:
    """Formats the results as Markdown: whole runs, then the stages of each contestant."""
    lines = [
        "| rows read | examples | | CPU s | wall s | peak MB | CPU relative to ours |",
        "|---:|---:|---|---:|---:|---:|---:|",
    ]
    for size in sizes:
        rows, costs = size["rows"], size["costs"]
        examples = f"{sum(rows.values()) - rows['read']:,}" if "train" in rows else ""
        for name in (c for c in CONTESTANTS if c in costs):
            whole = costs[name][ALL]
            times = f"{whole['cpu'] / costs['ours'][ALL]['cpu']:.2f}" if "ours" in costs else ""
            lines.append(
                f"| {rows['read']:,} | {examples} | {name} | {whole['cpu']:.1f} "
                f"| {whole['wall']:.1f} | {whole['mb']:,.0f} | {times} |"
            )
    for name in CONTESTANTS:
        measured = [size for size in sizes if name in size["costs"]]
        if not measured:
            continue
        headings = [f"{name}: CPU s at", *(f"{size['rows']['read']:,}" for size in measured)]
        lines += ["", _row(headings), "|---|" + "---:|" * len(measured)]
        for stage in measured[-1]["costs"][name]:
            figures = [size["costs"][name][stage]["cpu"] for size in measured]
            lines.append(_row([stage, *(f"{figure:.1f}" for figure in figures)]))
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measures every contestant at every size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 200_000], metavar="N")
    parser.add_argument("--repeats", type=int, default=1, metavar="N")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=CONTESTANTS)
    parser.add_argument("--kept", type=Path, default=Path("build/speed"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("build/speed/speed.json"), metavar="FILE")
    arguments = parser.parse_args()
    sizes: dict[int, dict[str, Any]] = {}
    if arguments.out.exists():
        kept = json.loads(arguments.out.read_text(encoding="utf-8"))["sizes"]
        sizes = {size["rows"]["read"]: size for size in kept}
    for rows in arguments.rows:
        others = set(arguments.contestants) - {"ours"}
        case = Case.of(rows, arguments.kept.resolve(), copied=bool(others))
        runs: dict[str, list[dict[str, Cost]]] = {name: [] for name in arguments.contestants}
        for _ in range(arguments.repeats):
            for name in arguments.contestants:
                runs[name].append(measure(name, case))
                cost = runs[name][-1][ALL]
                line = f"{case.rows['read']:,} rows, {name}: {cost.cpu:.1f} CPU s, {cost.mb:,} MB"
                print(line, file=sys.stderr, flush=True)
        size = sizes.setdefault(case.rows["read"], {"rows": case.rows, "costs": {}})
        size["costs"].update({name: medians(costs) for name, costs in runs.items()})
    ordered = [sizes[read] for read in sorted(sizes)]
    document = {"machine": machine(), "sizes": ordered}
    arguments.out.write_text(json.dumps(document, indent=1), encoding="utf-8")
    print(table(ordered))


if __name__ == "__main__":
    main()

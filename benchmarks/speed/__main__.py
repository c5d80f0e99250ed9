"""What a run costs, beside stock TFX and the floor, at several sizes.

    python -m benchmarks.speed [--rows N …] [--repeats N] [--out FILE]

Every measurement is a process of its own; they take turns, and medians are kept. Data are
simulated once into --kept. What --out holds of other sizes and contestants stays and is shown too:
stock TFX at 1,200,000 rows takes more than ten minutes and need not be measured anew.
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

from benchmarks.speed.case import Case
from benchmarks.speed.meter import Cost

CONTESTANTS = ("ours", "stock", "floor")
ALL = "all"


def measure(contestant: str, case: Case) -> dict[str, Cost]:
    """Runs one contestant in a process of its own: the cost of each stage, and of all."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "wb") as nowhere:
        log, costs = Path(folder, "log"), Path(folder, "costs.json")
        module = f"benchmarks.speed.{contestant}"
        command = [sys.executable, "-m", module, str(case.folder), f"{folder}/root", str(costs)]
        started = time.monotonic()
        with log.open("wb") as sink:
            process = subprocess.Popen(command, stdin=nowhere, stdout=sink, stderr=sink)
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - started
        if process.returncode:
            raise SystemExit(f"{contestant} failed:\n{log.read_text(errors='replace')[-4000:]}")
        stages = json.loads(costs.read_text(encoding="utf-8"))
    found = {name: Cost(**cost) for name, cost in stages.items()}
    peak = max(cost.mb for cost in found.values())
    found[ALL] = Cost(round(wall, 2), round(used.ru_utime + used.ru_stime, 2), peak)
    return found


def medians(runs: list[dict[str, Cost]]) -> dict[str, dict[str, float]]:
    """Of each stage's figures, over the runs."""
    return {
        stage: {
            figure: round(median(asdict(run[stage])[figure] for run in runs), 2)
            for figure in ("wall", "cpu", "mb")
        }
        for stage in runs[0]
    }


def machine() -> dict[str, Any]:
    """What the figures hang on."""
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
    """The results as Markdown: whole runs, then the stages of each contestant."""
    lines = [
        "| rows read | examples | | CPU s | wall s | peak MB | CPU, times ours |",
        "|---:|---:|---|---:|---:|---:|---:|",
    ]
    for size in sizes:
        rows, costs = size["rows"], size["costs"]
        examples = f"{sum(rows.values()) - rows['read']:,}" if "train" in rows else ""
        for name in (c for c in CONTESTANTS if c in costs):
            of = costs[name][ALL]
            times = f"{of['cpu'] / costs['ours'][ALL]['cpu']:.2f}" if "ours" in costs else ""
            lines.append(
                f"| {rows['read']:,} | {examples} | {name} | {of['cpu']:.1f} | {of['wall']:.1f} "
                f"| {of['mb']:,.0f} | {times} |"
            )
    for name in CONTESTANTS:
        found = [size for size in sizes if name in size["costs"]]
        if not found:
            continue
        headings = [f"{name}: CPU s at", *(f"{size['rows']['read']:,}" for size in found)]
        lines += ["", _row(headings), "|---|" + "---:|" * len(found)]
        for stage in found[-1]["costs"][name]:
            figures = [size["costs"][name][stage]["cpu"] for size in found]
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
                of = runs[name][-1][ALL]
                shown = f"{case.rows['read']:,} rows, {name}: {of.cpu:.1f} CPU s, {of.mb:,} MB"
                print(shown, file=sys.stderr, flush=True)
        size = sizes.setdefault(case.rows["read"], {"rows": case.rows, "costs": {}})
        size["costs"].update({name: medians(found) for name, found in runs.items()})
    ordered = [sizes[read] for read in sorted(sizes)]
    document = {"machine": machine(), "sizes": ordered}
    arguments.out.write_text(json.dumps(document, indent=1), encoding="utf-8")
    print(table(ordered))


if __name__ == "__main__":
    main()

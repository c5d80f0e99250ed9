"""What a run costs, beside stock TFX and the floor, at several sizes.

    python -m benchmarks.speed [--rows N …] [--repeats N] [--out FILE]

Every measurement is a process of its own; they take turns, and medians are shown. Data are
simulated once into --kept. Stock TFX at 1,200,000 rows takes about a quarter of an hour.
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
    """The results as Markdown: all of a run, then its stages."""
    lines = [
        "| rows read | examples | | CPU s | wall s | peak MB | CPU, ours : it |",
        "|---:|---:|---|---:|---:|---:|---:|",
    ]
    for size in sizes:
        rows = size["rows"]
        ours = size["costs"]["ours"][ALL]["cpu"]
        examples = sum(rows.values()) - rows["read"]
        for name, stages in size["costs"].items():
            of = stages[ALL]
            ratio = f"1 : {of['cpu'] / ours:.2f}"
            lines.append(
                f"| {rows['read']:,} | {examples:,} | {name} | {of['cpu']:.1f} | {of['wall']:.1f} "
                f"| {of['mb']:,.0f} | {ratio} |"
            )
    for name in sizes[0]["costs"]:
        headings = " | ".join(f"{size['rows']['read']:,}" for size in sizes)
        lines += ["", f"CPU s of {name} | {headings}".join("||"), "|---|" + "---:|" * len(sizes)]
        for stage in sizes[-1]["costs"][name]:
            figures = [size["costs"][name].get(stage, {"cpu": 0})["cpu"] for size in sizes]
            lines.append(" | ".join([stage, *(f"{figure:.1f}" for figure in figures)]).join("||"))
    return "\n".join(lines)


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
    sizes = []
    for rows in arguments.rows:
        case = Case.of(rows, arguments.kept.resolve())
        runs: dict[str, list[dict[str, Cost]]] = {name: [] for name in arguments.contestants}
        for _ in range(arguments.repeats):
            for name in arguments.contestants:
                runs[name].append(measure(name, case))
                of = runs[name][-1][ALL]
                shown = f"{case.rows['read']:,} rows, {name}: {of.cpu:.1f} CPU s, {of.mb:,} MB"
                print(shown, file=sys.stderr, flush=True)
        costs = {name: medians(found) for name, found in runs.items()}
        sizes.append({"rows": case.rows, "costs": costs})
    document = {"machine": machine(), "repeats": arguments.repeats, "sizes": sizes}
    arguments.out.write_text(json.dumps(document, indent=1), encoding="utf-8")
    print(table(sizes))


if __name__ == "__main__":
    main()

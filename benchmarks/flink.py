"""Measures a run on a Flink cluster of this machine: CPU and peak memory of each process.

    scripts/setup_flink.sh
    python -m benchmarks.flink --rows 200000 --workers 0 1 2

For each number of TaskManagers (0: without Flink) a run with an empty root, one after the other.
Every process is looked at five times a second; CPU is user and system time, the peak is `VmHWM`.
What a process that lives for less than that uses is not seen.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.speed.case import Case
from deploy.flink.cluster import Cluster

_SECONDS = 0.2


@dataclass
class Usage:
    """What processes of one kind used.

    Attributes:
      cpu: seconds, of each process.
      peak_mb: resident, of each process.
    """

    cpu: dict[int, float] = field(default_factory=dict)
    peak_mb: dict[int, float] = field(default_factory=dict)


def kind(command: list[str], pid: int, runs: int) -> str:
    """What a process is, by its command line."""
    line = " ".join(command)
    kinds = {
        "fraud-beam-worker": "workers (Python)",
        "TaskManagerRunner": "TaskManagers (Java)",
        "StandaloneSessionClusterEntrypoint": "JobManager (Java)",
        "FlinkJobServerDriver": "Beam's job server (Java)",
    }
    for part, name in kinds.items():
        if part in line:
            return name
    return "the run" if pid == runs else "processes of the run"


@contextmanager
def watched(runs: int) -> Iterator[dict[str, Usage]]:
    """Sees what this process's descendants use; `runs` is the process of the run."""
    usages: dict[str, Usage] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SECONDS):
            for process in psutil.Process().children(recursive=True):
                try:
                    usage = usages.setdefault(kind(process.cmdline(), process.pid, runs), Usage())
                    times = process.cpu_times()
                    peak = Path(f"/proc/{process.pid}/status").read_text()
                except (psutil.Error, OSError):
                    continue
                usage.cpu[process.pid] = times.user + times.system
                lines = [line for line in peak.splitlines() if line.startswith("VmHWM")]
                if lines:
                    usage.peak_mb[process.pid] = int(lines[0].split()[1]) / 1024

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield usages
    finally:
        done.set()
        thread.join()


def measure(case: Case, workers: int) -> dict[str, Usage]:
    """A run on so many TaskManagers, or on none; what its processes used."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        command = [str(Path(sys.executable).with_name("fraud-pipeline")), "run"]
        command += ["--config", str(case.config), "--data", str(case.transactions)]
        command += ["--root", str(folder / "root")]
        if workers:
            cluster = stack.enter_context(Cluster(folder / "flink", workers))
            command += ["--config", str(cluster.config)]
        with (folder / "log").open("wb") as log:
            run = subprocess.Popen(command, stdout=log, stderr=log)
        with watched(run.pid) as usages:
            code = run.wait()
        if code:
            shutil.copy(folder / "log", "flink-run.log")
            raise SystemExit("the run failed: flink-run.log")
        return usages


def main() -> None:
    """Measures, and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kept", type=Path, default=Path("build/speed"))
    arguments = parser.parse_args()
    case = Case.of(arguments.rows, arguments.kept.resolve(), copied=False)
    print("| rows read | TaskManagers | | processes | CPU s | peak MB of one |")
    print("|---:|---:|---|---:|---:|---:|", flush=True)
    for workers in arguments.workers:
        usages = measure(case, workers)
        row = f"| {case.rows['read']:,} | {workers or '–'} |"
        for name, usage in sorted(usages.items()):
            cpu, peak = sum(usage.cpu.values()), max(usage.peak_mb.values())
            print(f"{row} {name} | {len(usage.cpu)} | {cpu:.1f} | {peak:,.0f} |")
        total = sum(sum(usage.cpu.values()) for usage in usages.values())
        print(f"{row} all | | {total:.1f} | |", flush=True)


if __name__ == "__main__":
    main()

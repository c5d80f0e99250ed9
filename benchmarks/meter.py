"""Measures the wall time, CPU time and peak memory of stages of this process."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """The cost of a stage.

    Attributes:
      wall: seconds.
      cpu: user and system seconds of the process and of its children that have ended.
      mb: peak memory of the process during the stage, or of its largest child so far if larger.
    """

    wall: float
    cpu: float
    mb: int


class Meter:
    """Measures stages of this process, in the order in which they run."""

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measures the block."""
        _reset_peak()
        wall, cpu = time.monotonic(), cpu_seconds()
        try:
            yield
        finally:
            wall, cpu = time.monotonic() - wall, cpu_seconds() - cpu
            self.costs[name] = Cost(round(wall, 2), round(cpu, 2), peak_mb())

    @contextmanager
    def nodes(self) -> Iterator[None]:
        """Measures each node that TFX's launcher runs within the block as a stage."""
        from tfx.orchestration.portable.launcher import Launcher

        launch = Launcher.launch

        def measured(launcher: Launcher) -> object:
            with self.stage(launcher._pipeline_node.node_info.id):
                return launch(launcher)

        Launcher.launch = measured
        try:
            yield
        finally:
            Launcher.launch = launch

    def write(self, path: str) -> None:
        """Writes the costs of all stages as JSON."""
        document = {name: asdict(cost) for name, cost in self.costs.items()}
        Path(path).write_text(json.dumps(document, indent=1), encoding="utf-8")


def cpu_seconds() -> float:
    """User and system seconds so far of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def peak_mb() -> int:
    """Peak memory since the last `_reset_peak`, or of the largest child if larger."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    if sys.platform == "darwin":  # in bytes, and the peak cannot be reset
        return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, children) >> 20
    status = Path("/proc/self/status").read_text(encoding="ascii")
    own = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return max(int(own.split()[1]), children) >> 10


def _reset_peak() -> None:
    """Resets the peak on Linux."""
    if sys.platform != "darwin":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

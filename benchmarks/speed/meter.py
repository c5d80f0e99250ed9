"""What stages of a process cost."""

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
    """What something cost.

    Attributes:
      wall: seconds.
      cpu: seconds, user and system, of the process and of its children that have ended.
      mb: peak memory of the process, or of the largest of its children so far.
    """

    wall: float
    cpu: float
    mb: int


class Meter:
    """Measures stages of this process, in order."""

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measures the block."""
        _forget_peak()
        wall, cpu = time.monotonic(), cpu_seconds()
        try:
            yield
        finally:
            used = cpu_seconds() - cpu
            spent = Cost(round(time.monotonic() - wall, 2), round(used, 2), peak_mb())
            self.costs[name] = spent

    @contextmanager
    def nodes(self) -> Iterator[None]:
        """Within it, each node that TFX's launcher runs is a stage."""
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
    """Of this process and its children that have ended, so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def peak_mb() -> int:
    """Peak memory since the last `_forget_peak`, or of a child."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    if sys.platform == "darwin":  # bytes there, and no way to forget
        return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, children) >> 20
    status = Path("/proc/self/status").read_text(encoding="ascii")
    own = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return max(int(own.split()[1]), children) >> 10


def _forget_peak() -> None:
    """Makes Linux start the peak anew."""
    if sys.platform != "darwin":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

"""What changes of the version cost: latency while versions change, and while none does.

    python -m benchmarks.serving.swaps --root fraud-root --swaps 25

Copies the newest version of a root under new numbers, one after the other, while another process
sends single transactions at a steady rate. A change lasts from the appearance of the folder until
the old version is freed. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.serving.__main__ import REPOSITORY, body_of, quantile, real_rows

PAUSE = 4.0
"""Seconds between two changes, in which latency is measured for comparison."""


def main() -> None:
    """Runs the load and the changes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("fraud-root"))
    parser.add_argument("--swaps", type=int, default=25)
    parser.add_argument("--rate", type=float, default=50)
    arguments = parser.parse_args()
    pushed = arguments.root.resolve() / "pushed"
    model = max(pushed.iterdir(), key=lambda path: int(path.name))
    with tempfile.TemporaryDirectory(dir=arguments.root) as folder:
        print(json.dumps(measure(model, Path(folder), arguments.swaps, arguments.rate), indent=1))


def measure(model: Path, folder: Path, swaps: int, rate: float) -> dict[str, Any]:
    """Latencies during changes and otherwise."""
    root, out, stop, log = folder, folder / "load.json", folder / "stop", folder / "server.log"
    _push(model, root, 1)
    (folder / "body.json").write_text(
        body_of("ours", {name: values[:1] for name, values in real_rows(model, 1).items()})
    )
    command = [sys.executable, "-m", "fraud.pipeline.cli", "serve", "--root", str(root)]
    with open(log, "w", encoding="utf-8") as output:
        server = subprocess.Popen(
            [*command, "--port", "0", "--grpc-port", "0"], stderr=output, cwd=REPOSITORY
        )
    try:
        while not (lines := [x for x in _lines(log) if x["message"] == "listening"]):
            time.sleep(0.1)
        url = lines[0]["http"]
        _wait_for(url, log, 1)
        address = url.partition("//")[2]
        options = map(str, [address, out, rate, stop, folder / "body.json"])
        sender = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving.steady_load", *options], cwd=REPOSITORY
        )
        changes = []
        for version in range(2, swaps + 2):
            time.sleep(PAUSE)
            started = time.time()
            _push(model, root, version)
            _wait_for(url, log, version)
            changes.append((started, time.time()))
        time.sleep(PAUSE)
        stop.touch()
        sender.wait()
    finally:
        server.terminate()
        server.wait()
    seen = json.loads(out.read_text())
    failed = [version for _, _, version, score in seen if score is None]
    during: list[float] = []
    otherwise: list[float] = []
    for at, milliseconds, _, _ in seen:
        is_during = any(a <= at + milliseconds / 1000 and at <= b for a, b in changes)
        (during if is_during else otherwise).append(milliseconds / 1000)
    p99 = quantile(during, 0.99), quantile(otherwise, 0.99)
    return {
        "changes": swaps,
        "requests": len(seen),
        "failed": len(failed),
        "seconds_per_change": round(sum(b - a for a, b in changes) / swaps, 2),
        "during": {"requests": len(during), "p50_ms": quantile(during, 0.5), "p99_ms": p99[0]},
        "otherwise": {
            "requests": len(otherwise),
            "p50_ms": quantile(otherwise, 0.5),
            "p99_ms": p99[1],
        },
        "p99_ratio": round(p99[0] / p99[1], 2),
        "load_average": os.getloadavg()[0],
    }


def _push(model: Path, root: Path, version: int) -> None:
    (root / "pushed").mkdir(exist_ok=True)
    staged = root / "staged"
    shutil.copytree(model, staged)
    os.rename(staged, root / "pushed" / str(version))


def _wait_for(url: str, log: Path, version: int) -> None:
    """Waits until a version answers and the one before is freed."""
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=30) as answer:
                is_live = json.load(answer)["version"] == str(version)
        except OSError:
            is_live = False
        ended = {x["version"] for x in _lines(log) if x.get("state") == "END"}
        if is_live and (version == 1 or str(version - 1) in ended):
            return
        time.sleep(0.1)


def _lines(log: Path) -> list[dict[str, Any]]:
    text = log.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line[:1] == "{" and line[-1:] == "}"]


if __name__ == "__main__":
    main()

"""What changes of the version cost: latency while versions change, and while none does.

    python -m benchmarks.serving.swaps --root fraud-root --swaps 25

Copies the two newest versions of a root under new numbers, in turns, while another process sends
single transactions at a steady rate. To the server, a rollback is such a copy of an earlier
version under a new number, so each change is both. A change lasts from the appearance of the
folder until the old version is freed. An answer is stale if it was asked for after the next version
had been seen to answer, and wrong if its score is not that of its version. Prints one JSON
document.
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

import numpy as np

from benchmarks.serving.__main__ import BATCH, REPOSITORY, body_of, quantile, real_rows
from fraud.serving.models import LoadedModel

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
    models = sorted(pushed.iterdir(), key=lambda path: int(path.name))[-2:]
    if len(models) < 2:
        raise SystemExit(f"{pushed}: needs two versions; run the pipeline as of two days")
    with tempfile.TemporaryDirectory(dir=arguments.root) as folder:
        print(json.dumps(measure(models, Path(folder), arguments.swaps, arguments.rate), indent=1))


def measure(models: list[Path], folder: Path, swaps: int, rate: float) -> dict[str, Any]:
    """Latencies during changes and otherwise."""
    root, out, stop, log = folder, folder / "load.json", folder / "stop", folder / "server.log"
    rows = real_rows(models[0], BATCH)
    scores = np.array([_scores(model, rows) for model in models])
    row = int(np.abs(scores[0] - scores[1]).argmax())  # which tells the versions apart
    expected = scores[:, row].tolist()
    _push(models[1], root, 1)
    one = {name: values[row : row + 1] for name, values in rows.items()}
    (folder / "body.json").write_text(body_of("ours", one))
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
        live_since = {}
        for version in range(2, swaps + 2):
            time.sleep(PAUSE)
            started = time.time()
            _push(models[version % 2], root, version)
            live_since[version] = _wait_for(url, log, version)
            changes.append((started, time.time()))
        time.sleep(PAUSE)
        stop.touch()
        sender.wait()
    finally:
        server.terminate()
        server.wait()
    seen = json.loads(out.read_text())
    failed = [version for _, _, version, score in seen if score is None]
    answered = [(at, int(version), score) for at, _, version, score in seen if score is not None]
    stale = [at for at, version, _ in answered if at > live_since.get(version + 1, float("inf"))]
    wrong = [at for at, version, score in answered if abs(score - expected[version % 2]) > 1e-6]
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
        "stale": len(stale),
        "wrong": len(wrong),
        "scores": expected,
        "versions_that_answered": len({version for _, version, _ in answered}),
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


def _wait_for(url: str, log: Path, version: int) -> float:
    """Waits until a version answers and the one before is freed.

    Returns:
      When it was first seen to answer.
    """
    live_since = None
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=30) as answer:
                if json.load(answer)["version"] == str(version):
                    live_since = live_since or time.time()
        except OSError:
            pass
        ended = {x["version"] for x in _lines(log) if x.get("state") == "END"}
        if live_since and (version == 1 or str(version - 1) in ended):
            return live_since
        time.sleep(0.1)


def _scores(model: Path, rows: dict[str, list[Any]]) -> list[float]:
    """What a model says about some rows, without a server."""
    loaded = LoadedModel(model)
    columns = {
        name: np.array([(value or "").encode() for value in values], object)
        if loaded.signatures["predict"].inputs[name].is_text
        else np.array(values, np.float32)  # NaN for None
        for name, values in rows.items()
    }
    scores = loaded.call("predict", columns)["score"].tolist()
    loaded.close()
    return scores


def _lines(log: Path) -> list[dict[str, Any]]:
    text = log.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line[:1] == "{" and line[-1:] == "}"]


if __name__ == "__main__":
    main()

"""What changes of the version cost: latency while versions change, and while none does.

    python -m benchmarks.serving.swaps --swaps 20 --rollbacks 5

Makes a root by two runs on the sample, serves it, and rolls back between its two versions with the
command `rollback`; then copies both under new numbers, in turns, as a push would appear. Meanwhile
one process sends single transactions with ready-made features at a steady rate, and another one raw
transactions. A change lasts from the appearance of the folder until the old version is freed; of a
rollback, the command's own time before counts as well, since it needs the processor. An answer is
stale if it was asked for after the next version had been seen to answer, and wrong if its score is
not that of its version. Prints one JSON document.
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
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import raw
from benchmarks.serving.__main__ import BATCH, REPOSITORY, body_of, quantile, real_rows
from fraud.serving.models import LoadedModel

PAUSE = 4.0
"""Seconds between two changes, in which latency is measured for comparison."""
PREDICT = "/v1/models/fraud:predict"
FRAUD = [sys.executable, "-m", "fraud.pipeline.cli"]


@dataclass
class Changes:
    """What was done to the root while the load ran.

    Attributes:
      spans: when each change began and ended, in seconds since 1970.
      commands: the same of each command.
      live_since: version → when it was first seen to answer.
      models: version → the index of the model that it is a copy of.
      order: the versions, in the order in which they went live.
    """

    spans: list[tuple[float, float]] = field(default_factory=list)
    commands: list[tuple[float, float]] = field(default_factory=list)
    live_since: dict[int, float] = field(default_factory=dict)
    models: dict[int, int] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)


def main() -> None:
    """Makes the root, and runs the load and the changes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--rollbacks", type=int, default=5)
    parser.add_argument("--rate", type=float, default=50, help="ready-made transactions a second")
    parser.add_argument("--raw-rate", type=float, default=20, help="raw transactions a second")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        last = date.fromisoformat(max(p.name.partition("=")[2] for p in raw.DATA.glob("date=*")))
        for day in (last - timedelta(days=7), last):
            command = ["run", "--config", raw.CONFIGURATION, "--data", raw.DATA, "--root", root]
            _fraud(*command, "--as-of", day)
        print(json.dumps(measure(root, Path(folder), arguments), indent=1))


def measure(root: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Latencies during changes and otherwise."""
    stop, log, pushed = folder / "stop", folder / "server.log", root / "pushed"
    models = sorted(pushed.glob("[0-9]*"), key=lambda path: int(path.name))
    if len(models) != 2:
        raise SystemExit(f"{pushed}: two versions were to be pushed")
    rows = real_rows(models[0], BATCH)
    scores = np.array([_scores(model, rows) for model in models])
    row = int(np.abs(scores[0] - scores[1]).argmax())  # which tells the versions apart
    one = {name: values[row : row + 1] for name, values in rows.items()}
    (folder / "ready.txt").write_text(body_of("ours", one))
    (folder / "raw.txt").write_text("\n".join(raw.bodies(raw.transactions(20_000), 1)))
    seconds = (PAUSE + 10) * (arguments.swaps + 2 * arguments.rollbacks)
    if arguments.raw_rate * seconds > 20_000:
        raise SystemExit("--raw-rate is too high: raw transactions would repeat")
    options = ["--config", raw.CONFIGURATION, "--data", raw.DATA, "--root", root]
    with open(log, "w", encoding="utf-8") as output:
        server = subprocess.Popen(
            [*FRAUD, "serve", *map(str, options), "--port", "0", "--grpc-port", "0"],
            stderr=output,
            cwd=REPOSITORY,
        )
    changes = Changes(models={int(model.name): index for index, model in enumerate(models)})
    changes.order = list(changes.models)
    try:
        while not (lines := [x for x in _lines(log) if x["message"] == "listening"]):
            time.sleep(0.1)
        url = lines[0]["http"]
        _wait_for(url, log, changes.order[-1], None)
        senders = [
            _load(url, PREDICT, folder / "ready.txt", arguments.rate, stop),
            _load(url, raw.PATH, folder / "raw.txt", arguments.raw_rate, stop),
        ]
        for number in range(arguments.rollbacks + arguments.swaps):
            time.sleep(PAUSE)
            before = changes.order[-1]
            target = 1 - changes.models[before]
            command = None
            began = time.time()
            if number < arguments.rollbacks:
                options = ["--root", root, "--to", changes.order[-2], "--reason", "measured"]
                command = subprocess.Popen([*FRAUD, "rollback", *map(str, options)], cwd=REPOSITORY)
                version = _appeared(pushed, before, command)
            else:
                version = before + 1
                _push(models[target], pushed, version)
            started = time.time()
            changes.models[version] = target
            changes.order.append(version)
            changes.live_since[version] = _wait_for(url, log, version, before)
            changes.spans.append((started, time.time()))
            if command is not None:
                command.wait()
                changes.commands.append((began, time.time()))
        time.sleep(PAUSE)
        stop.touch()
        for sender in senders:
            sender.wait()
    finally:
        server.terminate()
        server.wait()
    ready, of_raw = (json.loads((folder / name).read_text()) for name in ("ready.json", "raw.json"))
    wrong = [
        at
        for at, _, version, score in ready
        if score is not None and abs(score - scores[changes.models[int(version)], row]) > 1e-6
    ]
    return {
        "swaps": arguments.swaps,
        "rollbacks": arguments.rollbacks,
        "versions": len(changes.order) - 1,
        "seconds_per_change": round(sum(b - a for a, b in changes.spans) / len(changes.spans), 2),
        "wrong": len(wrong),
        "ready_made": _summary(ready, changes),
        "raw": _summary(of_raw, changes),
        "load_average": os.getloadavg()[0],
    }


def _summary(seen: list[list[Any]], changes: Changes) -> dict[str, Any]:
    """Failed and stale requests, and latencies."""
    failed = [version for _, _, version, score in seen if score is None]
    answered = [(at, int(version)) for at, _, version, score in seen if score is not None]
    after = dict(zip(changes.order, changes.order[1:], strict=False))
    stale = [
        at
        for at, version in answered
        if at > changes.live_since.get(after.get(version, 0), float("inf"))
    ]
    during: list[float] = []
    beside_command: list[float] = []
    otherwise: list[float] = []

    def within(at: float, end: float, spans: list[tuple[float, float]]) -> bool:
        return any(a <= end and at <= b for a, b in spans)

    for at, milliseconds, _, _ in seen:
        seconds = milliseconds / 1000
        if within(at, at + seconds, changes.spans):
            during.append(seconds)
        elif within(at, at + seconds, changes.commands):
            beside_command.append(seconds)
        else:
            otherwise.append(seconds)
    return {
        "requests": len(seen),
        "failed": len(failed),
        "problems": sorted(set(failed))[:5],
        "stale": len(stale),
        "versions_that_answered": len({version for _, version in answered}),
        "during": _latency(during),
        "beside_command": _latency(beside_command),
        "otherwise": _latency(otherwise),
        "p99_ratio": round(quantile(during, 0.99) / quantile(otherwise, 0.99), 2),
    }


def _latency(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {"requests": 0}
    return {
        "requests": len(seconds),
        "p50_ms": quantile(seconds, 0.5),
        "p99_ms": quantile(seconds, 0.99),
    }


def _appeared(pushed: Path, before: int, command: subprocess.Popen[bytes]) -> int:
    """Waits until a command has published a version later than another; returns it."""
    while True:
        if (version := max(int(path.name) for path in pushed.glob("[0-9]*"))) > before:
            return version
        if command.poll():
            raise SystemExit("the rollback failed; see above")
        time.sleep(0.02)


def _fraud(*arguments: Any) -> None:
    """Runs a command of ours."""
    command = [*FRAUD, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def _load(url: str, path: str, bodies: Path, rate: float, stop: Path) -> subprocess.Popen[bytes]:
    address = url.partition("//")[2]
    options = map(str, [address, path, bodies, rate, stop, bodies.with_suffix(".json")])
    command = [sys.executable, "-m", "benchmarks.serving.steady_load", *options]
    return subprocess.Popen(command, cwd=REPOSITORY)


def _push(model: Path, pushed: Path, version: int) -> None:
    staged = pushed.with_name("staged")
    shutil.copytree(model, staged)
    os.rename(staged, pushed / str(version))


def _wait_for(url: str, log: Path, version: int, before: int | None) -> float:
    """Waits until a version answers and the one before it, if there is one, is freed.

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
        if live_since and (before is None or str(before) in ended):
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

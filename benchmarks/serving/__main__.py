"""Compares servers of one SavedModel.

    python -m benchmarks.serving --root fraud-root --contestants ours mlserver mlflow bentoml

All get the same rows, with features ready-made, in their own JSON. The servers run one at a time,
in turns, so that what else the machine does hits all alike. Writes build/serving/serving.json and
prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from fraud.serving.models import WARMUP_FILE
from fraud.serving.protos import prediction_log_pb2
from fraud.serving.records import read_records
from fraud.serving.tensors import from_tensor_proto

REPOSITORY = Path(__file__).resolve().parents[2]
BATCH = 100
CLIENTS = (1, 8, 64)


@dataclass
class Contestant:
    """A server.

    Attributes:
      command: starts it; {port} is the port.
      path: of the requests.
      ready: a path that answers 200 once requests are answered.
      environment: variables of its process.
    """

    command: str
    path: str
    ready: str
    environment: dict[str, str] = field(default_factory=dict)


def newest(root: Path) -> Path:
    """The newest version in a root."""
    return max((root / "pushed").iterdir(), key=lambda path: int(path.name))


def real_rows(model: Path, count: int) -> dict[str, list[Any]]:
    """Columns of `count` rows: the transactions of the model's warm-up requests, repeated."""
    logs = read_records(model / "assets.extra" / WARMUP_FILE, 100)
    requests = [prediction_log_pb2.PredictionLog.FromString(r).predict_log.request for r in logs]
    largest = [r for r in requests if r.model_spec.signature_name == "predict"][-1]
    columns = {}
    for name, tensor in largest.inputs.items():
        values = [
            value.decode() if isinstance(value, bytes) else None if value != value else value
            for value in from_tensor_proto(name, tensor).tolist()
        ]
        columns[name] = [values[row % len(values)] for row in range(count)]
    return columns


def body_of(name: str, columns: dict[str, list[Any]]) -> str:
    """A request in the format of a server."""
    if name == "ours":
        return json.dumps({"signature_name": "predict", "inputs": columns})
    if name == "mlserver":
        tensors = [
            {
                "name": column,
                "shape": [len(values)],
                "datatype": "BYTES" if isinstance(values[0], str) else "FP32",
                "data": values,
            }
            for column, values in columns.items()
        ]
        return json.dumps({"inputs": tensors})
    return json.dumps({"inputs" if name == "mlflow" else "columns": columns})


def contestants(model: Path, root: Path, folder: Path) -> dict[str, Contestant]:
    """How each server is started."""
    # A folder with nothing but the benchmarks: the repository's `schema` would hide a package of
    # that name, which BentoML needs.
    path = folder / "path"
    path.mkdir(parents=True, exist_ok=True)
    if not (path / "benchmarks").is_symlink():
        (path / "benchmarks").symlink_to(REPOSITORY / "benchmarks")
    here = {"PYTHONPATH": str(path), "CUDA_VISIBLE_DEVICES": "-1"}
    mlserver, bentoml = (REPOSITORY / f".venv-bench-{n}" / "bin" for n in ("mlserver", "bentoml"))
    settings = folder / "mlserver"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "model-settings.json").write_text(
        json.dumps(
            {
                "name": "fraud",
                "implementation": "benchmarks.serving.others.mlserver_runtime.SavedModel",
                "parameters": {"uri": str(model)},
            }
        )
    )
    return {
        "ours": Contestant(
            f"{sys.executable} -m fraud.pipeline.cli serve --root {root} --port {{port}} "
            "--grpc-port 0",
            "/v1/models/fraud:predict",
            "/readyz",
        ),
        "mlserver": Contestant(
            f"{mlserver}/mlserver start {settings}",
            "/v2/models/fraud/infer",
            "/v2/health/ready",
            {
                **here,
                "MLSERVER_HTTP_PORT": "{port}",
                "MLSERVER_GRPC_PORT": "{free}",
                "MLSERVER_METRICS_PORT": "{free2}",
                "MLSERVER_HOST": "127.0.0.1",
                "MLSERVER_PARALLEL_WORKERS": "0",
            },
        ),
        "mlflow": Contestant(
            f"{mlserver}/mlflow models serve -m {folder}/mlflow --env-manager local -h 127.0.0.1 "
            "-p {port}",
            "/invocations",
            "/ping",
            {**here, "PATH": f"{mlserver}:{os.environ['PATH']}"},
        ),
        "bentoml": Contestant(
            f"{bentoml}/bentoml serve benchmarks.serving.others.bentoml_service:Fraud "
            f"--working-dir {path} --host 127.0.0.1 --port {{port}}",
            "/predict",
            "/readyz",
            {**here, "FRAUD_BENCHMARK_MODEL": str(model), "BENTOML_DO_NOT_TRACK": "true"},
        ),
    }


@contextmanager
def running(name: str, contestant: Contestant, log: Path) -> Iterator[tuple[str, int]]:
    """The address of a running server, and its process id."""
    ports = {key: str(_free_port()) for key in ("port", "free", "free2")}
    command = contestant.command.format(**ports).split()
    environment = {key: value.format(**ports) for key, value in contestant.environment.items()}
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **environment}, cwd=log.parent
        )
    try:
        address = f"127.0.0.1:{ports['port']}"
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://{address}{contestant.ready}", timeout=5):
                    break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"{name} ended: see {log}") from None
                time.sleep(0.5)
        else:
            raise SystemExit(f"{name} did not start: see {log}")
        yield address, process.pid
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def load(
    address: str,
    path: str,
    bodies: list[str],
    clients: int,
    requests: int,
    rate: float | None = None,
) -> dict[str, Any]:
    """What the clients saw; see `benchmarks.serving.clients`."""
    plan = {
        "address": address,
        "path": path,
        "bodies": bodies,
        "clients": clients,
        "requests": requests,
        "rate": rate,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving.clients"],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    result = json.loads(done.stdout)
    if result["failed"]:
        raise SystemExit(f"{path}: {result['failed']} requests failed: {result['problem']}")
    return result


def answer_to(address: str, path: str, body: str) -> dict[str, Any]:
    """The document that answers a request."""
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://{address}{path}", body.encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def check(name: str, answer: dict[str, Any], expected: list[float]) -> None:
    """Checks that a server's scores are those of the bare call.

    Raises:
      SystemExit: they are not.
    """
    if name == "mlserver":
        scores = next(o["data"] for o in answer["outputs"] if o["name"] == "score")
    else:
        scores = {"ours": answer.get("outputs"), "mlflow": answer.get("predictions")}.get(
            name, answer
        )["score"]
    if not np.allclose(scores, expected, rtol=0, atol=1e-6):
        raise SystemExit(f"{name}: its scores are not those of the bare call")


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process and of those that it started."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def main() -> None:
    """Runs all rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("fraud-root"))
    parser.add_argument("--contestants", nargs="+", default=["ours"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("build/serving"))
    arguments = parser.parse_args()
    root, out = arguments.root.resolve(), arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    model = newest(root)
    rows = real_rows(model, BATCH)
    one = {name: values[:1] for name, values in rows.items()}
    (out / "rows.json").write_text(json.dumps(rows))
    servers = contestants(model, root, out)
    if "mlflow" in arguments.contestants and not (out / "mlflow").exists():
        python = REPOSITORY / ".venv-bench-mlserver" / "bin" / "python"
        saving = [python, "-m", "benchmarks.serving.others.mlflow_model", model, out / "mlflow"]
        subprocess.run(list(map(str, saving)), check=True, cwd=REPOSITORY)

    seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    walls: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    count = str(arguments.requests)
    cpu: dict[str, list[float]] = defaultdict(list)
    for _ in range(arguments.rounds):
        floor = subprocess.run(
            [sys.executable, "-m", "benchmarks.serving.floor", model, out / "rows.json", count],
            stdout=subprocess.PIPE,
            check=True,
            cwd=REPOSITORY,
        )
        bare = json.loads(floor.stdout)
        seconds["floor"]["one"] += bare["one"]
        seconds["floor"]["batch"] += bare["all"]
        cpu["floor"] += bare["cpu"]
        for name in arguments.contestants:
            server = servers[name]
            with running(name, server, out / f"{name}.log") as (address, pid):
                single, batch = [body_of(name, one)], [body_of(name, rows)]
                check(name, answer_to(address, server.path, batch[0]), bare["scores"])
                load(address, server.path, single, 1, 50)
                before = cpu_seconds(pid)
                result = load(address, server.path, single, 1, arguments.requests)
                seconds[name]["one"] += result["latencies"]
                cpu[name].append((cpu_seconds(pid) - before) / len(result["latencies"]))
                for clients in CLIENTS:
                    result = load(address, server.path, single, clients, arguments.requests)
                    walls[name][str(clients)].append(len(result["latencies"]) / result["wall"])
                result = load(address, server.path, batch, 1, arguments.requests // 5)
                seconds[name]["batch"] += result["latencies"]
    report = {"cores": os.cpu_count(), "load": os.getloadavg(), "rounds": arguments.rounds}
    report["results"] = {
        name: {
            "one_cpu_ms": 1000 * statistics.median(cpu[name]),
            "one_p50_ms": quantile(of["one"], 0.5),
            "one_p99_ms": quantile(of["one"], 0.99),
            "batch_p50_ms": quantile(of["batch"], 0.5),
            "requests_per_second": {c: statistics.median(v) for c, v in walls[name].items()},
        }
        for name, of in seconds.items()
    }
    (out / "serving.json").write_text(json.dumps(report, indent=1))
    print(table(report))


def table(report: dict[str, Any]) -> str:
    """The results as a table in Markdown."""
    lines = [
        "| | one p50 ms | × floor | one p99 ms | CPU ms | × floor | 100 rows p50 ms "
        "| requests/s: 1 client | 8 | 64 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    floor = report["results"]["floor"]
    for name, result in report["results"].items():
        rates = [f"{rate:,.0f}" for rate in result["requests_per_second"].values()]
        lines.append(
            f"| {name} | {result['one_p50_ms']:.2f} "
            f"| {result['one_p50_ms'] / floor['one_p50_ms']:.1f} | {result['one_p99_ms']:.2f} "
            f"| {result['one_cpu_ms']:.2f} | {result['one_cpu_ms'] / floor['one_cpu_ms']:.1f} "
            f"| {result['batch_p50_ms']:.1f} "
            f"| {' | '.join(rates or [''] * len(CLIENTS))} |"
        )
    return "\n".join(lines)


def quantile(values: list[float], q: float) -> float:
    """A quantile of seconds, in milliseconds."""
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


if __name__ == "__main__":
    main()

"""Runs a complete Airflow on this machine to try the DAGs: `make airflow`.

Starts a scheduler with LocalExecutor, a DAG processor and an API server in a folder of their own,
with SQLite as Airflow's database. For trials and tests, not for production. Uses only the standard
library and Airflow's REST API.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FINAL_STATES = ("success", "failed")
LOCKED = 503
"""What the API server answers while another service writes to SQLite."""


class Airflow:
    """Context manager that runs Airflow for the duration of the block.

    Args:
      command: the `airflow` command.
      home: folder for Airflow's database and logs.
      graph: folder written by `fraud-pipeline compile`.
      pipeline: the `fraud-pipeline` command.
      schedule: whether schedule and asset events start runs; if not, only backfills do.
      environment: additional environment variables for all tasks.
    """

    def __init__(
        self,
        command: Path,
        home: Path,
        graph: Path,
        pipeline: Path,
        schedule: bool = False,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._command = str(command)
        self._home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        settings = {
            "AIRFLOW_HOME": home,
            "AIRFLOW__API__PORT": port,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__WORKERS": 1,
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple."
            "simple_auth_manager.SimpleAuthManager",
            "AIRFLOW__CORE__DAGS_FOLDER": HERE / "dags",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self._url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": False,
            "AIRFLOW__CORE__PARALLELISM": 2,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": True,
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": schedule,
            "FRAUD_GRAPH": graph,
            "FRAUD_PIPELINE": pipeline,
        }
        # Tasks must not inherit the settings of the calling Python environment.
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "VIRTUAL_ENV"))
        }
        self._environment = {
            **inherited,
            **{name: str(value) for name, value in settings.items()},
            **(environment or {}),
        }
        self._stack = ExitStack()

    def __enter__(self) -> Airflow:
        self._home.mkdir(parents=True, exist_ok=True)
        try:
            self._run("db", "migrate")
            one_slot = "ML Metadata in SQLite: one node at a time"
            self._run("pools", "set", "fraud_metadata", "1", one_slot)
            for service in ("api-server", "scheduler", "dag-processor"):
                self._start(service)
            self._wait(lambda: self.call("GET", "/auth/token") and True, "the API server", 180)
            self._wait(lambda: len(self._dags()) == 3, "the DAGs", 180)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, attempts: int = 5
    ) -> Any:
        """Sends one request to Airflow's REST API and returns the decoded JSON.

        With SQLite it is repeated, up to `attempts` times, while another service writes.

        Raises:
          urllib.error.URLError: the server does not answer, or answers with an error.
        """
        headers = {"Content-Type": "application/json"}
        if path != "/auth/token":
            token = self.call("GET", "/auth/token")["access_token"]
            headers["Authorization"] = f"Bearer {token}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code != LOCKED or attempts == 1:
                raise
        time.sleep(2)
        return self.call(method, path, body, attempts - 1)

    def unpause(self, dag: str) -> None:
        """Unpauses a DAG, so that its runs start."""
        self.call("PATCH", f"/api/v2/dags/{dag}?update_mask=is_paused", {"is_paused": False})

    def backfill(self, dag: str, first: date, last: date) -> None:
        """Starts a backfill of the days from `first` to `last`, one run at a time."""
        self.call(
            "POST",
            "/api/v2/backfills",
            {
                "dag_id": dag,
                "from_date": f"{first}T00:00:00Z",
                "to_date": f"{last}T00:00:00Z",
                "max_active_runs": 1,
                "reprocess_behavior": "none",
                "run_backwards": False,
                "dag_run_conf": {},
            },
        )

    def update_asset(self, name: str, extra: dict[str, str]) -> None:
        """Reports an update of an asset, which starts the DAGs scheduled on it."""
        assets = self.call("GET", f"/api/v2/assets?name_pattern={name}")["assets"]
        self.call("POST", "/api/v2/assets/events", {"asset_id": assets[0]["id"], "extra": extra})

    def runs(self, dag: str) -> dict[str, str]:
        """The state of each run by run id, in the order of their days."""
        dag_runs = self.call("GET", f"/api/v2/dags/{dag}/dagRuns?order_by=run_after")["dag_runs"]
        return {run["dag_run_id"]: run["state"] for run in dag_runs}

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """Airflow's record of each task by task id, with `state`, `try_number` and more."""
        quoted = urllib.parse.quote(run)
        path = f"/api/v2/dags/{dag}/dagRuns/{quoted}/taskInstances?limit=100"
        return {task["task_id"]: task for task in self.call("GET", path)["task_instances"]}

    def log(self, dag: str, run: str, task: str) -> str:
        """The log of a task's last attempt: on a busy machine, Airflow may repeat a task."""
        attempt = self.tasks(dag, run)[task]["try_number"]
        quoted = urllib.parse.quote(run)
        path = f"/api/v2/dags/{dag}/dagRuns/{quoted}/taskInstances/{task}/logs/{max(1, attempt)}"
        return json.dumps(self.call("GET", path))

    def wait(self, dag: str, count: int, seconds: float = 3600) -> dict[str, str]:
        """Waits until at least `count` runs exist and all have ended; returns `runs`.

        Raises:
          TimeoutError: that takes longer than `seconds`.
        """

        def ended() -> bool:
            states = list(self.runs(dag).values())
            return len(states) >= count and all(state in FINAL_STATES for state in states)

        self._wait(ended, f"{count} runs of {dag}", seconds)
        return self.runs(dag)

    def _dags(self) -> list[Any]:
        return self.call("GET", "/api/v2/dags")["dags"]

    def _run(self, *arguments: str) -> None:
        with open(self._home / "setup.log", "a", encoding="utf-8") as log:
            subprocess.run(
                [self._command, *arguments],
                env=self._environment,
                stdout=log,
                stderr=log,
                check=True,
            )

    def _start(self, service: str) -> None:
        path = self._home / f"{service}.log"
        log = self._stack.enter_context(path.open("a", encoding="utf-8"))
        process = subprocess.Popen(
            [self._command, service],
            env=self._environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self._stack.callback(_stop, process)

    def _wait(self, condition: Any, what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except (urllib.error.URLError, OSError):
                pass  # not up yet, or too busy to answer
            time.sleep(2)
        raise TimeoutError(
            f"Airflow: {what}: not ready after {seconds:.0f} s; logs in {self._home}"
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stops a service and every process it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=20)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    process.wait()


def main() -> int:
    """Backfills some days and prints the state of each run and task."""
    parser = argparse.ArgumentParser(description="Backfill the fraud DAG with a real Airflow.")
    parser.add_argument("--airflow", type=Path, required=True, help="the airflow command")
    parser.add_argument("--pipeline", type=Path, required=True, help="the fraud-pipeline command")
    parser.add_argument(
        "--home", type=Path, required=True, help="folder for Airflow's database and logs"
    )
    parser.add_argument(
        "--graph", type=Path, required=True, help="folder written by fraud-pipeline compile"
    )
    parser.add_argument("--first", type=date.fromisoformat, required=True, help="first day")
    parser.add_argument("--last", type=date.fromisoformat, required=True, help="last day")
    arguments = parser.parse_args()
    days = (arguments.last - arguments.first).days + 1
    with Airflow(
        arguments.airflow.absolute(),
        arguments.home.resolve(),
        arguments.graph.resolve(),
        arguments.pipeline.absolute(),
    ) as airflow:
        print(f"Airflow is running; its logs are in {arguments.home}", flush=True)
        airflow.unpause("fraud_daily")
        airflow.backfill("fraud_daily", arguments.first, arguments.last)
        runs = airflow.wait("fraud_daily", days)
        for run, state in runs.items():
            print(run, state)
            for name, task in airflow.tasks("fraud_daily", run).items():
                print(f"  {task['state']:<10} {name:<22} {task['duration'] or 0:6.1f} s")
    return 0 if set(runs.values()) == {"success"} else 1


if __name__ == "__main__":
    sys.exit(main())

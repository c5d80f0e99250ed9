"""The fraud pipeline as Airflow DAGs: one task per node of the compiled graph.

`fraud_daily` runs once a day for the day that has just ended. `fraud_on_arrival` runs when the
asset `fraud_transactions` is updated, for the day in the event's extra. This file imports neither
TFX nor the pipeline: tasks run `fraud-pipeline` as a process, from its own environment. See
docs/orchestrators.md.

Environment variables of the scheduler, the DAG processor and the workers:
  FRAUD_GRAPH          folder written by `fraud-pipeline compile` (default: graph, next to this)
  FRAUD_PIPELINE       the fraud-pipeline command (default: fraud-pipeline)
  FRAUD_RETRY_SECONDS  delay between attempts of a task (default: 60)
  FRAUD_ALERT_URL      gets a POST of JSON when a task has failed for good (default: none)
"""

from __future__ import annotations

import json
import logging
import os
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import DAG, Asset, BaseOperator, CronDataIntervalTimetable
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

BAD_INPUT, STOPPED_BY_DATA_GATE = 2, 3
POOL = "fraud_metadata"
"""A pool with one slot: with ML Metadata in SQLite, only one node may run at a time."""

GRAPH = Path(os.environ.get("FRAUD_GRAPH", Path(__file__).parent / "graph"))
outline = json.loads((GRAPH / "graph.json").read_text(encoding="utf-8"))


class Node(BaseOperator):
    """Runs one node. A node that has already succeeded in the run is not repeated.

    Args:
      as_of: template of the as-of day (run as if today were that day); empty for the last day of
        the data.
    """

    template_fields = ("as_of", "run")

    def __init__(self, *, as_of: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.as_of = as_of
        self.run = "{{ run_id }}"
        self.hook = SubprocessHook()

    def execute(self, context: Any) -> None:
        """Runs the process; the exception tells Airflow whether to retry, fail or skip."""
        command = [os.environ.get("FRAUD_PIPELINE", "fraud-pipeline"), "node"]
        command += [
            "--ir",
            str(GRAPH / outline["ir"]),
            "--node",
            self.task_id,
            "--run-id",
            self.run,
        ]
        if self.as_of:
            command += ["--as-of", self.as_of]
        code = self.hook.run_command(command).exit_code
        if code == STOPPED_BY_DATA_GATE:
            raise AirflowSkipException("the data gate stopped this run; the log says why")
        if code == BAD_INPUT:
            raise AirflowFailException("bad input; a retry would not help")
        if code:
            raise AirflowException(f"the node failed with exit code {code}")

    def on_kill(self) -> None:
        """Terminates the node's process."""
        self.hook.send_sigterm()


def report_failure(context: Any) -> None:
    """Logs that a task has failed for good, and posts it to FRAUD_ALERT_URL if set."""
    task = context["task_instance"]
    text = f"{task.dag_id}: {task.task_id} failed in run {task.run_id}: {context.get('exception')}"
    logging.getLogger(__name__).error(text)
    url = os.environ.get("FRAUD_ALERT_URL")
    if url:
        body = json.dumps({"text": text, "dag": task.dag_id, "run": task.run_id}).encode()
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10).close()


def fraud_dag(name: str, schedule: Any, as_of: str) -> DAG:
    """Builds a DAG with one task per node.

    Runs are sequential, because each day's challenger is compared with the champion so far.
    """
    with DAG(
        name,
        description=(__doc__ or "").partition("\n")[0],
        schedule=schedule,
        start_date=datetime(2000, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        max_active_runs=1,
        default_args={
            "retries": 2,
            "retry_delay": timedelta(seconds=int(os.environ.get("FRAUD_RETRY_SECONDS", "60"))),
            "execution_timeout": timedelta(hours=6),
            "on_failure_callback": report_failure,
            "pool": "default_pool" if outline["side_by_side"] else POOL,
        },
    ) as dag:
        tasks = {node["id"]: Node(task_id=node["id"], as_of=as_of) for node in outline["nodes"]}
        for node in outline["nodes"]:
            for upstream in node["upstream"]:
                tasks[upstream] >> tasks[node["id"]]
    return dag


fraud_daily = fraud_dag(
    "fraud_daily",
    # The run for a day starts when that day has ended.
    CronDataIntervalTimetable("@daily", timezone="UTC"),
    as_of="{{ data_interval_start | ds }}",
)
fraud_on_arrival = fraud_dag(
    "fraud_on_arrival",
    [Asset("fraud_transactions")],
    as_of="{{ (triggering_asset_events.values() | first | last).extra.get('day', '') }}",
)

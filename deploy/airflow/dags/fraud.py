"""The fraud pipeline as Airflow DAGs: a task per node of the compiled graph.

`fraud_daily` runs once a day for the day that has just ended; `fraud_on_arrival` runs when the
asset `fraud_transactions` is said to be updated, for the day in the event's extra. Neither TFX nor
the pipeline is imported here: tasks are processes of `fraud-pipeline`, from an environment of its
own. See docs/orchestrators.md.

Environment of the scheduler, the DAG processor and the workers:
  FRAUD_GRAPH          the folder that `fraud-pipeline compile` wrote (default: graph, beside this)
  FRAUD_PIPELINE       the command (default: fraud-pipeline)
  FRAUD_RETRY_SECONDS  between two tries of a task (default: 60)
  FRAUD_ALERT_URL      told of a task that failed for good, by a POST of JSON (default: none)
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
"""Has one slot: with ML Metadata in SQLite only one node may be at work at a time."""

GRAPH = Path(os.environ.get("FRAUD_GRAPH", Path(__file__).parent / "graph"))
outline = json.loads((GRAPH / "graph.json").read_text(encoding="utf-8"))


class Node(BaseOperator):
    """Runs one node. What succeeded in the same run before is not done again.

    Args:
      as_of: the day the run pretends it is, as a template; empty for the last day of the data.
    """

    template_fields = ("as_of", "run")

    def __init__(self, *, as_of: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.as_of = as_of
        self.run = "{{ run_id }}"
        self.hook = SubprocessHook()

    def execute(self, context: Any) -> None:
        """Says by its exception whether to try again, to give up, or to leave out what follows."""
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
            raise AirflowFailException("bad input; trying again would not help")
        if code:
            raise AirflowException(f"the node ended with {code}")

    def on_kill(self) -> None:
        """Ends the node's process too."""
        self.hook.send_sigterm()


def tell(context: Any) -> None:
    """Says that a task failed for good."""
    task = context["task_instance"]
    text = f"{task.dag_id}: {task.task_id} failed in run {task.run_id}: {context.get('exception')}"
    logging.getLogger(__name__).error(text)
    url = os.environ.get("FRAUD_ALERT_URL")
    if url:
        body = json.dumps({"text": text, "dag": task.dag_id, "run": task.run_id}).encode()
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10).close()


def fraud_dag(name: str, schedule: Any, as_of: str) -> DAG:
    """A DAG with a task per node.

    One run at a time: the challenger of a day is judged against the champion of the days before.
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
            "on_failure_callback": tell,
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
    # The run of a day starts when the day has ended.
    CronDataIntervalTimetable("@daily", timezone="UTC"),
    as_of="{{ data_interval_start | ds }}",
)
fraud_on_arrival = fraud_dag(
    "fraud_on_arrival",
    [Asset("fraud_transactions")],
    as_of="{{ (triggering_asset_events.values() | first | last).extra.get('day', '') }}",
)

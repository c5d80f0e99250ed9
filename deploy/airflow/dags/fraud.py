"""The fraud pipeline as Airflow DAGs: await the day, run one task per node, report the outcome.

`fraud_daily` runs once a day for the day that has just ended. `fraud_on_arrival` runs when the
asset `fraud_transactions` is updated, for the day in the event's extra. `fraud_loop` observes
production every day and trains only if `fraud-pipeline decide` says so. This file imports neither
TFX nor the pipeline: tasks run `fraud-pipeline` as a process, from its own environment. See
docs/orchestrators.md.

Environment variables of the scheduler, the DAG processor and the workers:
  FRAUD_GRAPH          folder written by `fraud-pipeline compile` (default: graph, next to this)
  FRAUD_PIPELINE       the fraud-pipeline command (default: fraud-pipeline)
  FRAUD_CONFIG         configuration files of `fraud_loop`, those given to compile, separated by ":"
  FRAUD_MIN_ROWS       rows from which on a day is complete even without the file _SUCCESS; 0: start
                       without looking (default: only _SUCCESS counts)
  FRAUD_WAIT_HOURS     how long to wait for a day before the run fails (default: 20)
  FRAUD_POKE_SECONDS   time between two looks at the day (default: 300)
  FRAUD_RETRY_SECONDS  delay between attempts of a task (default: 60)
  FRAUD_ALERT          `module:name` of a callback or notifier for whatever did not end in a push,
                       in addition to the log (default: none)
  FRAUD_ALERT_URL      gets a POST of JSON at the same occasions (default: none)
"""

from __future__ import annotations

import json
import logging
import os
import pkgutil
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import (
    DAG,
    Asset,
    BaseOperator,
    BaseSensorOperator,
    CronDataIntervalTimetable,
    PokeReturnValue,
    TriggerRule,
)
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)

BAD_INPUT, STOPPED_BY_DATA_GATE, NOT_YET = 2, 3, 4
"""Exit codes of fraud-pipeline; any other but 0 is worth a retry."""
POOL = "fraud_metadata"
"""A pool with one slot: with ML Metadata in SQLite, only one node may run at a time."""
DAY, DECIDE, OUTCOME = "Day", "Decide", "Outcome"
"""Ids of the first task, of the one that follows it in `fraud_loop`, and of the last."""

GRAPH = Path(os.environ.get("FRAUD_GRAPH", Path(__file__).parent / "graph"))
outline = json.loads((GRAPH / "graph.json").read_text(encoding="utf-8"))
TIMEZONE = outline["timezone"]


def seconds(variable: str, default: float, unit: float = 1) -> timedelta:
    """A duration from the environment."""
    return timedelta(seconds=float(os.environ.get(variable, default)) * unit)


class Day(BaseSensorOperator):
    """Waits until the day's data is complete; returns the day. Between looks, its slot is free.

    Args:
      day: template of the day; empty for the last day of the data.
    """

    template_fields = ("day",)

    def __init__(self, *, day: str, **arguments: Any) -> None:
        super().__init__(
            mode="reschedule",
            poke_interval=seconds("FRAUD_POKE_SECONDS", 300),
            timeout=seconds("FRAUD_WAIT_HOURS", 20, unit=3600),
            silent_fail=True,  # A file system that does not answer may do so at the next look.
            **arguments,
        )
        self.day = day
        self.missing = ""
        self.hook = SubprocessHook()

    def execute(self, context: Any) -> Any:
        """Looks once; if the time is up, the exception says what was missing."""
        try:
            return super().execute(context)
        except AirflowSensorTimeout as error:
            raise AirflowSensorTimeout(f"{self.missing}. {error}") from None

    def poke(self, context: Any) -> bool | PokeReturnValue:
        """Asks `fraud-pipeline arrived`."""
        min_rows = os.environ.get("FRAUD_MIN_ROWS")
        if min_rows == "0":
            return PokeReturnValue(True, self.day)
        command = [os.environ.get("FRAUD_PIPELINE", "fraud-pipeline"), "arrived"]
        command += ["--data", outline["data"]]
        command += ["--day", self.day] if self.day else []
        command += ["--min-rows", min_rows] if min_rows else []
        code, self.missing = self.hook.run_command(command)
        if code == NOT_YET:
            return False
        if code == BAD_INPUT:
            raise AirflowFailException(self.missing)
        if code:
            raise AirflowException(self.missing)
        return PokeReturnValue(True, self.missing)

    def on_kill(self) -> None:
        """Terminates the process."""
        self.hook.send_sigterm()


class Node(BaseOperator):
    """Runs one node. A node that has already succeeded in the run is not repeated.

    Args:
      graph: the folder of the compiled graph.
    """

    template_fields = ("as_of", "run")

    def __init__(self, *, graph: Path, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.ir = str(graph / outline["ir"])
        self.as_of = f"{{{{ ti.xcom_pull(task_ids='{DAY}') }}}}"
        self.run = "{{ run_id }}"
        self.hook = SubprocessHook()

    def execute(self, context: Any) -> None:
        """Runs the process; the exception tells Airflow whether to retry, fail or skip."""
        command = [os.environ.get("FRAUD_PIPELINE", "fraud-pipeline"), "node"]
        command += [
            "--ir",
            self.ir,
            "--node",
            self.task_id,
            "--run-id",
            self.run,
        ]
        if self.as_of:
            command += ["--as-of", self.as_of]
        code, last_line = self.hook.run_command(command)
        if code == STOPPED_BY_DATA_GATE:
            raise AirflowSkipException("the data gate stopped this run; the log says why")
        if code == BAD_INPUT:
            raise AirflowFailException(f"bad input; a retry would not help: {last_line}")
        if code:
            raise AirflowException(f"the node failed with exit code {code}: {last_line}")

    def on_kill(self) -> None:
        """Terminates the node's process."""
        self.hook.send_sigterm()


class Outcome(BaseOperator):
    """Succeeds if the run pushed; is skipped if not; fails if the data gate stopped the run."""

    def execute(self, context: Any) -> None:
        """Reads the run's summary; the exception tells Airflow how to end."""
        self.end(context)

    def end(self, context: Any) -> None:
        """See `execute`."""
        summary = json.loads(run_file(context["run_id"], "summary.json").read_text("utf-8"))
        text = f"{summary['outcome']}: {'; '.join(summary['reasons'])}"
        if summary["outcome"] == "gate_stopped":
            raise AirflowFailException(text)
        if summary["outcome"] != "pushed":
            raise AirflowSkipException(text)
        self.log.info("pushed version %s", summary["pushed_version"])


class Decide(BaseOperator):
    """Observes a day and decides; the nodes after it are skipped unless it decides to train.

    The loop sends its own alerts, see docs/alerts.md.
    """

    template_fields = ("as_of",)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.as_of = f"{{{{ ti.xcom_pull(task_ids='{DAY}') }}}}"
        self.hook = SubprocessHook()

    def execute(self, context: Any) -> None:
        """Runs the process, and leaves its last line, "DAY  ACTION: reasons", for `Ended`."""
        said = decided(self.hook, self.as_of)
        context["ti"].xcom_push(key="said", value=said)
        if action_of(said) != "retrain":
            raise AirflowSkipException(said)

    def on_kill(self) -> None:
        """Terminates the process."""
        self.hook.send_sigterm()


class Ended(Outcome):
    """Records what became of the training that was decided, if any, and ends like `Outcome`.

    Succeeds if there was nothing to do; fails if the data is broken.
    """

    template_fields = ("as_of", "said")

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.as_of = f"{{{{ ti.xcom_pull(task_ids='{DAY}') }}}}"
        self.said = f"{{{{ ti.xcom_pull(task_ids='{DECIDE}', key='said') or '' }}}}"
        self.hook = SubprocessHook()

    def execute(self, context: Any) -> None:
        """Records, then reads the run's summary; the exception tells Airflow how to end."""
        if not self.said:
            raise AirflowFailException("nothing was decided; the log of Decide says why")
        if action_of(self.said) == "hold":
            raise AirflowFailException(self.said)
        if action_of(self.said) != "retrain":
            self.log.info("%s", self.said)
            return
        decided(self.hook, self.as_of, "--run", context["run_id"])
        if not run_file(context["run_id"], "summary.json").exists():
            raise AirflowFailException("the training failed; the log of its node says why")
        self.end(context)


def decided(hook: SubprocessHook, day: str, *options: str) -> str:
    """Runs `fraud-pipeline decide`; returns its last line."""
    command = [os.environ.get("FRAUD_PIPELINE", "fraud-pipeline"), "decide"]
    command += ["--data", outline["data"], "--root", outline["root"], "--as-of", day, *options]
    for path in filter(None, os.environ.get("FRAUD_CONFIG", "").split(":")):
        command += ["--config", path]
    code, said = hook.run_command(command)
    if code == BAD_INPUT:
        raise AirflowFailException(f"bad input; a retry would not help: {said}")
    if code:
        raise AirflowException(said)
    return said


def action_of(said: str) -> str:
    """The action in the last line of `fraud-pipeline decide`."""
    return said.split()[1].rstrip(":")


def run_file(run_id: str, name: str) -> Path:
    """A file in the folder of a run, whose nodes write their log and in the end a summary there."""
    return Path(outline["root"], "runs", run_id, name)


def describe(context: Any) -> None:
    """Adds `alert` to the context, for the callbacks that follow, and logs it as an error."""
    task = context["ti"]
    summary_file = run_file(task.run_id, "summary.json")
    summary: dict[str, Any] = {}
    if task.task_id == OUTCOME and summary_file.exists():
        summary = json.loads(summary_file.read_text("utf-8"))
    outcome = summary.get("outcome", "failed")
    alert = {
        "kind": {"failed": "failed_run", "gate_stopped": "gate_stop"}.get(outcome, "no_push"),
        "day": summary.get("as_of") or "",
        "version": summary.get("live_version") or "",
        "dag": task.dag_id,
        "run": task.run_id,
        "task": task.task_id,
        "outcome": outcome,
        "reasons": summary.get("reasons") or [str(context.get("exception"))],
        "log": str(run_file(task.run_id, "run.log")),
        "url": task.log_url,
    }
    alert["text"] = "{dag}: run {run}: {outcome} in {task}: {0}; log: {log}".format(
        "; ".join(alert["reasons"]), **alert
    )
    context["alert"] = alert
    logging.getLogger(__name__).error(alert["text"])


def post(context: Any) -> None:
    """Posts the description to FRAUD_ALERT_URL."""
    body = json.dumps(context["alert"]).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["FRAUD_ALERT_URL"], body, headers)
    urllib.request.urlopen(request, timeout=10).close()


ALERTS = [describe]
"""Airflow calls each, with the same context, even if one of them fails."""
if "FRAUD_ALERT_URL" in os.environ:
    ALERTS.append(post)
if "FRAUD_ALERT" in os.environ:
    ALERTS.append(pkgutil.resolve_name(os.environ["FRAUD_ALERT"]))


def fraud_dag(name: str, schedule: Any, day: str, decides: bool = False) -> DAG:
    """Builds a DAG: the day, the decision if it `decides`, one task per node, the outcome.

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
            "retry_delay": seconds("FRAUD_RETRY_SECONDS", 60),
            "execution_timeout": timedelta(hours=6),
            "on_failure_callback": ALERTS,
        },
    ) as dag:
        pool = "default_pool" if outline["side_by_side"] else POOL
        graph = Path(outline["root"], "loop", "graph") if decides else GRAPH
        nodes = {
            node["id"]: Node(task_id=node["id"], pool=pool, graph=graph)
            for node in outline["nodes"]
        }
        for node in outline["nodes"]:
            for upstream in node["upstream"]:
                nodes[upstream] >> nodes[node["id"]]
        first, last = dag.roots, dag.leaves
        if decides:
            Day(task_id=DAY, day=day) >> Decide(task_id=DECIDE, pool=pool) >> first
            last >> Ended(task_id=OUTCOME, trigger_rule=TriggerRule.ALL_DONE)
            return dag
        Day(task_id=DAY, day=day) >> first
        # Runs after nodes that were skipped, but not after one that failed, which has alerted.
        last >> Outcome(
            task_id=OUTCOME,
            trigger_rule=TriggerRule.NONE_FAILED,
            on_skipped_callback=ALERTS,
        )
    return dag


# The run for a day starts when that day has ended.
DAILY = CronDataIntervalTimetable("@daily", timezone=TIMEZONE)
DAY_THAT_ENDED = f"{{{{ data_interval_start.in_timezone('{TIMEZONE}') | ds }}}}"

fraud_daily = fraud_dag("fraud_daily", DAILY, DAY_THAT_ENDED)
fraud_loop = fraud_dag("fraud_loop", DAILY, DAY_THAT_ENDED, decides=True)
fraud_on_arrival = fraud_dag(
    "fraud_on_arrival",
    [Asset("fraud_transactions")],
    # Several events start one run: for the last of their days, whose windows contain the others.
    day="{{ triggering_asset_events.values() | sum(start=[])"
    " | map(attribute='extra.day', default='') | max | default('') }}",
)

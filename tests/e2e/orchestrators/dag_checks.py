"""Unit tests of the DAGs. They need Airflow, hence run in its environment, which has no pytest.

`test_airflow.py` runs them with a graph of two nodes, A and B, and these environment variables:
FRAUD_PIPELINE, a command that repeats its arguments and ends with EXIT_CODE; FRAUD_ALERT, the
function `pager` of a module `pager`, which keeps what it is told in `pages`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import unittest
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pager  # type: ignore[import-not-found]
import pendulum
from airflow.sdk import BaseNotifier
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
)

DAG_FILE = Path(__file__).parents[3] / "deploy" / "airflow" / "dags" / "fraud.py"


def load() -> Any:
    """The module of the DAGs; by its path, because its name is also that of our package."""
    spec = importlib.util.spec_from_file_location("dags", DAG_FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


dags = load()


def task_instance(task_id: str, first_look: datetime | None = None) -> Any:
    return SimpleNamespace(
        dag_id="fraud_daily",
        task_id=task_id,
        run_id="R",
        log_url="http://airflow/log",
        get_first_reschedule_date=lambda _: first_look,
    )


def render(template: str, **context: Any) -> str:
    return dags.fraud_daily.get_template_env().from_string(template).render(**context)


def end_with(code: int) -> Any:
    return mock.patch.dict(os.environ, EXIT_CODE=str(code))


class TheDay(unittest.TestCase):
    def setUp(self) -> None:
        self.sensor = load().fraud_daily.get_task("Day")
        self.sensor.day = "2026-03-21"

    def look(self, first_look: datetime | None = None) -> Any:
        return self.sensor.execute({"ti": task_instance("Day", first_look)})

    def test_frees_its_slot_and_the_one_slot_of_nodes(self) -> None:
        self.assertEqual((self.sensor.mode, self.sensor.pool), ("reschedule", "default_pool"))
        self.assertEqual((self.sensor.poke_interval, self.sensor.timeout), (300, 72_000))

    def test_complete(self) -> None:
        with end_with(0):
            self.assertEqual(self.look(), "arrived --data /days --day 2026-03-21")

    def test_minimum_number_of_rows(self) -> None:
        with end_with(0), mock.patch.dict(os.environ, FRAUD_MIN_ROWS="9"):
            self.assertEqual(self.look(), "arrived --data /days --day 2026-03-21 --min-rows 9")
            self.sensor.day = ""
            self.assertEqual(self.look(), "arrived --data /days --min-rows 9")

    def test_zero_rows_start_at_once(self) -> None:
        with end_with(4), mock.patch.dict(os.environ, FRAUD_MIN_ROWS="0"):
            self.assertEqual(self.look(), "2026-03-21")

    def test_not_yet_is_looked_at_again(self) -> None:
        with end_with(4), self.assertRaises(AirflowRescheduleException):
            self.look()
        with end_with(4):
            self.assertIs(self.sensor.poke({}), False)  # and is no error in the log

    def test_a_file_system_that_fails_is_looked_at_again(self) -> None:
        with end_with(1), self.assertRaises(AirflowRescheduleException):
            self.look()

    def test_bad_input_fails_at_once(self) -> None:
        with end_with(2), self.assertRaisesRegex(AirflowFailException, "--data /days"):
            self.look()

    def test_when_the_time_is_up_says_what_is_missing(self) -> None:
        long_ago = datetime(2026, 1, 1, tzinfo=timezone.utc)
        with end_with(4), self.assertRaisesRegex(AirflowSensorTimeout, "--day 2026-03-21"):
            self.look(long_ago)

    def test_days_begin_at_midnight_in_the_time_zone_of_the_data(self) -> None:
        self.assertEqual(str(dags.fraud_daily.timetable.timezone), "Asia/Tokyo")
        begins = pendulum.datetime(2026, 3, 20, 15)  # in UTC
        template = load().fraud_daily.get_task("Day").day
        self.assertEqual(render(template, data_interval_start=begins), "2026-03-21")

    def test_last_of_several_events(self) -> None:
        template = dags.fraud_on_arrival.get_task("Day").day
        events = [SimpleNamespace(extra={"day": f"2026-03-{day}"}) for day in (20, 21, 19)]
        for found, expected in (
            ({"asset": events}, "2026-03-21"),
            ({"asset": [SimpleNamespace(extra={})]}, ""),
            ({}, ""),  # started by hand
        ):
            self.assertEqual(render(template, triggering_asset_events=found), expected)


class ANode(unittest.TestCase):
    def test_exit_codes(self) -> None:
        node = load().fraud_daily.get_task("A")
        node.run, node.as_of = "R", "2026-03-21"
        with end_with(0):
            node.execute({})
        for code, error in (
            (1, AirflowException),  # tried again
            (2, AirflowFailException),
            (3, AirflowSkipException),
        ):
            with end_with(code), self.assertRaises(error) as raised:
                node.execute({})
            self.assertIs(type(raised.exception), error)
            if code != 3:
                self.assertIn("--node A --run-id R --as-of 2026-03-21", str(raised.exception))

    def test_day_is_what_the_sensor_returned(self) -> None:
        found = SimpleNamespace(xcom_pull=lambda task_ids: f"day of {task_ids}")
        template = dags.fraud_daily.get_task("B").as_of
        self.assertEqual(render(template, ti=found), "day of Day")


class TheLoop(unittest.TestCase):
    def setUp(self) -> None:
        self.decide = load().fraud_loop.get_task("Decide")
        self.ended = load().fraud_loop.get_task("Outcome")
        self.decide.as_of = self.ended.as_of = "2026-03-21"
        self.context = {"run_id": "L", "ti": mock.Mock()}
        self.calls: list[list[str]] = []
        summary = dags.run_file("L", "summary.json")
        summary.parent.mkdir(parents=True, exist_ok=True)
        summary.write_text(json.dumps({"outcome": "pushed", "reasons": [], "pushed_version": "7"}))
        self.summary = summary

    def say(self, line: str, code: int = 0) -> Any:
        """What the command answers."""

        def run_command(command: list[str]) -> tuple[int, str]:
            self.calls.append(command)
            return code, line

        for task in (self.decide, self.ended):
            task.hook = SimpleNamespace(run_command=run_command)

    def test_nodes_follow_a_decision_to_train_and_run_its_graph(self) -> None:
        self.assertEqual(self.decide.upstream_task_ids, {"Day"})
        node = dags.fraud_loop.get_task("A")
        self.assertEqual(node.upstream_task_ids, {"Decide"})
        self.assertEqual(node.ir, str(Path(dags.outline["root"], "loop/graph/ir.json")))
        self.assertEqual(self.ended.trigger_rule, "all_done")
        self.say("2026-03-21  retrain: average_precision is 0.4")
        with mock.patch.dict(os.environ, FRAUD_CONFIG="a.yaml:b.yaml"):
            self.decide.execute(self.context)
        self.assertEqual(
            self.calls[0][1:],
            [
                *("decide", "--data", "/days", "--root", dags.outline["root"]),
                *("--as-of", "2026-03-21", "--config", "a.yaml", "--config", "b.yaml"),
            ],
        )

    def test_otherwise_they_are_skipped(self) -> None:
        for action in ("nothing", "hold", "roll_back"):
            self.say(f"2026-03-21  {action}: why")
            with self.assertRaises(AirflowSkipException):
                self.decide.execute(self.context)
        pushed = [call.kwargs["value"] for call in self.context["ti"].xcom_push.call_args_list]
        self.assertEqual(pushed[1], "2026-03-21  hold: why")

    def test_exit_codes(self) -> None:
        for code, error in ((1, AirflowException), (2, AirflowFailException)):
            self.say("odd", code)
            with self.assertRaisesRegex(error, "odd") as raised:
                self.decide.execute(self.context)
            self.assertIs(type(raised.exception), error)

    def test_the_end_of_a_training_is_recorded(self) -> None:
        self.ended.said = "2026-03-21  retrain: average_precision is 0.4"
        self.say("2026-03-21  retrain")
        self.ended.execute(self.context)
        self.assertEqual(self.calls[0][-2:], ["--run", "L"])
        self.summary.unlink()
        with self.assertRaisesRegex(AirflowFailException, "the training failed"):
            self.ended.execute(self.context)
        self.assertEqual(len(self.calls), 2)  # a failure is recorded, too

    def test_days_without_a_training_end_well_unless_the_data_is_broken(self) -> None:
        self.say("")
        self.ended.said = "2026-03-21  nothing"
        self.ended.execute(self.context)
        self.ended.said = "2026-03-21  hold: CHANNEL is missing"
        with self.assertRaisesRegex(AirflowFailException, "CHANNEL is missing"):
            self.ended.execute(self.context)
        self.ended.said = ""
        with self.assertRaisesRegex(AirflowFailException, "nothing was decided"):
            self.ended.execute(self.context)
        self.assertEqual(self.calls, [])


class TheOutcome(unittest.TestCase):
    def setUp(self) -> None:
        self.task = dags.fraud_daily.get_task("Outcome")
        self.summary = dags.run_file("R", "summary.json")
        self.summary.parent.mkdir(parents=True, exist_ok=True)
        self.summary.unlink(missing_ok=True)
        pager.pages.clear()

    def end_as(self, outcome: str, *reasons: str) -> None:
        summary = {"outcome": outcome, "reasons": reasons, "pushed_version": "1"}
        self.summary.write_text(json.dumps(summary))
        self.task.execute({"run_id": "R"})

    def alerted(self, task_id: str, error: Exception | None = None) -> dict[str, Any]:
        """What Airflow does after a failure."""
        context = {"ti": task_instance(task_id), "exception": error}
        with self.assertLogs(level="ERROR") as logs:
            for callback in dags.ALERTS:
                callback(context)
        (told,) = pager.pages
        self.assertIn(told["text"], logs.output[0])
        self.assertEqual((told["dag"], told["run"], told["task"]), ("fraud_daily", "R", task_id))
        self.assertEqual(told["log"], str(dags.run_file("R", "run.log")))
        return told

    def test_runs_last_unless_something_failed(self) -> None:
        self.assertEqual(self.task.trigger_rule, "none_failed")
        self.assertEqual(self.task.upstream_task_ids, {"B"})

    def test_pushed_is_success(self) -> None:
        self.end_as("pushed")

    def test_gate_stop_fails_at_once(self) -> None:
        with self.assertRaisesRegex(AirflowFailException, "gate_stopped: odd; odder"):
            self.end_as("gate_stopped", "odd", "odder")

    def test_any_other_outcome_is_skipped(self) -> None:
        for outcome in ("not_blessed", "replay"):
            with self.assertRaisesRegex(AirflowSkipException, f"{outcome}: too late"):
                self.end_as(outcome, "too late")

    def test_failure_of_any_task_and_skip_of_this_one_alert(self) -> None:
        for task in dags.fraud_daily.tasks:
            self.assertEqual(list(task.on_failure_callback), dags.ALERTS)
            expected = dags.ALERTS if task is self.task else []
            self.assertEqual(list(task.on_skipped_callback), expected)

    def test_alert_of_a_run_that_did_not_push_has_its_reasons(self) -> None:
        with self.assertRaises(AirflowSkipException):
            self.end_as("not_blessed", "worse than the champion")
        told = self.alerted("Outcome")
        self.assertEqual(told["outcome"], "not_blessed")
        self.assertEqual(told["reasons"], ["worse than the champion"])

    def test_alert_of_a_failure_has_its_message(self) -> None:
        with self.assertRaises(AirflowSkipException):
            self.end_as("not_blessed", "worse than the champion")
        told = self.alerted("A", AirflowException("disk full"))
        self.assertEqual((told["outcome"], told["reasons"]), ("failed", ["disk full"]))

    def test_texts_of_a_notifier_are_templates(self) -> None:
        class Notifier(BaseNotifier):
            template_fields = ("text",)
            text = "{{ alert.outcome }}: {{ alert.reasons[0] }}"

            def notify(self, context: Any) -> None:
                told.append(self.text)

        told: list[str] = []
        context = {"ti": task_instance("A"), "exception": AirflowException("disk full")}
        with self.assertLogs(level="ERROR"):
            dags.describe(context)
        Notifier()(context)
        self.assertEqual(told, ["failed: disk full"])

    def test_alert_without_a_summary(self) -> None:
        with self.assertRaises(FileNotFoundError) as raised:
            self.task.execute({"run_id": "R"})
        told = self.alerted("Outcome", raised.exception)
        self.assertEqual(told["outcome"], "failed")
        self.assertIn("summary.json", told["reasons"][0])


class TheFile(unittest.TestCase):
    def test_knows_no_tfx(self) -> None:
        self.assertFalse({"tfx", "tensorflow", "fraud"} & set(sys.modules))

    def test_a_callback_that_does_not_exist_is_an_error_of_the_file(self) -> None:
        with (
            mock.patch.dict(os.environ, FRAUD_ALERT="pager:none"),
            self.assertRaises(AttributeError),
        ):
            load()

    def test_both_dags_have_the_same_tasks(self) -> None:
        for dag in (dags.fraud_daily, dags.fraud_on_arrival):
            upstream = {task.task_id: task.upstream_task_ids for task in dag.tasks}
            self.assertEqual(upstream, {"Day": set(), "A": {"Day"}, "B": {"A"}, "Outcome": {"B"}})
            self.assertEqual((dag.max_active_runs, dag.catchup), (1, False))
            self.assertEqual({dag.get_task(node).pool for node in "AB"}, {"fraud_metadata"})


if __name__ == "__main__":
    unittest.main()

"""Airflow for real: scheduler, LocalExecutor, a task per node."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
from pyarrow import parquet

from deploy.airflow.local import Airflow
from fraud.monitoring.journal import Journal
from tests.e2e.orchestrators.comparison import differences

pytestmark = pytest.mark.e2e

PARSE = """
import runpy, sys, time
import airflow.sdk, airflow.providers.standard.hooks.subprocess  # what every DAG file costs
started = time.process_time()
found = runpy.run_path(sys.argv[1])
seconds = time.process_time() - started
assert seconds < 1, seconds
assert not {"tfx", "tensorflow", "pipeline"} & set(sys.modules)
print(*found["fraud_daily"].task_ids)
"""


@pytest.fixture(scope="module")
def alerts() -> Iterator[tuple[str, list[dict]]]:
    """Where failures are told, and what was told."""
    told: list[dict] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", told
    server.shutdown()


def kill_trainer_at_work(shop) -> None:
    """Kills the Trainer's process, no cleaning up, as soon as it has begun to write."""
    deadline = time.monotonic() + 1800
    while not list(shop.root.glob("artifacts/Trainer/model/*")):
        assert time.monotonic() < deadline, "the Trainer did not begin"
        time.sleep(0.2)
    wanted = [b"--ir", os.fsencode(shop.graph / "ir.json"), b"--node", b"Trainer"]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(command[i : i + 4] == wanted for i in range(len(command))):
            os.kill(int(process.name), signal.SIGKILL)
            return
    raise AssertionError("no process of the Trainer")


def run_in_airflow(python: Path, *arguments: object, **environment: object) -> str:
    """Runs Python in Airflow's environment; returns its standard output."""
    done = subprocess.run(
        [python, *map(str, arguments)],
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_dags_await_the_day_tell_exit_codes_apart_and_alert(
    environment_of, repository, tmp_path
):
    outline = {
        "name": "fraud",
        "ir": "ir.json",
        "root": str(tmp_path / "root"),
        "data": "/days",
        "timezone": "Asia/Tokyo",
        "side_by_side": False,
        "nodes": [{"id": "A", "upstream": []}, {"id": "B", "upstream": ["A"]}],
    }
    (tmp_path / "graph.json").write_text(json.dumps(outline))
    command = tmp_path / "command"
    command.write_text('#!/bin/sh\necho "$@"\nexit "$EXIT_CODE"\n')
    command.chmod(0o755)
    (tmp_path / "pager.py").write_text("pages = []\ndef pager(c): pages.append(c['alert'])\n")
    run_in_airflow(
        environment_of("airflow") / "python",
        repository / "tests/e2e/orchestrators/dag_checks.py",
        PYTHONPATH=tmp_path,
        AIRFLOW_HOME=tmp_path,
        FRAUD_GRAPH=tmp_path,
        FRAUD_PIPELINE=command,
        FRAUD_ALERT="pager:pager",
    )


def test_the_dag_file_is_parsed_at_once_and_knows_no_tfx(new_shop, environment_of, repository):
    shop = new_shop()
    shop.compile()
    printed = run_in_airflow(
        environment_of("airflow") / "python",
        "-c",
        PARSE,
        repository / "deploy/airflow/dags/fraud.py",
        AIRFLOW_HOME=shop.folder,
        FRAUD_GRAPH=shop.graph,
    )
    nodes = [n["id"] for n in json.loads((shop.graph / "graph.json").read_text())["nodes"]]
    assert sorted(printed.splitlines()[-1].split()) == sorted([*nodes, "Day", "Outcome"])


def wait_for(what: str, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 1800
    while time.monotonic() < deadline:
        # Airflow has no log of a task that has not looked yet or that looks just now.
        with contextlib.suppress(urllib.error.HTTPError):
            if condition():
                return
        time.sleep(2)
    raise AssertionError(what)


def test_a_day_that_arrives_late_and_one_that_the_gate_stops(
    new_shop, local_first_day, days, alerts, environment_of, fraud_pipeline, tmp_path
):
    """With ML Metadata in SQLite, hence one node at a time."""
    shop = new_shop()
    whole = shop.data
    folders = [f"date={day}" for day in days]
    shop = dataclasses.replace(shop, data=tmp_path / "days")
    shutil.copytree(whole, shop.data, ignore=lambda *_: folders)
    shop.compile()
    command = environment_of("airflow") / "airflow"
    url, told = alerts
    # Airflow takes a task that is looking again before the scheduler has noticed the end of the
    # last look for one that died. A busy machine needs seconds for that.
    environment = {"FRAUD_ALERT_URL": url, "FRAUD_POKE_SECONDS": "20"}
    home = tmp_path / "airflow"
    with Airflow(command, home, shop.graph, fraud_pipeline, environment=environment) as airflow:

        def looked_and_saw(text: str) -> bool:
            for run in airflow.runs("fraud_daily"):
                state = airflow.tasks("fraud_daily", run)["Day"]["state"]
                assert state != "failed", airflow.log("fraud_daily", run, "Day")
                if state == "up_for_reschedule":
                    return text in airflow.log("fraud_daily", run, "Day")
            return False

        airflow.unpause("fraud_daily")
        airflow.backfill("fraud_daily", *days)
        wait_for("the sensor frees its slot", lambda: looked_and_saw("nothing yet"))
        shutil.copytree(whole / folders[0], shop.data / folders[0])
        wait_for("a half-written day is not enough", lambda: looked_and_saw("no _SUCCESS yet"))
        (shop.data / folders[0] / "_SUCCESS").touch()
        wait_for("the day", lambda: "success" in airflow.runs("fraud_daily").values())

        odd_day = tmp_path / "odd"
        odd_day.mkdir()
        for file in (whole / folders[1]).iterdir():
            table = parquet.read_table(file)
            odd = table.schema.get_field_index("CHANNEL")
            table = table.set_column(odd, "CHANNEL", [["?"] * table.num_rows])
            parquet.write_table(table, odd_day / file.name)
        (odd_day / "_SUCCESS").touch()
        odd_day.rename(shop.data / folders[1])
        runs = airflow.wait("fraud_daily", 2)
        run, stopped = runs
        tasks, after_stop = [airflow.tasks("fraud_daily", each) for each in runs]
        log = airflow.log("fraud_daily", run, "Trainer")

    assert runs == {run: "success", stopped: "failed"}
    lineage = shop.lineage()
    assert differences({run: lineage[run]}, {run: local_first_day}) == []
    assert json.loads(shop.status())["live"]["run_id"] == run
    nodes = [task for name, task in tasks.items() if name not in ("Day", "Outcome")]
    assert {task["pool"] for task in nodes} == {"fraud_metadata"}
    at_work = sorted((task["start_date"], task["end_date"]) for task in nodes)
    assert len(at_work) == shop.nodes
    assert all(end <= start for (_, end), (start, _) in pairwise(at_work))
    assert len(json.loads(log)["content"]) < 50  # lines

    states = {name: after_stop[name]["state"] for name in ("Day", "DataGate", "Pusher", "Outcome")}
    assert states == {
        "Day": "success",
        "DataGate": "skipped",
        "Pusher": "skipped",
        "Outcome": "failed",
    }
    (alert,) = told
    assert (alert["run"], alert["outcome"]) == (stopped, "gate_stopped")
    assert any("CHANNEL" in reason for reason in alert["reasons"])
    assert Path(alert["log"]).exists()
    told.clear()


@pytest.mark.slow
def test_the_loop_trains_has_nothing_to_do_holds_and_looks_again(
    new_shop, alerts, environment_of, fraud_pipeline, tmp_path
):
    shop = new_shop()
    days = [date(2026, 1, 19), date(2026, 1, 20), date(2026, 1, 21)]
    whole, shop = shop.data, dataclasses.replace(shop, data=tmp_path / "days")
    shutil.copytree(whole, shop.data)
    for folder in shop.data.iterdir():
        (folder / "_SUCCESS").touch()
    (path,) = (shop.data / f"date={days[-1]}").glob("*.parquet")
    repaired = path.read_bytes()
    path.write_bytes(repaired[: len(repaired) // 2])
    shop.compile()
    url, told = alerts
    airflow = Airflow(
        environment_of("airflow") / "airflow",
        tmp_path / "airflow",
        shop.graph,
        fraud_pipeline,
        environment={"FRAUD_CONFIG": str(shop.folder / "fraud.yaml"), "FRAUD_ALERT_URL": url},
    )

    def states(run: str) -> dict[str, str]:
        return {name: task["state"] for name, task in airflow.tasks("fraud_loop", run).items()}

    with airflow:
        airflow.unpause("fraud_loop")
        airflow.backfill("fraud_loop", days[0], days[-1])
        runs = airflow.wait("fraud_loop", len(days))
        trained, quiet, held = runs
        ended = {run: states(run) for run in runs}
        entries = Journal(shop.root / "loop").entries()

        temporary = path.with_name(".new")
        temporary.write_bytes(repaired)
        temporary.rename(path)
        again = {"dag_run_id": held, "dry_run": False, "only_failed": False, "reset_dag_runs": True}
        airflow.call("POST", "/api/v2/dags/fraud_loop/clearTaskInstances", again)
        after_repair = airflow.wait("fraud_loop", len(days))
        ended_again = states(held)

    assert runs == {trained: "success", quiet: "success", held: "failed"}
    assert {*ended[trained].values()} == {"success"}
    for run in (quiet, held):
        nodes = {**ended[run]}
        assert nodes.pop("Day") == "success" and nodes.pop("Outcome") == runs[run]
        assert {*nodes.values()} == {"skipped"} and "Trainer" in nodes
    assert [entry.decision.action for entry in entries] == ["retrain", "nothing", "hold"]
    assert all(entry.done for entry in entries)
    live = json.loads(shop.status())["live"]
    assert entries[0].training.run_id == trained == live["run_id"]
    assert entries[0].pushed == live["version"]
    assert {"push", "hold", "failed_run"} <= {one["kind"] for one in told}
    assert any(path.name in reason for one in told for reason in one["reasons"])
    told.clear()

    assert after_repair[held] == "success" and ended_again["Outcome"] == "success"
    last = Journal(shop.root / "loop").entries()[-1]
    assert last.decision.action == "nothing" and last.looks[0].changed == (days[-1],)


STAND_IN = """#!/bin/sh
# Only arrived is real; the last node copies the summary of its day.
[ "$1" = arrived ] && exec {fraud_pipeline} "$@"
mkdir -p {root}/runs/"$7"
cp {root}/"$9".json {root}/runs/"$7"/summary.json
"""


@pytest.mark.slow
def test_a_day_that_never_comes_and_one_that_is_not_pushed(
    environment_of, fraud_pipeline, tmp_path
):
    """A real Airflow with a stand-in for the nodes, and a user's own callback."""
    days = (date(2026, 3, 20), date(2026, 3, 21))
    (tmp_path / "days" / f"date={days[1]}").mkdir(parents=True)
    (tmp_path / "days" / f"date={days[1]}" / "_SUCCESS").touch()
    summary = {"outcome": "not_blessed", "reasons": ["worse than the champion"]}
    (tmp_path / f"{days[1]}.json").write_text(json.dumps(summary))
    command = tmp_path / "command"
    command.write_text(STAND_IN.format(fraud_pipeline=fraud_pipeline, root=tmp_path))
    command.chmod(0o755)
    outline = {
        "ir": "ir.json",
        "root": str(tmp_path),
        "data": str(tmp_path / "days"),
        "timezone": "UTC",
        "side_by_side": True,
        "nodes": [{"id": "Node", "upstream": []}],
    }
    (tmp_path / "graph.json").write_text(json.dumps(outline))
    plugins = tmp_path / "airflow" / "plugins"
    plugins.mkdir(parents=True)
    pages = tmp_path / "pages"
    (plugins / "bank_alerts.py").write_text(
        "import json\n"
        f"def page(context): print(json.dumps(context['alert']), file=open({str(pages)!r}, 'a'))\n"
    )
    airflow = Airflow(
        environment_of("airflow") / "airflow",
        tmp_path / "airflow",
        tmp_path,
        command,
        environment={
            "FRAUD_ALERT": "bank_alerts:page",
            "FRAUD_POKE_SECONDS": "20",
            "FRAUD_WAIT_HOURS": "0.008",
        },
    )
    with airflow:
        airflow.unpause("fraud_daily")
        airflow.backfill("fraud_daily", *days)
        runs = airflow.wait("fraud_daily", 2)
        tasks = [airflow.tasks("fraud_daily", run) for run in runs]

    never, not_pushed = runs
    assert runs == {never: "failed", not_pushed: "success"}
    assert {name: task["state"] for name, task in tasks[0].items()} == {
        "Day": "failed",
        "Node": "upstream_failed",
        "Outcome": "upstream_failed",
    }
    assert {name: task["state"] for name, task in tasks[1].items()} == {
        "Day": "success",
        "Node": "success",
        "Outcome": "skipped",
    }
    assert tasks[0]["Day"]["end_date"] <= tasks[1]["Day"]["start_date"]  # one run at a time
    told = [json.loads(line) for line in pages.read_text().splitlines()]
    assert [(one["run"], one["outcome"]) for one in told] == [
        (never, "failed"),
        (not_pushed, "not_blessed"),
    ]
    assert f"date={days[0]}: nothing yet" in told[0]["reasons"][0]
    assert told[1]["reasons"] == ["worse than the champion"]


@pytest.mark.slow
def test_days_backfilled_a_task_killed_and_runs_without_data(
    new_shop, mariadb, local, days, alerts, environment_of, fraud_pipeline, tmp_path
):
    shop = new_shop(mariadb)
    shop.compile()
    url, told = alerts
    airflow = Airflow(
        environment_of("airflow") / "airflow",
        tmp_path / "airflow",
        shop.graph,
        fraud_pipeline,
        schedule=True,
        environment={
            "FRAUD_ALERT_URL": url,
            "FRAUD_RETRY_SECONDS": "1",
            "FRAUD_MIN_ROWS": "0",  # do not wait for days that never come
        },
    )
    with airflow:
        airflow.unpause("fraud_daily")
        airflow.backfill("fraud_daily", *days)
        kill_trainer_at_work(shop)
        airflow.unpause("fraud_on_arrival")
        airflow.update_asset("fraud_transactions", {"day": "2031-05-04"})
        (arrival,) = airflow.wait("fraud_on_arrival", 1)
        # The two days, and the day that has just ended, which the schedule starts.
        runs = airflow.wait("fraud_daily", 3)
        first, second = (run for run in runs if run.startswith("backfill"))
        (scheduled,) = set(runs) - {first, second}
        tasks = airflow.tasks("fraud_daily", first)
        arrived = airflow.tasks("fraud_on_arrival", arrival)
        log = airflow.log("fraud_on_arrival", arrival, "TransactionExampleGen")

    assert (runs[first], runs[second]) == ("success", "success")
    assert {name: t["try_number"] for name, t in tasks.items() if t["try_number"] > 1} == {
        "Trainer": 2
    }
    found = shop.lineage()
    assert differences([found[first], found[second]], local) == []
    # The second was judged against the first's model, which was blessed and pushed.
    baseline = [e for e in found[second]["Evaluator"][0]["events"] if e[1][0] == "baseline_model"]
    assert len(baseline) == 1
    live = json.loads(shop.status())["live"]
    assert (live["run_id"], live["as_of"]) == (second, str(days[1]))

    # Of the day that has just ended, and of the asset's day, there is no data: told, not retried.
    assert runs[scheduled] == "failed"
    assert "2031-05-04" in log
    assert (arrived["TransactionExampleGen"]["state"], arrived["Pusher"]["state"]) == (
        "failed",
        "upstream_failed",
    )
    assert arrived["TransactionExampleGen"]["try_number"] == 1
    assert sorted((one["dag"], one["run"]) for one in told) == [
        ("fraud_daily", scheduled),
        ("fraud_on_arrival", arrival),
    ]

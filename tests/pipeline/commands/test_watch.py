"""What the loop's steps make of files and processes; whole ones are in tests/e2e/test_watch.py."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from fraud.errors import BadInput, FraudPipelineError
from fraud.features.spec import Features
from fraud.models.specification import InputSpecification
from fraud.monitoring.checks import Check, Kind, Observation, Verdict
from fraud.monitoring.decide import Decision
from fraud.monitoring.journal import Entry, Journal, Look
from fraud.pipeline import cli, config
from fraud.pipeline.commands import production_steps, watch
from fraud.pipeline.commands.production_steps import ProductionSteps, check_purpose, run_settings
from fraud.pipeline.config import Config, WindowLengths
from fraud.pipeline.root import Root
from fraud.serving.prediction_log import PredictionLog
from tests.serving.models import LinearModel

DAY = date(2026, 3, 1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in range(3):
        folder = tmp_path / "data" / f"date={DAY + timedelta(number)}"
        folder.mkdir(parents=True)
        (folder / "_SUCCESS").touch()
    return tmp_path / "data"


def steps(data: Path, simulated: bool = False) -> ProductionSteps:
    return ProductionSteps(Config(), Root(data.parent / "root"), str(data), [], simulated)


def test_mlflow_learns_of_a_rollback(data, monkeypatch):
    told: list[Root] = []
    monkeypatch.setattr(ProductionSteps, "live", lambda self: "200")
    monkeypatch.setattr(production_steps.production, "roll_back", lambda *_: told.clear())
    monkeypatch.setattr(production_steps.track, "send_finished", lambda _, root: told.append(root))
    made = steps(data)
    made.roll_back("100", "harm")  # which is not live any more
    assert told == []
    made.roll_back("200", "harm")
    assert told == [Root(data.parent / "root")]


def summary(root: Root, run_id: str, outcome: str = "not_blessed", day: date = DAY) -> Path:
    path = root.run(run_id) / "summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"run_id": run_id, "outcome": outcome, "as_of": str(day), "reasons": ["odd"]})
    )
    return path


def test_the_next_day_is_the_earliest_complete_one(data: Path) -> None:
    assert steps(data).next_day(DAY) == DAY + timedelta(1)
    assert steps(data).next_day(DAY + timedelta(2)) is None
    assert steps(data).next_day(None) == DAY + timedelta(2)  # nothing is live: the newest
    (data / f"date={DAY + timedelta(1)}" / "_SUCCESS").unlink()
    assert steps(data).next_day(DAY) == DAY + timedelta(2)
    assert steps(data, simulated=True).next_day(DAY) == DAY + timedelta(1)


def test_a_folder_whose_day_has_not_come_yet_is_not_taken_for_the_next_day(data: Path) -> None:
    """Otherwise no real day would ever come after it, and nobody would be told."""
    (data / "date=2999-01-01").mkdir()
    (data / "date=2999-01-01" / "_SUCCESS").touch()
    assert steps(data).next_day(DAY) == DAY + timedelta(1)
    assert steps(data).next_day(DAY + timedelta(2)) is None
    assert steps(data).next_day(None) == DAY + timedelta(2)
    assert steps(data).next_day(date(2998, 12, 31)) == date(2999, 1, 1)  # the clock may be wrong


def test_where_the_next_day_has_begun_it_counts(data: Path) -> None:
    for days in (1, 3):
        folder = data / f"date={datetime.now(timezone.utc).date() + timedelta(days)}"
        folder.mkdir()
        (folder / "_SUCCESS").touch()
    tomorrow = datetime.now(timezone.utc).date() + timedelta(1)
    assert steps(data).next_day(DAY + timedelta(2)) == tomorrow
    assert steps(data).next_day(None) == tomorrow


def test_by_a_clock_that_is_behind_the_newest_day_is_the_first_one(tmp_path: Path) -> None:
    for day in ("2998-12-31", "2999-01-01"):
        (tmp_path / "data" / f"date={day}").mkdir(parents=True)
        (tmp_path / "data" / f"date={day}" / "_SUCCESS").touch()
    assert steps(tmp_path / "data").next_day(None) == date(2999, 1, 1)


def test_labels_that_are_complete_are_a_change(data: Path) -> None:
    made, old = steps(data), data / f"date={DAY}"
    last = DAY + timedelta(2)
    before = made.files(last)
    assert {*before} == {DAY + timedelta(n) for n in range(3)}
    assert made.changed(last, before) == ()
    (old / "labels.csv").write_text("TX_FRAUD\n1\n")
    assert made.changed(last, before) == (DAY,)
    assert made.changed(last, {}) == ()  # the journal of an earlier version
    assert steps(data, simulated=True).files(last) == {}
    (old / "_SUCCESS").unlink()
    assert made.changed(last, before) == ()  # not all of it is there
    shutil.rmtree(old)
    assert made.changed(last, before) == (DAY,)


def test_a_held_day_is_approved_of_and_shown(tmp_path: Path, capsys) -> None:
    root = Root(tmp_path / "root")
    fault = Check("data/CHANNEL", 1.0, None, 0.1, Verdict.ACT, "100 % missing", Kind.DATA)
    seen = Observation(DAY, 7, (fault,))
    hold = Decision(DAY, "hold", ("CHANNEL is missing",))
    look = Look("2026-03-02T09:00:00", (DAY - timedelta(3),), Decision(DAY, "nothing"))
    journal = Journal(root.path / "loop")
    journal.write(Entry(DAY, observation=seen, decision=hold, done=True, looks=(look,)))

    def call(*words: str) -> tuple[int, str]:
        code = cli.main([*words, "--root", str(root.path)])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    _, shown = call("status")
    assert f"  {DAY}  not trained on: data/CHANNEL: 100 % missing\n" in shown
    assert "was nothing until 2026-03-02T09:00:00: files of 2026-02-26 changed" in shown
    approve = ("decide", "--as-of", str(DAY), "--approve")
    assert call(*approve, " ")[0] == 2
    code, said = call(*approve, "a strike")
    assert code == 0 and f"{DAY}  approved by " in said and said.endswith(": a strike\n")
    assert journal.broken() == []
    _, shown = call("status")
    assert "not trained on" not in shown and ": a strike\n" in shown
    code, said = call(*approve, "a strike", "--json")
    assert json.loads(said)["day"] == str(DAY)
    code, said = call("decide", "--as-of", "2026-03-02", "--approve", "a strike")
    assert code == 2 and "2026-03-02: its data was not found to be broken" in said


def test_data_without_day_folders_is_refused(tmp_path: Path, capsys) -> None:
    (tmp_path / "all.csv").write_text("a,b\n")
    for path in ("all.csv", "missing"):
        code = cli.main(["watch", "--data", str(tmp_path / path), "--root", str(tmp_path / "r")])
        assert code == 2 and "only days in folders date=YYYY-MM-DD" in capsys.readouterr().err


def test_a_replay_begins_when_its_windows_are_covered(data: Path) -> None:
    lengths = WindowLengths(train_days=30, eval_days=7, label_delay_days=7)
    first = watch._first_day([DAY], lengths)
    assert first == DAY + timedelta(50)
    assert watch._first_day([], lengths) is None


def test_replays_and_production_keep_apart(tmp_path: Path) -> None:
    replayed, used = Root(tmp_path / "replayed"), Root(tmp_path / "used")
    check_purpose(replayed, True)
    check_purpose(replayed, True)
    with pytest.raises(BadInput, match="holds a replay of the past"):
        check_purpose(replayed, False)
    check_purpose(used, False)
    for sign in ("predictions/date=2026-03-01/x.parquet", "loop/days/2026-03-01.json"):
        root = Root(tmp_path / sign[:4])
        (root.path / sign).parent.mkdir(parents=True)
        (root.path / sign).touch()
        with pytest.raises(BadInput, match="is used in production"):
            check_purpose(root, True)


def test_the_settings_of_a_training_are_a_configuration(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("windows: {train_days: 5}\ndata_gate: {drift_thresholds: {TX_AMOUNT: 0.3}}\n")
    theirs = tmp_path / "run.yaml"
    theirs.write_text(run_settings([DAY], probation=True))
    both = config.load(mine, theirs)
    assert both.windows.excluded_days == (DAY,) and both.windows.train_days == 5
    assert both.data_gate.max_drift == 1.0 and both.data_gate.drift_thresholds == {"TX_AMOUNT": 0.3}
    assert both.release.probation
    plain = yaml.safe_load(run_settings([], probation=False))
    assert plain == {"data_gate": {"max_drift": 1.0}}


@pytest.mark.parametrize(
    ("is_urgent", "change_eval_days", "eval_days"),
    [(True, 3, 3), (False, 3, 7), (True, None, 7), (True, 9, 7)],
)
def test_a_training_for_a_change_has_a_shorter_eval_window(
    data: Path, is_urgent: bool, change_eval_days: int | None, eval_days: int
) -> None:
    asked = replace(Config(), loop=replace(Config().loop, change_eval_days=change_eval_days))
    made = ProductionSteps(asked, Root(data.parent / "root"), str(data), [], False)
    written = made.write_settings([DAY], False, is_urgent)
    of_training = config.load(written).windows
    assert (of_training.eval_days, of_training.excluded_days) == (eval_days, (DAY,))


def test_a_run_that_ended_without_the_loop_is_adopted(data: Path) -> None:
    made, root, began = steps(data), Root(data.parent / "root"), time.time() - 10
    old = summary(root, "old")
    os.utime(old, (began - 1, began - 1))
    summary(root, "other-day", day=DAY + timedelta(1))
    (root.run("damaged")).mkdir()
    (root.run("damaged") / "summary.json").write_text("{")
    assert made._finished(DAY, False, began) is None
    summary(root, "tried", "on_probation")
    assert made._finished(DAY, False, began) is None  # it is to be pushed now
    found = made._finished(DAY, True, began)
    assert found and (found.run_id, found.outcome) == ("tried", "on_probation")
    summary(root, "mine")
    found = made._finished(DAY, False, began)
    assert found and found.run_id == "mine" and found.reasons == ("odd",)
    assert made.training_of("mine") == found
    assert made.training_of("unknown").outcome == "failed"


def test_failed_requests_are_read_from_the_servers_metrics() -> None:
    text = (
        "# HELP fraud_requests_total Requests.\n# TYPE fraud_requests_total counter\n"
        'fraud_requests_total{code="200",method="score",protocol="http"} 90.0\n'
        'fraud_requests_total{code="503",method="score",protocol="http"} 7.0\n'
        'fraud_requests_total{code="400",method="score",protocol="http"} 2.0\n'
        'fraud_requests_total{code="INTERNAL",method="Predict",protocol="grpc"} 1.0\n'
    )
    assert production_steps._errors(text) == (8.0, 100.0)
    assert production_steps._errors("") == (0.0, 0.0)


@pytest.fixture
def server() -> Iterator[dict[str, str]]:
    """A server that answers what it is told: path → body."""
    bodies: dict[str, str] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in bodies else 404)
            self.end_headers()
            self.wfile.write(bodies.get(self.path, "").encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        bodies["address"] = f"http://127.0.0.1:{running.server_port}"
        yield bodies
        running.shutdown()


def count(failed: int, all_: int) -> str:
    lines = ["# TYPE fraud_requests_total counter"]
    for code, number in (("500", failed), ("200", all_ - failed)):
        lines.append(f'fraud_requests_total{{code="{code}"}} {number}')
    return "\n".join(lines) + "\n"


def test_a_version_that_the_server_refuses_or_that_makes_it_fail_is_a_problem(
    data: Path, server: dict[str, str]
) -> None:
    asked = replace(Config(), loop=replace(Config().loop, server=server["address"] + "/"))
    made = ProductionSteps(asked, Root(data.parent / "root"), str(data), [], False)
    ok = {"error_code": "OK", "error_message": ""}
    of = [{"version": "7", "state": state, "status": ok} for state in ("AVAILABLE", "END")]
    states = {"model_version_status": of}
    server["/v1/models/fraud"], server["/metrics"] = json.dumps(states), count(50, 1000)
    assert made._problems_of_server("7") == ()  # what failed before it was live is not its fault
    server["/metrics"] = count(51, 1200)
    assert made._problems_of_server("7") == ()
    server["/metrics"] = count(60, 1200)
    assert made._problems_of_server("7") == ("10 of 200 requests failed since it is live",)
    refused = {"version": "8", "state": "END", "status": {"error_message": "cannot be loaded"}}
    server["/v1/models/fraud"] = json.dumps({"model_version_status": [refused]})
    assert made._problems_of_server("8") == ("the server refused it: cannot be loaded",)
    server["/v1/models/fraud"] = "<html>"
    with pytest.raises(FraudPipelineError, match="does not answer"):
        made._problems_of_server("8")


def test_a_command_goes_on_if_the_loop_is_killed(data: Path, tmp_path: Path) -> None:
    """One that prints more than a pipe holds, after its reader is gone, and then says so."""
    code = f"""
import os, signal, sys
from pathlib import Path
from fraud.pipeline.commands import production_steps
from tests.pipeline.commands import test_watch
made = test_watch.steps(Path({str(data)!r}))
(Path({str(data)!r}).parent / "root" / "loop").mkdir(parents=True)
production_steps.sys.executable = {str(tmp_path / "slow")!r}
made._call("run")
"""
    slow = tmp_path / "slow"
    slow.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/pid\nsleep 1\n"
        "i=0; while [ $i -lt 3000 ]; do echo a line that somebody may read || exit 1; i=$((i+1)); "
        f"done\ntouch {tmp_path}/ended\n"
    )
    slow.chmod(0o755)
    loop = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    until(lambda: (tmp_path / "pid").exists())
    loop.kill()
    loop.wait()
    until(lambda: (tmp_path / "ended").exists())


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


@pytest.mark.parametrize("reads", ["a number", "a category"])
def test_a_log_whose_column_is_of_another_type_than_a_model_reads_is_not_scored(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: str
) -> None:
    """As when a version before the live one had a category that is a number now."""
    from fraud.serving import models

    dataset = replace(Config().dataset, numeric=("CODE",))
    if reads == "a category":
        dataset = replace(dataset, numeric=(), categorical=("CODE",))
    features = Features(calendar=(), groups=())
    model = LinearModel(InputSpecification(dataset, features, 7))
    monkeypatch.setattr(models, "LoadedModel", lambda folder: model)
    logged = pa.table({"TX_AMOUNT": [1.0], "CODE": ["web"] if reads == "a number" else [7.0]})
    scored = replace(PredictionLog(tmp_path / "none").read(), transactions=logged)
    asked = steps(data)
    assert asked._said(tmp_path, scored, np.arange(1)) is None

"""The web page: what it shows, whom it lets in, and what it lets them do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Sequence
from datetime import date, timedelta

import pytest
from starlette.testclient import TestClient

from fraud.codec import to_json
from fraud.errors import BadInput
from fraud.monitoring.alerts import Alert, Delivery, Raised
from fraud.monitoring.checks import Check, Day, Kind, Observation, Verdict
from fraud.pipeline.artifacts import RunSummary
from fraud.report.web.app import create_app
from fraud.report.web.content import PAGE, Reader
from tests.pipeline.recorded_runs import Counting, Records

HOSTILE = "<script>alert(1)</script>\"'&" + "x" * 200


class Site:
    """A root with two pushed runs, and its page; rollbacks are kept in `done`."""

    def __init__(
        self,
        records: Records,
        token: str | None = "secret",
        hosts: Sequence[str] = ("127.0.0.1", "localhost"),
    ):
        self.records, self.done = records, []
        self.reader = Reader(records.store, records.plain, records.root)
        self.app = create_app(
            self.reader,
            records.plain,
            records.root,
            hosts,
            "http://127.0.0.1:8601/",
            token,
            self._roll_back,
        )
        self.client = TestClient(self.app, base_url="http://127.0.0.1:8600", follow_redirects=False)

    def _roll_back(self, version: str, reason: str) -> str:
        if not reason:
            raise BadInput("--reason: it is empty; say why, for the record")
        self.done.append((version, reason))
        return "300"

    def get(self, path: str, status: int = 200) -> str:
        answer = self.client.get(path)
        assert answer.status_code == status, answer.text
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "<script" not in answer.text
        return answer.text


def summary(records: Records, run_id: str, as_of: str, outcome: str = "pushed", **more) -> None:
    metrics = {"average_precision": 0.7, "roc_auc": 0.9}
    metrics |= {"precision_at_budget": 0.5, "recall_at_budget": 0.6}
    content = {"metrics": {"overall": metrics, "slices": {}}, "seconds": {"Trainer": 2.0}}
    content |= {"drift": {"AMOUNT": 0.4, "CHANNEL": 1.2}, **more}
    made = RunSummary(
        run_id=run_id, outcome=outcome, root=str(records.root.path), as_of=as_of, **content
    )
    path = records.root.run(run_id) / "summary.json"
    path.parent.mkdir(parents=True)
    path.write_text(to_json(made))


@pytest.fixture
def records(tmp_path) -> Records:
    records = Records(tmp_path)
    for number, day in ((1, "10"), (2, "11")):
        train = (f"2026-01-0{number + 1}", f"2026-01-0{number + 4}")
        records.run(f"r{number}", f"2026-01-{day}", train, f"{number}00")
        summary(records, f"r{number}", f"2026-01-{day}")
    return records


@pytest.fixture
def site(records) -> Site:
    return Site(records)


def test_the_first_page_says_what_is_live_and_lists_runs_and_versions(site):
    page = site.get("/")
    assert "Version 200" in page and '<a href="/runs/r1">' in page
    assert page.index("/runs/r2") < page.index("/runs/r1")
    assert "<figcaption>Average precision" in page and "<figcaption>Drift" in page
    assert 'href="http://127.0.0.1:8601/"' in page


def test_a_run_is_compared_with_the_finished_one_before_it(site):
    site.records.node("r3", "Trainer", {}, {}, state="FAILED")
    site.records.run("r4", "2026-01-12", ("2026-01-04", "2026-01-07"))
    summary(site.records, "r4", "2026-01-12")
    page = site.get("/")
    assert 'href="/compare?a=r2&amp;b=r4"' in page and "b=r3" not in page and "b=r1" not in page


def test_settings_that_differ_are_compared(site):
    settings = {"custom_config": json.dumps({"epochs": 9}), "same": "x"}
    site.records.node("r2", "Tuner", {}, {}, **settings)
    site.records.node("r1", "Tuner", {}, {}, **{**settings, "custom_config": HOSTILE * 9})
    page = site.get("/compare?a=r1&b=r2")
    assert (
        "Tuner: custom_config</th>" in page and "Tuner: custom_config.epochs</th><td>–</td>" in page
    )
    assert "Tuner: same" not in page and "Trainer: custom_config" not in page


def test_only_what_differs_in_a_long_setting_is_shown(site):
    """TFX keeps settings as JSON, and in it more JSON as text."""
    for run_id, seed in (("r1", 7), ("r2", 11)):
        network = json.dumps({"seed": seed, "towers": [[128, 64]], "words": "x" * 300})
        settings = json.dumps({"network": network, "specs": [{"name": "a"}, {"least": seed}]})
        site.records.node(run_id, "Tuner", {}, {}, custom_config=settings)
    page = site.get("/compare?a=r1&b=r2")
    rows = page.partition("<h2>Settings that differ</h2>")[2].partition("</table>")[0]
    assert rows.count("<tr>") == 3  # and a head
    assert "Tuner: custom_config.network.seed</th><td>7</td><td>11</td>" in rows
    assert "Tuner: custom_config.specs.1.least</th><td>7</td><td>11</td>" in rows
    assert "Settings that differ" not in site.get("/compare?a=r1&b=r1")


def test_pages_of_the_list(site):
    for number in range(3, PAGE + 5):
        site.records.run(f"r{number}", "2026-01-12", ("2026-01-04", "2026-01-07"))
    first, second = site.get("/"), site.get("/?page=2")
    assert f"Page 1 of 2, {PAGE + 4} runs" in first and "Older" in first
    assert 'href="/runs/r1"' in second and 'href="/runs/r1"' not in first
    assert "Page 2 of 2" in site.get("/?page=99")


def test_a_list_of_500_runs_takes_no_more_questions_than_one_of_60(site):
    """That is what makes it quick: see `benchmarks.lineage` for the seconds."""

    def questions() -> int:
        store, plain = Counting(site.records.store), Counting(site.records.plain)
        assert Reader(store, plain, site.records.root).overview(1).runs
        return store.questions + plain.questions

    def add(numbers: range) -> None:
        contexts = [site.records.context("pipeline_run", f"many-{n:04}") for n in numbers]
        site.records.store.put_contexts(contexts)
        for n in numbers:
            summary(site.records, f"many-{n:04}", "2026-01-12", "not_pushed")

    add(range(58))
    few = questions()
    add(range(58, 498))
    assert questions() == few
    page = site.get("/")
    assert "Page 1 of 10, 500 runs" in page and len(page) < 200_000


def test_a_run_in_progress_is_shown_and_the_page_is_loaded_again(site):
    assert "Refresh" not in site.client.get("/").headers
    site.records.node("r3", "Trainer", {}, {}, state="RUNNING")
    answer = site.client.get("/")
    assert "Running now:" in answer.text and "Trainer: RUNNING" in answer.text
    assert int(answer.headers["Refresh"]) > 1


def test_progress_counts_the_nodes_that_the_last_run_had(site):
    summary(
        site.records,
        "r3",
        "2026-01-12",
        seconds={"loading TFX": 1.0, "Trainer": 1.0, "Pusher": 1.0},
    )
    site.records.node("r3", "Trainer", {}, {})
    site.records.node("r4", "Trainer", {}, {})
    sign_lock(site.records, os.getpid())
    page = site.get("/")
    assert "1 of 2 nodes have ended" in page and '<progress max="2" value="1"' in page


def sign_lock(records: Records, process: int) -> None:
    """Signs the root's lock as a process of this machine does."""
    path = records.root.path / ".lock"
    path.write_text(f"process {process} on {socket.gethostname()}")


def test_a_run_between_two_nodes_is_running(site):
    site.records.node("r3", "Trainer", {}, {})
    assert "ended early" in site.get("/")
    sign_lock(site.records, os.getpid())
    page = site.get("/")
    assert "ended early" not in page and "between two nodes" in page and "Running now" in page


def test_a_killed_run_is_not_running(site):
    site.records.node("r3", "Trainer", {}, {}, state="RUNNING")
    dead = subprocess.Popen(["true"])
    dead.wait()
    sign_lock(site.records, dead.pid)
    page = site.get("/")
    assert "killed in Trainer" in page and "Running now" not in page


def test_the_live_version_names_the_run_that_pushed_it(site):
    live = site.get("/").partition("<h2>Live</h2>")[2].partition("</section>")[0]
    assert '<a href="/runs/r2#verdicts">run r2</a> pushed it as of 2026-01-11' in live
    assert "average precision of 0.700" in live


def test_alerts_and_their_deliveries_are_listed(site):
    folder = site.records.root.alerts
    assert 'id="alerts"' not in site.get("/")
    folder.mkdir()
    for number, (kind, text) in enumerate([("push", "went live"), ("hold", HOSTILE)]):
        alert = Alert(kind, kind, text)
        raised = Raised(alert, 1e9 + number, (Delivery("mail", "given_up"),), suppressed=number)
        (folder / f"{alert.id}.json").write_text(to_json(raised))
    (folder / "damaged.json").write_text("{")
    page = site.get("/")
    assert page.index("&lt;script&gt;") < page.index("went live")
    assert "mail: given up" in page and "(and 1 more)" in page
    assert "2001-09-09 01:46 UTC" in page


def test_what_needs_a_person_is_said_first(site):
    site.records.node("r3", "Trainer", {}, {}, state="FAILED")
    page = site.get("/")
    assert "The latest run failed in Trainer" in page
    assert page.index("failed in Trainer") < page.index("Live")


def test_runs_reports_comparisons_and_lineage_are_linked_pages(site):
    assert "pushed" in site.get("/runs/r1")
    compared = site.get("/compare?a=r1&b=r2")
    assert "average precision" in compared and "2026-01-11" in compared
    assert "<option selected>r1</option>" in site.get("/")  # compared with r2
    lineage = site.get("/lineage?of=200")
    assert "Version 200" in lineage and 'href="/lineage?of=' in lineage
    assert "what a day" not in site.get("/lineage?of=2026-01-03").lower()
    assert "r1" in site.get("/lineage?of=2026-01-03")


@pytest.mark.parametrize(
    "path", ["/runs/none", "/compare?a=r1&b=none", "/lineage?of=none", f"/runs/{HOSTILE}"]
)
def test_what_is_not_there_is_not_found(site, path):
    site.get(path, status=404)


@pytest.mark.parametrize(
    ("path", "status"), [("/?page=x", 400), ("/compare", 400), ("/favicon.ico", 404)]
)
def test_what_cannot_be_answered_is_said_on_a_page(site, path, status):
    assert "<h1>Not possible</h1>" in site.get(path, status)


def test_nothing_outside_the_root_is_read(site):
    folder = site.records.root.path.parent / "outside"
    folder.mkdir()
    (folder / "summary.json").write_bytes(
        (site.records.root.run("r1") / "summary.json").read_bytes()
    )
    for run_id in ("../../outside", str(folder)):
        page = site.get(f"/compare?a={run_id}&b=r1", status=404)
        assert "no such run" in page


def test_an_average_precision_that_is_undefined_does_not_break_the_list(site):
    """As in an eval window without frauds, or in a run whose metrics were configured otherwise."""
    undefined = {"overall": {"average_precision": None}, "slices": {}}
    for number, metrics in enumerate([undefined, {"overall": {"roc_auc": 0.5}, "slices": {}}], 3):
        site.records.run(f"r{number}", "2026-01-12", ("2026-01-04", "2026-01-07"), f"{number}00")
        summary(site.records, f"r{number}", "2026-01-12", metrics=metrics)
        assert f'<a href="/runs/r{number}">' in site.get("/")


def test_a_rollback_needs_token_and_reason(site):
    def post(**form: str) -> int:
        return site.client.post("/rollback", data=form).status_code

    assert post(version="100", reason="why", token="wrong") == 400
    assert post(version="100", reason="why") == 400
    assert post(version="100", reason="", token="secret") == 400
    assert site.done == []
    assert post(version="100", reason="too many alerts", token="secret") == 303
    assert site.done == [("100", "too many alerts")]


def test_without_a_token_nobody_can_roll_back(records):
    site = Site(records, token=None)
    assert "Roll back" not in site.get("/")
    for token in ("", "None"):
        form = {"version": "100", "reason": "why", "token": token}
        assert site.client.post("/rollback", data=form).status_code == 400
    assert site.done == []


def test_requests_for_other_hosts_are_refused(site):
    answer = site.client.get("/", headers={"Host": "attacker.example"})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("[::1]:8600", 200),
        ("[::1]", 200),
        ("LOCALHOST:8600", 200),
        ("[::2]:8600", 400),
        ("localhost@attacker.example", 400),
        ("localhost.attacker.example:8600", 400),
        ("[::1", 400),
        ("", 400),
    ],
)
def test_hosts_are_compared_as_a_whole(records, host, status):
    client = Site(records, hosts=["::1", "localhost"]).client
    assert client.get("/", headers={"Host": host}).status_code == status


def test_names_are_text(site):
    site.records.run(HOSTILE[:20], "2026-01-12", ("2026-01-04", "2026-01-07"))
    summary(site.records, "hostile", "2026-01-12", "gate_stopped", reasons=(HOSTILE,))
    site.records.node("hostile", "DataGate", {}, {})
    page = site.get("/")
    assert "&lt;script&gt;" in page


def test_summaries_are_read_once(site, monkeypatch):
    site.get("/")
    monkeypatch.setattr(RunSummary, "read", lambda folder: pytest.fail(f"{folder} read again"))
    site.get("/")


def test_a_damaged_summary_does_not_break_the_list(site):
    (site.records.root.run("r1") / "summary.json").write_text(json.dumps({"run_id": 1}))
    assert 'href="/runs/r1"' in site.get("/")


def observed(records: Records, day: date, drift: Verdict, average_precision: float) -> None:
    """A look at production, recorded as the monitor does."""
    checks = (
        Check("drift/AMOUNT", 0.4, None, 0.2, drift, HOSTILE, Kind.DRIFT),
        Check("recall_at_budget", 0.5, (0.4, 0.6), 0.3, Verdict.OK, "", Kind.PERFORMANCE),
        Check("skew/x", None, None, None, Verdict.CANNOT_JUDGE, "no log", Kind.SKEW),
    )
    days = tuple(
        Day(
            day - timedelta(days=back),
            100,
            100,
            3,
            labelled=100 * (back > 0),
            average_precision=average_precision if back else None,
            cost_saved=-20.0 if back else None,
            estimated_average_precision=0.6,
        )
        for back in (2, 1, 0)
    )
    folder = records.root.artifacts / "Monitor" / "observation" / str(day)
    folder.mkdir(parents=True)
    seen = Observation(day, 200, checks, days)
    (folder / "observation.json").write_text(seen.to_json())
    artifact = records.artifact("fraud.Observation", str(folder), as_of=str(day))
    records.node(f"monitor-{day}", "Monitor", {}, {"observation": artifact})


def test_production_is_shown_as_the_monitor_saw_it_last(site):
    assert 'id="production"' not in site.get("/")
    observed(site.records, date(2026, 1, 20), Verdict.OK, 0.5)
    observed(site.records, date(2026, 1, 21), Verdict.ACT, 0.7)
    page = site.get("/")
    assert "Production as of 2026-01-21" in page
    assert "1 of 3 checks are ok" in page
    assert "1 could not be judged" in page and "no log: skew/x" in page
    assert "The monitor asks to act on drift/AMOUNT, as of 2026-01-21." in page
    for title in ("Average precision of what was scored", "Money saved", "Drift in production"):
        assert f"<figcaption>{title}</figcaption>" in page
    assert "monitor-2026" not in page  # looks are no runs


def test_what_a_later_look_says_of_a_day_counts(site):
    observed(site.records, date(2026, 1, 20), Verdict.OK, 0.5)
    one = site.get("/")
    observed(site.records, date(2026, 1, 21), Verdict.OK, 0.7)
    assert "asks to act" not in site.get("/")
    assert one != site.get("/")


def test_a_damaged_observation_is_left_out(site):
    observed(site.records, date(2026, 1, 20), Verdict.ACT, 0.5)
    (path,) = site.records.root.artifacts.glob("Monitor/observation/*/observation.json")
    path.write_text("{")
    assert 'id="production"' not in site.get("/")

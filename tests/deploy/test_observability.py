"""Alerts and dashboards, against Prometheus itself and a real server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import date

import httpx
import pytest
import yaml

from fraud.monitoring.checks import Check, Kind, Observation, Verdict
from fraud.monitoring.prometheus import FILE, exposition
from tests import debian
from tests.serving.exported import export_model, serving
from tests.serving.models import of_default_features

ELSEWHERE = ("kube_", "kubelet_")
"""The beginning of series that Kubernetes has, not the server."""
CHECKS = [
    Check("average_precision", 0.5, (0.4, 0.6), 0.3, Verdict.OK, "", Kind.PERFORMANCE),
    Check("cost_saved_per_day", -5.0, (-9.0, -1.0), 0.0, Verdict.ACT, "", Kind.HARM),
    *(
        Check(f"{kind.value}/x", 1.0, None, 2.0, Verdict.OK, "", kind)
        for kind in Kind
        if kind not in (Kind.PERFORMANCE, Kind.HARM)
    ),
]


@pytest.fixture
def folder(repository):
    return repository / "deploy" / "observability"


@pytest.fixture
def alerts(folder):
    """The rules that alert, by their names."""
    groups = yaml.safe_load((folder / "alerts.yaml").read_text("utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


@pytest.fixture
def dashboards(folder):
    return {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*/*.json")}


def test_what_is_generated_is_up_to_date(folder):
    code = "import generate, json; print(json.dumps(generate.documents()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    for name, text in json.loads(done.stdout).items():
        assert (folder / name).read_text("utf-8") == text, "run `make docs`"
    rule = yaml.safe_load((folder / "prometheus-rule.yaml").read_text("utf-8"))
    assert rule["spec"] == yaml.safe_load((folder / "alerts.yaml").read_text("utf-8"))


def test_each_alert_has_a_runbook_and_each_runbook_an_alert(repository, alerts):
    page = (repository / "docs" / "runbooks.md").read_text("utf-8")
    headings = re.findall(r"^## (Fraud\w+)$", page, re.MULTILINE)
    assert headings == [*alerts]
    for name, alert in alerts.items():
        address = alert["annotations"]["runbook_url"]
        assert address.endswith(f"/docs/runbooks.md#{name.lower()}"), name
    for section in re.split(r"^## Fraud\w+$", page, flags=re.MULTILINE)[1:]:
        for part in ("**Means**", "**Look**", "**Do**"):
            assert part in section


def test_each_alert_fires_as_its_test_says(folder, alerts):
    promtool = debian.server("promtool", "prometheus")
    tests = [folder / "alerts_test.yaml", folder / "alerts_days_test.yaml"]
    done = subprocess.run([promtool, "test", "rules", *tests], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    tested = set()
    for test in tests:
        for case in yaml.safe_load(test.read_text("utf-8"))["tests"]:
            for query in case["promql_expr_test"]:
                if query["exp_samples"]:
                    tested |= {*re.findall('alertname="(.*?)"', query["expr"])}
    assert tested == {*alerts}


def test_panels_are_complete(dashboards):
    assert {*dashboards} == {"service", "model", "data", "loop"}
    for dashboard in dashboards.values():
        places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]]
        assert len({*places}) == len(places)
        for panel in dashboard["panels"]:
            assert panel["title"] and panel["targets"]
            assert panel["datasource"]["uid"] == "${datasource}"


@contextmanager
def prometheus(folder, target, alerts):
    """A client of a Prometheus that reads the target every second."""
    program = debian.server("prometheus", "prometheus")
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(alerts)],
        "scrape_configs": [
            {"job_name": "fraud-serving", "static_configs": [{"targets": [target]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    log = folder / "log"
    command = [program, f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'tsdb'}", "--web.listen-address=127.0.0.1:0"]
    with open(log, "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        address = wait(lambda: re.search(r"address=(127\.0\.0\.1:[1-9]\d*)", log.read_text()))
        with httpx.Client(base_url=f"http://{address[1]}/api/v1", timeout=30) as client:
            yield client
    finally:
        process.terminate()
        process.wait()


def wait(condition, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError("waited in vain")


def names_in(query):
    """The metrics that a query reads."""
    return {*re.findall(r"\b(?:fraud_|fraud:|kube_|kubelet_|up\b)[a-z0-9_:]*", query)}


def values(client, query):
    answer = client.get("query", params={"query": query}).json()
    assert answer["status"] == "success", (query, answer)
    return answer["data"]["result"]


def send_traffic(server):
    rows = [
        {
            "TRANSACTION_ID": number,
            "TX_DATETIME": "2026-03-22T08:15:00Z",
            "CUSTOMER_ID": number % 40,
            "TERMINAL_ID": 7,
            "TX_AMOUNT": number,
            "CHANNEL": "web",
        }
        for number in range(300)
    ]
    for row in range(0, 300, 50):
        answer = server.post("/v1/transactions:score", {"transactions": rows[row : row + 50]})
        assert answer.status_code == 200, answer.text
    server.post("/v1/labels", {"labels": [{"id": 3, "label": 1}]})


@pytest.mark.e2e
def test_every_query_answers_with_what_a_real_server_shows(folder, alerts, dashboards, tmp_path):
    model = export_model(tmp_path / "exported", of_default_features(categorical=("CHANNEL",)))
    root, own = tmp_path / "root", tmp_path / "prometheus"
    own.mkdir()
    (root / "pushed").mkdir(parents=True)
    (root / "pushed" / "1").symlink_to(model, target_is_directory=True)
    (root / "monitoring").mkdir()
    seen = exposition(Observation(date(2026, 3, 21), 1, tuple(CHECKS)))
    (root / "monitoring" / FILE).write_text(seen)
    with serving(root) as server:
        target = server.url.removeprefix("http://")
        send_traffic(server)
        with prometheus(own, target, folder / "alerts.yaml") as client:
            wait(lambda: values(client, "fraud_alerts_total"))
            for _ in range(3):  # a rate needs several looks at counters that grow
                send_traffic(server)
                time.sleep(1.5)
            wait(lambda: values(client, "fraud:scoring_requests:rate5m"))
            known = {*client.get("label/__name__/values").json()["data"]}

            queries = [
                target["expr"].replace("$__rate_interval", "30s")
                for dashboard in dashboards.values()
                for panel in dashboard["panels"]
                for target in panel["targets"]
            ]
            for query in queries:
                if not any(name.startswith(ELSEWHERE) for name in names_in(query)):
                    assert values(client, query), query
                values(client, query)
            conditions = [alert["expr"] for alert in alerts.values()]
            read = set().union(*map(names_in, queries + conditions))
            assert {name for name in read - known if not name.startswith(ELSEWHERE)} == set()

            groups = client.get("rules").json()["data"]["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            assert {rule["health"] for rule in rules} == {"ok"}
            assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == {*alerts}
            firing = wait(lambda: values(client, 'ALERTS{alertstate="firing"}'))
            assert [x["metric"]["alertname"] for x in firing] == ["FraudModelHarms"]
            raised = client.get("alerts").json()["data"]["alerts"]
            (alert,) = (x for x in raised if x["state"] == "firing")
            description = alert["annotations"]["description"]
            assert description == "cost_saved_per_day asks to take it back."

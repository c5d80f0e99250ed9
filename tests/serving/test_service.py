"""The routes for raw transactions of a real server process."""

import json
import shutil
import subprocess
import sys
import time

import pytest

from fraud.codec import to_json
from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.models.columns import ModelColumns
from fraud.models.specification import EXTRA, SPECIFICATION_FILE, InputSpecification
from fraud.serving.prediction_log import PredictionLog
from tests.serving.conftest import export
from tests.serving.exported import export_model, serving
from tests.serving.models import of_default_features

ROW = {
    "TRANSACTION_ID": "0007",
    "TX_DATETIME": "2026-03-22T08:15:00Z",
    "CUSTOMER_ID": 42,
    "TERMINAL_ID": 7,
    "TX_AMOUNT": 99.5,
    "CHANNEL": "web",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "1"
    return export_model(folder, of_default_features(categorical=("CHANNEL",)))


@pytest.fixture
def root(model, tmp_path):
    (tmp_path / "pushed").mkdir()
    (tmp_path / "pushed" / "1").symlink_to(model, target_is_directory=True)
    return tmp_path


def test_a_bank_sends_transactions_and_labels(root):
    with serving(root) as server:
        answer = server.post("/v1/transactions:score", {"transactions": [ROW], "explain": True})
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-model-version"] == "1"
        (first,) = answer.json()["results"]
        assert {key: first[key] for key in ("id", "version", "outcome")} == {
            "id": "0007",
            "version": "1",
            "outcome": "new",
        }
        assert 0 <= first["score"] <= 1
        assert len(first["reasons"]) == 5
        by_column = {reason["column"]: reason["value"] for reason in first["reasons"]}
        assert by_column.get("TX_AMOUNT", 99.5) == 99.5

        (again,) = server.post("/v1/transactions:score", {"transactions": [ROW]}).json()["results"]
        assert (again["score"], again["outcome"]) == (first["score"], "repeated")
        rows = [{**ROW, "TRANSACTION_ID": number} for number in range(50)]
        many = server.post("/v1/transactions:score", {"transactions": rows}).json()["results"]
        assert [result["id"] for result in many] == list(range(50))

        labels = {
            "labels": [{"id": "0007", "label": 1}, {"id": 8, "label": 0}, {"id": -1, "label": 0}]
        }
        assert server.post("/v1/labels", labels).json() == {
            "new": 2,
            "repeated": 0,
            "corrected": 0,
            "unknown": 1,
        }
        (root / "monitoring").mkdir()
        (root / "monitoring" / "fraud_monitoring.prom").write_text("fraud_monitored_version 7.0\n")
        metrics = server.client.get("/metrics").text
        assert "fraud_monitored_version 7.0" in metrics
        assert 'fraud_transactions_total{outcome="new"} 51.0' in metrics
        assert 'fraud_labels_total{outcome="unknown"} 1.0' in metrics
        assert server.stop() == 0
    assert len(PredictionLog(root / "predictions").read()) == 51


def test_history_is_in_the_state_if_data_is_given(root, tmp_path):
    from tests.pipeline.ingestion import transactions

    table = transactions.make()
    data = transactions.write_days(table, tmp_path / "data")
    after = {**ROW, "TX_DATETIME": "2024-03-09T00:00:00Z", "CUSTOMER_ID": 17}
    with serving(root, "--data", str(data)) as server:
        server.post("/v1/transactions:score", {"transactions": [after]})
        assert server.stop() == 0
    read = PredictionLog(root / "predictions").read()
    earlier = table["CUSTOMER_ID"].to_pylist().count(17)
    assert earlier > 10
    assert read.features["CUSTOMER_ID_count_30d"].to_pylist() == [earlier + 1]


@pytest.mark.parametrize(
    ("path", "document", "status", "message"),
    [
        ("transactions:score", {"transactions": [{**ROW, "TX_AMOUNT": "x"}]}, 400, "TX_AMOUNT: is"),
        ("transactions:score", {"transactions": [{}]}, 400, "TRANSACTION_ID: missing; send it"),
        ("transactions:score", {"transactions": {}}, 400, "transactions: expected a list"),
        ("transactions:score", {}, 400, "transactions: expected a list of objects"),
        (
            "transactions:score",
            {"transactions": [], "explian": True},
            400,
            "explian: unknown field",
        ),
        (
            "transactions:score",
            {"transactions": [], "explain": 1},
            400,
            "explain: expected true or",
        ),
        ("transactions:score", {"transactions": [ROW] * 10_001}, 413, "send at most 10000 in a"),
        (
            "transactions:score",
            {"transactions": [ROW] * 1001, "explain": True},
            413,
            "at most 1000",
        ),
        ("labels", {"labels": [{"id": 1}]}, 400, "labels[0].label: missing"),
        ("labels", {"labels": [{"id": 1, "label": 2}]}, 400, "labels[0].label: is 2"),
        ("labels", {"labels": None}, 400, "labels: expected a list of objects"),
    ],
)
def test_what_cannot_be_used_is_refused(running, path, document, status, message):
    answer = running.post(f"/v1/{path}", document)
    assert answer.status_code == status
    assert message in answer.json()["error"]


@pytest.fixture(scope="module")
def running(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    (root / "pushed").mkdir()
    (root / "pushed" / "1").symlink_to(model, target_is_directory=True)
    with serving(root) as server:
        yield server


def test_a_version_that_the_state_cannot_serve_is_refused_and_the_old_one_stays(root, model):
    with serving(root) as server:
        server.post("/v1/transactions:score", {"transactions": [ROW]})
        folder = root / "pushed" / "2"
        shutil.copytree(model, root / ".staged")
        path = root / ".staged" / "assets.extra" / "specification.json"
        changed = json.loads(path.read_text())
        changed["dataset"]["timestamp"] = "WHEN"
        path.write_text(json.dumps(changed))
        (root / ".staged").rename(folder)
        for _ in range(600):
            refused = [x for x in server.lines() if x["message"] == "version refused"]
            if refused:
                break
            time.sleep(0.1)
        assert (
            "the state has dataset.timestamp TX_DATETIME, but the model WHEN" in refused[0]["error"]
        )
        answer = server.post("/v1/transactions:score", {"transactions": [ROW]}).json()
        assert answer["results"][0]["version"] == "1"


@pytest.mark.parametrize("without", ["specification", "a column"])
def test_a_version_that_cannot_score_raw_transactions_does_not_replace_one_that_can(
    root, model, without
):
    shutil.copytree(model, root / ".staged")
    path = root / ".staged" / "assets.extra" / "specification.json"
    if without == "specification":
        path.unlink()
    else:
        changed = json.loads(path.read_text())
        changed["features"]["calendar"] = changed["features"]["calendar"][1:]
        path.write_text(json.dumps(changed))
    with serving(root) as server:
        (root / ".staged").rename(root / "pushed" / "2")
        refused = wait_for_line(server, "version refused")
        assert refused["version"] == "2"
        expected = {"specification": "does not record", "a column": "is of another model: "}
        assert expected[without] in refused["error"]
        (result,) = server.post("/v1/transactions:score", {"transactions": [ROW]}).json()["results"]
        assert (result["version"], result["outcome"]) == ("1", "new")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("ftp://here/state", "ftp://here/state: neither a folder nor the URL of a Redis server"),
        ("redis://u:s3cret@here/0", "contains a password"),
    ],
)
def test_a_place_that_no_state_can_be_in_is_refused_at_the_start(root, state, message):
    command = [sys.executable, "-m", "fraud.pipeline.cli", "serve", "--root", str(root)]
    ports = ["--port", "0", "--grpc-port", "0"]
    done = subprocess.run(
        [*command, *ports, "--state", state], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and "s3cret" not in done.stderr


def test_an_empty_state_is_said_loudly(root):
    with serving(root) as server:
        warning = wait_for_line(server, "the state is empty")
        assert warning["level"] == "WARNING"
        assert "fraud_state_newest_timestamp_seconds 0.0" in server.client.get("/metrics").text
        server.post("/v1/transactions:score", {"transactions": [ROW]})
        assert server.stop() == 0
    start = len((root / "server.log").read_text())
    with serving(root) as server:
        assert wait_for_line(server, "state", start)["newest"] == "2026-03-22T08:15:00.000000Z"


def wait_for_line(server, message, start=0):
    """The first line of the log whose message begins so."""
    for _ in range(600):
        if found := [x for x in server.lines(start) if x["message"].startswith(message)]:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no line {message!r}")


def test_a_challenger_that_the_state_cannot_serve_is_left_out(root, tmp_path):
    with serving(root) as server:  # makes a state for what the live version looks back on
        assert server.stop() == 0
    groups = (FeatureGroup(("count",), (300,)),)
    inputs = InputSpecification(Dataset(), Features(calendar=(), groups=groups), 7)
    columns = ModelColumns.of(inputs.dataset, inputs.features)
    challenger = export(tmp_path / "challenger", 0.6, columns.numeric, columns.categorical)
    (challenger / EXTRA / SPECIFICATION_FILE).write_text(to_json(inputs))
    config = tmp_path / "fraud.yaml"
    config.write_text(f"serving:\n  challenger:\n    model: {challenger}\n", encoding="utf-8")
    with serving(root, "--config", str(config)) as server:
        line = wait_for_line(server, "the challenger is left out")
        assert "look back 300 days" in line["error"]
        (result,) = server.post("/v1/transactions:score", {"transactions": [ROW]}).json()["results"]
        assert result["version"] == "1"


def test_a_challenger_from_the_configuration_answers_its_cards(root, model, tmp_path):
    config = tmp_path / "fraud.yaml"
    config.write_text(
        "serving:\n  challenger:\n    model: pushed/1\n    canary_percent: 50\n", encoding="utf-8"
    )
    with serving(root, "--config", str(config)) as server:
        rows = [{**ROW, "TRANSACTION_ID": n, "CUSTOMER_ID": n} for n in range(60)]
        results = server.post("/v1/transactions:score", {"transactions": rows}).json()["results"]
        versions = {result["version"] for result in results}
        assert len(versions) == 2
        assert server.stop() == 0
    read = PredictionLog(root / "predictions").read()
    assert len(read) == 60
    assert 10 < read.canary.sum() < 50
    assert (read.shadow_version != "").all()

"""OpenLineage events of a lineage, in a file and at a server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fraud.pipeline import cli
from tests.pipeline.recorded_runs import Records


@pytest.fixture
def records(tmp_path) -> Records:
    records = Records(tmp_path / "root")
    records.run("r1", "2026-01-10", ("2026-01-02", "2026-01-05"), "100")
    return records


def send(records: Records, target: object, asked: str = "100") -> int:
    return cli.main(
        ["lineage", asked, "--root", str(records.root.path), "--openlineage", str(target)]
    )


class Server(ThreadingHTTPServer):
    """Keeps what is posted to it; answers with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[tuple[str, str | None, dict]] = []
        self.status = 201

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers.get("Authorization")
        self.server.received.append((self.path, key, json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_file_gets_a_start_and_an_end_of_each_execution(records, tmp_path):
    file = tmp_path / "events.jsonl"
    assert send(records, file) == 0
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [e["eventType"] for e in events] == ["START", "COMPLETE"] * 5
    ended = {e["job"]["name"]: e for e in events if e["eventType"] == "COMPLETE"}
    ingested = ended["fraud.TransactionExampleGen"]
    (read,) = ingested["inputs"]
    assert read["name"] == "/data/transactions/date=2026-01-02/a.parquet"
    assert read["facets"]["version"]["datasetVersion"].startswith("content")
    versions = [o["facets"]["version"]["datasetVersion"] for o in ingested["outputs"]]
    (judged,) = ended["fraud.DataGate"]["inputs"]
    assert [judged["facets"]["version"]["datasetVersion"]] == versions
    facets = ended["fraud.Trainer"]["run"]["facets"]
    assert facets["processing_engine"]["version"] == "1.16.0"
    (parameter,) = facets["executionParameters"]["parameters"]
    assert (parameter["key"], json.loads(parameter["value"])) == ("custom_config", {"epochs": 3})
    assert len({e["run"]["facets"]["parent"]["run"]["runId"] for e in events}) == 1
    assert len({e["run"]["runId"] for e in events}) == 5


def test_events_that_are_sent_again_are_the_same(records, tmp_path):
    for name in ("a", "b"):
        assert send(records, tmp_path / name, "2026-01-03") == 0
    first, second = (json.loads((tmp_path / n).read_text().splitlines()[0]) for n in ("a", "b"))
    assert first == second


def test_a_server_gets_them_with_the_key_from_the_environment(records, server, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "secret")
    assert send(records, server.address) == 0
    assert len(server.received) == 10
    assert {path for path, _, _ in server.received} == {"/api/v1/lineage"}
    assert {key for _, key, _ in server.received} == {"Bearer secret"}


@pytest.mark.parametrize("target", ["ftp://host/events", "kafka://host", "."])
def test_what_is_neither_server_nor_file_is_refused(records, target, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert send(records, target) == 2
    assert target in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("status", [401, None])
def test_a_server_that_refuses_or_is_down_is_a_failure_that_says_so(
    records, server, status, capsys
):
    if status is None:
        server.shutdown()
        server.server_close()
    else:
        server.status = status
    assert send(records, server.address) == 1
    error = capsys.readouterr().err
    assert server.address in error and "0 of 10 events" in error and "Traceback" not in error

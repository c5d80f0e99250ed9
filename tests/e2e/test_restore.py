"""A root and its state are backed up under load, destroyed and restored: nothing is lost."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyarrow import parquet

from fraud.serving.prediction_log import PredictionLog
from tests.e2e.conftest import SAMPLE, Bank
from tests.serving.exported import RunningServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CLIENTS = 3
COLUMNS = """TRANSACTION_ID TX_DATETIME CUSTOMER_ID TERMINAL_ID TX_AMOUNT MERCHANT_CATEGORY CHANNEL
    COUNTRY CUSTOMER_AGE_BAND""".split()
FLUSHED_AFTER = 3.0
"""Seconds after which what was scored is in the prediction log; it flushes every second."""


def rows_of(day: str) -> list[dict]:
    """The transactions of a day, as a bank sends them."""
    rows = parquet.read_table(
        SAMPLE / f"date={day}" / "transactions.parquet", columns=COLUMNS
    ).to_pylist()
    return [
        {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in row.items()
        }
        for row in rows
    ]


def scored(client: httpx.Client, rows: list[dict]) -> list[tuple]:
    """(score, alert, version) of each, and whether the state knew it."""
    answer = client.post("/v1/transactions:score", json={"transactions": rows})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    return [(r["score"], r["alert"], r["version"], r["outcome"] == "repeated") for r in results]


class Client(threading.Thread):
    """Sends transactions and labels until it is stopped. Options are those of `httpx.Client`.

    Attributes:
      acknowledged: the transactions that were answered, each with the time of the answer.
      labelled: how many labels were taken.
    """

    def __init__(
        self, url: str, rows: list[dict], stopping: threading.Event, **options: Any
    ) -> None:
        super().__init__(daemon=True)
        self._url, self._rows, self._stopping, self._options = url, rows, stopping, options
        self.acknowledged: list[tuple[float, dict]] = []
        self.labelled = 0
        self.problem = ""

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60, **self._options) as client:
            for number in itertools.count():
                if self._stopping.wait(0.02):
                    return
                again, place = divmod(number, len(self._rows))
                row = dict(self._rows[place])
                row["TRANSACTION_ID"] += again * 1_000_000_000  # another of the same moment
                for path, document in (
                    ("/v1/transactions:score", {"transactions": [row]}),
                    ("/v1/labels", {"labels": [{"id": row["TRANSACTION_ID"], "label": 1}]}),
                ):
                    answer = client.post(path, json=document)
                    if answer.status_code != 200:
                        self.problem = answer.text
                        return
                self.acknowledged.append((time.monotonic(), row))
                self.labelled += answer.json()["new"]


@pytest.fixture(scope="module")
def bank(new_bank) -> Bank:
    """A bank with a live model and the history of its cards."""
    bank = new_bank()
    assert bank.run(SAMPLE, "2026-03-07")["outcome"] == "pushed"
    build = bank.command("build", "--data", SAMPLE, "--as-of", "2026-03-14")
    build.insert(build.index("build"), "state")
    subprocess.run(build, check=True, cwd=bank.code)
    return bank


def test_what_was_backed_up_under_load_is_restored(bank: Bank, tmp_path: Path) -> None:
    config = ("--config", str(bank.folder / "fraud.yaml"))
    server = RunningServer(bank.root, *config)
    # The probes are scored before the backup; nobody else sends transactions of their day.
    probes = rows_of("2026-03-15")[:300]
    before = scored(server.client, probes)
    assert not any(known for *_, known in before) and len({score for score, *_ in before}) > 100

    stopping = threading.Event()
    load = rows_of("2026-03-16")
    clients = [Client(server.url, load[i::CLIENTS], stopping) for i in range(CLIENTS)]
    for client in clients:
        client.start()
    # A run is under way as well: the backup waits for its end, and has what it pushed.
    run = subprocess.Popen(
        bank.command("run", "--data", SAMPLE, "--as-of", "2026-03-14", "--json"),
        stdout=subprocess.PIPE,
        text=True,
        cwd=bank.code,
    )
    while not list((bank.root / "runs").glob("*/run.log"))[1:]:
        assert run.poll() is None
        time.sleep(0.1)
    started = time.monotonic()
    backed_up = bank.call("backup", tmp_path / "backup", "--json")
    ended = time.monotonic()
    assert backed_up.returncode == 0, backed_up.stderr
    outcome = json.loads(run.communicate()[0])
    document = json.loads(backed_up.stdout)
    assert document["state"] and document["metadata"] == "metadata.sqlite"
    check = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    subprocess.run(check, cwd=tmp_path / "backup", check=True)
    listed = (tmp_path / "backup" / "SHA256SUMS").read_text(encoding="utf-8")
    assert "  state/generation-" in listed and "  predictions/" in listed

    while scored(server.client, probes[:1])[0][2] != outcome["pushed_version"]:
        assert time.monotonic() < ended + 60, "the server did not take the new version"
        time.sleep(0.2)
    stopping.set()
    for client in clients:
        client.join(60)
        assert not client.problem, client.problem
    acknowledged = [entry for client in clients for entry in client.acknowledged]
    assert any(started < at < ended for at, _ in acknowledged), "there was load meanwhile"
    assert sum(client.labelled for client in clients) == len(acknowledged)
    versions = bank.versions()
    again = scored(server.client, probes)
    server.kill()

    # The disaster.
    shutil.rmtree(bank.root)
    # What docs/operations.md says.
    restored = bank.call("restore", tmp_path / "backup")
    assert restored.returncode == 0, restored.stderr
    assert "  checksums    right\n" in restored.stdout
    verified = bank.call("verify")
    assert verified.returncode == 0, verified.stdout
    assert verified.stdout == f"{bank.root}: clean\n"
    assert outcome["pushed_version"] in versions and bank.versions() == versions
    status = json.loads(bank.call("status", "--json").stdout)
    assert status["live"]["version"] == outcome["pushed_version"]

    server = RunningServer(bank.root, *config)
    after = scored(server.client, probes)
    assert all(known for *_, known in after)
    assert after == again, "the same scores, of the same version"
    copied = [row for at, row in acknowledged if at < started]
    assert copied and all(known for *_, known in scored(server.client, copied))
    labels = [{"id": row["TRANSACTION_ID"], "label": 1} for row in copied]
    counts = server.post("/v1/labels", {"labels": labels}).json()
    assert counts["repeated"] == len(labels)
    assert server.stop() == 0
    logged = PredictionLog(bank.root / "predictions").read().transactions
    ids = logged["TRANSACTION_ID"].to_pylist()
    flushed = [row["TRANSACTION_ID"] for at, row in acknowledged if at < started - FLUSHED_AFTER]
    assert len(ids) == len({*ids}) and {str(i) for i in flushed} <= {str(i) for i in ids}
    assert bank.call("verify").returncode == 0


def test_a_backup_elsewhere_becomes_a_root_of_its_own(bank: Bank, tmp_path: Path) -> None:
    assert bank.call("backup", tmp_path / "moved").returncode == 0
    moved = Bank(bank.folder)
    command = [*moved.command("verify"), "--root", str(tmp_path / "moved")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=bank.code, check=False)
    assert done.returncode == 1 and "it was moved or copied from there" in done.stdout
    done = subprocess.run(
        [*command, "--repair"], capture_output=True, text=True, cwd=bank.code, check=False
    )
    assert done.returncode == 0 and done.stdout.endswith("clean\n")

"""A server under load for minutes: its memory, and that it goes on to answer."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from tests.serving.exported import export_model, serving
from tests.serving.models import of_default_features

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

START = 1_772_366_400  # seconds
CARDS, BATCH = 300, 50


def anonymous_memory(pid: int) -> int:
    """Bytes that a process allocated, without the files that it maps, as the state is."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(x.split()[1] for x in status.splitlines() if x.startswith("RssAnon")))


def test_memory_stays_within_5_percent_of_what_it_is_after_warm_up(tmp_path):
    """With transactions, labels, repetitions, refusals, reasons and the prediction log."""
    model = export_model(tmp_path / "exported", of_default_features(categorical=("CHANNEL",)))
    (tmp_path / "pushed").mkdir()
    (tmp_path / "pushed" / "1").symlink_to(model, target_is_directory=True)
    config = tmp_path / "fraud.yaml"
    config.write_text("serving:\n  prediction_log:\n    file_seconds: 20\n")
    numbers = itertools.count()
    with serving(tmp_path, "--config", str(config)) as server:

        def rows(count):
            return [
                {
                    "TRANSACTION_ID": number,
                    "TX_DATETIME": START + number,
                    "CUSTOMER_ID": number * 7919 % CARDS,
                    "TERMINAL_ID": number * 104_729 % (2 * CARDS),
                    "TX_AMOUNT": number % 1000 / 10,
                    "CHANNEL": ("web", "shop", None)[number % 3],
                }
                for number in itertools.islice(numbers, count)
            ]

        def load(seconds):
            end = time.monotonic() + seconds
            sent = 0
            while time.monotonic() < end:
                for count in (1, BATCH):
                    document = {"transactions": rows(count), "explain": count == 1}
                    answer = server.post("/v1/transactions:score", document)
                    assert answer.status_code == 200, answer.text
                    sent += count
                assert server.post("/v1/transactions:score", document).status_code == 200
                some = [
                    {"id": row["TRANSACTION_ID"], "label": 0} for row in document["transactions"]
                ]
                assert server.post("/v1/labels", {"labels": some}).json()["new"] == BATCH
                some[0]["label"] = "x"
                assert server.post("/v1/labels", {"labels": some}).status_code == 400
            return sent

        # Warm is a server that has made Parquet files and remembers as many ids as it ever will.
        warmed = load(60)
        while warmed < 25_000 or not list((tmp_path / "predictions").glob("date=*/*.parquet")):
            warmed += load(10)
        before = anonymous_memory(server.process.pid)
        sent = load(180)
        after = anonymous_memory(server.process.pid)
        print(f"{before / 2**20:.0f} MB after warm-up, {after / 2**20:.0f} MB after {sent:,} more")
        assert after < before * 1.05
        assert server.stop() == 0

"""The server is killed under load, ten times: the state has all that was acknowledged, once."""

import threading
from datetime import datetime, timedelta

import httpx
import numpy as np
import pytest

from fraud.serving.prediction_log import PredictionLog
from fraud.serving.state import Transactions, open_state
from tests.serving.exported import RunningServer, export_model
from tests.serving.models import of_default_features

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SPECIFICATION = of_default_features()
START = datetime(2026, 3, 1)
CLIENTS, KILLS, BETWEEN_KILLS = 4, 10, 40


class Client(threading.Thread):
    """Sends transactions of one card, and their labels; what is not acknowledged is sent again.

    Attributes:
      acknowledged: how many transactions and labels were.
      frauds: how many of the labels were of frauds.
    """

    def __init__(self, card: int, server: dict, stopping: threading.Event) -> None:
        super().__init__(daemon=True)
        self.card, self._server, self._stopping = card, server, stopping
        self.transactions = self.labels = self.frauds = 0
        self.repeated = 0
        self.problem = ""

    @property
    def acknowledged(self) -> int:
        return self.transactions + self.labels

    def run(self) -> None:
        number = 0
        while not self._stopping.is_set() and not self.problem:
            rows = [self._row(number + i) for i in range(1 + number % 3)]
            answer = self._send("/v1/transactions:score", {"transactions": rows})
            self.repeated += sum(r["outcome"] == "repeated" for r in answer["results"])
            self.transactions += len(rows)
            number += len(rows)
            labels = [
                {"id": row["TRANSACTION_ID"], "label": row["TRANSACTION_ID"] % 2} for row in rows
            ]
            counts = self._send("/v1/labels", {"labels": labels})
            if counts["new"] + counts["repeated"] != len(labels):
                self.problem = f"labels of acknowledged transactions: {counts}"
            self.labels += len(labels)
            self.frauds += sum(label["label"] for label in labels)

    def _row(self, number: int) -> dict:
        return {
            "TRANSACTION_ID": self.card * 1_000_000 + number,
            "TX_DATETIME": (START + timedelta(seconds=number)).isoformat(),
            "CUSTOMER_ID": self.card,
            "TERMINAL_ID": 77,
            "TX_AMOUNT": 10.0,
        }

    def _send(self, path: str, document: dict) -> dict:
        """The answer; waits for another server if this one is killed."""
        while True:
            try:
                response = httpx.post(self._server["url"] + path, json=document, timeout=30)
                if response.status_code == 200:
                    return response.json()
                if response.status_code != 503:
                    self.problem = response.text
                    raise SystemExit
            except httpx.TransportError:
                pass
            self._stopping.wait(0.05)


def test_what_was_acknowledged_is_in_the_state_exactly_once(tmp_path):
    (tmp_path / "pushed").mkdir()
    export_model(tmp_path / "pushed" / "1", SPECIFICATION)
    running = RunningServer(tmp_path)
    server, stopping = {"url": running.url}, threading.Event()
    clients = [Client(card, server, stopping) for card in range(1, CLIENTS + 1)]
    for client in clients:
        client.start()
    for _ in range(KILLS):
        goal = sum(client.acknowledged for client in clients) + BETWEEN_KILLS
        while sum(client.acknowledged for client in clients) < goal:
            assert not any(client.problem for client in clients), [c.problem for c in clients]
            stopping.wait(0.01)
        running.kill()
        running = RunningServer(tmp_path)
        server["url"] = running.url
    stopping.set()
    for client in clients:
        client.join(60)
        assert not client.is_alive() and not client.problem, client.problem
    assert running.stop() == 0
    assert "Traceback" not in running.log

    state = open_state(str(tmp_path / "state"))
    times = np.full(CLIENTS, np.datetime64(START + timedelta(days=9), "us"))
    entities = {
        "CUSTOMER_ID": [client.card for client in clients],
        "TERMINAL_ID": [77] * CLIENTS,
    }
    seen = state.read(Transactions(times, np.full(CLIENTS, 1.0), entities, None))
    features = seen.features(SPECIFICATION)
    state.close()
    total = sum(client.transactions for client in clients)
    assert total >= KILLS * BETWEEN_KILLS / 2 - CLIENTS * 3
    counts = features["CUSTOMER_ID_count_30d"].tolist()
    assert counts == [client.transactions + 1 for client in clients]
    known = features["CUSTOMER_ID_known_count_30d"].tolist()
    assert known == [client.labels for client in clients]
    np.testing.assert_allclose(
        features["CUSTOMER_ID_risk_30d"], [c.frauds / c.labels for c in clients], rtol=1e-6
    )
    assert features["TERMINAL_ID_known_count_30d"].tolist() == [total] * CLIENTS

    ids = PredictionLog(tmp_path / "predictions").read().transactions["TRANSACTION_ID"].to_pylist()
    assert len(set(ids)) == len(ids)
    assert len(ids) > 0

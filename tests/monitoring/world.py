"""A small bank in memory, whose model is as good as can be, until something is changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from fraud.features.spec import Dataset
from fraud.models.spec import Evaluation
from fraud.monitoring.observe import live_of
from fraud.monitoring.production import Live, Production
from fraud.pipeline.config import Config, WindowLengths
from fraud.serving.prediction_log import Predictions
from fraud.time import day_number

CONFIG = Config(
    dataset=Dataset(
        categorical=("CHANNEL",), slices=("CHANNEL",), entities=("CUSTOMER_ID", "TERMINAL_ID")
    ),
    windows=WindowLengths(train_days=28, eval_days=7, label_delay_days=7),
    evaluation=Evaluation(alert_budget=15),
)
AS_OF = date(2026, 3, 21)
FEATURES = ("risk",)
VERSION = "100"
ROWS_A_DAY, CUSTOMERS = 800, 400


@dataclass(frozen=True)
class World:
    """All transactions, and what the model says of each, [rows].

    Attributes:
      days: days since 1970.
      table: the transactions, all labelled, with the feature.
      scores: the probability of fraud.
    """

    days: np.ndarray
    table: pa.Table
    scores: np.ndarray

    def at(self, mask: np.ndarray) -> World:
        return World(self.days[mask], self.table.filter(pa.array(mask)), self.scores[mask])

    def between(self, first: date, last: date) -> World:
        return self.at((self.days >= day_number(first)) & (self.days <= day_number(last)))

    def changed(self, column: str, values: np.ndarray | pa.Array) -> World:
        at = self.table.schema.get_field_index(column)
        values = values if isinstance(values, pa.Array) else pa.array(values)
        return replace(self, table=self.table.set_column(at, column, values))

    def column(self, name: str) -> np.ndarray:
        return self.table[name].to_numpy()


def world(days: int = 56, seed: int = 0) -> World:
    """Days up to `AS_OF`. One transaction in 40 is fraud, and risk tells most of them."""
    random = np.random.default_rng(seed)
    n = days * ROWS_A_DAY
    first = day_number(AS_OF) - days + 1
    day = np.repeat(np.arange(first, first + days), ROWS_A_DAY)
    risk = random.normal(size=n)
    scores = (1 / (1 + np.exp(8.0 - 3.5 * risk))).astype(np.float32)
    labels = (random.random(n) < scores).astype(np.int8)
    seconds = day * 86_400 + random.integers(0, 86_400, n)
    table = pa.table(
        {
            "TRANSACTION_ID": np.arange(n),
            "TX_DATETIME": pa.array(seconds.astype("datetime64[s]").astype("datetime64[us]")),
            "CUSTOMER_ID": random.integers(0, CUSTOMERS, n),
            "TERMINAL_ID": random.integers(0, 200, n),
            "TX_AMOUNT": np.round(random.lognormal(3, 1, n), 2),
            "CHANNEL": random.choice(["online", "chip"], n, p=[0.3, 0.7]),
            "TX_FRAUD": labels,
            "risk": risk.astype(np.float32),
        }
    )
    return World(day, table, scores)


THRESHOLD = 0.3


def logged(of: World, version: str = VERSION) -> Predictions:
    """The prediction log of what happened."""
    n = len(of.scores)
    table = of.table
    ids = table["TRANSACTION_ID"].cast(pa.string())
    names = [c for c in CONFIG.dataset.columns if c != "TX_FRAUD"]
    transactions = table.select(names).set_column(0, "TRANSACTION_ID", ids)
    return Predictions(
        transactions=transactions,
        features=table.select(list(FEATURES)),
        time=table["TX_DATETIME"].to_numpy(),
        version=np.full(n, version),
        score=of.scores,
        alert=of.scores >= THRESHOLD,
        outcome=np.full(n, "new"),
        canary=np.zeros(n, bool),
        shadow_version=np.full(n, ""),
        shadow_score=np.full(n, np.nan, np.float32),
        latency_ms=np.ones(n, np.float32),
    )


def arrived(of: World, as_of: date = AS_OF) -> pa.Table:
    """What is in the data folder on a day: labels are known after a week."""
    known = of.days <= day_number(as_of) - CONFIG.windows.label_delay_days
    labels = pa.array(of.column("TX_FRAUD"), pa.int8(), mask=~known)
    return of.changed("TX_FRAUD", labels).table


def production(
    of: World, scored: World | None = None, as_of: date = AS_OF, version: str = VERSION
) -> Production:
    """What is known on a day; `scored` is what the server saw, if that is not what arrived."""
    log = logged(scored or of, version)
    today = of.between(as_of, as_of).table
    return Production(arrived(of, as_of), log, today.select(["TRANSACTION_ID", *FEATURES]))


def live(of: World, version: str = VERSION) -> Live:
    """The model, trained on four weeks and evaluated on the fifth, before the observed days."""
    start = AS_OF - timedelta(days=55)
    train = of.between(start, start + timedelta(days=27))
    evaluated = of.between(start + timedelta(days=35), start + timedelta(days=41))
    before = Production(evaluated.table, logged(evaluated, version))
    as_of = start + timedelta(days=48)
    return live_of(version, train.table, before, FEATURES, CONFIG, as_of)

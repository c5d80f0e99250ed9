"""What the simulator can do to data, and to a model: each change has the verdict that it should."""

from __future__ import annotations

import dataclasses
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from fraud.data.simulator import simulate
from fraud.data.spec import DRIFTS, Drift, Simulation
from fraud.features.spec import Dataset
from fraud.monitoring.checks import Kind, Observation, Verdict
from fraud.monitoring.inputs import counted_columns
from fraud.monitoring.observe import observe
from fraud.monitoring.production import Live, Production
from fraud.monitoring.profiles import profile
from fraud.pipeline.config import Config
from fraud.serving.prediction_log import OWN_COLUMNS, Predictions
from fraud.time import day_number

CONFIG = Config(
    dataset=Dataset(categorical=("MERCHANT_CATEGORY", "CHANNEL", "COUNTRY", "CUSTOMER_AGE_BAND"))
)
FIRST, DAYS, TRAIN_DAYS = date(2026, 1, 1), 56, 35
LAST = FIRST + timedelta(days=DAYS - 1)
NOTHING = Predictions(
    OWN_COLUMNS.empty_table(), pa.table({}), *[np.zeros(0)] * 8, latency_ms=np.zeros(0)
)


def look(as_of: date, *drifts: Drift, seed: int = 0, config: Config = CONFIG) -> Observation:
    """A bank of 500 customers; a model of its first weeks; what arrived by a day."""
    simulation = Simulation(DAYS, 500, 1000, FIRST, seed, drift=drifts)
    table = pa.concat_tables([of_day for _, of_day in simulate(simulation)])
    days = table["TX_DATETIME"].to_numpy().astype("datetime64[D]").astype(np.int64)
    last = days <= day_number(as_of)
    table, days = table.filter(pa.array(last)), days[last]
    trained = range(day_number(FIRST), day_number(FIRST) + TRAIN_DAYS)
    of_train = profile(table, days, trained, counted_columns(CONFIG.dataset), "CUSTOMER_ID")
    live = Live("100", frozenset({"100"}), profile=of_train)
    return observe(Production(table, NOTHING), live, config, as_of)


def acting(observation: Observation, kind: Kind) -> set[str]:
    return {c.subject for c in observation.checks if c.kind is kind and c.verdict is Verdict.ACT}


@pytest.mark.parametrize("seed", [0, 1])
def test_without_drift_nothing_asks_to_act(seed):
    observation = look(LAST, seed=seed)
    assert not [c.name for c in observation.checks if c.verdict is Verdict.ACT]
    assert all(not day.broken for day in observation.days)


@pytest.mark.parametrize("days_after", [0, 1])
def test_a_broken_column_is_broken_from_its_first_day(days_after):
    start = LAST - timedelta(days=days_after)
    observation = look(LAST, Drift("broken_column", start))
    assert acting(observation, Kind.DATA) == {"COUNTRY"}
    assert not acting(observation, Kind.DRIFT)
    assert [day.day for day in observation.days if day.broken] == [
        start + timedelta(days=i) for i in range(days_after + 1)
    ]


@pytest.mark.parametrize(
    ("name", "columns"),
    [("amount_shift", {"TX_AMOUNT"}), ("new_category", {"MERCHANT_CATEGORY", "CHANNEL"})],
)
def test_a_change_of_the_world_is_drift_within_a_week_and_not_broken(name, columns):
    observation = look(LAST, Drift(name, LAST - timedelta(days=6)))
    assert acting(observation, Kind.DRIFT) == columns
    assert not acting(observation, Kind.DATA)
    assert all(not day.broken for day in observation.days)


def test_a_large_change_is_drift_on_its_second_day():
    observation = look(LAST, Drift("amount_shift", LAST - timedelta(days=1)))
    assert acting(observation, Kind.DRIFT) == {"TX_AMOUNT"}


def test_every_drift_of_the_simulator_is_covered():
    """New fraud changes too few rows for any input to tell; labels and estimates do that."""
    observation = look(LAST, Drift("new_fraud", LAST - timedelta(days=6)))
    assert not acting(observation, Kind.DATA) | acting(observation, Kind.DRIFT)
    assert {*DRIFTS} == {"new_fraud", "amount_shift", "new_category", "broken_column"}


def test_nothing_scored_means_nothing_is_known_of_scores():
    observation = look(LAST)
    kinds = (Kind.SCORES, Kind.PERFORMANCE, Kind.ESTIMATE, Kind.SKEW, Kind.HARM)
    assert {c.verdict for c in observation.checks if c.kind in kinds} == {Verdict.CANNOT_JUDGE}


def test_drift_is_judged_by_configured_thresholds_of_a_column():
    gate = dataclasses.replace(CONFIG.data_gate, drift_thresholds={"TX_AMOUNT": 1.0})
    config = dataclasses.replace(CONFIG, data_gate=gate)
    shift = Drift("amount_shift", LAST - timedelta(days=6))
    assert acting(look(LAST, shift), Kind.DRIFT) == {"TX_AMOUNT"}
    assert not acting(look(LAST, shift, config=config), Kind.DRIFT)

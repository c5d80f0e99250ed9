"""Features computed from the state are those of batch, bit for bit, whatever arrives how."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fraud.features.batch import add_features, feature_names
from fraud.features.definitions import CALENDAR, FAMILIES
from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.models.specification import InputSpecification
from fraud.serving.state import (
    Labels,
    Outcome,
    State,
    StateDefinition,
    Transactions,
    create_state,
)

EVERYTHING = Features(
    calendar=tuple(CALENDAR),
    groups=(FeatureGroup(tuple(FAMILIES), windows=(1, 3, 10)),),
    normal_days=12,
    max_label_delay_days=25,
)
MODEL = InputSpecification(Dataset(), EVERYTHING, 7)
WITH_LABEL_TIME = dataclasses.replace(MODEL, dataset=Dataset(label_time="LABELLED_AT"))
IN_BERLIN = dataclasses.replace(MODEL, dataset=Dataset(timezone="Europe/Berlin"))
DAY = np.timedelta64(1, "D")
NAT = np.datetime64("NaT")


def replay(state: State, model: InputSpecification, table: pa.Table, batches: list[int]) -> None:
    """Records a table in batches, with labels as they become known, and compares the features.

    Args:
      state: an empty state, of this model.
      model: its features are compared.
      table: transactions in any order.
      batches: the sizes of the batches, repeated as needed; about, see `_end_of_batch`.
    """
    dataset = model.dataset
    time = table["TX_DATETIME"].to_numpy()
    order = np.argsort(time, kind="stable")
    table = table.take(pa.array(order))
    time = time[order]
    offline = add_features(table, dataset, model.features, model.label_delay_days)
    label = table["TX_FRAUD"].to_numpy().astype(float)
    ids = np.arange(len(time))
    known = time + model.label_delay_days * DAY
    if dataset.label_time:
        known = table[dataset.label_time].to_numpy()
    posted = np.isnan(label) | np.isnat(known)  # never to be posted
    amounts = table["TX_AMOUNT"].to_numpy()
    entities = {name: table[name] for name in dataset.entities}
    start, sizes = 0, itertools.cycle(batches)
    while start < len(time):
        stop = _end_of_batch(time, known, start, next(sizes))
        # Labels are posted before the batch that may be the first to know them. That some do not
        # count yet for all of its rows, is for the features to know.
        due = np.flatnonzero(~posted & (known <= time[stop - 1]) & (ids < start))
        if len(due):
            state.label(Labels(due, label[due], known[due]))
            posted[due] = True
        rows = slice(start, stop)
        some = {name: column[rows] for name, column in entities.items()}
        seen = state.record(Transactions(time[rows], amounts[rows], some, ids[rows]))
        assert {*seen.outcomes} == {Outcome.NEW}
        online = seen.features(model)
        assert tuple(online) == feature_names(model.features, dataset)
        for name, values in online.items():
            expected = offline[name].to_numpy()[rows]
            np.testing.assert_array_equal(values, expected, err_msg=name)
        start = stop


def _end_of_batch(time: NDArray, known: NDArray, start: int, size: int) -> int:
    """The end of a batch of about this size.

    Rows with equal times are in one batch, as they do not see each other. Rows that know the label
    of another are not, as a batch is recorded before its labels can be.
    """
    for stop in range(start + 1, len(time)):
        if time[stop] == time[stop - 1]:
            continue
        if stop >= start + size or (known[start:stop] <= time[stop]).any():
            return stop
    return len(time)


def new_state(location: str, model: InputSpecification) -> State:
    return create_state(location, StateDefinition.of(model))


def random_table(rows: int, seed: int, model: InputSpecification = MODEL) -> pa.Table:
    """Transactions with ties, missing amounts, unknown labels, and text and number identifiers."""
    rng = np.random.default_rng(seed)
    start = np.datetime64("2024-03-10T22:00", "us")  # clocks change on the 31st
    time = start + rng.integers(0, 35 * 24 * 2, rows) * np.timedelta64(30, "m")
    amount = np.where(rng.random(rows) < 0.03, np.nan, rng.lognormal(3, 1, rows).round(2))
    label = np.where(rng.random(rows) < 0.1, np.nan, rng.random(rows) < 0.3)
    learned = time + rng.choice([0, 1, 24, 200, 700], rows) * np.timedelta64(1, "h")
    learned[np.isnan(label) | (rng.random(rows) < 0.1)] = NAT
    columns = {
        "TX_DATETIME": pa.array(time),
        "CUSTOMER_ID": pa.array(rng.integers(0, 20, rows)),
        "TERMINAL_ID": pa.array([f"terminal {i}" for i in rng.zipf(1.5, rows) % 15]),
        "TX_AMOUNT": pa.array(amount),
        "TX_FRAUD": pa.array(label),
        "LABELLED_AT": pa.array(learned),
    }
    return pa.table(columns)


@pytest.mark.parametrize("model", [MODEL, IN_BERLIN], ids=["UTC", "Berlin"])
def test_a_replay_gives_the_features_of_batch(location, model):
    state = new_state(location, model)
    replay(state, model, random_table(400, seed=0), [1, 17, 40, 2])
    state.close()


def test_a_replay_with_label_times_gives_the_features_of_batch(location):
    state = new_state(location, WITH_LABEL_TIME)
    replay(state, WITH_LABEL_TIME, random_table(300, seed=1), [1, 9])
    state.close()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 2),  # entity
            st.integers(0, 15 * 4),  # quarters of a day, from midnight
            st.integers(-1, 1),  # microseconds beside them
            st.one_of(st.just(np.nan), st.integers(-(10**8), 10**8).map(lambda cents: cents / 100)),
            st.sampled_from([0.0, 1.0, np.nan]),
        ),
        min_size=1,
        max_size=25,
    ),
    batches=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    delay=st.sampled_from([0, 1, 7]),
)
def test_whatever_the_rows_and_batches(tmp_path_factory, rows, batches, zone, delay):
    entity, quarter, beside, amount, label = map(np.array, zip(*rows, strict=True))
    time = np.datetime64("2024-03-25", "us") + quarter * np.timedelta64(6, "h") + beside
    table = pa.table(
        {
            "TX_DATETIME": pa.array(time),
            "CUSTOMER_ID": pa.array(entity),
            "TERMINAL_ID": pa.array(entity % 2),
            "TX_AMOUNT": pa.array(amount),
            "TX_FRAUD": pa.array(label),
        }
    )
    model = InputSpecification(Dataset(timezone=zone), EVERYTHING, delay)
    state = new_state(str(tmp_path_factory.mktemp("state")), model)
    replay(state, model, table, batches)
    state.close()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),  # entity
            st.integers(0, 15 * 4),  # quarters of a day
            st.integers(-1, 110),  # quarters until the label is known; never if negative
            st.sampled_from([0.0, 1.0]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_whatever_the_label_times(tmp_path_factory, rows):
    entity, quarter, delay, label = map(np.array, zip(*rows, strict=True))
    time = np.datetime64("2024-01-01", "us") + quarter * np.timedelta64(6, "h")
    learned = time + delay * np.timedelta64(6, "h")
    learned[delay < 0] = NAT
    table = pa.table(
        {
            "TX_DATETIME": pa.array(time),
            "CUSTOMER_ID": pa.array(entity),
            "TERMINAL_ID": pa.array(entity),
            "TX_AMOUNT": pa.array(np.ones(len(rows))),
            "TX_FRAUD": pa.array(label),
            "LABELLED_AT": pa.array(learned),
        }
    )
    state = new_state(str(tmp_path_factory.mktemp("state")), WITH_LABEL_TIME)
    replay(state, WITH_LABEL_TIME, table, [3, 1])
    state.close()


def test_the_handbook(location, handbook):
    """Days of one card in 50 with all of their terminals' rows: some thousand transactions."""
    columns = ["TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD"]
    data = pa.dataset.dataset(handbook, partitioning="hive")
    wanted = (pa.dataset.field("date") >= "2018-04-01") & (pa.dataset.field("date") < "2018-05-15")
    table = data.to_table(columns=columns, filter=wanted)
    few = table["CUSTOMER_ID"].to_numpy() % 50 == 7
    assert few.sum() > 3000
    model = InputSpecification(Dataset(), Features(), 7)
    state = new_state(location, model)
    table = table.filter(pa.array(few))
    time = pa.array(table["TX_DATETIME"].to_numpy().astype("datetime64[us]"))
    table = table.set_column(0, "TX_DATETIME", time)
    replay(state, model, table, [1, 100, 30])
    state.close()


def test_the_sample(location):
    folder = Path(__file__).parents[3] / "data" / "sample" / "transactions"
    from fraud.pipeline import config
    from fraud.pipeline.ingestion import history

    loaded = config.load(str(folder.parent / "config.yaml"))
    recent = history.read(str(folder), loaded.dataset, None, 200, 0)
    model = InputSpecification(loaded.dataset, loaded.features, loaded.windows.label_delay_days)
    table = recent.table
    card = table[model.dataset.card_entity].combine_chunks().dictionary_encode()
    few = table.filter(pa.array(card.indices.to_numpy() % 10 == 3))
    assert len(few) > 1000
    replay(new_state(location, model), model, few, [50, 1, 200])

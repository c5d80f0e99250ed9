"""Features computed from the state are those of batch, whatever arrives, in whatever batches."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from fraud.features.batch import add_features, feature_names
from fraud.features.definitions import CALENDAR, FAMILIES
from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.models.specification import InputSpecification
from fraud.serving.state import Labels, Outcome, StateDefinition, Transactions, create_state

EVERYTHING = Features(
    calendar=tuple(CALENDAR),
    groups=(FeatureGroup(tuple(FAMILIES), windows=(1, 3, 10)),),
    normal_days=12,
    max_label_delay_days=25,
)
MODEL = InputSpecification(Dataset(), EVERYTHING, 7)
DAY = np.timedelta64(1, "D")


def test_a_replay_in_batches_gives_the_features_of_batch(tmp_path):
    rng = np.random.default_rng(0)
    n = 600
    hours = np.sort(rng.integers(0, 40 * 24, n)) * np.timedelta64(1, "h")
    time = np.datetime64("2024-02-20", "us") + hours
    amount = np.where(rng.random(n) < 0.03, np.nan, rng.lognormal(3, 1, n).round(2))
    entities = {name: rng.integers(0, 20, n) for name in MODEL.dataset.entities}
    label = (rng.random(n) < 0.3).astype(float)
    columns = {"TX_DATETIME": time, **entities, "TX_AMOUNT": amount, "TX_FRAUD": label}
    table = pa.table({k: pa.array(v, from_pandas=True) for k, v in columns.items()})
    batch = add_features(table, MODEL.dataset, MODEL.features, MODEL.label_delay_days)
    state = create_state(str(tmp_path / "state"), StateDefinition.of(MODEL))
    start = labelled = 0
    while start < n:
        stop = min(n, start + int(rng.integers(1, 60)))
        while stop < n and time[stop] == time[stop - 1]:
            stop += 1
        due = int(np.searchsorted(time, time[stop - 1] - 7 * DAY, "right"))
        state.label(Labels(np.arange(labelled, due), label[labelled:due]))
        labelled = max(labelled, due)
        rows = slice(start, stop)
        some = {name: values[rows] for name, values in entities.items()}
        seen = state.record(Transactions(time[rows], amount[rows], some, np.arange(n)[rows]))
        assert set(seen.outcomes) == {Outcome.NEW}
        online = seen.features(MODEL)
        assert tuple(online) == feature_names(MODEL.features, MODEL.dataset)
        for name, values in online.items():
            np.testing.assert_array_equal(values, batch[name].to_numpy()[rows], err_msg=name)
        start = stop
    state.close()

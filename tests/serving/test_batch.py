"""Tables are scored in chunks, and only alerts are explained."""

import numpy as np
import pyarrow as pa
import pytest

from fraud.features.spec import Dataset, Features
from fraud.models.specification import InputSpecification
from fraud.serving import batch
from tests.serving.models import LinearModel

DATASET = Dataset(timestamp=None, amount="a", entities=(), categorical=("kind",))


@pytest.fixture
def model():
    return LinearModel(InputSpecification(DATASET, Features(), 7), "17")


def table(rows):
    amounts = pa.array([None if row % 5 == 0 else float(row) for row in range(rows)])
    kinds = pa.array([None if row % 3 == 0 else "x" * (row % 9) for row in range(rows)])
    return pa.table({"a": amounts, "kind": kinds, "other": pa.nulls(rows)})


def test_chunks_do_not_matter(model, monkeypatch):
    rows = table(100)
    monkeypatch.setattr(batch, "EXPLAINED_AT_ONCE", 3)
    whole = batch.score_table(model, rows, explain=True)
    seen = []
    monkeypatch.setattr(batch, "CHUNK", 7)
    assert batch.score_table(model, rows, explain=True, progress=seen.append) == whole
    assert seen == [*range(7, 100, 7), 100]
    columns = {"a": rows["a"].to_numpy().astype(np.float32)}
    columns["kind"] = np.array([(k or "").encode() for k in rows["kind"].to_pylist()], object)
    np.testing.assert_array_equal(whole["prediction_score"].to_numpy(), model.score(columns).score)
    assert whole["prediction_version"].to_pylist() == ["17"] * 100


def test_only_alerts_are_explained(model):
    scored = batch.score_table(model, table(100), explain=True)
    alerts = scored["prediction_alert"].to_pylist()
    reasons = scored["prediction_reasons"].to_pylist()
    assert 0 < sum(alerts) < 100
    assert [of_row is not None for of_row in reasons] == alerts
    first = next(of_row for of_row in reasons if of_row)
    assert first[0] == {"column": "a", "contribution": 0.5}
    assert "prediction_reasons" not in batch.score_table(model, table(10)).column_names


def test_no_transactions_are_no_failure(model):
    assert batch.score_table(model, table(10).slice(0, 0)).num_rows == 0

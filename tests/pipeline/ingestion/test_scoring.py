"""Scoring on Beam gives what scoring in one process gives, row by row."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from pyarrow import parquet

from fraud.errors import BadInput
from fraud.features.batch import feature_names
from fraud.features.spec import Features
from fraud.models.specification import InputSpecification
from fraud.pipeline.ingestion import blocks, partitions, reader, scoring, to_score
from fraud.serving.batch import score_table, with_scores
from tests.pipeline.ingestion import test_label_time, transactions
from tests.pipeline.ingestion.test_to_score import INPUTS, last_days
from tests.pipeline.ingestion.transactions import CONFIG
from tests.serving.models import LinearModel


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred rows are divided as if they were millions."""
    for module in (reader, blocks, scoring):
        monkeypatch.setattr(module, "BATCH_ROWS", 37)
    monkeypatch.setattr(blocks, "PARTITION_ROWS", 100)
    monkeypatch.setattr(blocks, "REFERENCE_ROWS", 10)


def load(inputs: InputSpecification, folder: Path) -> LinearModel:
    return LinearModel(inputs, folder.name)


def here(plan_of, inputs: InputSpecification, explain: bool) -> pa.Table:
    """What one process writes."""
    data, history = plan_of
    if history is None:
        table = to_score.read(data, inputs.dataset)
    else:
        table, _ = to_score.read_with_history(data, history, inputs)
    scored = score_table(LinearModel(inputs, "7"), table, explain)
    return with_scores(table, scored, feature_names(inputs.features, inputs.dataset))


def on_beam(plan_of, inputs: InputSpecification, explain: bool, folder: Path) -> list[Path]:
    """The files that workers write, in the order of the input."""
    data, history = plan_of
    if history is None:
        plan = to_score.plan(data, inputs.dataset)
    else:
        plan = to_score.plan_with_history(data, history, inputs)
    folder.mkdir()
    settings = scoring.settings(plan, inputs, str(folder), Path("7"), explain)
    settings = replace(settings, load=partial(load, inputs))
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        scoring.run(pipeline, plan, settings)
    return [Path(part.path) for part in scoring.parts(str(folder))]


def check(plan_of, inputs: InputSpecification, folder: Path, explain: bool = False) -> pa.Table:
    parts = on_beam(plan_of, inputs, explain, folder / "parts")
    assert len(parts) > 1
    found = pa.concat_tables([parquet.read_table(part) for part in parts])
    expected = here(plan_of, inputs, explain)
    assert found.schema == expected.schema
    assert found.combine_chunks() == expected.combine_chunks()
    return found


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("days", [1, 6])
def test_the_history_may_have_the_transactions(tmp_path: Path, days: int, suffix: str) -> None:
    table = transactions.make()
    history = transactions.write_days(table, tmp_path / "history")
    data = transactions.write_file(last_days(table, days), tmp_path / f"today{suffix}")
    found = check((str(data), str(history)), INPUTS, tmp_path, explain=True)
    assert 0 < sum(found["prediction_alert"].to_pylist()) < len(found)


@pytest.mark.parametrize("days", [1, 6])
def test_labels_of_the_history_are_used(tmp_path: Path, days: int) -> None:
    """Of six days, the first labels are known when the last is scored; the history has them."""
    table = transactions.make()
    history = transactions.write_days(table, tmp_path / "history")
    unlabelled = last_days(table, days).drop(["TX_FRAUD", "COUNTRY"])
    data = transactions.write_file(unlabelled, tmp_path / "today.parquet")
    check((str(data), str(history)), INPUTS, tmp_path)


@pytest.mark.parametrize("beside", [True, False])
def test_label_times(tmp_path: Path, beside: bool) -> None:
    table = test_label_time.labelled()
    inputs = replace(INPUTS, dataset=test_label_time.DATASET)
    history = transactions.write_days(table, tmp_path / "history")
    today = last_days(table, 6)
    today = today if beside else today.drop(["TX_FRAUD", "KNOWN_AT"])
    data = transactions.write_file(today, tmp_path / "today.parquet")
    check((str(data), str(history)), inputs, tmp_path)


def test_without_ids_the_history_ends_where_the_transactions_begin(tmp_path: Path) -> None:
    table = transactions.make()
    inputs = replace(INPUTS, dataset=replace(CONFIG.dataset, id=None))
    history = transactions.write_days(table, tmp_path / "history")
    data = transactions.write_file(last_days(table, 2).slice(50), tmp_path / "today.parquet")
    check((str(data), str(history)), inputs, tmp_path)


def test_identifiers_may_be_text_on_one_side_only(tmp_path: Path) -> None:
    table = transactions.make()
    history = transactions.write_days(table, tmp_path / "history")
    today = last_days(table, 1)
    for column in ("CUSTOMER_ID", "TRANSACTION_ID"):
        today = transactions.replaced(today, column, 0, "0001")
    data = transactions.write_file(today, tmp_path / "today.csv")
    check((str(data), str(history)), INPUTS, tmp_path)


def test_a_corrected_transaction_counts_as_it_is_scored(tmp_path: Path) -> None:
    """The history has it with another card, which it must not count for."""
    table = transactions.make()
    history = transactions.write_days(table, tmp_path / "history")
    other = np.roll(last_days(table, 2)["CUSTOMER_ID"].to_numpy(), 1)
    today = last_days(table, 2)
    today = today.set_column(
        today.column_names.index("CUSTOMER_ID"), "CUSTOMER_ID", pa.array(other)
    )
    data = transactions.write_file(today, tmp_path / "today.parquet")
    check((str(data), str(history)), INPUTS, tmp_path)


def test_a_history_of_other_days_is_no_failure(tmp_path: Path) -> None:
    table = transactions.make()
    history = transactions.write_days(transactions.make(100), tmp_path / "history")
    for day in list(history.iterdir())[1:]:
        for file in day.iterdir():
            file.unlink()
        day.rmdir()
    data = transactions.write_days(table, tmp_path / "data")
    check((str(data), str(history)), INPUTS, tmp_path)


@pytest.mark.parametrize("timestamp", [None, "TX_DATETIME"])
def test_a_model_without_features_of_entities(tmp_path: Path, timestamp: str | None) -> None:
    table = transactions.make()
    dataset = replace(CONFIG.dataset, timestamp=timestamp, entities=())
    inputs = InputSpecification(dataset, Features(), 2)
    data = transactions.write_days(table, tmp_path / "data")
    history = str(data) if timestamp else None
    check((str(data), history), inputs, tmp_path)


def test_a_transaction_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    table = transactions.make()
    history = transactions.write_days(table, tmp_path / "history")
    today = last_days(table, 1)
    twice = pa.concat_tables([today, today.slice(3, 1)])
    data = transactions.write_file(twice, tmp_path / "today.parquet")
    with pytest.raises(Exception, match="occurs twice") as raised:
        on_beam((str(data), str(history)), INPUTS, False, tmp_path / "parts")
    message = str(partitions.bad_input_in(raised.value))
    id_ = today["TRANSACTION_ID"][3].as_py()
    assert message == (
        f"today.parquet, row {len(twice)}: TRANSACTION_ID {id_} occurs twice, it was already in "
        "today.parquet, row 4; remove the repetition"
    )


def test_a_bad_value_is_named(tmp_path: Path) -> None:
    table = transactions.make()
    history = transactions.write_days(table, tmp_path / "history")
    today = transactions.replaced(last_days(table, 1), "TX_AMOUNT", 3, 1e12)
    data = transactions.write_file(today, tmp_path / "today.parquet")
    with pytest.raises(Exception, match="TX_AMOUNT") as raised:
        on_beam((str(data), str(history)), INPUTS, False, tmp_path / "parts")
    assert isinstance(partitions.bad_input_in(raised.value), BadInput)

"""The champion's inputs within the eval examples of a run that is configured otherwise."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from fraud.codec import from_json, to_json
from fraud.features.spec import FeatureGroup, Features
from fraud.pipeline.config import Config
from fraud.pipeline.ingestion.source import IngestionPlan, plan_ingestion, with_champion
from fraud.pipeline.windows import Window
from tests.pipeline.ingestion import transactions
from tests.pipeline.ingestion.test_stages import SIZES, divide, single_values
from tests.pipeline.ingestion.transactions import (
    CONFIG,
    day_file,
    ingest,
    with_dataset,
    with_windows,
)

AS_OF = transactions.AS_OF - timedelta(days=1)  # so that a champion may have a longer delay
OURS = replace(CONFIG, features=Features(groups=(FeatureGroup(("count",), (1,)),)))
"""The challenger: few features, which need one day of history."""

EVERY_FAMILY = Features(
    groups=(*Features().groups, FeatureGroup(("smoothed_risk",), (7,))), normal_days=8
)


def planned(data: Path, champion: Config, ours: Config = OURS) -> IngestionPlan:
    as_of = AS_OF if ours.dataset.timestamp else None
    return with_champion(plan_ingestion(str(data), ours, as_of), str(data), ours, champion.inputs)


def embedded(examples: pa.Table, column: str) -> dict[str, list]:
    """The examples within a column of examples."""
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    texts = [text for (text,) in examples[column].to_pylist()]
    batch = ExamplesToRecordBatchDecoder().DecodeBatch(texts)
    return single_values(pa.Table.from_batches([batch]))


def assert_champion_is_fed(
    data: Path, folder: Path, champion: Config, ours: Config = OURS
) -> transactions.Ingested:
    """Asserts that each eval example contains what a run of the champion's would have made."""
    plan = planned(data, champion, ours)
    ingested = ingest(data, folder / "ours", ours, AS_OF, plan=to_json(plan))
    column = champion.inputs.column
    assert ingested.properties["champion_column"] == column
    assert ingested.properties["champion_problem"] == ""
    got = embedded(ingested.splits["eval"], column)

    # As of the day on which the champion's own eval window is the same.
    later = champion.windows.label_delay_days - ours.windows.label_delay_days
    as_of = AS_OF + timedelta(days=later) if ours.dataset.timestamp else None
    own_run = ingest(data, folder / "own", champion, as_of)
    assert own_run.properties["windows"].get("eval") == ingested.properties["windows"].get("eval")
    want = single_values(own_run.splits["eval"])
    assert set(want) - set(got) <= {champion.dataset.id, *champion.dataset.slices}
    assert set(got) >= {*champion.dataset.numeric, *champion.dataset.categorical}
    for name in got:
        assert got[name] == want[name], name
    return ingested


CHAMPIONS = {
    "more features": replace(CONFIG, features=EVERY_FAMILY),
    "parameters": replace(
        CONFIG, features=replace(EVERY_FAMILY, normal_days=2, high_multiple=1.5, prior_risk=0.3)
    ),
    "longer delay": with_windows(label_delay_days=3, train_days=2),
    "no delay": with_windows(label_delay_days=0),
    "other columns": with_dataset(numeric=(), categorical=("AGE", "COUNTRY"), slices=()),
    "roles exchanged": with_dataset(numeric=("MCC",), categorical=("AGE",)),
    "another card": with_dataset(card="TERMINAL_ID"),
    "no features": replace(
        with_dataset(numeric=("AGE", "TERMINAL_ID"), entities=()),
        features=Features(calendar=("hour",), groups=()),
    ),
}


@pytest.mark.parametrize("name", CHAMPIONS)
def test_each_eval_example_contains_what_the_champions_run_would_make(
    tmp_path: Path, name: str
) -> None:
    data = transactions.write_days(transactions.make(2000), tmp_path / "data")
    ingested = assert_champion_is_fed(data, tmp_path, CHAMPIONS[name])
    column = CHAMPIONS[name].inputs.column
    assert not any(column in ingested.splits[split].column_names for split in ("train", "recent"))


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
def test_one_file_gives_the_champion_the_same(tmp_path: Path, suffix: str) -> None:
    data = transactions.write_file(transactions.make(), tmp_path / f"all{suffix}")
    assert_champion_is_fed(data, tmp_path, CHAMPIONS["roles exchanged"])


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_how_rows_are_divided_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int]
) -> None:
    divide(monkeypatch, sizes)
    data = transactions.write_days(transactions.make(), tmp_path / "data")
    assert_champion_is_fed(data, tmp_path, CHAMPIONS["more features"])
    file = transactions.write_file(transactions.make(), tmp_path / "all.parquet")
    assert_champion_is_fed(file, tmp_path / "of one file", CHAMPIONS["more features"])


def test_without_timestamps(tmp_path: Path) -> None:
    data = transactions.write_file(transactions.make(), tmp_path / "all.parquet")
    ours = with_dataset(OURS, timestamp=None)
    champion = with_dataset(timestamp=None, numeric=("AGE", "TERMINAL_ID"), entities=())
    assert_champion_is_fed(data, tmp_path, champion, ours)


def test_the_challengers_own_examples_are_those_of_a_run_without_a_champion(
    tmp_path: Path,
) -> None:
    data = transactions.write_days(transactions.make(), tmp_path / "data")
    plan = planned(data, CHAMPIONS["parameters"])
    with_one = ingest(data, tmp_path / "1", OURS, AS_OF, plan=to_json(plan))
    without = ingest(data, tmp_path / "2", OURS, AS_OF)
    assert without.properties["champion_column"] == ""
    for split, table in without.splits.items():
        assert single_values(with_one.splits[split].select(table.column_names)) == single_values(
            table
        )


def test_the_champions_longer_look_back_is_planned(tmp_path: Path) -> None:
    data = transactions.write_days(transactions.make(), tmp_path / "data")
    ours = plan_ingestion(str(data), OURS, AS_OF)
    plan = planned(data, CHAMPIONS["more features"])
    assert plan.champion is not None and plan.champion.windows is not None
    evaluated = plan.champion.windows.eval
    assert ours.windows is not None and evaluated == ours.windows.eval
    # risk over 30 days after a delay of 2
    assert plan.champion.windows.all_days == Window(
        evaluated.first - timedelta(days=32), evaluated.last
    )
    assert ours.files[0].days[0] > transactions.FIRST_DAY == plan.files[0].days[0]
    assert set(ours.files) < set(plan.files)
    assert (plan.windows, plan.types, plan.fingerprint) == (
        ours.windows,
        ours.types,
        ours.fingerprint,
    )
    assert from_json(IngestionPlan, to_json(plan)) == plan


def test_columns_that_only_the_challenger_reads_are_not_read_from_the_champions_history(
    tmp_path: Path,
) -> None:
    data = transactions.write_days(transactions.make(), tmp_path / "data")
    first = day_file(data, transactions.FIRST_DAY)
    table = transactions.by_day(transactions.make())[transactions.FIRST_DAY]
    transactions.write_file(table.drop(["AGE"]), first)
    champion = with_dataset(CHAMPIONS["more features"], numeric=())
    plan = planned(data, champion)
    assert first.parent.name in plan.files[0].name
    ingested = ingest(data, tmp_path, OURS, AS_OF, plan=to_json(plan))
    assert ingested.properties["champion_column"] == champion.inputs.column


def test_a_column_that_is_gone_is_the_reason_given(tmp_path: Path) -> None:
    table = transactions.make().drop(["AGE"])
    data = transactions.write_days(table, tmp_path / "data")
    ours = with_dataset(OURS, numeric=())
    plan = planned(data, CHAMPIONS["more features"], ours)
    assert plan.champion is None
    assert plan.champion_problem.endswith("transactions.parquet: no column 'AGE'")
    ingested = ingest(data, tmp_path, ours, AS_OF, plan=to_json(plan))
    assert ingested.properties["champion_column"] == ""
    assert ingested.properties["champion_problem"] == plan.champion_problem


def test_a_column_that_neither_model_nor_features_read_may_be_gone(tmp_path: Path) -> None:
    table = transactions.make().drop(["COUNTRY"])
    data = transactions.write_days(table, tmp_path / "data")
    ours = with_dataset(OURS, slices=())
    plan = planned(data, CHAMPIONS["more features"], ours)
    assert plan.champion is not None


def test_days_that_only_the_champion_needs_may_be_empty_only_as_far_as_tolerated(
    tmp_path: Path,
) -> None:
    data = transactions.write_days(transactions.make(), tmp_path / "data")
    gone = transactions.FIRST_DAY + timedelta(days=1)
    day_file(data, gone).unlink()
    ours = replace(OURS, features=Features(groups=()))
    problem = planned(data, CHAMPIONS["more features"], ours).champion_problem
    assert f"no transactions on {gone} in the history window" in problem
    tolerant = replace(ours, windows=replace(ours.windows, max_empty_days=1))
    assert planned(data, CHAMPIONS["more features"], tolerant).champion_problem == ""


def test_values_that_only_the_champion_cannot_read_stop_its_inputs_and_not_the_run(
    tmp_path: Path,
) -> None:
    table = transactions.make()
    data = transactions.write_days(table, tmp_path / "data")
    path = day_file(data, AS_OF - timedelta(days=2))
    day = transactions.by_day(table)[AS_OF - timedelta(days=2)]
    transactions.write_file(transactions.replaced(day, "AGE", 4, 1e300), path)
    ours = with_dataset(OURS, numeric=())
    plan = planned(data, CHAMPIONS["more features"], ours)
    assert plan.champion_problem == ""
    ingested = ingest(data, tmp_path, ours, AS_OF, plan=to_json(plan))
    assert ingested.properties["champion_column"] == ""
    assert "row 5: AGE is 1e+300, beyond" in ingested.properties["champion_problem"]


@pytest.mark.parametrize("champion_has_time", [False, True])
def test_data_with_and_without_timestamps_do_not_serve_each_other(
    tmp_path: Path, champion_has_time: bool
) -> None:
    data = transactions.write_file(transactions.make(), tmp_path / "all.parquet")
    timeless = with_dataset(OURS, timestamp=None)
    champion, ours = (CONFIG, timeless) if champion_has_time else (timeless, OURS)
    problem = planned(data, champion, ours).champion_problem
    assert problem.endswith(f": it was trained with{'' if champion_has_time else 'out'} timestamps")


def test_another_column_of_times_that_moves_rows_between_days_is_the_reason_given(
    tmp_path: Path,
) -> None:
    table = transactions.make()
    shifted = pa.compute.add(table["TX_DATETIME"], pa.scalar(timedelta(days=1)))
    table = table.append_column("BOOKED", shifted)
    data = transactions.write_file(table, tmp_path / "all.parquet")
    plan = planned(data, with_dataset(timestamp="BOOKED"))
    ingested = ingest(data, tmp_path, OURS, AS_OF, plan=to_json(plan))
    assert "BOOKED, puts eval rows outside" in ingested.properties["champion_problem"]

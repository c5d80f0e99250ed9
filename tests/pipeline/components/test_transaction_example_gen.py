"""The component as TFX runs it: launcher, driver, cache, metadata, standard readers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from fraud import codec
from fraud.codec import to_json
from fraud.errors import BadInput
from fraud.models import example_columns
from fraud.pipeline.ingestion.source import (
    IngestionPlan,
    check_columns,
    discover,
    plan,
    plan_ingestion,
)
from tests.pipeline.ingestion import transactions
from tests.pipeline.ingestion.transactions import AS_OF, CONFIG, DAYS, day_file

pytestmark = pytest.mark.e2e

Run = Callable[..., None]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return transactions.write_days(transactions.make(), tmp_path / "data")


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Run:
    """Runs a pipeline of the component and, with `statistics`, StatisticsGen."""
    from tfx import v1 as tfx
    from tfx.orchestration.data_types import RuntimeParameter

    from fraud.pipeline.components.transaction_example_gen import TransactionExampleGen

    def run(as_of: str = "", statistics: bool = False) -> None:
        generated = TransactionExampleGen(
            data=str(data),
            as_of=as_of and RuntimeParameter(name="as-of", ptype=str, default=as_of),
            dataset=to_json(CONFIG.dataset),
            windows=to_json(CONFIG.windows),
            features=to_json(CONFIG.features),
        )
        components: list[Any] = [generated]
        if statistics:
            components.append(tfx.components.StatisticsGen(generated.outputs["examples"]))
        pipeline = tfx.dsl.Pipeline(
            pipeline_name="ingestion",
            pipeline_root=str(tmp_path / "root"),
            components=components,
            enable_cache=True,
            metadata_connection_config=connection(tmp_path),
        )
        tfx.orchestration.LocalDagRunner().run(pipeline)

    return run


def connection(folder: Path) -> Any:
    from tfx import v1 as tfx

    return tfx.orchestration.metadata.sqlite_metadata_connection_config(str(folder / "mlmd.db"))


def executions(folder: Path) -> list[str]:
    """States of the component's executions, in order."""
    from ml_metadata.proto import metadata_store_pb2
    from tfx.orchestration.metadata import Metadata

    with Metadata(connection(folder)) as metadata:
        all_executions = metadata.store.get_executions()
    return [
        metadata_store_pb2.Execution.State.Name(e.last_known_state)
        for e in sorted(all_executions, key=lambda e: e.id)
    ]


def recorded(folder: Path) -> dict[str, str]:
    """The custom properties of the component's last execution."""
    from tfx.orchestration.metadata import Metadata

    with Metadata(connection(folder)) as metadata:
        execution = max(metadata.store.get_executions(), key=lambda execution: execution.id)
    return {name: value.string_value for name, value in execution.custom_properties.items()}


def latest_examples(folder: Path) -> Any:
    from tfx.orchestration.metadata import Metadata
    from tfx.types import artifact_utils

    with Metadata(connection(folder)) as metadata:
        artifact = max(metadata.store.get_artifacts_by_type("Examples"), key=lambda a: a.id)
        (type_,) = metadata.store.get_artifact_types_by_id([artifact.type_id])
    return artifact_utils.deserialize_artifact(type_, artifact)


def test_the_launcher_runs_it_and_standard_components_read_it(tmp_path: Path, run: Run) -> None:
    import tensorflow_data_validation as tfdv
    from tfx.components.util import examples_utils

    run(statistics=True)
    examples = latest_examples(tmp_path)
    assert examples_utils.get_payload_format_string(examples) == "FORMAT_TF_EXAMPLE"
    assert examples_utils.get_file_format(examples) == "tfrecords_gzip"
    ingested = transactions.read_back(examples)
    assert ingested.properties["as_of"] == str(AS_OF)
    rows = {split: table.num_rows for split, table in ingested.splits.items()}
    assert rows == ingested.properties["rows"]
    (written,) = (tmp_path / "root" / "StatisticsGen" / "statistics").iterdir()
    for split, table in ingested.splits.items():
        (path,) = (written / f"Split-{split}").iterdir()
        statistics = tfdv.load_stats_binary(str(path)).datasets[0]
        assert statistics.num_examples == table.num_rows
        names = {feature.path.step[0] for feature in statistics.features}
        assert names == set(table.column_names)
    written_columns = set((tmp_path / "root").rglob("*.arrow"))
    assert {path.parent.parent.name for path in written_columns} == {"columns"}
    for split in rows:
        of_split = {path for path in written_columns if path.parent.name == f"Split-{split}"}
        assert len(of_split) == len(ingested.files[split])


def test_columns_are_read_as_the_same_batches_as_their_examples(tmp_path: Path, run: Run) -> None:
    from fraud.pipeline.components import batched_reading

    run()
    examples = latest_examples(tmp_path)
    files = sorted(Path(examples.uri).glob("Split-*/*.gz"))
    assert all(example_columns.read(str(file)) is not None for file in files)

    def read() -> list[list[pa.RecordBatch]]:
        return [list(batched_reading._read(None, None, 100, str(file))) for file in files]

    from_columns = read()
    shutil.rmtree(Path(examples.uri, "columns"))
    from_examples = read()
    for ours, theirs in zip(from_columns, from_examples, strict=True):
        assert len(ours) == len(theirs) > 0
        assert all(one.equals(other) for one, other in zip(ours, theirs, strict=True))


def test_it_is_cached_until_a_file_of_its_days_changes(
    tmp_path: Path, data: Path, run: Run
) -> None:
    earlier = AS_OF - timedelta(days=1)
    run(str(earlier))
    run(str(earlier))
    assert executions(tmp_path) == ["COMPLETE", "CACHED"]
    os.utime(day_file(data, AS_OF))
    next_day = data / f"date={AS_OF + timedelta(days=1)}" / "transactions.parquet"
    transactions.write_file(transactions.make(5), next_day)
    run(str(earlier))
    assert executions(tmp_path)[2:] == ["CACHED"]
    os.utime(day_file(data, earlier))
    run(str(earlier))
    assert executions(tmp_path)[3:] == ["COMPLETE"]
    run(str(AS_OF))
    assert executions(tmp_path)[4:] == ["COMPLETE"]


def test_the_driver_records_the_plan_in_ml_metadata(tmp_path: Path, data: Path, run: Run) -> None:
    run()
    properties = recorded(tmp_path)
    planned = codec.from_json(IngestionPlan, properties["plan"])
    assert planned == plan_ingestion(str(data), CONFIG, None)
    assert planned.windows is not None and planned.windows.as_of == AS_OF
    assert sum(planned.rows) == transactions.make().num_rows
    assert properties["input_fingerprint"] == planned.fingerprint


def test_command_driver_and_executor_open_each_footer_once_to_plan_and_once_to_read(
    data: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    parquet_file = parquet.ParquetFile

    def counted(*arguments: Any, **options: Any) -> parquet.ParquetFile:
        opened.append(arguments)
        return parquet_file(*arguments, **options)

    monkeypatch.setattr(parquet, "ParquetFile", counted)
    source = discover(str(data), CONFIG.dataset)  # as `fraud-pipeline run` does
    check_columns(source, plan(source, CONFIG, None), CONFIG.dataset)
    assert len(opened) == DAYS
    run()
    assert len(opened) == 2 * DAYS


def test_the_executor_trusts_the_recorded_plan(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fraud.pipeline.components import transaction_example_gen

    recorded_plan = plan_ingestion(str(data), CONFIG, AS_OF)
    monkeypatch.setattr(transaction_example_gen, "plan_ingestion", None)
    ingested = transactions.ingest(data, tmp_path, plan=codec.to_json(recorded_plan))
    assert ingested.properties["as_of"] == str(AS_OF)


@pytest.mark.parametrize("change", ["size", "time", "removed"])
def test_a_file_that_changes_after_the_driver_is_bad_input(
    tmp_path: Path, data: Path, change: str
) -> None:
    recorded_plan = codec.to_json(plan_ingestion(str(data), CONFIG, AS_OF))
    path = day_file(data)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    if change == "removed":
        path.unlink()
    elif change == "size":
        path.write_bytes(path.read_bytes() + b"x")
        os.utime(path, ns=times)
    else:
        os.utime(path, ns=(times[0], times[1] + 1))
    with pytest.raises(BadInput, match=rf"{path.name}: changed after the run was planned; run"):
        transactions.ingest(data, tmp_path, plan=recorded_plan)
    assert not list(tmp_path.rglob("*.gz"))


def test_bad_input_reaches_the_caller_and_the_next_run_succeeds(
    tmp_path: Path, data: Path, run: Run
) -> None:
    path = day_file(data)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(BadInput, match=r"transactions\.parquet: damaged or not Parquet"):
        run()
    path.write_bytes(good)
    table = transactions.by_day(transactions.make())[AS_OF - timedelta(days=7)]
    transactions.write_file(transactions.replaced(table, "TX_FRAUD", 0, 7), path)
    with pytest.raises(BadInput, match="row 1: TX_FRAUD is 7; it must be 1"):
        run()
    assert not list((tmp_path / "root").rglob("*.gz"))
    path.write_bytes(good)
    run()
    assert executions(tmp_path) == ["FAILED", "FAILED", "COMPLETE"]


def test_an_as_of_day_that_is_no_day_is_bad_input(run: Run) -> None:
    with pytest.raises(BadInput, match="--as-of 'yesterday' is not a day; write it as"):
        run("yesterday")

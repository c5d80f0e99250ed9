"""The packaged sample equals the output of its documented command."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fraud.data import statistics
from fraud.data.simulator import simulate
from fraud.data.spec import Simulation
from fraud.errors import BadInput

SAMPLE = Path(statistics.__file__).parent / "sample" / "transactions"


def test_the_sample_is_reproducible_with_the_documented_command():
    """`fraud-pipeline simulate --out data/sample/transactions --seed 1`."""
    days = dict(simulate(Simulation(seed=1)))
    folders = sorted(SAMPLE.iterdir())
    assert [folder.name for folder in folders] == [f"date={day}" for day in days]
    for folder, table in zip(folders, days.values(), strict=True):
        assert pq.ParquetFile(folder / "transactions.parquet").read().equals(table)


def test_the_sample_is_small():
    assert sum(file.stat().st_size for file in SAMPLE.rglob("*.parquet")) < 3e6


def test_statistics_count_the_transactions():
    days, table = statistics.read(SAMPLE)
    shown = statistics.statistics(days, table)
    assert shown["days"] == "80"
    assert shown["transactions"] == f"{len(table):,}"
    frauds = sum(scenario > 0 for scenario in table["TX_FRAUD_SCENARIO"].to_pylist())
    assert shown["fraud"] == f"{frauds / len(table):.3%}"


def test_statistics_are_shown_side_by_side(tmp_path):
    (tmp_path / "other").symlink_to(SAMPLE)
    lines = statistics.table_of([SAMPLE, tmp_path / "other"]).splitlines()
    assert lines[0] == f"|  | {SAMPLE} | {tmp_path / 'other'} |"
    assert all(line.count("|") == 4 for line in lines)
    assert all(line.split("|")[2] == line.split("|")[3] for line in lines[2:])


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(BadInput, match=f"{tmp_path} has no date=YYYY-MM-DD"):
        statistics.read(tmp_path)

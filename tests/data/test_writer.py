import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from fraud.data import writer
from fraud.data.simulator import simulate
from fraud.data.spec import FORMATS, Simulation
from fraud.data.writer import write_days
from fraud.errors import BadInput

SMALL = Simulation(days=3, customers=100, terminals=300)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_contains_the_simulated_transactions(tmp_path, format):
    write_days(SMALL, tmp_path / "out", format)
    names = [f"date=2026-01-0{day}/transactions.{format}" for day in (1, 2, 3)]
    assert files(tmp_path / "out") == names
    for name, (_, table) in zip(names, simulate(SMALL), strict=True):
        path = tmp_path / "out" / name
        if format == "parquet":
            assert pq.ParquetFile(path).read().equals(table)
        else:
            options = pa_csv.ConvertOptions(column_types=table.schema, strings_can_be_null=True)
            assert pa_csv.read_csv(path, convert_options=options).equals(table)


@pytest.mark.parametrize("format", FORMATS)
def test_equal_simulations_give_equal_files(tmp_path, format):
    for name in ("one", "other"):
        write_days(SMALL, tmp_path / name, format)
    for name in files(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_summary_and_progress_count_the_written_transactions(tmp_path):
    seen = []
    written = write_days(SMALL, tmp_path, progress=lambda day, rows: seen.append((day, rows)))
    tables = dict(simulate(SMALL))
    assert seen == [(day, len(table)) for day, table in tables.items()]
    everything = pa.concat_tables(tables.values())
    assert written.folder == tmp_path
    assert written.days == 3
    assert written.transactions == len(everything)
    assert written.frauds == sum(everything["TX_FRAUD"].to_pylist())


def test_existing_days_are_not_overwritten(tmp_path):
    (tmp_path / "date=2026-01-02").mkdir()
    with pytest.raises(BadInput, match=r"date=2026-01-02 exists already"):
        write_days(SMALL, tmp_path)
    assert files(tmp_path) == []


def test_days_can_be_added(tmp_path):
    write_days(SMALL, tmp_path)
    later = Simulation(days=2, customers=100, terminals=300, start=dt.date(2026, 1, 4))
    write_days(later, tmp_path)
    assert len(files(tmp_path)) == 5


def test_an_unknown_format_is_rejected(tmp_path):
    with pytest.raises(BadInput, match="unknown format 'xlsx'; choose one of parquet"):
        write_days(SMALL, tmp_path, "xlsx")


def test_a_day_appears_complete_or_not_at_all(tmp_path, monkeypatch):
    real, calls = writer._write, []

    def stops_in_the_second_day(table, file, format):
        calls.append(file)
        real(table, file, format)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_write", stops_in_the_second_day)
    with pytest.raises(KeyboardInterrupt):
        write_days(SMALL, tmp_path)
    assert [path.name for path in tmp_path.glob("date=*")] == ["date=2026-01-01"]

    # The partial folder does not block the next attempt.
    monkeypatch.setattr(writer, "_write", real)
    write_days(Simulation(days=3, customers=100, start=dt.date(2026, 1, 2)), tmp_path)
    assert len(files(tmp_path)) == 4

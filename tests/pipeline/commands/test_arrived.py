"""A day is complete by its marker or by its number of rows, and never while it is half-written."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from fraud.pipeline import cli
from fraud.pipeline.ingestion import arrival
from fraud.pipeline.windows import Window
from fraud.time import parse_day

DAY = "2018-07-31"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the day, in data that also has the days before and after it."""
    for day in ("2018-07-30", "2018-08-01"):
        whole = tmp_path / f"date={day}"
        whole.mkdir()
        parquet.write_table(table(10), whole / "a.parquet")
        (whole / "_SUCCESS").touch()
    return tmp_path / f"date={DAY}"


def table(rows: int) -> pa.Table:
    """Rows whose text has line breaks: lines are more than rows."""
    return pa.table({"ID": range(rows), "TEXT": ["a\nb"] * rows})


def arrived(folder: Path, *options: str) -> int:
    return cli.main(["arrived", "--data", str(folder.parent), "--day", DAY, *options])


def test_a_day_is_complete_when_its_marker_is_there(folder, capsys):
    assert arrived(folder) == 4
    assert f"date={DAY}: nothing yet" in capsys.readouterr().err
    folder.mkdir()
    parquet.write_table(table(10), folder / "a.parquet")
    assert arrived(folder) == 4
    assert f"date={DAY}: 1 files, but no _SUCCESS yet" in capsys.readouterr().err
    (folder / "_SUCCESS").touch()
    assert arrived(folder) == 0
    assert capsys.readouterr().out == f"{DAY}\n"


def test_a_day_is_complete_from_the_minimum_number_of_rows_on(folder, capsys):
    folder.mkdir()
    parquet.write_table(table(10), folder / "a.parquet")
    csv.write_csv(table(10), folder / "b.csv")
    (folder / "_temporary.csv").write_text("ID\n" + "1\n" * 100)
    assert arrived(folder, "--min-rows", "31") == 4
    assert f"date={DAY}: 20 rows yet, of at least 31" in capsys.readouterr().err
    (folder / "hour=01").mkdir()
    (folder / "hour=01" / "c.csv.gz").write_bytes(gzip.compress(b"ID\n" + b"7\n" * 11))
    assert arrived(folder, "--min-rows", "31") == 0


def test_a_marker_is_enough_for_a_day_with_few_rows(folder):
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    assert arrived(folder, "--min-rows", "31") == 0


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.csv.gz", "a.parquet.tmp"])
def test_a_file_that_is_being_written_is_not_yet_complete(folder, capsys, name):
    folder.mkdir()
    whole = folder / "whole.parquet"
    parquet.write_table(table(10), whole)
    beginnings = {"a.parquet": whole.read_bytes()[:100], "a.csv.gz": gzip.compress(b"ID\n1\n")[:15]}
    (folder / name).write_bytes(beginnings.get(name, b""))
    assert arrived(folder, "--min-rows", "1") == 4
    assert name in capsys.readouterr().err


def test_without_a_day_it_is_that_of_the_newest_folder(folder, capsys):
    assert cli.main(["arrived", "--data", str(folder.parent)]) == 0
    assert capsys.readouterr().out == "2018-08-01\n"


def test_data_may_be_a_uri(folder, capsys):
    uri = folder.parent.as_uri()
    assert cli.main(["arrived", "--data", uri, "--day", "2018-07-30", "--min-rows", "10"]) == 0
    assert cli.main(["arrived", "--data", uri, "--day", DAY]) == 4
    assert f"{uri}/date={DAY}" in capsys.readouterr().err


def test_a_day_has_changed_when_its_files_have_but_not_by_its_marker(folder):
    folder.mkdir()
    parquet.write_table(table(10), folder / "a.parquet")
    days = parse_day(DAY), parse_day("2018-07-30")

    def now():
        return arrival.fingerprints(str(folder.parent), Window(days[1], days[0]))

    first = now()
    assert {*first} == {*days}
    for other in ("_SUCCESS", ".a.parquet.crc", "_temporary"):
        (folder / other).mkdir() if other == "_temporary" else (folder / other).touch()
    (folder / "_temporary" / "b.parquet").touch()
    assert now() == first
    seen = [first[days[0]]]
    parquet.write_table(table(11), folder / "a.parquet")
    seen.append(now()[days[0]])
    os.utime(folder / "a.parquet", (1, 1))
    seen.append(now()[days[0]])
    (folder / "a.parquet").rename(folder / "b.parquet")
    seen.append(now()[days[0]])
    assert len({*seen}) == 4 and now()[days[1]] == first[days[1]]


def test_only_day_folders_can_be_awaited(tmp_path, capsys):
    assert cli.main(["arrived", "--data", str(tmp_path)]) == 4
    (tmp_path / "all.csv").write_text("ID\n1\n")
    for data in (tmp_path / "all.csv", tmp_path / "none"):
        assert cli.main(["arrived", "--data", str(data), "--day", DAY]) == 2
        assert "only days in folders date=YYYY-MM-DD can be awaited" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["arrived", "--data", str(tmp_path), "--min-rows", "0"])


def test_a_file_system_that_fails_is_not_bad_input(folder, capsys, monkeypatch):
    def fails(*_):
        raise OSError("no route to host")

    monkeypatch.setattr(arrival, "check", fails)
    assert arrived(folder) == 1
    assert "cannot be read: no route to host" in capsys.readouterr().err


def test_an_answer_is_cheap(repository):
    """A sensor asks every few minutes: of the heavy packages, pyarrow alone is loaded."""
    script = (
        "import sys; from fraud.pipeline import cli\n"
        f"cli.main(['arrived', '--data', {str(repository / 'data/sample/transactions')!r}, "
        "'--min-rows', '1'])\n"
        "heavy = {'tfx', 'tensorflow', 'apache_beam', 'pandas', 'ml_metadata'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=repository, check=True
    )
    assert done.stdout.splitlines() == ["2026-03-21", "[]"]

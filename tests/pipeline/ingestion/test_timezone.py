"""Data of a timezone: days are local, epochs are UTC, and every form of a time is understood."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from fraud.errors import BadInput
from fraud.features.spec import Features
from fraud.pipeline.config import Config, WindowLengths
from fraud.pipeline.ingestion.source import discover, plan
from tests.pipeline.ingestion import transactions
from tests.pipeline.ingestion.transactions import AS_OF, CONFIG, ingest, read, with_dataset

TOKYO = with_dataset(
    replace(CONFIG, features=replace(Features(), calendar=("hour", "weekday", "weekend", "night"))),
    timezone="Asia/Tokyo",
)
AHEAD = timedelta(hours=9)


def with_times(table: pa.Table, times: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index("TX_DATETIME"), "TX_DATETIME", times)


def zoned(local: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.assume_timezone(local, "Asia/Tokyo")


def epochs(local: pa.ChunkedArray) -> pa.Array:
    seconds = pc.divide(zoned(local).cast(pa.timestamp("us", "UTC")).cast(pa.int64()), 1_000_000)
    return seconds.combine_chunks()


def texts(local: pa.ChunkedArray) -> pa.Array:
    return pa.array([f"{time.isoformat()}+09:00" for time in local.to_pylist()])


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        (lambda local: local, ".parquet"),
        (lambda local: local, ".csv"),
        (zoned, ".parquet"),
        (texts, ".csv"),
        (epochs, ".csv"),
    ],
    ids=["naive", "naive text", "zoned", "zoned text", "epochs"],
)
@pytest.mark.parametrize("in_day_folders", [True, False])
def test_local_days_hold_what_the_same_clock_times_hold_in_utc(
    tmp_path: Path, form, suffix, in_day_folders
) -> None:
    local = transactions.make()
    in_utc = ingest(
        transactions.write_days(local, tmp_path / "utc"),
        tmp_path / "1",
        with_dataset(TOKYO, timezone="UTC"),
    )
    data = tmp_path / "tokyo"
    for day, rows in transactions.by_day(local).items():
        changed = with_times(rows, form(rows["TX_DATETIME"]))
        folder = data / f"date={day}" if in_day_folders else data
        transactions.write_file(changed, folder / f"{day}{suffix}")
    in_tokyo = ingest(data, tmp_path / "2", TOKYO)
    # Where clocks may change, features may look back a day further.
    in_utc.properties["history"]["needed"] += 1
    assert in_tokyo.properties == in_utc.properties
    for split, table in in_utc.splits.items():
        times = [[time - AHEAD.seconds for time in row] for row in table["TX_DATETIME"].to_pylist()]
        assert in_tokyo.splits[split]["TX_DATETIME"].to_pylist() == times
        assert in_tokyo.splits[split].drop(["TX_DATETIME"]) == table.drop(["TX_DATETIME"])


def test_a_row_in_the_folder_of_its_utc_day_is_refused(tmp_path: Path) -> None:
    local = transactions.make()
    data = tmp_path / "data"
    utc = pc.subtract(local["TX_DATETIME"], pa.scalar(AHEAD, pa.duration("us")))
    for day, rows in transactions.by_day(with_times(local, utc)).items():
        changed = with_times(rows, pc.assume_timezone(rows["TX_DATETIME"], "UTC"))
        transactions.write_file(changed, data / f"date={day}" / "day.parquet")
    with pytest.raises(BadInput, match=r"row \d+: TX_DATETIME is .* \(Asia/Tokyo\), but its fold"):
        read(data, TOKYO)


def in_berlin(tmp_path: Path, times: list[str], days: int = 3) -> tuple[Path, Config]:
    """A file with these times and those of two transactions on each other day, and its config."""
    last = date.fromisoformat(times[0][:10])
    others = [f"{last - timedelta(days=n)} {h}:00:00" for n in range(1, days + 1) for h in (10, 11)]
    rows = ["at,amount,fraud", *(f"{time},{n},{n % 2}" for n, time in enumerate(others + times))]
    path = tmp_path / "berlin.csv"
    path.write_text("\n".join(rows) + "\n")
    dataset = replace(
        CONFIG.dataset, timestamp="at", amount="amount", label="fraud", id=None, entities=()
    )
    lengths = WindowLengths(train_days=1, eval_days=1, label_delay_days=1)
    config = Config(dataset=dataset, windows=lengths)
    bare = with_dataset(config, numeric=(), categorical=(), slices=(), timezone="Europe/Berlin")
    return path, bare


def instants(path: Path, config: Config, as_of: str) -> list[str]:
    source = discover(str(path), config.dataset)
    assert plan(source, config, date.fromisoformat(as_of)) is not None
    table = transactions.read(path, config, date.fromisoformat(as_of))
    return np.datetime_as_string(table["at"].to_numpy(), "m").tolist()


def test_a_time_that_clocks_show_twice_is_the_earlier_one(tmp_path: Path) -> None:
    path, config = in_berlin(
        tmp_path, ["2026-10-25 01:30:00", "2026-10-25 02:30:00", "2026-10-25 03:30:00"]
    )
    assert instants(path, config, "2026-10-25")[-3:] == [
        "2026-10-24T23:30",
        "2026-10-25T00:30",
        "2026-10-25T02:30",
    ]


def test_a_time_with_an_offset_is_never_ambiguous(tmp_path: Path) -> None:
    times = ["2026-10-25 02:30:00+02:00", "2026-10-25 02:30:00+01:00"]
    path, config = in_berlin(tmp_path, times)
    text = path.read_text().replace(":00:00,", ":00:00Z,")
    path.write_text(text)
    assert instants(path, config, "2026-10-25")[-2:] == ["2026-10-25T00:30", "2026-10-25T01:30"]


def test_a_time_that_clocks_skip_is_refused(tmp_path: Path) -> None:
    path, config = in_berlin(tmp_path, ["2026-03-29 01:59:59", "2026-03-29 02:30:00"])
    with pytest.raises(BadInput) as refused:
        instants(path, config, "2026-03-29")
    assert str(refused.value) == (
        "berlin.csv, line 9: at is '2026-03-29 02:30:00', which clocks in Europe/Berlin skip; "
        "correct it, write the time with its offset, or correct dataset.timezone"
    )


def test_a_date_is_the_beginning_of_its_day_even_if_clocks_skip_midnight(tmp_path: Path) -> None:
    """Clocks in Beirut went from 23:59:59 on 28 March 2026 to 01:00 on the 29th."""
    times = pa.array([date(2026, 3, 25) + timedelta(days=n) for n in range(5)])
    table = pa.table({"at": times, "amount": range(5), "fraud": [0, 1, 0, 1, 0]})
    _, config = in_berlin(tmp_path, ["2026-03-29 12:00:00"])
    path = transactions.write_file(table, tmp_path / "beirut.parquet")
    local = with_dataset(config, timezone="Asia/Beirut")
    assert instants(path, local, "2026-03-29")[-2:] == ["2026-03-27T22:00", "2026-03-28T22:00"]
    assert discover(str(path), local.dataset).days[-1] == date(2026, 3, 29)


def test_the_as_of_day_is_the_last_local_day(tmp_path: Path) -> None:
    table = transactions.make()
    path = transactions.write_file(table, tmp_path / "all.parquet")
    behind = with_dataset(timezone="America/New_York")
    zoned_times = pc.assume_timezone(table["TX_DATETIME"], "UTC")
    late = transactions.write_file(with_times(table, zoned_times), tmp_path / "late.parquet")
    assert discover(str(path), behind.dataset).days[-1] == AS_OF
    assert discover(str(path), behind.dataset).days[0] == transactions.FIRST_DAY
    in_utc_the_first_evening_is_the_day_before = discover(str(late), behind.dataset).days[0]
    assert in_utc_the_first_evening_is_the_day_before == transactions.FIRST_DAY - timedelta(days=1)

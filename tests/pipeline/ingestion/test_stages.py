"""Whole ingestions of small data, against the same features computed in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import parquet

from fraud.errors import BadInput
from fraud.features.batch import add_features, feature_names
from fraud.features.spec import FeatureGroup, Features
from fraud.pipeline.config import Config, WindowLengths
from fraud.pipeline.ingestion import blocks, partitions, reader, stages
from fraud.pipeline.windows import Window, windows_for
from tests.pipeline.ingestion import transactions
from tests.pipeline.ingestion.transactions import AS_OF, CONFIG, ingest

TRAIN = Window(AS_OF - timedelta(days=8), AS_OF - timedelta(days=6))
EVAL = Window(AS_OF - timedelta(days=3), AS_OF - timedelta(days=2))
RECENT = Window(AS_OF - timedelta(days=1), AS_OF)
EPOCH = datetime(1970, 1, 1)
SPLITS = {"train": TRAIN, "eval": EVAL, "recent": RECENT}


def expected(
    table: pa.Table, window: Window, config: Config = CONFIG, as_of: date = AS_OF
) -> dict[str, list]:
    """What the examples of a window must hold, computed in memory, in table order."""
    dataset, delay = config.dataset, config.windows.label_delay_days
    days = pc.cast(table["TX_DATETIME"], pa.date32())
    unknown = pc.greater(days, as_of - timedelta(days=delay))
    labels = pc.if_else(unknown, None, table["TX_FRAUD"])
    index = table.schema.get_field_index("TX_FRAUD")
    known = table.set_column(index, "TX_FRAUD", labels).select(dataset.columns)
    full = add_features(known, dataset, config.features, delay)
    within = pc.and_(pc.greater_equal(days, window.first), pc.less_equal(days, window.last))
    rows = full.filter(within)
    columns = {}
    for name in rows.column_names:
        column = rows[name]
        if name == dataset.timestamp:
            values: list[Any] = [
                int(v.timestamp()) for v in pc.assume_timezone(column, "UTC").to_pylist()
            ]
        elif name in (*dataset.categorical, *dataset.slices):
            values = [str(v).encode() for v in column.to_pylist()]
        elif name in (dataset.id, dataset.label, *dataset.entities):
            values = [v.encode() if isinstance(v, str) else v for v in column.to_pylist()]
        else:
            values = [
                None if v is None or np.isnan(v) else float(np.float32(v))
                for v in column.to_pylist()
            ]
        columns[name] = values
    return columns


def single_values(table: pa.Table) -> dict[str, list]:
    """Columns of examples with at most one value a row, None where there is none."""
    return {
        name: [values[0] if values else None for values in table[name].to_pylist()]
        for name in table.column_names
    }


def assert_ingested(
    ingested: transactions.Ingested, table: pa.Table, config: Config = CONFIG
) -> None:
    for split, window in SPLITS.items():
        want = expected(table, window, config)
        if split == "recent":
            del want[config.dataset.label]
        got = single_values(ingested.splits[split])
        assert set(got) == set(want)
        for name in want:
            assert got[name] == want[name], (split, name)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
def test_examples_are_the_columns_and_features_of_the_windows(tmp_path: Path, suffix: str) -> None:
    table = transactions.make()
    data = transactions.write_days(table, tmp_path / "data", suffix)
    ingested = ingest(data, tmp_path)
    assert_ingested(ingested, table)
    rows = {split: len(expected(table, window)["MCC"]) for split, window in SPLITS.items()}
    assert ingested.properties["rows"] == rows
    assert ingested.properties["as_of"] == str(AS_OF)
    assert ingested.properties["windows"] == {
        split: [str(window.first), str(window.last)] for split, window in SPLITS.items()
    }
    assert ingested.properties["positives"] == {
        "train": sum(expected(table, TRAIN)["TX_FRAUD"]),
        "eval": sum(expected(table, EVAL)["TX_FRAUD"]),
        "recent": 0,
    }


def test_excluded_days_are_in_no_split_but_in_the_history_of_features(tmp_path: Path) -> None:
    table = transactions.make()
    data = transactions.write_days(table, tmp_path / "data", ".parquet")
    days = (TRAIN.last, EVAL.first)
    without = replace(CONFIG, windows=replace(CONFIG.windows, excluded_days=days))
    some, everything = ingest(data, tmp_path / "1", without), ingest(data, tmp_path / "2")
    for split in SPLITS:
        want, got = single_values(everything.splits[split]), single_values(some.splits[split])
        of_row = [EPOCH + timedelta(seconds=t) for t in want[CONFIG.dataset.timestamp]]
        kept = [row for row, time in enumerate(of_row) if time.date() not in days]
        assert (len(kept) < len(of_row)) == (split != "recent")
        assert got == {name: [values[row] for row in kept] for name, values in want.items()}


@pytest.mark.parametrize("single_file", [False, True])
def test_it_records_how_much_of_the_features_history_there_is(
    tmp_path: Path, single_file: bool
) -> None:
    table = transactions.make()
    write = transactions.write_file if single_file else transactions.write_days
    data = write(table, tmp_path / ("all.csv" if single_file else "data"))
    before = (TRAIN.first - transactions.FIRST_DAY).days
    assert ingest(data, tmp_path / "1").properties["history"] == {"available": before, "needed": 32}
    count = Features(groups=(FeatureGroup(("count",), (2,)),))
    enough = ingest(data, tmp_path / "2", replace(CONFIG, features=count))
    assert enough.properties["history"] == {"available": 2, "needed": 2}
    none = ingest(data, tmp_path / "3", replace(CONFIG, features=Features(groups=())))
    assert none.properties["history"] == {}


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_one_file_gives_the_same_as_day_folders(tmp_path: Path, suffix: str) -> None:
    table = transactions.make()
    file = transactions.write_file(table, tmp_path / f"all{suffix}")
    assert_ingested(ingest(file, tmp_path), table)


SIZES = {
    "blocks of one chunk": {"REFERENCE_ROWS": 1},
    "blocks of several chunks": {"REFERENCE_ROWS": 10},
    "partitions bit by bit": {"REFERENCE_ROWS": 10, "LARGEST_PARTITION": 1},
    "partitions row by row": {"REFERENCE_ROWS": 1, "LARGEST_PARTITION": 0},
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_how_rows_are_divided_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int]
) -> None:
    table = transactions.make()
    divide(monkeypatch, sizes)
    for data in (
        transactions.write_days(table, tmp_path / "data"),
        transactions.write_file(table, tmp_path / "all.parquet"),
    ):
        folder = tmp_path / f"of {data.name}"
        ingested = ingest(data, folder)
        assert_ingested(ingested, table)
        shards = ingested.files["train"]
        assert len(shards) > 6 if sizes["REFERENCE_ROWS"] == 1 else 1 < len(shards) < 6
        assert shards[0] == f"data_tfrecord-00000-of-{len(shards):05d}.gz"


def test_a_skewed_entity_is_computed_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine of ten rows are of one terminal; no more than a part of them is in memory."""
    table = transactions.make(3000)
    terminal = np.where(np.arange(3000) % 10, 5, table["TERMINAL_ID"])
    index = table.schema.get_field_index("TERMINAL_ID")
    table = table.set_column(index, "TERMINAL_ID", pa.array(terminal))
    most: list[int] = []
    compute = partitions.entity_features

    def watched(spec: Any, dataset: Any, entity: str, keys: Any, *rest: Any) -> Any:
        most.append(len(keys))
        return compute(spec, dataset, entity, keys, *rest)

    divide(monkeypatch, {"REFERENCE_ROWS": 10, "LARGEST_PARTITION": 4})
    monkeypatch.setattr(partitions, "entity_features", watched)
    # Without risk, which looks back longer than there is data.
    count = Features(groups=(FeatureGroup(("count", "mean"), (1,)),))
    config = replace(CONFIG, features=count)
    ingested = ingest(transactions.write_days(table, tmp_path / "data"), tmp_path, config)
    assert_ingested(ingested, table, config)
    partition_rows = blocks.ShuffleSizes.of(2500).partition_rows
    assert max(most) <= 4 * partition_rows < 0.9 * 2500


def divide(monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int]) -> None:
    """Divides small data as if it were large."""
    for module in (reader, blocks):
        monkeypatch.setattr(module, "BATCH_ROWS", 37)
    monkeypatch.setattr(blocks, "PARTITION_ROWS", 100)
    for name, value in sizes.items():
        monkeypatch.setattr(stages if name == "LARGEST_PARTITION" else blocks, name, value)


def test_references_grow_with_the_rows_and_not_with_their_square() -> None:
    references = {}
    for exponent in range(4, 13):
        rows = 10**exponent
        sizes = blocks.ShuffleSizes.of(rows)
        references[rows] = -(-rows // sizes.block_rows) * sizes.partitions
        assert sizes.block_rows >= 32_768 and sizes.partition_rows >= 200_000
    assert references[10**4] == 1
    for rows, count in references.items():
        assert count <= 1 + 1.1 * rows / 1_000
    # Memory grows with the square root.
    assert blocks.ShuffleSizes.of(10**9).block_rows == 10**6


DAY = np.timedelta64(1, "D")


@pytest.mark.parametrize(
    ("days", "look_back", "most_rows", "expected"),
    [
        ([0, 1, 2, 3, 4, 5], 0, 2, [(0, 2), (2, 4), (4, 6)]),
        # With two rows of history, two new ones each.
        ([0, 1, 2, 3, 4, 5], 2, 4, [(0, 4), (4, 6)]),
        # As many as its history, however few are allowed.
        ([0, 1, 2, 3, 4, 5, 6], 9, 1, [(0, 1), (1, 2), (2, 4), (4, 7)]),
        ([0, 0, 0, 1, 1, 2], 0, 2, [(0, 1), (1, 2), (2, 3)]),
        ([3, 3, 3], 0, 1, [(3, 4)]),
        ([], 1, 1, []),
    ],
)
def test_intervals(
    days: list[int], look_back: int, most_rows: int, expected: list[tuple[int, int]]
) -> None:
    times = np.array(days, "datetime64[D]").astype("datetime64[us]")
    seen = list(partitions.intervals(times, look_back * DAY, most_rows))
    assert [(first.astype("datetime64[D]").astype(int), after(end)) for first, end in seen] == (
        expected
    )


def after(end: np.datetime64) -> int:
    """The first whole day from a time on."""
    return int(-(-(end - np.datetime64(0, "us")) // DAY))


def test_small_files_share_a_shard(tmp_path: Path) -> None:
    data = transactions.write_days(transactions.make(), tmp_path / "data")
    ingested = ingest(data, tmp_path)
    assert {split: len(names) for split, names in ingested.files.items()} == {
        "train": 1,
        "eval": 1,
        "recent": 1,
    }


def test_text_keys_have_the_features_of_number_keys(tmp_path: Path) -> None:
    table = transactions.make()
    for name in ("CUSTOMER_ID", "TERMINAL_ID", "TRANSACTION_ID"):
        text = pc.binary_join_element_wise("key ", table[name].cast(pa.string()), "")
        table = table.set_column(table.schema.get_field_index(name), name, text)
    data = transactions.write_days(table, tmp_path / "data")
    ingested = ingest(data, tmp_path)
    assert_ingested(ingested, table)
    assert ingested.splits["train"]["CUSTOMER_ID"][0].as_py()[0].startswith(b"key ")


def test_rows_of_a_day_in_any_order_have_the_same_features(tmp_path: Path) -> None:
    table = transactions.make()
    order = np.random.default_rng(1).permutation(table.num_rows)
    shuffled = table.take(pa.array(order))
    data = transactions.write_days(shuffled, tmp_path / "data")
    train = ingest(data, tmp_path).splits["train"]
    want = expected(table, TRAIN)
    got = single_values(train)
    rows = np.argsort(got["TRANSACTION_ID"])
    for name in want:
        assert [got[name][row] for row in rows] == want[name], name


def test_labels_younger_than_the_delay_change_nothing(tmp_path: Path) -> None:
    table = transactions.make()
    first = ingest(transactions.write_days(table, tmp_path / "a"), tmp_path / "1")
    unknown = pc.greater(pc.cast(table["TX_DATETIME"], pa.date32()), AS_OF - timedelta(days=2))
    other = pc.if_else(unknown, pc.subtract(1, table["TX_FRAUD"]), table["TX_FRAUD"])
    changed = table.set_column(table.schema.get_field_index("TX_FRAUD"), "TX_FRAUD", other)
    second = ingest(transactions.write_days(changed, tmp_path / "b"), tmp_path / "2")
    assert first.splits == second.splits


def test_days_without_label_column_are_fine_while_the_label_is_not_known(tmp_path: Path) -> None:
    table = transactions.make()
    data = transactions.write_days(table, tmp_path / "data")
    for day in RECENT:
        path = transactions.day_file(data, day)
        transactions.write_file(transactions.by_day(table)[day].drop(["TX_FRAUD"]), path)
    assert_ingested(ingest(data, tmp_path), table)


def test_a_delay_of_zero_has_no_recent_split(tmp_path: Path) -> None:
    config = transactions.with_windows(label_delay_days=0)
    data = transactions.write_days(transactions.make(), tmp_path / "data")
    assert set(ingest(data, tmp_path, config).splits) == {"train", "eval"}


def test_without_timestamp_rows_are_split_by_a_hash_of_the_id(tmp_path: Path) -> None:
    table = transactions.make(3000)
    config = transactions.with_dataset(timestamp=None)
    path = transactions.write_file(table, tmp_path / "all.parquet")
    ingested = ingest(path, tmp_path / "1", config, as_of=None)
    ids = {
        split: single_values(ingested.splits[split])["TRANSACTION_ID"] for split in ingested.splits
    }
    assert set(ids) == {"train", "eval"}
    assert sorted(ids["train"] + ids["eval"]) == list(range(3000))
    assert 0.17 < len(ids["eval"]) / 3000 < 0.23
    assert ingested.properties["held_out"] == {"columns": ["TRANSACTION_ID"], "percent": 20}
    # More rows, in several files and another order: every row stays in its split.
    more = transactions.make(4000).take(pa.array(np.arange(4000)[::-1]))
    folder = tmp_path / "parts"
    transactions.write_file(more.slice(0, 1500), folder / "a.csv")
    transactions.write_file(more.slice(1500), folder / "b.csv")
    again = ingest(folder, tmp_path / "2", config, as_of=None)
    assert set(ids["eval"]) == {
        i for i in single_values(again.splits["eval"])["TRANSACTION_ID"] if i < 3000
    }
    assert "CUSTOMER_ID_count_1d" not in ingested.splits["train"].column_names


def test_without_timestamp_and_id_equal_rows_are_in_the_same_split(tmp_path: Path) -> None:
    table = pa.concat_tables([transactions.make(500), transactions.make(500)])
    config = transactions.with_dataset(timestamp=None, id=None)
    path = transactions.write_file(table, tmp_path / "all.parquet")
    ingested = ingest(path, tmp_path, config, as_of=None)
    rows = {
        split: {str(row) for row in ingested.splits[split].to_pylist()} for split in ingested.splits
    }
    assert ingested.properties["rows"]["train"] + ingested.properties["rows"]["eval"] == 1000
    assert rows["eval"] and not rows["train"] & rows["eval"]
    assert ingested.properties["held_out"]["columns"] == list(config.dataset.columns)


def test_a_dataset_without_entities_or_amount(tmp_path: Path) -> None:
    table = transactions.make()
    config = transactions.with_dataset(entities=(), amount=None, id=None)
    data = transactions.write_days(table, tmp_path / "data")
    train = ingest(data, tmp_path, config).splits["train"]
    assert set(train.column_names) == {
        "TX_DATETIME", "AGE", "MCC", "COUNTRY", "TX_FRAUD", "weekend", "night",
    }  # fmt: skip


def test_two_ingestions_are_equal_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    divide(monkeypatch, SIZES["partitions bit by bit"] | {"REFERENCE_ROWS": 2})
    data = transactions.write_days(transactions.make(), tmp_path / "data")
    written = []
    for run in ("1", "2"):
        ingest(data, tmp_path / run)
        folder = tmp_path / run / "examples"
        written.append({f.relative_to(folder): f.read_bytes() for f in folder.rglob("*.gz")})
    assert len(written[0]) > 6
    assert written[0] == written[1]


def test_bad_input_is_extracted_from_what_runners_raise() -> None:
    message = "a.csv, line 3: TX_FRAUD is 2"
    text = f"""Traceback (most recent call last):
fraud.errors.BadInput: {message}

During handling of the above exception, another exception occurred:

fraud.errors.BadInput: {message} [while running 'Read/ParDo(ReadBlocks)']
"""
    for error in (RuntimeError(text), BadInput(f"{message} [while running 'Read']")):
        bad_input = partitions.bad_input_in(error)
        assert type(bad_input) is BadInput and str(bad_input) == message
    assert partitions.bad_input_in(RuntimeError("fraud.errors: no more space")) is None


@pytest.mark.e2e
def test_handbook_features_are_those_of_the_whole_table(tmp_path: Path, handbook: Path) -> None:
    config = replace(Config(), windows=WindowLengths(train_days=2, eval_days=1))
    as_of = date(2018, 5, 10)
    ingested = ingest(handbook, tmp_path, config, as_of)
    days = sorted(path for path in handbook.glob("date=*") if path.name <= f"date={as_of}")
    table = pa.concat_tables(
        parquet.read_table(str(path / "transactions.parquet")) for path in days
    )
    windows = windows_for(as_of, train_days=2, eval_days=1, label_delay_days=7)
    for split, window in windows.splits().items():
        want = expected(table, window, config, as_of)
        got = single_values(ingested.splits[split])
        for name in ("TRANSACTION_ID", *feature_names(config.features, config.dataset)):
            assert got[name] == want[name], (split, name)

"""The prediction log: written in the background, read by day."""

import fcntl
import hashlib
import hmac
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from fraud.errors import BadInput, FraudPipelineError
from fraud.features.spec import Dataset
from fraud.serving.log_writer import KEY, LogWriter, Scored, copy_log
from fraud.serving.prediction_log import PredictionLog
from fraud.serving.spec import PredictionLogSettings

DATASET = Dataset(
    timestamp="time",
    amount="amount",
    label="fraud",
    id="id",
    entities=("card",),
    categorical=("channel",),
    timezone="Europe/Berlin",
)


def scored(
    first=0, rows=2, features=("night", "card_count_1d"), start="2026-03-01T22:30", **others
):
    """Transactions an hour apart; of two, the second is on the next day in Berlin."""
    times = np.datetime64(start, "us") + np.arange(rows) * np.timedelta64(1, "h")
    columns = {
        "id": pa.array([f"{first + row:04}" for row in range(rows)]),
        "time": pa.array(times),
        "card": pa.array(["007"] * rows),
        "amount": pa.array([12.5] * rows, pa.float64()),
        "channel": pa.array(["web"] * rows),
    }
    matrix = np.arange(rows * len(features), dtype=np.float32).reshape(rows, -1)
    scores = np.linspace(0.25, 0.75, rows, dtype=np.float32)
    outcomes = np.array(["new"] * rows)
    alerts = scores > 0.5
    return Scored(columns, features, matrix, "1700000000", scores, alerts, outcomes, 3.5, **others)


def write(folder, *batches, **settings):
    writer = LogWriter(folder, PredictionLogSettings(**settings), DATASET)
    for batch in batches:
        writer.append(batch)
    writer.close()
    return writer


def test_predictions_are_read_back_by_the_day_of_their_transaction(tmp_path):
    before = np.datetime64(datetime.now(timezone.utc).replace(tzinfo=None), "us")
    shadow = scored(2, shadow_version="challenger", shadow_scores=np.float32([0.5, 0.25]))
    writer = write(tmp_path, scored(), shadow, scored(4, canary=True))
    assert (writer.written, writer.dropped) == (6, 0)
    log = PredictionLog(tmp_path)
    assert log.days() == (date(2026, 3, 1), date(2026, 3, 2))
    everything = log.read()
    assert everything.transactions["id"].to_pylist() == "0000 0002 0004 0001 0003 0005".split()
    second = log.read(date(2026, 3, 2), date(2026, 3, 2))
    assert len(second) == 3
    assert second.transactions.column_names == ["id", "time", "card", "amount", "channel"]
    assert second.transactions["card"].to_pylist() == ["007"] * 3
    assert second.transactions["time"][0].as_py() == datetime(
        2026, 3, 1, 23, 30, tzinfo=timezone.utc
    )
    assert second.features.to_pydict() == {"night": [2.0] * 3, "card_count_1d": [3.0] * 3}
    assert second.version.tolist() == ["1700000000"] * 3
    assert second.score.tolist() == [0.75] * 3
    assert second.alert.tolist() == [True] * 3
    assert second.outcome.tolist() == ["new"] * 3
    assert second.canary.tolist() == [False, False, True]
    assert second.shadow_version.tolist() == ["", "challenger", ""]
    np.testing.assert_array_equal(second.shadow_score, np.float32([np.nan, 0.25, np.nan]))
    assert second.latency_ms.tolist() == [3.5] * 3
    assert (second.time >= before).all()


def test_what_is_undefined_is_null_not_nan(tmp_path):
    batch = scored()
    batch.features[1, 0] = np.nan
    write(tmp_path, batch)
    assert PredictionLog(tmp_path).read().features["night"].to_pylist() == [0.0, None]


def test_versions_with_other_features_are_read_together(tmp_path):
    write(tmp_path, scored(), scored(2, features=("hour",)), scored(4))
    features = PredictionLog(tmp_path).read(date(2026, 3, 2)).features.to_pydict()
    assert features["hour"].count(None) == 2
    assert features["night"].count(None) == features["card_count_1d"].count(None) == 1
    assert len(list(tmp_path.glob("date=2026-03-02/*.parquet"))) == 2


def test_versions_with_the_same_features_and_other_columns_are_logged_side_by_side(tmp_path):
    """Such as a challenger that reads one more category, in the same flush as the live version."""

    def with_country(first):
        more = {"country": pa.array(["DE", None])}
        batch = scored(first)
        return replace(batch, columns={**batch.columns, **more})

    def without_channel(first):
        batch = scored(first)
        columns = {name: values for name, values in batch.columns.items() if name != "channel"}
        return replace(batch, columns=columns)

    batches = [scored(), with_country(2), without_channel(4), scored(6), with_country(8)]
    writer = write(tmp_path, *batches, flush_seconds=100)
    assert (writer.written, writer.dropped) == (10, 0)
    read = PredictionLog(tmp_path).read().transactions
    ids = read["id"].to_pylist()
    of_id = dict(zip(ids, read["country"].to_pylist(), strict=True))
    assert sorted(ids) == [f"{number:04}" for number in range(10)]
    assert {id_ for id_, country in of_id.items() if country == "DE"} == {"0002", "0008"}
    channels = dict(zip(ids, read["channel"].to_pylist(), strict=True))
    assert {id_ for id_, channel in channels.items() if channel is None} == {"0004", "0005"}


@pytest.mark.parametrize("text_first", [False, True])
def test_a_column_that_is_a_number_in_one_version_and_a_category_in_another_is_text(
    tmp_path, text_first
):
    def with_code(first, codes):
        batch = scored(first)
        return replace(batch, columns={**batch.columns, "code": codes})

    batches = [with_code(0, pa.array([7.0, 5.5])), with_code(2, pa.array(["7", "web"])), scored(4)]
    write(tmp_path, *(batches[i] for i in ((1, 0, 2) if text_first else (0, 1, 2))))
    read = PredictionLog(tmp_path).read().transactions
    codes = dict(zip(read["id"].to_pylist(), read["code"].to_pylist(), strict=True))
    expected = ["7", "5.5", "7", "web", None, None]
    assert codes == {f"{number:04}": code for number, code in enumerate(expected)}


def test_an_empty_log_has_no_predictions(tmp_path):
    log = PredictionLog(tmp_path / "none")
    assert log.days() == ()
    assert len(log.read()) == 0


def test_the_log_is_input_for_the_pipeline(tmp_path):
    """The pipeline finds its files, and every row in the folder of its day."""
    from fraud.pipeline.ingestion import reader, source
    from fraud.pipeline.ingestion.values import RowOrigins, days_of, times
    from fraud.time import day_number

    write(tmp_path, scored(), scored(2))
    found = source.discover(str(tmp_path), DATASET)
    assert found.days == (date(2026, 3, 1), date(2026, 3, 2))
    types = source.check_columns(found, None, Dataset(**{**vars(DATASET), "label": "channel"}))
    assert types["id"] == pa.string()
    for file in found.all_files:
        for first, batch in reader.read(file, {"time": pa.string()}):
            origins = RowOrigins(file, np.arange(first, first + batch.num_rows))
            column = times(batch.column(0), "time", DATASET.timezone, origins)
            assert set(days_of(column, DATASET.timezone)) == {day_number(file.days[0])}


def test_columns_can_be_dropped_and_hashed(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "secret-of-the-bank")
    write(tmp_path, scored(), drop=("amount", "night"), hash=("card", "id"))
    read = PredictionLog(tmp_path).read()
    assert read.transactions.column_names == ["id", "time", "card", "channel"]
    assert read.features.column_names == ["card_count_1d"]
    expected = hmac.new(b"secret-of-the-bank", b"007", hashlib.sha256).hexdigest()
    assert read.transactions["card"].to_pylist() == [expected] * 2
    assert len(set(read.transactions["id"].to_pylist())) == 2


def test_a_hashed_value_is_never_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "secret-of-the-bank")
    settings = PredictionLogSettings(flush_seconds=0.01, hash=("card",))
    writer = LogWriter(tmp_path, settings, DATASET)
    writer.append(scored())
    wait_for(lambda: size_of_open_files(tmp_path) > 500)
    (path,) = (tmp_path / "_open").iterdir()
    assert b"0001" in path.read_bytes()
    assert b"007" not in path.read_bytes()
    writer.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hash": ("amount",)}, "'amount' is no identifier and no categorical column"),
        ({"drop": ("time",)}, "'time' tells the day of a prediction; keep it"),
        (
            {"hash": ("card",)},
            "no key of at least 16 characters in the environment variable FRAUD_P",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, monkeypatch, settings, message):
    monkeypatch.delenv(KEY, raising=False)
    with pytest.raises(BadInput, match=message):
        LogWriter(tmp_path, PredictionLogSettings(**settings), DATASET)


def test_a_column_with_a_name_of_the_log_is_refused(tmp_path):
    dataset = Dataset(numeric=("prediction_score",))
    with pytest.raises(BadInput, match="'prediction_score' has the name of a column of the"):
        LogWriter(tmp_path, PredictionLogSettings(), dataset)


def test_a_folder_that_cannot_be_written_is_reported_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FraudPipelineError, match="the prediction log cannot be written"):
        LogWriter(tmp_path / "file", PredictionLogSettings(), DATASET)


def test_predictions_beyond_the_bound_are_dropped_and_counted(tmp_path):
    settings = PredictionLogSettings(flush_seconds=1000, pending_rows=5)
    writer = LogWriter(tmp_path, settings, DATASET)
    for first in range(0, 8, 2):
        writer.append(scored(first))
    assert writer.dropped == 4
    writer.close()
    assert writer.written == 4
    assert len(PredictionLog(tmp_path).read()) == 4


def test_predictions_wait_while_the_disk_is_full_and_then_are_counted(small_disk, caplog):
    """Nor does that damage what was written before."""
    settings = PredictionLogSettings(flush_seconds=0.01, pending_rows=3000)
    writer = LogWriter(small_disk / "log", settings, DATASET)
    writer.append(scored())
    wait_for(lambda: size_of_open_files(small_disk / "log") > 500)
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(1 << 12))
    writer.append(scored(2, rows=2000))
    wait_for(lambda: any("2000 predictions wait: " in message for message in caplog.messages))
    writer.append(scored(5000, rows=2000))
    wait_for(lambda: writer.dropped == 2000)
    assert len(list((small_disk / "log" / "_open").iterdir())) == 1
    filler.unlink()
    wait_for(lambda: writer.flushed == 2002)
    writer.close()
    LogWriter(small_disk / "log", settings, DATASET).close()  # recovers the first file
    ids = PredictionLog(small_disk / "log").read().transactions["id"].to_pylist()
    # While the writer tries, those that wait are its own, and may be those without a place then.
    for_either = [[*range(2), *range(start, start + 2000)] for start in (2, 5000)]
    assert sorted(map(int, ids)) in for_either


def test_files_become_parquet_when_they_are_large_enough(tmp_path):
    settings = PredictionLogSettings(flush_seconds=0.01, file_rows=3)
    writer = LogWriter(tmp_path, settings, DATASET)
    writer.append(scored())
    wait_for(lambda: size_of_open_files(tmp_path) > 500)
    assert PredictionLog(tmp_path).days() == ()
    writer.append(scored(2))
    wait_for(lambda: writer.written == 4)
    assert len(PredictionLog(tmp_path).read()) == 4
    writer.close()


def test_retention_counts_from_the_scoring_not_from_the_transaction(tmp_path):
    write(tmp_path, scored(start="2018-04-01T10:00"), retention_days=30)
    assert len(PredictionLog(tmp_path).read()) == 2
    (path,) = tmp_path.glob("date=2018-04-01/*.parquet")
    old = datetime.now(timezone.utc) - timedelta(days=31)
    os.rename(path, path.with_name(old.strftime("%Y%m%dT%H%M%S") + path.name[15:]))
    write(tmp_path, retention_days=None)
    assert len(PredictionLog(tmp_path).read()) == 2
    write(tmp_path, retention_days=30)
    assert PredictionLog(tmp_path).days() == ()
    assert not (tmp_path / "date=2018-04-01").exists()


KILLED = """
import sys, time
from pathlib import Path
from tests.serving.test_prediction_log import DATASET, LogWriter, PredictionLogSettings, scored
settings = PredictionLogSettings(flush_seconds=0.01)
writer = LogWriter(Path(sys.argv[1]), settings, DATASET)
for number in range(10**6):
    writer.append(scored(10000 * int(sys.argv[2]) + 2 * number))
    print(2 * number + 2, writer.flushed, flush=True)
    time.sleep(0.001)
"""


def test_a_killed_writer_loses_only_what_it_had_not_flushed(tmp_path, repository):
    """Two writers at once, both killed; the next one recovers what they had written, once."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), str(number)],
            cwd=repository,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    appended, flushed = [], []
    for process in processes:
        last = ["0", "0"]
        while int(last[1]) < 300:
            last = process.stdout.readline().split()
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split("\n")
        process.wait()
        last = rest[-2].split() if len(rest) > 1 else last
        appended.append(int(last[0]))
        flushed.append(int(last[1]))
    assert PredictionLog(tmp_path).days() == ()
    write(tmp_path)
    ids = PredictionLog(tmp_path).read().transactions["id"].to_pylist()
    assert len(set(ids)) == len(ids)
    assert sum(flushed) <= len(ids) <= sum(appended) + 2 * 2  # a last one may not be printed
    for number in range(2):
        first = 10000 * number
        assert {f"{first + i:04}" for i in range(flushed[number])} <= set(ids)
    assert not list((tmp_path / "_open").iterdir())
    write(tmp_path)
    assert len(PredictionLog(tmp_path).read()) == len(ids)


def test_a_file_that_was_published_but_not_removed_is_not_logged_twice(tmp_path, monkeypatch):
    real = Path.unlink
    monkeypatch.setattr(
        Path, "unlink", lambda self, **k: None if "_open" in str(self) else real(self, **k)
    )
    write(tmp_path, scored())
    monkeypatch.undo()
    assert len(list((tmp_path / "_open").iterdir())) == 1
    write(tmp_path)
    assert len(PredictionLog(tmp_path).read()) == 2


def test_the_file_of_a_living_writer_is_left_alone(tmp_path):
    writer = LogWriter(tmp_path, PredictionLogSettings(flush_seconds=0.01), DATASET)
    writer.append(scored())
    wait_for(lambda: size_of_open_files(tmp_path) > 500)
    write(tmp_path)
    assert PredictionLog(tmp_path).days() == ()
    writer.close()
    assert len(PredictionLog(tmp_path).read()) == 2


def test_a_file_that_a_starting_writer_takes_for_that_of_a_dead_one_loses_nothing(
    tmp_path, monkeypatch
):
    """The other one looks between the moments when the file is made and when it is locked."""
    real, started = fcntl.flock, []

    def flock(file, operation):
        if operation == fcntl.LOCK_EX and not started:
            started.append(True)
            write(tmp_path)
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    write(tmp_path, scored())
    assert started
    assert len(PredictionLog(tmp_path).read()) == 2
    assert not list((tmp_path / "_open").iterdir())


def test_transactions_that_are_not_recorded_are_under_the_day_of_their_scoring(tmp_path):
    outcomes = np.array(["expired", "future", "conflict", "expired"])
    at = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)
    write(tmp_path, replace(scored(rows=4, start="1000-01-01"), outcomes=outcomes, time=at))
    assert PredictionLog(tmp_path).days() == (date(2026, 3, 2),)


def test_the_last_moment_of_all_has_a_folder(tmp_path):
    write(tmp_path, scored(rows=1, start="9999-12-31T23:59:59"), scored(1, rows=1))
    log = PredictionLog(tmp_path)
    assert log.days() == (date(2026, 3, 1), date(9999, 12, 31))
    assert len(log.read()) == 2


def test_a_file_that_cannot_be_published_keeps_nobody_from_logging(tmp_path, caplog):
    (tmp_path / "_open").mkdir()
    (tmp_path / "_open" / "20260101T000000-host-1-1").write_bytes(b"no stream")
    with pa.OSFile(str(tmp_path / "_open" / "20260101T000000-host-1-2"), "wb") as file:
        batch = pa.record_batch([pa.array([1])], names=["something else"])
        with pa.ipc.new_stream(file, batch.schema) as stream:
            stream.write_batch(batch)
    write(tmp_path, scored())
    assert len(PredictionLog(tmp_path).read()) == 2
    assert "20260101T000000-host-1-2: could not be turned into Parquet" in caplog.text


def test_a_copy_of_a_log_in_use_has_each_flushed_prediction_once(tmp_path):
    folder, stopping = tmp_path / "log", threading.Event()
    writer = LogWriter(folder, PredictionLogSettings(flush_seconds=0.001, file_rows=20), DATASET)

    def append():
        first = 0
        while not stopping.wait(0.0005):
            writer.append(scored(first))
            first += 2

    appending = threading.Thread(target=append)
    appending.start()
    try:
        for number in range(8):
            while writer.flushed < 50 * (number + 1):
                assert appending.is_alive()
            flushed = writer.flushed
            copy = tmp_path / f"copy-{number}"
            copy_log(folder, copy)
            write(copy)  # the next server starts
            ids = PredictionLog(copy).read().transactions["id"].to_pylist()
            assert len(ids) == len({*ids})
            assert {f"{row:04}" for row in range(flushed)} <= {*ids}
    finally:
        stopping.set()
        appending.join()
        writer.close()
    assert len(PredictionLog(folder).read()) == writer.written == writer.flushed


def test_a_damaged_file_is_named(tmp_path):
    write(tmp_path, scored())
    path = next(tmp_path.glob("date=*/*.parquet"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match=f"{path.name}: damaged"):
        PredictionLog(tmp_path).read()


def test_reading_the_log_imports_nothing_heavy(repository):
    code = (
        "import sys, fraud.serving.prediction_log\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True
    )
    assert not {"tensorflow", "fastapi", "pandas", "grpc"} & set(done.stdout.split())


def test_a_file_has_what_a_reader_of_plain_parquet_needs(tmp_path):
    write(tmp_path, scored())
    table = parquet.read_table(str(tmp_path))
    assert table.num_rows == 2
    assert "prediction_score" in table.column_names
    assert "date" in table.column_names  # from the folders


def size_of_open_files(folder):
    return sum(path.stat().st_size for path in (folder / "_open").iterdir())


def wait_for(condition):
    import time

    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("nothing happened within 30 s")

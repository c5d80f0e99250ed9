"""What the command makes of an observation and of what was recorded before."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from fraud.monitoring.checks import Check, Kind, Observation, Verdict
from fraud.pipeline.cli import main
from fraud.pipeline.commands.monitor import decided
from fraud.pipeline.config import Config
from tests.pipeline.recorded_runs import Records

DAY = date(2026, 3, 21)


def seen(day: date, drift: Verdict = Verdict.ACT) -> Observation:
    check = Check("drift/AMOUNT", 0.3, None, 0.2, drift, "", Kind.DRIFT)
    return Observation(day, 100, (check,))


def record(records: Records, observation: Observation, text: str | None = None) -> None:
    folder = records.root.artifacts / "Monitor" / "observation" / str(observation.as_of)
    folder.mkdir(parents=True)
    (folder / "observation.json").write_text(observation.to_json() if text is None else text)
    artifact = records.artifact("fraud.Observation", str(folder))
    records.node(f"monitor-{observation.as_of}", "Monitor", {}, {"observation": artifact})


@pytest.fixture
def records(tmp_path) -> Records:
    return Records(tmp_path)


def test_earlier_looks_count(records):
    """Drift that lasts is another thing than drift of one day."""
    once = decided(Config(), records.root, seen(DAY))
    assert once.action == "nothing"
    days = 2 * Config().loop.consecutive_days + 60
    for back in range(days, 0, -1):
        record(records, seen(DAY - timedelta(days=back)))
    lasting = decided(Config(), records.root, seen(DAY))
    assert lasting.asking == ("drift/AMOUNT",)
    assert lasting.reasons != once.reasons


def test_later_looks_and_damaged_ones_do_not_count(records):
    alone = decided(Config(), records.root, seen(DAY))
    for ahead in range(4):
        record(records, seen(DAY + timedelta(days=ahead)))
    record(records, seen(DAY - timedelta(days=1)), text="{")
    assert decided(Config(), records.root, seen(DAY)) == alone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere"),
        ([], "no data: give --data PATH"),
        (["--data", ".", "--as-of", "today"], "'today' is not a day"),
    ],
)
def test_misuse_is_one_message(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["monitor", "--root", str(tmp_path / "root"), *arguments])
    except SystemExit as error:  # argparse
        code = error.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "root").exists()

import argparse
import datetime as dt
import subprocess
import sys

import pytest

from fraud.data.simulator import _DRIFTS
from fraud.data.spec import DRIFTS, Drift, Simulation, parse_drift
from fraud.errors import BadInput
from fraud.pipeline.commands import simulate


def parse(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    simulate.add_arguments(parser)
    return parser.parse_args(["--out", "somewhere", *options])


def test_without_options_the_defaults_are_simulated():
    assert simulate.simulation(parse()) == Simulation()


def test_every_option_is_used():
    options = "--days 90 --customers 7 --terminals 8 --start 2025-12-01 --seed 5"
    drift = "--drift new_fraud@2026-01-02 --drift amount_shift@2026-01-03"
    assert simulate.simulation(parse(*options.split(), *drift.split())) == Simulation(
        days=90,
        customers=7,
        terminals=8,
        start=dt.date(2025, 12, 1),
        seed=5,
        drift=(
            Drift("new_fraud", dt.date(2026, 1, 2)),
            Drift("amount_shift", dt.date(2026, 1, 3)),
        ),
    )


def test_run_writes_the_days(tmp_path, capsys):
    arguments = parse("--days", "2", "--customers", "50", "--format", "csv")
    arguments.out = tmp_path
    assert simulate.run(arguments) == 0
    assert len(list(tmp_path.glob("date=*/transactions.csv"))) == 2
    assert capsys.readouterr().out.startswith(f"{tmp_path}: 2 days, ")


def test_an_unwritable_folder_is_bad_input(tmp_path):
    (tmp_path / "file").touch()
    arguments = parse("--days", "1", "--customers", "50")
    arguments.out = tmp_path / "file"
    with pytest.raises(BadInput, match="Not a directory"):
        simulate.run(arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--drift", "flood@2026-01-02"], "choose one of new_fraud, amount_shift"),
        (["--drift", "new_fraud"], "not SCENARIO@YYYY-MM-DD"),
        (["--drift", "new_fraud@tomorrow"], "'tomorrow' is not a day"),
        (["--start", "2026-02-30"], "'2026-02-30' is not a day"),
        (["--format", "xlsx"], "invalid choice: 'xlsx'"),
        (["--days", "many"], "invalid int value: 'many'"),
    ],
)
def test_bad_options_are_misuse(capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        parse(*options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--days", "0"], "days is 0; it must be at least 1"),
        (["--customers", "-4"], "customers is -4"),
        (["--seed", "-1"], "seed is -1"),
        (["--days", "9999999"], "go beyond 9999-12-31"),
        (["--drift", "new_fraud@2026-03-22"], "the simulated days are 2026-01-01 to 2026-03-21"),
        (["--drift", "new_fraud@2026-02-01"] * 2, "given twice"),
    ],
)
def test_impossible_simulations_are_explained(options, message):
    with pytest.raises(BadInput, match=message):
        simulate.simulation(parse(*options))


def test_parse_drift():
    assert parse_drift("new_category@2026-03-01") == Drift("new_category", dt.date(2026, 3, 1))


def test_help_names_every_drift_and_an_example():
    parser = argparse.ArgumentParser()
    simulate.add_arguments(parser)
    shown = parser.format_help()
    assert all(name in shown for name in DRIFTS)
    assert "fraud-pipeline simulate --out" in shown


def test_every_listed_drift_is_implemented():
    assert list(DRIFTS) == list(_DRIFTS)


def test_options_load_nothing_heavy():
    code = (
        "import sys\n"
        "from fraud.pipeline.commands import simulate\n"
        "sys.exit(bool({'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

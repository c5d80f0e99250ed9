import subprocess
import sys
from datetime import timedelta

import pytest

from fraud.pipeline import cli
from tests.pipeline.ingestion import transactions
from tests.pipeline.ingestion.transactions import FIRST_DAY


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return transactions.write_days(transactions.make(), tmp_path_factory.mktemp("data"))


@pytest.fixture
def backtest(repository, tmp_path, data):
    def call(*arguments, config="windows: {train_days: 3, label_delay_days: 2}"):
        (tmp_path / "fraud.yaml").write_text(config)
        options = ["--data", data, "--config", tmp_path / "fraud.yaml", "--root", tmp_path / "root"]
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "fraud.pipeline.cli",
                "backtest",
                *map(str, [*options, *arguments]),
            ],
            capture_output=True,
            text=True,
            cwd=repository,
            check=False,
        )

    return call


def day(number):
    return FIRST_DAY + timedelta(days=number)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--first-test-day"),
        (["--first-test-day", "soon"], "not a day"),
        (["--first-test-day", day(9), "--folds", 0], "--folds: 0 is too small"),
        (["--first-test-day", day(8), "--folds", 1], "the data begins on"),
        (["--first-test-day", day(10), "--known-days", 1], "choose fewer --folds"),
    ],
)
def test_misuse_is_one_message_and_exit_2(backtest, tmp_path, arguments, message):
    done = backtest(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    "option", ["--folds", "--test-days", "--train-days", "--known-days", "--seeds", "--jobs"]
)
def test_zero_of_anything_is_refused(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["backtest", "--first-test-day", "2018-07-04", option, "0"])
    assert f"{option}: 0 is too small; the least is 1" in capsys.readouterr().err


def test_data_without_time_is_refused(backtest):
    done = backtest("--first-test-day", day(9), config="dataset: {timestamp: null, entities: []}")
    assert done.returncode == 2
    assert "dataset.timestamp" in done.stderr

import json
import os
import subprocess
import sys

import pytest

from fraud.pipeline import cli as cli_module


@pytest.fixture
def cli(repository, tmp_path):
    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "fraud.pipeline.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=repository,
            check=False,
        )

    return call


@pytest.mark.parametrize(
    "command",
    [
        "init",
        "simulate",
        "run",
        "status",
        "rollback",
        "verify",
        "prune",
        "lineage",
        "report",
        "ui",
        "explain-decision",
        "schema",
        "config",
        "arrived",
    ],
)
def test_help_has_an_example(cli, command):
    done = cli(command, "--help")
    assert done.returncode == 0
    assert f"fraud-pipeline {command}" in done.stdout
    assert "example:" in done.stdout


def test_help_imports_nothing_heavy(repository):
    heavy = "{'tfx', 'tensorflow', 'apache_beam', 'pandas', 'pyarrow', 'ml_metadata'}"
    script = (
        "import sys; from fraud.pipeline import cli\n"
        "for command in cli.COMMANDS:\n"
        "  try: cli.main([command, '--help'])\n"
        "  except SystemExit: pass\n"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=repository, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_list_of_commands_imports_none_of_them(repository):
    script = (
        "import sys; from fraud.pipeline import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([n for n in sys.modules if n.startswith(('fraud.pipeline.commands', 'pydantic'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=repository, check=True
    )
    assert all(command in done.stdout for command in cli_module.COMMANDS)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["rn"], "invalid choice"),
        (["run", "--as_of", "2018-07-31"], "unrecognized arguments"),
        (["run", "--as-of", "31.7.2018"], "not a day"),
        (["run"], "no data: give --data PATH"),
        (["run", "--data", "nowhere"], "nowhere"),
        (["run", "--config", "nowhere.yaml", "--data", "x"], "nowhere.yaml: cannot read"),
        (
            ["run", "--config", "no-time.yaml", "--data", "x", "--as-of", "2018-07-31"],
            "--as-of: the data has no days",
        ),
        (
            ["run", "--config", "bad-schema.yaml", "--data", "one.csv"],
            "price has type BYTES, but the configuration makes it a number, FLOAT",
        ),
        (
            ["run", "--config", "no-schema.yaml", "--data", "one.csv"],
            "no.pbtxt: not a schema",
        ),
        (["schema", "--diff", "--update"], "not allowed with"),
        (["config", "--root", "s3://bank/root"], "s3://bank/root: the root must be a local or"),
    ],
)
def test_misuse_is_one_message_and_exit_2(cli, tmp_path, arguments, message):
    own = "dataset: {timestamp: null, amount: price, label: fraud, id: null, entities: []}\n"
    files = {
        "no-time.yaml": own,
        "bad-schema.yaml": f"{own}paths: {{schema: bad.pbtxt}}",
        "bad.pbtxt": 'feature { name: "price" type: BYTES }',
        "no-schema.yaml": f"{own}paths: {{schema: no.pbtxt}}",
        "no.pbtxt": "feature {",
        "one.csv": "price,fraud\n1,0\n2,1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = cli(*(tmp_path / a if a in files else a for a in arguments))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_reader_that_stops_early_gets_no_complaint(repository, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "fraud.pipeline.cli", "status", "--root", str(tmp_path)]
    # Buffered, as for users: the output is written when Python exits.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, cwd=repository, env=env)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == b""


def test_status_of_an_empty_root_is_no_error(cli, tmp_path):
    done = cli("status", "--root", tmp_path / "none")
    assert done.returncode == 0
    assert "nothing is live" in done.stdout
    assert not (tmp_path / "none").exists()
    done = cli("status", "--root", tmp_path / "none", "--json")
    assert json.loads(done.stdout)["live"] is None


def test_schema_before_any_run_says_what_to_do(cli, tmp_path):
    done = cli("schema", "--diff", "--root", tmp_path)
    assert done.returncode == 2
    assert "fraud-pipeline run" in done.stderr


def test_simulate_prints_json(cli, tmp_path):
    small = ("--days", "2", "--customers", "20", "--terminals", "30", "--json")
    done = cli("simulate", "--out", tmp_path / "days", *small)
    summary = json.loads(done.stdout)
    assert (summary["folder"], summary["days"]) == (str(tmp_path / "days"), 2)
    assert summary["transactions"] > summary["frauds"] >= 0
    assert done.stderr == ""


def test_simulate_then_misuse_again(cli, tmp_path):
    small = ["--days", 2, "--customers", 20, "--terminals", 20]
    assert cli("simulate", "--out", tmp_path / "days", *small).returncode == 0
    again = cli("simulate", "--out", tmp_path / "days", *small)
    assert again.returncode == 2
    assert "Traceback" not in again.stderr

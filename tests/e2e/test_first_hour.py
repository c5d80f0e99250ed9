"""A stranger's table, from file to pushed model, in the four commands of the documents."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import first_hour

pytestmark = pytest.mark.e2e

ROWS = 4000
MINUTES = 10


def test_four_commands_lead_from_a_table_to_a_pushed_model(tmp_path: Path) -> None:
    steps = first_hour.run_all(tmp_path, ROWS)
    printed = {step.command.split()[1]: step.printed for step in steps}
    assert sum(step.cpu for step in steps) < MINUTES * 60  # of CPU: the clock may be others'
    assert "FraudFound" in printed["init"] and "always empty" in printed["init"]
    assert re.search(r"pushed    version \d+", printed["run"])
    assert "claims-schema.pbtxt: inferred; review it" in printed["run"]
    assert 'name: "RepCode"' in printed["schema"]
    assert "live      version" in printed["status"]
    assert str(tmp_path) not in first_hour.page(steps, tmp_path, ROWS)

    (command,) = [s.split("look")[1].strip() for s in printed["run"].splitlines() if "look" in s]
    inspected = subprocess.run(
        [*command.split(), "--inspect"], capture_output=True, text=True, check=False
    )
    assert inspected.returncode == 0, inspected.stderr
    assert "epoch_loss" in inspected.stdout
    assert Path(command.split()[0]).parent == Path(sys.prefix, "bin")


def test_the_documents_name_these_commands(repository: Path) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    page = (repository / "docs" / "first-hour.md").read_text(encoding="utf-8")
    for command in first_hour.COMMANDS:
        assert re.search(rf"^{re.escape(command)}( +#.*)?$", readme, re.MULTILINE)
        assert f"$ {command}\n" in page

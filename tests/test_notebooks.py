"""What the notebooks' runner says of a root that they cannot run on; tests/e2e runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.recorded_runs import Records

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_root_without_an_evaluated_run_is_named_in_one_line(tmp_path, is_stopped):
    root = tmp_path / "root"
    if is_stopped:
        Records(root).run("r1", "2026-01-10", ("2026-01-02", "2026-01-05"), passed=False)
    command = [sys.executable, "scripts/run_notebooks.py", "--check", "--root", str(root)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert f"{root}: no run has evaluated a model here" in line
    assert root.exists() == is_stopped

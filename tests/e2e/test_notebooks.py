"""The notebooks run from top to bottom on a root that somebody else made."""

import subprocess
import sys

import nbformat
import pytest

from tests.e2e.conftest import REPOSITORY, SAMPLE

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def root(new_bank):
    """A root with one run, which had no champion."""
    sample = (REPOSITORY / "data" / "sample" / "config.yaml").read_text()
    bank = new_bank(sample.replace("../../schema", str(REPOSITORY / "schema")))
    assert bank.run(SAMPLE, "2026-03-21")["outcome"] == "pushed"
    return bank.root


def notebooks():
    return sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def test_they_run_on_any_finished_root(root):
    assert len(notebooks()) == 6
    before = {path: path.read_bytes() for path in notebooks()}
    command = [sys.executable, "scripts/run_notebooks.py", "--root", root, "--check"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in notebooks()} == before


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_they_can_be_read_without_running_them(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in code)
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert kinds <= {"execute_result", "stream", "display_data"}
    assert path.stat().st_size < 100_000

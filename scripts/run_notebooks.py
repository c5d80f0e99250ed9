"""Runs the notebooks from top to bottom, each in its own process, and keeps their outputs.

    python scripts/run_notebooks.py --root fraud-root [--check] [NOTEBOOK …]

They read the root that the environment variable FRAUD_ROOT names, which --root sets. With --check
the files stay as they are. What differs from run to run without meaning anything (times of the
cells, counters) is left out of them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from fraud.pipeline import lineage
from fraud.pipeline.config import Metadata
from fraud.pipeline.root import Root

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
FOLDER = Path(__file__).resolve().parent.parent / "notebooks"


def run(path: Path, keep: bool) -> None:
    """Runs one notebook.

    Args:
      path: of the notebook.
      keep: whether its outputs are written into it.

    Raises:
      CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        # Sockets in a folder of our own: nobody else on the machine can connect to them.
        kernel = KernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/kernel")
        client = NotebookClient(
            notebook, km=kernel, timeout=1200, startup_timeout=600, record_timing=False
        )
        try:
            client.execute(cwd=str(FOLDER))
        finally:
            kernel.shutdown_kernel(now=True)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            cell.metadata = {}
    if keep:
        nbformat.write(notebook, path)


def _is_finished(path: Path) -> bool:
    """Whether a run in a root got as far as the notebooks look."""
    root = Root(path.resolve())
    store = lineage.find_store(Metadata(), root)
    runs = lineage.runs(store) if store else []
    return any("Evaluator" in lineage.nodes(store, run_id) for run_id in runs)


def main() -> int:
    """Parses the command line; returns 1 if a notebook failed, 2 if there is nothing to show."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all")
    parser.add_argument("--root", type=Path, required=True, help="a root with a finished run")
    parser.add_argument("--check", action="store_true", help="do not write the outputs")
    arguments = parser.parse_args()
    if not _is_finished(arguments.root):
        print(
            f"{arguments.root}: no run has evaluated a model here; `make notebooks` creates a root "
            "from the sample if there is none, and --root names another",
            file=sys.stderr,
        )
        return 2
    os.environ["FRAUD_ROOT"] = str(arguments.root.resolve())
    # What TensorFlow prints about the machine is no part of the story.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for path in arguments.notebooks or sorted(FOLDER.glob("*.ipynb")):
        print(path.name, flush=True)
        try:
            run(path, keep=not arguments.check)
        except CellExecutionError as error:
            print(f"{path.name}: {_COLOURS.sub('', str(error))}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

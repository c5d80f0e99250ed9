"""What all tests share."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.small_disk import mounted

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as unit whatever is not marked e2e, and keep whole runs for last."""
    for item in items:
        if item.get_closest_marker("e2e") is None:
            item.add_marker(pytest.mark.unit)
    items.sort(key=lambda item: item.get_closest_marker("e2e") is not None)


@pytest.fixture(scope="session", autouse=True)
def command_line() -> Iterator[None]:
    """Hides pytest's options: TFX's Beam executors would read them as absl's, such as -v."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", sys.argv[:1])
        yield


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Takes back what a command sets: the handler of `node` writes to this one test's stdout."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def handbook() -> Path:
    """The folder of the handbook's transactions: FRAUD_HANDBOOK, or beside the checkout."""
    named = os.environ.get("FRAUD_HANDBOOK")
    folder = Path(named) if named else ROOT.parent / "shared" / "data" / "handbook"
    if not any(folder.glob("date=*")):
        if named:
            pytest.fail(f"FRAUD_HANDBOOK names {folder}, where there are no date=… folders")
        pytest.skip(f"no handbook transactions at {folder}; FRAUD_HANDBOOK=FOLDER names them")
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder of a file system of 16 MB."""
    with mounted(tmp_path, megabytes=16) as folder:
        yield folder

"""Whole runs, by the command, as a user types it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE = REPOSITORY / "data" / "sample" / "transactions"

# Short windows and few epochs: what is tested is the way, not how good the model gets.
CONFIG = """
dataset:
  categorical: [MERCHANT_CATEGORY, CHANNEL, COUNTRY, CUSTOMER_AGE_BAND]
  slices: [CHANNEL]
windows: {train_days: 10, eval_days: 7, label_delay_days: 7}
features:
  groups:
    - {families: [count, mean], windows: [1, 7]}
    - {families: [known_count, risk], windows: [7]}
network: {epochs: 2, members: 1, towers: [[32]]}
evaluation: {alert_budget: 15, min_average_precision: 0.02, min_roc_auc: 0.5,
             max_average_precision_drop: 0.5, max_roc_auc_drop: 0.5, max_brier_skill_drop: 1.0,
             min_recall_at_budget: 0.0, max_recall_at_budget_drop: 1.0}
paths: {schema: schema.pbtxt}
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@dataclass(frozen=True)
class Bank:
    """A configuration, its data and its root.

    Attributes:
      folder: holds `fraud.yaml` and the root.
      code: the folder to import `fraud` from.
    """

    folder: Path
    code: Path = REPOSITORY

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def command(self, name: str, *arguments: object) -> list[str]:
        own = ["--config", str(self.folder / "fraud.yaml"), "--root", str(self.root)]
        return [sys.executable, "-m", "fraud.pipeline.cli", name, *own, *map(str, arguments)]

    def call(self, name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(name, *arguments),
            capture_output=True,
            text=True,
            cwd=self.code,
            check=False,
        )

    def run(self, data: Path, as_of: str | None, *options: object, expect: int = 0) -> dict:
        """A run that ends with `expect`; its summary, with what went to stderr as `progress`."""
        day = ["--as-of", as_of] if as_of else []
        done = self.call("run", "--data", data, *day, *options, "--json")
        assert done.returncode == expect, done.stderr
        assert "Traceback" not in done.stderr
        return {**json.loads(done.stdout), "progress": done.stderr}

    def versions(self) -> list[str]:
        pushed = self.root / "pushed"
        return sorted(p.name for p in pushed.iterdir()) if pushed.exists() else []


@pytest.fixture(scope="session")
def new_bank(tmp_path_factory):
    def made(config: str = CONFIG) -> Bank:
        folder = tmp_path_factory.mktemp("bank")
        (folder / "fraud.yaml").write_text(config, encoding="utf-8")
        return Bank(folder)

    return made

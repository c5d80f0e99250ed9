"""The same two days, run locally and by each orchestrator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from fraud.pipeline import config, lineage
from fraud.pipeline.root import Root
from tests import debian
from tests.certificates import Certificate, authority, signed
from tests.e2e.orchestrators.comparison import comparable

DAYS = (date(2026, 1, 20), date(2026, 1, 21))
"""The last two of the simulated days."""

# Small in every respect: the orchestration is tested, not the model.
CONFIG = """
dataset: {categorical: [MERCHANT_CATEGORY, CHANNEL], slices: [CHANNEL]}
features:
  groups: [{families: [count, mean], windows: [1, 7]}, {families: [risk], windows: [7]}]
windows: {train_days: 4, eval_days: 2, label_delay_days: 2}
network: {epochs: 1, members: 1, batch_size: 512, towers: [[16]]}
evaluation: {alert_budget: 5, min_average_precision: 0.0, min_roc_auc: 0.0,
             max_average_precision_drop: 1.0, max_roc_auc_drop: 1.0, max_brier_skill_drop: 1.0,
             min_recall_at_budget: 0.0, max_recall_at_budget_drop: 1.0}
data_gate: {max_drift: 1.0}
"""


@dataclass(frozen=True)
class Shop:
    """A configuration, a root and the graph that is compiled for them.

    Attributes:
      folder: contains all three.
      data: day folders.
    """

    folder: Path
    data: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def graph(self) -> Path:
        return self.folder / "graph"

    @property
    def nodes(self) -> int:
        """How many nodes the compiled graph has."""
        return len(json.loads((self.graph / "graph.json").read_text())["nodes"])

    def call(self, name: str, *arguments: object, expect: int = 0) -> str:
        """Runs `fraud-pipeline NAME`; returns its output."""
        command = [sys.executable, "-m", "fraud.pipeline.cli", name, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == expect, done.stderr
        return done.stdout

    def compile(self) -> None:
        options = ["--config", self.folder / "fraud.yaml", "--root", self.root]
        self.call("compile", *options, "--data", self.data, "--out", self.graph)

    def run(self, day: date) -> None:
        """Runs a day locally."""
        options = ["--config", self.folder / "fraud.yaml", "--root", self.root]
        self.call("run", *options, "--data", self.data, "--as-of", day)

    def status(self) -> str:
        options = ["--config", self.folder / "fraud.yaml", "--root", self.root]
        return self.call("status", *options, "--json")

    def lineage(self) -> dict[str, dict]:
        """Run id → its lineage in comparable form, oldest first."""
        loaded = config.load(self.folder / "fraud.yaml")
        store = lineage.find_store(loaded.metadata, Root(self.root))
        assert store is not None
        names = {str(self.graph): "GRAPH", str(self.root / "graph"): "GRAPH"}
        names[str(self.root)] = "ROOT"
        names[str(self.data)] = "DATA"
        return {run: comparable(store, run, names) for run in lineage.runs(store)}


@pytest.fixture(scope="session")
def new_shop(tmp_path_factory):
    data = tmp_path_factory.mktemp("simulated") / "transactions"

    def shop_with(more: str = "") -> Shop:
        folder = tmp_path_factory.mktemp("shop")
        (folder / "fraud.yaml").write_text(CONFIG + more, encoding="utf-8")
        shop = Shop(folder, data)
        if not data.exists():
            size = ["--days", 21, "--customers", 300, "--terminals", 200, "--seed", 7]
            shop.call("simulate", "--out", data, *size)
        return shop

    return shop_with


@pytest.fixture(scope="session")
def days() -> tuple[date, ...]:
    return DAYS


@pytest.fixture(scope="session")
def local_shop(new_shop) -> Shop:
    """The first of the two days, run locally."""
    shop = new_shop()
    shop.run(DAYS[0])
    return shop


@pytest.fixture(scope="session")
def local_first_day(local_shop) -> dict:
    """The lineage of a local run of the first day."""
    return next(iter(local_shop.lineage().values()))


@pytest.fixture(scope="session")
def local(local_shop) -> list[dict]:
    """The lineage of local runs of the two days."""
    local_shop.run(DAYS[1])
    return list(local_shop.lineage().values())


@pytest.fixture(scope="session")
def fraud_pipeline() -> Path:
    """The command, of the environment that runs the tests."""
    command = shutil.which("fraud-pipeline", path=str(Path(sys.executable).parent))
    assert command, "fraud-pipeline is not installed beside this Python"
    return Path(command)


@pytest.fixture(scope="session")
def environment_of(repository):
    """The bin folder of a separate environment, which is created if it is missing."""

    def bin_folder(name: str) -> Path:
        subprocess.run([repository / "scripts" / "setup_beside.sh", name], check=True)
        return repository / f".venv-{name}" / "bin"

    return bin_folder


@pytest.fixture(scope="session")
def mariadb_authority(tmp_path_factory) -> Certificate:
    """The authority that signed MariaDB's certificate, and must sign those of the user x509."""
    return authority(tmp_path_factory.mktemp("certificates"), "ca")


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory, mariadb_authority) -> Iterator[str]:
    """The `metadata` section for a MariaDB server; its password is in the environment."""
    server = debian.server("mariadbd", "mariadb-server")
    folder = tmp_path_factory.mktemp("mariadb")
    options = ["--no-defaults", f"--datadir={folder / 'data'}"]
    if os.geteuid() == 0:
        options.append("--user=root")
    with open(folder / "install.log", "w") as log:
        subprocess.run(
            ["mariadb-install-db", *options, "--auth-root-authentication-method=normal"],
            stdout=log,
            stderr=log,
            check=True,
        )
    port = _free_port()
    start = (
        "CREATE USER fraud@'127.0.0.1' IDENTIFIED BY 'secret'; "
        "GRANT ALL ON *.* TO fraud@'127.0.0.1'; "
        "CREATE USER x509@'127.0.0.1' IDENTIFIED BY 'secret' REQUIRE X509; "
        "GRANT ALL ON *.* TO x509@'127.0.0.1';"
    )
    (folder / "start.sql").write_text(start.replace("; ", ";\n"))
    options += [f"--socket={folder / 's'}", f"--port={port}", "--bind-address=127.0.0.1"]
    options += [f"--init-file={folder / 'start.sql'}", "--skip-name-resolve"]
    certificate = signed(mariadb_authority, "server", "IP:127.0.0.1")
    options += [f"--ssl-ca={mariadb_authority.path}", f"--ssl-cert={certificate.path}"]
    options += [f"--ssl-key={certificate.key}"]
    before = os.environ.get(lineage.PASSWORD)
    os.environ[lineage.PASSWORD] = "secret"
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen([server, *options], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while "ready for connections" not in (folder / "server.log").read_text():
            assert process.poll() is None and time.monotonic() < deadline, "MariaDB did not start"
            time.sleep(0.2)
        yield f"metadata: {{store: mysql, host: 127.0.0.1, port: {port}}}\n"
    finally:
        process.terminate()
        process.wait(timeout=60)
        os.environ.pop(lineage.PASSWORD)
        if before is not None:
            os.environ[lineage.PASSWORD] = before


def _free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]

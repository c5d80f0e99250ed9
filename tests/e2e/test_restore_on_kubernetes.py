"""The backup and the restore of deploy/kubernetes, by the very commands of its manifests.

Volumes are mounted folders, which cannot be renamed or deleted; the state is in a real Redis with a
password, the server asks for tokens and speaks TLS. Runs, backup, restore, verification, the build
of the state and the server are the containers of the manifests.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import redis
import yaml

from tests import debian
from tests.certificates import authority, signed
from tests.e2e.conftest import CONFIG, SAMPLE, free_port
from tests.e2e.test_restore import CLIENTS, Client, rows_of, scored
from tests.pods import FOLDER, Node

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FIRST, LAST, LIVE = "2026-03-07", "2026-03-14", "2026-03-16"
"""The newest day of the first training, that of the second, and the day that clients send."""


class Serving:
    """The pod of the server, and a client that may do everything."""

    def __init__(self, node: Node, folder: Path, token: str, trusted: str) -> None:
        self.log = folder / f"serving-{time.monotonic()}.log"
        with open(self.log, "w") as log:
            ports = ("--port=0", "--grpc-port=0")  # 8501 may be taken here
            self.process = node.start("fraud-serving", "serving", *ports, stdout=log)
        self.options = {"headers": {"authorization": f"Bearer {token}"}, "verify": trusted}
        end = time.monotonic() + 180
        while True:
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            for line in self.log.read_text().splitlines():
                with suppress(ValueError, KeyError, httpx.TransportError):
                    self.url = json.loads(line)["http"].replace("0.0.0.0", "127.0.0.1")
                    self.client = httpx.Client(base_url=self.url, timeout=60, **self.options)
                    if self.client.get("/readyz").status_code == 200:
                        return
            time.sleep(0.2)

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        assert self.process.wait(60) == 0, self.log.read_text()[-3000:]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A Redis server with a password: its URL, and that."""
    server = debian.server("redis-server", "redis-server")
    password, port = secrets.token_hex(24), free_port()
    (tmp_path / "redis.conf").write_text(f"requirepass {password}\n")
    options = ["--port", str(port), "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(
        [server, tmp_path / "redis.conf", *options], stdout=subprocess.DEVNULL
    )
    try:
        yield f"redis://127.0.0.1:{port}/0", password
    finally:
        process.terminate()
        process.wait(60)


def write(folder: Path, **files: str) -> Path:
    """A folder with files, as a Secret or ConfigMap is mounted."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def deliver(data: Path, last: str) -> None:
    """The days of the sample up to one, as somebody delivers them."""
    for day in sorted(SAMPLE.iterdir()):
        if day.name <= f"date={last}" and not (data / day.name).exists():
            shutil.copytree(day, data / day.name)


def test_what_was_backed_up_under_load_is_restored_into_the_volume(
    tmp_path: Path, state: tuple[str, str]
) -> None:
    token = secrets.token_hex(24)
    bank = authority(tmp_path, "bank")
    certificate = signed(bank, "server", "IP:127.0.0.1")
    site = {k: v for k, v in yaml.safe_load(CONFIG).items() if k != "paths"}
    volumes = {
        "fraud-config": write(tmp_path / "config", state=state[0]),
        "fraud-state": write(tmp_path / "password", password=state[1]),
        "fraud-tokens": write(
            tmp_path / "tokens",
            score=secrets.token_hex(24),
            label=secrets.token_hex(24),
            admin=token,
        ),
        "fraud-tls": write(tmp_path / "tls"),
    }
    shutil.copy(FOLDER / "config.yaml", volumes["fraud-config"])
    (volumes["fraud-config"] / "site.yaml").write_text(yaml.safe_dump(site))
    shutil.copy(certificate.path, volumes["fraud-tls"] / "tls.crt")
    shutil.copy(certificate.key, volumes["fraud-tls"] / "tls.key")
    for claim in ("fraud-root", "fraud-data", "fraud-backups"):
        volumes[claim] = write(tmp_path / claim)
    root, data, backups = (volumes[f"fraud-{name}"] for name in ("root", "data", "backups"))
    node = Node(tmp_path, volumes)

    def job(workload: str, *containers: str) -> str:
        printed = ""
        for container in containers:
            done = node.run(workload, container)
            assert done.returncode == 0, (container, done.stdout)
            printed += done.stdout
        return printed

    def serving() -> Serving:
        return Serving(node, tmp_path, token, str(bank.path))

    # Before anything is there, no backup is made that would one day be the only one left.
    nothing = node.run("fraud-backup", "backup")
    assert nothing.returncode == 2 and "is empty; there is nothing" in nothing.stdout
    deliver(data, FIRST)
    job("fraud-daily", "run", "monitor")
    deliver(data, LAST)
    job("fraud-state-build", "state-build")
    server = serving()
    probes = rows_of(LAST)[:300]

    stopping = threading.Event()
    load = rows_of(LIVE)
    clients = [
        Client(server.url, load[i::CLIENTS], stopping, **server.options) for i in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    # A run is under way as well: the backup waits for its end, and has what it pushed.
    run = node.start("fraud-daily", "run", stdout=subprocess.DEVNULL)
    while len(list(root.glob("runs/*/run.log"))) < 2:
        assert run.poll() is None
        time.sleep(0.1)
    started = time.monotonic()
    job("fraud-backup", "backup")
    ended = time.monotonic()
    assert run.wait() == 0
    (made,) = backups.glob("*Z")
    newest = max(path.name for path in (root / "pushed").iterdir())
    while scored(server.client, probes[:1])[0][2] != newest:
        assert time.monotonic() < ended + 60, "the server did not take the new version"
        time.sleep(0.2)
    stopping.set()
    for client in clients:
        client.join(60)
        assert not client.problem, client.problem
    acknowledged = [entry for client in clients for entry in client.acknowledged]
    assert any(started < at < ended for at, _ in acknowledged), "there was load meanwhile"
    before = scored(server.client, probes)
    assert all(known for *_, known in before) and len({score for score, *_ in before}) > 100
    copied = [row for at, row in acknowledged if at < started]

    # With the server still there, nothing is restored under it.
    refused = node.run("fraud-restore", "restore")
    assert refused.returncode == 2 and "a server is using this root" in refused.stdout
    server.stop()

    # A disaster in which files are damaged.
    (root / "metadata.sqlite").unlink()
    for file in root.glob("pushed/*/saved_model.pb"):
        file.write_text("damage")
    assert "/fraud/root: clean\n" in job("fraud-restore", "restore", "verify")
    (kept,) = root.glob(".before-restore-*")
    assert (kept / "pushed" / newest / "saved_model.pb").read_text() == "damage"
    server = serving()
    assert scored(server.client, probes) == before
    assert copied and all(known for *_, known in scored(server.client, copied))
    server.stop()

    # One in which the volume and the state are lost.
    for path in root.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with redis.Redis.from_url(state[0], password=state[1]) as client:
        client.flushall()
    assert node.run("fraud-backup", "backup").returncode == 2, "of nothing"
    assert [*backups.glob("*Z")] == [made]
    assert "/fraud/root: clean\n" in job("fraud-restore", "restore", "verify")
    assert not list(root.glob(".before-restore-*"))
    job("fraud-state-build", "state-build")
    server = serving()
    assert scored(server.client, probes) == before
    server.stop()
    job("fraud-backup", "backup")
    assert len([*backups.glob("*Z")]) == 2

"""Data in an object store: a real S3-compatible server (versitygw), on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyarrow import fs

from fraud.files import digest
from tests.e2e.conftest import CONFIG, REPOSITORY, SAMPLE, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

GATEWAY = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
KEYS = {"AWS_ACCESS_KEY_ID": "bank", "AWS_SECRET_ACCESS_KEY": "a-secret-of-this-test"}
AS_OF = "2026-03-21"


@dataclass(frozen=True)
class ObjectStore:
    """A running server with one bucket, `bank`.

    Attributes:
      port: it listens to, on this machine.
      log: of its requests.
    """

    port: int
    log: Path

    def uri(self, key: str) -> str:
        return f"s3://bank/{key}?scheme=http&endpoint_override=127.0.0.1:{self.port}"

    def upload(self, folder: Path, key: str) -> None:
        store = fs.S3FileSystem(
            access_key=KEYS["AWS_ACCESS_KEY_ID"],
            secret_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            endpoint_override=f"127.0.0.1:{self.port}",
            scheme="http",
            allow_bucket_creation=True,
        )
        store.create_dir("bank")
        fs.copy_files(str(folder), f"bank/{key}", destination_filesystem=store)


@pytest.fixture(scope="module")
def gateway():
    """The program, built from Go's module proxy once."""
    path = REPOSITORY / "build" / "tools" / "versitygw"
    if not path.exists():
        if shutil.which("go") is None:
            pytest.skip("no Go here to build versitygw")
        built = subprocess.run(
            ["go", "install", GATEWAY],
            env={**os.environ, "GOBIN": str(path.parent)},
            capture_output=True,
            text=True,
        )
        assert built.returncode == 0, built.stderr[-2000:]
    return path


@pytest.fixture
def store(gateway, tmp_path):
    port = free_port()
    folder, log = tmp_path / "objects", tmp_path / "gateway.log"
    folder.mkdir()
    command = [gateway, "--port", f"127.0.0.1:{port}", "posix", "--nometa", folder]
    keys = {
        "ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"],
        "ROOT_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"],
    }
    with log.open("w") as file:
        process = subprocess.Popen(
            [*map(str, command)], env={**os.environ, **keys}, stdout=file, stderr=file
        )
    try:
        yield ObjectStore(port, log)
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def uploaded(store):
    """The store with the sample's transactions."""
    for _ in range(100):
        try:
            store.upload(SAMPLE, "transactions")
            return store
        except OSError:
            time.sleep(0.1)  # it is still starting
    raise AssertionError(store.log.read_text())


def examples(root: Path) -> dict[str, str]:
    """The digest of each file of the examples, by split and name."""
    folder = max(root.glob("artifacts/*ExampleGen/examples/*"), key=lambda path: int(path.name))
    return {str(path.relative_to(folder)): digest(path) for path in folder.rglob("*.gz")}


def test_transactions_in_an_object_store_give_the_run_of_local_ones(
    uploaded, new_bank, monkeypatch
):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    local, remote = new_bank(CONFIG), new_bank(CONFIG)
    expected = local.run(SAMPLE, AS_OF)
    seen = remote.run(uploaded.uri("transactions"), AS_OF)
    assert seen["outcome"] == expected["outcome"] == "pushed"
    assert seen["rows"] == expected["rows"]
    assert examples(remote.root) == examples(local.root) != {}
    assert seen["metrics"] == expected["metrics"]
    again = remote.run(uploaded.uri("transactions"), AS_OF)
    assert again["outcome"] == "unchanged", again


def test_a_wrong_key_or_a_missing_folder_is_said_in_a_line(uploaded, new_bank, monkeypatch):
    bank = new_bank(CONFIG)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    missing = bank.call("run", "--data", uploaded.uri("nothing"), "--as-of", AS_OF)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    refused = bank.call("run", "--data", uploaded.uri("transactions"), "--as-of", AS_OF)
    for done in (missing, refused):
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        (line,) = done.stderr.splitlines()
        assert "s3://bank/" in line
        assert "secret" not in line
    assert not bank.root.exists()

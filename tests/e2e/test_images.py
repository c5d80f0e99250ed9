"""The images are built and do their work, as in production: read-only and without rights."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pyarrow import parquet

from tests import debian
from tests.e2e.conftest import REPOSITORY, SAMPLE

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

RUNTIME = REPOSITORY / "deploy" / "docker" / "runc_without_limits.py"
RESTRICTED = "--read-only --tmpfs=/tmp --cap-drop=all --security-opt=no-new-privileges".split()
CONFIG = ["--config=/sample/config.yaml", "--root=/fraud/root"]


class Engine:
    """Podman, which runs images."""

    def __init__(self) -> None:
        debian.server("runc", "runc")
        self._podman = [debian.server("podman", "podman")]

    def call(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [*self._podman, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stderr[-3000:]}"
        return done

    def check(self, image: str) -> None:
        """Finds out how this machine runs an image; skips the test if it does not."""
        tried = ["run", "--rm", image, "--help"]
        if "rlimit" in (done := self.call(*tried, check=False)).stderr:
            self._podman += ["--cgroup-manager=cgroupfs", f"--runtime={RUNTIME}"]
            done = self.call(*tried, check=False)
        if done.returncode:
            pytest.skip(f"podman cannot run images here: {done.stderr.strip()[-300:]}")


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    """target → name of its image, as scripts/image.sh builds them."""
    done = subprocess.run(
        [REPOSITORY / "scripts" / "image.sh"], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode == 2:
        pytest.skip("images cannot be built here; see above")
    assert done.returncode == 0
    names = [line.split()[0] for line in done.stdout.splitlines()]
    return {re.sub(r".*/fraud-|:.*", "", name): name for name in names}


@pytest.fixture(scope="module")
def engine(images: dict[str, str]) -> Engine:
    engine = Engine()
    engine.check(images["serving"])
    return engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's configuration with its schema, and an empty root."""
    folder = tmp_path_factory.mktemp("images")
    folder.chmod(0o755)  # the image's user may read it
    config = (SAMPLE.parent / "config.yaml").read_text(encoding="utf-8")
    (folder / "config.yaml").write_text(config.replace("../../schema/", ""), encoding="utf-8")
    shutil.copy(REPOSITORY / "schema" / "schema.pbtxt", folder)
    (folder / "root").mkdir()
    return folder


@pytest.fixture(scope="module")
def mounts(folder: Path) -> list[str]:
    """Options that mount them, and the sample's transactions; the root with the image's user."""
    return [
        f"--volume={folder}:/sample:ro",
        f"--volume={SAMPLE}:/fraud/data:ro",
        f"--volume={folder / 'root'}:/fraud/root:U",
    ]


@pytest.fixture(scope="module")
def pushed(engine: Engine, images: dict[str, str], mounts: list[str]) -> str:
    """The version that a run of the sample pushes, in the image `pipeline`, without a network."""
    options = ["--rm", "--network=none", *RESTRICTED, *mounts, images["pipeline"]]
    run = engine.call("run", *options, "run", *CONFIG, "--data=/fraud/data", "--json")
    engine.call("run", *options, "state", "build", *CONFIG, "--data=/fraud/data")
    summary = json.loads(run.stdout)
    assert summary["outcome"] == "pushed"
    return summary["pushed_version"]


@pytest.fixture(scope="module")
def server(
    engine: Engine, images: dict[str, str], mounts: list[str], pushed: str
) -> Iterator[tuple[str, httpx.Client]]:
    """A running container of the image `serving`, and a client with its token."""
    token = secrets.token_hex(24)
    options = ["--detach", "--publish=127.0.0.1::8501", f"--env=FRAUD_SCORE_TOKENS={token}"]
    command = ["serve", "--host=0.0.0.0", *CONFIG]
    name = engine.call("run", *options, *RESTRICTED, *mounts, images["serving"], *command)
    container = name.stdout.strip()
    try:
        address = engine.call("port", container, "8501").stdout.strip()
        client = httpx.Client(
            base_url=f"http://{address}", headers={"authorization": f"Bearer {token}"}, timeout=30
        )
        end = time.monotonic() + 180
        while time.monotonic() < end:
            try:
                if client.get("/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        else:
            pytest.fail(engine.call("logs", container).stderr[-3000:])
        yield container, client
    finally:
        engine.call("rm", "--force", "--time=30", container)


def test_a_backup_is_restored_into_an_empty_volume(
    engine: Engine, images: dict[str, str], folder: Path, mounts: list[str], pushed: str
) -> None:
    """As the CronJobs fraud-backup and fraud-restore do it.

    First, before the server has the state: LMDB tells processes apart by their numbers, which are
    the same in two containers. In Kubernetes the state is in Redis.
    """
    *given, root = mounts
    for name in ("backups", "restored"):
        (folder / name).mkdir()
    backups, restored = f"--volume={folder / 'backups'}:/fraud/backups", folder / "restored"
    empty = [*given, f"--volume={restored}:/fraud/root:U", f"{backups}:ro"]
    options, image = ["--rm", "--network=none", *RESTRICTED], images["pipeline"]
    backup = ["backup", "/fraud/backups", "--keep=14", *CONFIG]
    engine.call("run", *options, *given, root, f"{backups}:U", image, *backup)
    engine.call("run", *options, *empty, image, "restore", "/fraud/backups", "--newest", *CONFIG)
    verified = engine.call("run", *options, *empty, image, "verify", *CONFIG)
    assert verified.stdout == "/fraud/root: clean\n"
    assert [path.name for path in (restored / "pushed").glob("[0-9]*")] == [pushed]


def test_both_images_do_their_work_read_only_and_without_rights(
    server: tuple[str, httpx.Client], engine: Engine, images: dict[str, str], pushed: str
) -> None:
    container, client = server
    names = "TRANSACTION_ID TX_DATETIME CUSTOMER_ID TERMINAL_ID TX_AMOUNT".split()
    names += "MERCHANT_CATEGORY CHANNEL COUNTRY CUSTOMER_AGE_BAND".split()
    (file,) = (SAMPLE / "date=2026-03-21").glob("*.parquet")
    row = parquet.read_table(file, columns=names).slice(0, 1).to_pylist()[0]
    row["TX_DATETIME"] = row["TX_DATETIME"].isoformat()
    answer = client.post("/v1/transactions:score", json={"transactions": [row], "explain": True})
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"]
    assert 0 <= result["score"] <= 1 and result["version"] == pushed and result["reasons"]
    assert result["outcome"] == "repeated", "the state has the history of the data"
    assert httpx.post(f"{client.base_url}/v1/transactions:score").status_code == 401
    engine.call("healthcheck", "run", container)

    status = engine.call("exec", container, "cat", "/proc/1/status").stdout
    assert re.search(r"^Uid:\t10001\t10001", status, re.MULTILINE)
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    for image in images.values():
        for forbidden, message in (
            ("touch /opt/fraud/x", "Read-only file system"),
            ("command -v cc g++ gcc pip pip3 uv; false", ""),
        ):
            shell = ["--rm", *RESTRICTED, "--entrypoint=sh", image, "-c", forbidden]
            done = engine.call("run", *shell, check=False)
            assert done.returncode and not done.stdout and message in done.stderr
    refused = engine.call("run", "--rm", *RESTRICTED, images["serving"], "run", check=False)
    assert refused.returncode == 2 and "invalid choice: 'run'" in refused.stderr
    for line in engine.call("logs", container).stderr.splitlines():
        assert json.loads(line)["level"] != "ERROR", line


def test_images_say_what_they_are(images: dict[str, str], engine: Engine) -> None:
    version = re.search(r'version="(.*)"', (REPOSITORY / "setup.py").read_text("utf-8"))
    assert version
    for target, image in images.items():
        (found,) = json.loads(engine.call("image", "inspect", image).stdout)
        labels = found["Config"]["Labels"]
        prefix = "org.opencontainers.image"
        assert labels[f"{prefix}.title"] == f"fraud-{target}"
        assert labels[f"{prefix}.version"] == version[1]
        assert labels[f"{prefix}.revision"] and labels[f"{prefix}.created"]
        assert found["Config"]["User"] == "10001:10001"

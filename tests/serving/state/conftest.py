"""Every store that the contract holds for: a folder, and a real Redis server."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory) -> Iterator[str]:
    """A Redis server of Debian's package, of no data yet; skips the test where it cannot be had."""
    server = _debian_redis()
    folder = tmp_path_factory.mktemp("redis")
    path = f"/tmp/fraud-redis-{os.getpid()}.sock"  # the paths of sockets must be short
    options = ["--port", "0", "--unixsocket", path, "--dir", str(folder), "--save", ""]
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen([server, *options], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not os.path.exists(path):
            assert process.poll() is None and time.monotonic() < deadline, "Redis did not start"
            time.sleep(0.05)
        yield f"unix://{path}"
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(params=["folder", "redis"])
def location(request) -> str:
    """Where a test may have a state; there is none yet."""
    return request.getfixturevalue("new_location")(request.param)


@pytest.fixture
def new_location(request, tmp_path) -> Callable[[str], str]:
    """Makes a place for a state of a kind."""
    count = iter(range(1000))

    def make(kind: str) -> str:
        if kind == "folder":
            return str(tmp_path / f"state-{next(count)}")
        url = request.getfixturevalue("redis_url")
        import redis

        redis.Redis.from_url(url).flushall()
        return url

    return make


def _debian_redis() -> str:
    if shutil.which("redis-server") is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            pytest.skip("no Redis here, and not root on Debian to install redis-server")
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in ("update", "install --no-install-recommends redis-server"):
            done = subprocess.run(
                ["apt-get", "-qq", "-y", *command.split()],
                env=quiet,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                pytest.skip(f"redis-server cannot be installed: {done.stderr.strip()[-300:]}")
    server = shutil.which("redis-server")
    assert server is not None
    return server

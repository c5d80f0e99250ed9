"""Every store that the contract holds for: a folder, and a real Redis server."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests import debian


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory) -> Iterator[str]:
    """A Redis server of Debian's package, of no data yet; skips the test where it cannot be had."""
    server = debian.server("redis-server", "redis-server")
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

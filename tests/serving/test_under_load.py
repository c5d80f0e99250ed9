"""A server under load from another process: swaps, a kill of a worker, memory, and its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import grpc
import httpx
import psutil
import pytest

from fraud.errors import BadInput
from fraud.serving.server import _hold_ports
from fraud.serving.settings import Settings
from tests.serving.conftest import Server, push

PATH = "/v1/models/fraud:predict"
BODY = '{"signature_name": "predict", "inputs": {"TX_AMOUNT": [50], "CHANNEL": ["web"]}}'


class Load:
    """Requests at a steady rate by another process, as long as the block lasts."""

    def __init__(self, server, folder, rate):
        self.out, self._stop = folder / "load.json", folder / "stop"
        bodies = folder / "bodies.txt"
        bodies.write_text(BODY)
        arguments = map(str, [server.http, PATH, bodies, rate, self._stop, self.out])
        command = [sys.executable, "-m", "benchmarks.serving.steady_load", *arguments]
        self._process = subprocess.Popen(command)
        self.seen = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.touch()
        assert self._process.wait(120) == 0
        self.seen = json.loads(self.out.read_text())


def swap(server, saved_models, first, last, pause):
    """Pushes versions, each of the model before the last: every other one is a rollback.

    Returns:
      The score of each version, and when each was first seen to be ready.
    """
    scores, live_since = {}, {}
    for version in range(first, last + 1):
        model = version % 2
        push(saved_models.plain[model], server.root / "pushed", version)
        server.wait_for_version(version)
        scores[str(version)], live_since[str(version)] = (0.6, 0.7)[model], time.time()
        time.sleep(pause)
    return scores, live_since


def check_answers(seen, scores, live_since):
    """Nothing failed, and every answer is the live version's."""
    failed = [version for _, _, version, score in seen if score is None]
    assert not failed, failed[:3]
    order = list(live_since)
    for at, _, version, score in seen:
        assert score == pytest.approx(scores[version])
        # Sent after the next version was seen to answer, nothing is answered by this one.
        following = order[order.index(version) + 1 :]
        assert not following or at <= live_since[following[0]], (version, at)


@pytest.mark.parametrize(
    ("count", "rate", "pause"),
    [
        pytest.param(5, 40, 0.2, id="short"),
        pytest.param(25, 20, 1.0, id="25 versions", marks=[pytest.mark.slow, pytest.mark.e2e]),
    ],
)
def test_no_request_fails_while_versions_change(saved_models, tmp_path, count, rate, pause):
    push(saved_models.plain[0], tmp_path / "pushed", 0)
    server = Server(tmp_path)
    try:
        server.wait_for_version(0)
        with Load(server, tmp_path, rate) as load:
            time.sleep(1)
            started = time.time()
            scores, live_since = swap(server, saved_models, 1, count, pause)
            server.wait_for(lambda: is_unloaded(server, count - 1))
        seen = load.seen
        assert len(seen) > 20
        check_answers(seen, {"0": 0.6, **scores}, {"0": started, **live_since})
        assert {version for _, _, version, _ in seen} >= {"0", str(count)}
        changed = [line for line in server.lines("version") if line["state"] == "END"]
        assert len(changed) == count
    finally:
        assert server.stop() == 0


def is_unloaded(server, version):
    lines = server.lines("version")
    return any(line["version"] == str(version) and line["state"] == "END" for line in lines)


def test_what_has_begun_at_the_end_is_answered(saved_models, tmp_path):
    push(saved_models.plain[0], tmp_path / "pushed", 1)
    server = Server(tmp_path)
    server.wait_for_version(1)
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as begun:
        head = f"POST {PATH} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(BODY)}\r\n"
        begun.sendall(f"{head}expect: 100-continue\r\n\r\n{BODY[:20]}".encode())
        # Which the server asks for when it begins to read the body.
        assert begun.recv(10_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        server.process.terminate()
        server.wait_for(lambda: server.lines("stopping"))
        begun.sendall(BODY[20:].encode())
        answer = b"".join(iter(lambda: begun.recv(10_000), b""))
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert b'"score":[0.6' in answer
    assert server.stop() == 0
    assert server.lines("stopped")


def test_workers_share_ports_and_metrics_and_one_that_dies_is_replaced(saved_models, tmp_path):
    push(saved_models.plain[0], tmp_path / "pushed", 1)
    http, rpc = free_ports(2)
    options = ("--workers", "2", "--port", str(http), "--grpc-port", str(rpc))
    server = Server(tmp_path, *options)
    try:
        # A worker listens once it has loaded what is there, so no client meets one without a model.
        server.wait_for(lambda: server.lines("listening"))
        for _ in range(20):
            assert httpx.post(f"{server.url}{PATH}", content=BODY, timeout=30).status_code == 200
        server.wait_for(lambda: len(server.lines("listening")) == 2)
        pids = [line["pid"] for line in server.lines("listening")]
        for _ in range(20):
            # A connection each, so that the kernel chooses a worker each time.
            assert httpx.post(f"{server.url}{PATH}", content=BODY, timeout=30).status_code == 200
        text = httpx.get(f"{server.url}/metrics").text
        assert 'fraud_scored_transactions_total{version="1"} 40.0' in text
        # A second server with workers could share the ports, and clients would get both's answers.
        assert_in_use(tmp_path, "--port", http, *options)
        os.kill(pids[0], signal.SIGKILL)
        time.sleep(0.5)  # until then, a connection may have been the killed worker's

        def another_listens():
            assert httpx.post(f"{server.url}{PATH}", content=BODY, timeout=30).status_code == 200
            return len(server.lines("listening")) == 3

        server.wait_for(another_listens)
    finally:
        workers = psutil.Process(server.process.pid).children(recursive=True)
        assert server.stop() == 0
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_a_port_in_use_is_named(server, tmp_path):
    port, rpc_port = (address.rpartition(":")[2] for address in (server.http, server.grpc))
    assert_in_use(tmp_path, "--port", port, "--port", port, "--grpc-port", "0")
    assert_in_use(tmp_path, "--grpc-port", rpc_port, "--port", "0", "--grpc-port", rpc_port)
    [free] = free_ports(1)
    workers = ("--workers", "2", "--port", str(free), "--grpc-port", rpc_port)
    assert_in_use(tmp_path, "--grpc-port", rpc_port, *workers)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, workers do not share ports well")
def test_servers_with_workers_that_start_at_once_do_not_share_a_port(tmp_path):
    """The workers of the first do not listen yet."""
    http, rpc = free_ports(2)
    first = Settings(tmp_path, port=http, grpc_port=rpc, workers=2)
    held = _hold_ports(first)
    with pytest.raises(BadInput, match=rf"127.0.0.1:{http}: .*choose another --port"):
        _hold_ports(first)
    with pytest.raises(BadInput, match=rf"127.0.0.1:{rpc}: .*choose another --grpc-port"):
        _hold_ports(replace(first, port=free_ports(1)[0]))
    for each in held:
        each.close()
    for each in _hold_ports(first):
        each.close()


def assert_in_use(root, option, port, *options):
    """That a server does not start, because of a port, and says so."""
    command = [sys.executable, "-m", "fraud.pipeline.cli", "serve", "--root", str(root)]
    scratch = root / "scratch"
    scratch.mkdir(exist_ok=True)
    done = subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    assert done.returncode == 2, done.stderr
    assert not [*scratch.glob("fraud*")]
    assert f"127.0.0.1:{port}" in done.stderr and option in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_of_version_6(saved_models, tmp_path):
    push(saved_models.plain[0], tmp_path / "pushed", 1)
    server = Server(tmp_path, "--host", "::1")
    try:
        server.wait_for_version(1)
        assert server.url.startswith("http://[::1]:") and server.grpc.startswith("[::1]:")
        with grpc.insecure_channel(server.grpc) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            assert check(b"", timeout=30) == b"\x08\x01"  # SERVING
    finally:
        assert server.stop() == 0


@pytest.mark.slow
@pytest.mark.e2e
def test_memory_does_not_grow(saved_models, tmp_path):
    """Of a server that answers and swaps: within 5 % of what it takes after warm-up."""
    push(saved_models.plain[0], tmp_path / "pushed", 1)
    server = Server(tmp_path)
    try:
        server.wait_for_version(1)
        with Load(server, tmp_path, 40):
            swap(server, saved_models, 2, 9, 3)  # the first versions fill caches
            before = memory(server)
            for version in range(10, 26):
                push(saved_models.plain[version % 2], tmp_path / "pushed", version)
                server.wait_for_version(version)
                time.sleep(3)
            after = memory(server)
        print(f"{before / 2**20:.0f} MB after warm-up, {after / 2**20:.0f} MB at the end")
        assert after < before * 1.05
    finally:
        server.stop()


def memory(server):
    """What the server does not share, in bytes, once the old version is freed."""
    time.sleep(2)
    return psutil.Process(server.process.pid).memory_full_info().uss

"""`fraud-pipeline ui`: where it listens, and what it starts and stops."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from fraud.pipeline import cli, production
from fraud.pipeline.commands import ui
from tests.pipeline.recorded_runs import Records


@pytest.fixture
def root(tmp_path):
    """A root with a run."""
    records = Records(tmp_path / "root")
    records.run("r1", "2026-01-10", ("2026-01-02", "2026-01-05"), "100")
    return records.root


@pytest.fixture
def taken():
    """A port that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_a_port_in_use_is_named_before_anything_is_started(root, taken, capsys):
    assert cli.main(["ui", "--root", str(root.path), "--port", str(taken)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and f"127.0.0.1:{taken}: " in err and "--port" in err


def test_what_is_no_port_is_refused(root, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["ui", "--root", str(root.path), "--port", "70000"])
    assert "70000 is no port" in capsys.readouterr().err


@pytest.mark.parametrize("is_last", [False, True])
def test_a_port_of_somebody_else_is_not_taken_for_tensorboard(root, taken, is_last, capsys):
    page = 65535 if is_last else taken - 1
    with ui.tensorboard(root, page) as address:
        assert address is None
    assert f"TensorBoard was not started: 127.0.0.1:{page + 1}: " in capsys.readouterr().err


def test_mlflow_learns_of_a_rollback(root, tmp_path, monkeypatch):
    """The page does not wait for it."""
    monkeypatch.setenv("FRAUD_UI_TOKEN", "secret")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    called, pages = [], []
    monkeypatch.setattr(production, "roll_back", lambda *_: (SimpleNamespace(version="200"), []))
    monkeypatch.setattr(ui.subprocess, "Popen", lambda command, **_: called.append(command))
    monkeypatch.setattr(uvicorn.Config, "__init__", lambda self, app, **_: pages.append(app))
    monkeypatch.setattr(uvicorn, "Server", lambda _: SimpleNamespace(run=lambda sockets: None))
    command = ["ui", "--root", str(root.path), "--port", "0", "--no-tensorboard"]
    assert cli.main(command) == 0
    client = TestClient(pages[0], base_url="http://127.0.0.1", follow_redirects=False)
    form = {"version": "100", "reason": "why", "token": "secret"}
    assert client.post("/rollback", data=form).status_code == 303
    ((*_, name, option, value),) = called
    assert (name, option, value) == ("track", "--root", str(root.path))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_it_started_ends_with_it(root, tmp_path, number):
    board = tmp_path / "tensorboard"
    board.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/process\nexec sleep 600\n")
    board.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    code = f"""if True:
        import sys
        from fraud.pipeline import cli
        from fraud.pipeline.commands import ui
        ui._program = lambda: {str(board)!r}
        sys.exit(cli.main(["ui", "--root", {str(root.path)!r}, "--port", "{port}"]))"""
    page = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert page.stdout and page.stdout.readline() == f"http://127.0.0.1:{port}/\n"
    while True:
        assert page.poll() is None
        with suppress(httpx.HTTPError):
            if "TensorBoard" in httpx.get(f"http://127.0.0.1:{port}/", timeout=60).text:
                break
        time.sleep(0.1)
    page.send_signal(number)
    assert page.wait(60) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "process").read_text()), 0)

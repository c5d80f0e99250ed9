"""`fraud-pipeline ui`: where it listens, and what it starts and stops."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import httpx
import pytest

from fraud.pipeline import cli
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

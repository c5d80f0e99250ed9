"""Every command of docs/operations.md, in order and in one shell."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import textwrap

import pytest

from tests.e2e.conftest import CONFIG, REPOSITORY, SAMPLE

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PORTS = ("8501", "8500")


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def script(page: str) -> str:
    """The blocks of a page that are to be executed, each line shown before it is."""
    blocks = re.findall(r"^( *)```sh\n(.*?)^\1```$", page, re.MULTILINE | re.DOTALL)
    return "\n".join(textwrap.dedent(block) for _, block in blocks)


def test_every_command_of_the_guide_works(tmp_path):
    page = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    commands = script(page)
    assert commands.count("fraud-pipeline backup") == 4
    for port in PORTS:
        commands = commands.replace(port, free_port())
    (tmp_path / "fraud.yaml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "transactions").symlink_to(SAMPLE)
    environment = {name: value for name, value in os.environ.items() if "FRAUD" not in name}
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, "-euxo", "pipefail", "-c", f"trap 'kill $(jobs -p) || true' EXIT\n{commands}"],
        cwd=tmp_path,
        env={**environment, "CHECKOUT": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "Traceback" not in done.stdout
    lost = done.stdout.partition("rm fraud-root/metadata.sqlite")[2]
    assert "missing, although there are versions" in lost, "what the drill is about was seen"
    assert "pushed      version" in done.stdout or "pushed    version" in done.stdout
    log = (tmp_path / "server.log").read_text(encoding="utf-8")
    assert "Traceback" not in log


def test_blocks_are_found_wherever_they_are():
    page = "```sh\na\n```\n1. x\n\n   ```sh\n   b\n     c\n   ```\n```\nno\n```\n"
    assert script(page) == "a\n\nb\n  c\n"

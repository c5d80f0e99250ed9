"""Servers from Debian's packages, for tests that need a real one."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def server(program: str, package: str) -> str:
    """The path of a server program, installed if it is missing; skips the test where it cannot be.

    Args:
      program: such as "redis-server".
      package: the Debian package that has it.
    """
    search = f"{os.environ['PATH']}:/usr/sbin"
    if shutil.which(program, path=search) is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            pytest.skip(f"no {program} here, and not root on Debian to install {package}")
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in ("update", f"install --no-install-recommends {package}"):
            done = subprocess.run(
                ["apt-get", "-qq", "-y", "-o", "DPkg::Lock::Timeout=300", *command.split()],
                env=quiet,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                pytest.skip(f"{package} cannot be installed: {done.stderr.strip()[-300:]}")
    path = shutil.which(program, path=search)
    assert path is not None
    return path

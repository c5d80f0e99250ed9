"""The set-up scripts, run for real on made-up machines: stand-ins for uname, getconf and Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FIND_PYTHON = ROOT / "scripts" / "find_python.sh"

# Answers what the scripts ask of a Python, and notes what it is told to do.
FAKE_PYTHON = """#!/usr/bin/env bash
case "$*" in
*version_info\\[:2\\]*) echo {version} ;;
*version_info*) echo {older_than_3_11} ;;
*sysconfig*) echo {include} ;;
"-m venv"*) echo "venv" >>{log} && mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
*"config get"*) exit 1 ;;
*uv.txt*)
    if [ -e {no_uv} ]; then exit 1; fi
    printf '#!/usr/bin/env bash\\necho "uv $2" >>{log}\\n' >.venv/bin/uv && chmod +x .venv/bin/uv ;;
*"pip"*install*) echo "pip install" >>{log} ;;
esac
"""


class Machine:
    """A made-up machine: its bin/ comes first on PATH, its home is empty."""

    def __init__(self, folder: Path, kernel: str = "Linux x86_64", libc: str = "glibc 2.36"):
        self.home = folder / "home"
        self.bin = folder / "bin"
        self.log = folder / "log"
        self.no_uv = folder / "no_uv"
        self.home.mkdir()
        self.bin.mkdir()
        (folder / "Python.h").touch()
        self.add(
            "uname", '#!/bin/sh\n[ "$1" = -s ] && echo {} || echo {}\n'.format(*kernel.split())
        )
        self.add("getconf", f"#!/bin/sh\necho {libc}\n" if libc else "#!/bin/sh\nexit 1\n")
        self.add("getent", f"#!/bin/sh\necho me:x:1:1:me:{self.home}:/bin/sh\n")
        self.add("c++", "#!/bin/sh\n")

    def add(self, name: str, text: str, folder: Path | None = None) -> Path:
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def add_python(self, version: str, folder: Path | None = None) -> Path:
        text = FAKE_PYTHON.format(
            version=version,
            older_than_3_11=version == "3.10",
            include=self.bin.parent,
            log=self.log,
            no_uv=self.no_uv,
        )
        return self.add(f"python{version}", text, folder)

    def run(self, script: Path, **env: str) -> subprocess.CompletedProcess[str]:
        env = {"HOME": str(self.home), "PATH": f"{self.bin}:/usr/bin:/bin", **env}
        return subprocess.run([script], env=env, capture_output=True, text=True)

    def done(self) -> list[str]:
        """What was installed since the last call."""
        lines = self.log.read_text().split("\n")[:-1] if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.mark.parametrize(
    ("libc", "version"), [("2.36", "3.10"), ("2.38", "3.10"), ("2.39", "3.13"), ("2.41", "3.13")]
)
def test_an_old_c_library_takes_3_10_and_a_new_one_3_13(
    tmp_path: Path, libc: str, version: str
) -> None:
    machine = Machine(tmp_path, libc=f"glibc {libc}")
    pythons = {found: machine.add_python(found) for found in ("3.10", "3.13")}
    assert machine.run(FIND_PYTHON).stdout.strip() == str(pythons[version])


def test_a_shim_that_refuses_is_passed_over_for_the_real_one_in_pyenv(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add("python3.10", "#!/bin/sh\nexit 127\n")
    real = machine.add_python("3.10", tmp_path / "pyenv" / "versions" / "3.10.4" / "bin")
    assert machine.run(FIND_PYTHON, PYENV_ROOT=str(tmp_path / "pyenv")).stdout.strip() == str(real)


def test_pyenv_is_found_in_the_users_own_home_when_home_is_another(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add("python3.10", "#!/bin/sh\nexit 127\n")
    real = machine.add_python("3.10", machine.home / ".pyenv" / "versions" / "3.10.4" / "bin")
    assert machine.run(FIND_PYTHON, HOME=str(tmp_path / "none")).stdout.strip() == str(real)


def test_where_nothing_fits_one_message_says_what_to_install(tmp_path: Path) -> None:
    if any(shutil.which("python3.10", path=p) for p in ("/usr/bin", "/usr/local/bin")):
        pytest.skip("this machine has a system-wide Python 3.10")
    machine = Machine(tmp_path)
    machine.add_python("3.12")
    done = machine.run(FIND_PYTHON)
    assert done.returncode == 2
    assert "pyenv install 3.10" in done.stderr
    assert "glibc 2.36" in done.stderr


@pytest.mark.parametrize(
    ("kernel", "libc", "message"),
    [
        ("Linux x86_64", "", "glibc"),
        ("Linux aarch64", "glibc 2.41", "no wheels for Linux aarch64"),
        ("Darwin x86_64", "", "no wheels for Darwin x86_64"),
    ],
)
def test_machines_without_wheels_are_told_so(
    tmp_path: Path, kernel: str, libc: str, message: str
) -> None:
    done = Machine(tmp_path, kernel, libc).run(FIND_PYTHON)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_named_interpreter_is_taken_only_if_it_fits(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    mine = machine.add_python("3.10", tmp_path / "mine")
    other = machine.add_python("3.12", tmp_path / "mine")
    assert machine.run(FIND_PYTHON, PYTHON=str(mine)).stdout.strip() == str(mine)
    wrong = machine.run(FIND_PYTHON, PYTHON=str(other))
    assert wrong.returncode == 2
    assert "is Python 3.12" in wrong.stderr
    absent = machine.run(FIND_PYTHON, PYTHON=str(tmp_path / "no"))
    assert absent.returncode == 2
    assert "does not start" in absent.stderr


def test_an_active_virtual_environment_is_passed_over(tmp_path: Path) -> None:
    """It may be the one that set-up is about to replace."""
    machine = Machine(tmp_path)
    active = machine.add_python("3.10", tmp_path / "venv" / "bin")
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    base = machine.add_python("3.10")
    first = f"{active.parent}:{base.parent}:/usr/bin:/bin"
    assert machine.run(FIND_PYTHON, PATH=first).stdout.strip() == str(base)
    named = machine.run(FIND_PYTHON, PYTHON=str(active))
    assert named.returncode == 2
    assert "virtual environment" in named.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small copy of what set-up reads."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", checkout / "scripts")
    shutil.copytree(ROOT / "requirements", checkout / "requirements")
    shutil.copy(ROOT / "setup.py", checkout)
    (checkout / "models").mkdir()
    (checkout / "models" / "__init__.py").touch()
    return checkout


def test_set_up_does_only_what_is_needed(tmp_path: Path, checkout: Path) -> None:
    machine = Machine(tmp_path)
    machine.add_python("3.10")
    setup = checkout / "scripts" / "setup.sh"
    from_nothing = ["venv", "uv sync", "uv install"]

    first = machine.run(setup)
    assert (first.returncode, machine.done()) == (0, from_nothing), first.stderr

    again = machine.run(setup)
    assert (again.returncode, again.stderr, machine.done()) == (0, "", [])

    with (checkout / "requirements" / "compat.txt").open("a") as pins:
        pins.write("# another pin\n")
    assert machine.run(setup).returncode == 0
    assert machine.done() == ["uv sync", "uv install"]

    (checkout / "serving").mkdir()
    (checkout / "serving" / "__init__.py").touch()
    assert machine.run(setup).returncode == 0
    assert machine.done() == ["uv sync", "uv install"]

    (checkout / ".venv" / "half-made").touch()
    (checkout / ".venv" / ".ready").unlink()
    assert machine.run(setup).returncode == 0
    assert machine.done() == from_nothing
    assert not (checkout / ".venv" / "half-made").exists()

    moved = checkout.rename(tmp_path / "moved")
    assert machine.run(moved / "scripts" / "setup.sh").returncode == 0
    assert machine.done() == from_nothing


def test_where_uv_cannot_be_had_pip_installs(tmp_path: Path, checkout: Path) -> None:
    machine = Machine(tmp_path)
    machine.add_python("3.10")
    machine.no_uv.touch()
    done = machine.run(checkout / "scripts" / "setup.sh")
    assert (done.returncode, machine.done()) == (0, ["venv", "venv", "pip install", "pip install"])


def test_missing_headers_are_named_and_nothing_is_made(tmp_path: Path, checkout: Path) -> None:
    machine = Machine(tmp_path)
    machine.add_python("3.10")
    (tmp_path / "Python.h").unlink()
    done = machine.run(checkout / "scripts" / "setup.sh")
    assert done.returncode == 2
    assert "headers" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_failed_set_up_is_not_taken_for_a_finished_one(tmp_path: Path, checkout: Path) -> None:
    machine = Machine(tmp_path)
    python = machine.add_python("3.10")
    works = python.read_text()
    python.write_text(works.replace('*"pip"*install*)', '*"pip"*install*) exit 1 ;;\n*never*)'))
    machine.no_uv.touch()
    setup = checkout / "scripts" / "setup.sh"
    failed = machine.run(setup)
    assert failed.returncode == 2
    assert "could not be installed" in failed.stderr
    machine.done()

    python.write_text(works)
    assert machine.run(setup).returncode == 0
    assert machine.done() == ["venv", "venv", "pip install", "pip install"]

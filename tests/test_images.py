"""What the images are made of. They are built and run by tests/e2e/test_images.py."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy.docker import trim

DOCKERFILE = Path("deploy", "docker", "Dockerfile")
# Names of modules and of the packages that have them, where they differ.
PACKAGES = {
    "google": "protobuf",
    "grpc": "grpcio",
    "prometheus_client": "prometheus-client",
    "pydantic_core": "pydantic-core",
    "tensorflow": "tensorflow-cpu",
    "tensorflow_serving": "tensorflow-serving-api",
    "typing_extensions": "typing-extensions",
    "yaml": "pyyaml",
}
TENSORFLOW = """__init__.py libtensorflow_cc.so.2 core/example/example_pb2.py
    compiler/xla/tsl/protobuf/coordination_config_pb2.py""".split()
# What the server does not run: the configuration's checks of drift, TFX's types, and traces, which
# the images are built without.
NOT_RUN = {"fraud.pipeline.drift", "fraud.pipeline.components.types", "fraud.tracing"}

# The command, of the working directory and without what the checkout's own set-up would add to it.
COMMAND = """
import sys
sys.path.insert(0, "")
sys.meta_path = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
from fraud.pipeline.cli import main
sys.exit(main(sys.argv[1:]))
"""


def requirements(path: Path) -> dict[str, str]:
    """name → version, of a file with hashes."""
    text = path.read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE))


@pytest.fixture
def site(repository, tmp_path):
    """A folder like site-packages, trimmed."""
    for room in (repository / "fraud").iterdir():
        if (room / "__init__.py").exists():
            shutil.copytree(room, tmp_path / "fraud" / room.name)
        elif room.suffix == ".py":
            (tmp_path / "fraud").mkdir(exist_ok=True)
            shutil.copy(room, tmp_path / "fraud")
    for name in (*TENSORFLOW, "core/example/example_pb2.pyi", "python/keras/models.py", "a.h"):
        file = tmp_path / "tensorflow" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    trim.trim(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["modern.txt", "serving.txt", "uv.txt"])
def test_every_requirement_of_an_image_has_a_hash(repository, name):
    dockerfile = (repository / DOCKERFILE).read_text(encoding="utf-8").replace("\\\n", "")
    installs = re.findall(r"(?:pip install|pip sync) [^&\n]*", dockerfile)
    assert installs
    assert all("--require-hashes" in line or "--offline" in line for line in installs)
    assert any(f"requirements/{name}" in line for line in installs)
    text = (repository / "requirements" / name).read_text(encoding="utf-8")
    lines = [line for line in text.replace("\\\n", "").splitlines() if line[:1].strip("# ")]
    assert lines
    assert not [line for line in lines if "--hash=sha256:" not in line]


def test_the_server_has_the_packages_that_it_imports_and_the_versions_of_the_tests(repository):
    serving = requirements(repository / "requirements" / "serving.txt")
    modules = trim.needed(trim.STARTS, repository)
    imported = {
        name.partition(".")[0]
        for module, file in modules.items()
        if module not in NOT_RUN
        for name in trim.named(file.read_text(encoding="utf-8"))
    }
    others = imported - {"fraud"} - sys.stdlib_module_names
    assert "pyarrow" in others
    assert {PACKAGES.get(name, name) for name in others} <= serving.keys()
    modern = requirements(repository / "requirements" / "modern.txt")
    modern["tensorflow-cpu"] = modern["tensorflow"]
    assert {name: modern.get(name) for name in serving if name in modern} == {
        name: version for name, version in serving.items() if name in modern
    }
    assert not {"tfx", "keras", "apache-beam", "tensorflow", "ml-metadata"} & serving.keys()


def test_no_code_of_training_is_in_the_image_of_the_server(site):
    files = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {"fraud/serving/server.py", "fraud/pipeline/commands/serve.py"} <= files
    training = "models/network pipeline/graph pipeline/runners pipeline/commands/run report data/"
    assert not [f for f in files for part in training.split() if f.startswith(f"fraud/{part}")]
    kept = {f.removeprefix("tensorflow/") for f in files if f.startswith("tensorflow/")}
    assert kept == {*TENSORFLOW}
    assert not [path for path in site.rglob("*") if path.is_dir() and not any(path.iterdir())]


def test_the_command_offers_what_is_there(site):
    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments],
            cwd=site,
            capture_output=True,
            text=True,
            check=False,
        )

    offered = re.findall(r"^    (\w+) ", call("--help").stdout, re.MULTILINE)
    assert offered == ["serve", "state"]
    for command in offered:
        assert call(command, "--help").returncode == 0
    # The package is the real one here. To find that tokens are missing, the server is imported.
    shutil.rmtree(site / "tensorflow")
    refused = call("serve", "--host", "0.0.0.0")
    assert refused.returncode == 2 and "set FRAUD_SCORE_TOKENS" in refused.stderr, refused.stderr
    refused = call("state", "build")
    assert refused.returncode == 2 and "no data: give --data" in refused.stderr, refused.stderr
    refused = call("run")
    assert refused.returncode == 2
    assert "invalid choice: 'run'" in refused.stderr and "Traceback" not in refused.stderr


def test_services_have_no_rights_no_open_ports_and_no_passwords(repository):
    folder = repository / "deploy" / "docker"
    compose = yaml.safe_load((folder / "compose.yaml").read_text(encoding="utf-8"))
    services = compose["services"]
    assert {"pipeline", "serving", "tensorflow-serving", "mariadb", "redis"} <= services.keys()
    for name, service in services.items():
        assert "no-new-privileges:true" in service["security_opt"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|AUTH", variable) and "RANDOM" not in variable:
                parts = value.split(",")
                assert all(re.fullmatch(r"\$\{\w+:\?\}", part) for part in parts), name
        if service["image"].startswith("fraud-"):
            assert service["read_only"] and service["cap_drop"] == ["ALL"]
            assert service["build"]["target"] in (repository / DOCKERFILE).read_text("utf-8")


def test_what_services_mount_is_there(repository):
    folder = repository / "deploy" / "docker"
    compose = yaml.safe_load((folder / "compose.yaml").read_text(encoding="utf-8"))
    mounts = [m for s in compose["services"].values() for m in s.get("volumes", [])]
    sources = [re.sub(r"^\$\{\w+:-(.*)\}", r"\1", m).split(":")[0] for m in mounts]
    for source in sources:
        assert source in compose["volumes"] or (folder / source).exists(), source


def test_compose_opens_ports_here_only_and_copies_no_secret_into_what_cannot_be_written(repository):
    """Docker refuses the latter: "container rootfs is marked read-only"."""
    compose = yaml.safe_load((repository / "deploy/docker/compose.yaml").read_text("utf-8"))
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)
    copied = {name for name, source in compose["secrets"].items() if "file" not in source}
    using = {
        name: service
        for name, service in compose["services"].items()
        if copied & {*service.get("secrets", [])}
    }
    assert using and not [name for name, service in using.items() if service.get("read_only")]

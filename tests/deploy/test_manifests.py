"""What the Kubernetes manifests say, compared with the code; `make manifests` checks their form."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
import yaml

from fraud.errors import BadInput, NotYet, StoppedByDataGate
from fraud.pipeline.commands import serve
from fraud.serving.spec import Limits


@pytest.fixture
def folder(repository):
    return repository / "deploy" / "kubernetes"


def documents(folder):
    """Every resource that is written down, by kind and name; patches are not."""
    found = {}
    for path in sorted(folder.glob("**/*.yaml")):
        for document in yaml.safe_load_all(path.read_text("utf-8")):
            if document and "kind" in document and "metadata" in document:
                found[document["kind"], document["metadata"]["name"]] = document
    return found


def pod_specs(folder):
    """The pods of all workloads, by name."""
    found = {}
    for (kind, name), document in documents(folder).items():
        spec = document.get("spec", {})
        if kind == "InferenceService":
            found[f"{name}-predictor"] = spec["predictor"]
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if kind in ("Deployment", "StatefulSet", "CronJob", "Job"):
            found[name] = spec["template"]["spec"]
    return found


def containers(spec):
    return [*spec.get("initContainers", []), *spec["containers"]]


def test_pods_may_do_nothing_that_they_need_not(folder):
    specs = pod_specs(folder)
    assert len(specs) == 10
    for name, spec in specs.items():
        assert spec["automountServiceAccountToken"] is False, name
        security = spec["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] > 10_000, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"], name
            assert container["resources"]["requests"]["cpu"], name


def test_images_are_those_that_are_built_and_run_as_their_user(repository, folder):
    found = re.search(r'version="(.*)"', (repository / "setup.py").read_text("utf-8"))
    users = set()
    for name, spec in pod_specs(folder).items():
        images = {container["image"] for container in containers(spec)}
        if name == "fraud-state":
            continue  # Redis
        target = "serving" if name in ("fraud-serving", "fraud-predictor") else "pipeline"
        assert images == {f"fraud-{target}:{found[1]}"}, name
        users.add(spec["securityContext"]["runAsUser"])
    assert users == {10001}


def test_no_secret_is_written_down_and_each_is_described(repository, folder):
    assert not [name for kind, name in documents(folder) if kind == "Secret"]
    text = "".join(path.read_text("utf-8") for path in folder.glob("**/*.yaml"))
    text += (folder.parent / "observability" / "service-monitor.yaml").read_text("utf-8")
    named = {*re.findall(r"secretKeyRef: \{name: ([\w-]+)", text)}
    named |= {*re.findall(r"secretName: ([\w-]+)", text), "fraud-metrics"}
    page = (repository / "docs" / "kubernetes.md").read_text("utf-8")
    assert {name for name in named if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("site", ["base/site.yaml", "overlays/production/site.yaml"])
def test_the_configurations_can_be_used(repository, folder, site):
    command = [sys.executable, "-m", "fraud.pipeline.cli", "config"]
    command += ["--config", str(folder / "base/config.yaml"), "--config", str(folder / site)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["paths"]["root"] == "/fraud/root"


def test_commands_and_options_exist(folder):
    for name, spec in pod_specs(folder).items():
        if name in ("fraud-state", "fraud-shell"):
            continue
        for container in containers(spec):
            command = [sys.executable, "-m", "fraud.pipeline.cli", *container["command"][1:]]
            shown = subprocess.run([*command, "--help"], capture_output=True, text=True)
            assert shown.returncode == 0, shown.stderr
            for argument in container["args"]:
                option = argument.partition("=")[0]
                if option.startswith("/"):
                    continue  # a folder
                assert re.search(rf"{option}\b", shown.stdout), (name, option)


def test_exit_codes_are_those_of_the_command(folder):
    job = documents(folder)["CronJob", "fraud-daily"]["spec"]["jobTemplate"]["spec"]
    actions = {
        code: rule["action"]
        for rule in job["podFailurePolicy"]["rules"]
        for code in rule.get("onExitCodes", {}).get("values", [])
    }
    assert actions == {
        NotYet.exit_code: "Ignore",
        BadInput.exit_code: "FailJob",
        StoppedByDataGate.exit_code: "FailJob",
    }  # and 1 is retried


def test_who_writes_to_the_backups(folder):
    """Nobody but the backup; not even who types commands."""
    writers = {
        container["name"]
        for spec in pod_specs(folder).values()
        for container in containers(spec)
        for mount in container["volumeMounts"]
        if mount["name"] == "backups" and not mount.get("readOnly")
    }
    assert writers == {"backup"}


def test_what_is_run_by_hand_does_not_run_by_itself(folder):
    suspended = {
        name: document["spec"].get("suspend", False)
        for (kind, name), document in documents(folder).items()
        if kind == "CronJob"
    }
    assert suspended == {
        "fraud-backup": False,
        "fraud-daily": True,  # the loop trains
        "fraud-restore": True,
        "fraud-shell": True,
        "fraud-state-build": True,
    }


def test_the_database_can_be_reached_by_whoever_is_given_its_password(folder):
    policy = documents(folder)["NetworkPolicy", "metadata"]
    (expression,) = policy["spec"]["podSelector"]["matchExpressions"]
    users = {
        name
        for name, spec in pod_specs(folder).items()
        for container in containers(spec)
        if any(v["name"] == "FRAUD_METADATA_PASSWORD" for v in container.get("env", []))
    }
    assert {*expression["values"]} == users


def test_a_pod_that_ends_has_time_to_answer(folder):
    spec = pod_specs(folder)["fraud-serving"]
    (container,) = spec["containers"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    # The server's own limit, five seconds more that it gives its workers, and some to end.
    needed = pause + Limits().shutdown_seconds + 5
    assert needed < spec["terminationGracePeriodSeconds"]
    ports = {port["containerPort"] for port in container["ports"]}
    assert ports == {serve.PORT, serve.GRPC_PORT}


def test_kserve_runs_what_the_deployment_runs(folder):
    specs = pod_specs(folder)
    deployment, predictor = specs["fraud-serving"], specs["fraud-predictor"]
    deployment["containers"][0]["name"] = "kserve-container"
    assert {key: predictor[key] for key in deployment} == deployment


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("base/serving.yaml", "readinessProbe:", "readynessProbe:", "readynessProbe"),
        ("base/serving.yaml", "readOnlyRootFilesystem: true", "privileged: true", "rivileged"),
        ("overlays/kserve/inference-service.yaml", "scaleTarget", "scaleTarge", "scaleTarge"),
        ("base/network.yaml", "fraud-serving}}", "fraud-server}}", "NetworkPolic"),
    ],
)
def test_what_is_wrong_is_found(repository, folder, tmp_path, file, old, new, problem):
    if shutil.which("go") is None:
        pytest.skip("no Go here, which the checks are built with")
    made = subprocess.run(["make", "manifests"], cwd=repository, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    copy = tmp_path / "deploy"
    shutil.copytree(folder.parent, copy, ignore=shutil.ignore_patterns("docker", "airflow"))
    path = copy / "kubernetes" / file
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1))
    command = [repository / ".venv-kubernetes" / "bin" / "python", copy / "kubernetes" / "check.py"]
    command += ["--tools", repository / ".go-tools" / "linters", "--out", tmp_path / "built"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert problem in done.stderr

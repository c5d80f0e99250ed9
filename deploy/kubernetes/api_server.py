"""Applies every overlay to a real API server: `make manifests-apply`.

etcd and kube-apiserver run on this machine's loopback address for the time of the check. There are
no nodes and no controllers, so no pod starts; but resources are admitted, defaulted and stored as
in a cluster. Unknown fields are errors, and a pod of each kind is submitted, which Pod Security's
level `restricted` must admit. At last, the commands of docs/kubernetes.md are executed on an empty
cluster, but those that wait for pods.

Requires what check.py requires, the tools of tools/cluster, and openssl.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from check import OVERLAYS, Invalid, build, definition_files

PAGE = Path(__file__).resolve().parents[2] / "docs" / "kubernetes.md"
NEEDS_PODS = ("wait", "rollout", "logs", "exec")
"""What kubectl cannot do without a controller and a node."""
SECONDS_TO_START = 300
NAMESPACE = "fraud"


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


class Cluster:
    """A running API server.

    Args:
      tools: the folder with kubectl.
      kubeconfig: how kubectl reaches the server.
    """

    def __init__(self, tools: Path, kubeconfig: Path) -> None:
        self._kubectl = [str(tools / "kubectl"), f"--kubeconfig={kubeconfig}"]
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "PATH": f"{tools}:{os.environ['PATH']}",
        }

    def run(self, *arguments: str, text: str | None = None) -> str:
        """What kubectl prints.

        Raises:
          Invalid: it failed, or warned.
        """
        done = subprocess.run(
            [*self._kubectl, *arguments], input=text, capture_output=True, text=True
        )
        if done.returncode or "Warning:" in done.stderr:
            raise Invalid(done.stderr.strip())
        return done.stdout

    def apply(self, resources: list[dict[str, Any]]) -> None:
        """Applies resources as a deployment does, but refuses unknown fields.

        Raises:
          Invalid: the server refuses one, or warns.
        """
        self.run("apply", "--server-side", "--validate=strict", "-f", "-", text=yamls(resources))

    def wait_for(self, *commands: str) -> None:
        """Repeats commands until they succeed.

        Raises:
          Invalid: they do not; with what the last one said.
        """
        end = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                for command in commands:
                    self.run(*command.split())
                return
            except Invalid:
                if time.monotonic() > end:
                    raise
            time.sleep(1)


def yamls(resources: list[dict[str, Any]]) -> str:
    """Resources as one YAML text."""
    return yaml.safe_dump_all(resources)


@contextlib.contextmanager
def running(tools: Path, folder: Path) -> Iterator[Cluster]:
    """A new, empty cluster of an API server and etcd, both stopped afterwards.

    Args:
      tools: the folder with etcd, kube-apiserver and kubectl.
      folder: an empty folder for their files and logs.
    """
    client, peer, port = free_port(), free_port(), free_port()
    key, token = folder / "accounts.key", secrets.token_hex(24)
    command = ["openssl", "genrsa", "-out", str(key), "2048"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n", encoding="utf-8")
    server = f"https://127.0.0.1:{port}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": True}}
        ],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")
    address = f"http://127.0.0.1:{client}"
    etcd = [
        str(tools / "etcd"),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={address}",
        f"--advertise-client-urls={address}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
        "--unsafe-no-fsync",
    ]
    api_server = [
        str(tools / "kube-apiserver"),
        f"--etcd-servers={address}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        f"--secure-port={port}",
        f"--cert-dir={folder}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
    ]
    processes: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as stack:
        for name, command in (("etcd", etcd), ("kube-apiserver", api_server)):
            log = stack.enter_context(open(folder / f"{name}.log", "wb"))
            processes.append(subprocess.Popen(command, stdout=log, stderr=log))
            stack.callback(processes[-1].wait)
            stack.callback(processes[-1].terminate)
        cluster = Cluster(tools, kubeconfig)
        cluster.wait_for("get --raw /readyz", "get serviceaccounts --namespace=default")
        yield cluster


def pods(resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A pod of each workload."""
    made = []
    for resource in resources:
        spec = resource.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        template = spec.get("template")
        if resource["kind"] in ("Deployment", "StatefulSet", "CronJob", "Job") and template:
            claims = [
                {"name": name, "persistentVolumeClaim": {"claimName": f"{name}-0"}}
                for claim in spec.get("volumeClaimTemplates", [])
                for name in [claim["metadata"]["name"]]
            ]
            inner = template["spec"]
            inner = {**inner, "volumes": [*inner.get("volumes", []), *claims]}
            pod = {"apiVersion": "v1", "kind": "Pod", "spec": inner}
            metadata = {"name": resource["metadata"]["name"], "namespace": NAMESPACE}
            made.append({**pod, "metadata": {**template["metadata"], **metadata}})
    return made


def check(cluster: Cluster, resources: list[dict[str, Any]]) -> int:
    """Applies resources; returns how many kinds of pods were admitted.

    Raises:
      Invalid: what the server refuses, or that it admits a pod that it must not.
    """
    for file in definition_files():
        cluster.run("apply", "--server-side", "-f", str(file))
    cluster.wait_for("wait --for=condition=Established crd --all --timeout=9s")
    cluster.apply(resources)
    cluster.apply(resources)  # an upgrade to the same changes nothing and is no conflict
    admitted = pods(resources)
    for pod in admitted:
        cluster.run("create", "--dry-run=server", "--validate=strict", "-f", "-", text=yamls([pod]))
    root = {**admitted[0], "spec": {**admitted[0]["spec"], "securityContext": {"runAsUser": 0}}}
    try:
        cluster.run("create", "--dry-run=server", "-f", "-", text=yamls([root]))
    except Invalid as error:
        if "violates PodSecurity" not in str(error):
            raise
        return len(admitted)
    raise Invalid("a pod that runs as root was admitted")


def execute_page(cluster: Cluster, folder: Path) -> int:
    """Executes the shell blocks of PAGE, in order; returns how many commands of kubectl they have.

    Args:
      cluster: an empty one.
      folder: for the files that the commands make.

    Raises:
      Invalid: a command fails, or warns.
    """
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    calls = folder / "calls"
    guard = (
        f'kubectl() {{ echo "$*" >>{calls}; for word; do case $word in {"|".join(NEEDS_PODS)})'
        ' return;; create|apply|scale|patch) break;; esac; done; command kubectl "$@"; }\n'
        f"ln -s {PAGE.parents[1] / 'deploy'} deploy\n"
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", guard + "\n".join(blocks)],
        cwd=folder,
        env=cluster.environment,
        capture_output=True,
        text=True,
    )
    if done.returncode or "Warning:" in done.stderr:
        raise Invalid(f"{PAGE.name}: {done.stderr.strip()}")
    jobs = cluster.run("get", "jobs", f"--namespace={NAMESPACE}", "--output=yaml")
    restored = [
        container["args"][0]
        for job in yaml.safe_load(jobs)["items"]
        for container in job["spec"]["template"]["spec"].get("initContainers", [])
        if container["name"] == "restore"
    ]
    if restored != ["/fraud/backups", "/fraud/backups/2026-03-01T013000Z"]:
        raise Invalid(f"{PAGE.name}: restores {restored}")
    backup = cluster.run("get", "cronjob/fraud-backup", f"--namespace={NAMESPACE}", "--output=yaml")
    if yaml.safe_load(backup)["spec"]["suspend"]:
        raise Invalid(f"{PAGE.name}: after a restore, no more backups are made")
    return len(calls.read_text(encoding="utf-8").splitlines())


def main() -> int:
    """Applies all overlays, each to an empty cluster."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tools", type=Path, required=True, help="folder with etcd, kube-apiserver and kubectl"
    )
    parser.add_argument("--kustomize", type=Path, required=True, help="the program kustomize")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is built")
    options = parser.parse_args()
    failed = False
    for overlay in OVERLAYS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                resources = build(overlay, options.kustomize, options.out / f"{overlay}.yaml")
                with running(options.tools, Path(folder)) as cluster:
                    count = check(cluster, resources)
            except Invalid as error:
                failed = True
                print(f"{overlay}: {error}", file=sys.stderr)
            else:
                print(f"{overlay}: {len(resources)} resources applied, {count} pods admitted")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as work:
        try:
            with running(options.tools, Path(folder)) as cluster:
                count = execute_page(cluster, Path(work))
        except Invalid as error:
            failed = True
            print(error, file=sys.stderr)
        else:
            print(f"{PAGE.name}: {count} commands executed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

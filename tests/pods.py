"""Containers of the Kubernetes manifests, run without a cluster.

A process gets what its manifest says: command, arguments, mounted volumes, a read-only file system
and no capabilities. Its volumes are mounted where the manifest says, in a mount namespace of its
own. What differs: it is not of the image, but of this checkout; it runs as root without
capabilities, and shares this machine's network.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "kubernetes" / "base"

# Arguments: an empty folder; then MODE SOURCE TARGET for each mount, "--", and the command.
_IN_A_POD = r"""
set -euo pipefail
new=$1; shift
mount -t tmpfs tmpfs "$new"
for path in /*; do
    if [ -L "$path" ]; then cp -P "$path" "$new/"
    elif [ "$path" = /tmp ] || [ ! -d "$path" ]; then :
    elif [ "$path" = /etc ]; then cp -a /etc "$new/"
    else
        mkdir "$new$path"
        mount --rbind "$path" "$new$path"
        case $path in /dev|/proc|/sys) ;; *) mount -o remount,bind,ro "$new$path" ;; esac
    fi
done
while [ "$1" != -- ]; do
    if [ -d "$2" ]; then mkdir -p "$new$3"; else mkdir -p "$new$(dirname "$3")"; touch "$new$3"; fi
    mount --bind "$2" "$new$3"
    if [ "$1" = ro ]; then mount -o remount,bind,ro "$new$3"; fi
    shift 3
done
shift
mount -o remount,ro "$new"
cd "$new"
exec chroot "$new" setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


def pod_of(name: str) -> dict[str, Any]:
    """The pod of a workload of the base."""
    for path in sorted(FOLDER.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            kind = (document or {}).get("kind")
            if kind in ("Deployment", "CronJob") and document["metadata"]["name"] == name:
                spec = document["spec"]
                template = spec.get("jobTemplate", {}).get("spec", spec)["template"]
                return dict(template["spec"])
    raise AssertionError(f"no workload {name}")


class Node:
    """Where pods run.

    Args:
      folder: for its files.
      volumes: the folder of each claim, ConfigMap and Secret by its name. Secrets and ConfigMaps
        have a file for each key; an optional one may be missing.
    """

    def __init__(self, folder: Path, volumes: dict[str, Path]) -> None:
        self._folder, self._volumes = folder, volumes
        self._count = 0
        done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("only root may make a mount namespace")

    def run(self, workload: str, container: str) -> subprocess.CompletedProcess[str]:
        """Runs a container to its end; what it prints is together in `stdout`."""
        process = self.start(workload, container, stdout=subprocess.PIPE, text=True)
        printed, _ = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, printed)

    def start(self, workload: str, name: str, *more: str, **streams: Any) -> subprocess.Popen[Any]:
        """Starts a container.

        Args:
          workload: the Deployment or CronJob.
          name: the container in it.
          *more: arguments after those of the manifest.
          **streams: of `subprocess.Popen`.
        """
        pod = pod_of(workload)
        (container,) = (
            c for c in [*pod.get("initContainers", []), *pod["containers"]] if c["name"] == name
        )
        environment = self._environment(container)
        arguments = [
            re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], argument)
            for argument in container["args"]
        ]
        self._count += 1
        root = self._folder / f"pod-{self._count}"
        root.mkdir()
        command = ["unshare", "--mount", "--propagation=private", "bash", "-c", _IN_A_POD, "pod"]
        command += [str(root), *self._mounts(pod, container), "--"]
        return subprocess.Popen(
            [*command, *container["command"], *arguments, *more],
            stderr=subprocess.STDOUT,
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOME": "/tmp",
                "PYTHONDONTWRITEBYTECODE": "1",
                **environment,
            },
            **streams,
        )

    def _environment(self, container: dict[str, Any]) -> dict[str, str]:
        """The variables of a container: what the files of ConfigMaps and Secrets say."""
        found = {}
        for variable in container["env"]:
            (reference,) = variable["valueFrom"].values()
            file = self._volumes.get(reference["name"], Path("/nowhere")) / reference["key"]
            if file.is_file():
                found[variable["name"]] = file.read_text(encoding="utf-8")
            else:
                assert reference.get("optional"), (reference["name"], reference["key"])
        return found

    def _mounts(self, pod: dict[str, Any], container: dict[str, Any]) -> list[str]:
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        found = []
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            read_only = mount.get("readOnly", False)
            if "emptyDir" in volume:
                source = self._folder / f"empty-{self._count}"
                source.mkdir()
            elif "persistentVolumeClaim" in volume:
                source = self._volumes[volume["persistentVolumeClaim"]["claimName"]]
            else:
                of_volume = volume.get("configMap") or volume["secret"]
                given = self._volumes.get(of_volume.get("name") or of_volume["secretName"])
                if given is None:
                    assert of_volume["optional"]
                    continue
                source, read_only = given, True
            if "subPath" in mount:
                source = source / mount["subPath"]
                source.mkdir(exist_ok=True)
            found += ["ro" if read_only else "rw", str(source), mount["mountPath"]]
        return found

"""Builds every overlay and checks it: `python deploy/kubernetes/check.py` (see `make manifests`).

- Kustomize builds it, into build/manifests.
- Every resource is valid for three minor versions of Kubernetes, without unknown fields; those of
  Prometheus's operator and of KServe are checked against the definitions (CRDs) of the releases in
  tools/crds/go.mod.
- kube-score finds nothing against its policies but what IGNORED says, with the reasons.

Requires requirements/kubernetes.txt and the tools of tools/linters and tools/crds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

FOLDER = Path(__file__).resolve().parent
OVERLAYS = ("local", "production", "kserve")
VERSIONS = ("1.35", "1.36", "1.37")
CRDS = {
    "github.com/kserve/kserve": ("config/crd/full/serving.kserve.io_inferenceservices.yaml",),
    "github.com/prometheus-operator/prometheus-operator": (
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
}
"""The files with the definitions, by Go module."""

IGNORED = {
    # Tags are never moved and production may name digests, so what a node has is what was asked
    # for; with Always, pods do not start while the registry is down.
    "container-image-pull-policy": OVERLAYS,
    # topologySpreadConstraints spread them, over zones too.
    "deployment-has-host-podantiaffinity": OVERLAYS,
    # The pods that KServe makes are not among the manifests.
    "networkpolicy-targets-pod": ("kserve",),
}


class Invalid(Exception):
    """What is wrong with a manifest, in a sentence."""


def build(overlay: str, kustomize: Path, out: Path) -> list[dict[str, Any]]:
    """Builds an overlay; returns its resources.

    Raises:
      Invalid: Kustomize refuses it.
    """
    command = [str(kustomize), "build", str(FOLDER / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or done.stderr:
        raise Invalid(f"{overlay}: {done.stderr.strip()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(done.stdout, encoding="utf-8")
    return list(yaml.safe_load_all(done.stdout))


def definition_files() -> Iterator[Path]:
    """The files of CRDS, once Go has downloaded them and compared them with go.sum.

    Raises:
      Invalid: it could not.
    """
    for module, files in CRDS.items():
        done = subprocess.run(
            ["go", "mod", "download", "-json", module],
            cwd=FOLDER / "tools" / "crds",
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Invalid(f"{module}: {done.stderr.strip() or done.stdout.strip()}")
        for file in files:
            yield Path(json.loads(done.stdout)["Dir"]) / file


def definitions() -> dict[tuple[str, str], Any]:
    """JSON Schemas of the resources that are not Kubernetes's own, by apiVersion and kind."""
    schemas = {}
    for file in definition_files():
        definition = yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]
        for version in definition["versions"]:
            name = f"{definition['group']}/{version['name']}", definition["names"]["kind"]
            schemas[name] = strict(version["schema"]["openAPIV3Schema"])
            schemas[name]["properties"]["metadata"] = {"type": "object"}
    return schemas


def strict(schema: Any) -> Any:
    """A schema of Kubernetes as JSON Schema that allows no unknown fields."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    elif (
        schema.get("type") == "object"
        and isinstance(schema.get("properties"), dict)
        and not schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        made.setdefault("additionalProperties", False)
    return made


def validate(resource: dict[str, Any], schemas: dict[tuple[str, str], Any]) -> None:
    """Checks one resource.

    Raises:
      Invalid: it is not valid for one of VERSIONS, or nothing defines it.
    """
    name = f"{resource['kind']} {resource['metadata']['name']}"
    schema = schemas.get((resource["apiVersion"], resource["kind"]))
    try:
        if schema:
            jsonschema.validate(resource, schema)
            return
        for version in VERSIONS:
            kubernetes_validate.validate(resource, version, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        path = ".".join(str(part) for part in error.path)
        raise Invalid(f"{name}: {path}: {error.message}") from None
    except kubernetes_validate.SchemaNotFoundError as error:
        raise Invalid(f"{name}: {error.message}") from None


def score(overlay: str, kube_score: Path, built: Path) -> None:
    """Checks a built overlay against the policies of kube-score.

    Raises:
      Invalid: what it finds.
    """
    command = [str(kube_score), "score", "--output-format=ci", "--exit-one-on-warning"]
    command += [f"--kubernetes-version=v{VERSIONS[-1]}"]
    # Processor time that is limited adds latency, even if a processor is idle.
    command += ["--ignore-container-cpu-limit"]
    command += ["--enable-optional-test=container-seccomp-profile"]
    for test, overlays in IGNORED.items():
        command += [f"--ignore-test={test}"] if overlay in overlays else []
    done = subprocess.run([*command, str(built)], capture_output=True, text=True)
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()
        raise Invalid("\n".join(x for x in lines if not x.startswith(("[OK]", "[SKIPPED]"))))


def main() -> int:
    """Checks all overlays, and names every one that is not valid."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tools", type=Path, required=True, help="folder with kustomize and kube-score"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for what is built")
    options = parser.parse_args()
    failed = False
    schemas = definitions()
    for overlay in OVERLAYS:
        built = options.out / f"{overlay}.yaml"
        try:
            resources = build(overlay, options.tools / "kustomize", built)
            for resource in resources:
                validate(resource, schemas)
            score(overlay, options.tools / "kube-score", built)
        except Invalid as error:
            failed = True
            print(f"{overlay}: {error}", file=sys.stderr)
        else:
            print(f"{built}: {len(resources)} resources, valid for {', '.join(VERSIONS)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

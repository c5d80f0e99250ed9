"""Kubeflow Pipelines: the tasks by KFP's local runner, and the YAML that a cluster gets."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml

from tests.e2e.orchestrators.comparison import differences

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def shop(new_shop):
    made = new_shop()
    made.compile()
    return made


@pytest.fixture(scope="module")
def kubeflow(environment_of, repository, shop):
    """Calls deploy/kubeflow/fraud.py by the Python that has the KFP SDK."""

    def call(command: str, *arguments: object) -> str:
        program = [environment_of("kubeflow") / "python", repository / "deploy/kubeflow/fraud.py"]
        done = subprocess.run(
            [*program, command, "--graph", shop.graph, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


def test_from_ingestion_to_push_with_the_lineage_of_a_local_run(
    kubeflow, shop, local_first_day, days, fraud_pipeline
):
    kubeflow("run", "--pipeline", fraud_pipeline, "--as-of", days[0])
    assert differences(list(shop.lineage().values()), [local_first_day]) == []
    assert json.loads(shop.status())["live"]["as_of"] == str(days[0])


def test_a_cluster_gets_a_container_per_node(kubeflow, shop, tmp_path):
    out = tmp_path / "fraud.yaml"
    given = ["--image", "registry/fraud:1", "--claim", "bank:/mnt/fraud", "--secret", "mlmd"]
    kubeflow("compile", *given, "--at", "/mnt/fraud/graph", "--out", out)
    spec, platform = yaml.safe_load_all(out.read_text())
    nodes = json.loads((shop.graph / "graph.json").read_text())["nodes"]
    executors = spec["deploymentSpec"]["executors"]
    containers = [executor["container"] for executor in executors.values()]
    assert {c["image"] for c in containers} == {"registry/fraud:1"}
    commands = {tuple(c["command"]) for c in containers}
    ir = "/mnt/fraud/graph/ir.json"
    assert commands == {
        ("fraud-pipeline", "node", "--ir", ir, "--node", node["id"]) for node in nodes
    }
    # What runs after what.
    tasks = spec["root"]["dag"]["tasks"]
    after = {name: set(task.get("dependentTasks", ())) for name, task in tasks.items()}
    assert after == {
        node["id"].lower(): {upstream.lower() for upstream in node["upstream"]} for node in nodes
    }
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert len(settings) == len(nodes)
    for of_node in settings.values():
        assert of_node["pvcMount"][0]["mountPath"] == "/mnt/fraud"
        assert of_node["secretAsEnv"][0]["keyToEnv"] == [
            {"secretKey": "password", "envVar": "FRAUD_METADATA_PASSWORD"}
        ]

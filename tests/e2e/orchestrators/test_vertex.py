"""Vertex AI: the compiled job, its containers' commands run here one by one as Vertex would."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

GATED = re.compile(r"\(inputs.artifacts\['(.+)'\].artifacts\[0\].metadata\['passed'\] == 1.0\)")


class Job:
    """A stand-in for Vertex AI Pipelines: resolves inputs, runs commands, notes outputs.

    Args:
      job: what was compiled.
      folder: where artifacts go.
      parameters: of the pipeline.
    """

    def __init__(self, job: dict, folder: Path, parameters: dict[str, str]):
        self._spec = job["pipelineSpec"]
        self._folder = folder
        self._parameters = parameters
        self.tasks = self._spec["root"]["dag"]["tasks"]
        self.outputs: dict[tuple[str, str], dict] = {}

    def run(self) -> None:
        done: set[str] = set()
        while waiting := set(self.tasks) - done:
            ready = {t for t in waiting if set(self.tasks[t].get("dependentTasks", ())) <= done}
            assert ready, f"{waiting} wait for each other"
            for task in sorted(ready):
                self._run(task)
            done |= ready

    def _run(self, name: str) -> None:
        task = self.tasks[name]
        component = self._spec["components"][task["componentRef"]["name"]]
        executor = self._spec["deploymentSpec"]["executors"][component["executorLabel"]]
        if "resolver" in executor:
            return  # Vertex looks into its own records, which have nothing yet
        container = executor["container"]
        inputs = json.dumps(self._executor_input(name, task, component))
        command = [argument.replace("{{$}}", inputs) for argument in container["args"]]
        assert container["command"][0] == "python"
        command = [sys.executable, *container["command"][1:], *command]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"
        found = json.loads(self._output_file(name).read_text())
        for key, listed in found["artifacts"].items():
            self.outputs[name, key] |= listed["artifacts"][0]

    def _executor_input(self, name: str, task: dict, component: dict) -> dict[str, Any]:
        artifacts = {}
        for key, source in task.get("inputs", {}).get("artifacts", {}).items():
            given = source["taskOutputArtifact"]
            found = self.outputs.get((given["producerTask"], given["outputArtifactKey"]))
            # Of what a resolver did not find, an empty list.
            artifacts[key] = {"artifacts": [found] if found else []}
        values = {}
        for key, source in task.get("inputs", {}).get("parameters", {}).items():
            if "runtimeValue" in source:
                values[key] = source["runtimeValue"]["constant"]
            else:
                values[key] = self._parameters[source["componentInputParameter"]]
        for key, declared in component["outputDefinitions"]["artifacts"].items():
            uri = self._folder / name / key
            uri.mkdir(parents=True)
            self.outputs[name, key] = {
                "name": f"{name}/{key}",
                "uri": str(uri),
                "type": declared["artifactType"],
            }
        made = {k: {"artifacts": [v]} for (task_, k), v in self.outputs.items() if task_ == name}
        return {
            "inputs": {"artifacts": artifacts, "parameterValues": values},
            "outputs": {"artifacts": made, "outputFile": str(self._output_file(name))},
        }

    def _output_file(self, name: str) -> Path:
        return self._folder / name / "executor_output.json"


def test_containers_commands_go_from_ingestion_to_push(new_shop, days, tmp_path):
    shop = new_shop()
    given = ["--config", shop.folder / "fraud.yaml", "--root", shop.root, "--data", shop.data]
    shop.call("compile", *given, "--target", "vertex", "--image", "fraud:1", "--out", shop.graph)
    compiled = json.loads((shop.graph / "vertex.json").read_text())

    job = Job(compiled, tmp_path, {"as_of": str(days[0]), "data": str(shop.data)})
    gated = {name for name, task in job.tasks.items() if "triggerPolicy" in task}
    assert gated >= {"Transform", "Trainer", "Evaluator", "ServingCheck", "Pusher", "ModelCardGen"}
    assert not gated & {"SchemaGen", "DataGate"}
    for task in (job.tasks[name] for name in gated):
        condition = GATED.fullmatch(task["triggerPolicy"]["condition"])
        asked = task["inputs"]["artifacts"][condition.group(1)]["taskOutputArtifact"]
        assert asked == {"producerTask": "DataGate", "outputArtifactKey": "verdict"}
    executors = compiled["pipelineSpec"]["deploymentSpec"]["executors"].values()
    assert {e["container"]["image"] for e in executors if "container" in e} == {"fraud:1"}

    job.run()
    assert job.outputs["DataGate", "verdict"]["metadata"]["passed"] == 1
    assert job.outputs["Evaluator", "blessing"]["metadata"]["blessed"] == 1
    (version,) = (shop.root / "pushed").iterdir()
    assert (version / "saved_model.pb").exists()
    assert job.outputs["Pusher", "pushed_model"]["metadata"]["pushed_version"] == version.name

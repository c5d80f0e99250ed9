"""The fraud pipeline on open-source Kubeflow Pipelines: a container per node of the graph.

    python fraud.py compile --graph graph --image IMAGE --claim fraud:/fraud --out fraud.yaml
    python fraud.py run --graph graph --pipeline /path/to/fraud-pipeline --as-of 2018-07-31

`compile` writes what is uploaded to a cluster; `run` runs the same tasks here, as processes, by the
KFP SDK's local runner. Needs the KFP SDK (requirements/kubeflow.txt), neither TFX nor the pipeline.
See docs/orchestrators.md.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, kubernetes, local

RETRIES = 2
PASSWORD = "FRAUD_METADATA_PASSWORD"

MakeTask = Callable[[str, list[str], Any, Any], Any]
"""(node id, command, run id, as-of day) → the task of that node."""


@dsl.component(base_image="python:3.12")
def process(command: list, run: str, as_of: str):
    """Runs one node here: the local runner takes Python components only."""
    import subprocess

    subprocess.run([*command, "--run-id", run, "--as-of", as_of], check=True)


def as_process(_: str, command: list[str], run: Any, as_of: Any) -> Any:
    """A MakeTask for the local runner."""
    return process(command=command, run=run, as_of=as_of)


def as_container(image: str, claims: list[str], secret: str | None) -> MakeTask:
    """A MakeTask for a cluster.

    Args:
      image: has the pipeline installed.
      claims: NAME:PATH of persistent volume claims that every container mounts; root, data and
        compiled graph lie there.
      secret: name of the secret whose key `password` is the one of ML Metadata's server.
    """

    def make(node_id: str, command: list[str], run: Any, as_of: Any) -> Any:
        def container(run: str, as_of: str):
            return dsl.ContainerSpec(
                image=image, command=command, args=["--run-id", run, "--as-of", as_of]
            )

        container.__name__ = node_id
        task = dsl.container_component(container)(run=run, as_of=as_of)
        task.set_retry(num_retries=RETRIES, backoff_duration="60s")
        for claim in claims:
            name, _, path = claim.partition(":")
            kubernetes.mount_pvc(task, pvc_name=name, mount_path=path)
        if secret:
            kubernetes.use_secret_as_env(task, secret, {"password": PASSWORD})
        return task

    return make


def pipeline_of(graph: Path, pipeline: str, at: str, make_task: MakeTask) -> Any:
    """The KFP pipeline: its tasks and what comes after what, read off the compiled graph.

    Args:
      graph: the folder that `fraud-pipeline compile` wrote.
      pipeline: the `fraud-pipeline` command.
      at: where the tasks find that folder.
      make_task: see MakeTask.
    """
    outline = json.loads((graph / "graph.json").read_text(encoding="utf-8"))

    @dsl.pipeline(name=outline["name"], description=(__doc__ or "").partition("\n")[0])
    def fraud(as_of: str = ""):
        tasks: dict[str, Any] = {}
        for node in outline["nodes"]:
            command = [pipeline, "node", "--ir", f"{at}/{outline['ir']}", "--node", node["id"]]
            task = make_task(node["id"], command, dsl.PIPELINE_JOB_NAME_PLACEHOLDER, as_of)
            task.set_display_name(node["id"])
            task.set_caching_options(False)  # TFX does that, knowing more
            tasks[node["id"]] = task.after(*(tasks[upstream] for upstream in node["upstream"]))

    return fraud


def main() -> int:
    """Compiles or runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    compiling = commands.add_parser("compile", help="write the pipeline to upload to a cluster")
    running = commands.add_parser("run", help="run the same tasks on this machine")
    for command in (compiling, running):
        command.add_argument("--graph", type=Path, required=True, help="what compile wrote")
        command.add_argument("--pipeline", default="fraud-pipeline", help="the command of a task")
    compiling.add_argument("--image", required=True, help="a container image with the pipeline")
    compiling.add_argument("--at", help="where containers find the graph (default: as here)")
    compiling.add_argument(
        "--claim", action="append", default=[], metavar="NAME:PATH", help="a volume to mount"
    )
    compiling.add_argument("--secret", metavar="NAME", help="has ML Metadata's password")
    compiling.add_argument("--out", type=Path, required=True, help="the YAML file")
    running.add_argument("--as-of", default="", metavar="DAY", help="default: last day of data")
    arguments = parser.parse_args()

    graph = arguments.graph.resolve()
    if arguments.command == "compile":
        make_task = as_container(arguments.image, arguments.claim, arguments.secret)
        fraud = pipeline_of(graph, arguments.pipeline, arguments.at or str(graph), make_task)
        compiler.Compiler().compile(fraud, str(arguments.out))
        print(arguments.out)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=folder)
        pipeline_of(graph, arguments.pipeline, str(graph), as_process)(as_of=arguments.as_of)
    return 0


if __name__ == "__main__":
    sys.exit(main())

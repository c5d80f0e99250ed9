"""The fraud pipeline on open-source Kubeflow Pipelines: a container per node of the graph.

    python fraud.py compile --graph graph --image IMAGE --claim fraud:/fraud --out fraud.yaml
    python fraud.py run --graph graph --pipeline /path/to/fraud-pipeline --as-of 2018-07-31

`compile` writes the YAML to upload to a cluster; `run` runs the same tasks as processes on this
machine, with the KFP SDK's local runner. Requires the KFP SDK (requirements/kubeflow.txt), but
neither TFX nor the pipeline.
See docs/orchestrators.md.
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, kubernetes, local

RETRIES = 2
PASSWORD = "FRAUD_METADATA_PASSWORD"

MakeTask = Callable[[str, list[str], Any, Any], Any]
"""Makes the task of a node from node id, command, run id and as-of day."""


@dsl.component(base_image="python:3.12")
def process(command: list, run: str, as_of: str):
    """Runs one node as a process: the local runner supports Python components only."""
    import subprocess
    import sys

    code = subprocess.run([*command, "--run-id", run, "--as-of", as_of]).returncode
    if code:
        sys.exit(code)  # the node has printed the reason; a traceback would add nothing


def as_process(_: str, command: list[str], run: Any, as_of: Any) -> Any:
    """Makes a task for the local runner; a MakeTask."""
    return process(command=command, run=run, as_of=as_of)


def as_container(
    options: argparse.Namespace, node_id: str, command: list[str], run: Any, as_of: Any
) -> Any:
    """Makes a task for a cluster; with the options of `compile`, a MakeTask.

    Root, data and compiled graph are on the volumes that `--claim` names. The key `password` of
    `--secret` holds the password of ML Metadata's server.
    """

    def container(run: str, as_of: str):
        return dsl.ContainerSpec(
            image=options.image, command=command, args=["--run-id", run, "--as-of", as_of]
        )

    container.__name__ = node_id
    task = dsl.container_component(container)(run=run, as_of=as_of)
    task.set_display_name(node_id)
    task.set_retry(num_retries=RETRIES, backoff_duration="60s")
    for claim in options.claim:
        name, _, path = claim.partition(":")
        kubernetes.mount_pvc(task, pvc_name=name, mount_path=path)
    if options.secret:
        kubernetes.use_secret_as_env(task, options.secret, {"password": PASSWORD})
    return task


def pipeline_of(graph: Path, pipeline: str, at: str, make_task: MakeTask) -> Any:
    """Builds the KFP pipeline, with tasks and dependencies from the compiled graph.

    Args:
      graph: the folder that `fraud-pipeline compile` wrote.
      pipeline: the `fraud-pipeline` command.
      at: path of that folder as the tasks see it.
      make_task: makes the task of a node.
    """
    outline = json.loads((graph / "graph.json").read_text(encoding="utf-8"))

    @dsl.pipeline(name=outline["name"], description=(__doc__ or "").partition("\n")[0])
    def fraud(as_of: str = ""):
        tasks: dict[str, Any] = {}
        for node in outline["nodes"]:
            command = [pipeline, "node", "--ir", f"{at}/{outline['ir']}", "--node", node["id"]]
            task = make_task(node["id"], command, dsl.PIPELINE_JOB_NAME_PLACEHOLDER, as_of)
            task.set_caching_options(False)  # TFX's cache knows the inputs
            tasks[node["id"]] = task.after(*(tasks[upstream] for upstream in node["upstream"]))

    return fraud


def main() -> None:
    """Compiles or runs the pipeline."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    compiling = commands.add_parser("compile", help="write the YAML to upload to a cluster")
    running = commands.add_parser("run", help="run the same tasks on this machine")
    for command in (compiling, running):
        command.add_argument(
            "--graph", type=Path, required=True, help="folder written by fraud-pipeline compile"
        )
        command.add_argument(
            "--pipeline", default="fraud-pipeline", help="the fraud-pipeline command"
        )
    compiling.add_argument("--image", required=True, help="container image with the pipeline")
    compiling.add_argument("--at", help="path of the graph in containers (default: same)")
    compiling.add_argument(
        "--claim",
        action="append",
        default=[],
        metavar="NAME:PATH",
        help="volume to mount; repeatable",
    )
    compiling.add_argument("--secret", metavar="NAME", help="secret with ML Metadata's password")
    compiling.add_argument("--out", type=Path, required=True, help="the YAML file to write")
    running.add_argument("--as-of", default="", metavar="DAY", help="default: last day of the data")
    arguments = parser.parse_args()

    graph = arguments.graph.resolve()
    if arguments.command == "compile":
        make_task = partial(as_container, arguments)
        fraud = pipeline_of(graph, arguments.pipeline, arguments.at or str(graph), make_task)
        compiler.Compiler().compile(fraud, str(arguments.out))
        print(arguments.out)
        return
    logging.disable(logging.INFO)  # the local runner resets levels; nodes print their own progress
    with tempfile.TemporaryDirectory() as folder:
        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=folder)
        pipeline_of(graph, arguments.pipeline, str(graph), as_process)(as_of=arguments.as_of)


if __name__ == "__main__":
    main()

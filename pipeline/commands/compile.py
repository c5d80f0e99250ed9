"""`fraud-pipeline compile`: writes the graph for an orchestrator."""

from __future__ import annotations

import argparse
from pathlib import Path

from fraud.errors import BadInput
from fraud.pipeline.commands import common
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's description and options."""
    common.example(
        parser,
        "Write the graph for an orchestrator, which then runs it node by node with\n"
        "`fraud-pipeline node`. See docs/orchestrators.md.",
        "  fraud-pipeline compile --data transactions --root fraud-root --out graph",
    )
    parser.add_argument(
        "--target",
        type=_targets,
        default=("airflow", "kubeflow"),
        metavar="LIST",
        help="comma-separated: airflow, kubeflow (both read graph.json) or vertex (reads "
        "vertex.json); default airflow,kubeflow",
    )
    parser.add_argument("--image", help="container image with the pipeline installed; vertex only")
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--data", metavar="PATH", help="data that runs read, unless `node --data` overrides it"
    )
    common.add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compiles the graph. The data need not exist yet.

    Raises:
      BadInput: the configuration is invalid, or the folder cannot be written.
    """
    config, root = common.config_and_root(arguments)
    data = common.data_path(arguments, config)
    if "vertex" in arguments.target and not arguments.image:
        raise BadInput("--target vertex: give --image IMAGE, the image its containers run")
    if "vertex" in arguments.target and config.network.workers > 1:
        raise BadInput(
            f"--target vertex: network.workers is {config.network.workers}, but a Trainer on "
            "Vertex AI cannot find other workers; set it to 1"
        )
    out = Path(arguments.out).expanduser().resolve()

    from fraud.pipeline.console import Console

    with Console().quiet():
        files = _written(config, root, data, arguments.target, arguments.image, out)
    for file in files:
        print(file)
    return 0


def _written(
    config: Config, root: Root, data: str, targets: tuple[str, ...], image: str | None, out: Path
) -> list[Path]:
    """Writes the graph for each target; the files."""
    from fraud.pipeline import startup

    startup.import_tfx()
    files = []
    if {"airflow", "kubeflow"} & set(targets):
        from fraud.pipeline.runners import compiled

        files.append(compiled.write(config, root, data, out))
    if "vertex" in targets and image:
        from fraud.pipeline.runners import vertex

        files.append(vertex.write(config, root, data, image, out))
    return files


def _targets(text: str) -> tuple[str, ...]:
    """An argparse type: comma-separated targets."""
    names = tuple(text.split(","))
    unknown = sorted(set(names) - {"airflow", "kubeflow", "vertex"})
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: none of airflow, kubeflow, vertex")
    return names

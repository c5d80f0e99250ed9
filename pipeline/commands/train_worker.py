"""`fraud-pipeline train-worker`: trains together with the Trainer of another machine."""

from __future__ import annotations

import argparse

from fraud.pipeline.commands import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Wait for the Trainer of a run with several `network.workers`, and train together with\n"
        "it: one training after the other, until the command is stopped. TF_CONFIG says which\n"
        "worker this is; the root must be the same folder as the Trainer's.",
        '  export TF_CONFIG=\'{"cluster": {"worker": ["a:2222", "b:2222"]}, '
        '"task": {"type": "worker", "index": 1}}\'\n'
        "  fraud-pipeline train-worker --root /mnt/fraud",
    )
    common.add_config(parser)
    parser.add_argument("--once", action="store_true", help="end after one training")


def run(arguments: argparse.Namespace) -> int:
    """Serves as a worker.

    Raises:
      FraudPipelineError: see `fraud.models.workers.serve`.
    """
    from fraud.models import workers

    _, root = common.config_and_root(arguments)
    workers.serve(root.workers, arguments.once, lambda text: print(text, flush=True))
    return 0

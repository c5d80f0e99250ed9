"""`fraud-pipeline ui`: a web page over a root."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fraud.errors import BadInput
from fraud.pipeline.commands import common
from fraud.pipeline.root import Root

PORT = 8600
TOKEN = "FRAUD_UI_TOKEN"
"""The environment variable with the token that a rollback must be confirmed with."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Show a root in the browser: what is live and why, runs and their reports, metrics over\n"
        "time, a run in progress, lineage, TensorBoard. It only reads, except that a version can\n"
        f"be rolled back if the environment variable {TOKEN} is set, with that token and a reason.",
        "  fraud-pipeline ui --root fraud-root",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default 127.0.0.1, which only this machine reaches)",
    )
    parser.add_argument(
        "--port", type=int, default=PORT, metavar="N", help=f"port (default {PORT})"
    )
    parser.add_argument(
        "--no-tensorboard",
        action="store_true",
        help="do not start TensorBoard, which listens on the next port",
    )
    common.add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serves until it is interrupted.

    Raises:
      BadInput: nothing has run in the root, or the port is in use.
    """
    config, root = common.config_and_root(arguments)

    import uvicorn

    from fraud.pipeline import lineage, production
    from fraud.pipeline.records import find_records
    from fraud.report.web.app import create_app
    from fraud.report.web.content import Reader

    store = lineage.find_store(config.metadata, root)
    records = find_records(config.metadata, root)
    if store is None or records is None:
        raise BadInput(f"{root.path}: nothing has run here; check --root")

    def roll_back(version: str, reason: str) -> str:
        release, _ = production.roll_back(config.metadata, root, reason, version)
        return release.version

    hosts = ["localhost", "127.0.0.1", arguments.host]
    with _tensorboard(root, arguments) as board:
        app = create_app(
            Reader(store, records, root),
            records,
            root,
            hosts,
            board,
            os.environ.get(TOKEN),
            roll_back,
        )
        print(f"http://{arguments.host}:{arguments.port}/", flush=True)
        uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning")
    return 0


@contextmanager
def _tensorboard(root: Root, arguments: argparse.Namespace) -> Iterator[str | None]:
    """Starts TensorBoard on this machine's next port, as long as the page is served."""
    program = Path(sys.prefix, "bin", "tensorboard")
    found = str(program) if program.exists() else shutil.which("tensorboard")
    if arguments.no_tensorboard or found is None:
        yield None
        return
    port = arguments.port + 1
    logs = root.artifacts / "Trainer" / "model_run"
    process = subprocess.Popen(
        [found, "--logdir", str(logs), "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()

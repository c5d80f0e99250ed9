"""`fraud-pipeline ui`: a web page over a root."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
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
        "--port", type=common.port, default=PORT, metavar="N", help=f"port (default {PORT})"
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
    from fraud.pipeline.tracking import mirror
    from fraud.report.web.app import create_app
    from fraud.report.web.content import Reader

    store = lineage.find_store(config.metadata, root)
    records = find_records(config.metadata, root)
    if store is None or records is None:
        raise BadInput(f"{root.path}: nothing has run here; check --root")

    def roll_back(version: str, reason: str) -> str:
        release, _ = production.roll_back(config.metadata, root, reason, version)
        if mirror.uri(config):  # in a process of its own, or the page would wait for the server
            command = [sys.executable, "-m", "fraud.pipeline.cli", "track"]
            options = shlex.split(common.options_given(arguments))
            subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
        return release.version

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that TensorBoard ends, too
    with _listening(arguments.host, arguments.port) as listening:
        port = listening.getsockname()[1]
        with nullcontext() if arguments.no_tensorboard else tensorboard(root, port) as board:
            app = create_app(
                Reader(store, records, root),
                records,
                root,
                ["localhost", "127.0.0.1", arguments.host],
                board,
                os.environ.get(TOKEN),
                roll_back,
            )
            print(f"http://{_joined(arguments.host, port)}/", flush=True)
            with suppress(KeyboardInterrupt):
                server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
                server.run(sockets=[listening])
    return 0


@contextmanager
def tensorboard(root: Root, port: int) -> Iterator[str | None]:
    """Starts TensorBoard as long as the page is served; says if it cannot be started.

    Args:
      root: whose trainings it shows.
      port: of the page; TensorBoard's is the next one, of this machine only.
    """
    program, address = _program(), f"127.0.0.1:{port + 1}"
    if program is None:
        yield None
        return
    try:  # it would end, and the page would lead to whoever is there
        _listening("127.0.0.1", port + 1).close()
    except BadInput as error:
        print(f"fraud-pipeline: TensorBoard was not started: {error}", file=sys.stderr)
        yield None
        return
    logs = root.artifacts / "Trainer" / "model_run"
    process = subprocess.Popen(
        [program, "--logdir", str(logs), "--host", "127.0.0.1", "--port", str(port + 1)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://{address}/"
    finally:
        process.terminate()
        process.wait()


def _program() -> str | None:
    """TensorBoard's program; None if it is not installed."""
    beside = Path(sys.prefix, "bin", "tensorboard")
    return str(beside) if beside.exists() else shutil.which("tensorboard")


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
      BadInput: the address is not this machine's, or the port is in use.
    """
    address = _joined(host, port)
    if port >= 1 << 16:  # which would be taken for port 0
        raise BadInput(f"{address}: there is no such port; choose a lower --port")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(*found[:3])
    except OSError as error:
        raise BadInput(f"{address}: {error.strerror}; choose another --host") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(found[4])
        made.listen()
    except OSError as error:
        made.close()
        raise BadInput(f"{address}: {error.strerror}; choose another --port or --host") from None
    return made


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

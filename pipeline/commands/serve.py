"""`fraud-pipeline serve`: answers requests with the live model."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from fraud.errors import BadInput
from fraud.pipeline.commands import common

PORT, GRPC_PORT = 8501, 8500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Serve the live model over HTTP and gRPC, by TensorFlow Serving's protocol and the Open\n"
        "Inference Protocol. A newly pushed version answers as soon as it is loaded.\n"
        "See docs/serving.md.",
        "  fraud-pipeline serve --root fraud-root",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default 127.0.0.1, which only this machine reaches); another "
        "needs tokens in the environment: FRAUD_SCORE_TOKENS, FRAUD_LABEL_TOKENS, "
        "FRAUD_ADMIN_TOKENS, and FRAUD_READ_TOKENS for Prometheus",
    )
    for option, default, protocol in (
        ("--port", PORT, "HTTP"),
        ("--grpc-port", GRPC_PORT, "gRPC"),
    ):
        parser.add_argument(
            option,
            type=common.port,
            default=default,
            metavar="N",
            help=f"port for {protocol} (default {default}); 0 takes a free one and logs it",
        )
    parser.add_argument(
        "--workers",
        type=common.positive_int,
        default=1,
        metavar="N",
        help="processes that answer, each with its own copy of the model (default 1)",
    )
    parser.add_argument(
        "--tls-certificate", type=Path, metavar="FILE", help="certificate in PEM: serve over TLS"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key in PEM")
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="transactions to build the state from first, as `fraud-pipeline state build` does",
    )
    common.add_state(parser)
    common.add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serves until it is interrupted or terminated.

    Raises:
      BadInput: the options do not fit together, or a port is in use.
    """
    if (arguments.tls_certificate is None) != (arguments.tls_key is None):
        raise BadInput("--tls-certificate and --tls-key: give both, or neither")
    config, root = common.config_and_root(arguments)

    from fraud.monitoring import prometheus
    from fraud.serving import logs, server
    from fraud.serving.service import ScoringService
    from fraud.serving.settings import Settings, Tokens

    tls = (arguments.tls_certificate, arguments.tls_key) if arguments.tls_certificate else None
    settings = Settings(
        folder=root.pushed,
        host=arguments.host,
        port=arguments.port,
        grpc_port=arguments.grpc_port,
        workers=arguments.workers,
        tls=tls,
        limits=config.serving.limits,
        tokens=Tokens.from_environment(),
        gauges=root.monitoring / prometheus.FILE,
    )
    location = common.state_location(arguments, root)
    if arguments.data and (code := _build_state(arguments)):
        return code
    logs.set_up()
    server.serve(settings, ScoringService(location, root.predictions, config.serving))
    return 0


def _build_state(arguments: argparse.Namespace) -> int:
    """Builds the state, in a process of its own because of its memory; returns the exit code."""
    command = [sys.executable, "-m", "fraud.pipeline.cli", "state", "build"]
    command += ["--data", arguments.data]
    for config in arguments.config:
        command += ["--config", config]
    for option in ("root", "state"):
        if value := getattr(arguments, option):
            command += [f"--{option}", value]
    return subprocess.run(command, check=False).returncode

"""A worker of Beam in this environment, for runners on machines where it is installed.

Flink's and Spark's workers start it as the command of `--environment_type=PROCESS`, in place of the
`boot` program of Beam's containers: it asks the runner where to get its work, and does it until the
runner ends it. Beam's other way without containers, a pool of workers beside each TaskManager
(EXTERNAL), listens at all addresses and mixes up the workers of two TaskManagers on one machine.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import grpc
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
from google.protobuf import json_format, text_format

START_SECONDS = 60


def environment(worker: str, endpoint: str) -> dict[str, str]:
    """What a worker has to know from the runner, as variables that Beam's harness reads.

    Args:
      worker: the id that the runner gave to the worker.
      endpoint: host and port of the runner's provision service.

    Raises:
      grpc.RpcError: the runner does not answer.
    """
    with grpc.insecure_channel(endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        metadata = (("worker_id", worker),)
        info = service.GetProvisionInfo(
            request, metadata=metadata, timeout=START_SECONDS, wait_for_ready=True
        ).info
    variables = {
        "WORKER_ID": worker,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options, indent=None),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    for name in ("control", "logging", "status"):
        if info.HasField(f"{name}_endpoint"):
            described = text_format.MessageToString(getattr(info, f"{name}_endpoint"))
            variables[f"{name.upper()}_API_SERVICE_DESCRIPTOR"] = described
    return variables


def main(arguments: Sequence[str] | None = None) -> None:
    """Works until the runner ends it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--id", required=True, help="given by the runner")
    parser.add_argument("--provision_endpoint", required=True, help="given by the runner")
    # A runner may give more, such as --logging_endpoint, which the service tells as well.
    given, _ = parser.parse_known_args(arguments)
    os.environ.update(environment(given.id, given.provision_endpoint))
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])


if __name__ == "__main__":
    main()

"""Lineage as OpenLineage events, which catalogues such as Marquez or DataHub accept.

An execution is a run of the job with its node's name, and every artifact and every file of
transactions is a dataset, with its id in ML Metadata or its fingerprint as version. Ids of runs are
derived from what they stand for, so events may be sent again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    JobFacet,
    RunFacet,
    dataset_version_dataset,
    error_message_run,
    execution_parameters_run,
    job_type_job,
    parent_run,
    processing_engine_run,
)
from openlineage.client.serde import Serde
from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport

from fraud.codec import to_json
from fraud.errors import BadInput, FraudPipelineError
from fraud.files import is_uri, write_asked
from fraud.pipeline.lineage_graph import Execution, Graph, Origin, Reach

NAMESPACE = "fraud"
"""Of the jobs."""

KEY = "OPENLINEAGE_API_KEY"
"""The environment variable with the key of a server."""

_PRODUCER = f"urn:fraud-pipeline:{metadata.version('fraud-pipeline')}"
_ENDED = {
    "COMPLETE": RunState.COMPLETE,
    "CACHED": RunState.COMPLETE,
    "FAILED": RunState.FAIL,
    "CANCELED": RunState.ABORT,
}


def send(found: Origin | Reach, target: str) -> int:
    """Sends a lineage's events.

    Args:
      found: the lineage.
      target: the address of a server (http:// or https://), or a file, which is replaced.

    Returns:
      The number of events.

    Raises:
      FraudPipelineError: the server cannot be reached, or refuses the events.
      BadInput: it is neither, or the file cannot be written.
    """
    graph = found.forward if isinstance(found, Reach) else found.back
    listed = list(events(graph))
    if not target.startswith(("http://", "https://")):
        if is_uri(target):
            raise BadInput(
                f"{target}: name a file, or a server that begins with http:// or https://"
            )
        lines = "".join(Serde.to_json(event) + "\n" for event in listed)
        write_asked(Path(target), lines)
        return len(listed)
    key = os.environ.get(KEY)
    config = HttpConfig(target, retry={"total": 2})
    if key:
        config.auth = ApiKeyTokenProvider({"apiKey": key})
    client = OpenLineageClient(transport=HttpTransport(config))
    for number, event in enumerate(listed):
        try:
            client.emit(event)
        except Exception as error:  # of its HTTP library
            reason = " ".join(str(error).split())
            raise FraudPipelineError(
                f"{target}: {number} of {len(listed)} events sent, then: {reason}; send them again "
                "once the server answers, it recognises those that it has"
            ) from None
    return len(listed)


def events(graph: Graph) -> Iterator[RunEvent]:
    """Two events for each execution that ended, one for each that did not."""
    for execution in graph.executions:
        began = datetime.fromisoformat(execution.began.replace("Z", "+00:00"))
        ended = began + timedelta(seconds=execution.seconds)
        yield _event(RunState.START, began, execution, graph)
        if state := _ENDED.get(execution.state):
            yield _event(state, ended, execution, graph)


def _event(state: RunState, moment: datetime, execution: Execution, graph: Graph) -> RunEvent:
    run_id = _id(execution.run_id, execution.node, str(execution.id), execution.began)
    return RunEvent(
        eventType=state,
        eventTime=moment.isoformat(),
        run=Run(run_id, _run_facets(execution)),
        job=Job(NAMESPACE, f"{NAMESPACE}.{execution.node}", _job_facets()),
        inputs=[] if state is RunState.START else _inputs(execution, graph),
        outputs=[] if state is RunState.START else _outputs(execution, graph),
        producer=_PRODUCER,
    )


def _run_facets(execution: Execution) -> dict[str, RunFacet]:
    facets: dict[str, RunFacet] = {
        "executionParameters": execution_parameters_run.ExecutionParametersRunFacet(
            [
                execution_parameters_run.ExecutionParameter(
                    key=name, value=content if isinstance(content, str) else to_json(content)
                )
                for name, content in execution.settings.items()
            ]
        )
    }
    if execution.run_id:
        facets["parent"] = parent_run.ParentRunFacet(
            parent_run.Run(_id(execution.run_id)), parent_run.Job(NAMESPACE, NAMESPACE)
        )
    if execution.code:
        facets["processing_engine"] = processing_engine_run.ProcessingEngineRunFacet(
            version=execution.code.packages.get("tfx", "unknown"),
            name="TFX",
            openlineageAdapterVersion=execution.code.version,
        )
    if execution.error:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(execution.error, "Python")
    return facets


def _job_facets() -> dict[str, JobFacet]:
    return {"jobType": job_type_job.JobTypeJobFacet("BATCH", "TFX", "TASK")}


def _inputs(execution: Execution, graph: Graph) -> list[InputDataset]:
    data = str(execution.settings.get("data", ""))
    files = [
        InputDataset("file", f"{data.rstrip('/')}/{file.name}", facets=_version(file.fingerprint))
        for file in execution.files
    ]
    read = dict.fromkeys(i for ids in execution.inputs.values() for i in ids)
    return files + [
        InputDataset("file", graph.by_id[i].uri or f"artifact {i}", facets=_version(str(i)))
        for i in read
    ]


def _outputs(execution: Execution, graph: Graph) -> list[OutputDataset]:
    made = dict.fromkeys(i for ids in execution.outputs.values() for i in ids)
    return [
        OutputDataset("file", graph.by_id[i].uri or f"artifact {i}", facets=_version(str(i)))
        for i in made
    ]


def _version(version: str) -> dict:
    if not version:
        return {}
    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(version)}


def _id(*parts: str) -> str:
    return str(uuid5(NAMESPACE_URL, "/".join((_PRODUCER.rpartition(":")[0], *parts))))

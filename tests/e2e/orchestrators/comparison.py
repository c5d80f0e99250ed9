"""Lineage in a form that can be compared between runs and orchestrators."""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import Any

from ml_metadata.metadata_store.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.pipeline import artifacts, lineage

_NUMBERED = re.compile(r"/\d+(?![\w-])")
_OWN_PROPERTIES = {
    "name",
    "current_model_id",
    "baseline_model_id",
    "pushed_version",
    "digest",
    "answer",
}
"""Properties of artifacts that are an id, a time, a duration, or a hash of files that have one."""


def differences(actual: Any, expected: Any, where: str = "") -> list[str]:
    """Where two lineages differ, and how; whole ones are too long to read."""
    if isinstance(actual, dict) and isinstance(expected, dict):
        pairs = [(key, actual.get(key), expected.get(key)) for key in {**actual, **expected}]
    elif isinstance(actual, list | tuple) and isinstance(expected, list | tuple):
        pairs = [(i, *pair) for i, pair in enumerate(zip_longest(actual, expected))]
    else:
        return [] if actual == expected else [f"{where}: {actual!r}, not {expected!r}"]
    return [line for key, *pair in pairs for line in differences(*pair, f"{where}/{key}")]


def comparable(store: MetadataStore, run_id: str, names: dict[str, str]) -> dict[str, Any]:
    """The lineage of a run, in a form that is equal for runs that did the same work.

    Args:
      store: ML Metadata.
      run_id: the run.
      names: text that may differ between runs, such as a path → its placeholder.

    Returns:
      Node id → its executions, each with type, state, contexts, properties, and events with their
      artifacts; without ids, times and hashes.
    """
    others = dict.fromkeys(lineage.runs(store), "ANOTHER RUN")
    stands_for = {**names, **others, run_id: "RUN"}

    def plain(text: str) -> str:
        for part, stands in stands_for.items():
            text = text.replace(part, stands)
        return _NUMBERED.sub("/#", text)

    def properties(holder: mlmd.Artifact | mlmd.Execution) -> dict[str, str]:
        return {name: plain(str(artifacts.value(holder, name))) for name in _property_names(holder)}

    def events(execution: mlmd.Execution) -> list[Any]:
        of_execution = store.get_events_by_execution_ids([execution.id])
        ids = [event.artifact_id for event in of_execution]
        by_id = {a.id: a for a in store.get_artifacts_by_id(ids)}
        described = []
        for event in of_execution:
            artifact = by_id[event.artifact_id]
            kind = mlmd.Event.Type.Name(event.type)
            path = [_input_name(step.key) or str(step.index) for step in event.path.steps]
            state = mlmd.Artifact.State.Name(artifact.state)
            described.append(
                (kind, path, artifact.type, state, plain(artifact.uri), properties(artifact))
            )
        return sorted(described, key=str)

    def described(execution: mlmd.Execution) -> dict[str, Any]:
        contexts = store.get_contexts_by_execution(execution.id)
        return {
            "type": execution.type,
            "state": mlmd.Execution.State.Name(execution.last_known_state),
            "properties": properties(execution),
            # A cache's name is a hash of the inputs, including paths.
            "contexts": sorted(
                (c.type, "" if c.type == "execution_cache" else plain(c.name)) for c in contexts
            ),
            "events": events(execution),
        }

    return {
        node_id: [described(execution) for execution in lineage.executions(store, run_id, node_id)]
        for node_id in sorted(lineage.nodes(store, run_id))
    }


def _input_name(key: str) -> str:
    """The name of an input without the prefix of a condition: `_DataGate.verdict` → `verdict`.

    If an artifact is both an input and a condition, ML Metadata keeps one event, under either name.
    """
    return key.rpartition(".")[2] if key.startswith("_") else key


def _property_names(holder: mlmd.Artifact | mlmd.Execution) -> list[str]:
    return sorted({*holder.properties, *holder.custom_properties} - _OWN_PROPERTIES)

"""Records of runs, written into a real ML Metadata as TFX's launcher writes them."""

from __future__ import annotations

import json
from pathlib import Path

from ml_metadata.errors import AlreadyExistsError
from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.pipeline import lineage
from fraud.pipeline.config import Metadata
from fraud.pipeline.records import SqliteRecords
from fraud.pipeline.root import Root

CODE = {
    "fraud_version": "0.1.0",
    "git_commit": "c0ffee" * 7,
    "git_dirty": 0,
    "package_versions": json.dumps({"tfx": "1.16.0"}),
}


class Records:
    """The records of a root."""

    def __init__(self, folder: Path):
        self.root = Root(folder)
        self.store = lineage.open_store(lineage.connection_config(Metadata(), self.root))
        self.plain = SqliteRecords(self.root.metadata)

    def artifact(self, type_name: str, uri: str = "", **properties: object) -> mlmd.Artifact:
        """An artifact that is not written yet."""
        kind = self.store.put_artifact_type(mlmd.ArtifactType(name=type_name), can_add_fields=True)
        artifact = mlmd.Artifact(type_id=kind, uri=uri, state=mlmd.Artifact.LIVE)
        _set(artifact, properties)
        return artifact

    def node(
        self,
        run_id: str,
        node: str,
        inputs: dict[str, mlmd.Artifact],
        outputs: dict[str, mlmd.Artifact],
        state: str = "COMPLETE",
        **properties: object,
    ) -> None:
        """An execution of a node; its outputs get their ids."""
        kind = self.store.put_execution_type(mlmd.ExecutionType(name=node), can_add_fields=True)
        execution = mlmd.Execution(type_id=kind, last_known_state=mlmd.Execution.State.Value(state))
        _set(execution, {**CODE, **properties})
        linked = [(a, _event(mlmd.Event.INPUT, key)) for key, a in inputs.items()]
        linked += [(a, _event(mlmd.Event.OUTPUT, key)) for key, a in outputs.items()]
        contexts = [self.context("pipeline_run", run_id), self.context("node", f"fraud.{node}")]
        _, ids, _ = self.store.put_execution(
            execution, linked, contexts, reuse_context_if_already_exist=True
        )
        for (artifact, _), artifact_id in zip(linked, ids, strict=True):
            artifact.id = artifact_id

    def context(self, type_name: str, name: str) -> mlmd.Context:
        try:
            kind = self.store.put_context_type(mlmd.ContextType(name=type_name))
        except AlreadyExistsError:
            kind = self.store.get_context_type(type_name).id
        found = self.store.get_context_by_type_and_name(type_name, name)
        return found or mlmd.Context(type_id=kind, name=name)

    def run(
        self,
        run_id: str,
        as_of: str,
        train: tuple[str, str],
        version: str = "",
        champion: mlmd.Artifact | None = None,
        content: str = "content",
        passed: bool = True,
    ) -> dict[str, mlmd.Artifact]:
        """A run whose train window is given; the day before it, features looked back on."""
        windows = {"train": train, "recent": (as_of, as_of)}
        examples = self.artifact(
            "Examples",
            as_of=as_of,
            input_fingerprint="f" * 64,
            windows=json.dumps(windows),
            rows=json.dumps({"train": 10, "recent": 1}),
            history=json.dumps({"available": 1, "needed": 3}),
        )
        file = {"name": f"date={train[0]}/a.parquet", "days": [train[0]]}
        plan = {"files": [file], "rows": [10], "contents": [content + "0" * 60]}
        self.node(
            run_id,
            "TransactionExampleGen",
            {},
            {"examples": examples},
            data="/data/transactions",
            plan=json.dumps(plan),
        )
        verdict = self.artifact("fraud.DataVerdict", passed=int(passed))
        self.node(run_id, "DataGate", {"examples": examples}, {"verdict": verdict})
        made = {"examples": examples, "verdict": verdict}
        if not passed:
            return made
        model = self.artifact("Model", as_of=as_of)
        settings = json.dumps({"epochs": 3})
        self.node(
            run_id,
            "Trainer",
            {"examples": examples, "_DataGate.verdict": verdict},
            {"model": model},
            custom_config=settings,
        )
        blessing = self.artifact("ModelBlessing", blessed=1)
        baseline = {"baseline_model": champion} if champion else {}
        read = {"examples": examples, "model": model, **baseline}
        self.node(run_id, "Evaluator", read, {"blessing": blessing})
        pushed = self.artifact("PushedModel", pushed=int(bool(version)), pushed_version=version)
        self.node(
            run_id, "Pusher", {"model": model, "model_blessing": blessing}, {"pushed_model": pushed}
        )
        if version:
            (self.root.pushed / version).mkdir(parents=True)
        return {**made, "model": model, "blessing": blessing, "pushed_model": pushed}


def _event(kind: mlmd.Event.Type, key: str) -> mlmd.Event:
    event = mlmd.Event(type=kind)
    event.path.steps.add().key = key
    event.path.steps.add().index = 0
    return event


def _set(holder: mlmd.Artifact | mlmd.Execution, properties: dict[str, object]) -> None:
    for name, content in properties.items():
        if isinstance(content, int):
            holder.custom_properties[name].int_value = content
        else:
            holder.custom_properties[name].string_value = str(content)


class Counting:
    """Counts the questions that another object is asked."""

    def __init__(self, asked):
        self.asked, self.questions = asked, 0

    def __getattr__(self, name):
        self.questions += 1
        return getattr(self.asked, name)

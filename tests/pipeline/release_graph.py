"""A graph that makes a model of given bytes, compares it with the champion, and pushes it.

Everything about releases is real (ML Metadata, launcher, resolver, Pusher); models are not.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from unittest import mock

from google.protobuf import json_format
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.components import Pusher
from tfx.dsl.compiler import compiler
from tfx.dsl.components.common.resolver import Resolver
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import pusher_pb2
from tfx.types import Channel
from tfx.types.standard_artifacts import Model, PushedModel

from fraud.pipeline import lineage, releases
from fraud.pipeline.artifacts import value
from fraud.pipeline.components import champion_inputs
from fraud.pipeline.components.champion import ChampionModel
from fraud.pipeline.components.executors import with_driver, with_executor
from fraud.pipeline.components.pusher import PusherDriver, PusherExecutor
from fraud.pipeline.config import Metadata
from fraud.pipeline.root import Root
from fraud.pipeline.runners import compiled, launch
from tests.pipeline.release_nodes import Judge, Train

NODES = ("Train", "Champion", "Judge", "Pusher")


class Bank:
    """A root in which models are trained and released."""

    def __init__(self, folder: Path):
        self.root = Root(folder)

    @property
    def store(self):
        return lineage.find_store(Metadata(), self.root)

    def graph(self, run_id: str, weights: str, as_of: str = "", blessed: int = 1, **release: bool):
        """The graph, bound to a run."""
        train = Train(weights=weights, as_of=as_of)
        model = train.outputs["model"]
        champion = Resolver(
            strategy_class=ChampionModel,
            challenger=model,
            examples=train.outputs["examples"],
            model=Channel(type=Model),
            pushed_model=Channel(type=PushedModel),
        ).with_id("Champion")
        judge = Judge(model=model, baseline=champion.outputs["model"], blessed=blessed)
        pusher = Pusher(
            model=model,
            model_blessing=judge.outputs["blessing"],
            push_destination=pusher_pb2.PushDestination(
                filesystem=pusher_pb2.PushDestination.Filesystem(
                    base_directory=str(self.root.pushed)
                )
            ),
            custom_config=release or None,
        )
        pusher = with_driver(with_executor(pusher, PusherExecutor), PusherDriver)
        pipeline = Pipeline(
            pipeline_name="releases",
            pipeline_root=str(self.root.artifacts),
            components=[train, champion, judge, pusher],
            metadata_connection_config=metadata.sqlite_metadata_connection_config(
                str(self.root.metadata)
            ),
            enable_cache=True,
        )
        file = self.root.path / f"ir-{run_id}.json"
        file.write_text(json_format.MessageToJson(compiler.Compiler().compile(pipeline)))
        return compiled.for_run(compiled.read(file), run_id)

    def run(self, run_id: str, weights: str, *, until: str = "Pusher", **options) -> mlmd.Artifact:
        """Runs nodes up to `until`; what the last one put out."""
        graph = self.graph(run_id, weights, **options)
        # These models do not say what they read.
        with mock.patch.object(champion_inputs, "can_judge", return_value=True):
            for node in NODES[: NODES.index(until) + 1]:
                record = launch.run_node(graph, node)
        outputs = record.outputs
        return outputs["model" if "model" in outputs else next(iter(outputs))][0]

    def push(self, graph) -> mlmd.Artifact:
        return launch.run_node(graph, "Pusher").outputs["pushed_model"][0]

    def live(self) -> tuple[str, str] | None:
        """The live version and its weights, by ML Metadata and by the highest folder alike."""
        champion = next(lineage.champions(self.store, self.root.pushed), None)
        folders = sorted(releases.folders(self.root), key=int)
        assert [champion.version if champion else None] == (folders[-1:] or [None])
        return (champion.version, self.weights(champion.version)) if champion else None

    def weights(self, version: str) -> str:
        return (self.root.pushed / version / "saved_model.pb").read_text()

    def versions(self) -> list[str]:
        """The versions, which are the same in the push folder and in ML Metadata."""
        folders = sorted(releases.folders(self.root))
        recorded = [push.version for push in lineage.pushes(self.store)]
        assert folders == sorted(recorded), "lost, duplicated or unrecorded"
        return folders


def outcome(pushed: mlmd.Artifact) -> tuple[str, str]:
    return value(pushed, "outcome"), value(pushed, "reason")


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(point: str) -> None:
    """Makes this process kill itself the next time that a release gets to a point."""
    import shutil

    from fraud import files

    before, after = {
        "copying": ((shutil, "copytree"), None),
        "copied": (None, (shutil, "copytree")),
        "prepared": ((os, "rename"), None),
        "renamed": (None, (os, "rename")),
        "published": (None, (releases, "publish")),
        "recorded": ((files, "write_atomically"), None),
    }[point]
    module, name = before or after
    original = getattr(module, name)

    def patched(*arguments: object, **options: object) -> object:
        if name == "rename" and Root(Path()).staging.name not in str(arguments[0]):
            return original(*arguments, **options)
        if name == "write_atomically" and '"recorded"' not in str(arguments[1]):
            return original(*arguments, **options)
        if name == "copytree" and before:
            (Path(str(arguments[1]))).mkdir(parents=True)
            (Path(str(arguments[1])) / "half").write_text("a")
        if before:
            die()
        result = original(*arguments, **options)
        die()
        return result

    setattr(module, name, patched)


if __name__ == "__main__":  # the Pusher of a run, killed at a point or waiting for a file
    folder, run_id, weights, as_of, point = sys.argv[1:]
    bank = Bank(Path(folder))
    graph = bank.graph(run_id, weights, as_of=as_of)
    if point != "-":
        die_at(point)
    print("ready", flush=True)
    sys.stdin.readline()
    print(value(bank.push(graph), "outcome"), flush=True)

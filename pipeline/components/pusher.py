"""A Pusher whose versions appear complete or not at all, exactly once, and only if they may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tfx.components.pusher import executor
from tfx.dsl.components.base import base_driver
from tfx.orchestration import data_types_utils
from tfx.orchestration.metadata import Metadata
from tfx.orchestration.portable import base_driver as portable_driver
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.proto import pusher_pb2
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import path_utils, proto_utils

from fraud import files
from fraud.pipeline import lineage, releases
from fraud.pipeline.data_facts import value
from fraud.pipeline.releases import Challenger, Decision, Release
from fraud.pipeline.root import Root

OUTCOME, REASON, EARLIER, AS_OF = "outcome", "reason", "earlier_versions", "as_of"
"""Execution properties that the driver adds; the first two are also those of the PushedModel."""


def _root(exec_properties: dict[str, Any]) -> Root:
    destination = pusher_pb2.PushDestination()
    proto_utils.json_to_proto(exec_properties["push_destination"], destination)
    return Root(Path(destination.filesystem.base_directory).parent)


class PusherDriver(base_driver.BaseDriver, portable_driver.BaseDriver):
    """Decides whether the challenger may be pushed, and records that as execution properties.

    TFX caches by execution properties, so the result of an earlier push answers for this one only
    if the decision is the same and the version is still live. The launcher holds the lock of the
    push folder from before the decision until after the record.
    """

    def __init__(self, metadata_handle: Metadata):
        base_driver.BaseDriver.__init__(self, metadata_handle)
        portable_driver.BaseDriver.__init__(self, metadata_handle)

    def run(self, execution_info: ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Decides by ML Metadata and the push folder."""
        properties = dict(execution_info.exec_properties)
        inputs = execution_info.input_dict
        (model,), (blessing,) = inputs["model"], inputs["model_blessing"]
        blessings = [blessing, *inputs.get("infra_blessing", [])]
        challenger = Challenger(
            model_id=model.id,
            identity=lineage.identity_of(path_utils.serving_model_path(model.uri)),
            as_of=value(model, "as_of") or "",
            is_blessed=all(value(artifact, "blessed") == 1 for artifact in blessings),
            judged_against=value(blessing, "baseline_model_id") or 0,
        )
        with self._mlmd_connection as connection:
            store = connection.store
            pushes = list(lineage.pushes(store))
            champions = list(lineage.champions(store, _root(properties).pushed))
            live = champions[0] if champions else None
            live_as_of = lineage.as_of(store, live) if live else ""
        live_reason = (live and value(live.pushed, REASON)) or ""
        settings = json.loads(properties.get("custom_config") or "null") or {}
        decision = releases.decide(
            challenger, pushes, champions, live_as_of, live_reason, **settings
        )
        mine = [
            p.version
            for p in pushes
            if p.identity == challenger.identity and not (live and p.version == live.version)
        ]
        properties |= {
            OUTCOME: decision.outcome,
            REASON: decision.reason,
            EARLIER: " ".join(mine),
        }
        output = driver_output_pb2.DriverOutput()
        for name, content in properties.items():
            if content is not None:
                data_types_utils.set_metadata_value(output.exec_properties[name], content)
        return output


class PusherExecutor(executor.Executor):
    """TFX's Pusher, except that it publishes through `fraud.pipeline.releases`.

    The PushedModel artifact also gets the properties `outcome` and `reason` (see
    `releases.Decision`), and `digest` of the files. Versions are Unix seconds, as in stock TFX and
    as TF Serving expects, or the next number above all others. A retry in the same run adopts the
    version that a killed attempt published. Where there is no driver (Vertex AI), only the
    blessings decide.
    """

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """See BaseExecutor."""
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        decision = Decision(
            exec_properties.get(OUTCOME) or "pushed", exec_properties.get(REASON) or ""
        )
        if decision.outcome == "pushed" and not self.CheckBlessing(input_dict):
            decision = Decision("not_blessed")
        root, release = _root(exec_properties), None
        if decision.outcome == "pushed":
            with root.pushing():
                decision, release = self._push(input_dict, pushed.uri, root, decision)
        pushed.set_string_custom_property(OUTCOME, decision.outcome)
        pushed.set_string_custom_property(REASON, decision.reason)
        if release is None:
            self._MarkNotPushed(pushed)
            return
        pushed.set_string_custom_property(lineage.DIGEST, release.digest)
        pushed.set_string_custom_property(lineage.IDENTITY, release.identity)
        self._MarkPushed(pushed, str(root.pushed / release.version), release.version)

    def _push(
        self, input_dict: dict[str, list[Artifact]], copy: str, root: Root, decision: Decision
    ) -> tuple[Decision, Release | None]:
        """Publishes the model unless it has been; the artifact gets links to the model's files."""
        model = artifact_utils.get_single_instance(input_dict["model"])
        source = self.GetModelPath(input_dict)
        run_id = (self._context.pipeline_run_id if self._context else None) or ""
        release, live = releases.published(root, run_id, model.id), releases.newest(root)
        identity = lineage.identity_of(source)
        if release is None and live and live.identity == identity:
            reason = f"identical to version {live.version}, which is live"
            return Decision("not_pushed", reason), None
        # First what needs space, so that a full disk is noticed before anything is live.
        files.link_tree(source, copy)
        if release is None:
            release = releases.publish(
                root,
                source,
                Release(
                    kind="push",
                    model_id=model.id,
                    identity=identity,
                    run_id=run_id,
                    execution_id=str(getattr(self._context, "_unique_id", None) or ""),
                    as_of=value(model, AS_OF) or "",
                    replaced=live.version if live else None,
                ),
            )
        return decision, release

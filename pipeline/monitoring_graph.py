"""Wires the monitor: a resolver of what is live, and the component that looks at production."""

from __future__ import annotations

import json
from datetime import date

from ml_metadata.metadata_store import metadata_store
from tfx import types
from tfx.dsl.components.common.resolver import Resolver
from tfx.orchestration.pipeline import Pipeline
from tfx.types import standard_artifacts

from fraud.codec import to_json
from fraud.pipeline import graph, lineage
from fraud.pipeline.components.monitor import LiveArtifacts, Monitor, versions_by_identity
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root

SECTIONS = ("dataset", "windows", "features", "data_gate", "evaluation", "serving", "monitoring")
"""The sections of the configuration that the checks depend on."""


def create_pipeline(
    config: Config, root: Root, data: str, as_of: date, store: metadata_store.MetadataStore
) -> Pipeline:
    """Wires one look at production.

    Args:
      config: thresholds, and everything the live version's data depends on.
      root: where artifacts, ML Metadata, pushed models and the prediction log are kept.
      data: day folders or one file of transactions.
      as_of: the last day.
      store: the root's ML Metadata.
    """
    live = Resolver(
        strategy_class=LiveArtifacts,
        config={"reference_run": config.data_gate.reference_run or ""},
        pushed_model=types.Channel(type=standard_artifacts.PushedModel),
        statistics=types.Channel(type=standard_artifacts.ExampleStatistics),
        reference=types.Channel(type=standard_artifacts.ExampleStatistics),
        evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
        examples=types.Channel(type=standard_artifacts.Examples),
    ).with_id("LiveArtifacts")
    monitor = Monitor(
        data=data,
        predictions=str(root.predictions),
        as_of=str(as_of),
        config=to_json({section: getattr(config, section) for section in SECTIONS}),
        versions=json.dumps(versions_by_identity(store)),
        **{name: channel.as_optional() for name, channel in live.outputs.items()},
    )
    return Pipeline(
        pipeline_name=graph.NAME,  # a channel without a producer looks in its own pipeline alone
        pipeline_root=str(root.artifacts),
        components=[live, monitor],
        metadata_connection_config=lineage.connection_config(config.metadata, root),
        enable_cache=False,  # the log and the data are read by path
    )

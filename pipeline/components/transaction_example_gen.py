"""TransactionExampleGen: turns files of transactions into the examples of a run's windows."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import replace
from typing import Any, ClassVar

from tfx import types
from tfx.components.util import examples_utils
from tfx.dsl.components.base import (
    base_beam_component,
    base_beam_executor,
    base_driver,
    executor_spec,
)
from tfx.dsl.io import fileio
from tfx.orchestration import data_types_utils
from tfx.orchestration.data_types import RuntimeParameter
from tfx.orchestration.metadata import Metadata
from tfx.orchestration.portable import base_driver as portable_driver
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.proto import example_gen_pb2
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from fraud import codec
from fraud.errors import BadInput
from fraud.features.spec import Dataset, Features
from fraud.models import example_columns
from fraud.pipeline import lineage
from fraud.pipeline.components import champion_inputs
from fraud.pipeline.components.executors import LocalBeam
from fraud.pipeline.config import Config, WindowLengths
from fraud.pipeline.data_facts import HELD_OUT, HeldOut
from fraud.pipeline.ingestion import partitions, stages
from fraud.pipeline.ingestion.blocks import Ingestion
from fraud.pipeline.ingestion.source import IngestionPlan, plan_ingestion, with_champion
from fraud.pipeline.ingestion.stages import Shard
from fraud.pipeline.windows import LABELLED_SPLITS
from fraud.time import parse_day

EXAMPLES = "examples"
FINGERPRINT = "input_fingerprint"
INPUTS = "inputs"
"""Custom property: the `InputSpecification` of the examples, as JSON."""

PLAN, BAD_INPUT = "plan", "bad_input"
"""Execution properties that the driver adds: the `IngestionPlan` as JSON, or the error message."""


def _config(exec_properties: dict[str, Any]) -> Config:
    return Config(
        dataset=codec.from_json(Dataset, exec_properties["dataset"]),
        windows=codec.from_json(WindowLengths, exec_properties["windows"]),
        features=codec.from_json(Features, exec_properties["features"]),
    )


def _plan(exec_properties: dict[str, Any]) -> IngestionPlan:
    """Plans the ingestion that execution properties describe.

    Raises:
      BadInput: the data is unusable, or the as-of day is not a day.
    """
    text = exec_properties.get("as_of")
    try:
        as_of = parse_day(text) if text else None
    except BadInput as error:
        raise BadInput(f"--as-of {error}") from None
    return plan_ingestion(exec_properties["data"], _config(exec_properties), as_of)


def _held_out(config: Config) -> HeldOut:
    """The rows that `Ingestion.splits` puts into eval if the data has no timestamp."""
    dataset = config.dataset
    hashed = (dataset.id,) if dataset.id else dataset.columns
    return HeldOut(hashed, config.windows.hash_eval_percent)


class Driver(base_driver.BaseDriver, portable_driver.BaseDriver):
    """Records the plan of the ingestion, or why there is none, in the execution properties.

    TFX caches by execution properties, and the plan lists the files that are read. So a run on
    unchanged files is cached, and a run on changed files is not.
    """

    def __init__(self, metadata_handle: Metadata):
        base_driver.BaseDriver.__init__(self, metadata_handle)
        portable_driver.BaseDriver.__init__(self, metadata_handle)

    def run(self, execution_info: ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Plans the ingestion: reads headers, and timestamps of files outside day folders."""
        properties = dict(execution_info.exec_properties)
        try:
            plan = self._with_champion(_plan(properties), properties)
            properties |= {PLAN: codec.to_json(plan), FINGERPRINT: plan.fingerprint}
        except BadInput as error:
            # Left to the executor to raise, so that the execution is marked as failed.
            properties[BAD_INPUT] = str(error)
        output = driver_output_pb2.DriverOutput()
        for name, value in properties.items():
            if value is not None:
                data_types_utils.set_metadata_value(output.exec_properties[name], value)
        return output

    def _with_champion(self, plan: IngestionPlan, exec_properties: dict[str, Any]) -> IngestionPlan:
        """Adds the champion's inputs to the plan if our examples do not contain them."""
        config = _config(exec_properties)
        window = plan.windows.eval if plan.windows else None
        evaluated = (str(window.first), str(window.last)) if window else _held_out(config)
        try:
            with self._mlmd_connection as metadata:
                champions = lineage.standing_champions(metadata.store)
                inputs = champion_inputs.needed(
                    metadata.store, champions, config.inputs, plan.fingerprint, evaluated
                )
        except BadInput as error:
            return replace(plan, champion_problem=str(error))
        return with_champion(plan, exec_properties["data"], config, inputs) if inputs else plan


class Executor(LocalBeam, base_beam_executor.BaseBeamExecutor):
    """Reads the files of the plan, computes the features and writes one split per window."""

    def Do(  # noqa: N802 - the name is TFX's
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the `examples` artifact.

        Raises:
          BadInput: the data is unusable, or has changed since the driver planned the ingestion;
            names file, row or column and the fix.
        """
        del input_dict
        if message := exec_properties.get(BAD_INPUT):
            raise BadInput(message)
        if recorded := exec_properties.get(PLAN):
            plan = codec.from_json(IngestionPlan, recorded)
            plan.check_unchanged()
        else:  # Vertex AI does not run drivers.
            plan = _plan(exec_properties)
        # Not that of an earlier attempt, whose job may still run on a cluster.
        directory = os.path.join(self._get_tmp_dir(), uuid.uuid4().hex)
        try:
            shards = self._ingest(plan, exec_properties, directory)
        except BadInput as error:
            if plan.champion is None:
                raise
            # Only the champion may read what is bad.
            fileio.rmtree(directory)
            problem = f"{champion_inputs.UNCOMPUTABLE}{error}"
            plan = replace(plan, champion=None, champion_problem=problem)
            shards = self._ingest(plan, exec_properties, directory)
        examples = artifact_utils.get_single_instance(output_dict[EXAMPLES])
        config = _config(exec_properties)
        _describe(examples, shards, plan, config.dataset.label_time is not None)
        examples.set_string_custom_property(INPUTS, codec.to_json(config.inputs))
        if plan.windows is None:
            examples.set_string_custom_property(HELD_OUT, codec.to_json(_held_out(config)))
        for split in artifact_utils.decode_split_names(examples.split_names):
            _publish(split, [s for s in shards if s.split == split and s.rows], examples)
        fileio.rmtree(directory)

    def _ingest(
        self, plan: IngestionPlan, exec_properties: dict[str, Any], directory: str
    ) -> list[Shard]:
        """Writes the examples to a temporary directory.

        Raises:
          BadInput: see `Do`.
        """
        config, champion = _config(exec_properties), plan.champion
        ingestion = Ingestion(
            layout=plan.layout(config.dataset),
            features=config.features,
            delay_days=config.windows.label_delay_days,
            eval_percent=config.windows.hash_eval_percent,
            directory=directory,
        )
        if champion is not None:
            theirs = replace(
                ingestion,
                layout=champion.layout,
                features=champion.inputs.features,
                delay_days=champion.inputs.label_delay_days,
            )
            ingestion = replace(ingestion, champion=theirs, champion_column=champion.inputs.column)
        fileio.makedirs(directory)
        try:
            with self._make_beam_pipeline() as pipeline:
                stages.run(pipeline, ingestion, dict(zip(plan.files, plan.rows, strict=True)))
        except Exception as error:
            bad_input = partitions.bad_input_in(error)
            if bad_input is None:
                raise
            raise bad_input from None
        return stages.shards(ingestion)


class TransactionExampleGenSpec(ComponentSpec):
    """The interface of TransactionExampleGen."""

    PARAMETERS: ClassVar = {
        "data": ExecutionParameter(type=str),
        "as_of": ExecutionParameter(type=str),
        "dataset": ExecutionParameter(type=str),
        "windows": ExecutionParameter(type=str),
        "features": ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar = {EXAMPLES: ChannelParameter(type=standard_artifacts.Examples)}


class TransactionExampleGen(base_beam_component.BaseBeamComponent):
    """Ingests transactions up to an as-of day, with point-in-time features.

    Output `examples`: tf.Examples in the splits train, eval and, with a label delay, recent (whose
    examples have no label). Custom properties: `as_of` (a day), `input_fingerprint`, and as JSON
    `windows` (split → [first, last] day), `rows` and `positives` (split → count). Without a
    timestamp there are no windows; rows are split into train and eval by a hash, of which
    `held_out` (JSON) says which columns and how many percent. `history` (JSON):
    how many days before the train window are `needed` by features and `available`. `unlabelled`
    (JSON), with label times: split → number of transactions left out because their label is not
    known yet. `inputs` (JSON): the `InputSpecification` that they were computed with.
    """

    SPEC_CLASS = TransactionExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(
        self,
        data: str | RuntimeParameter,
        as_of: str | RuntimeParameter,
        dataset: str,
        windows: str,
        features: str,
    ):
        """Constructs the component.

        Args:
          data: path or URI of the files; see `fraud.pipeline.ingestion.source.discover`.
          as_of: run as if today were this day, YYYY-MM-DD; "" for the last day of data.
          dataset, windows, features: `fraud.codec.to_json` of these parts of the
            configuration.
        """
        super().__init__(
            TransactionExampleGenSpec(
                data=data,
                as_of=as_of,
                dataset=dataset,
                windows=windows,
                features=features,
                examples=types.Channel(type=standard_artifacts.Examples),
            )
        )


def _publish(split: str, shards: list[Shard], examples: types.Artifact) -> None:
    """Moves the shards of a split to where standard components expect them."""
    if not shards:
        raise BadInput(f"the {split} split would have no rows; provide more data")
    directory = artifact_utils.get_split_uris([examples], split)[0]
    fileio.makedirs(directory)
    fileio.makedirs(example_columns.folder_of(directory))
    for number, shard in enumerate(shards):
        path = f"{directory}/data_tfrecord-{number:05d}-of-{len(shards):05d}.gz"
        fileio.rename(shard.path, path)
        fileio.rename(stages.columns_path(shard), example_columns.path_of(path))


def _describe(
    examples: types.Artifact, shards: list[Shard], plan: IngestionPlan, label_times: bool
) -> None:
    """Sets the properties of the artifact."""
    windows = plan.windows
    splits = list(windows.splits()) if windows else ["train", "eval"]
    examples.split_names = artifact_utils.encode_split_names(splits)
    examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(examples, "tfrecords_gzip")
    named = windows.splits() if windows else {}
    spans = {name: [str(window.first), str(window.last)] for name, window in named.items()}
    of_split = {s: [shard for shard in shards if shard.split == s] for s in splits}
    unlabelled = {s: sum(shard.unlabelled for shard in of_split[s]) for s in LABELLED_SPLITS}
    described = {
        "windows": spans,
        "rows": {s: sum(shard.rows for shard in of_split[s]) for s in splits},
        "positives": {s: sum(shard.positives for shard in of_split[s]) for s in splits},
        "history": plan.history_days,
        "unlabelled": unlabelled if label_times else {},
    }
    examples.set_string_custom_property("as_of", str(windows.as_of) if windows else "")
    for name, value in described.items():
        examples.set_string_custom_property(name, json.dumps(value))
    examples.set_string_custom_property(FINGERPRINT, plan.fingerprint)
    if plan.champion is not None:
        examples.set_string_custom_property("champion_column", plan.champion.inputs.column)
    if plan.champion_problem:
        examples.set_string_custom_property("champion_problem", plan.champion_problem)

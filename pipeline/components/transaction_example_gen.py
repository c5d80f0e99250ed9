"""TransactionExampleGen: from files of transactions to the examples of a run's windows."""

from __future__ import annotations

import json
from datetime import date
from typing import Any, ClassVar

import apache_beam as beam
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
from fraud.pipeline.config import Config, WindowLengths
from fraud.pipeline.ingestion import stages
from fraud.pipeline.ingestion.source import Source, check_columns, discover, plan
from fraud.pipeline.ingestion.stages import Ingestion, Shard
from fraud.pipeline.ingestion.values import Layout
from fraud.pipeline.windows import Windows

EXAMPLES = "examples"
FINGERPRINT = "input_fingerprint"


def _found(exec_properties: dict[str, Any]) -> tuple[Config, Source, Windows | None]:
    """The configuration, the files and the windows that execution properties ask for.

    Raises:
      BadInput: the data does not do.
    """
    config = Config(
        dataset=codec.from_json(Dataset, exec_properties["dataset"]),
        windows=codec.from_json(WindowLengths, exec_properties["windows"]),
        features=codec.from_json(Features, exec_properties["features"]),
    )
    text = exec_properties.get("as_of")
    try:
        as_of = date.fromisoformat(text) if text else None
    except ValueError:
        raise BadInput(f"--as-of {text}: not a day; write it as YYYY-MM-DD") from None
    source = discover(exec_properties["data"], config.dataset)
    return config, source, plan(source, config, as_of)


class Driver(base_driver.BaseDriver, portable_driver.BaseDriver):
    """Puts a fingerprint of the files that are read into the execution properties.

    TFX caches by execution properties, so a run on unchanged files is cached, and one on changed
    files is not.
    """

    def __init__(self, metadata_handle: Metadata):
        base_driver.BaseDriver.__init__(self, metadata_handle)
        portable_driver.BaseDriver.__init__(self, metadata_handle)

    def run(self, execution_info: ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Looks at the files; reads headers, and values only where files are not of one day."""
        properties = execution_info.exec_properties
        try:
            _, source, windows = _found(properties)
            fingerprint = source.fingerprint(windows)
        except BadInput:
            # The executor finds the same and raises it, so that the execution is marked failed.
            fingerprint = ""
        output = driver_output_pb2.DriverOutput()
        for name, value in {**properties, FINGERPRINT: fingerprint}.items():
            if value is not None:
                data_types_utils.set_metadata_value(output.exec_properties[name], value)
        return output


class Executor(base_beam_executor.BaseBeamExecutor):
    """Reads the windows' days, makes the features, writes one split per window."""

    def Do(  # noqa: N802 - the name is TFX's
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the `examples` artifact.

        Raises:
          BadInput: the data does not do; names file, row or column and the fix.
        """
        del input_dict
        config, source, windows = _found(exec_properties)
        ingestion = Ingestion(
            layout=Layout(config.dataset, check_columns(source, windows, config.dataset), windows),
            features=config.features,
            delay_days=config.windows.label_delay_days,
            eval_percent=config.windows.hash_eval_percent,
            directory=self._get_tmp_dir(),
        )
        fileio.makedirs(ingestion.directory)
        try:
            with self._make_beam_pipeline() as pipeline:
                stages.run(pipeline, ingestion, source.files(windows.all_days if windows else None))
        except Exception as error:
            bad_input = stages.bad_input_in(error)
            if bad_input is None:
                raise
            raise bad_input from None
        examples = artifact_utils.get_single_instance(output_dict[EXAMPLES])
        shards = stages.shards(ingestion)
        _describe(examples, shards, windows)
        for split in artifact_utils.decode_split_names(examples.split_names):
            _publish(split, [shard for shard in shards if shard.split == split], examples)
        fileio.rmtree(ingestion.directory)
        examples.set_string_custom_property(FINGERPRINT, exec_properties.get(FINGERPRINT, ""))

    def _make_beam_pipeline(self) -> beam.Pipeline:
        """The pipeline of the configured runner; without one, in this process.

        Beam's own default would first try to download another runner.
        """
        if self._beam_pipeline_args:
            return super()._make_beam_pipeline()
        return beam.Pipeline(runner="FnApiRunner", argv=[])


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
    examples have no label). Custom properties: `as_of` (a day), and as JSON `windows` (split →
    [first, last] day), `rows` and `positives` (split → count). Without a timestamp there are only
    train and eval, by a hash, and no windows.
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
          data: where the files are (`fraud.pipeline.ingestion.source.discover`).
          as_of: the day the run pretends it is, YYYY-MM-DD; "" for the last day of data.
          dataset, windows, features: `fraud.codec.to_json` of those parts of the
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
    """Moves the shards of a split to where the standard components look for them."""
    if not shards:
        raise BadInput(f"the {split} split would have no rows; give it more data")
    directory = artifact_utils.get_split_uris([examples], split)[0]
    fileio.makedirs(directory)
    for number, shard in enumerate(shards):
        name = f"data_tfrecord-{number:05d}-of-{len(shards):05d}.gz"
        fileio.rename(shard.path, f"{directory}/{name}")


def _describe(examples: types.Artifact, shards: list[Shard], windows: Windows | None) -> None:
    """Sets the properties of the artifact."""
    splits = list(windows.splits()) if windows else ["train", "eval"]
    examples.split_names = artifact_utils.encode_split_names(splits)
    examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(examples, "tfrecords_gzip")
    named = windows.splits() if windows else {}
    spans = {name: [str(window.first), str(window.last)] for name, window in named.items()}
    of_split = {s: [shard for shard in shards if shard.split == s] for s in splits}
    described = {
        "windows": spans,
        "rows": {s: sum(shard.rows for shard in of_split[s]) for s in splits},
        "positives": {s: sum(shard.positives for shard in of_split[s]) for s in splits},
    }
    examples.set_string_custom_property("as_of", str(windows.as_of) if windows else "")
    for name, value in described.items():
        examples.set_string_custom_property(name, json.dumps(value))

"""A graph of three nodes for tests of the runners: Work, Gate, and Rest if the gate passes."""

import os
import time
from pathlib import Path

from google.protobuf import json_format
from tfx.dsl.compiler import compiler
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.experimental.conditionals.conditional import Cond
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.types.standard_artifacts import Model, Schema

from fraud.pipeline.components.types import DataVerdict
from fraud.pipeline.root import Root


@component
def Work(schema: OutputArtifact[Schema], behaviour: Parameter[str]) -> None:  # noqa: N802
    """Does what the file `behaviour` says: succeed, fail, or hang until killed."""
    leftovers = os.listdir(schema.uri)
    assert not leftovers, f"an earlier attempt left {leftovers}"
    Path(schema.uri, "part").touch()
    action = Path(behaviour).read_text()
    Path(behaviour).with_name("attempts").open("a").write("x")
    if action == "fail":
        raise ValueError("told to")
    while action == "hang":
        time.sleep(0.1)


@component
def Gate(  # noqa: N802
    schema: InputArtifact[Schema], verdict: OutputArtifact[DataVerdict], passes: Parameter[int]
) -> None:
    verdict.set_int_custom_property("passed", passes)


@component
def Rest(schema: InputArtifact[Schema], model: OutputArtifact[Model]) -> None:  # noqa: N802
    Path(model.uri, "model").touch()


def write(folder: Path, passes: bool) -> Path:
    """Compiles the graph for the root `folder` and returns the IR's file."""
    root = Root(folder)
    work = Work(behaviour=str(folder / "behaviour"))
    gate = Gate(schema=work.outputs["schema"], passes=int(passes))
    with Cond(gate.outputs["verdict"].future()[0].custom_property("passed") == 1):
        rest = Rest(schema=work.outputs["schema"])
    ir = compiler.Compiler().compile(
        Pipeline(
            pipeline_name="tiny",
            pipeline_root=str(root.artifacts),
            components=[work, gate, rest],
            metadata_connection_config=metadata.sqlite_metadata_connection_config(
                str(root.metadata)
            ),
            enable_cache=True,
        )
    )
    file = folder / "ir.json"
    file.write_text(json_format.MessageToJson(ir))
    return file

"""The nodes of `release_graph`; TFX evaluates their annotations, so these are not postponed."""

from pathlib import Path

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, ExampleStatistics, Model, ModelBlessing


@component
def Train(  # noqa: N802
    model: OutputArtifact[Model],
    examples: OutputArtifact[Examples],
    statistics: OutputArtifact[ExampleStatistics],
    weights: Parameter[str],
    as_of: Parameter[str],
) -> None:
    Path(examples.uri, "examples").write_text(weights)
    Path(statistics.uri, "statistics").write_text(weights)
    saved = Path(model.uri, "Format-Serving")
    (saved / "variables").mkdir(parents=True)
    (saved / "saved_model.pb").write_text(weights)
    (saved / "variables" / "variables.index").write_text(weights * 100)
    if as_of:
        model.set_string_custom_property("as_of", as_of)


@component
def Judge(  # noqa: N802
    model: InputArtifact[Model],
    blessing: OutputArtifact[ModelBlessing],
    blessed: Parameter[int],
    baseline: InputArtifact[Model] = None,
) -> None:
    """Records what TFX's Evaluator records."""
    if baseline:
        blessing.set_int_custom_property("baseline_model_id", baseline.id)
    blessing.set_int_custom_property("blessed", blessed)

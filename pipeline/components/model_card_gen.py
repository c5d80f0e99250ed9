"""ModelCardGen: the last node. It documents the model that was pushed."""

import platform
from importlib import metadata
from typing import Any

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts

from fraud.codec import from_json
from fraud.models.columns import ModelColumns
from fraud.models.evaluation import registry
from fraud.pipeline import artifacts
from fraud.pipeline.components import types
from fraud.report import document
from fraud.report import model_card as report

PACKAGES = ("tfx", "tensorflow", "keras", "tensorflow-transform", "tensorflow-model-analysis")


@component
def ModelCardGen(  # noqa: N802 (TFX names components like classes)
    examples: InputArtifact[standard_artifacts.Examples],
    verdict: InputArtifact[types.DataVerdict],
    model: InputArtifact[standard_artifacts.Model],
    evaluation: InputArtifact[standard_artifacts.ModelEvaluation],
    infra_blessing: InputArtifact[standard_artifacts.InfraBlessing],
    pushed_model: InputArtifact[standard_artifacts.PushedModel],
    card: OutputArtifact[types.ModelCard],
    text: Parameter[str],
    columns: Parameter[str],
    evaluation_settings: Parameter[str],
    alert_budget: Parameter[str],
    label_known: Parameter[str],
) -> None:
    """Writes the card of a model that was pushed; writes nothing for one that was not.

    Args:
      examples, verdict, model, evaluation, infra_blessing, pushed_model: outputs of earlier nodes.
      card: the page and its Markdown; see `types.ModelCard`.
      text: JSON of `fraud.pipeline.config.ModelCardText`.
      columns: JSON of `fraud.models.columns.ModelColumns`.
      evaluation_settings: JSON of `fraud.models.spec.Evaluation`.
      alert_budget: the alert budget in words.
      label_known: from when on a label is known, in words.
    """
    push, files = artifacts.Push.read(pushed_model), artifacts.CardFiles.read(card)
    card.set_int_custom_property("written", int(push.pushed))
    if not push.pushed:
        return
    inputs = (examples, verdict, model, evaluation, infra_blessing, pushed_model)
    data = artifacts.ExamplesFacts.read(examples)
    trained = artifacts.ModelFacts.read(model)
    evaluated = artifacts.Evaluation.read(evaluation)
    judged = artifacts.Verdict.read(verdict)
    model_columns = from_json(ModelColumns, columns)
    settings = from_json(dict[str, Any], evaluation_settings)
    facts = report.Facts(
        words=from_json(dict[str, Any], text),
        version=push.version or "",
        path=push.path or "",
        as_of=data.as_of or "",
        windows=data.windows,
        rows=data.rows,
        positives=data.positives,
        label_known=label_known,
        numeric=model_columns.numeric,
        categorical=model_columns.categorical,
        card=model_columns.card or "",
        trained=artifacts.created(model),
        pushed=f"{push.since:%Y-%m-%d %H:%M}",
        network=trained.network,
        threshold=trained.threshold,
        alert_budget=alert_budget,
        validation=trained.validation,
        definitions=registry.named_for(settings),
        metrics=evaluated.metrics,
        intervals=evaluated.intervals,
        champion=evaluated.champion,
        changes=evaluated.changes,
        champion_problem=data.champion_problem,
        demands=settings,
        notes=judged.notes,
        empty=judged.empty,
        served=artifacts.ServingCheckResult.read(infra_blessing).examples,
        run_id=trained.run_id,
        artifacts={a.type_name: (a.id, a.uri) for a in inputs},
        curves=artifacts.curves(evaluation),
        importance=artifacts.Training.read(model).importance,
        versions={"python": platform.python_version()} | {p: metadata.version(p) for p in PACKAGES},
    )
    page = report.document(facts)
    files.page.write_text(document.to_html(page), encoding="utf-8")
    files.text.write_text(document.to_markdown(page), encoding="utf-8")

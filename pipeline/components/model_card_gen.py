"""ModelCard: the last node, which writes down what was pushed."""

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from fraud.models.columns import ModelColumns
from fraud.models.entry_point import EXTRA, NETWORK_FILE, THRESHOLD_FILE
from fraud.models.evaluation import registry
from fraud.pipeline import summary
from fraud.pipeline.components import types
from fraud.report import document
from fraud.report import model_card as report

PACKAGES = ("tfx", "tensorflow", "keras", "tensorflow-transform", "tensorflow-model-analysis")


@component
def ModelCard(  # noqa: N802 (TFX names components like classes)
    examples: InputArtifact[standard_artifacts.Examples],
    verdict: InputArtifact[types.DataVerdict],
    model: InputArtifact[standard_artifacts.Model],
    evaluation: InputArtifact[standard_artifacts.ModelEvaluation],
    infra_blessing: InputArtifact[standard_artifacts.InfraBlessing],
    pushed_model: InputArtifact[standard_artifacts.PushedModel],
    card: OutputArtifact[types.ModelCard],
    words: Parameter[str],
    columns: Parameter[str],
    demands: Parameter[str],
    label_delay_days: Parameter[int],
) -> None:
    """Writes the card of a model that was pushed, and nothing for one that was not.

    Args:
      examples: of TransactionExampleGen.
      verdict: of DataGate.
      model: of the Trainer.
      evaluation: of the Evaluator.
      infra_blessing: of ServingCheck.
      pushed_model: of the Pusher.
      card: the page and its Markdown; see `types.ModelCard`.
      words: JSON of `fraud.pipeline.config.ModelCard`.
      columns: JSON of `fraud.models.columns.ModelColumns`.
      demands: JSON of `fraud.models.spec.Evaluation`.
      label_delay_days: of `fraud.pipeline.config.WindowLengths`.
    """
    written = pushed_model.get_int_custom_property("pushed") == 1
    card.set_int_custom_property("written", int(written))
    if not written:
        return
    inputs = (examples, verdict, model, evaluation, infra_blessing, pushed_model)
    read = ModelColumns.from_json(columns)
    required = json.loads(demands)
    saved = Path(path_utils.serving_model_path(model.uri)) / EXTRA
    trained = _json(saved / THRESHOLD_FILE)
    metrics, champion, _ = summary.judgement(evaluation.uri)
    facts = report.Facts(
        words=json.loads(words),
        version=pushed_model.get_string_custom_property("pushed_version"),
        path=pushed_model.get_string_custom_property("pushed_destination"),
        as_of=examples.get_string_custom_property("as_of"),
        windows=json.loads(examples.get_string_custom_property("windows")),
        rows=json.loads(examples.get_string_custom_property("rows")),
        positives=json.loads(examples.get_string_custom_property("positives")),
        label_delay_days=label_delay_days,
        numeric=read.numeric,
        categorical=read.categorical,
        network=_json(saved / NETWORK_FILE),
        threshold=trained["threshold"],
        alert_budget=required["alert_budget"],
        validation=trained["validation"],
        definitions=registry.named_for(required),
        metrics=metrics,
        champion=champion,
        demands=required,
        notes=tuple(_json(Path(verdict.uri) / types.VERDICT_FILE)["notes"]),
        served=json.loads(infra_blessing.get_string_custom_property("answer"))["examples"],
        run_id=model.get_string_custom_property("run_id"),
        artifacts={a.type_name: (a.id, a.uri) for a in inputs},
        versions={"python": platform.python_version()} | {p: metadata.version(p) for p in PACKAGES},
    )
    page = report.document(facts)
    folder = Path(card.uri)
    (folder / types.CARD_PAGE).write_text(document.to_html(page), encoding="utf-8")
    (folder / types.CARD_TEXT).write_text(document.to_markdown(page), encoding="utf-8")


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))

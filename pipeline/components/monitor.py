"""Monitor: the component that looks at production and records what it saw."""

from pathlib import Path
from typing import Any

import numpy as np
from ml_metadata.metadata_store import metadata_store
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx import types as tfx_types
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.components.common import resolver
from tfx.types.standard_artifacts import (
    Examples,
    ExampleStatistics,
    ModelEvaluation,
    PushedModel,
)

from fraud.codec import from_json
from fraud.features.batch import feature_names
from fraud.models.evaluation.registry import CHALLENGER
from fraud.models.specification import InputSpecification
from fraud.monitoring import reading
from fraud.monitoring.observe import observe
from fraud.monitoring.production import Live, Promise
from fraud.monitoring.profiles import Shape
from fraud.pipeline import artifacts, distributions, drift, lineage
from fraud.pipeline.components import daily_counts, types
from fraud.pipeline.config import Config
from fraud.time import parse_day

Artifacts = dict[str, list[tfx_types.Artifact]]


class LiveArtifacts(resolver.ResolverStrategy):
    """Resolves what the live version consists of and was judged by.

    Inputs: `pushed_model` (all pushes), `statistics`, `evaluation`, `examples` (those of all runs),
    `reference` (all statistics). Each becomes one artifact, or none: without a live version, or if
    its files were deleted. `reference` is empty if it is the version's own.
    """

    def __init__(self, reference_run: str = "") -> None:
        self._reference_run = reference_run

    def resolve_artifacts(
        self, store: metadata_store.MetadataStore, input_dict: Artifacts
    ) -> Artifacts:
        """See ResolverStrategy."""
        champion = next(lineage.champions(store), None)
        if champion is None:
            return {key: [] for key in input_dict}
        kinds = {
            "statistics": "ExampleStatistics",
            "evaluation": "ModelEvaluation",
            "examples": "Examples",
        }
        wanted = {"pushed_model": [champion.pushed.id]}
        for key, kind in kinds.items():
            made = lineage.artifacts_of_run(store, champion.run_id, kind)
            wanted[key] = [a.id for a in made if lineage.is_kept(a)][-1:]
        first = next((p.run_id for p in reversed([*lineage.pushes(store)])), "")
        reference = lineage.artifacts_of_run(
            store, self._reference_run or first, kinds["statistics"]
        )
        wanted["reference"] = [
            a.id for a in reference if lineage.is_kept(a) and a.id not in wanted["statistics"]
        ][-1:]
        return {key: [a for a in found if a.id in wanted[key]] for key, found in input_dict.items()}


@component
def Monitor(  # noqa: N802 (TFX names components like classes)
    observation: OutputArtifact[types.Observation],
    data: Parameter[str],
    predictions: Parameter[str],
    as_of: Parameter[str],
    config: Parameter[str],
    versions: Parameter[str],
    pushed_model: InputArtifact[PushedModel] = None,
    statistics: InputArtifact[ExampleStatistics] = None,
    reference: InputArtifact[ExampleStatistics] = None,
    evaluation: InputArtifact[ModelEvaluation] = None,
    examples: InputArtifact[Examples] = None,
) -> None:
    """Makes every check of `fraud.monitoring.observe`, and writes them down.

    Args:
      observation: the checks; see `types.Observation`.
      data: the transactions; see `fraud.pipeline.ingestion.source.discover`.
      predictions: the folder of the prediction log.
      as_of: the last day, YYYY-MM-DD.
      config: JSON of the sections of `Config` that the checks depend on.
      versions: JSON of `versions_by_identity`.
      pushed_model, statistics, reference, evaluation, examples: outputs of `LiveArtifacts`.
    """
    settings, day = from_json(Config, config), parse_day(as_of)
    live, inputs = None, None
    if pushed_model is not None:
        version = str(artifacts.value(pushed_model, "pushed_version"))
        identity = artifacts.value(pushed_model, lineage.IDENTITY) or ""
        same = from_json(dict[str, list[str]], versions).get(identity, ())
        inputs = InputSpecification.read(Path(artifacts.value(pushed_model, lineage.PUSHED_TO)))
        live = live_from(
            version, {version, *same}, inputs, statistics, reference, evaluation, examples
        )
    until = live.labels_until if live else None
    production = reading.read(data, Path(predictions), settings, day, inputs, until)
    seen = observe(production, live, settings, day)
    path = Path(observation.uri) / artifacts.OBSERVATION_FILE
    path.write_text(seen.to_json(indent=1) + "\n", encoding="utf-8")
    observation.set_string_custom_property("as_of", as_of)
    observation.set_string_custom_property("version", "" if live is None else live.version)
    observation.set_string_custom_property("verdict", seen.verdict.value)


def live_from(
    version: str,
    aliases: set[str],
    inputs: InputSpecification,
    statistics: Any,
    reference: Any,
    evaluation: Any,
    examples: Any,
) -> Live:
    """The live version, from its artifacts; None stands for one that is unknown."""
    facts = artifacts.ExamplesFacts.read(examples) if examples is not None else None
    evaluated = facts.windows.get("eval") if facts else None
    shapes: dict[str, Shape] = {}
    if statistics is not None:
        found = distributions.columns(statistics)
        for name in feature_names(inputs.features, inputs.dataset):
            of_train = found.get(name, {}).get("train")
            if isinstance(of_train, distributions.Numbers) and of_train.quantiles:
                quantiles = np.array(of_train.quantiles, np.float64)
                shapes[name] = Shape.of_quantiles(quantiles, of_train.missing, of_train.zeros)
    days = 0
    if evaluated:
        days = (parse_day(evaluated[1]) - parse_day(evaluated[0])).days + 1
    return Live(
        version=version,
        aliases=frozenset(aliases),
        as_of=parse_day(facts.as_of) if facts and facts.as_of else None,
        labels_until=parse_day(evaluated[1]) if evaluated else None,
        promise=promise_of(evaluation, days) if evaluation is not None else Promise(),
        profile=_profile(statistics),
        reference=_profile(reference),
        shapes=shapes,
    )


def promise_of(evaluation: Any, days: int) -> Promise:
    """What the Evaluator measured of the challenger that is live now, on so many days."""
    read = artifacts.Evaluation.read(evaluation)
    of_models = artifacts.curves(evaluation)
    # Without a champion, TFMA gives the only model no name.
    drawn = of_models.get(CHALLENGER) or of_models.get("", {})
    # As many as were looked at: a sample is less certain than all.
    share = drawn.get("sample_share", 1.0)
    return Promise(
        metrics=read.metrics.get("overall", {}),
        intervals=read.intervals.get("overall", {}),
        slices=read.metrics.get("slices", {}),
        slice_intervals=read.intervals.get("slices", {}),
        score_counts=tuple(
            round(share * (b["frauds"] + b["genuine"])) for b in drawn.get("bins", ())
        ),
        days=days,
    )


def _profile(statistics: Any) -> drift.Profile | None:
    """The counts by day of a train window; None without statistics, or from early versions."""
    if statistics is None:
        return None
    path = artifacts.statistics_files(statistics)["train"]
    of_train = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes())
    return daily_counts.profile(of_train.datasets[0])


def versions_by_identity(store: metadata_store.MetadataStore) -> dict[str, list[str]]:
    """Identity of a model → the versions that it was or is: several if it was rolled back to."""
    found: dict[str, list[str]] = {}
    for push in lineage.pushes(store):
        found.setdefault(push.identity, []).append(push.version)
    return found

"""Resolver strategies that find the champion in ML Metadata.

TFX's LatestBlessedModelStrategy returns the newest *blessed* model, which need not be in production
(its push may have failed); in a repeated run it returns the challenger itself. See
docs/adr/0003-champion-is-what-was-pushed.md.
"""

from __future__ import annotations

from ml_metadata.metadata_store import metadata_store
from tfx import types
from tfx.dsl.components.common import resolver

from fraud.errors import BadInput
from fraud.pipeline import lineage
from fraud.pipeline.components import champion_inputs

Artifacts = dict[str, list[types.Artifact]]


class ChampionModel(resolver.ResolverStrategy):
    """Resolves `model` to the champion's model.

    Inputs: `challenger` (the model to judge), `examples` (to judge it on), `model` (all models),
    `pushed_model` (all pushes; declared so that the node waits for none of them). `model` is empty
    without a champion, and if the champion cannot be judged on the examples: they lack its inputs,
    or it was trained on some of their days. If the challenger is itself live, it is compared with
    what was live before.
    """

    def resolve_artifacts(
        self, store: metadata_store.MetadataStore, input_dict: Artifacts
    ) -> Artifacts:
        """See ResolverStrategy."""
        challenger = {a.id for a in input_dict["challenger"]}
        for champion in lineage.standing_champions(store):
            if champion.model_id not in challenger:
                model = [
                    a
                    for a in input_dict["model"]
                    if a.id == champion.model_id
                    and champion_inputs.can_judge(
                        store, input_dict["examples"][0], input_dict["challenger"][0], champion, a
                    )
                ]
                return {**input_dict, "model": model}
        return {**input_dict, "model": []}


class ChampionStatistics(resolver.ResolverStrategy):
    """Resolves `baseline` to the statistics of the data that the champion was trained on.

    Inputs: `statistics` (of this run), `baseline` (all statistics), `pushed_model` (all pushes).
    `baseline` is empty without a champion that was trained on other data.
    """

    def resolve_artifacts(
        self, store: metadata_store.MetadataStore, input_dict: Artifacts
    ) -> Artifacts:
        """See ResolverStrategy."""
        own = {a.id for a in input_dict["statistics"]}
        for champion in lineage.standing_champions(store):
            statistics = lineage.artifacts_of_run(store, champion.run_id, "ExampleStatistics")
            ids = {a.id for a in statistics}
            if not ids & own:
                return {
                    **input_dict,
                    "baseline": [a for a in input_dict["baseline"] if a.id in ids],
                }
        return {**input_dict, "baseline": []}


class ReferenceStatistics(resolver.ResolverStrategy):
    """Resolves `baseline` to the statistics of the fixed reference for drift.

    That is the configured run, or the run that pushed the first model of the root. Inputs: those of
    ChampionStatistics. `baseline` is empty if the first model was trained on the data of this run.
    """

    def __init__(self, run_id: str = "") -> None:
        self._run_id = run_id

    def resolve_artifacts(
        self, store: metadata_store.MetadataStore, input_dict: Artifacts
    ) -> Artifacts:
        """See ResolverStrategy.

        Raises:
          BadInput: the run has no statistics, or not any more.
        """
        # The first push, even if its version was deleted: the reference must not move.
        run_id = self._run_id or next((p.run_id for p in reversed([*lineage.pushes(store)])), "")
        statistics = lineage.artifacts_of_run(store, run_id, "ExampleStatistics") if run_id else []
        if self._run_id and not statistics:
            raise BadInput(
                f"data_gate.reference_run: run {run_id!r} has no statistics in this root; "
                "`fraud-pipeline status` lists its runs"
            )
        ids = {a.id for a in statistics} - {a.id for a in input_dict["statistics"]}
        baseline = [a for a in input_dict["baseline"] if a.id in ids]
        if ids and not baseline:
            raise BadInput(
                f"the statistics of run {run_id}, the reference for drift, were deleted; set "
                "data_gate.reference_run to a run that `fraud-pipeline prune` kept"
            )
        return {**input_dict, "baseline": baseline}

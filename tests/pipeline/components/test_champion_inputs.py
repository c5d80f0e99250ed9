"""Which inputs a run computes for the champion, and which champion its examples can judge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from fraud.codec import to_json
from fraud.errors import BadInput
from fraud.features.spec import CARD, FeatureGroup, Features
from fraud.models.specification import (
    EXAMPLE_VALUES_FILE,
    EXTRA,
    SPECIFICATION_FILE,
    InputSpecification,
    example_values,
)
from fraud.pipeline import lineage
from fraud.pipeline.components import champion_inputs
from fraud.pipeline.components.champion import ChampionModel
from fraud.pipeline.config import Config
from fraud.pipeline.data_facts import HeldOut
from fraud.pipeline.lineage import RUN_CONTEXT

EVALUATED = ("2026-02-07", "2026-02-13")
ALL = Config().inputs
FEWER = replace(ALL, features=Features(groups=(FeatureGroup(("count",), (7,), (CARD,)),)))


@dataclass
class Lineage:
    """An ML Metadata with runs that trained and pushed models."""

    folder: Path
    store: metadata_store.MetadataStore

    @classmethod
    def empty(cls, folder: Path) -> Lineage:
        connection = mlmd.ConnectionConfig()
        connection.fake_database.SetInParent()
        return cls(folder, metadata_store.MetadataStore(connection))

    def push(
        self,
        run_id: str,
        inputs: InputSpecification | None,
        fingerprint: str,
        train: tuple[str, str] = ("2026-01-01", "2026-01-30"),
        held_out: HeldOut | None = None,
    ) -> int:
        """A run that pushes a model of these inputs; returns the id of the model.

        If `held_out` is given, its data has no timestamp.
        """
        uri = self.folder / run_id
        if inputs is not None:
            write_specification(uri, inputs)
        model = self._artifact("Model", str(uri))
        type_id = self.store.put_context_type(mlmd.ContextType(name=RUN_CONTEXT))
        context = mlmd.Context(type_id=type_id, name=run_id)
        (context_id,) = self.store.put_contexts([context])
        split = {"held_out": to_json(held_out)} if held_out else {}
        windows = to_json({} if held_out else {"train": train})
        examples = self._artifact(
            "Examples", input_fingerprint=fingerprint, windows=windows, **split
        )
        self._execution("TransactionExampleGen", context_id, {}, {"examples": examples})
        folder = self.folder / "pushed" / run_id
        folder.mkdir(parents=True)
        pushed = self._artifact(
            "PushedModel", pushed=1, pushed_version=run_id, pushed_destination=str(folder)
        )
        self._execution("Pusher", context_id, {"model": model}, {"pushed_model": pushed})
        return model

    def needed(
        self,
        ours: InputSpecification,
        fingerprint: str,
        evaluated: champion_inputs.Evaluated = EVALUATED,
    ) -> InputSpecification | None:
        champions = lineage.champions(self.store)
        return champion_inputs.needed(self.store, champions, ours, fingerprint, evaluated)

    def _artifact(self, kind: str, uri: str = "", **properties: Any) -> int:
        type_id = self.store.put_artifact_type(mlmd.ArtifactType(name=kind))
        artifact = mlmd.Artifact(type_id=type_id, uri=uri)
        for name, content in properties.items():
            field = "int_value" if isinstance(content, int) else "string_value"
            setattr(artifact.custom_properties[name], field, content)
        (artifact_id,) = self.store.put_artifacts([artifact])
        return artifact_id

    def _execution(
        self, kind: str, context_id: int, inputs: dict[str, int], outputs: dict[str, int]
    ) -> None:
        type_id = self.store.put_execution_type(mlmd.ExecutionType(name=kind))
        (execution_id,) = self.store.put_executions([mlmd.Execution(type_id=type_id)])
        events = []
        for direction, artifacts in ((mlmd.Event.INPUT, inputs), (mlmd.Event.OUTPUT, outputs)):
            for key, artifact_id in artifacts.items():
                event = mlmd.Event(
                    artifact_id=artifact_id, execution_id=execution_id, type=direction
                )
                event.path.steps.add(key=key)
                events.append(event)
        self.store.put_events(events)
        association = mlmd.Association(context_id=context_id, execution_id=execution_id)
        self.store.put_attributions_and_associations([], [association])


def write_specification(model: Path, inputs: InputSpecification) -> None:
    extra = Path(path_utils.serving_model_dir(str(model))) / EXTRA
    extra.mkdir(parents=True, exist_ok=True)
    (extra / SPECIFICATION_FILE).write_text(to_json(inputs))


@pytest.fixture
def runs(tmp_path: Path) -> Lineage:
    return Lineage.empty(tmp_path)


def test_without_a_champion_nothing_is_needed(runs: Lineage) -> None:
    assert runs.needed(ALL, "today") is None


@pytest.mark.parametrize("champion", [ALL, FEWER, replace(FEWER, label_delay_days=99)])
def test_a_champion_that_reads_what_we_read_needs_nothing(
    runs: Lineage, champion: InputSpecification
) -> None:
    runs.push("1", champion, "yesterday")
    assert runs.needed(ALL, "today") is None


@pytest.mark.parametrize(
    "champion",
    [ALL, replace(FEWER, features=replace(FEWER.features, calendar=("hour",)))],
)
def test_the_inputs_of_the_newest_champion_are_needed_if_ours_are_others(
    runs: Lineage, champion: InputSpecification
) -> None:
    runs.push("1", replace(ALL, label_delay_days=3), "long ago")
    runs.push("2", champion, "yesterday")
    assert runs.needed(FEWER, "today") == champion


def test_of_a_repeated_run_the_champion_before_it_counts(runs: Lineage) -> None:
    """Or else the examples of the repeated run would not be those in the cache."""
    runs.push("1", ALL, "yesterday")
    runs.push("2", FEWER, "today")
    assert runs.needed(FEWER, "today") == ALL
    assert runs.needed(FEWER, "tomorrow") is None


def test_a_champion_without_a_specification_is_refused(runs: Lineage) -> None:
    runs.push("1", None, "yesterday")
    with pytest.raises(BadInput, match=r"its inputs .*specification\.json: cannot be read"):
        runs.needed(ALL, "today")


OVERLAPS = [
    (("2026-01-09", "2026-02-06"), ""),
    (("2026-02-14", "2026-03-15"), ""),
    (("2026-01-09", "2026-02-07"), "it was trained on 1 of the 7 eval days, 2026-02-07 … "),
    (("2026-02-13", "2026-03-14"), "it was trained on 1 of the 7 eval days, 2026-02-13 … "),
    (("2026-02-08", "2026-02-09"), "it was trained on 2 of the 7 eval days, 2026-02-08 … "),
    (("2026-01-09", "2026-03-14"), "it was trained on 7 of the 7 eval days, 2026-02-07 … "),
]


@pytest.mark.parametrize(("train", "problem"), OVERLAPS)
def test_a_champion_is_not_judged_on_days_that_it_was_trained_on(
    runs: Lineage, train: tuple[str, str], problem: str
) -> None:
    """Such days flatter it: a better challenger would be refused."""
    runs.push("1", ALL, "yesterday", train)
    if not problem:
        assert runs.needed(ALL, "today") is None
        return
    with pytest.raises(BadInput, match=problem):
        runs.needed(ALL, "today")
    assert runs.needed(ALL, "today", evaluated=None) is None


BY_ID = HeldOut(("ID",), 20)


@pytest.mark.parametrize(
    ("then", "now", "problem"),
    [
        (BY_ID, BY_ID, ""),
        (replace(BY_ID, percent=21), BY_ID, ""),
        (replace(BY_ID, percent=19), BY_ID, "trained on eval rows"),
        (HeldOut(("AMOUNT", "LABEL"), 20), BY_ID, "trained on eval rows"),
        (HeldOut(("AMOUNT",), 20), HeldOut(("AMOUNT", "AGE"), 20), "trained on eval rows"),
        (None, BY_ID, "trained on eval rows"),
        (BY_ID, EVALUATED, "trained on eval days"),
    ],
)
def test_a_champion_is_not_judged_on_rows_that_it_may_have_been_trained_on(
    runs: Lineage,
    then: HeldOut | None,
    now: HeldOut | tuple[str, str],
    problem: str,
) -> None:
    """Without timestamps, rows are split by a hash; by another one, train rows become eval rows."""
    runs.push("1", ALL, "yesterday", held_out=then)
    if not problem:
        assert runs.needed(ALL, "today", evaluated=now) is None
        return
    with pytest.raises(BadInput, match=problem):
        runs.needed(ALL, "today", evaluated=now)


def test_a_champion_whose_features_have_other_code_is_not_judged(
    runs: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be judged on inputs that it was not trained on, and be easy to beat."""
    runs.push("1", ALL, "yesterday")
    values = example_values(ALL)
    extra = Path(path_utils.serving_model_dir(str(runs.folder / "1"))) / EXTRA
    (extra / EXAMPLE_VALUES_FILE).write_text(to_json(values))
    assert runs.needed(ALL, "today") is None
    first, *others = values
    (extra / EXAMPLE_VALUES_FILE).write_text(to_json({n: values[n] for n in others}))
    with pytest.raises(BadInput, match=f"the code of its features has changed.*: {first}$"):
        runs.needed(ALL, "today")
    (extra / EXAMPLE_VALUES_FILE).write_text("{}")
    with pytest.raises(BadInput, match=f"{first}, .* and {len(values) - 3} more$"):
        runs.needed(ALL, "today")


@pytest.mark.parametrize(
    ("challenger", "champion", "embedded", "is_judged"),
    [
        (ALL, ALL, "", True),
        (ALL, FEWER, "", True),
        (FEWER, ALL, "", False),
        (FEWER, ALL, ALL.column, True),
        (FEWER, FEWER, ALL.column, True),
        (FEWER, ALL, replace(ALL, label_delay_days=3).column, False),
        (ALL, None, "", False),
    ],
)
def test_a_champion_is_resolved_only_if_the_examples_contain_its_inputs(
    runs: Lineage,
    challenger: InputSpecification,
    champion: InputSpecification | None,
    embedded: str,
    is_judged: bool,
) -> None:
    model = standard_artifacts.Model()
    model.id, model.uri = runs.push("1", champion, "yesterday"), str(runs.folder / "1")
    ours = standard_artifacts.Model()
    ours.id, ours.uri = 99, str(runs.folder / "challenger")
    write_specification(runs.folder / "challenger", challenger)
    examples = standard_artifacts.Examples()
    examples.set_string_custom_property("champion_column", embedded)
    examples.set_string_custom_property("windows", to_json({"eval": EVALUATED}))
    inputs = {"challenger": [ours], "examples": [examples], "model": [model], "pushed_model": []}
    resolved = ChampionModel().resolve_artifacts(runs.store, inputs)
    assert resolved["model"] == ([model] if is_judged else [])


@pytest.mark.parametrize(("train", "problem"), OVERLAPS)
def test_a_champion_that_was_trained_on_the_examples_is_not_resolved(
    runs: Lineage, train: tuple[str, str], problem: str
) -> None:
    model = standard_artifacts.Model()
    model.id, model.uri = runs.push("1", ALL, "yesterday", train), str(runs.folder / "1")
    ours = standard_artifacts.Model()
    ours.id, ours.uri = 99, str(runs.folder / "challenger")
    write_specification(runs.folder / "challenger", ALL)
    examples = standard_artifacts.Examples()
    examples.set_string_custom_property("windows", to_json({"eval": EVALUATED}))
    inputs = {"challenger": [ours], "examples": [examples], "model": [model], "pushed_model": []}
    resolved = ChampionModel().resolve_artifacts(runs.store, inputs)
    assert resolved["model"] == ([] if problem else [model])


@pytest.mark.parametrize(("percent", "is_judged"), [(20, True), (21, False)])
def test_a_champion_that_may_have_been_trained_on_the_examples_is_not_resolved(
    runs: Lineage, percent: int, is_judged: bool
) -> None:
    model = standard_artifacts.Model()
    model.id, model.uri = (
        runs.push("1", ALL, "yesterday", held_out=BY_ID),
        str(runs.folder / "1"),
    )
    ours = standard_artifacts.Model()
    ours.id, ours.uri = 99, str(runs.folder / "challenger")
    write_specification(runs.folder / "challenger", ALL)
    examples = standard_artifacts.Examples()
    examples.set_string_custom_property("held_out", to_json(replace(BY_ID, percent=percent)))
    inputs = {"challenger": [ours], "examples": [examples], "model": [model], "pushed_model": []}
    resolved = ChampionModel().resolve_artifacts(runs.store, inputs)
    assert resolved["model"] == ([model] if is_judged else [])

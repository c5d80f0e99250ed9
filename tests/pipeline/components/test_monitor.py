"""What the monitor's graph resolves, and what it makes of artifacts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.types import standard_artifacts

from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.models.evaluation import curves
from fraud.models.specification import InputSpecification
from fraud.pipeline import artifacts, lineage, pruning
from fraud.pipeline.components import monitor
from fraud.pipeline.components.monitor import LiveArtifacts, versions_by_identity
from tests.pipeline.recorded_runs import Records

TYPES = {
    "pushed_model": standard_artifacts.PushedModel,
    "statistics": standard_artifacts.ExampleStatistics,
    "reference": standard_artifacts.ExampleStatistics,
    "evaluation": standard_artifacts.ModelEvaluation,
    "examples": standard_artifacts.Examples,
}
INPUTS = InputSpecification(
    Dataset(), Features(calendar=(), groups=(FeatureGroup(("count",), (1,)),)), 7
)


@pytest.fixture
def records(tmp_path) -> Records:
    return Records(tmp_path)


def push(records: Records, run_id: str, day: str, version: str) -> dict[str, mlmd.Artifact]:
    """A run with all that the monitor reads of it."""
    made = records.run(run_id, f"2026-01-{day}", ("2026-01-01", "2026-01-05"), version)
    folder = records.root.pushed / version
    made["pushed_model"].custom_properties["pushed_destination"].string_value = str(folder)
    records.store.put_artifacts([made["pushed_model"]])
    made["statistics"] = records.artifact("ExampleStatistics")
    examples = {"examples": made["examples"]}
    records.node(run_id, "StatisticsGen", examples, {"statistics": made["statistics"]})
    made["evaluation"] = records.artifact("ModelEvaluation")
    records.node(run_id, "Evaluator2", examples, {"evaluation": made["evaluation"]})
    return made


def resolved(records: Records, reference_run: str = "") -> dict[str, list[int]]:
    """The ids of what is resolved, given every artifact of each type."""
    given: dict[str, list[Any]] = {}
    for key, kind in TYPES.items():
        given[key] = []
        for proto in records.store.get_artifacts_by_type(kind.TYPE_NAME):
            artifact = kind()
            artifact.set_mlmd_artifact(proto)
            given[key].append(artifact)
    found = LiveArtifacts(reference_run).resolve_artifacts(records.store, given)
    return {key: [artifact.id for artifact in of] for key, of in found.items()}


def test_everything_is_that_of_the_live_version(records):
    first, second = push(records, "r1", "10", "100"), push(records, "r2", "11", "200")
    assert resolved(records) == {
        "pushed_model": [second["pushed_model"].id],
        "statistics": [second["statistics"].id],
        "reference": [first["statistics"].id],
        "evaluation": [second["evaluation"].id],
        "examples": [second["examples"].id],
    }
    assert resolved(records, "r2")["reference"] == []


def test_the_first_version_is_its_own_reference(records):
    first = push(records, "r1", "10", "100")
    found = resolved(records)
    assert found["statistics"] == [first["statistics"].id]
    assert found["reference"] == []


def test_without_anything_live_there_is_nothing(records):
    push(records, "r1", "10", "100")
    (records.root.pushed / "100").rmdir()
    assert resolved(records) == {key: [] for key in TYPES}


def test_what_was_deleted_is_left_out(records):
    made = push(records, "r1", "10", "100")
    made["statistics"].state = mlmd.Artifact.DELETED
    records.store.put_artifacts([made["statistics"]])
    found = resolved(records)
    assert found["statistics"] == []
    assert found["evaluation"] == [made["evaluation"].id]


def test_versions_of_one_model_are_known_by_its_identity(records):
    for run_id, version, identity in (("r1", "100", "a"), ("r2", "200", "b"), ("r3", "300", "a")):
        made = push(records, run_id, version[:2], version)
        made["pushed_model"].custom_properties[lineage.IDENTITY].string_value = identity
        records.store.put_artifacts([made["pushed_model"]])
    found = versions_by_identity(records.store)
    assert {identity: sorted(of) for identity, of in found.items()} == {
        "a": ["100", "300"],
        "b": ["200"],
    }


def test_a_version_without_artifacts_is_unknown_but_not_an_error():
    live = monitor.live_from("100", {"100"}, INPUTS, None, None, None, None)
    assert (live.version, live.aliases) == ("100", {"100"})
    assert live.profile is live.reference is live.as_of is live.labels_until is None
    assert not live.shapes and not live.promise.metrics


@pytest.mark.parametrize("model", ["challenger", ""])
def test_the_promise_is_what_the_evaluator_measured(monkeypatch, tmp_path, model):
    """Without a champion, TFMA gives the only model no name."""
    bins = [
        {"low": low, "high": high, "frauds": 1, "genuine": i, "mean_score": None}
        for i, (low, high) in enumerate(zip(curves.EDGES, curves.EDGES[1:], strict=False))
    ]
    other = {"champion": {"bins": [{"frauds": 9, "genuine": 9}]}} if model else {}
    (tmp_path / "curves.json").write_text(json.dumps({model: {"bins": bins}, **other}))
    evaluated = artifacts.Evaluation(
        metrics={"overall": {"average_precision": 0.7}, "slices": {"C=a": {"roc_auc": 0.9}}},
        champion={},
        intervals={"overall": {"average_precision": (0.6, 0.8)}, "slices": {"C=a": {}}},
    )
    monkeypatch.setattr(artifacts.Evaluation, "read", lambda artifact: evaluated)
    promise = monitor.promise_of(mlmd.Artifact(uri=str(tmp_path)), 7)
    assert promise.metrics == {"average_precision": 0.7}
    assert promise.intervals == {"average_precision": (0.6, 0.8)}
    assert promise.slices == {"C=a": {"roc_auc": 0.9}}
    assert promise.score_counts == tuple(range(1, len(curves.EDGES)))
    assert promise.days == 7


def test_looks_are_no_runs_and_are_kept(records):
    push(records, "r1", "10", "100")
    folder = records.root.artifacts / "Monitor" / "observation" / "1"
    folder.mkdir(parents=True)
    seen = records.artifact("fraud.Observation", str(folder))
    records.node(f"{lineage.MONITOR_RUN}1", "Monitor", {}, {"observation": seen})
    assert lineage.runs(records.store) == ["r1"]
    assert [a.id for a in lineage.observations(records.store)] == [seen.id]
    planned = pruning.plan(records.root, records.store, keep=1, reference_run=None)
    assert seen.id not in {a.id for a in planned.artifacts}
    assert not [path for path in planned.leftovers if "Monitor" in str(path)]

"""Which statistics drift is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.types.standard_artifacts import ExampleStatistics

from fraud.errors import BadInput
from fraud.pipeline import lineage
from fraud.pipeline.components.champion import ChampionStatistics, ReferenceStatistics


def statistics(*ids: int) -> list[ExampleStatistics]:
    made = []
    for number in ids:
        artifact = ExampleStatistics()
        artifact.id = number
        made.append(artifact)
    return made


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The ids that a strategy resolves in a root with three pushes, in a run with statistics 9."""

    def of_run(store: Any, run_id: str, type_name: str) -> list[mlmd.Artifact]:
        by_run = {"r1": 1, "r2": 2, "stopped": 3, "r4": 9, "gone": 5}
        return [mlmd.Artifact(id=by_run[run_id])] if run_id in by_run else []

    def ids(strategy: Any, pushes: Sequence[str] = ("r4", "r2", "r1")) -> list[int]:
        versions = range(len(pushes), 0, -1)
        champions = [
            lineage.Champion(mlmd.Artifact(), str(version), version, run)
            for version, run in zip(versions, pushes, strict=True)
        ]
        monkeypatch.setattr(lineage, "pushes", lambda store: iter(champions))
        # The first version's folder is gone, as after `prune`.
        monkeypatch.setattr(lineage, "champions", lambda store: iter(champions[:-1]))
        monkeypatch.setattr(lineage, "artifacts_of_run", of_run)
        given = {"statistics": statistics(9), "baseline": statistics(1, 2, 3, 9)}
        found = strategy.resolve_artifacts(None, {**given, "pushed_model": []})
        return [artifact.id for artifact in found["baseline"]]

    return ids


def test_the_champions_statistics_are_the_newest_of_other_data(resolved: Any) -> None:
    assert resolved(ChampionStatistics()) == [2]


def test_the_reference_stays_with_the_first_push(resolved: Any) -> None:
    assert resolved(ReferenceStatistics("")) == [1]
    assert resolved(ReferenceStatistics(""), []) == []


def test_deleted_statistics_of_the_reference_are_an_error(resolved: Any) -> None:
    with pytest.raises(BadInput, match="the statistics of run gone, the reference for drift, were"):
        resolved(ReferenceStatistics("gone"))


def test_the_data_of_a_run_is_not_its_own_reference(resolved: Any) -> None:
    assert resolved(ReferenceStatistics(""), ["r4"]) == []


def test_a_configured_run_is_the_reference_even_if_it_pushed_nothing(resolved: Any) -> None:
    assert resolved(ReferenceStatistics("stopped")) == [3]


def test_a_configured_run_that_does_not_exist_is_refused(resolved: Any) -> None:
    with pytest.raises(BadInput, match=r"data_gate\.reference_run: run 'typo' has no statistics"):
        resolved(ReferenceStatistics("typo"))

"""What `prune` deletes and keeps, that the root works afterwards, and that a kill does no harm."""

from __future__ import annotations

import json
import os
from datetime import date, timedelta
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.errors import BadInput, FraudPipelineError
from fraud.monitoring.journal import Entry, Journal, Training
from fraud.pipeline import cli, lineage, pruning, releases, verification
from fraud.pipeline.artifacts import value
from fraud.pipeline.commands import prune, schema, verify
from fraud.pipeline.config import Config
from fraud.pipeline.runners import launch
from tests.pipeline.release_graph import NODES, Bank, outcome


@pytest.fixture
def bank(tmp_path) -> Bank:
    """A root with four runs, of days 1 to 4; each pushed a version."""
    bank = Bank(tmp_path)
    for day in "1234":
        bank.run(day, f"weights {day}", as_of=day)
    return bank


def state(artifact) -> str:
    return mlmd.Artifact.State.Name(artifact.state)


def of_run(bank: Bank, run_id: str) -> dict[str, mlmd.Artifact]:
    """The artifacts of a run by type."""
    records = lineage.nodes(bank.store, run_id).values()
    return {a.type: a for r in records for outputs in r.outputs.values() for a in outputs}


def states(bank: Bank, run_id: str) -> set[str]:
    """The states of a run's artifacts, which agree with the disk."""
    found = of_run(bank, run_id).values()
    for artifact in found:
        assert Path(artifact.uri).is_dir() == (artifact.state == mlmd.Artifact.LIVE)
    return {state(artifact) for artifact in found}


def kept_versions(bank: Bank) -> list[str]:
    return [push.version for push in lineage.pushes(bank.store) if push.is_kept][::-1]


def problems(bank: Bank) -> list[str]:
    return [one["problem"] for one in verify.verify(Config(), bank.root, repair=False)["findings"]]


def pruned(bank: Bank, keep: int = 1, config: Config | None = None, dry_run: bool = False) -> dict:
    return prune.prune(config or Config(), bank.root, keep, dry_run)


def test_the_last_runs_the_live_version_and_the_one_before_stay(bank):
    *_, third, live = bank.versions()
    document = pruned(bank)
    assert document["runs"] == ["3", "4"]
    assert document["versions"] == [third, live] == kept_versions(bank)
    assert sorted(os.listdir(bank.root.pushed)) == [third, live]
    assert states(bank, "3") == states(bank, "4") == {"LIVE"}
    # The reference for drift, and what the model of run 3 was compared with.
    for run_id, kept in (("1", "ExampleStatistics"), ("2", "Model")):
        assert states(bank, run_id) == {"LIVE", "DELETED"}
        assert [t for t, a in of_run(bank, run_id).items() if state(a) == "LIVE"] == [kept]
    assert problems(bank) == []
    assert releases.disagreements(bank.root, list(lineage.pushes(bank.store))) == ()
    again = pruned(bank)
    assert (again["deleted"], again["freed"]) == ([], 0)


def test_models_that_the_loop_refused_lately_stay(bank):
    refused = Training("not_blessed", "2", ("worse",), model="somewhere")
    day = date(2026, 3, 1)
    journal = Journal(bank.root.path / "loop")
    journal.write(Entry(day, training=refused))
    journal.write(Entry(day + timedelta(29)))
    assert pruned(bank)["runs"] == ["2", "3", "4"]
    assert states(bank, "2") == {"LIVE"}
    journal.write(Entry(day + timedelta(30)))
    assert pruned(bank)["runs"] == ["3", "4"]


def test_a_root_works_after_pruning(bank):
    pruned(bank)
    # What the cache has of run 2 is not whole, so its model is trained again. It is a replay.
    before = of_run(bank, "2")["Model"].id
    again = bank.run("2-again", "weights 2", as_of="2")
    assert of_run(bank, "2-again")["Model"].id > before
    assert outcome(again)[0] == "replay"
    # Run 4 still has everything in the cache; its model is live and was compared with the third.
    repeated = bank.run("4-again", "weights 4", as_of="4")
    assert value(repeated, "pushed_version") == kept_versions(bank)[-1]
    assert {r.state for r in lineage.nodes(bank.store, "4-again").values()} == {
        "CACHED",
        "COMPLETE",  # the resolver
    }
    assert outcome(bank.run("5", "weights 5", as_of="5"))[0] == "pushed"
    champion = value(of_run(bank, "5")["ModelBlessing"], "baseline_model_id")
    assert champion == of_run(bank, "4")["Model"].id
    with bank.root.pushing():
        assert bank.live()[1] == "weights 5"
        releases.roll_back(bank.root, bank.store, None, "test")
        assert bank.live()[1] == "weights 4"
    pruned(bank)
    assert bank.live()[1] == "weights 4"
    with bank.root.pushing():
        releases.roll_back(bank.root, bank.store, None, "test")
    assert bank.live()[1] == "weights 3"
    assert problems(bank) == []


def test_a_rollback_to_a_deleted_version_says_so(bank):
    first = bank.versions()[0]
    pruned(bank)
    with bank.root.pushing(), pytest.raises(BadInput, match="its files were deleted"):
        releases.roll_back(bank.root, bank.store, first, "test")
    assert bank.live()[1] == "weights 4"


def test_what_the_last_runs_took_from_the_cache_stays(tmp_path):
    other = Bank(tmp_path)
    other.run("1", "a")
    other.run("2", "a")
    for weights in "bcd":
        other.run(weights, weights)
    first = other.versions()[0]
    assert pruned(other, keep=4)["runs"] == ["1", "2", "b", "c", "d"]
    assert kept_versions(other)[0] == first
    assert states(other, "1") == {"LIVE"}
    assert pruned(other, keep=3)["runs"] == ["b", "c", "d"]


def test_the_configured_reference_stays_as_well(bank):
    config = _with_reference("2")
    pruned(bank, config=config)
    for run_id in "12":
        assert state(of_run(bank, run_id)["ExampleStatistics"]) == "LIVE"
        assert state(of_run(bank, run_id)["Examples"]) == "DELETED"


def _with_reference(run_id: str) -> Config:
    from dataclasses import replace

    config = Config()
    return replace(config, data_gate=replace(config.data_gate, reference_run=run_id))


def tree(bank: Bank) -> set[Path]:
    return {path for path in bank.root.path.rglob("*") if path.name != ".lock"}


def test_a_dry_run_prints_the_same_and_does_nothing(bank, capsys):
    own = ["--root", str(bank.root.path), "--keep", "1"]
    before = tree(bank)
    assert cli.main(["prune", "--dry-run", *own]) == 0
    announced = capsys.readouterr().out
    assert tree(bank) == before
    assert cli.main(["prune", "--json", "--dry-run", *own]) == 0
    document = json.loads(capsys.readouterr().out)
    used = sum(p.stat().st_size / p.stat().st_nlink for p in before if _is_output(bank, p))
    assert cli.main(["prune", *own]) == 0
    done = capsys.readouterr().out
    assert announced == done.replace("deleted\n", "would delete\n").replace("freed", "would free")
    left = sum(p.stat().st_size / p.stat().st_nlink for p in tree(bank) if _is_output(bank, p))
    assert document["freed"] == used - left > 0
    assert document["freed"] == sum(one["size"] for one in document["deleted"])
    assert {"what": "versions", "count": 2}.items() <= _named(document, "versions").items()
    assert cli.main(["prune", *own]) == 0
    assert "nothing to delete" in capsys.readouterr().out


def _is_output(bank: Bank, path: Path) -> bool:
    return path.is_file() and not {bank.root.artifacts, bank.root.pushed}.isdisjoint(path.parents)


def _named(document: dict, what: str) -> dict:
    (found,) = [one for one in document["deleted"] if one["what"] == what]
    return found


def test_sizes_are_for_people():
    assert [prune.size(n) for n in (0, 999, 1000, 1_550_000, 2e9, 3e12)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "1.6 MB",
        "2.0 GB",
        "3.0 TB",
    ]


@pytest.mark.parametrize("keep", ["0", "-1", "many"])
def test_at_least_one_run_is_kept(tmp_path, keep):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["prune", "--keep", keep, "--root", str(tmp_path)])
    assert stopped.value.code == 2


def test_an_empty_root_has_nothing_to_delete(tmp_path, capsys):
    assert cli.main(["prune", "--root", str(tmp_path / "none")]) == 0
    assert "nothing to delete" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_nothing_is_pruned_while_a_run_uses_the_root(bank):
    before = tree(bank)
    with bank.root.locked(), pytest.raises(BadInput, match="a run is using this root"):
        pruned(bank)
    with bank.root.turn_of("5", "Train", alone=False), pytest.raises(BadInput, match="a run is"):
        pruned(bank)
    assert before <= tree(bank)


def test_nothing_is_pruned_while_it_is_uncertain_what_is_live(bank):
    bank.root.pushed.rename(bank.root.path / "elsewhere")
    before = tree(bank)
    with pytest.raises(FraudPipelineError, match="uncertain; `fraud-pipeline verify`"):
        pruned(bank)
    assert tree(bank) == before


def test_old_logs_and_leftovers_go(bank):
    for run_id in ("1", "4", "unknown"):
        log = bank.root.log(run_id)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("x" * 100)
        (log.parent / "summary.json").touch()
        os.utime(log, (1, 1))
    young = bank.root.log("just failed before its first node")
    young.parent.mkdir()
    young.touch()
    staged = bank.root.staging / "half"
    staged.mkdir(parents=True)
    unfinished = bank.root.artifacts / "Train/.system/stateful_working_dir/a/b"
    unfinished.mkdir(parents=True)
    own = bank.root.artifacts / "Train/.system/executor_execution"
    for folder in own.iterdir():
        os.utime(folder, (1, 1))
    document = pruned(bank)
    assert _named(document, "logs and leftovers")["size"] == 200
    assert not any(path.exists() for path in (staged, unfinished, bank.root.log("1")))
    assert not bank.root.log("unknown").exists()
    assert list(own.iterdir()) == []
    assert young.exists()
    assert bank.root.log("4").exists()
    assert (bank.root.run("1") / "summary.json").exists()


class Killed(BaseException):
    """Ends a pruning where it stands."""


POINTS = {
    "marked": (pruning, "complete", 0),
    "a folder deleted": (pruning, "remove", 3),
    "a version withdrawn": (releases, "withdraw", 1),
    "all deleted": (pruning, "_record", 1),
}


def interrupt(bank: Bank, point: str) -> None:
    """Prunes until a function is called for the n-th time."""
    module, name, number = POINTS[point]
    original, calls = getattr(module, name), iter(range(1000))

    def counted(*arguments):
        is_leftover = name == "remove" and ".system" in arguments[0].parts
        if not is_leftover and next(calls) == number:
            raise Killed
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Killed):
        patched.setattr(module, name, counted)
        pruned(bank)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("then", ["prune", "verify --repair", "run"])
def test_an_interrupted_pruning_is_completed(bank, point, then, capsys):
    versions = bank.versions()
    interrupt(bank, point)
    assert bank.live()[1] == "weights 4"
    assert state(of_run(bank, "1")["PushedModel"]) == "MARKED_FOR_DELETION"
    (problem,) = problems(bank)
    assert problem.startswith("pruning was interrupted: ")
    disagreements = releases.disagreements(bank.root, list(lineage.pushes(bank.store)))
    assert all("recorded it as deleted" in problem for problem in disagreements)
    with bank.root.pushing():
        pushes = list(lineage.pushes(bank.store))
        target = releases.to_restore(pushes, next(lineage.champions(bank.store)), None)
    assert target.version == versions[2]
    if then == "run":
        verification.remove_leftovers(bank.root, bank.store)
    else:
        assert cli.main([*then.split(), "--root", str(bank.root.path)]) == 0
        assert ("deleted\n" if then == "prune" else "repaired: deleted") in capsys.readouterr().out
    assert states(bank, "1") == {"DELETED", "LIVE"}
    assert kept_versions(bank) == sorted(os.listdir(bank.root.pushed)) == versions[2:]
    assert problems(bank) == []


def test_a_run_between_interruption_and_completion_takes_nothing_that_is_going(bank):
    interrupt(bank, "a folder deleted")
    graph = bank.graph("2-again", "weights 2", as_of="2")
    records = [launch.run_node(graph, node) for node in NODES]
    assert [record.state for record in records] == ["COMPLETE"] * len(NODES)


def test_what_is_outside_the_root_is_left_alone(bank, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    model = of_run(bank, "1")["Model"]
    model.uri = str(elsewhere)
    bank.store.put_artifacts([model])
    pruned(bank)
    assert elsewhere.exists()
    assert state(of_run(bank, "1")["Model"]) == "LIVE"


def test_a_folder_of_a_deleted_version_that_comes_back_is_named(bank):
    first = bank.versions()[0]
    pruned(bank)
    (bank.root.pushed / first).mkdir()
    (problem,) = problems(bank)
    assert problem == f"{bank.root.pushed / first}: recorded as deleted"
    (problem,) = releases.disagreements(bank.root, list(lineage.pushes(bank.store)))
    assert "recorded it as deleted" in problem


def test_the_schema_is_compared_with_statistics_that_are_left(bank):
    newest = of_run(bank, "4")["ExampleStatistics"]
    newest.state = mlmd.Artifact.DELETED
    bank.store.put_artifacts([newest])
    (file,) = schema._last_statistics(Config(), bank.root).values()
    assert Path(of_run(bank, "3")["ExampleStatistics"].uri) in file.parents


def test_a_push_takes_the_space_of_two_models_not_of_three(bank):
    model, pushed = of_run(bank, "4")["Model"], of_run(bank, "4")["PushedModel"]
    name = "variables/variables.index"
    trained = Path(model.uri, "Format-Serving", name)
    assert os.path.samefile(trained, Path(pushed.uri, name))
    assert (bank.root.pushed / value(pushed, "pushed_version") / name).stat().st_nlink == 1

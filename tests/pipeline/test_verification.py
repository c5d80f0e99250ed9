"""What `verify` finds, what it repairs, and what it leaves to people."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.errors import BadInput
from fraud.files import digest
from fraud.pipeline import cli, lineage, releases, verification
from fraud.pipeline.artifacts import value
from fraud.pipeline.commands import verify
from fraud.pipeline.config import Config
from tests.pipeline.release_graph import Bank


@pytest.fixture
def bank(tmp_path) -> Bank:
    """A root with two versions."""
    bank = Bank(tmp_path)
    bank.run("1", "a")
    bank.run("2", "b")
    return bank


def check(bank: Bank, repair: bool = False) -> list[dict]:
    return verify.verify(Config(), bank.root, repair)["findings"]


def repaired(bank: Bank, problem: str) -> str:
    """Repairs the only finding, which mentions `problem`, and checks that nothing is left."""
    (found,) = check(bank)
    assert problem in found["problem"]
    assert found["repaired"] is None
    (done,) = check(bank, repair=True)
    assert done["repaired"]
    assert check(bank) == []
    return done["repaired"]


def unrepaired(bank: Bank, problem: str) -> None:
    """Checks that the only finding mentions `problem`, stays, and comes with advice."""
    for repair in (False, True):
        (found,) = check(bank, repair)
        assert problem in found["problem"]
        assert found["repaired"] is None
        assert found["advice"]


def test_a_root_is_clean_after_runs_and_before_any(bank, tmp_path, capsys):
    assert check(bank) == []
    assert cli.main(["verify", "--root", str(bank.root.path)]) == 0
    assert capsys.readouterr().out == f"{bank.root.path}: clean\n"
    assert cli.main(["verify", "--root", str(tmp_path / "empty"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clean"] is True
    assert not (tmp_path / "empty").exists()


def test_the_exit_code_says_whether_anything_is_left(bank, capsys):
    (bank.root.staging / "half").mkdir(parents=True)
    own = ["--root", str(bank.root.path)]
    assert cli.main(["verify", *own]) == 1
    assert "to do: fraud-pipeline verify --repair" in capsys.readouterr().out
    assert cli.main(["verify", "--repair", *own]) == 0
    assert "repaired: removed its unfinished copy" in capsys.readouterr().out
    (bank.root.pushed / "7").mkdir()
    assert cli.main(["verify", "--repair", *own]) == 1


def test_a_damaged_version_is_replaced_by_its_copy(bank):
    live, _ = bank.live()
    file = bank.root.pushed / live / "saved_model.pb"
    before = digest(file.parent)
    file.write_text("x")
    repaired(bank, f"{file.parent}: not the files that were pushed")
    assert digest(file.parent) == before
    (file.parent / "extra").touch()
    repaired(bank, "not the files that were pushed")


def test_a_version_whose_copy_is_damaged_too_is_left_to_people(bank):
    live = next(lineage.champions(bank.store))
    for folder in (bank.root.pushed / live.version, Path(live.pushed.uri)):
        (folder / "saved_model.pb").write_text("x")  # and, as it is the same file, the model
    for repair in (False, True):
        version, model = check(bank, repair)
        assert "not the files that were pushed" in version["problem"]
        assert "not the model that was pushed" in model["problem"]
        assert not version["repaired"] and not model["repaired"]


def forget_copies(bank: Bank, version: str) -> None:
    """Damages the copies of a version among the artifacts, which keeps them in place."""
    (push,) = [push for push in lineage.pushes(bank.store) if push.version == version]
    (model,) = bank.store.get_artifacts_by_id([push.model_id])
    for folder in (Path(push.pushed.uri), lineage.model_folder(model)):
        (folder / "saved_model.pb").unlink()
        (folder / "saved_model.pb").write_text("x")


def remaining(bank: Bank, problem: str) -> str:
    """Repairs what can be, and checks that what mentions `problem` was; what was done."""
    (done,) = [found for found in check(bank, repair=True) if problem in found["problem"]]
    assert done["repaired"]
    return done["repaired"]


def test_a_version_that_was_removed_by_hand_is_restored_from_its_copy(bank):
    live, weights = bank.live()
    before = digest(bank.root.pushed / live)
    shutil.rmtree(bank.root.pushed / live)
    done = repaired(bank, f"version {live}: recorded, but")
    assert "restored from the intact copy" in done
    assert done.endswith("the version is there again and is live")
    assert bank.live() == (live, weights)
    assert digest(bank.root.pushed / live) == before


def test_a_version_that_a_rollback_made_is_restored_from_the_one_it_restored(bank):
    first, _ = bank.versions()
    with bank.root.pushing():
        release = releases.roll_back(bank.root, bank.store, None, "bad")
    shutil.rmtree(bank.root.pushed / release.version)
    forget_copies(bank, first)
    done = remaining(bank, f"version {release.version}: recorded, but")
    assert f"restored from the intact copy {bank.root.pushed / first}" in done
    assert bank.live() == (release.version, "a")


def test_a_version_of_which_nothing_is_left_is_recorded_as_deleted(bank):
    live, _ = bank.live()
    shutil.rmtree(bank.root.pushed / live)
    forget_copies(bank, live)
    (before,) = releases.disagreements(bank.root, list(lineage.pushes(bank.store)))
    assert "the folder is missing" in before
    assert "as deleted" in remaining(bank, f"version {live}: recorded, but")
    assert releases.disagreements(bank.root, list(lineage.pushes(bank.store))) == ()
    assert bank.live()[1] == "a"
    assert check(bank) == []


def test_a_version_that_comes_back_as_it_was_is_live_again(bank):
    live, _ = bank.live()
    (bank.root.pushed / live).rename(bank.root.path / "away")
    forget_copies(bank, live)
    remaining(bank, f"version {live}: recorded, but")
    (bank.root.path / "away").rename(bank.root.pushed / live)
    # And then the model, which is restored from it.
    version, model = check(bank, repair=True)
    problem = f"{live}: recorded as deleted, but its files are back, as they were pushed"
    assert problem in version["problem"]
    assert "not the model that was pushed" in model["problem"]
    assert version["repaired"] and model["repaired"]
    assert check(bank) == []
    assert bank.live() == (live, "b")


def test_a_version_that_comes_back_changed_stays_deleted(bank):
    live, _ = bank.live()
    (bank.root.pushed / live).rename(bank.root.path / "away")
    forget_copies(bank, live)
    remaining(bank, f"version {live}: recorded, but")
    (bank.root.path / "away").rename(bank.root.pushed / live)
    (bank.root.pushed / live / "saved_model.pb").write_text("x")
    unrepaired(bank, f"{live}: recorded as deleted")


def test_a_push_folder_that_is_not_mounted_is_no_reason_to_forget_all(bank):
    bank.root.pushed.rename(bank.root.path / "elsewhere")
    for found in check(bank, repair=True):
        assert found["repaired"] is None
        assert "mounted?" in found["advice"]
    (bank.root.path / "elsewhere").rename(bank.root.pushed)
    assert check(bank) == []


def test_a_folder_that_was_added_by_hand_stays(bank):
    (bank.root.pushed / "9999999999").mkdir()
    unrepaired(bank, "9999999999: ML Metadata has no record of it")
    assert (bank.root.pushed / "9999999999").exists()


def test_a_journal_that_knows_more_than_ml_metadata_deletes_nothing(bank):
    last = releases.journal(bank.root)[-1]
    shutil.copytree(bank.root.pushed / last.version, bank.root.pushed / "1999999999")
    releases._write(bank.root, replace(last, version="1999999999"))
    unrepaired(bank, "version 1999999999: in ")
    with bank.root.pushing():
        assert releases.recover(bank.root, bank.store) == []
    assert (bank.root.pushed / "1999999999").exists()


def test_an_interrupted_push_is_undone(bank):
    last = releases.journal(bank.root)[-1]
    shutil.copytree(bank.root.pushed / last.version, bank.root.pushed / "1999999999")
    releases._write(bank.root, replace(last, version="1999999999", state="prepared"))
    assert "was removed" in repaired(bank, "a push or rollback was interrupted: 1999999999")
    assert not (bank.root.pushed / "1999999999").exists()
    assert releases.journal(bank.root)[-1].state == "undone"


def test_a_damaged_entry_of_the_journal_is_named(bank, capsys):
    (bank.root.releases / "3.json").write_text("{")
    assert cli.main(["verify", "--root", str(bank.root.path)]) == 1
    assert "3.json: not an entry of the journal" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["../artifacts", "", "98"])
def test_an_entry_of_another_version_than_its_file_touches_nothing(bank, capsys, version):
    entry = {"kind": "push", "model_id": 1, "version": version, "state": "prepared"}
    (bank.root.releases / "99.json").write_text(json.dumps(entry))
    before = digest(bank.root.pushed), digest(bank.root.artifacts)
    for command in (["verify", "--repair"], ["rollback", "--reason", "bad"]):
        assert cli.main([*command, "--root", str(bank.root.path)]) == 1
        assert "99.json: not an entry of the journal: it is of version" in capsys.readouterr().err
    assert (digest(bank.root.pushed), digest(bank.root.artifacts)) == before


def test_a_repair_for_which_there_is_no_space_says_so(bank, capsys, monkeypatch):
    live, _ = bank.live()
    shutil.rmtree(bank.root.pushed / live)

    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copytree", full)
    assert cli.main(["verify", "--repair", "--root", str(bank.root.path)]) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said and "verify again" in said
    assert len(said.splitlines()) == 1


def test_an_artifact_without_files_is_recorded_as_deleted(bank):
    blessing = bank.store.get_artifacts_by_type("ModelBlessing")[0]
    Path(blessing.uri).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(blessing.uri)
    repaired(bank, f"{blessing.uri}: recorded as ModelBlessing {blessing.id}, but missing")
    (after,) = bank.store.get_artifacts_by_id([blessing.id])
    assert after.state == mlmd.Artifact.DELETED


@pytest.mark.parametrize("come_back", ["as they were", "changed", "unknown"])
def test_files_that_come_back_are_recorded_as_kept_if_they_are_the_same(bank, come_back):
    (*_, statistics) = bank.store.get_artifacts_by_type("ExampleStatistics")
    folder, away = Path(statistics.uri), bank.root.path / "away"
    folder.rename(away)
    repaired(bank, f"{folder}: recorded as ExampleStatistics {statistics.id}, but missing")
    away.rename(folder)
    problem = f"{folder}: recorded as deleted, but there are files"
    if come_back == "as they were":
        repaired(bank, f"{problem}, as they were written")
        (after,) = bank.store.get_artifacts_by_id([statistics.id])
        assert after.state == mlmd.Artifact.LIVE
        return
    if come_back == "changed":
        (folder / "statistics").write_text("x")
    else:
        (known,) = bank.store.get_artifacts_by_id([statistics.id])
        del known.custom_properties[lineage.DIGEST]
        bank.store.put_artifacts([known])
    unrepaired(bank, problem)


@pytest.mark.parametrize("damage", ["gone", "half", "changed"])
def test_the_model_of_a_version_is_restored_from_the_version(bank, damage):
    champion = next(lineage.champions(bank.store))
    (model,) = bank.store.get_artifacts_by_id([champion.model_id])
    folder = lineage.model_folder(model)
    before = digest(model.uri)
    if damage == "changed":
        (folder / "saved_model.pb").unlink()
        (folder / "saved_model.pb").write_text("x")
    else:
        shutil.rmtree(model.uri if damage == "gone" else folder)
    what = "missing" if damage == "gone" else "not the model that was pushed"
    repaired(bank, f"{model.uri}: recorded as Model {model.id}, but {what}")
    assert digest(model.uri) == before


def test_the_model_of_a_version_is_never_recorded_as_deleted(bank):
    """Without it, no later model could be compared with the version."""
    champion = next(lineage.champions(bank.store))
    (model,) = bank.store.get_artifacts_by_id([champion.model_id])
    shutil.rmtree(model.uri)
    shutil.rmtree(champion.pushed.uri)
    (bank.root.pushed / champion.version / "saved_model.pb").write_text("x")
    damaged, found = check(bank, repair=True)
    assert "not the files that were pushed" in damaged["problem"]
    assert found["repaired"] is None
    assert f"compared with version {champion.version}" in found["advice"]
    (after,) = bank.store.get_artifacts_by_id([model.id])
    assert after.state == mlmd.Artifact.LIVE


def test_artifacts_that_are_not_mounted_are_no_reason_to_forget_all(bank):
    away = bank.root.path / "away"
    bank.root.artifacts.rename(away)
    bank.root.artifacts.mkdir()
    findings = check(bank, repair=True)
    assert findings
    for found in findings:
        assert found["repaired"] is None
        assert "mounted?" in found["advice"]
    bank.root.artifacts.rmdir()
    away.rename(bank.root.artifacts)
    assert check(bank) == []


def test_a_root_without_ml_metadata_is_not_clean(bank, capsys):
    live, _ = bank.live()
    bank.root.metadata.unlink()
    unrepaired(bank, "metadata.sqlite: missing, although there are versions: ")
    assert not bank.root.metadata.exists()
    assert cli.main(["verify", "--root", str(bank.root.path)]) == 1
    assert cli.main(["status", "--root", str(bank.root.path)]) == 0
    said = capsys.readouterr().out
    assert f"{live}: ML Metadata has no record of it" in said
    assert "a server takes it" in said


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_root_that_is_elsewhere_now_works_there(bank, tmp_path_factory, how, capsys):
    there = tmp_path_factory.mktemp("elsewhere") / "root"
    shutil.copytree(bank.root.path, there)
    if how == "moved":
        shutil.rmtree(bank.root.path)
    before = {path: path.stat().st_mtime_ns for path in bank.root.path.rglob("*")}
    elsewhere = Bank(there)
    assert cli.main(["status", "--root", str(there)]) == 0
    said = capsys.readouterr().out
    assert "live      version" in said
    assert f"recorded in {bank.root.path}" in said
    # Nothing reads or deletes what is recorded in the other place.
    with pytest.raises(BadInput, match="it was moved or copied"):
        verification.remove_leftovers(elsewhere.root, elsewhere.store)
    assert cli.main(["prune", "--root", str(there)]) == 2
    assert "`fraud-pipeline verify --repair` records where it is now" in capsys.readouterr().err
    (found,) = check(elsewhere)
    assert f"recorded in {bank.root.path}: it was moved or copied" in found["problem"]
    done, *others = check(elsewhere, repair=True)
    assert done["repaired"]
    assert others == []
    assert check(elsewhere) == []
    verification.remove_leftovers(elsewhere.root, elsewhere.store)
    # A model is compared with the champion, as ever.
    assert value(elsewhere.run("3", "c"), "outcome") == "pushed"
    assert elsewhere.live()[1] == "c"
    with elsewhere.root.pushing():
        releases.roll_back(elsewhere.root, elsewhere.store, None, "bad")
    assert elsewhere.live()[1] == "b"
    # The original is as it was.
    assert {path: path.stat().st_mtime_ns for path in bank.root.path.rglob("*")} == before


def running(bank: Bank) -> int:
    """Adds an execution that is recorded as running; its id."""
    (like, *_) = lineage.executions(bank.store, "2", "Train")
    contexts = bank.store.get_contexts_by_execution(like.id)
    dead = mlmd.Execution(type_id=like.type_id, last_known_state=mlmd.Execution.RUNNING)
    return bank.store.put_execution(dead, [], contexts)[0]


def test_an_execution_that_nobody_runs_and_its_files_are_removed(bank):
    number = running(bank)
    left = [
        bank.root.artifacts / "Train" / "model" / str(number) / "half",
        bank.root.artifacts / "Train" / ".system" / "executor_execution" / str(number) / ".temp/x",
        bank.root.run("2") / ".summary.json.123",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    kept = {path for path in bank.root.artifacts.rglob("*") if path not in left}
    problems = " ".join(found["problem"] for found in check(bank))
    assert f"recorded as running, but no process is: execution {number}" in problems
    assert all(found["repaired"] for found in check(bank, repair=True))
    assert check(bank) == []
    assert not any(path.exists() for path in left)
    gone = {path for path in kept if not path.exists()}
    assert all(str(number) in path.parts or path.name == ".temp" for path in gone)
    (after,) = bank.store.get_executions_by_id([number])
    assert after.last_known_state == mlmd.Execution.CANCELED


def test_what_a_run_is_using_is_not_judged(bank, capsys):
    number = running(bank)
    with bank.root.locked():
        assert check(bank, repair=True) == []
        assert cli.main(["verify", "--root", str(bank.root.path)]) == 0
        assert "a run is using this root" in capsys.readouterr().out
    (after,) = bank.store.get_executions_by_id([number])
    assert after.last_known_state == mlmd.Execution.RUNNING
    assert check(bank)


def test_ml_metadata_has_the_digest_of_each_version(bank):
    for push in lineage.pushes(bank.store):
        assert value(push.pushed, "digest") == digest(bank.root.pushed / push.version)

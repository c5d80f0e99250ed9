"""What `verify` finds, what it repairs, and what it leaves to people."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.files import digest
from fraud.pipeline import cli, lineage, releases
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
        (folder / "saved_model.pb").write_text("x")
    unrepaired(bank, "not the files that were pushed")


def test_a_version_that_was_removed_by_hand_is_recorded_as_deleted(bank):
    live, _ = bank.live()
    shutil.rmtree(bank.root.pushed / live)
    (before,) = releases.disagreements(bank.root, list(lineage.pushes(bank.store)))
    assert "the folder is missing" in before
    repaired(bank, f"version {live}: recorded, but")
    assert releases.disagreements(bank.root, list(lineage.pushes(bank.store))) == ()
    assert bank.live()[1] == "a"


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


def test_an_artifact_without_files_is_recorded_as_deleted(bank):
    blessing = bank.store.get_artifacts_by_type("ModelBlessing")[0]
    Path(blessing.uri).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(blessing.uri)
    repaired(bank, f"{blessing.uri}: recorded as ModelBlessing {blessing.id}, but missing")
    (after,) = bank.store.get_artifacts_by_id([blessing.id])
    assert after.state == mlmd.Artifact.DELETED


def test_the_model_of_a_version_is_never_recorded_as_deleted(bank):
    """Without it, no later model could be compared with the version."""
    champion = next(lineage.champions(bank.store))
    (model,) = bank.store.get_artifacts_by_id([champion.model_id])
    shutil.rmtree(model.uri)
    (found,) = check(bank, repair=True)
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

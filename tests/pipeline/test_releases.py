"""A push happens exactly once and whole, only if it may, and can be taken back."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud import files
from fraud.errors import BadInput, FraudPipelineError
from fraud.models.entry_point import NETWORK_FILE, THRESHOLD_FILE
from fraud.models.specification import EXTRA, SPECIFICATION_FILE
from fraud.models.warmup import WARMUP_FILE
from fraud.pipeline import cli, lineage, releases, verification
from fraud.pipeline.artifacts import value
from fraud.pipeline.commands import status, verify
from fraud.pipeline.components import champion_inputs
from fraud.pipeline.config import Config
from fraud.pipeline.lineage import Champion
from fraud.pipeline.releases import Challenger, Decision
from fraud.pipeline.runners import launch
from tests.pipeline.release_graph import Bank, outcome
from tests.small_disk import mounted

REPOSITORY = Path(__file__).resolve().parents[2]


def version(number: int, model: int, restored: int | None = None) -> Champion:
    pushed = mlmd.Artifact(state=mlmd.Artifact.LIVE)
    return Champion(pushed, str(number), model, "run", str(restored) if restored else None)


def decide(
    pushes, model=9, as_of="", blessed=True, judged_against=0, identity="", **more
) -> Decision:
    """What is decided about a model; it is another one than any before unless `model` is theirs."""
    challenger = Challenger(model, identity or f"model {model}", as_of, blessed, judged_against)
    there = [push for push in pushes if push.is_kept]
    return releases.decide(challenger, pushes, there, **more)


# What may be pushed


def rolled_back(pushes, *models: int) -> list[bool]:
    return [releases.is_rolled_back(pushes, f"model {model}") for model in models]


def test_the_first_model_is_pushed_if_it_is_blessed():
    assert decide([]) == Decision("pushed")
    assert decide([], blessed=False) == Decision("not_blessed")


def test_a_model_that_was_compared_with_the_live_one_is_pushed():
    assert decide([version(5, 1)], judged_against=1) == Decision("pushed")
    assert decide([version(5, 1)], judged_against=1, blessed=False).outcome == "not_blessed"


@pytest.mark.parametrize("as_of", ["2026-03-14", "2026-03-21"])
def test_a_day_that_is_not_later_is_a_replay(as_of):
    found = decide([version(5, 1)], as_of=as_of, judged_against=1, live_as_of="2026-03-21")
    assert found.outcome == "replay"
    assert "live version 5 is as of 2026-03-21" in found.reason


def test_a_replay_is_pushed_on_request_which_is_recorded():
    days = {"as_of": "2026-03-14", "live_as_of": "2026-03-21"}
    found = decide([version(5, 1)], judged_against=1, push_replays=True, **days)
    assert found.outcome == "pushed"
    assert "replay: as of 2026-03-14" in found.reason
    found = decide([version(5, 1)], judged_against=1, push_replays=True, blessed=False, **days)
    assert found.outcome == "not_blessed"


def test_a_later_day_and_a_day_that_is_not_known_are_no_replays():
    live = [version(5, 1)]
    assert decide(live, as_of="2026-03-22", judged_against=1, live_as_of="2026-03-21").outcome == (
        "pushed"
    )
    assert decide(live, as_of="2026-03-22", judged_against=1).outcome == "pushed"
    assert decide(live, judged_against=1, live_as_of="2026-03-21").outcome == "pushed"


def test_a_champion_that_changed_since_the_evaluation_is_not_replaced():
    found = decide([version(6, 2), version(5, 1)], judged_against=1)
    assert found.outcome == "not_pushed"
    assert "champion changed: version 6" in found.reason


def test_a_champion_that_was_not_judged_is_replaced_only_on_request():
    assert decide([version(5, 1)]).outcome == "not_pushed"
    found = decide([version(5, 1)], accept_unjudged_champion=True)
    assert found == Decision("pushed", "not compared with live version 5")


def test_nothing_is_pushed_while_no_version_is_in_the_push_folder():
    """It may not be mounted; then the challenger was compared with nothing."""
    challenger = Challenger(9, "model 9", "", True, 0)
    pushes = [version(6, 2), version(5, 1)]
    found = releases.decide(challenger, pushes, [])
    assert found.outcome == "not_pushed"
    assert "no recorded version is in the push folder" in found.reason
    found = releases.decide(challenger, pushes, [], accept_unjudged_champion=True)
    assert found.outcome == "pushed"
    assert "compared with none" in found.reason
    for push in pushes:
        push.pushed.state = mlmd.Artifact.DELETED
    assert releases.decide(challenger, pushes, []) == Decision("pushed")


def test_a_version_that_was_rolled_back_from_and_is_live_again_is_said_to_be():
    """The challenger was compared with the restored model, whose folder is missing."""
    pushes = [version(7, 1, restored=5), version(6, 2), version(5, 1)]
    challenger = Challenger(9, "model 9", "", True, 1)
    found = releases.decide(challenger, pushes, pushes[1:])
    assert found.outcome == "not_pushed"
    assert found.reason.startswith("version 6 is live although it was rolled back from")
    found = releases.decide(challenger, pushes, pushes[1:], accept_unjudged_champion=True)
    assert found.outcome == "pushed"
    assert releases.decide(challenger, pushes, pushes) == Decision("pushed")


def test_what_is_live_is_not_pushed_again():
    # So that the cache answers:
    assert decide([version(5, 9)], live_reason="replay") == Decision("pushed", "replay")
    restored = [version(7, 9, restored=5), version(6, 2), version(5, 9)]
    assert decide(restored) == Decision("not_pushed", "identical to version 7, which is live")


def test_a_model_is_the_same_however_often_it_is_trained():
    """The challenger, artifact 9, was trained again and is what artifact 2 was."""
    live = [version(6, 2), version(5, 1)]
    again = {"identity": "model 2", "judged_against": 2}
    assert decide(live, **again) == Decision("not_pushed", "identical to version 6, which is live")
    back = [version(7, 1, restored=5), *live]
    found = decide(back, **again)
    assert found.outcome == "not_pushed"
    assert found.reason == (
        "identical to version 6, which was rolled back from; `fraud-pipeline rollback --to 6` "
        "would restore it"
    )
    assert decide(back, push_replays=True, **again) == found
    back[1].pushed.state = mlmd.Artifact.DELETED
    assert decide(back, **again).reason == "identical to version 6, which was rolled back from"


def test_a_model_that_was_replaced_is_a_replay_while_its_version_is_there():
    pushes = [version(6, 2), version(5, 1)]
    again = {"identity": "model 1", "judged_against": 2}
    assert decide(pushes, **again) == Decision(
        "replay",
        "replay: identical to version 5, which version 6 replaced; --push-replays pushes it all "
        "the same",
    )
    assert decide(pushes, push_replays=True, **again) == Decision(
        "pushed", "replay: identical to version 5, which version 6 replaced"
    )
    pushes[1].pushed.state = mlmd.Artifact.DELETED
    assert decide(pushes, **again) == Decision("pushed")


def test_what_makes_two_models_the_same(tmp_path):
    def model(name: str, **changed: str) -> str:
        contents = {
            "saved_model.pb": "graph",
            "fingerprint.pb": "1",
            f"{EXTRA}/{WARMUP_FILE}": "requests",
            "variables/variables.index": "weights",
            "assets/vocabulary": "a",
            f"{EXTRA}/{SPECIFICATION_FILE}": "{}",
            f"{EXTRA}/{NETWORK_FILE}": "{}",
            f"{EXTRA}/{THRESHOLD_FILE}": '{"threshold": 0.5, "validation": {"brier": 0.1}}',
        }
        for path, content in {**contents, **changed}.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(content)
        return lineage.identity_of(tmp_path / name)

    first = model("first")
    assert model("graph", **{"saved_model.pb": "other", "fingerprint.pb": "2"}) == first
    metric = '{"threshold": 0.5, "validation": {"brier": 0.2}}'
    settings = {f"{EXTRA}/{NETWORK_FILE}": '{"epochs": 3}', f"{EXTRA}/{THRESHOLD_FILE}": metric}
    assert model("settings", **settings) == first
    assert model("warm-up", **{f"{EXTRA}/{WARMUP_FILE}": "in another order"}) == first
    others = {
        "variables/variables.index": "others",
        "assets/vocabulary": "b",
        f"{EXTRA}/{SPECIFICATION_FILE}": '{"label_delay_days": 3}',
        f"{EXTRA}/{THRESHOLD_FILE}": '{"threshold": 0.6, "validation": {"brier": 0.1}}',
    }
    different = [model(str(i), **{path: text}) for i, (path, text) in enumerate(others.items())]
    assert len({first, *different}) == 5


def test_a_rollback_takes_back_what_was_pushed_after_the_one_it_restores():
    pushes = [version(8, 1, restored=5), version(7, 3), version(6, 2), version(5, 1)]
    assert rolled_back(pushes, 1, 2, 3, 4) == [False, True, True, False]
    assert decide(pushes, model=2, judged_against=1).outcome == "not_pushed"
    # … until one of them is restored itself.
    pushes = [version(9, 2, restored=6), *pushes]
    assert rolled_back(pushes, 1, 2, 3) == [False, False, True]


def test_a_model_that_was_pushed_again_is_taken_back_like_any_other():
    # 7 is a replay of model 1, on request; the rollback from it restores what it replaced.
    pushes = [version(8, 2, restored=6), version(7, 1), version(6, 2), version(5, 1)]
    assert rolled_back(pushes, 1, 2) == [True, False]
    assert decide(pushes, model=1, judged_against=2, push_replays=True).outcome == "not_pushed"
    # A push that no rollback preceded is not taken back by an earlier one.
    assert rolled_back([version(9, 1), *pushes], 1, 2) == [False, False]


def test_a_rollback_that_undoes_another_takes_nothing_back():
    pushes = [version(8, 2, restored=6), version(7, 1, restored=5), version(6, 2), version(5, 1)]
    assert rolled_back(pushes, 1, 2) == [False, False]
    # Nor does it matter by which of its versions the model is restored.
    pushes = [version(9, 1, restored=7), *pushes]
    assert rolled_back(pushes, 1, 2) == [False, True]


def test_without_a_version_a_rollback_goes_back_to_the_model_before():
    pushes = [version(7, 3), version(6, 2), version(5, 1)]
    assert releases.to_restore(pushes, pushes[0], None).version == "6"
    pushes = [version(8, 2, restored=6), *pushes]
    assert releases.to_restore(pushes, pushes[0], None).version == "5"
    pushes = [version(9, 1, restored=5), *pushes]
    with pytest.raises(BadInput, match="version 9 is live, and there is no earlier model"):
        releases.to_restore(pushes, pushes[0], None)
    assert releases.to_restore(pushes, pushes[0], "7").version == "7"


def test_a_rollback_to_what_cannot_be_is_refused():
    pushes = [version(7, 1, restored=5), version(6, 2), version(5, 1)]
    for asked, message in [("5", "live already, as version 7"), ("4", "knows 7, 6, 5")]:
        with pytest.raises(BadInput, match=message):
            releases.to_restore(pushes, pushes[0], asked)
    with pytest.raises(BadInput, match="nothing is live"):
        releases.to_restore([], None, None)


def test_a_version_is_the_time_and_above_all_others():
    assert releases.next_version(100.9, []) == "100"
    assert releases.next_version(100.9, ["100", "20"]) == "101"
    assert releases.next_version(100.9, ["900", "tmp"]) == "901"
    highest = 2**63 - 2
    assert releases.next_version(1, [str(highest - 1)]) == str(highest)
    with pytest.raises(FraudPipelineError, match=f"no version can be higher than {highest}"):
        releases.next_version(1, [str(highest)])


# Real runs of a small graph


@pytest.fixture
def bank(tmp_path):
    return Bank(tmp_path)


def test_a_replay_does_not_replace_production_unless_asked_to(bank):
    bank.run("1", "a", as_of="2026-03-14")
    bank.run("2", "b", as_of="2026-03-21")
    live = bank.live()
    assert live[1] == "b"
    again = bank.run("3", "a", as_of="2026-03-14")
    assert outcome(again)[0] == "replay"
    assert bank.live() == live
    assert outcome(bank.run("4", "c", as_of="2026-03-21"))[0] == "replay"
    asked = bank.run("5", "a", as_of="2026-03-14", push_replays=True)
    assert outcome(asked)[0] == "pushed"
    assert "replay" in outcome(asked)[1]
    assert bank.live()[1] == "a"
    assert len(bank.versions()) == 3
    # The same once more is answered from the cache.
    assert bank.run("6", "a", as_of="2026-03-14", push_replays=True).id == asked.id


def test_the_same_run_again_is_answered_from_the_cache(bank):
    first = bank.run("1", "a", as_of="2026-03-14")
    again = bank.run("2", "a", as_of="2026-03-14")
    assert again.id == first.id
    assert len(bank.versions()) == 1


def test_a_version_that_was_removed_by_hand_is_not_live_and_is_pushed_again_on_request(bank):
    bank.run("1", "a", as_of="2026-03-14")
    first, _ = bank.live()
    shutil.rmtree(bank.root.pushed / first)
    found = status.status(Config(), bank.root)
    assert found["live"] is None
    assert found["disagreements"] == [
        f"{bank.root.pushed / first}: recorded, but the folder is missing"
    ]
    pushed = bank.run("2", "b", as_of="2026-03-14")
    assert outcome(pushed)[0] == "not_pushed"
    bank.run("3", "a", as_of="2026-03-14", accept_unjudged_champion=True)
    assert bank.live() not in (None, (first, "a"))


@pytest.mark.parametrize("instead", ["file", "dangling link"])
def test_what_is_no_folder_is_reported_and_restored(bank, instead):
    bank.run("1", "a")
    bank.run("2", "b")
    version, _ = bank.live()
    folder = bank.root.pushed / version
    shutil.rmtree(folder)
    folder.touch() if instead == "file" else folder.symlink_to("nowhere")
    assert status.status(Config(), bank.root)["disagreements"] == [
        f"{folder}: recorded, but the folder is missing"
    ]
    assert verify.verify(Config(), bank.root, repair=True)["clean"]
    assert bank.live() == (version, "b")


def test_the_push_folder_may_be_mounted_by_itself(bank, tmp_path_factory):
    with mounted(tmp_path_factory.mktemp("volume"), megabytes=16) as volume:
        bank.root.path.mkdir(exist_ok=True)
        bank.root.pushed.symlink_to(volume, target_is_directory=True)
        bank.run("1", "a")
        bank.run("2", "b")
        with bank.root.pushing():
            release = releases.roll_back(bank.root, bank.store, None, "bad")
        (volume / release.version / "saved_model.pb").write_text("rotten")
        assert verify.verify(Config(), bank.root, repair=True)["clean"]
        assert bank.live() == (release.version, "a")
        assert sorted(os.listdir(volume)) == bank.versions()


def test_what_was_added_by_hand_is_reported_and_not_live(bank):
    bank.run("1", "a")
    first, _ = bank.live()
    (bank.root.pushed / "9999999999").mkdir()
    (problem,) = releases.disagreements(bank.root, list(lineage.pushes(bank.store)))
    assert "9999999999: ML Metadata has no record" in problem
    assert "a server takes it" in problem
    assert next(lineage.champions(bank.store, bank.root.pushed)).version == first
    # The next version is above it, so that servers take the version that is live.
    bank.run("2", "b")
    assert releases.newest(bank.root).version == "10000000000"


def test_of_two_runs_that_were_compared_with_the_same_champion_one_is_pushed(bank):
    bank.run("1", "a")
    for run_id, weights in (("2", "b"), ("3", "c")):
        bank.run(run_id, weights, until="Judge")
    assert outcome(bank.run("2", "b"))[0] == "pushed"
    refused = outcome(bank.run("3", "c"))
    assert refused[0] == "not_pushed"
    assert refused[1].startswith("champion changed")
    assert bank.live()[1] == "b"
    assert outcome(bank.run("4", "c"))[0] == "pushed"


def test_of_two_first_runs_one_is_pushed(bank):
    bank.run("1", "a", until="Judge")
    bank.run("2", "b")
    assert outcome(bank.run("1", "a"))[0] == "not_pushed"


def test_a_model_that_was_not_compared_with_the_live_one_is_not_pushed(bank, monkeypatch):
    bank.run("1", "a")
    live, _ = bank.live()
    monkeypatch.setattr(champion_inputs, "can_judge", lambda *_: False)
    graph = bank.graph("2", "b")
    for node in ("Train", "Champion", "Judge"):
        launch.run_node(graph, node)
    decided, reason = outcome(bank.push(graph))
    assert decided == "not_pushed"
    assert reason.startswith(f"not compared with live version {live};")


def test_a_rollback_is_a_new_version_with_its_history(bank):
    bank.run("1", "a", as_of="2026-03-14")
    bank.run("2", "b", as_of="2026-03-21")
    first, second = bank.versions()
    with bank.root.pushing():
        release = releases.roll_back(bank.root, bank.store, None, "too many alerts")
    third, weights = bank.live()
    assert (third, weights) == (release.version, "a")
    assert int(third) > int(second)
    found = next(lineage.champions(bank.store, bank.root.pushed))
    trained = next(p for p in lineage.pushes(bank.store) if p.version == first)
    assert (found.model_id, found.run_id) == (trained.model_id, "1")
    assert lineage.as_of(bank.store, found) == "2026-03-14"
    (execution,) = bank.store.get_executions_by_type(lineage.ROLLBACK)
    facts = {
        name: value(execution, name) for name in ("reason", "restored_version", "replaced_version")
    }
    assert facts == {
        "reason": "too many alerts",
        "restored_version": first,
        "replaced_version": second,
    }
    assert value(execution, "user") == releases.user()
    assert value(found.pushed, "digest") == files.digest(bank.root.pushed / third)


def test_after_a_rollback_runs_are_compared_with_it_and_do_not_undo_it(bank):
    bank.run("1", "a", as_of="2026-03-14")
    pushed = bank.run("2", "b", as_of="2026-03-21")
    with bank.root.pushing():
        releases.roll_back(bank.root, bank.store, None, "bad")
    live = bank.live()
    again = bank.run("3", "b", as_of="2026-03-21")
    assert again.id != pushed.id
    assert outcome(again)[0] == "not_pushed"
    assert "rolled back" in outcome(again)[1]
    assert outcome(bank.run("4", "a", as_of="2026-03-14")) == (
        "not_pushed",
        f"identical to version {live[0]}, which is live",
    )
    assert bank.live() == live
    # It is no replay: the live weights are as of the 14th.
    blessing = bank.run("5", "c", as_of="2026-03-15", until="Judge")
    restored = next(lineage.champions(bank.store)).model_id
    assert value(blessing, "baseline_model_id") == restored
    assert outcome(bank.run("5", "c", as_of="2026-03-15"))[0] == "pushed"


def test_after_a_rollback_the_restored_model_itself_is_judged_as_it_first_was(bank):
    bank.run("1", "a", as_of="2026-03-14")
    bank.run("2", "b", as_of="2026-03-21")
    with bank.root.pushing():
        releases.roll_back(bank.root, bank.store, None, "bad")
    blessing = bank.run("3", "a", as_of="2026-03-14", until="Judge")
    assert value(blessing, "baseline_model_id") is None


def test_a_model_that_was_rolled_back_from_and_is_trained_again_is_not_pushed(bank):
    bank.run("1", "a", as_of="2026-03-14")
    bank.run("2", "b", as_of="2026-03-21")
    bank.run("3", "c", as_of="2026-03-28", blessed=0)
    with bank.root.pushing():
        releases.roll_back(bank.root, bank.store, None, "bad")
    bank.run("4", "d", as_of="2026-03-29", blessed=0)
    assert cli.main(["prune", "--keep", "1", "--root", str(bank.root.path)]) == 0
    second = bank.store.get_artifacts_by_type("Model")[1]
    assert second.state == mlmd.Artifact.DELETED
    again = bank.run("5", "b", as_of="2026-03-21")
    assert bank.store.get_artifacts_by_type("Model")[-1].id > second.id
    assert outcome(again)[0] == "not_pushed"
    assert "which was rolled back from" in outcome(again)[1]
    assert bank.live()[1] == "a"


def test_weights_that_are_live_are_not_pushed_again_by_other_code(bank):
    bank.run("1", "a", as_of="2026-03-14")
    bank.run("2", "a", as_of="2026-03-15")  # another artifact, as after a change of the code
    live, _ = bank.live()
    assert len(bank.versions()) == 1
    again = bank.run("2", "a", as_of="2026-03-15")
    assert outcome(again) == ("not_pushed", f"identical to version {live}, which is live")


def test_what_an_early_release_pushed_is_known_by_its_files(bank):
    pushed = bank.run("1", "a")
    del pushed.custom_properties[lineage.IDENTITY]
    bank.store.put_artifacts([pushed])
    assert value(bank.store.get_artifacts_by_id([pushed.id])[0], lineage.IDENTITY) is None
    (push,) = lineage.pushes(bank.store)
    assert push.identity == lineage.identity_of(bank.root.pushed / push.version)


def test_the_command_rolls_back_and_says_what_is_live(bank, capsys):
    config = ["--root", str(bank.root.path)]
    assert cli.main(["rollback", "--reason", "x", *config]) == 2
    assert "no run has ended here" in capsys.readouterr().err
    bank.run("1", "a")
    bank.run("2", "b")
    first, second = bank.versions()
    assert cli.main(["rollback", "--reason", " ", *config]) == 2
    assert cli.main(["rollback", "--reason", "bad", "--to", "7", *config]) == 2
    assert "--to 7: no such version" in capsys.readouterr().err
    assert bank.live()[0] == second
    assert cli.main(["rollback", "--reason", "bad", "--json", *config]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["restored"], document["replaced"]) == (first, second)
    assert bank.live() == (document["version"], "a")
    # And back: what was taken back can be restored by its version.
    assert cli.main(["rollback", "--reason", "good after all", "--to", second, *config]) == 0
    assert f"instead of version {document['version']}" in capsys.readouterr().out
    assert bank.live()[1] == "b"
    # After all that, the earlier model is still the one to go back to.
    assert cli.main(["rollback", "--reason", "bad indeed", *config]) == 0
    assert bank.live()[1] == "a"
    pushes = list(lineage.pushes(bank.store))
    assert releases.is_rolled_back(pushes, pushes[-2].identity)


@pytest.mark.parametrize("reason", ["\x1b[2J", "\udcff", "a\u202eb"])
def test_a_reason_that_would_not_be_printed_as_text_is_refused(bank, capsys, reason):
    config = ["--root", str(bank.root.path)]
    assert cli.main(["rollback", "--reason", reason, *config]) == 2
    assert "reason: it contains control characters" in capsys.readouterr().err


def test_a_reason_takes_one_line(bank, capsys):
    config = ["--root", str(bank.root.path)]
    bank.run("1", "a")
    bank.run("2", "b")
    assert cli.main(["rollback", "--reason", "bad\nlive  version 9", "--json", *config]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "bad live version 9"


def test_a_version_whose_files_were_deleted_is_not_restored():
    pushes = [version(7, 2), version(5, 1)]
    pushes[1].pushed.state = mlmd.Artifact.MARKED_FOR_DELETION
    with pytest.raises(BadInput, match="--to 5: its files were deleted"):
        releases.to_restore(pushes, pushes[0], "5")


@pytest.mark.parametrize("name", ["²", "-1", "1.5", str(2**63)])
def test_a_folder_that_no_server_takes_for_a_version_is_none(bank, name):
    bank.run("1", "a")
    (bank.root.pushed / name).mkdir()
    (problem,) = releases.disagreements(bank.root, list(lineage.pushes(bank.store)))
    assert "no version, so servers ignore it" in problem
    assert releases.next_version(7, [name]) == "7"


def test_a_rollback_restores_from_the_copy_if_the_folder_is_gone_or_damaged(bank):
    bank.run("1", "a")
    bank.run("2", "b")
    first, _ = bank.versions()
    (bank.root.pushed / first / "saved_model.pb").write_text("rotten")
    with bank.root.pushing():
        releases.roll_back(bank.root, bank.store, None, "bad")
    assert bank.live()[1] == "a"


def test_a_rollback_that_is_recorded_happened_even_if_the_journal_finds_no_space(
    bank, monkeypatch, capsys
):
    bank.run("1", "a")
    bank.run("2", "b")
    write = files.write_atomically

    def full(path: Path, text: str) -> None:
        if '"recorded"' in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, text)

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_atomically", full)
        code = cli.main(["rollback", "--reason", "bad", "--root", str(bank.root.path)])
    assert code == 0, capsys.readouterr().err
    assert bank.live()[1] == "a"
    verification.remove_leftovers(bank.root, bank.store)
    assert findings(bank) == []


def test_a_rollback_to_files_that_are_damaged_everywhere_changes_nothing(bank):
    bank.run("1", "a")
    bank.run("2", "b")
    first, _ = bank.versions()
    push = next(p for p in lineage.pushes(bank.store) if p.version == first)
    for folder in (bank.root.pushed / first, Path(push.pushed.uri)):
        (folder / "saved_model.pb").write_text("rotten")  # of the model, too: it has the same file
    with bank.root.pushing(), pytest.raises(FraudPipelineError, match="gone or damaged"):
        releases.roll_back(bank.root, bank.store, None, "bad")
    assert bank.live()[1] == "b"


# What kills and full disks leave


def start(bank: Bank, run_id: str, weights: str, as_of: str, point: str = "-") -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.pipeline.release_graph", str(bank.root.path)]
    return subprocess.Popen(
        [*command, run_id, weights, as_of, point],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def findings(bank: Bank) -> list[str]:
    return [f["problem"] for f in verify.verify(Config(), bank.root, repair=False)["findings"]]


POINTS = ["copying", "prepared", "renamed", "published", "recorded"]


@pytest.mark.parametrize("point", POINTS)
def test_a_push_that_was_killed_happens_once_after_a_retry_and_after_a_new_run(bank, point):
    bank.run("1", "a")
    bank.run("2", "b", until="Judge")
    killed = start(bank, "2", "b", "", point)
    _, errors = killed.communicate("go\n")
    assert killed.returncode == -9, errors
    assert findings(bank) or point == "recorded"
    for folder in sorted(map(bank.root.pushed.joinpath, releases.folders(bank.root))):
        assert len(list(folder.rglob("*.*"))) == 2  # no version is half there
    there = set(releases.folders(bank.root))

    # The retry of the same run adopts what was published.
    retried = bank.run("2", "b")
    assert outcome(retried)[0] == "pushed"
    assert len(bank.versions()) == 2
    assert bank.live()[1] == "b"
    if point in ("renamed", "published", "recorded"):
        assert set(bank.versions()) == there
    assert findings(bank) == []


@pytest.mark.parametrize("point", ["renamed", "published"])
def test_the_next_run_undoes_a_push_that_was_never_recorded(bank, point):
    bank.run("1", "a")
    bank.run("2", "b", until="Judge")
    killed = start(bank, "2", "b", "", point)
    killed.communicate("go\n")
    assert killed.returncode == -9
    unrecorded = max(releases.folders(bank.root), key=int)
    (problem,) = releases.disagreements(bank.root, list(lineage.pushes(bank.store)))
    assert "interrupted" in problem
    done = verification.remove_leftovers(bank.root, bank.store)
    assert done == [
        f"version {unrecorded}: its push was interrupted; it was never recorded in ML Metadata, "
        "so it was removed"
    ]
    assert bank.live()[1] == "a"
    assert findings(bank) == []
    assert outcome(bank.run("3", "b"))[0] == "pushed"
    assert unrecorded not in bank.versions()
    assert findings(bank) == []


ROLL_BACK = """
import sys
from pathlib import Path
from fraud.pipeline import cli
from tests.pipeline.release_graph import die_at
die_at(sys.argv[2])
cli.main(["rollback", "--root", sys.argv[1], "--reason", "bad"])
"""


@pytest.mark.parametrize("point", POINTS)
def test_a_rollback_that_was_killed_happened_or_did_not(bank, point):
    bank.run("1", "a")
    bank.run("2", "b")
    command = [sys.executable, "-c", ROLL_BACK, str(bank.root.path), point]
    killed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert findings(bank) or point == "recorded"
    with bank.root.pushing():
        releases.recover(bank.root, bank.store)
    assert bank.live()[1] == ("a" if point == "recorded" else "b")
    assert len(bank.versions()) == (3 if point == "recorded" else 2)
    assert findings(bank) == []


REPAIR = """
import sys
from pathlib import Path
from fraud.pipeline import cli
from tests.pipeline.release_graph import die_at
die_at("prepared")
cli.main(["verify", "--root", sys.argv[1], "--repair"])
"""


@pytest.mark.parametrize("complete", ["run", "verify"])
def test_a_repair_that_was_killed_between_two_renames_is_completed(bank, complete):
    bank.run("1", "a")
    bank.run("2", "b")
    version, _ = bank.live()
    (bank.root.pushed / version / "saved_model.pb").write_text("rotten")
    command = [sys.executable, "-c", REPAIR, str(bank.root.path)]
    killed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert not (bank.root.pushed / version).exists()
    assert findings(bank)
    if complete == "run":
        verification.remove_leftovers(bank.root, bank.store)
    else:
        (done,) = verify.verify(Config(), bank.root, repair=True)["findings"]
        assert (
            done["repaired"] == f"version {version}: its repair was interrupted; it is there again"
        )
    assert bank.live() == (version, "b")
    assert findings(bank) == []


def test_two_pushers_at_once_publish_one_whole_model(bank):
    bank.run("1", "a")
    rivals = [("2", "b" * 50_000), ("3", "c" * 50_000)]
    for run_id, weights in rivals:
        bank.run(run_id, weights, until="Judge")
    both = [start(bank, run_id, weights, "") for run_id, weights in rivals]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = sorted(process.communicate()[0].strip() for process in both)
    assert said == ["not_pushed", "pushed"]
    assert len(bank.versions()) == 2
    assert findings(bank) == []


def test_a_pusher_waits_for_a_rollback_and_finds_that_the_champion_changed(bank):
    bank.run("1", "a")
    bank.run("2", "b")
    bank.run("3", "c", until="Judge")
    with bank.root.pushing():
        pusher = start(bank, "3", "c", "")
        assert pusher.stdout.readline() == "ready\n"
        pusher.stdin.write("go\n")
        pusher.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            pusher.wait(1)
        releases.roll_back(bank.root, bank.store, None, "bad")
    assert pusher.communicate()[0].strip() == "not_pushed"
    assert bank.live()[1] == "a"
    assert outcome(bank.run("3", "c"))[1].startswith("champion changed")
    assert outcome(bank.run("4", "c"))[0] == "pushed"
    assert findings(bank) == []


# In kB; 1024 are kept free for records, and the model, 2 MB, is copied once.
@pytest.mark.parametrize("free", [0, 1020, 1100, 1900, 2500, 2900, 7000])
def test_on_a_disk_that_is_really_full_a_push_happens_once_or_not(small_disk, free):
    bank, weights = Bank(small_disk), "b" * 20_000  # 2 MB
    bank.run("1", "a")
    bank.run("2", weights, until="Judge")
    filler = small_disk / "filler"
    left = shutil.disk_usage(small_disk).free
    filler.write_bytes(b"x" * (left - 1024 * free))
    failed = ""
    try:
        bank.run("2", weights)
    except Exception as error:  # TensorFlow's file functions have exceptions of their own
        failed = str(error)
        assert "No space left on device" in failed or "the disk is full" in failed
    filler.unlink()
    assert bool(failed) == (free < 7000)
    assert failed or len(bank.versions()) == 2
    verification.remove_leftovers(bank.root, bank.store)
    assert len(bank.versions()) == (1 if failed else 2)
    assert findings(bank) == []
    bank.run("3", weights)
    assert len(bank.versions()) == 2
    assert bank.live()[1] == weights
    assert findings(bank) == []


@pytest.mark.parametrize("call", range(10))
def test_a_full_disk_leaves_no_version_that_is_not_recorded(bank, monkeypatch, call):
    """Each write of a push fails in turn, and with it all that follow."""
    bank.run("1", "a")
    bank.run("2", "b", until="Judge")
    calls = 0

    def full(function):
        def wrapped(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls > call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*arguments, **options)

        return wrapped

    with monkeypatch.context() as patched:
        for module, name in [(shutil, "copyfile"), (files, "write_atomically"), (os, "fsync")]:
            patched.setattr(module, name, full(getattr(module, name)))
        try:
            bank.run("2", "b")
        except (OSError, FraudPipelineError) as error:
            assert "No space left on device" in str(error)
    assert calls > call, "the push made fewer writes: nothing was tested"
    verification.remove_leftovers(bank.root, bank.store)
    assert len(bank.versions()) in (1, 2)
    assert bank.live()
    assert outcome(bank.run("3", "b"))[0] == "pushed"
    assert len(bank.versions()) == 2
    assert findings(bank) == []


def test_on_probation_only_what_could_be_pushed_and_only_beside_a_live_version():
    live = [version(5, 1)]
    assert decide(live, judged_against=1, probation=True).outcome == "on_probation"
    assert decide([], probation=True) == Decision("pushed")
    assert decide(live, judged_against=1, probation=True, blessed=False).outcome == "not_blessed"
    assert decide(live, probation=True).outcome == "not_pushed"

"""Decisions are read from ML Metadata: the right run, champion, release and limits."""

from __future__ import annotations

import shutil
import sqlite3

import pytest
from google.protobuf import json_format

from fraud.errors import BadInput
from fraud.features.spec import Dataset
from fraud.models.evaluation.eval_config import eval_config
from fraud.models.spec import Evaluation
from fraud.pipeline import cli, decisions, releases
from fraud.pipeline.decisions import Demands
from tests.pipeline.release_graph import Bank


@pytest.fixture
def bank(tmp_path) -> Bank:
    bank = Bank(tmp_path)
    bank.run("r1", "a", as_of="1")
    bank.run("r2", "b", as_of="2")
    return bank


def find(bank: Bank, name: str):
    return decisions.find(bank.store, bank.root.pushed, name)


def test_the_limits_are_those_of_the_eval_config():
    settings = Evaluation(min_roc_auc=0.7, max_roc_auc_drop=0.03, max_drop_probability=0.9)
    text = json_format.MessageToJson(
        eval_config(Dataset(), settings), preserving_proto_field_name=True
    )
    limits = Demands.read(text)
    assert limits.minima["roc_auc"] == 0.7
    assert limits.minima["average_precision"] == settings.min_average_precision
    assert limits.max_drops["roc_auc"] == 0.03
    assert limits.max_drop_probability == 0.9


def test_a_version_is_explained_by_the_run_that_pushed_it(bank):
    first, second = bank.versions()
    facts = find(bank, second)
    assert (facts.is_live, facts.replaced, facts.replaced_by) == (True, first, None)
    assert (facts.run.run_id, facts.run.blessed, facts.run.baseline) == ("r2", True, first)
    earlier = find(bank, first)
    assert (earlier.is_live, earlier.replaced) == (False, None)
    assert earlier.replaced_by.version == second
    assert earlier.run.baseline is None


def test_clocks_may_be_set_back(bank):
    first, second = bank.versions()
    push = bank.store.get_artifacts_by_type("PushedModel")[0]
    with sqlite3.connect(bank.root.metadata) as records:
        later = "update Artifact set create_time_since_epoch = create_time_since_epoch + 3600000"
        records.execute(f"{later} where id = {push.id}")
    assert find(bank, second).run.baseline == first


def test_a_version_that_was_removed_by_hand_is_not_there(bank):
    first, second = bank.versions()
    shutil.rmtree(bank.root.pushed / second)
    assert (find(bank, second).is_live, find(bank, second).is_there) == (False, False)
    assert (find(bank, first).is_live, find(bank, first).is_there) == (True, True)


def test_a_rollback_is_explained_by_who_and_why_and_by_the_first_push(bank):
    first, second = bank.versions()
    with bank.root.pushing():
        release = releases.roll_back(bank.root, bank.store, None, "too many alerts")
    facts = find(bank, release.version)
    assert facts.is_live
    assert (facts.release.restored, facts.release.replaced) == (first, second)
    assert (facts.release.reason, facts.release.user) == ("too many alerts", release.user)
    assert facts.run.run_id == "r1"
    # A model that was compared after the rollback was compared with that version.
    bank.run("r3", "c", as_of="3")
    assert find(bank, "r3").baseline == release.version
    assert find(bank, "r2").baseline == first


def test_runs_that_pushed_nothing(bank):
    bank.run("refused", "c", as_of="3", blessed=0)
    facts = find(bank, "refused")
    assert (facts.blessed, facts.push.pushed, facts.push.outcome) == (False, False, "not_blessed")
    bank.run("replay", "d", as_of="1")
    assert "replay: as of 1" in find(bank, "replay").push.reason
    bank.run("unfinished", "e", as_of="4", until="Train")
    facts = find(bank, "unfinished")
    assert (facts.push, facts.last) == (None, "Train")


def test_a_push_from_the_cache_is_the_push_of_another_run(bank):
    bank.run("again", "b", as_of="2")
    assert find(bank, "again").pushed_by == "r2"
    assert find(bank, "r2").pushed_by is None


def test_a_request_is_said_to_have_been_accepted(bank):
    bank.run("request", "c", as_of="1", push_replays=True)
    assert "replay: as of 1" in find(bank, bank.versions()[-1]).release.reason


def test_an_unknown_name_lists_the_nearest(bank, capsys):
    second = bank.versions()[-1]
    with pytest.raises(BadInput, match=rf"{second}9: neither .*; nearest: .*{second}"):
        find(bank, f"{second}9")
    with pytest.raises(BadInput, match="r9: neither a version nor a run; nearest: r"):
        find(bank, "r9")
    assert cli.main(["explain-decision", "r9", "--root", str(bank.root.path)]) == 2
    assert "nearest: r" in capsys.readouterr().err
    shutil.rmtree(bank.root.path)
    assert cli.main(["explain-decision", "r9", "--root", str(bank.root.path)]) == 2
    assert "nothing has run here" in capsys.readouterr().err

"""Three days, then `prune`: another day, the same day again, and a rollback work as before."""

import json

import pytest

from tests.e2e.conftest import SAMPLE

pytestmark = pytest.mark.e2e

DAYS = ("2026-03-11", "2026-03-12", "2026-03-13", "2026-03-14")


@pytest.fixture(scope="module")
def bank(new_bank):
    made = new_bank()
    config = made.folder / "fraud.yaml"
    config.write_text(config.read_text().replace("paths: {schema: schema.pbtxt}", ""))
    return made


@pytest.fixture(scope="module")
def before(bank):
    return [bank.run(SAMPLE, day) for day in DAYS[:3]]


@pytest.fixture(scope="module")
def pruned(bank, before):
    dry = bank.call("prune", "--keep", 1, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    done = bank.call("prune", "--keep", 1, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def after(bank, pruned):
    return bank.run(SAMPLE, DAYS[3])


def explained(bank, name):
    done = bank.call("explain-decision", name)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert 5 < len(done.stdout.splitlines()) < 30
    return done.stdout


def test_it_frees_what_the_first_day_left(bank, before, pruned):
    assert [summary["outcome"] for summary in before] == ["pushed"] * 3
    assert pruned["runs"] == [summary["run_id"] for summary in before[1:]]
    assert pruned["versions"] == [summary["pushed_version"] for summary in before[1:]]
    assert bank.versions() == pruned["versions"]
    assert len(list((bank.root / "artifacts/TransactionExampleGen/examples").iterdir())) == 2
    # The first day's statistics are the reference for drift.
    assert len(list((bank.root / "artifacts/StatisticsGen/statistics").iterdir())) == 3
    assert pruned["freed"] > 1_000_000
    assert bank.call("verify").stdout.endswith(": clean\n")


def test_another_day_is_judged_as_ever(bank, before, after):
    assert after["outcome"] == "pushed"
    assert after["champion_metrics"]["overall"]["example_count"] == after["rows"]["eval"]
    assert not any("drift" in note for note in after["notes"])
    live = json.loads(bank.call("status", "--json").stdout)["live"]
    assert live["version"] == after["pushed_version"]


def test_the_same_day_again_is_answered_from_the_cache(bank, after):
    again = bank.run(SAMPLE, DAYS[3])
    assert again["pushed_version"] == after["pushed_version"]
    for name in ("TransactionExampleGen", "Trainer", "Evaluator", "Pusher", "ModelCardGen"):
        (line,) = [line for line in again["progress"].splitlines() if f" {name} " in line]
        assert "cached" in line


def test_a_deleted_day_again_is_computed_again(bank, before, after):
    again = bank.run(SAMPLE, DAYS[0])
    assert again["outcome"] == "replay"
    for name in ("TransactionExampleGen", "Trainer"):
        (line,) = [line for line in again["progress"].splitlines() if f" {name} " in line]
        assert "cached" not in line
    why = explained(bank, again["run_id"])
    assert f"Run {again['run_id']} as of {DAYS[0]} pushed nothing: replay: as of" in why
    assert f"compared with version {after['pushed_version']} on the same examples" in why


def test_a_rollback_restores_the_day_before(bank, before, after):
    done = bank.call("rollback", "--reason", "too many alerts", "--json")
    assert done.returncode == 0, done.stderr
    release = json.loads(done.stdout)
    assert release["restored"] == before[2]["pushed_version"]
    assert bank.call("verify").stdout.endswith(": clean\n")
    why = explained(bank, release["version"])
    assert f"Version {release['version']} is live since" in why
    assert f"a rollback from {after['pushed_version']} by" in why
    assert "Reason given: too many alerts" in why


def test_decisions_are_explained_by_ml_metadata_alone(bank, before, after):
    for summary in bank.root.glob("runs/*/summary.json"):
        summary.unlink()
    live = explained(bank, after["pushed_version"])
    assert f"run {after['run_id']} pushed it" in live
    assert f"It replaced version {before[2]['pushed_version']}." in live
    assert "data gate   passed" in live
    value = after["metrics"]["overall"]["average_precision"]
    assert f"average precision {value:.3f} (" in live
    assert "at least 0.02" in live
    assert "a drop over 0.5 has probability" in live
    gone = explained(bank, before[0]["pushed_version"])
    assert "Its files have been deleted." in gone
    assert "The details have been deleted" in gone
    unknown = bank.call("explain-decision", f"{after['pushed_version']}0")
    assert unknown.returncode == 2
    assert f"nearest: {after['pushed_version']}" in unknown.stderr

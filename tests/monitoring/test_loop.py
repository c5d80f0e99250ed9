"""The loop, with steps that take no time; tests/e2e/test_watch.py has real ones."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from fraud import files
from fraud.errors import BadInput, FraudPipelineError
from fraud.monitoring import journal, loop
from fraud.monitoring.alerts import Alerts
from fraud.monitoring.checks import Day, Kind, Observation, Verdict
from fraud.monitoring.decide import Lags
from fraud.monitoring.journal import Entry, Journal, Training, history
from fraud.monitoring.loop import Heart, Loop
from fraud.monitoring.spec import Monitoring
from tests.monitoring.fake_bank import FIRST, POLICY, Bank, asks, eventful, loop_alerts, replay

DRIFT, BROKEN, HARM = [asks(Kind.DRIFT)], [asks(Kind.DATA, "data/CHANNEL")], [asks(Kind.HARM)]


def test_days_are_processed_in_order_and_once(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 5)
    done = replay(bank)
    assert done.actions == ["retrain", "nothing", "nothing", "nothing", "nothing"]
    assert [number for step, number in bank.log() if step == "observe"] == [0, 1, 2, 3, 4]
    bank.days = 7
    before = len(bank.log())
    assert len(replay(bank).entries) == 7
    assert [number for step, number in bank.log()[before:] if step == "observe"] == [5, 6]


def test_what_is_decided_is_done_and_told(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 8, {4: DRIFT, 6: HARM})
    done = replay(bank)
    quiet = ["nothing"]
    assert done.actions == ["retrain", *quiet * 3, "retrain", *quiet, "roll_back", *quiet]
    assert bank.versions() == {"1": "day 0", "2": "day 4", "3": "restored 1"}
    assert done.entries[6].bad_version == "2" and done.entries[6].restored == "3"
    assert done.kinds == ["push", "drift", "push", "drift", "rollback"]


def test_broken_days_are_held_and_never_trained_on(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 9, {4: BROKEN, 5: BROKEN, 8: DRIFT})
    done = replay(bank)
    assert done.actions[4:6] == ["hold", "hold"] and done.actions[8] == "retrain"
    assert json.loads((tmp_path / "broken.json").read_text()) == ["2026-03-05", "2026-03-06"]
    assert done.kinds.count("hold") == 1  # the second day has the same reason


def test_days_whose_predictions_are_missing_are_held_but_may_be_trained_on(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 9, {4: [asks(Kind.FRESHNESS)], 5: [asks(Kind.SKEW)], 8: DRIFT})
    done = replay(bank)
    assert done.actions[4:6] == ["hold", "hold"] and done.actions[8] == "retrain"
    assert json.loads((tmp_path / "broken.json").read_text()) == []
    assert done.kinds == ["push", "stale_data", "hold", "drift", "push"]


def test_data_that_cannot_be_read_is_a_hold(tmp_path: Path) -> None:
    for step in ("score", "observe"):
        bank = Bank(tmp_path / step, 3, errors={(step, 1): [BadInput("row 7: TX_AMOUNT is 'x'")]})
        done = replay(bank)
        assert done.actions == ["retrain", "hold", "nothing"]
        assert "row 7: TX_AMOUNT is 'x'" in done.entries[1].decision.reasons[0]  # type: ignore[union-attr]


def test_a_step_that_fails_is_repeated(tmp_path: Path) -> None:
    down = FraudPipelineError("the database does not answer")
    bank = Bank(tmp_path, 2, errors={("observe", 1): [down, down]})
    done = replay(bank)
    assert done.actions == ["retrain", "nothing"] and "failed_run" not in done.kinds


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ESTALE])
def test_a_disk_that_is_full_for_a_while_does_not_end_the_loop(tmp_path: Path, number: int) -> None:
    def full() -> Exception:
        return OSError(number, os.strerror(number), "days/2026-03-02.json")

    bank = Bank(tmp_path, 2, errors={("observe", 1): [full(), full()]})
    assert replay(bank).actions == ["retrain", "nothing"]
    bank = Bank(tmp_path, 3, errors={("observe", 2): [full(), full(), full()]})
    with pytest.raises(FraudPipelineError if number == errno.ESTALE else OSError, match="2026-03"):
        replay(bank)
    assert "failed_run" in [raised.alert.kind for raised in loop_alerts(tmp_path)]
    assert replay(bank).actions == ["retrain", "nothing", "nothing"]


def test_a_name_that_is_no_text_does_not_end_the_loop(tmp_path: Path) -> None:
    """Python has the byte 0xff of a file's name as half of a character."""
    wrong = FraudPipelineError("data/\udcff.csv: gone")
    bank = Bank(tmp_path, 2, errors={("observe", 1): [wrong] * 3})
    with pytest.raises(FraudPipelineError, match="gone"):
        replay(bank)
    state = json.loads((tmp_path / "loop" / "state.json").read_text())
    assert state["problem"] == "data/\\udcff.csv: gone" and state["failures"] == 3
    assert [raised.alert.kind for raised in loop_alerts(tmp_path)] == ["failed_run", "push"]
    assert replay(bank).actions == ["retrain", "nothing"]


def test_once_gives_up_after_so_many_attempts_and_goes_on_where_it_was(tmp_path: Path) -> None:
    down = FraudPipelineError("the database does not answer")
    bank = Bank(tmp_path, 3, errors={("observe", 1): [down] * 3})
    with pytest.raises(FraudPipelineError, match="does not answer"):
        replay(bank)
    assert [raised.alert.kind for raised in loop_alerts(tmp_path)] == ["failed_run", "push"]
    assert json.loads((tmp_path / "loop" / "state.json").read_text())["failures"] == 3
    assert replay(bank).actions == ["retrain", "nothing", "nothing"]


def test_a_training_that_keeps_failing_is_given_up_so_that_the_loop_goes_on(tmp_path: Path) -> None:
    down = FraudPipelineError("node Trainer failed")
    bank = Bank(tmp_path, 9, {4: DRIFT}, errors={("train", 4): [down] * 3})
    done = replay(bank)
    training = done.entries[4].training
    assert training and training.outcome == "failed" and training.reasons == (str(down),)
    assert len(done.entries) == 9 and "failed_run" in done.kinds
    assert [s for s in bank.log() if s == ("train", 4)] == [("train", 4)] * 3


def test_a_training_that_cannot_work_is_not_repeated(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 6, {4: DRIFT}, errors={("train", 4): [BadInput("too few days")]})
    training = replay(bank).entries[4].training
    assert training and training.outcome == "failed" and training.reasons == ("too few days",)
    assert bank.log().count(("train", 4)) == 1


def test_a_new_version_that_fails_verification_is_taken_back(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 8, {4: DRIFT}, bad=("2",))
    done = replay(bank)
    assert bank.versions() == {"1": "day 0", "2": "day 4", "3": "restored 1"}
    assert done.entries[4].verified == ("9 times as many alerts",)
    assert done.entries[4].verified_on == FIRST + timedelta(5)
    assert "rollback" in done.kinds
    assert done.entries[0].verified_on == FIRST + timedelta(1) and not done.entries[0].verified
    assert [number for step, number in bank.log() if step == "problems"] == [1, 5]


@pytest.mark.parametrize(
    ("verdicts", "stays"),
    [
        ((Verdict.OK, Verdict.OK), True),
        ((Verdict.WARN, Verdict.OK), True),
        ((Verdict.ACT, Verdict.OK), False),
        ((Verdict.CANNOT_JUDGE, Verdict.OK), False),
        ((), False),
    ],
)
def test_a_version_may_differ_from_the_one_before_if_it_is_as_evaluated(
    tmp_path: Path, verdicts: tuple[Verdict, ...], stays: bool
) -> None:
    names = ("score_distribution", "alert_rate")
    checks = [
        replace(asks(Kind.SCORES, name), verdict=verdict)
        for name, verdict in zip(names, verdicts, strict=False)
    ]
    bank = Bank(tmp_path, 7, {4: DRIFT, 5: checks}, odd=("2",))
    replay(bank)
    assert ("restored 1" in bank.versions().values()) != stays


def test_scores_of_another_version_do_not_count() -> None:
    ok = replace(asks(Kind.SCORES), verdict=Verdict.OK)
    assert loop.is_as_evaluated(Observation(FIRST, 2, (ok,)), "2")
    assert not loop.is_as_evaluated(Observation(FIRST, 1, (ok,)), "2")


def test_a_training_for_a_change_is_urgent_and_one_for_the_age_is_not(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 12, {4: DRIFT, 9: [asks(Kind.AGE)]})
    replay(bank)
    assert [number for step, number in bank.log() if step == "train"] == [0, 4, 9]
    assert [path.name for path in tmp_path.glob("urgent-*")] == [f"urgent-{FIRST + timedelta(4)}"]


def test_nothing_is_verified_while_the_data_is_broken(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 8, {4: DRIFT, 5: BROKEN, 6: BROKEN}, bad=("2",))
    assert replay(bank).entries[4].verified_on == FIRST + timedelta(7)


def test_a_version_that_nothing_precedes_stays_live_and_somebody_is_told(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 4, bad=("1",))
    done = replay(bank)
    assert bank.versions() == {"1": "day 0"} and done.entries[0].restored == "none"
    told = next(r.alert for r in loop_alerts(tmp_path) if r.alert.kind == "rollback")
    assert "stays live: there is no earlier model" in told.text


def test_probation_promotes_or_refuses(tmp_path: Path) -> None:
    policy = replace(POLICY, probation_days=3)
    bank = Bank(tmp_path, 20, {4: DRIFT, 5: DRIFT, 12: DRIFT}, refused=(12,))
    done = replay(bank, policy)
    assert bank.versions() == {"1": "day 0", "2": "day 4"}  # the first model has no rival
    first, second = done.entries[4], done.entries[12]
    assert first.training and first.training.outcome == "on_probation"
    assert first.promotion and first.pushed == "2" and first.went_live == FIRST + timedelta(7)
    assert second.promotion and second.promotion.outcome == "not_promoted"
    assert second.promotion.reasons == ("worse",) and not second.pushed
    assert done.actions[5] == "nothing"
    assert done.entries[5].decision.reasons[0].endswith("is on probation")  # type: ignore[union-attr]
    assert [number for step, number in bank.log() if step == "judge"] == [7, 15]


def test_no_model_is_promoted_while_the_data_is_broken(tmp_path: Path) -> None:
    policy = replace(POLICY, probation_days=3)
    bank = Bank(tmp_path, 12, {4: DRIFT, 7: BROKEN, 8: BROKEN})
    replay(bank, policy)
    assert ("train", 4) in bank.log()[bank.log().index(("observe", 9)) :]


def test_a_model_is_live_from_the_day_of_its_promotion_on(tmp_path: Path) -> None:
    policy = replace(POLICY, probation_days=3)
    said: list[str] = []
    bank = Bank(tmp_path, 12, {4: DRIFT, 7: BROKEN, 8: BROKEN, 11: [asks(Kind.HARM)]})
    done = replay(bank, policy, said)
    assert done.entries[4].went_live == FIRST + timedelta(9)
    assert "2026-03-10  version 2 is live, trained as of 2026-03-05" in said
    assert done.actions[11] == "roll_back"
    assert "version 2 went live on 2026-03-10" in done.entries[11].decision.reasons  # type: ignore[union-attr]


def test_a_promotion_that_fails_again_and_again_is_given_up(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 12, {4: DRIFT})
    train = bank.train

    def without_its_run(
        day: date, broken: Sequence[date], probation: bool, began: float, is_urgent: bool
    ) -> Training:
        if day == FIRST + timedelta(4) and not probation:
            raise FraudPipelineError("its examples are gone")
        return train(day, broken, probation, began, is_urgent)

    bank.train = without_its_run  # type: ignore[method-assign]
    done = replay(bank, replace(POLICY, probation_days=3))
    assert len(done.entries) == 12 and bank.versions() == {"1": "day 0"}
    given_up = Training("failed", "run-4", ("its examples are gone",), model="model-4")
    assert done.entries[4].promotion == given_up
    assert journal.refused(done.entries, 30) == [(FIRST + timedelta(4), given_up)]
    assert [number for step, number in bank.log() if step == "judge"] == [7] * POLICY.attempts
    assert "failed_run" in done.kinds


def observed(bank: Bank) -> list[int]:
    return [number for step, number in bank.log() if step == "observe"]


def test_labels_that_arrive_without_a_day_are_looked_at(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 7)
    replay(bank)
    bank.checks[6], bank.edited[2] = DRIFT, 1
    said: list[str] = []
    done = replay(bank, said=said)
    assert said[0] == "2026-03-07  is looked at again: files of 2026-03-03 have changed"
    assert observed(bank) == [0, 1, 2, 3, 4, 5, 6, 6]
    assert done.actions[6] == "retrain" and done.entries[6].pushed == "2"
    (look,) = done.entries[6].looks
    assert look.changed == (FIRST + timedelta(2),)
    assert look.decision and look.decision.action == "nothing"
    replay(bank)
    assert observed(bank).count(6) == 2  # once for each change


def test_a_day_that_was_trained_on_is_not_looked_at_again(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 5, {4: DRIFT})
    replay(bank)
    bank.edited[3] = 1
    assert observed(bank) == [0, 1, 2, 3, 4] and replay(bank).entries[4].looks == ()
    bank.days = 6
    replay(bank)
    bank.edited[3] = 2
    assert replay(bank).entries[5].looks and observed(bank) == [0, 1, 2, 3, 4, 5, 5]


def test_a_broken_day_that_was_repaired_is_trained_on(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 9, {3: BROKEN, 4: BROKEN, 8: DRIFT})
    bank.errors["observe", 5] = [BadInput("row 7: TX_AMOUNT is 'x'")]
    assert replay(replace(bank, days=8)).actions[3:6] == ["hold"] * 3
    del bank.checks[3]
    bank.edited |= {3: 1, 4: 1}  # of which one is still broken
    done = replay(bank)
    assert json.loads((tmp_path / "broken.json").read_text()) == ["2026-03-05"]
    assert done.actions[3:6] == ["hold"] * 3  # as it was decided then
    assert [e.is_broken for e in done.entries[3:6]] == [False, True, False]
    assert [len(e.looks) for e in done.entries[3:6]] == [1, 1, 1]
    before = len(bank.log())
    bank.days = 10
    replay(bank)
    assert observed(bank)[-1] == 9 and [s for s, _ in bank.log()[before:]].count("observe") == 1


def test_a_held_day_that_a_person_approved_of_is_trained_on(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 9, {3: BROKEN, 4: BROKEN, 8: DRIFT})
    replay(replace(bank, days=8))
    kept = Journal(tmp_path / "loop")
    running = Journal(tmp_path / "loop")  # as of a loop that is not stopped for it
    approval = journal.Approval(FIRST + timedelta(3), "ann@bank", "a strike", "2026-03-08T09:00:00")
    kept.approve(approval)
    assert running.approvals() == [approval]
    assert running.broken() == [FIRST + timedelta(4)]
    with pytest.raises(BadInput, match="2026-03-02: its data was not found to be broken"):
        kept.approve(replace(approval, day=FIRST + timedelta(1)))
    replay(bank)
    assert json.loads((tmp_path / "broken.json").read_text()) == ["2026-03-05"]
    (tmp_path / "loop" / "approved" / "2026-03-05.json").write_text("{")
    with pytest.raises(FraudPipelineError, match=r"2026-03-05.json: not an approval"):
        kept.broken()


def test_a_broken_day_that_arrived_after_its_successor_is_not_trained_on(tmp_path: Path) -> None:
    """It was never an as-of day, so only looks at later days can tell."""
    kept = Journal(tmp_path / "loop")
    late, own = FIRST + timedelta(1), FIRST + timedelta(2)

    def look(number: int, *days: Day) -> None:
        seen = Observation(FIRST + timedelta(number), 1, (), days)
        kept.write(Entry(seen.as_of, observation=seen, done=True))

    look(0, Day(FIRST))
    look(2, Day(FIRST), Day(late), Day(own))
    assert kept.broken() == []
    # Its own look found nothing; what a later one says of it does not count.
    look(3, Day(FIRST), Day(late, broken=("COUNTRY",)), Day(own, broken=("COUNTRY",)))
    assert kept.broken() == [late]
    assert kept.faults()[late] == ("data/COUNTRY",)
    kept.approve(approval := journal.Approval(late, "ann@bank", "a strike", "2026-03-08T09:00:00"))
    assert kept.broken() == [] and kept.approvals() == [approval]
    (tmp_path / "loop" / "approved" / f"{late}.json").unlink()
    look(4, Day(late))  # repaired meanwhile
    assert kept.broken() == []
    with pytest.raises(BadInput, match="2026-03-02: its data was not found to be broken"):
        kept.approve(approval)


def test_somebody_is_told_if_nothing_is_ever_good_enough(tmp_path: Path) -> None:
    policy = replace(POLICY, nothing_blessed_days=10)
    drifting = dict.fromkeys(range(3, 20), DRIFT)
    bank = Bank(tmp_path, 20, drifting, outcomes=dict.fromkeys(range(1, 20), "not_blessed"))
    done = replay(bank, policy)
    assert done.kinds.count("nothing_blessed") == 1
    told = next(r.alert for r in loop_alerts(tmp_path) if r.alert.kind == "nothing_blessed")
    assert told.day == "2026-03-11" and "since 2026-03-01" in told.text


def test_one_loop_per_root(tmp_path: Path) -> None:
    with (
        loop.alone(tmp_path),
        pytest.raises(BadInput, match=f"process {os.getpid()} .* looks after this root"),
        loop.alone(tmp_path),
    ):
        pass
    with loop.alone(tmp_path):
        pass


def test_the_journal_can_be_read_back(tmp_path: Path) -> None:
    done = replay(eventful(tmp_path))
    assert len(done.entries) == 40 and all(entry.done for entry in done.entries)
    assert len(history(tmp_path)) == 40
    (tmp_path / "loop" / "days" / "2026-03-02.json").write_text("{")
    with pytest.raises(FraudPipelineError, match=r"2026-03-02.json: not an entry"):
        Journal(tmp_path / "loop")


def test_the_heart_beats_while_a_step_takes_long(tmp_path: Path) -> None:
    heart = Heart(tmp_path / "state.json", every=0.05)
    heart.update(doing="training as of 2026-03-01")
    first = (tmp_path / "state.json").stat().st_mtime_ns
    time.sleep(0.3)
    state = json.loads((tmp_path / "state.json").read_text())
    assert (tmp_path / "state.json").stat().st_mtime_ns > first
    assert state["doing"] == "training as of 2026-03-01" and state["pid"] == os.getpid()
    heart.close()
    assert json.loads((tmp_path / "state.json").read_text())["doing"] == "stopped"


def test_days_are_awaited_and_a_missing_one_is_an_alert(tmp_path: Path) -> None:
    bank, alerts = Bank(tmp_path, 2), Alerts(tmp_path / "alerts")
    heart, stopping = Heart(tmp_path / "state.json"), threading.Event()
    made = Loop(Journal(tmp_path / "loop"), bank, POLICY, Lags(), Monitoring(), alerts)
    thread = threading.Thread(
        target=loop.watch, args=(made, POLICY, heart, alerts), kwargs={"stopping": stopping}
    )
    thread.start()
    end = time.monotonic() + 60
    while len(Journal(tmp_path / "loop").entries()) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    bank.days = 3  # it arrives while the loop waits
    while len(Journal(tmp_path / "loop").entries()) < 3 and time.monotonic() < end:
        time.sleep(0.01)

    def stale() -> set[str]:
        return {r.alert.day for r in loop_alerts(tmp_path) if r.alert.kind == "stale_data"}

    # It is long ago, by the clock of this machine.
    while "2026-03-04" not in stale():
        assert time.monotonic() < end, stale()
        time.sleep(0.01)
    stopping.set()
    thread.join(30)
    heart.close()
    assert not thread.is_alive()


def without_times(entries: list[Entry]) -> list[Entry]:
    return [
        replace(entry, began=0.0, looks=tuple(replace(look, at="") for look in entry.looks))
        for entry in entries
    ]


def test_killed_at_any_point_it_ends_where_it_would_have_ended(tmp_path: Path) -> None:
    undisturbed, victim = eventful(tmp_path / "undisturbed"), eventful(tmp_path / "victim")
    expected = replay(undisturbed)
    assert set(expected.actions) == {"nothing", "retrain", "hold", "roll_back"}
    assert len(undisturbed.versions()) >= 6
    chance, kills, ended = random.Random(1), 0, None
    log = victim.folder / "log.jsonl"
    command = [sys.executable, "-m", "tests.monitoring.fake_bank", str(victim.folder)]
    while ended is None:
        before = log.stat().st_size if log.exists() else 0
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        while process.poll() is None and (not log.exists() or log.stat().st_size == before):
            time.sleep(0.002)  # until it works
        if kills < 20:
            time.sleep(chance.uniform(0, 0.03))
            process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            kills += 1
        else:
            ended = process.returncode
    assert ended == 0, process.stderr.read() if process.stderr else ""
    assert kills >= 5, kills  # a busy machine may let it finish sooner
    entries = Journal(victim.folder / "loop").entries()
    assert without_times(entries) == without_times(expected.entries)
    assert victim.versions() == undisturbed.versions()
    trained = {number for step, number in victim.log() if step == "train"}
    assert trained == {number for step, number in undisturbed.log() if step == "train"}
    finished = -1
    for step, number in victim.log():  # what is done is never begun again
        if step == "observe":
            assert number >= finished
            finished = max(finished, number)
    told = sorted((r.alert.kind, r.alert.subject) for r in loop_alerts(victim.folder))
    assert told == sorted((r.alert.kind, r.alert.subject) for r in loop_alerts(undisturbed.folder))


def test_refused_models_are_listed_for_a_while_and_those_on_probation_always(
    tmp_path: Path,
) -> None:
    day, kept = FIRST, journal.Training("not_blessed", "r", ("worse",), model="m")
    trained = [
        Entry(day, training=kept),
        Entry(day + timedelta(5), training=replace(kept, outcome="on_probation"),
              probation_until=day + timedelta(40)),
        Entry(day + timedelta(12), training=kept),
        Entry(day + timedelta(13), training=replace(kept, outcome="pushed", pushed="7")),
        Entry(day + timedelta(14), training=journal.Training("failed")),
        Entry(day + timedelta(21)),
    ]  # fmt: skip
    listed = [(found - day).days for found, _ in journal.refused(trained, 10)]
    assert listed == [12, 5]
    assert journal.refused([], 10) == []


class Killed(BaseException):
    """Stands for the end of the process, wherever it happens."""


def short(folder: Path) -> Bank:
    """Eleven days with a training, a hold, a rollback by decision and one by verification."""
    checks = {4: DRIFT, 5: BROKEN, 7: HARM, 8: DRIFT}
    return Bank(folder, 11, checks, bad=("4",))


def repaired(bank: Bank) -> None:
    """Later, a broken day is repaired, and labels arrive that ask for a training."""
    bank.edited, bank.checks = {5: 1, 9: 1}, {10: DRIFT}


@pytest.mark.parametrize(("probation", "is_repaired"), [(0, False), (2, False), (0, True)])
def test_ended_before_or_after_any_effect_it_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probation: int, is_repaired: bool
) -> None:
    """Every point at which the journal or the world changes, one after the other."""
    often = replace(POLICY, cool_down_days=2, max_trainings_per_week=7)
    policy = replace(often, probation_days=probation)
    write, countdown = files.write_atomically, [-1]

    def pause() -> None:
        countdown[0] -= 1
        if countdown[0] == 0:
            raise Killed

    def written(path: Path, text: str) -> None:
        pause()
        write(path, text)
        pause()

    def prepared(name: str) -> Bank:
        bank = short(tmp_path / name)
        if is_repaired:
            replay(bank, policy)
            repaired(bank)
        bank.pause = pause
        return bank

    monkeypatch.setattr(journal, "write_atomically", written)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # nothing here loses power
    undisturbed = prepared("undisturbed")
    expected = replay(undisturbed, policy)
    assert {"nothing", "retrain", "hold"} <= {*expected.actions}
    assert any(what.startswith("restored") for what in undisturbed.versions().values())
    looked_again = [(e.day - FIRST).days for e in expected.entries if e.looks]
    assert looked_again == ([5, 10] if is_repaired else [])
    assert not is_repaired or expected.entries[10].pushed
    points = 0
    for points in range(1, 1000):
        victim = prepared(str(points))
        countdown[0] = points
        try:
            replay(victim, policy)
        except Killed:
            countdown[0] = -1
            replay(victim, policy)
        else:
            break
        entries = Journal(victim.folder / "loop").entries()
        assert without_times(entries) == without_times(expected.entries), points
        assert victim.versions() == undisturbed.versions(), points
    assert points > (15 if is_repaired else 100)

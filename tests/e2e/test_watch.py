"""The closed loop by real processes: data that arrives, models that are trained, kills."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from fraud import files
from fraud.monitoring.alerts import raised_in
from fraud.monitoring.journal import Entry, Journal
from fraud.pipeline import lineage, production, releases
from fraud.pipeline.config import Metadata
from fraud.pipeline.root import Root
from tests.e2e.conftest import CONFIG, SAMPLE, Bank, free_port

pytestmark = pytest.mark.e2e

EVERYTHING = re.sub(
    r"(min_average_precision|min_roc_auc): [0-9.]+", r"\1: 0.0", CONFIG, flags=re.MULTILINE
)
"""Gates that let every model through."""
FIRST = date(2026, 1, 31)
"""The first day on which the configuration's windows lie within the sample."""
POLICY = """
monitoring: {max_age_days: 6}
loop: {min_changed_days: 0, cool_down_days: 6, verify_rows: 500, poll_seconds: 0.5,
       retry_seconds: 1, max_score_shift: 100, max_alert_rate_ratio: 1000}
"""
"""Models of two epochs differ by more than good ones do."""
SECONDS = 3600


def deliver(data: Path, day: date, change: Callable[[pa.Table], pa.Table] | None = None) -> None:
    """A day of the sample arrives, changed or not; its marker last."""
    source = SAMPLE / f"date={day}" / "transactions.parquet"
    target = data / f"date={day}"
    target.mkdir(parents=True, exist_ok=True)
    if change is None:
        (target / "transactions.parquet").symlink_to(source)
    else:
        table = parquet.ParquetFile(source).read()
        parquet.write_table(change(table), target / "transactions.parquet")
    (target / "_SUCCESS").touch()


def days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def without_channel(table: pa.Table) -> pa.Table:
    column = pa.nulls(len(table), table.schema.field("CHANNEL").type)
    return table.set_column(table.column_names.index("CHANNEL"), "CHANNEL", column)


def dearer(table: pa.Table) -> pa.Table:
    """All amounts five times as high."""
    amounts = pa.array(np.round(table["TX_AMOUNT"].to_numpy() * 5, 2))
    return table.set_column(table.column_names.index("TX_AMOUNT"), "TX_AMOUNT", amounts)


def entries(bank: Bank) -> dict[date, Entry]:
    return {entry.day: entry for entry in Journal(bank.root / "loop").entries()}


def actions(bank: Bank) -> list[str]:
    return [e.decision.action for e in entries(bank).values() if e.decision is not None]


def start(bank: Bank, data: Path, *options: object) -> subprocess.Popen[str]:
    """Starts the loop, in a process group of its own."""
    return subprocess.Popen(
        bank.command("watch", "--data", data, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=bank.code,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    _, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr
    return stderr


def until(condition: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    end = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, "it never happened"
        if process is not None and process.poll() is not None:
            raise AssertionError(process.stderr.read() if process.stderr else "it ended")
        time.sleep(0.2)
    return found


def evaluated_days(bank: Bank, run_id: str) -> int:
    """The days of a run's eval window."""
    summary = json.loads((bank.root / "runs" / run_id / "summary.json").read_text("utf-8"))
    first, last = map(date.fromisoformat, summary["windows"]["eval"])
    return (last - first).days + 1


def check_whole(root: Root) -> None:
    """Every version that a server can see is whole."""
    promised = {entry.version: entry.digest for entry in releases.journal(root)}
    for version in releases.folders(root):
        assert files.digest(root.pushed / version) == promised[version]


def pushes(bank: Bank) -> list[tuple[str, bool]]:
    """(as-of day, whether by a rollback) of every version, oldest first."""
    store = lineage.find_store(Metadata(), Root(bank.root))
    found = [(lineage.as_of(store, p), bool(p.restored)) for p in lineage.pushes(store)]
    return found[::-1]


def test_a_replay_trains_and_holds_and_goes_on_after_a_kill(new_bank, tmp_path: Path) -> None:
    bank, data = new_bank(EVERYTHING + POLICY), tmp_path / "data"
    broken = FIRST + timedelta(2)
    for day in days(date(2026, 1, 1), FIRST + timedelta(3)):
        deliver(data, day, without_channel if day == broken else None)
    victim = start(bank, data, "--simulate")
    until(lambda: FIRST in entries(bank) and entries(bank)[FIRST].training, victim)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.communicate()
    assert pushes(bank) == [(str(FIRST), False)]

    said = finish(start(bank, data, "--simulate"))
    assert actions(bank)[:3] == ["retrain", "nothing", "hold"]
    assert f"{broken}  hold: " in said and "CHANNEL" in said
    assert all(entry.done for entry in entries(bank).values()) and len(entries(bank)) == 4
    assert pushes(bank) == [(str(FIRST), False)]
    kinds = [raised.alert.kind for raised in raised_in(bank.root / "alerts")]
    assert {"push", "hold"} <= {*kinds}
    logged = sorted(path.name for path in (bank.root / "predictions").glob("date=*"))
    assert logged == [f"date={day}" for day in days(FIRST + timedelta(1), FIRST + timedelta(3))]

    again = bank.call("watch", "--data", data, "--simulate")
    assert again.returncode == 0 and " hold" not in again.stderr  # nothing is done twice
    live = bank.call("watch", "--data", data, "--once")
    assert live.returncode == 2 and "holds a replay of the past" in live.stderr


@dataclass
class Server:
    """A server, and what it answers."""

    address: str

    def call(self, path: str, document: dict | None = None) -> dict:
        body = None if document is None else json.dumps(document).encode()
        with urllib.request.urlopen(self.address + path, body, timeout=30) as answer:
            return json.load(answer)

    def score(self, table: pa.Table) -> list[dict]:
        """Sends transactions as a bank would, some hundred at a time."""
        rows = table.drop(["TX_FRAUD"]).to_pylist()
        for row in rows:
            row["TX_DATETIME"] = row["TX_DATETIME"].isoformat()
        results = []
        for at in range(0, len(rows), 500):
            part = {"transactions": rows[at : at + 500]}
            results += self.call("/v1/transactions:score", part)["results"]
        return results

    def label(self, table: pa.Table) -> None:
        ids, labels = table["TRANSACTION_ID"].to_pylist(), table["TX_FRAUD"].to_pylist()
        named = [{"id": i, "label": int(v)} for i, v in zip(ids, labels, strict=True)]
        for at in range(0, len(named), 5000):
            self.call("/v1/labels", {"labels": named[at : at + 5000]})


@contextmanager
def serving(bank: Bank, port: int, data: Path) -> Iterator[Server]:
    command = bank.command("serve", "--port", port, "--grpc-port", "0", "--data", data)
    with open(bank.folder / "server.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=bank.code)
    server = Server(f"http://127.0.0.1:{port}")

    def is_ready() -> bool:
        try:
            with urllib.request.urlopen(server.address + "/readyz", timeout=5):
                return True
        except (OSError, urllib.error.HTTPError):
            return False

    try:
        until(is_ready)
        yield server
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_a_day_in_the_life(new_bank, tmp_path: Path) -> None:
    """Server, loop, traffic and labels; amounts drift, and the loop's model answers in the end."""
    port = free_port()
    settings = POLICY.replace("max_age_days: 6", "max_age_days: 99").replace(
        "cool_down_days: 6", f"cool_down_days: 2, server: 'http://127.0.0.1:{port}'"
    )
    settings += "serving: {prediction_log: {file_seconds: 1, flush_seconds: 0.2}}\n"
    bank, data = new_bank(EVERYTHING + settings), tmp_path / "data"
    for day in days(date(2026, 1, 1), FIRST):
        deliver(data, day)
    first_run = bank.run(data, str(FIRST))
    first = first_run["pushed_version"]
    watch = None
    try:
        with serving(bank, port, data) as server:
            watch = start(bank, data, "--from", FIRST + timedelta(1))
            drifts = FIRST + timedelta(2)
            for day in days(FIRST + timedelta(1), FIRST + timedelta(4)):
                change = dearer if day >= drifts else None
                source = SAMPLE / f"date={day}" / "transactions.parquet"
                table = parquet.ParquetFile(source).read()
                # Labels count once the delay is over, to the moment; later ones would be skew.
                known = SAMPLE / f"date={day - timedelta(7)}" / "transactions.parquet"
                server.label(parquet.ParquetFile(known).read())
                results = server.score(change(table) if change else table)
                assert len(results) == len(table)
                time.sleep(3)  # until the log is in Parquet
                deliver(data, day, change)
                until(lambda day=day: day in entries(bank) and entries(bank)[day].done, watch)
            trained = [
                entry
                for entry in entries(bank).values()
                if entry.pushed and entry.decision and "drift/TX_AMOUNT" in entry.decision.asking
            ]
            assert trained, actions(bank)
            version = trained[-1].pushed
            assert version != first
            assert evaluated_days(bank, first_run["run_id"]) == 7  # windows.eval_days
            assert evaluated_days(bank, trained[-1].training.run_id) == 3  # loop.change_eval_days
            until(lambda: server.score(table.slice(0, 1))[0]["version"] == version, watch)
    finally:
        if watch is not None:
            watch.terminate()
            watch.communicate(timeout=SECONDS)
    live = production.live(Metadata(), Root(bank.root))
    assert live and live.version == version
    status = bank.call("status").stdout
    assert f"live      version {version} " in status
    assert f"  {trained[-1].day}  version {version} went live: drift/TX_AMOUNT" in status
    told = bank.call("lineage", version)
    assert told.returncode == 0, told.stderr
    assert version in told.stdout and trained[-1].training.run_id in told.stdout
    assert {"drift", "push"} <= {r.alert.kind for r in raised_in(bank.root / "alerts")}


@pytest.mark.slow
def test_an_orchestrator_does_the_same_steps(new_bank, tmp_path: Path) -> None:
    """As `fraud_loop` does, but with `run` in place of the nodes of the graph."""
    bank, data = new_bank(EVERYTHING + POLICY), tmp_path / "data"
    for day in days(date(2026, 1, 1), FIRST + timedelta(1)):
        deliver(data, day)

    def decide(day: date, *options: object) -> dict:
        done = bank.call("decide", "--data", data, "--as-of", day, "--json", *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    for _ in range(2):  # a retry
        decided = decide(FIRST)
        assert decided["decision"] == "retrain" and decided["reasons"] == ["nothing is live"]
    ir = (Path(decided["graph"]) / "ir.json").read_text("utf-8")
    assert "TransactionExampleGen" in ir and (bank.root / "loop" / "run.yaml").exists()
    trained = bank.run(data, str(FIRST), "--config", bank.root / "loop" / "run.yaml")
    decide(FIRST, "--run", trained["run_id"])
    entry = entries(bank)[FIRST]
    assert entry.done and entry.pushed == trained["pushed_version"]
    assert decide(FIRST + timedelta(1))["decision"] in ("nothing", "hold")
    assert entries(bank)[FIRST + timedelta(1)].done
    too_late = bank.call("decide", "--data", data, "--as-of", FIRST + timedelta(1), "--run", "x")
    assert too_late.returncode == 2 and "no training was decided" in too_late.stderr


@pytest.mark.slow
def test_probation_promotes_a_model_and_refuses_another(new_bank, tmp_path: Path) -> None:
    """The second one by a limit that no model keeps to, set once the first one is live."""
    bank, data = new_bank(EVERYTHING + POLICY), tmp_path / "data"
    (bank.folder / "tried.yaml").write_text("loop: {probation_days: 2}")
    (bank.folder / "strict.yaml").write_text("loop: {max_score_shift: 0.000001}")
    tried, verified = FIRST + timedelta(6), FIRST + timedelta(9)
    second, last = FIRST + timedelta(12), FIRST + timedelta(14)
    for day in days(date(2026, 1, 1), last):
        deliver(data, day)
    options = ("--simulate", "--config", bank.folder / "tried.yaml")
    finish(start(bank, data, *options, "--until", verified))
    found = entries(bank)
    first, promoted = found[FIRST], found[tried]
    assert evaluated_days(bank, promoted.training.run_id) == 7  # for its age, not for a change
    assert first.training and first.training.outcome == "pushed"  # nothing was live
    assert promoted.training and promoted.training.outcome == "on_probation"
    assert promoted.promotion and promoted.promotion.outcome == "pushed"
    assert promoted.went_live == tried + timedelta(2) and promoted.verified_on == verified
    assert pushes(bank) == [(str(FIRST), False), (str(tried), False)]

    finish(start(bank, data, *options, "--config", bank.folder / "strict.yaml"))
    refused = entries(bank)[second]
    assert refused.training and refused.training.outcome == "on_probation"
    assert refused.promotion and refused.promotion.outcome == "not_promoted"
    assert "scores moved" in refused.promotion.reasons[0]
    assert len(pushes(bank)) == 2 and bank.versions()[-1] == promoted.pushed
    shown = bank.call("status").stdout
    assert f"{promoted.went_live}  version {promoted.pushed} went live: model_age" in shown
    assert f"{second}  not promoted: scores moved" in shown
    pruned = bank.call("prune", "--keep", "1")
    assert pruned.returncode == 0, pruned.stderr
    assert (Path(refused.promotion.model) / "saved_model.pb").exists()
    said = [raised.alert for raised in raised_in(bank.root / "alerts")]
    told = sorted(one.version for one in said if one.kind == "push")
    assert told == [first.pushed, promoted.pushed]


@pytest.mark.slow
def test_labels_and_repairs_are_noticed_and_a_person_may_overrule(new_bank, tmp_path: Path) -> None:
    bank, data = new_bank(EVERYTHING + POLICY), tmp_path / "data"
    for day in days(date(2026, 1, 1), FIRST):
        deliver(data, day)
    bank.run(data, str(FIRST))
    broken = days(FIRST + timedelta(1), FIRST + timedelta(2))
    for day in broken:
        deliver(data, day, without_channel)
    deliver(data, FIRST + timedelta(3))

    def watched() -> dict[date, Entry]:
        finish(start(bank, data, "--once", "--from", broken[0]))
        return entries(bank)

    assert [entry.is_broken for entry in watched().values()] == [True, True, False]
    before = {day: entry.looks for day, entry in watched().items()}
    assert set(before.values()) == {()}  # nothing has changed
    path = data / f"date={broken[0]}" / "transactions.parquet"
    path.with_name(".new").symlink_to(SAMPLE / f"date={broken[0]}" / "transactions.parquet")
    path.with_name(".new").rename(path)
    found = watched()
    assert [entry.is_broken for entry in found.values()] == [False, True, False]
    assert [len(entry.looks) for entry in found.values()] == [1, 1, 1]
    assert all(entry.done and entry.looks[0].changed == (broken[0],) for entry in found.values())
    approved = bank.call("decide", "--as-of", broken[1], "--approve", "a strike")
    assert approved.returncode == 0, approved.stderr
    shown = bank.call("status").stdout
    assert "not trained on" not in shown and f"{broken[1]}  approved by " in shown


@pytest.mark.slow
def test_killed_again_and_again_a_replay_ends_where_it_would_have_ended(
    new_bank, tmp_path: Path
) -> None:
    """Half of the kills end the loop alone: then a training that it began goes on without it."""
    data, last = tmp_path / "data", FIRST + timedelta(16)
    broken = days(FIRST + timedelta(3), FIRST + timedelta(4))
    for day in days(date(2026, 1, 1), last):
        deliver(data, day, without_channel if day in broken else None)
    undisturbed, victim = new_bank(EVERYTHING + POLICY), new_bank(EVERYTHING + POLICY)
    finish(start(undisturbed, data, "--simulate"))
    chance, kills = random.Random(14), 0
    wanted = int(os.environ.get("FRAUD_KILLS", "30"))
    while kills < wanted:
        process = start(victim, data, "--simulate")
        try:
            process.wait(timeout=chance.uniform(1, 40))
        except subprocess.TimeoutExpired:
            if chance.random() < 0.5:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            kills += 1
            check_whole(Root(victim.root))
            continue
        break  # it was done earlier
    print(f"{kills} kills")
    finish(start(victim, data, "--simulate"))
    assert kills >= min(wanted, 5)
    check_whole(Root(victim.root))
    assert pushes(victim) == pushes(undisturbed)
    decisions = [
        [(entry.day, entry.decision, entry.training and entry.training.outcome) for entry in of]
        for of in (entries(victim).values(), entries(undisturbed).values())
    ]
    assert decisions[0] == decisions[1]
    for bank in (victim, undisturbed):
        rows = [
            parquet.ParquetFile(path).metadata.num_rows
            for path in sorted((bank.root / "predictions").glob("date=*/*.parquet"))
        ]
        assert len(rows) == 16  # a file for each day after the first, none twice
    done = victim.call("verify", "--json")
    assert done.returncode == 0, done.stdout

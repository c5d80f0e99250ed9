"""Whatever is interrupted wherever: no version is lost, duplicated or half there.

Each test interrupts a command once and then runs again on the same root, so they build on each
other. The moments are random but repeatable: a test's name says which.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import pytest

from fraud import files
from fraud.pipeline import lineage, releases
from fraud.pipeline.config import Metadata
from fraud.pipeline.root import Root
from tests.e2e.conftest import SAMPLE, Bank
from tests.small_disk import mounted

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

# As little work as possible, and gates that let everything through.
CONFIG = """
dataset: {categorical: [CHANNEL, COUNTRY]}
windows: {train_days: 3, eval_days: 3, label_delay_days: 2}
features:
  groups:
    - {families: [count, mean], windows: [1]}
    - {families: [risk], windows: [1]}
network: {epochs: 1, members: 1, towers: [[8]], seed: 1}
data_gate: {max_drift: 1.0}
evaluation: {alert_budget: 15, min_average_precision: 0.0, min_roc_auc: 0.0,
             max_average_precision_drop: 1.0, max_roc_auc_drop: 1.0,
             min_recall_at_budget: 0.0, max_recall_at_budget_drop: 1.0}
"""
COPYING = r"/\.staging/"
PUBLISHING = r"/(releases|releases/\.?[0-9]+\.json[.0-9]*|pushed|pushed/[0-9]+)$"
"""The eight changes that publish a version: journal written, renamed, flushed; folder renamed,
flushed; (ML Metadata records it); journal written, renamed, flushed."""

SCORE = """
import sys, tensorflow as tf
for folder in sys.argv[1:]:
    model = tf.saved_model.load(folder)
    example = tf.constant([tf.train.Example().SerializeToString()])
    assert 0 <= float(model.signatures["serving_default"](example)["score"][0]) <= 1
"""


@dataclass
class Victim:
    """A bank whose commands get interrupted.

    Attributes:
      as_of: the as-of day of the latest run.
      model: the seed of the latest model.
      timeline: seconds from the start of a whole run to the end of each of its nodes, by node.
      changes: how often a whole run changes the root, see `interruption/sitecustomize.py`.
    """

    bank: Bank
    as_of: date = date(2026, 2, 9)
    model: int = 1
    timeline: dict[str, float] = field(default_factory=dict)
    changes: int = 0

    @property
    def root(self) -> Root:
        return Root(self.bank.root)

    def new_day(self) -> None:
        """Makes every node of the next run work."""
        self.as_of += timedelta(days=1)

    def new_model(self) -> None:
        """Makes the nodes of the next run work from the Trainer on."""
        file = self.bank.folder / "fraud.yaml"
        text = file.read_text().replace(f"seed: {self.model}}}", f"seed: {self.model + 1}}}")
        self.model += 1
        file.write_text(text)

    def start(self, command: str, *arguments: str, **interruption: object) -> subprocess.Popen[str]:
        """Starts a command in a process group of its own."""
        if command == "run":
            options = ["--as-of", str(self.as_of), "--push-replays", "--json"]
            arguments = ("--data", str(SAMPLE), *options)
        elif command == "rollback":
            live, *older = self.pushes()
            other = next(push.version for push in older if push.model_id != live.model_id)
            arguments = (*arguments, "--to", other, "--reason", "test")
        plan = {"below": str(self.bank.root), "match": "", "at": 0, "kill_after": None}
        plan |= {"leave": None, "filler": str(self.bank.root / "filler"), "trace": None}
        environment = {
            **os.environ,
            "INTERRUPTION": json.dumps(plan | interruption),
            "PYTHONPATH": str(Path(__file__).parent / "interruption"),
        }
        return subprocess.Popen(
            self.bank.command(command, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.bank.code,
            env=environment,
            start_new_session=True,
        )

    def call(self, command: str, *arguments: str, **interruption: object) -> tuple[int, str, str]:
        process = self.start(command, *arguments, **interruption)
        stdout, stderr = process.communicate()
        return process.returncode, stdout, stderr

    def succeed(self, command: str, *arguments: str) -> dict:
        code, stdout, stderr = self.call(command, *arguments, "--json")
        assert code == 0, stderr
        return json.loads(stdout)

    def pushes(self) -> list[lineage.Champion]:
        store = lineage.find_store(Metadata(), self.root)
        return list(lineage.pushes(store)) if store else []

    def versions(self) -> dict[str, str]:
        """The versions that a server finds, each with the digest of its files."""
        return {name: files.digest(self.root.pushed / name) for name in releases.folders(self.root)}

    def check_whole(self, before: dict[str, str]) -> None:
        """No version is half there, and none that was there is gone or changed."""
        now = self.versions()
        assert before.items() <= now.items()
        promised = {entry.version: entry.digest for entry in releases.journal(self.root)}
        assert now == {version: promised[version] for version in now}

    def check_clean(self, before: dict[str, str]) -> None:
        """`check_whole`, and every version is recorded, once, and `verify` finds nothing."""
        self.check_whole(before)
        assert sorted(self.versions()) == sorted(push.version for push in self.pushes())
        pushed = [push.model_id for push in self.pushes() if not push.restored]
        assert len(pushed) == len(set(pushed)), "one push, two versions"
        code, stdout, _ = self.call("verify")
        assert (code, stdout.splitlines()[1:]) == (0, []), stdout


def prepared(bank, tmp_path_factory) -> Victim:
    """A bank with two versions, and what a whole run does."""
    victim = Victim(bank)
    trace = tmp_path_factory.mktemp("trace") / "changes.txt"
    for _ in range(2):
        victim.new_day()
        process = victim.start("run", trace=str(trace))
        started = time.monotonic()
        for line in process.stderr:
            if name := re.match(r"  ✓ (.+?)  ", line):
                victim.timeline[name[1]] = time.monotonic() - started
        assert process.wait() == 0
    victim.changes = len(trace.read_text().splitlines()) // 2
    assert len(victim.versions()) == 2
    return victim


@pytest.fixture(scope="module")
def victim(new_bank, tmp_path_factory) -> Victim:
    return prepared(new_bank(CONFIG), tmp_path_factory)


def kill_run(victim: Victim, moment: float) -> tuple[dict[str, str], int]:
    """Runs a new day and kills that when a part of it has passed, by its own progress.

    The part is counted in nodes that have ended and, between two of them, in the time that the next
    one took in an earlier run. If that was slower, the next node may have ended before; if so is
    the whole run, an earlier moment of another one is tried.

    Args:
      victim: whose run.
      moment: from 0 to 1, the part of the run that has passed.

    Returns:
      The versions, and how many pushes were recorded, before the run that was killed.
    """
    names = [*victim.timeline]
    ends = [0.0, *victim.timeline.values()]
    for _ in range(9):
        victim.new_day()
        before, pushes = victim.versions(), len(victim.pushes())
        passed = int(moment * len(names))
        process = victim.start("run")
        for line in process.stderr if passed else ():
            if f" {names[passed - 1]} " in line:
                break
        time.sleep((moment * len(names) - passed) * (ends[passed + 1] - ends[passed]))
        # The process group exists as long as its leader has not been waited for.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            return before, pushes
        moment *= 0.9
    pytest.fail("no run was ever killed")


# 11 kills at any moment of a run, 11 inside the Pusher, 8 inside a rollback, mixed.
KILLS = sorted(
    [
        *((i / 11, f"moment-{i}") for i in range(11)),
        *((i / 8, f"push-publishing-{i + 1}") for i in range(8)),
        *((i / 3, f"push-copying-{i}") for i in range(3)),
        *((i / 6, f"rollback-publishing-{i + 1}") for i in (2, 3, 4, 5, 6, 7)),
        *((i / 2, f"rollback-copying-{i}") for i in range(2)),
    ]
)


@pytest.mark.parametrize(("seed", "name"), [(i, name) for i, (_, name) in enumerate(KILLS)])
def test_after_a_kill_a_run_succeeds_and_the_root_is_whole(victim, seed, name):
    what, *rest = name.split("-")
    number = int(rest[-1])
    rng = random.Random(seed)
    before, pushes, code = victim.versions(), len(victim.pushes()), -signal.SIGKILL
    if what == "moment":
        before, pushes = kill_run(victim, (number + rng.random()) / 11)
    else:
        point = {"match": COPYING, "at": rng.randint(1, 20), "kill_after": 0}
        if rest[0] == "publishing":
            point = {"match": PUBLISHING, "at": number, "kill_after": 0}
        if what == "push":
            victim.new_model()
            # Some die a little later: while SQLite writes, say.
            point["kill_after"] = rng.choice([0, rng.uniform(0.001, 0.05)])
            code, *_ = victim.call("run", **point)
        else:
            code, *_ = victim.call("rollback", **point)
    assert code == -signal.SIGKILL
    victim.check_whole(before)

    after = len(victim.pushes())
    if what == "rollback" and seed % 2:
        victim.succeed("rollback")
        assert len(victim.pushes()) == after + 1
    else:
        summary = victim.succeed("run")
        newest = victim.pushes()[0]
        assert summary["live_version"] == newest.version
        if what == "rollback":
            assert len(victim.pushes()) == after
        else:
            assert summary["outcome"] == "pushed"
            assert len(victim.pushes()) == pushes + 1
    victim.check_clean(before)


def test_in_the_end_every_version_loads(victim):
    folders = [str(victim.root.pushed / name) for name in victim.versions()]
    subprocess.run([sys.executable, "-c", SCORE, *folders], check=True, capture_output=True)


@pytest.fixture(scope="module")
def small(new_bank, tmp_path_factory) -> Iterator[Victim]:
    bank = new_bank(CONFIG)
    bank.root.mkdir()
    with mounted(bank.root, megabytes=256):
        yield prepared(bank, tmp_path_factory)


# Where the disk fills up, and how many bytes are left then; 1 MB is kept free for records.
RECORDING = r"/metadata\.sqlite$"
FULL = [
    ("run", "", 0),
    ("run", "", 1 << 16),
    ("run", "", (1 << 20) + (1 << 13)),
    ("run", "", (1 << 20) + (1 << 17)),
    ("run", RECORDING, 5 << 12),
    ("run", RECORDING, 13 << 12),
    ("run", RECORDING, 24 << 12),
    ("run", PUBLISHING, 0),
    ("rollback", COPYING, 0),
    ("rollback", PUBLISHING, 1 << 12),
]


@pytest.mark.parametrize(
    ("seed", "command", "match", "leave"), [(i, *point) for i, point in enumerate(FULL)]
)
def test_on_a_full_disk_a_command_says_so_and_the_root_is_whole(small, seed, command, match, leave):
    rng = random.Random(seed)
    before = small.versions()
    if command == "run":
        small.new_day()
    # With more than 1 MB left, only what a run writes later fills the disk.
    changes = small.changes if leave < 1 << 20 else small.changes // 2
    last = {"": changes, RECORDING: 40, PUBLISHING: 4, COPYING: 20}[match]
    code, _, stderr = small.call(command, match=match, at=rng.randint(1, last), leave=leave)
    (small.root.path / "filler").unlink()
    assert code == 1, stderr
    (message,) = re.findall(r"^fraud-pipeline: .*", stderr, re.MULTILINE)
    assert "disk is full" in message or "No space left on device" in message
    assert "Traceback" not in stderr
    assert len(message) < 300
    small.check_whole(before)

    if command == "run":
        assert small.succeed("run")["outcome"] == "pushed"
    else:
        small.succeed("rollback")
    assert len(small.versions()) == len(before) + 1
    small.check_clean(before)

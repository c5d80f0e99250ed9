"""The demo with real trainings, on ten days of a small bank."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.demo import story
from benchmarks.demo.__main__ import BANK_SETTINGS, LOOP_SETTINGS, replay
from benchmarks.demo.bank import Bank
from fraud.pipeline import config
from fraud.pipeline.config import WindowLengths


@pytest.mark.e2e
def test_policies_are_replayed_with_real_trainings(tmp_path: Path) -> None:
    first = story.START + timedelta(days=49)
    last = first + timedelta(days=9)
    lost = story.Event(story.BROKEN, "", last, last, ("data/COUNTRY",))
    small = config.load(LOOP_SETTINGS, BANK_SETTINGS)
    evaluation = replace(small.evaluation, min_average_precision=0.0, min_roc_auc=0.0)
    evaluation = replace(evaluation, min_recall_at_budget=0.0)
    small = replace(small, windows=WindowLengths(train_days=14), evaluation=evaluation)
    tables = [table for _, table in story.simulated(1, 250, 59, (lost,))]
    bank = Bank.of(pa.concat_tables(tables), small)
    said: list[str] = []
    done = replay(
        bank, ("never", "weekly", "loop"), (first, last), (lost,), tmp_path, 1, said.append
    )
    by_name = {policy.policy: policy for policy in done.policies}
    assert [by_name[name].trainings for name in ("never", "weekly")] == [0, 1]
    assert by_name["weekly"].cpu_seconds > by_name["never"].cpu_seconds
    for policy in done.policies:
        assert policy.weeks[0].frauds > 20
        assert policy.weeks[0].average_precision > 0.1  # of 1.6 % frauds
    assert done.loop is not None
    assert done.loop.held == (last,)
    assert done.loop.seen[0].detected == 0

    again = replay(bank, ("weekly",), (first, last), (lost,), tmp_path, 1, said.append)
    assert again.policies[0].weeks == by_name["weekly"].weeks  # from what was kept

"""How many folds run at once, and how the failure of one is reported."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pytest

from fraud.errors import BadInput, FraudPipelineError
from fraud.features.spec import Features
from fraud.pipeline.backtest import processes
from fraud.pipeline.config import Config
from tests.pipeline.backtest.reference import planned
from tests.pipeline.ingestion import transactions

CONFIG = Config(features=Features(calendar=(), groups=()))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports available memory")
def test_jobs_are_limited_by_folds_and_cores(monkeypatch):
    monkeypatch.setattr(processes, "PROCESS_BYTES", 0)
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 3)
    table = transactions.make()
    assert processes.jobs_that_fit(table, planned(count=2)) == 2
    assert processes.jobs_that_fit(table, planned(count=5)) == 3


def test_one_job_runs_however_little_memory_there_is(monkeypatch):
    monkeypatch.setattr(processes, "PROCESS_BYTES", 10**15)
    assert processes.jobs_that_fit(transactions.make(), planned(count=2)) == 1


def test_a_fold_without_fraud_is_bad_input(tmp_path):
    table = transactions.make()
    table = table.drop(["TX_FRAUD"]).append_column("TX_FRAUD", pa.array(np.zeros(len(table), int)))
    with pytest.raises(BadInput, match="no fraud in the train window"):
        list(processes.run(table, planned(count=1), CONFIG, [1], tmp_path, 1))


def test_another_failure_names_the_fold_and_its_log(tmp_path):
    table = transactions.make().drop(["TX_FRAUD"])
    with pytest.raises(FraudPipelineError, match=r"fold 1 failed: .*fold-1\.log"):
        list(processes.run(table, planned(count=1), CONFIG, [1], tmp_path, 1))

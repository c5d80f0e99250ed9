"""What becomes of runs in MLflow, in a store of its own that needs no server."""

from __future__ import annotations

import mlflow
import pytest

from fraud.pipeline import config
from fraud.pipeline.tracking import mirror
from tests.pipeline.recorded_runs import Records
from tests.report.web.test_app import HOSTILE, summary


@pytest.fixture
def tracked(tmp_path, monkeypatch):
    """Records, and a function that sends them and returns the runs in MLflow by name."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)  # where artifacts are kept
    records = Records(tmp_path / "root")

    def send() -> dict[str, mlflow.entities.Run]:
        mirror.send(config.Config(), records.root, lambda run_id: {})
        client = mlflow.MlflowClient()
        (experiment,) = client.search_experiments(filter_string="name = 'fraud'")
        runs = client.search_runs([experiment.experiment_id])
        by_name = {run.info.run_name: run for run in runs}
        assert len(by_name) == len(runs)
        return by_name

    return records, send


def test_runs_that_failed_or_were_killed_or_refused_are_there_with_their_reasons(tracked):
    records, send = tracked
    records.run("refused", "2026-01-10", ("2026-01-02", "2026-01-05"), passed=False)
    summary(records, "refused", "2026-01-10", "gate_stopped", reasons=(HOSTILE,))
    records.run("failed", "2026-01-10", ("2026-01-02", "2026-01-05"), passed=False)
    error = {"__execution_result__": f"out of memory {HOSTILE}"}
    records.node("failed", "Trainer", {}, {}, state="FAILED", **error)
    records.node("killed", "Trainer", {}, {}, state="CANCELED")
    # Its card was not written, but its version is live.
    records.run("killed-after-the-push", "2026-01-11", ("2026-01-02", "2026-01-05"), "100")
    records.node("running", "Trainer", {}, {}, state="RUNNING")
    records.node("between-two-nodes", "Trainer", {}, {})
    sent = send()
    status = {name: run.info.status for name, run in sent.items()}
    killed = dict.fromkeys(("killed", "killed-after-the-push"), "KILLED")
    assert status == {"refused": "FINISHED", "failed": "FAILED", **killed}
    assert sent["refused"].data.tags["outcome"] == "gate_stopped"
    assert sent["refused"].data.tags["reasons"] == HOSTILE
    failed = sent["failed"].data
    assert failed.tags["reasons"] == f"Trainer: out of memory {HOSTILE}"
    assert failed.params["windows/train"] == "2026-01-02 to 2026-01-05"
    assert "seconds/DataGate" in failed.metrics and "seconds/Trainer" not in failed.metrics
    assert sent["failed"].info.end_time >= sent["failed"].info.start_time > 0


def test_nothing_is_sent_twice_and_a_retry_that_finishes_replaces_the_failure(tracked):
    records, send = tracked
    records.node("r", "Trainer", {}, {}, state="FAILED")
    first = send()["r"]
    assert send()["r"].info.run_id == first.info.run_id
    records.node("r", "Trainer", {}, {})
    summary(records, "r", "2026-01-10", "not_pushed")
    again = send()["r"]
    assert (again.info.status, again.data.tags["outcome"]) == ("FINISHED", "not_pushed")

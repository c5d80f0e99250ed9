"""A run with a search before training, and a run with what it found."""

from pathlib import Path

import mlflow
import pytest
import yaml

from tests.e2e.conftest import CONFIG, SAMPLE
from tests.e2e.tracking_server import mlflow_server

__all__ = ["mlflow_server"]

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

AS_OF = "2026-03-13"
TUNING = """
tuning:
  {trials: 2, learning_rate: [0.02], weight_decay: [], dropout: [], column_dropout: [], epochs: [1],
   members: [], towers: [[[16], [8]]]}
"""


def test_what_is_found_is_used_and_can_be_used_again(new_bank, mlflow_server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    bank = new_bank(CONFIG.replace("paths: {schema: schema.pbtxt}", TUNING))
    first = bank.run(SAMPLE, AS_OF, "--tune")
    (line,) = [line for line in first["progress"].splitlines() if " Tuner " in line]
    assert "the best of 2" in line
    for trial in (1, 2):
        assert f"trial {trial} of 2: average precision" in first["progress"]
    found = yaml.safe_load(Path(first["tuned"]).read_text())["network"]
    assert set(found) == {"learning_rate", "epochs", "towers"}

    client = mlflow.MlflowClient(mlflow_server, mlflow_server)
    (experiment,) = client.search_experiments(filter_string="name = 'fraud'")
    sent = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(sent) == {first["run_id"], "trial 1", "trial 2"}
    for trial in (sent["trial 1"], sent["trial 2"]):
        assert trial.data.tags["mlflow.parentRunId"] == sent[first["run_id"]].info.run_id
        assert 0 < trial.data.metrics["average_precision"] < 1
        assert set(trial.data.params) >= {"learning_rate", "towers"}
    of_run = {file.path for file in client.list_artifacts(sent[first["run_id"]].info.run_id)}
    assert "tuned.yaml" in of_run

    again = bank.run(SAMPLE, AS_OF, "--config", first["tuned"])
    (line,) = [line for line in again["progress"].splitlines() if " Transform " in line]
    assert "cached" in line
    assert again["tuned"] is None
    assert again["validation"] == first["validation"]
    assert again["metrics"] == first["metrics"]

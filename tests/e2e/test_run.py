"""The main job: first run, same run again, a later day, refused data; one bank, in this order."""

import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import mlflow
import pandas as pd
import pytest

from tests.e2e.conftest import REPOSITORY, SAMPLE, free_port
from tests.e2e.tracking_server import mlflow_server

__all__ = ["mlflow_server"]

pytestmark = pytest.mark.e2e

FIRST, LATER = "2026-03-13", "2026-03-20"

SCORE = """
import json, sys
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
transaction = json.loads(sys.argv[2])
def feature(value):
    if isinstance(value, str):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
    return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
example = tf.train.Example()
for name, value in transaction.items():
    example.features.feature[name].CopyFrom(feature(value))
by_example = model.signatures["serving_default"](tf.constant([example.SerializeToString()]))
predict = model.signatures["predict"]
missing = {tf.string: "", tf.float32: float("nan")}
columns = {
    name: tf.constant([transaction.get(name, missing[spec.dtype])], spec.dtype)
    for name, spec in predict.structured_input_signature[1].items()
}
by_name = predict(**columns)
loaded = [m for m in ("pipeline", "models", "features", "tfx", "keras_cv") if m in sys.modules]
print(json.dumps([float(by_example["score"][0]), float(by_name["score"][0]), loaded]))
"""


@pytest.fixture(scope="module")
def bank(new_bank):
    return new_bank()


@pytest.fixture(scope="module")
def first(bank):
    """A schema is curated from a run that had none, then the first real run."""
    file = bank.folder / "fraud.yaml"
    configuration = file.read_text()
    # Another model: the same one would not be pushed again.
    without_schema = configuration.replace("paths: {schema: schema.pbtxt}", "")
    file.write_text(without_schema.replace("epochs: 2", "epochs: 3"))
    uncurated = bank.run(SAMPLE, FIRST)
    assert any("none is curated" in note for note in uncurated["notes"])
    file.write_text(configuration)
    done = bank.call("schema", "--update")
    assert done.returncode == 0, done.stderr
    return bank.run(SAMPLE, FIRST, "--push-replays")


@pytest.fixture(scope="module")
def later(bank, first):
    return bank.run(SAMPLE, LATER)


def cached(run: dict) -> set[str]:
    """The nodes that a run took from the cache."""
    lines = run["progress"].splitlines()
    return {line.split()[1] for line in lines if " cached" in line}


def test_files_are_scored_with_the_features_and_scores_of_the_run(bank, first, tmp_path):
    """The eval window, read anew with its history, has the scores of the run's eval examples."""
    import numpy as np
    import tensorflow as tf
    from pyarrow import parquet

    from fraud.serving.models import LoadedModel

    for day in np.arange(*map(np.datetime64, first["windows"]["eval"])):
        (tmp_path / "days" / f"date={day}").parent.mkdir(exist_ok=True)
        (tmp_path / "days" / f"date={day}").symlink_to(SAMPLE / f"date={day}")
    out = tmp_path / "scored.parquet"
    done = bank.call("score", tmp_path / "days", "--history", SAMPLE, "--out", out, "--explain")
    assert done.returncode == 0, done.stderr
    scored = parquet.read_table(out)
    assert set(scored["prediction_version"].to_pylist()) == {first["pushed_version"]}
    reasons = scored["prediction_reasons"].to_pylist()
    assert [bool(r) for r in reasons] == scored["prediction_alert"].to_pylist()
    shards = min(bank.root.glob("artifacts/TransactionExampleGen/examples/*/Split-eval"))
    files = [str(path) for path in sorted(shards.iterdir())]
    records = [r.numpy() for r in tf.data.TFRecordDataset(files, "GZIP")]
    model = LoadedModel(Path(first["pushed_path"]))
    of_run = model.call("serving_default", {"examples": np.array(records, object)})["score"]
    ids = [
        tf.train.Example.FromString(r).features.feature["TRANSACTION_ID"].int64_list.value[0]
        for r in records
    ]
    expected = dict(zip(ids, of_run.tolist(), strict=True))
    found = dict(
        zip(
            scored["TRANSACTION_ID"].to_pylist(),
            scored["prediction_score"].to_pylist(),
            strict=True,
        )
    )
    assert len(found) > 5000
    differences = [abs(score - expected[number]) for number, score in found.items()]
    assert max(differences) < 1e-6


def test_the_first_run_ends_pushed(bank, first):
    assert first["outcome"] == "pushed"
    assert first["windows"] == {
        "train": ["2026-02-11", "2026-02-20"],
        "eval": ["2026-02-28", "2026-03-06"],
        "recent": ["2026-03-07", "2026-03-13"],
    }
    overall = first["metrics"]["overall"]
    assert overall["example_count"] == first["rows"]["eval"] > 10_000
    assert 0 < overall["average_precision"] <= 1
    assert {"CHANNEL=chip", "CHANNEL=online"} <= set(first["metrics"]["slices"])
    of_channels = [s["example_count"] for s in first["metrics"]["slices"].values()]
    assert sum(of_channels) == overall["example_count"]
    assert (bank.root / "pushed" / first["pushed_version"] / "saved_model.pb").exists()
    assert 0 < first["validation"]["threshold"] < 1
    assert {"average_precision", "brier"} <= set(first["validation"])
    assert f"fraud model {first['pushed_version']}" in Path(first["model_card"]).read_text()
    assert "TransactionExampleGen" in first["progress"]
    assert any("pushed although replay" in note for note in first["notes"])


def test_a_process_with_tensorflow_alone_scores_by_both_signatures(bank, first):
    transaction = {"TX_AMOUNT": 57.2, "CHANNEL": "online", "COUNTRY": "never seen", "night": 1.0}
    command = [sys.executable, "-I", "-c", SCORE, first["pushed_path"], json.dumps(transaction)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    by_example, by_name, loaded = json.loads(done.stdout)
    assert 0 < by_example < 1
    assert by_example == pytest.approx(by_name, abs=1e-6)
    assert loaded == []


def test_the_same_run_again_is_answered_from_the_cache(bank, first):
    before = bank.versions()
    again = bank.run(SAMPLE, FIRST, "--push-replays")
    assert again["pushed_version"] == first["pushed_version"]
    assert again["metrics"] == first["metrics"]
    assert again["model_card"] == first["model_card"]
    assert bank.versions() == before
    assert {"TransactionExampleGen", "Trainer", "Evaluator", "Pusher"} <= cached(again)
    assert "ModelCardGen" in cached(again)


def test_a_later_day_is_judged_against_the_champion(bank, first, later):
    assert later["champion_metrics"]["overall"]["example_count"] == later["rows"]["eval"]
    assert not any("no champion" in note for note in later["notes"])
    assert later["windows"]["recent"][1] == LATER
    assert later["outcome"] == "pushed"
    assert later["pushed_version"] > first["pushed_version"]


def test_a_run_leaves_a_report_and_its_lineage(bank, first, later):
    """What the components recorded for pictures is in the report, against the champion."""
    page = bank.root / "runs" / later["run_id"] / "report.html"
    text = page.read_text()
    assert page.stat().st_size < 3_000_000
    for title in ("Precision and recall", "Precision of checks by day", "Change from the champion"):
        assert f"<figcaption>{title}</figcaption>" in text
    assert "What moves the score" in text and "Average precision on held-out data" in text
    assert "champion" in text and f"pushed as version {later['pushed_version']}" in text
    done = bank.call("lineage", later["pushed_version"], "--json")
    assert done.returncode == 0, done.stderr
    of_version = json.loads(done.stdout)
    (data,) = of_version["data"]
    assert data["windows"]["train"] == later["windows"]["train"]
    assert len({file["fingerprint"] for file in data["files"]}) == len(data["files"]) > 20
    of_day = bank.call("lineage", "2026-02-15").stdout
    assert first["pushed_version"] in of_day and later["pushed_version"] in of_day


def test_tensorboard_and_tfma_open_what_runs_leave(bank, later):
    """As docs/report.md says: a real TensorBoard serves the trainings, and TFMA the evaluations."""
    port = free_port()
    logs = bank.root / "artifacts" / "Trainer" / "model_run"
    command = [Path(sys.prefix, "bin", "tensorboard"), "--logdir", logs, "--port", str(port)]
    board = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        tags = {}
        for _ in range(240):
            with suppress(OSError, httpx.HTTPError):
                address = f"http://127.0.0.1:{port}/data/plugin/scalars/tags"
                tags = httpx.get(address, timeout=60).json()
            if len(tags) >= 2:
                break
            time.sleep(0.5)
    finally:
        board.kill()
        board.wait()
    names = {tag for of_run in tags.values() for tag in of_run}
    assert {"epoch_loss", "epoch_average_precision"} <= names
    evaluations = sorted(
        (bank.root / "artifacts" / "Evaluator" / "evaluation").iterdir(), key=lambda p: int(p.name)
    )
    code = (
        "import sys, tensorflow_model_analysis as tfma\n"
        "result = tfma.load_eval_result(sys.argv[1], model_name='challenger')\n"
        "by_slice = result.get_metrics_for_all_slices(output_name='score')\n"
        "print(by_slice[()]['average_precision']['doubleValue'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, evaluations[-1]], capture_output=True, text=True, check=True
    )
    expected = later["metrics"]["overall"]["average_precision"]
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(expected)


def test_status_names_what_is_live(bank, later):
    found = json.loads(bank.call("status", "--json").stdout)
    assert found["live"]["version"] == later["pushed_version"]
    assert found["live"]["as_of"] == LATER
    assert found["live"]["code"]["packages"]["tfx"]
    assert found["runs"][0]["outcome"] == "pushed"
    assert later["pushed_version"] in bank.call("status").stdout


def test_broken_data_stops_the_run_before_training(bank, later, tmp_path):
    """The same transactions, but COUNTRY and amounts change in the middle of the recent window."""
    simulate = [
        sys.executable,
        "-m",
        "fraud.pipeline.cli",
        "simulate",
        "--out",
        str(tmp_path / "days"),
    ]
    drifts = ["--drift", "broken_column@2026-03-17", "--drift", "amount_shift@2026-03-17"]
    subprocess.run(
        [*simulate, "--days", "80", "--seed", "1", *drifts],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    before = bank.versions()
    stopped = bank.run(tmp_path / "days", LATER, expect=3)
    assert stopped["outcome"] == "gate_stopped"
    assert bank.versions() == before
    assert "Trainer" not in stopped["seconds"]
    named = {(a["feature"], a["window"]) for a in stopped["anomalies"]}
    assert ("COUNTRY", "recent") in named
    for baseline in ("champion", "reference"):
        assert ("TX_AMOUNT", f"recent against the {baseline}'s train") in named
    diff = bank.call("schema", "--diff")
    assert diff.returncode == 0
    assert "+" in diff.stdout
    assert "COUNTRY" in diff.stdout
    live = json.loads(bank.call("status", "--json").stdout)
    assert live["live"]["version"] == later["pushed_version"]
    assert live["runs"][0]["outcome"] == "gate_stopped"


def test_after_an_edit_only_what_depends_on_it_runs_again(bank, later, tmp_path):
    """The network with another activation, in a copy of the package as a wheel would install it."""
    shutil.copytree(REPOSITORY / "fraud", tmp_path / "fraud")
    edited = replace(bank, code=tmp_path)
    architecture = tmp_path / "fraud" / "models" / "network" / "architecture.py"
    text = architecture.read_text()
    architecture.write_text(text.replace("ops.relu", "ops.tanh"))
    assert architecture.read_text() != text
    again = edited.run(SAMPLE, LATER)
    before_training = {"TransactionExampleGen", "StatisticsGen", "DataGate", "Transform"}
    assert before_training <= cached(again)
    assert not {"Trainer", "Evaluator", "ServingCheck", "Pusher"} & cached(again)
    assert {"Trainer", "Evaluator", "ServingCheck", "Pusher"} <= set(again["seconds"])
    assert again["metrics"] != later["metrics"]


def test_a_day_that_is_not_later_is_a_replay_and_does_not_replace_production(bank, first, later):
    before = bank.versions()
    again = bank.run(SAMPLE, FIRST)
    assert again["outcome"] == "replay"
    assert LATER in again["reasons"][0]
    assert again["live_version"] == later["pushed_version"]
    assert bank.versions() == before


def test_a_rollback_lasts_until_a_better_model_comes(bank, first, later):
    done = bank.call("rollback", "--reason", "too many alerts", "--json")
    assert done.returncode == 0, done.stderr
    restored = json.loads(done.stdout)["version"]
    assert restored == bank.versions()[-1]
    pushed = bank.root / "pushed"
    weights = Path("variables", "variables.data-00000-of-00001")
    of_first = (pushed / first["pushed_version"] / weights).read_bytes()
    assert (pushed / restored / weights).read_bytes() == of_first
    live = json.loads(bank.call("status", "--json").stdout)["live"]
    assert (live["version"], live["as_of"], live["run_id"]) == (restored, FIRST, first["run_id"])
    assert live["rollback"]["reason"] == "too many alerts"

    same = bank.run(SAMPLE, LATER)
    assert (same["outcome"], same["live_version"]) == ("not_pushed", restored)
    assert "rolled back" in same["reasons"][0]
    assert same["champion_metrics"] == later["champion_metrics"]
    assert "Pusher" in same["seconds"]
    own = bank.run(SAMPLE, FIRST)
    assert (own["outcome"], own["reasons"]) == (
        "not_pushed",
        [f"identical to version {restored}, which is live"],
    )
    assert own["champion_metrics"] == first["champion_metrics"]


def test_mlflow_gets_every_run_once_and_knows_the_champion(
    bank, first, later, mlflow_server, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    live = json.loads(bank.call("status", "--json").stdout)["live"]
    done = bank.call("track", "--json")
    assert done.returncode == 0, done.stderr
    sent = json.loads(done.stdout)
    finished = sorted(path.parent.name for path in (bank.root / "runs").glob("*/summary.json"))
    assert sorted(sent["runs"]) == finished and later["run_id"] in finished
    assert json.loads(bank.call("track", "--json").stdout)["runs"] == []

    client = mlflow.MlflowClient(mlflow_server, mlflow_server)
    champion = client.get_model_version_by_alias("fraud", "champion")
    assert champion.version == sent["champion"]
    # What is live was restored by a rollback: its weights are those of the first push.
    assert live["version"] != first["pushed_version"] == champion.tags["pushed_version"]

    (experiment,) = client.search_experiments(filter_string="name = 'fraud'")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    (run,) = (run for run in runs if run.info.run_name == later["run_id"])
    assert run.info.status == "FINISHED" and run.data.tags["outcome"] == "pushed"
    assert run.data.params["network/epochs"] == "2"
    overall = later["metrics"]["overall"]
    assert run.data.metrics["average_precision"] == pytest.approx(overall["average_precision"])
    assert run.data.metrics["champion/average_precision"] == pytest.approx(
        later["champion_metrics"]["overall"]["average_precision"]
    )
    of_chip = later["metrics"]["slices"]["CHANNEL=chip"]["average_precision"]
    assert run.data.metrics["slices/CHANNEL/chip/average_precision"] == pytest.approx(of_chip)
    data = {i.tags[0].value: json.loads(i.dataset.profile) for i in run.inputs.dataset_inputs}
    assert {window: profile["num_rows"] for window, profile in data.items()} == later["rows"]
    kept = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"summary.json", "report.html", "model_card.html", "figures", "model"} <= kept

    mlflow.set_tracking_uri(mlflow_server)
    model = mlflow.pyfunc.load_model(f"models:/fraud/{champion.version}")
    rows = pd.DataFrame(
        {"TX_AMOUNT": [900.0, 12.5], "CHANNEL": ["online", None], "MERCHANT_CATEGORY": ["fuel"] * 2}
    )
    folder = bank.root / "pushed" / live["version"]
    expected = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", SCORE, str(folder), json.dumps(row)],
                check=True,
                capture_output=True,
            ).stdout
        )[1]
        for row in (dict(rows.loc[0]), {"TX_AMOUNT": 12.5, "MERCHANT_CATEGORY": "fuel"})
    ]
    assert model.predict(rows)["score"].tolist() == pytest.approx(expected, rel=1e-5)


def test_an_mlflow_server_that_is_down_fails_nothing(bank, later, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    done = bank.call("track")
    assert done.returncode == 1
    assert done.stderr.startswith("fraud-pipeline: MLflow: ") and len(done.stderr.splitlines()) == 1
    done = bank.call("rollback", "--to", later["pushed_version"], "--reason", "back again")
    assert done.returncode == 0
    assert "warning: MLflow: " in done.stderr and "Traceback" not in done.stderr


def test_after_all_that_the_root_agrees_with_itself(bank, later):
    done = bank.call("verify")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(": clean\n")

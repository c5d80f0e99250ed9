"""A run, a server that scores two weeks and gets their labels, and what the monitor says of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import parquet

from fraud.errors import BadInput
from fraud.models.evaluation.metrics import average_precision
from fraud.monitoring.checks import Kind, Observation, Verdict
from fraud.pipeline import artifacts, config, lineage
from fraud.pipeline.console import Console
from fraud.pipeline.root import Root
from fraud.serving.prediction_log import PredictionLog
from tests.e2e.conftest import SAMPLE, Bank
from tests.serving.exported import serving

pytestmark = pytest.mark.e2e

TRAINED, AS_OF = date(2026, 3, 7), date(2026, 3, 21)
ROWS = 2000  # in a request


def day_of_sample(day: date) -> pa.Table:
    (file,) = (SAMPLE / f"date={day}").glob("*.parquet")
    return parquet.ParquetFile(file).read()


@pytest.fixture(scope="module")
def bank(new_bank) -> Bank:
    """Every transaction and label goes to the server when it would have in life."""
    bank = new_bank()
    assert bank.run(SAMPLE, str(TRAINED))["outcome"] == "pushed"
    build = bank.command("state", "--data", SAMPLE, "--as-of", TRAINED)
    build.insert(build.index("state") + 1, "build")
    subprocess.run(build, check=True, capture_output=True, cwd=bank.code)
    with serving(bank.root, "--config", str(bank.folder / "fraud.yaml")) as server:
        for i in range(1, (AS_OF - TRAINED).days + 1):
            day = TRAINED + timedelta(days=i)
            old = day_of_sample(day - timedelta(days=7))
            labels = [
                {"id": id_, "label": label}
                for id_, label in zip(
                    old["TRANSACTION_ID"].to_pylist(), old["TX_FRAUD"].to_pylist(), strict=True
                )
            ]
            assert server.post("/v1/labels", {"labels": labels}).status_code == 200
            rows = day_of_sample(day).drop(["TX_FRAUD"]).sort_by("TX_DATETIME").to_pylist()
            for row in rows:
                row["TX_DATETIME"] = row["TX_DATETIME"].isoformat()
            for start in range(0, len(rows), ROWS):
                request = {"transactions": rows[start : start + ROWS]}
                answer = server.post("/v1/transactions:score", request)
                assert answer.status_code == 200, answer.text
        server.stop()
    return bank


def look(bank: Bank, data: Path, as_of: date) -> Observation:
    """A look in this process, which has TFX."""
    from fraud.pipeline.runners import monitor

    settings = config.load(str(bank.folder / "fraud.yaml"))
    return monitor.look(settings, Root(bank.root), str(data), as_of, Console())


def verdicts(observation: Observation, kind: Kind) -> dict[str, Verdict]:
    return {c.name: c.verdict for c in observation.checks if c.kind is kind}


def test_a_sound_fortnight(bank):
    done = bank.call("monitor", "--data", SAMPLE, "--as-of", AS_OF, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["decision"] in ("nothing", "retrain")  # two epochs are no good model
    checks = {check["name"]: check for check in document["checks"]}
    of_skew = {c["name"]: c for c in document["checks"] if c["kind"] == "skew"}
    assert len(of_skew) == 5 + 2 + 8 + 4  # columns, calendar, both entities, their risk
    # The server computed from its state what the batch path computes from the files.
    assert {c["value"] for c in of_skew.values()} == {0.0}
    assert {c["verdict"] for c in document["checks"] if c["kind"] == "data"} == {"ok"}
    assert checks["scored"]["value"] == 1
    assert checks["model_age"]["value"] == 14

    log = PredictionLog(bank.root / "predictions").read(date(2026, 3, 8), date(2026, 3, 14))
    labelled = pa.concat_tables([day_of_sample(date(2026, 3, 8 + i)) for i in range(7)])
    ids = labelled["TRANSACTION_ID"].cast(pa.string()).combine_chunks()
    order = pc.index_in(log.transactions["TRANSACTION_ID"].combine_chunks(), ids).to_numpy()
    labels = labelled["TX_FRAUD"].to_numpy()[order]
    expected = average_precision(labels, log.score)
    found = checks["average_precision"]
    assert found["value"] == pytest.approx(expected, abs=1e-6)
    assert found["interval"][0] < expected < found["interval"][1]
    assert sum(day["frauds"] for day in document["days"]) == int(np.sum(labels))

    gauges = (bank.root / "monitoring" / "fraud_monitoring.prom").read_text()
    labels_of_gauge = '{check="average_precision",kind="performance"}'
    assert f"fraud_check_value{labels_of_gauge} {found['value']}" in gauges
    store = lineage.find_store(config.Config().metadata, Root(bank.root))
    (recorded,) = lineage.observations(store)
    assert artifacts.observation(recorded).checks[0].name == document["checks"][0]["name"]
    assert lineage.runs(store) == [run for run in lineage.runs(store) if "monitor" not in run]
    assert len(lineage.runs(store)) == 1


def test_the_record_says_what_it_was_made_from(bank):
    look(bank, SAMPLE, AS_OF)
    store = lineage.find_store(config.Config().metadata, Root(bank.root))
    last = lineage.observations(store)[-1]
    (event,) = store.get_events_by_artifact_ids([last.id])
    events = store.get_events_by_execution_ids([event.execution_id])
    read = {e.path.steps[0].key for e in events if e.type in lineage.INPUT_EVENTS}
    assert read == {"pushed_model", "statistics", "evaluation", "examples"}


def test_before_labels_arrive_performance_cannot_be_judged(bank):
    observation = look(bank, SAMPLE, date(2026, 3, 12))
    performance = verdicts(observation, Kind.PERFORMANCE)
    promised = {name for name in performance if name.endswith("/promised")}  # by the Evaluator
    assert len(promised) == 2
    assert {performance[name] for name in performance.keys() - promised} == {Verdict.CANNOT_JUDGE}
    assert verdicts(observation, Kind.DATA)["data/rows"] is Verdict.OK
    assert verdicts(observation, Kind.SCORES)["alert_rate"] is not Verdict.CANNOT_JUDGE


def test_a_column_that_is_lost_in_the_data_folder(bank, tmp_path):
    """The server saw it, the data folder has lost it: broken, and not what was scored."""
    data = tmp_path / "transactions"
    shutil.copytree(SAMPLE, data)
    (file,) = (data / f"date={AS_OF}").glob("*.parquet")
    table = day_of_sample(AS_OF)
    at = table.schema.get_field_index("COUNTRY")
    table = table.set_column(at, "COUNTRY", pa.nulls(len(table), pa.string()))
    parquet.write_table(table, file)
    observation = look(bank, data, AS_OF)
    assert verdicts(observation, Kind.DATA)["data/COUNTRY"] is Verdict.ACT
    assert verdicts(observation, Kind.SKEW)["skew/COUNTRY"] is Verdict.ACT
    assert verdicts(observation, Kind.DRIFT)["drift/COUNTRY"] is Verdict.OK
    assert observation.days[-1].broken == ("COUNTRY",)


def test_unusable_data_is_named_and_nothing_is_recorded(bank, tmp_path):
    store = lineage.find_store(config.Config().metadata, Root(bank.root))
    before = len(lineage.observations(store))
    done = bank.call("monitor", "--data", tmp_path / "nothing")
    assert done.returncode == 2
    assert "nothing" in done.stderr and "Traceback" not in done.stderr
    done = bank.call("monitor", "--data", SAMPLE, "--as-of", "2027-01-01")
    assert done.returncode == 2
    assert "there are no transactions in" in done.stderr and "Traceback" not in done.stderr
    # What only the component finds is an error of the same kind.
    data = tmp_path / "transactions"
    shutil.copytree(SAMPLE, data)
    (file,) = (data / f"date={AS_OF}").glob("*.parquet")
    table = day_of_sample(AS_OF)
    at = table.schema.get_field_index("TX_AMOUNT")
    parquet.write_table(table.set_column(at, "TX_AMOUNT", pa.array([np.inf] * len(table))), file)
    with pytest.raises(BadInput, match="TX_AMOUNT"):
        look(bank, data, AS_OF)
    assert len(lineage.observations(store)) == before

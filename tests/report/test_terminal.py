import json
import math
from dataclasses import fields

import pytest
import yaml
from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.codec import to_json
from fraud.errors import BadInput
from fraud.pipeline.artifacts import SUMMARY_FILE, Anomaly, Change, RunSummary
from fraud.pipeline.lineage import NodeRecord
from fraud.report import terminal


def summary(**different) -> RunSummary:
    values = {
        "run_id": "r",
        "outcome": "pushed",
        "pushed_version": "17",
        "pushed_path": "root/pushed/17",
        "live_version": "17",
        "windows": {"train": ("2026-02-12", "2026-02-21")},
        "rows": {"train": 1000},
        "positives": {"train": 10},
        "seconds": {"Trainer": 2.0},
        "root": "root",
    }
    return RunSummary(**{**values, **different})


def test_the_summary_shows_threshold_and_calibration_in_one_line():
    validation = {"threshold": 0.51239, "brier": 0.0049, "expected_calibration_error": 0.001}
    lines = terminal.render(summary(validation=validation)).splitlines()
    (line,) = [line for line in lines if "Brier" in line]
    assert line == (
        "  model     threshold 0.5124 · Brier 0.0049 · ECE 0.0010, on held-out data "
        "(optimistic: they also chose epoch, calibration and threshold)"
    )


def test_what_was_not_measured_is_not_shown_as_a_number():
    assert "Brier –" in terminal.render(summary(validation={"threshold": 0.5}))
    assert "Brier" not in terminal.render(summary(outcome="gate_stopped"))


def test_the_page_of_a_pushed_model_is_named():
    assert "  card      root/card.html\n" in terminal.render(summary(model_card="root/card.html"))
    assert "card" not in terminal.render(summary(outcome="not_blessed"))


@pytest.mark.parametrize("outcome", ["not_blessed", "replay", "not_pushed", "gate_stopped"])
def test_a_run_that_did_not_push_names_the_reasons_and_what_is_live(outcome):
    text = terminal.render(summary(outcome=outcome, reasons=("because",)))
    assert "version 17 stays live" in text
    assert "    - because\n" in text
    assert ("not pushed: replay;" in text) == (outcome == "replay")


def test_a_disagreement_is_a_warning():
    assert "  warning   pushed/3: x\n" in terminal.render(summary(disagreements=("pushed/3: x",)))


def test_the_file_of_a_search_is_named():
    assert "  tuned     root/runs/r/tuned.yaml\n" in terminal.render(
        summary(tuned="root/runs/r/tuned.yaml")
    )


def test_the_table_has_the_champion_and_the_slices():
    metrics = {
        "overall": {"example_count": 1234.0, "roc_auc": 0.9},
        "slices": {"CHANNEL=chip": {"example_count": 34.0, "roc_auc": math.nan}},
    }
    champion = {"overall": {"example_count": 1234.0, "roc_auc": 0.8}, "slices": {}}
    text = terminal.render(
        summary(
            metrics=metrics,
            champion_metrics=champion,
            intervals={"overall": {"roc_auc": (0.87, 0.92)}, "slices": {}},
            changes={"roc_auc": Change(0.1, -0.02, 0.21, 0.01)},
            unjudged=("A=chip: recall gap", "A=chip: false-positive rate gap", "B=1: recall gap"),
        )
    )
    lines = [line.split() for line in text.splitlines() if line.strip()]
    rows = {first: others for first, *others in lines}
    table = [row for row in lines if row[0] in ("overall", "95", "champion", "change")]
    assert table == [
        ["overall", "1,234", "–", "0.900", "–", "–"],
        ["95", "%", "–", "0.870", "…", "0.920", "–", "–"],
        ["champion", "1,234", "–", "0.800", "–", "–"],
        ["change", "–", "+0.100", "–", "–"],
        ["95", "%", "–", "-0.020", "…", "+0.210", "–", "–"],
    ]
    assert rows["CHANNEL=chip"] == ["34", "–", "–", "–", "–"]
    assert "  unjudged  recall gap, too few examples: A=chip, B=1\n" in text
    assert "  unjudged  false-positive rate gap, too few examples: A=chip\n" in text


def test_drops_that_were_not_judged_are_named():
    few = Change(-0.1, None, None, None, unjudged=True)
    changes = {"roc_auc": few, "brier_skill": few, "precision_at_budget": Change(0.1, None, None)}
    metrics = {"overall": {"roc_auc": 0.9}, "slices": {}}
    assert (
        "  unjudged  drops from the champion (roc auc, brier skill): "
        "there are fewer than 10 independent frauds in eval; only the minima apply\n"
    ) in terminal.render(summary(metrics=metrics, changes=changes))
    assert "unjudged" not in terminal.render(summary(metrics=metrics))


def test_a_summary_read_from_its_file_is_rendered_as_before(tmp_path):
    anomaly = Anomaly("amount", "Unexpected", "", "error", "eval", "schema")
    windows = {"train": ("2026-01-01", "2026-01-02"), "eval": ("2026-01-03", "2026-01-04")}
    metrics = {"overall": {"roc_auc": math.nan}, "slices": {"a=b": {"recall_gap": None}}}
    written = summary(
        intervals={"overall": {"roc_auc": (0.5, 0.75)}, "slices": {"a=b": {}}},
        changes={
            "roc_auc": Change(-0.25, -0.5, None),
            "recall_at_budget": Change(None, None, None),
        },
        champion_metrics={"overall": {"roc_auc": 1.0}, "slices": {}},
        windows=windows,
        rows={"train": 10, "eval": 2},
        anomalies=(anomaly,),
        reasons=(str(anomaly),),
        metrics=metrics,
    )
    assert RunSummary.read(tmp_path) is None
    (tmp_path / SUMMARY_FILE).write_text(to_json(written))
    document = json.loads((tmp_path / SUMMARY_FILE).read_text(), parse_constant=pytest.fail)
    assert set(document) == {field.name for field in fields(RunSummary)}
    assert document["metrics"] == {
        "overall": {"roc_auc": None},
        "slices": {"a=b": {"recall_gap": None}},
    }
    assert document["intervals"]["overall"] == {"roc_auc": [0.5, 0.75]}
    assert document["changes"]["roc_auc"]["drop_probability"] is None
    assert (document["anomalies"][0]["feature"], document["model_card"]) == ("amount", None)
    found = RunSummary.read(tmp_path)
    assert found is not None
    assert (found.anomalies, found.reasons) == ((anomaly,), ("eval: amount: Unexpected",))
    assert terminal.render(found) == terminal.render(written)
    (tmp_path / SUMMARY_FILE).write_text("{}")
    with pytest.raises(BadInput, match="run_id"):
        RunSummary.read(tmp_path)


def node(name: str, type_: str, **properties) -> NodeRecord:
    artifact = mlmd.Artifact(type=type_)
    for key, content in properties.items():
        kind = "int_value" if isinstance(content, int) else "string_value"
        setattr(artifact.custom_properties[key], kind, content)
    return NodeRecord(name, "COMPLETE", {"output": [artifact]})


@pytest.mark.parametrize(
    ("record", "detail"),
    [
        (
            node("TransactionExampleGen", "Examples", rows='{"train": 1000, "eval": 2}'),
            "train 1,000 rows · eval 2 rows",
        ),
        (node("DataGate", "fraud.DataVerdict", passed=1), "passed"),
        (node("DataGate", "fraud.DataVerdict", passed=0), "stops the run"),
        (node("Evaluator", "ModelBlessing", blessed=0), "not blessed"),
        (node("ServingCheck", "InfraBlessing", blessed=1), "blessed"),
        (node("Pusher", "PushedModel", pushed=1, pushed_version="17"), "version 17"),
        (node("Pusher", "PushedModel", pushed=0), "nothing pushed"),
        (node("Champion", "PushedModel", pushed=1), ""),
        (node("ModelCardGen", "fraud.ModelCard", written=1), "written"),
        (node("ModelCardGen", "fraud.ModelCard", written=0), "none: nothing pushed"),
    ],
)
def test_the_progress_line_of_a_node(record, detail):
    assert terminal.node_detail(record) == detail


def stopped(*anomalies, **options):
    return terminal.render(summary(outcome="gate_stopped", anomalies=anomalies), **options)


def odd(source, feature="amount"):
    return Anomaly(feature, "odd", "very", "error", "recent", source)


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("schema", "fraud-pipeline schema --diff --config 'a b.yaml' --root r shows how"),
        ("drift", 'data_gate: {drift_thresholds: {"amount": 1}}'),
        ("empty", "data_gate.empty_columns"),
        ("labels", "windows.train_days"),
    ],
)
def test_a_stopped_run_says_what_to_do_about_its_cause(source, advice):
    text = stopped(odd(source), options=" --config 'a b.yaml' --root r")
    assert advice in text
    assert ("schema --diff" in text) is (source == "schema")
    assert ("reference_run" in text) is (source == "drift")


def test_rows_without_days_have_advice_without_windows_of_days():
    text = terminal.render(summary(outcome="gate_stopped", anomalies=(odd("labels"),), windows={}))
    assert "windows.hash_eval_percent" in text and "days" not in text


def test_without_a_file_for_the_schema_the_advice_names_its_key():
    text = stopped(odd("schema"), options=" --config c.yaml", has_schema=False)
    assert "paths.schema" in text and "fraud-pipeline schema --update --config c.yaml" in text
    assert "--diff" not in text


def test_the_advice_on_drift_can_be_pasted_into_the_configuration():
    text = stopped(odd("drift", "Händler: x"), odd("drift", "b"), odd("drift", "b"))
    (line,) = [line for line in text.splitlines() if "drift_thresholds" in line]
    gate = yaml.safe_load(line)["data_gate"]
    assert gate == {"drift_thresholds": {"Händler: x": 1, "b": 1}}


def test_only_logs_that_exist_are_named():
    assert "tensorboard" not in terminal.render(summary())
    text = terminal.render(summary(tensorboard="a root/model_run"))
    assert "tensorboard --logdir 'a root/model_run'\n" in text


def test_an_inferred_schema_is_to_be_reviewed():
    assert "our.pbtxt: inferred; review" in terminal.render(summary(inferred_schema="our.pbtxt"))

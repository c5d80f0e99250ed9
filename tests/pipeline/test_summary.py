import json
import math
from pathlib import Path

import pytest
from google.protobuf import text_format
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tensorflow_model_analysis.proto import validation_result_pb2

from fraud.codec import to_json
from fraud.models.entry_point import NETWORK_FILE, THRESHOLD_FILE
from fraud.models.specification import EXTRA
from fraud.pipeline import artifacts, config, lineage, summary
from fraud.pipeline.artifacts import (
    SUMMARY_FILE,
    VERDICT_FILE,
    Anomaly,
    Change,
    Evaluation,
    Metrics,
    ModelFacts,
    Push,
    RunSummary,
    ServingCheckResult,
    Verdict,
    _refusal,
    statistics_files,
    trial_scores,
    tuned_network,
)
from fraud.pipeline.lineage import NodeRecord
from fraud.pipeline.root import Root
from tests.report.test_run_report import drift


def artifact(uri: Path | str = "", **properties) -> mlmd.Artifact:
    new = mlmd.Artifact(uri=str(uri))
    for name, content in properties.items():
        kind = {float: "double_value", int: "int_value", str: "string_value"}[type(content)]
        setattr(new.custom_properties[name], kind, content)
    return new


def test_a_model_is_described_by_the_files_beside_its_graph(tmp_path):
    folder = tmp_path / "Format-Serving" / EXTRA
    folder.mkdir(parents=True)
    (folder / THRESHOLD_FILE).write_text(
        '{"threshold": 0.5, "validation": {"brier": 0.25, "roc_auc": null}}'
    )
    (folder / NETWORK_FILE).write_text('{"epochs": 2, "towers": [[8]]}')
    assert ModelFacts.read(artifact(tmp_path, run_id="r")) == ModelFacts(
        threshold=0.5,
        validation={"brier": 0.25, "roc_auc": None},
        network={"epochs": 2, "towers": [[8]]},
        run_id="r",
    )


def test_a_push_and_a_serving_check_are_read_from_properties():
    pushed = Push.read(artifact(pushed=1, pushed_version="17", pushed_destination="root/17"))
    assert (pushed.pushed, pushed.version, pushed.path) == (True, "17", "root/17")
    assert not Push.read(artifact(pushed=0)).pushed
    served = artifact(blessed=1, reason="", answer='{"examples": 100, "seconds": 0.1}')
    assert ServingCheckResult.read(served) == ServingCheckResult(True, "", 100)
    failed = artifact(blessed=0, reason="no answer", answer='{"error": "no answer"}')
    assert ServingCheckResult.read(failed) == ServingCheckResult(False, "no answer", None)


def test_statistics_are_named_by_split_with_train_first(tmp_path):
    for split in ("eval", "recent", "train"):
        (tmp_path / f"Split-{split}").mkdir()
    files = statistics_files(artifact(tmp_path))
    assert next(iter(files)) == "train"
    assert files["recent"] == tmp_path / "Split-recent" / "FeatureStats.pb"
    assert set(files) == {"train", "eval", "recent"}


def test_what_a_tuner_found_becomes_a_configuration(tmp_path):
    (tmp_path / "best").mkdir()
    document = {"space": [], "values": {"learning_rate": 1e-05, "towers": "[[64, 32], [8]]"}}
    (tmp_path / "best" / "best_hyperparameters.txt").write_text(json.dumps(document))
    file = tmp_path / "tuned.yaml"
    settings = tuned_network(artifact(tmp_path / "best"))
    file.write_text(summary._as_configuration(settings, "r1"))
    network = config.load(file).network
    assert network.learning_rate == 1e-05
    assert network.towers == ((64, 32), (8,))
    assert "run r1" in file.read_text()


def test_the_trials_of_a_search_are_read(tmp_path):
    (tmp_path / "tuner_results.json").write_text('[{"score": 0.25}, {"score": 0.5}]')
    assert trial_scores(artifact(tmp_path)) == (0.25, 0.5)


@pytest.fixture
def finished_run(tmp_path, monkeypatch):
    """The summary of a run that pushes, or stops at the gate, or whose model is not blessed."""

    def summarize(
        verdict: Verdict,
        blessed: bool = True,
        champion: Metrics | None = None,
        threshold: float = 0.5,
        **decision: object,
    ) -> RunSummary:
        (tmp_path / VERDICT_FILE).write_text(to_json(verdict))
        examples = artifact(
            as_of="2026-03-13",
            windows='{"train": ["2026-02-12", "2026-02-21"]}',
            rows='{"train": 100, "recent": 9}',
            positives='{"train": 3, "recent": 0}',
            champion_problem="no column 'AGE'" if champion is not None else "",
        )
        outputs = {
            "TransactionExampleGen": {"examples": [examples]},
            "DataGate": {"verdict": [artifact(tmp_path, passed=int(verdict.passed))]},
        }
        if verdict.passed:
            version = {"pushed_version": "17", "pushed_destination": "p/17"}
            pushed = artifact(**{"pushed": int(blessed), **version, **decision})
            outputs |= {
                "Trainer": {"model": [artifact()]},
                "Evaluator": {"evaluation": [artifact()]},
                "ServingCheck": {"blessing": [artifact(blessed=int(blessed), reason="no answer")]},
                "Pusher": {"pushed_model": [pushed]},
                "ModelCardGen": {"card": [artifact("card", written=int(blessed))]},
            }
        nodes = {n: NodeRecord(n, "COMPLETE", artifacts) for n, artifacts in outputs.items()}
        monkeypatch.setattr(lineage, "nodes", lambda store, run_id: nodes)
        monkeypatch.setattr(lineage, "pushes", lambda store: iter(()))
        model = ModelFacts(threshold, {"brier": 0.12345678, "roc_auc": None}, {})
        monkeypatch.setattr(ModelFacts, "read", lambda artifact: model)
        failures = (
            ()
            if blessed
            else ("overall: roc_auc is 0.7000; at least 0.75 is required (evaluation.min_roc_auc)",)
        )
        evaluation = Evaluation(
            {"overall": {"roc_auc": 0.7}, "slices": {}},
            champion or {},
            failures,
            intervals={"overall": {"roc_auc": (0.6, 0.8)}, "slices": {}},
            changes={"roc_auc": Change(0.1, 0.0, 0.2, 0.0)},
        )
        monkeypatch.setattr(Evaluation, "read", lambda artifact: evaluation)
        return summary.write(None, "r", Root(tmp_path), {"Trainer": 1.234})

    return summarize


def test_a_pushed_model_is_summarized(finished_run, tmp_path):
    result = finished_run(Verdict(True, notes=("drift not judged",)))
    assert (result.outcome, result.reasons) == ("pushed", ())
    assert (result.pushed_version, result.pushed_path) == ("17", "p/17")
    assert result.model_card == "card/model_card.html"
    assert result.validation == {"threshold": 0.5, "brier": 0.123457}
    assert result.positives == {"train": 3}
    assert result.intervals["overall"] == {"roc_auc": (0.6, 0.8)}
    assert result.changes["roc_auc"].change == 0.1
    assert result.seconds == {"Trainer": 1.23}
    assert RunSummary.read(Root(tmp_path).run("r")) == result


def test_a_champion_whose_inputs_cannot_be_computed_is_noted_unless_another_was_judged(
    finished_run,
):
    note = "champion not judged: no column 'AGE'"
    assert finished_run(Verdict(True, notes=("a",)), champion={}).notes == ("a", note)
    judged: Metrics = {"overall": {"roc_auc": 0.6}, "slices": {}}
    assert finished_run(Verdict(True, notes=("a",)), champion=judged).notes == ("a",)


def test_every_reason_against_a_model_is_named(finished_run):
    result = finished_run(Verdict(True), blessed=False)
    assert result.outcome == "not_blessed"
    assert result.reasons == (
        "overall: roc_auc is 0.7000; at least 0.75 is required (evaluation.min_roc_auc)",
        "ServingCheck: no answer",
    )
    assert (result.pushed_version, result.model_card) == (None, None)


def test_a_run_that_may_not_push_says_why(finished_run):
    result = finished_run(Verdict(True), pushed=0, outcome="replay", reason="replay: as of")
    assert (result.outcome, result.reasons) == ("replay", ("replay: as of",))
    assert result.pushed_version is None


def test_what_was_accepted_to_push_is_noted(finished_run):
    result = finished_run(Verdict(True, notes=("a",)), outcome="pushed", reason="replay: as of")
    assert (result.outcome, result.reasons) == ("pushed", ())
    assert result.notes == ("a", "pushed although replay: as of")


def test_a_folder_that_nobody_recorded_is_reported(finished_run, tmp_path):
    (Root(tmp_path).pushed / "3").mkdir(parents=True)
    (problem,) = finished_run(Verdict(True)).disagreements
    assert problem.startswith(f"{Root(tmp_path).pushed / '3'}: ML Metadata has no record of it")


def test_a_stopped_run_has_the_anomalies_as_reasons(finished_run, tmp_path):
    anomaly = Anomaly("COUNTRY", "Unexpected", "", "error", "recent", "schema")
    result = finished_run(Verdict(False, (anomaly,)))
    assert (result.outcome, result.anomalies) == ("gate_stopped", (anomaly,))
    assert result.reasons == ("recent: COUNTRY: Unexpected",)
    document = json.loads((Root(tmp_path).run("r") / SUMMARY_FILE).read_text())
    assert (document["metrics"], document["validation"]) == ({}, {})


@pytest.mark.parametrize(
    ("of_slice", "failure", "reason"),
    [
        (
            "overall",
            """metric_key { name: "roc_auc" } metric_value { double_value { value: 0.7 } }
            metric_threshold { value_threshold { lower_bound { value: 0.75 } } }""",
            "overall: roc_auc is 0.7000; at least 0.75 is required (evaluation.min_roc_auc)",
        ),
        (
            "CHANNEL=chip",
            """metric_key { name: "recall_gap" } metric_value { double_value { value: 0.3 } }
            metric_threshold { value_threshold { upper_bound { value: 0.2 } } }""",
            "CHANNEL=chip: recall_gap is 0.3000; at most 0.2 is allowed "
            "(evaluation.max_slice_recall_gap)",
        ),
        (
            "overall",
            """metric_key { name: "roc_auc:drop_probability" }
            metric_value { double_value { value: 0.98 } }
            metric_threshold { value_threshold { upper_bound { value: 0.95 } } }""",
            "overall: roc_auc changes by -0.2500 (95 % interval -0.3000 … -0.0500) from the "
            "champion's; the probability of a drop larger than evaluation.max_roc_auc_drop is "
            "0.980; at most 0.95 is accepted",
        ),
        (
            "overall",
            """metric_key { name: "roc_auc" } message: "no  metric"
            metric_threshold { value_threshold { lower_bound { value: 0.75 } } }""",
            "overall: roc_auc: no metric",
        ),
    ],
)
def test_a_refusal_names_slice_metric_and_limit(of_slice, failure, reason):
    record = text_format.Parse(failure, validation_result_pb2.ValidationFailure())
    changes = {"roc_auc": Change(-0.25, -0.3, -0.05, 0.98)}
    assert _refusal(of_slice, record, changes) == reason


def test_a_gap_without_enough_examples_is_unjudged():
    slices = {"b": {"recall_gap": None, "false_positive_rate_gap": 0.1}, "a": {"recall_gap": 0.0}}
    assert summary.unjudged({"overall": {}, "slices": slices}) == ("b: recall gap",)
    assert summary.unjudged({}) == ()


def test_a_metric_that_is_no_number_is_null_in_the_summary(tmp_path):
    row = {"roc_auc": math.nan, "recall_gap": -math.inf, "average_precision": 0.5}
    written = RunSummary("r", "pushed", str(tmp_path), metrics={"overall": row, "slices": {}})
    (tmp_path / SUMMARY_FILE).write_text(to_json(written, indent=1))

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    json.loads((tmp_path / SUMMARY_FILE).read_text(), parse_constant=refuse)
    read = RunSummary.read(tmp_path)
    assert read is not None
    assert read.metrics["overall"] == {
        "roc_auc": None,
        "recall_gap": None,
        "average_precision": 0.5,
    }


def test_an_anomaly_in_several_windows_is_one_reason():
    odd = [Anomaly("a", "Odd", "5 %", "error", window, "schema") for window in ("train", "eval")]
    other = Anomaly("a", "Odd", "", "error", "recent", "drift")
    assert artifacts.one_per_feature([*odd, other]) == (
        "train: a: Odd: 5 % (also eval)",
        "recent: a: Odd",
    )


@pytest.mark.parametrize(("threshold", "warned"), [(0.0, True), (0.01, False)])
def test_a_budget_above_the_volume_is_a_warning(finished_run, threshold, warned):
    notes = finished_run(Verdict(True, notes=("x",)), threshold=threshold).notes
    assert notes[0] == "x"
    assert any("evaluation.alert_budget" in note for note in notes) is warned


def test_drift_is_the_largest_divergence_relative_to_its_threshold(tmp_path):
    nodes = {}
    for validator, of_amount in (("DistributionValidator", 0.05), ("ReferenceValidator", 0.12)):
        drift(tmp_path / validator, AMOUNT=of_amount, CHANNEL=0.02)  # with a threshold of .1
        outputs = {"anomalies": [artifact(tmp_path / validator)]}
        nodes[validator] = NodeRecord(validator, "COMPLETE", outputs)
    assert summary._drift(nodes) == {"AMOUNT": 1.2, "CHANNEL": 0.2}
    assert summary._drift({}) == {}

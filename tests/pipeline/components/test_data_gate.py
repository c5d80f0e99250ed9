import json
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx.types.standard_artifacts import ExampleAnomalies, Examples, ExampleStatistics

from fraud.pipeline.artifacts import Anomaly, Verdict
from fraud.pipeline.components.data_gate import anomalies_in, empty_in, verdict_of

ERROR, WARNING = anomalies_pb2.AnomalyInfo.ERROR, anomalies_pb2.AnomalyInfo.WARNING


def anomalies(**severity_by_feature):
    recorded = anomalies_pb2.Anomalies()
    for feature, severity in severity_by_feature.items():
        info = recorded.anomaly_info[feature]
        info.path.step.append(feature)
        info.severity = severity
        info.reason.add(short_description="Unexpected", description=f"{feature} is odd")
    return recorded


def artifact(folder: Path, prefix: str, by_split: dict[str, anomalies_pb2.Anomalies], **properties):
    new = ExampleAnomalies()
    new.uri = str(folder)
    new.split_names = json.dumps(list(by_split))
    for name, text in properties.items():
        new.set_string_custom_property(name, text)
    for split, recorded in by_split.items():
        path = folder / f"{prefix}-{split}" / "SchemaDiff.pb"
        path.parent.mkdir(parents=True)
        path.write_bytes(recorded.SerializeToString())
    return new


def examples(train=(10, 100), evaluated=(5, 50), **facts):
    new = Examples()
    for name, fact in facts.items():
        new.set_string_custom_property(name, json.dumps(fact))
    new.set_string_custom_property(
        "positives", json.dumps({"train": train[0], "eval": evaluated[0]})
    )
    new.set_string_custom_property("rows", json.dumps({"train": train[1], "eval": evaluated[1]}))
    return new


@pytest.fixture
def judge(tmp_path):
    def verdict(
        by_split=None, by_pair=None, of_reference=None, severity="error", curated=True, **kwargs
    ):
        clean = {s: anomalies() for s in ("train", "eval", "recent")}
        schema = artifact(tmp_path / "schema", "Split", {**clean, **(by_split or {})})
        if by_pair is None:
            drift = artifact(tmp_path / "drift", "SplitPair", {}, not_judged="yet")
        else:
            drift = artifact(tmp_path / "drift", "SplitPair", by_pair, baseline="champion")
        reference = drift
        if of_reference is not None:
            folder = tmp_path / "reference"
            reference = artifact(folder, "SplitPair", of_reference, baseline="reference")
        given = kwargs.get("examples", examples())
        empty = {name: kwargs[name] for name in ("empty", "refuse_empty") if name in kwargs}
        return verdict_of(
            given, schema, drift, reference, "fraud", {"rate"}, severity, curated, **empty
        )

    return verdict


def test_clean_data_passes_without_notes(judge):
    assert judge(by_pair={"recent_train": anomalies()}) == Verdict(passed=True)


def test_no_champion_and_no_curated_schema_are_noted(judge):
    verdict = judge(curated=False)
    assert verdict.passed
    assert any("none is curated" in note for note in verdict.notes)
    assert any("no champion" in note for note in verdict.notes)


@pytest.mark.parametrize(("available", "noted"), [(23, True), (37, False)])
def test_a_history_shorter_than_the_look_back_is_noted(judge, available, noted):
    short = examples(history={"available": available, "needed": 37})
    notes = judge(by_pair={"recent_train": anomalies()}, examples=short).notes
    assert [("23 of the 37 days" in note) for note in notes] == [True] * noted


def test_the_share_of_labels_that_are_not_known_yet_is_noted(judge):
    def notes(**unlabelled):
        return judge(
            by_pair={"recent_train": anomalies()}, examples=examples(unlabelled=unlabelled)
        ).notes

    (note,) = notes(train=0, eval=10)
    assert "16.7% of eval" in note and "train" not in note and "quickly detected" in note


def test_no_note_on_labels_that_are_all_known(judge):
    whole = examples(unlabelled={"train": 0, "eval": 0})
    assert judge(by_pair={"recent_train": anomalies()}, examples=whole).notes == ()


def test_an_anomaly_stops_and_names_feature_anomaly_and_window(judge):
    verdict = judge(by_split={"eval": anomalies(amount=ERROR)})
    assert not verdict.passed
    assert verdict.anomalies == (
        Anomaly(
            feature="amount",
            anomaly="Unexpected",
            description="amount is odd",
            severity="error",
            window="eval",
            source="schema",
        ),
    )
    assert str(verdict.anomalies[0]) == "eval: amount: Unexpected: amount is odd"


def test_drift_stops_and_names_both_windows(judge):
    verdict = judge(by_pair={"recent_train": anomalies(amount=ERROR)})
    (anomaly,) = verdict.anomalies
    assert anomaly.window == "recent against the champion's train"
    assert anomaly.source == "drift"


def test_what_drift_could_not_judge_is_noted(tmp_path):
    by_split = {s: anomalies() for s in ("train", "eval", "recent")}
    schema = artifact(tmp_path / "schema", "Split", by_split)
    few, lacking = "the baseline has 5 of the 7 days", "the baseline lacks it"
    drift = artifact(
        tmp_path / "drift",
        "SplitPair",
        {"train_train": anomalies(), "recent_train": anomalies()},
        baseline="champion",
        unjudged=json.dumps(
            {"train_train": {}, "recent_train": {"a": few, "b": lacking, "c": few}}
        ),
    )
    verdict = verdict_of(examples(), schema, drift, drift, "fraud", set(), "error", True)
    assert verdict.passed
    assert verdict.notes == (
        f"drift not judged: a, c of recent against the champion's train: {few}",
        f"drift not judged: b of recent against the champion's train: {lacking}",
    )


def test_drift_from_the_reference_alone_stops(judge):
    clean, drifted = {"recent_train": anomalies()}, {"recent_train": anomalies(amount=ERROR)}
    (anomaly,) = judge(by_pair=clean, of_reference=drifted).anomalies
    assert anomaly.window == "recent against the reference's train"


def test_a_champion_that_is_the_reference_is_reported_once(judge):
    assert len(judge(by_pair={"recent_train": anomalies(amount=ERROR)}).anomalies) == 1


@pytest.mark.parametrize(("severity", "passed"), [("error", True), ("warning", False)])
def test_severity_decides(judge, severity, passed):
    verdict = judge(by_split={"train": anomalies(amount=WARNING)}, severity=severity)
    assert verdict.passed is passed


def test_a_missing_label_is_expected_in_recent_only(judge, tmp_path):
    assert judge(by_split={"recent": anomalies(fraud=ERROR)}).passed


def test_a_missing_label_in_eval_stops(judge):
    assert not judge(by_split={"eval": anomalies(fraud=ERROR)}).passed


@pytest.mark.parametrize("positives", [0, 100])
def test_one_class_alone_stops(judge, positives):
    verdict = judge(examples=examples(train=(positives, 100)))
    (anomaly,) = verdict.anomalies
    assert (anomaly.window, anomaly.anomaly) == ("train", "One class only")


def rarer(feature, how="LOW_FRACTION_PRESENT"):
    recorded = anomalies(**{feature: ERROR})
    type_ = anomalies_pb2.AnomalyInfo.Type.Value(f"FEATURE_TYPE_{how}")
    recorded.anomaly_info[feature].reason[0].type = type_
    return recorded


@pytest.mark.parametrize(
    ("feature", "curated", "passed"),
    [("rate", False, True), ("rate", True, False), ("amount", False, False)],
)
@pytest.mark.parametrize("how", ["LOW_FRACTION_PRESENT", "NOT_PRESENT"])
def test_only_a_curated_schema_says_how_often_a_feature_may_be_undefined(
    judge, feature, curated, passed, how
):
    assert judge(by_split={"eval": rarer(feature, how)}, curated=curated).passed is passed


def test_a_feature_that_is_undefined_throughout_a_window_is_noted(judge):
    """By chance, in a small one: such as that of earlier frauds, which few cards have."""
    recorded = rarer("rate", "NOT_PRESENT")
    notes = judge(by_split={"eval": recorded, "recent": rarer("rate")}, curated=False).notes
    assert "undefined in all of eval: rate" in notes
    assert not any("recent" in note for note in notes)


def test_a_feature_that_is_undefined_throughout_a_large_window_stops(judge):
    """The history of its entities is missing, say because their ids are written another way."""
    large = examples(evaluated=(50, 1000))
    never = {"eval": rarer("rate", "NOT_PRESENT")}
    assert not judge(by_split=never, curated=False, examples=large).passed


def test_an_undefined_feature_that_is_also_wrong_still_stops(judge):
    recorded = rarer("rate")
    recorded.anomaly_info["rate"].reason.add(short_description="Out of range")
    verdict = judge(by_split={"eval": recorded}, curated=False)
    assert [a.anomaly for a in verdict.anomalies] == ["Out of range"]


def test_an_anomaly_of_unknown_severity_counts_as_error():
    (anomaly,) = anomalies_in(anomalies(amount=0), "train", "schema", "error")
    assert anomaly.severity == "error"


def test_a_window_without_data_is_an_error():
    missing = anomalies_pb2.Anomalies(data_missing=True)
    assert anomalies_in(missing, "recent", "schema", "error")[0].anomaly == "No data"


def test_anomalies_that_cannot_be_read_fail_the_gate(judge, tmp_path):
    schema = artifact(tmp_path / "s", "Split", {"train": anomalies()})
    drift = artifact(tmp_path / "d", "SplitPair", {}, not_judged="yet")
    (tmp_path / "s" / "Split-train" / "SchemaDiff.pb").unlink()
    with pytest.raises(FileNotFoundError):
        verdict_of(examples(), schema, drift, drift, "fraud", set(), "error", True)


def statistics(folder: Path) -> ExampleStatistics:
    """Of a train split where `full` has values, `empty` has none, and `absent` does not occur."""
    described = text_format.Parse(
        """datasets { num_examples: 9
        features { path { step: "full" } num_stats { common_stats { num_non_missing: 4 } } }
        features { path { step: "empty" } string_stats { common_stats { num_missing: 9 } } } }""",
        statistics_pb2.DatasetFeatureStatisticsList(),
    )
    path = folder / "Split-train" / "FeatureStats.pb"
    path.parent.mkdir(parents=True)
    path.write_bytes(described.SerializeToString())
    new = ExampleStatistics()
    new.uri, new.split_names = str(folder), json.dumps(["train"])
    return new


def test_columns_without_any_value_are_found(tmp_path):
    assert empty_in(statistics(tmp_path), ["full", "empty", "absent"]) == ("empty", "absent")


@pytest.mark.parametrize("refuse_empty", [False, True])
def test_an_empty_column_is_noted_or_refused(judge, refuse_empty):
    verdict = judge(empty=("age", "risk"), refuse_empty=refuse_empty)
    assert verdict.passed is not refuse_empty
    assert verdict.empty == ("age", "risk")
    assert any("age, risk" in note for note in verdict.notes) is not refuse_empty
    refused = [(a.feature, a.source) for a in verdict.anomalies]
    assert refused == [("age", "empty"), ("risk", "empty")] * refuse_empty

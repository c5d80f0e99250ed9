"""The report on a run: from records to a page, however far the run got."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from fraud.codec import to_json
from fraud.features.spec import Dataset
from fraud.models.evaluation import curves
from fraud.models.evaluation.eval_config import eval_config
from fraud.models.spec import Evaluation
from fraud.pipeline import cli
from fraud.pipeline.artifacts import Change, RunSummary
from fraud.pipeline.data_facts import Anomaly, Verdict
from fraud.report import run_report
from tests.pipeline.recorded_runs import Records

HOSTILE = "<script>alert(1)</script>\n\"'&‮" + "x" * 200


class Page(HTMLParser):
    """The text of a page, and the tags in it."""

    def __init__(self, source: str):
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        for name, content in attrs:
            assert not name.startswith("on")
            if name in ("href", "src"):
                assert content.startswith("#"), f"{tag} loads {content}"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def statistics(folder: Path, columns: dict[str, object]) -> None:
    """Writes statistics of train, eval and recent, as TFDV does."""
    for split in ("train", "eval", "recent"):
        of_split = statistics_pb2.DatasetFeatureStatistics(num_examples=100)
        for name, kind in columns.items():
            feature = of_split.features.add()
            feature.path.step.append(name)
            if kind is float:
                feature.num_stats.common_stats.num_non_missing = 90
                feature.num_stats.num_zeros = 5
                histogram = feature.num_stats.histograms.add(
                    type=statistics_pb2.Histogram.QUANTILES
                )
                for i in range(10):
                    histogram.buckets.add(low_value=i, high_value=i + 1.0, sample_count=9)
            else:
                feature.string_stats.common_stats.num_non_missing = 100
                feature.string_stats.unique = 12
                for i, label in enumerate([HOSTILE, *(f"category {n}" for n in range(11))]):
                    bucket = feature.string_stats.rank_histogram.buckets.add(
                        label=label, sample_count=20 - i
                    )
                    bucket.low_rank = bucket.high_rank = i
        path = folder / f"Split-{split}" / "FeatureStats.pb"
        path.parent.mkdir(parents=True)
        listed = statistics_pb2.DatasetFeatureStatisticsList(datasets=[of_split])
        path.write_bytes(listed.SerializeToString())


def drift(folder: Path, **divergences: float) -> None:
    """Writes what a DistributionValidator measures, with a threshold of .1."""
    result = anomalies_pb2.Anomalies()
    for name, divergence in divergences.items():
        info = result.drift_skew_info.add()
        info.path.step.append(name)
        info.drift_measurements.add(value=divergence, threshold=0.1)
    path = folder / "SplitPair-recent_train" / "SchemaDiff.pb"
    path.parent.mkdir(parents=True)
    path.write_bytes(result.SerializeToString())


class Root:
    """A root whose first run, "r", is recorded node by node."""

    def __init__(self, folder: Path):
        self.records = Records(folder)
        self.folder = folder

    def artifact(self, type_name: str, name: str, **properties: object):
        uri = self.folder / "artifacts" / name
        uri.mkdir(parents=True)
        return self.records.artifact(type_name, str(uri), **properties), uri

    def data(self, verdict: Verdict) -> None:
        """The nodes of the data stage."""
        examples = self.records.artifact(
            "Examples",
            as_of="2026-01-10",
            windows=json.dumps(
                {
                    "train": ["2025-12-01", "2025-12-20"],
                    "eval": ["2025-12-28", "2026-01-03"],
                    "recent": ["2026-01-04", "2026-01-10"],
                }
            ),
            rows=json.dumps({"train": 1000, "eval": 100, "recent": 100}),
            positives=json.dumps({"train": 10, "eval": 3, "recent": 0}),
        )
        self.examples = examples
        self.records.node("r", "TransactionExampleGen", {}, {"examples": examples})
        found, uri = self.artifact("ExampleStatistics", "statistics")
        statistics(uri, {"AMOUNT": float, "CHANNEL": str, HOSTILE: str})
        self.records.node("r", "StatisticsGen", {"examples": examples}, {"statistics": found})
        anomalies, uri = self.artifact("ExampleAnomalies", "drift", baseline=found.uri)
        drift(uri, AMOUNT=0.05, CHANNEL=0.3)
        self.records.node(
            "r", "DistributionValidator", {"statistics": found}, {"anomalies": anomalies}
        )
        judged, uri = self.artifact("fraud.DataVerdict", "verdict", passed=int(verdict.passed))
        (uri / "verdict.json").write_text(to_json(verdict))
        self.verdict = judged
        self.records.node("r", "DataGate", {"examples": examples}, {"verdict": judged})

    def model(self, pushed: bool) -> None:
        """The nodes of training and release."""
        read = {"examples": self.examples, "_DataGate.verdict": self.verdict}
        model, uri = self.artifact("Model", "model")
        extra = uri / "Format-Serving" / "assets.extra"
        extra.mkdir(parents=True)
        losses = {"loss": [0.3, 0.2], "val_average_precision": [0.5, 0.6]}
        (extra / "history.json").write_text(json.dumps(losses))
        (extra / "importance.json").write_text(json.dumps({HOSTILE: 0.9, "AMOUNT": 0.1}))
        self.records.node("r", "Trainer", read, {"model": model})
        evaluation, uri = self.artifact("ModelEvaluation", "evaluation")
        random = np.random.default_rng(0)
        labels = (random.random(500) < 0.1).astype(int)
        of_models = {}
        for name, noise in (("challenger", 0.2), ("champion", 0.3)):
            scores = np.clip(labels * 0.5 + random.normal(0.2, noise, 500), 0.0005, 1)
            cards = curves.Cards(np.arange(500) % 7 + 20_000, random.integers(0, 50, 500), 5)
            costs = curves.Costs(np.full(500, 10.0), 1.0, 0.5)
            of_models[name] = curves.describe(labels, scores, scores > 0.5, cards, costs)
        (uri / "curves.json").write_text(json.dumps(of_models))
        blessing = self.records.artifact("ModelBlessing", blessed=int(pushed))
        self.records.node(
            "r",
            "Evaluator",
            {"examples": self.examples, "model": model},
            {"evaluation": evaluation, "blessing": blessing},
        )
        outcome = self.records.artifact(
            "PushedModel",
            pushed=int(pushed),
            pushed_version="100",
            reason="" if pushed else HOSTILE,
        )
        self.records.node("r", "Pusher", {"model": model}, {"pushed_model": outcome})

    def summary(self, **content: object) -> None:
        summary = RunSummary(run_id="r", root=str(self.folder), as_of="2026-01-10", **content)
        path = self.records.root.run("r") / "summary.json"
        path.parent.mkdir(parents=True)
        path.write_text(to_json(summary))

    def page(self) -> Page:
        assert cli.main(["report", "r", "--root", str(self.folder)]) == 0
        return Page(self.records.root.report("r").read_text())


@pytest.fixture
def root(tmp_path) -> Root:
    return Root(tmp_path)


def evaluated(root: Root, outcome: str) -> None:
    metrics = {"average_precision": 0.7, "roc_auc": 0.9, "brier": 0.01}
    metrics |= {"precision_at_budget": 0.5, "recall_at_budget": 0.6}
    root.summary(
        outcome=outcome,
        pushed_version="100" if outcome == "pushed" else None,
        live_version="100",
        reasons=() if outcome == "pushed" else (f"overall: {HOSTILE}",),
        metrics={"overall": metrics, "slices": {f"CHANNEL={HOSTILE}": metrics}},
        champion_metrics={"overall": metrics, "slices": {}},
        intervals={"overall": {"roc_auc": (0.85, 0.95)}, "slices": {}},
        changes={"roc_auc": Change(0.01, -0.02, 0.04, 0.1)},
        unjudged=(f"{HOSTILE}: recall gap",),
        seconds={"Trainer": 12.0},
    )


def test_a_finished_run_has_every_section(root):
    root.data(Verdict(True, notes=("history: short",)))
    root.model(pushed=True)
    evaluated(root, "pushed")
    text = root.page().text
    assert "pushed as version 100" in text and "Version 100 was live" in text
    titles = """Windows|AMOUNT|CHANNEL|Precision and recall|ROC|Change from the champion|
        Calibration|Scores|Confusion by threshold|Cost saved by threshold|
        Precision of checks by day|Slices|
        Loss on the training data|What moves the score|Lineage|Seconds of each node"""
    missing = [title for title in re.split(r"\|\s*", titles) if title not in text]
    assert not missing
    assert "+0.0100 (-0.0200 … +0.0400)" in text
    assert "noted: history: short" in text
    assert text.index("CHANNEL") < text.index("AMOUNT")  # drifted, so it comes first
    assert "recent from champion: divergence 0.3000, threshold 0.1000: drift" in text


def test_gaps_of_slices_are_shown_with_what_is_allowed(root):
    metrics = {"average_precision": 0.7, "recall_gap": 0.15}
    slices = {"CHANNEL=chip": metrics, f"CHANNEL={HOSTILE}": {**metrics, "recall_gap": None}}
    root.summary(outcome="pushed", metrics={"overall": metrics, "slices": slices})
    settings = Evaluation(max_slice_recall_gap=0.12)
    asked = eval_config(Dataset(slices=("CHANNEL",)), settings)
    root.records.node(
        "r",
        "Evaluator",
        {},
        {},
        eval_config=json_format.MessageToJson(asked, preserving_proto_field_name=True),
    )
    page = root.page()
    assert "Gaps" in page.text and "Recall gap" in page.text
    assert "too few examples" in page.text and "CHANNEL=chip: 0.15" in page.text
    facts = run_report.read(
        root.records.store, root.records.root.pushed, root.records.root.run("r"), "r"
    )
    assert facts.demands.max_gaps["recall_gap"] == 0.12
    assert {"slices_recall_gap.html"} < set(run_report.pictures(facts))
    chart = run_report.pictures(facts)["slices_recall_gap.html"]
    at = {
        kind: float(x) for kind, x in re.findall(r'<line class="(aid|limit)" x1="([\d.]+)"', chart)
    }
    (value,) = re.findall(r'<circle class="s0" cx="([\d.]+)"', chart)
    assert at["aid"] < at["limit"] < float(value)  # 0, .12 that is allowed, .15


def test_it_says_what_a_sample_was_measured_on(root):
    root.data(Verdict(True))
    root.model(pushed=True)
    evaluated(root, "pushed")
    (file,) = root.folder.glob("**/curves.json")
    assert "on a sample" not in root.page().text
    described = json.loads(file.read_text())
    for of_model in described.values():
        of_model["sample_share"] = 0.125
    file.write_text(json.dumps(described))
    assert "measured on a sample of about 12.5 % of them" in root.page().text


def test_hostile_names_are_text(root):
    root.data(Verdict(True))
    root.model(pushed=False)
    evaluated(root, "not_blessed")
    page = root.page()
    assert "script" not in page.tags
    assert page.text.count("<script>alert(1)</script>") > 5
    assert "not blessed" in page.text and "pushed nothing" in page.text


def test_a_run_that_the_gate_stopped_names_the_anomalies(root):
    anomaly = Anomaly("CHANNEL", "Unexpected", HOSTILE, "error", "train", "schema")
    root.data(Verdict(False, (anomaly,)))
    root.summary(outcome="gate_stopped", reasons=(str(anomaly),), anomalies=(anomaly,))
    page = root.page()
    assert "script" not in page.tags
    assert "stopped by the data gate" in page.text and "✗ DataGate" in page.text
    assert "Quality on the eval window" not in page.text


@pytest.mark.parametrize("gone", ["AMOUNT", "CHANNEL"])
@pytest.mark.parametrize("splits", [["recent"], ["train", "eval", "recent"]])
def test_a_column_without_any_value_is_reported(root, gone, splits):
    """TFDV takes it for text, whatever it is in other splits."""
    anomaly = Anomaly(gone, "Gone", "without values", "error", "recent", "schema")
    root.data(Verdict(False, (anomaly,)))
    for split in splits:
        path = root.folder / "artifacts" / "statistics" / f"Split-{split}" / "FeatureStats.pb"
        listed = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes())
        for feature in listed.datasets[0].features:
            if feature.path.step[0] == gone:
                feature.string_stats.Clear()
                feature.string_stats.common_stats.num_missing = 100
        path.write_bytes(listed.SerializeToString())
    root.summary(outcome="gate_stopped", reasons=(str(anomaly),), anomalies=(anomaly,))
    assert "recent 100.00 %" in root.page().text


def test_a_run_that_failed_says_where_and_why(root):
    root.data(Verdict(True))
    root.records.node(
        "r",
        "Trainer",
        {"examples": root.examples},
        {},
        state="FAILED",
        __execution_result__=f"out of memory {HOSTILE}",
    )
    page = root.page()
    assert "failed in Trainer" in page.text and "out of memory" in page.text
    assert "script" not in page.tags


def test_deleted_artifacts_leave_the_rest(root):
    root.data(Verdict(True))
    root.model(pushed=True)
    evaluated(root, "pushed")
    shutil.rmtree(root.folder / "artifacts")
    text = root.page().text
    assert "pushed as version 100" in text and "Lineage" in text


def test_the_latest_run_is_the_default_and_others_must_exist(root, capsys, tmp_path):
    root.data(Verdict(True))
    out = tmp_path / "page.html"
    assert cli.main(["report", "--root", str(root.folder), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run_id": "r", "report": str(out)}
    assert out.read_text().startswith("<!doctype html>")
    assert cli.main(["report", "r9", "--root", str(root.folder)]) == 2
    assert "r9: no such run" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named(root, tmp_path, capsys):
    root.data(Verdict(True))
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file" / "report.html"):
        command = ["report", "--root", str(root.records.root.path), "--out", str(out)]
        assert cli.main(command) == 2
        assert f"{out}: cannot be written" in capsys.readouterr().err


def test_a_report_that_fails_does_not_fail_the_run(root, monkeypatch, caplog):
    from fraud.pipeline.commands import report

    def broken(*_: object) -> None:
        raise KeyError("anything")

    monkeypatch.setattr(run_report, "read", broken)
    root.data(Verdict(True))
    assert report.write_of_finished(root.records.store, root.records.root, "r") is None
    assert "was not written" in caplog.text

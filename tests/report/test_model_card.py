import dataclasses
import math

import numpy as np
import pytest

from fraud.models.evaluation import curves, registry
from fraud.models.spec import Evaluation
from fraud.pipeline.artifacts import Change
from fraud.pipeline.config import ModelCardText
from fraud.report import document, model_card
from fraud.report.document import Table
from fraud.report.model_card import Facts

OVERALL = {
    "average_precision": 0.7,
    "roc_auc": 0.9,
    "precision_at_budget": 0.25,
    "recall_at_budget": 0.6,
    "example_count": 10_000.0,
    "true_positives": 60.0,
    "false_positives": 180.0,
    "false_negatives": 40.0,
}
FACTS = Facts(
    words=dataclasses.asdict(ModelCardText(owners=("Fraud team",))),
    version="1753",
    path="root/pushed/1753",
    as_of="2026-03-13",
    windows={"train": ("2026-02-12", "2026-02-21"), "eval": ("2026-02-28", "2026-03-06")},
    rows={"train": 20_000, "eval": 10_000},
    positives={"train": 200, "eval": 100},
    label_known="7 days after its transaction",
    numeric=("TX_AMOUNT", "<b>"),
    categorical=("CHANNEL",),
    network={"bins": 16, "towers": [[32]]},
    threshold=0.125,
    alert_budget="15 cards a day",
    validation={"brier": 0.004},
    definitions=registry.named_for(vars(Evaluation())),
    metrics={"overall": OVERALL, "slices": {"CHANNEL=online": {**OVERALL, "example_count": 500.0}}},
    intervals={
        "overall": {"average_precision": (0.61, 0.78), "precision_at_budget": (0.2, 0.31)},
        "slices": {"CHANNEL=online": {"roc_auc": (0.85, 0.94)}},
    },
    changes={
        "average_precision": Change(0.0195, -0.0104, 0.0502, 0.0312),
        "roc_auc": Change(None, None, None),
        "recall_at_budget": Change(0.0, None, None, 0.25),
    },
    champion={
        "overall": {
            **OVERALL,
            "average_precision": 0.68,
            "true_positives": 63.0,
            "false_positives": 178.0,
            "false_negatives": 37.0,
        },
        "slices": {},
    },
    demands=dataclasses.asdict(Evaluation()),
    notes=("drift not judged",),
    served=100,
    run_id="20260313-1",
    artifacts={"Model": (9, "root/artifacts/Trainer/model/9")},
    versions={"python": "3.10.13"},
)


def sections(**differs):
    page = model_card.document(dataclasses.replace(FACTS, **differs))
    return {section.title: section.blocks for section in page.sections}


def table(blocks, *first):
    """The rows of the table whose head begins with these titles, by name."""
    (table,) = [b for b in blocks if isinstance(b, Table) and b.head[: len(first)] == first]
    return {row[0]: row[1:] for row in table.rows}


def test_it_shows_the_configured_texts():
    card = sections()
    assert card["Owners"][0].items == ("Fraud team",)
    assert card["Intended use"][0].text == ModelCardText().intended_use
    assert card["Limits"][0].items == ModelCardText().limits
    assert (
        "model_card.owners"
        in sections(words=dataclasses.asdict(ModelCardText()))["Owners"][0].items[0]
    )


def test_metrics_have_their_intervals_overall_and_by_slice():
    rows = table(sections()["Metrics"], "slice", "transactions", "frauds")
    assert rows["overall"] == (
        "10,000",
        "100",
        "0.700 (0.610–0.780)",
        "0.900",
        "0.250 (0.200–0.310)",
        "0.600",
    )
    assert rows["CHANNEL=online"][2:4] == ("0.700", "0.900 (0.850–0.940)")


def test_it_lists_the_checks_before_the_push():
    blocks = sections()["Checks before the push"]
    rows = table(blocks, "overall", "this model", "minimum", "champion", "change")
    change = "+0.0195 (-0.0104 … +0.0502)"
    assert rows["average precision"] == ("0.7000", "0.3000", "0.6800", change, "0.0100", "0.0312")
    assert rows["recall at budget"] == ("0.6000", "0.3000", "0.6000", "+0.0000", "0.1000", "0.2500")
    assert rows["ROC AUC"][3:] == ("–", "0.0100", "")
    assert rows["precision at budget"][3:] == ("+0.0000", "", "")
    assert rows["true positives"] == ("60", "", "63", "-3", "", "")
    assert rows["false positives"][3] == "+2"
    assert rows["false negatives"][3] == "+3"
    assert rows["ROC AUC"][0] == "0.9000"
    assert "transactions" not in rows
    assert "Data gate: drift not judged." in blocks[0].items
    assert table(blocks, "setting")["alert budget"] == ("100",)


def test_drops_that_were_not_judged_are_named():
    card = sections(changes={"roc_auc": Change(-0.1, None, None, None, unjudged=True)})
    blocks = card["Checks before the push"]
    assert table(blocks, "overall", "this model")["ROC AUC"][-1] == "not judged"
    assert any("Drops were not judged, because fewer than 10 cards" in i for i in blocks[0].items)
    assert not any("Drops" in item for item in sections()["Checks before the push"][0].items)


def test_without_champion_slices_or_counts():
    card = sections(
        champion={},
        changes={},
        intervals={"overall": {}, "slices": {}},
        metrics={"overall": {"average_precision": 0.7, "roc_auc": math.nan}, "slices": {}},
    )
    assert table(card["Metrics"], "slice") == {"overall": ("–", "–", "0.700", "–")}
    assert "There was no champion" in card["Checks before the push"][0].items[2]


def test_a_champion_that_could_not_be_judged_is_named():
    problem = "no column 'AGE'"
    checks = sections(champion={}, champion_problem=problem)["Checks before the push"][0].items
    assert f"The champion's inputs could not be computed: {problem}." in checks[2]


def test_without_metrics():
    card = sections(metrics={"overall": {}, "slices": {}}, validation={}, champion={})
    assert card["Metrics"][0].text == "No metrics were measured."


def test_data_without_time():
    rows = table(sections(windows={}, as_of="")["Data"], "window")
    assert rows["train"] == ("–", "–", "20,000", "200", "1.000%")


def test_frauds_of_the_recent_window_are_unknown():
    card = sections(rows={"recent": 5}, positives={"recent": 0})
    assert table(card["Data"], "window")["recent"][3:] == ("–", "–")


def test_its_code_runs_unchanged(tmp_path):
    tf = pytest.importorskip("tensorflow")

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def serve(self, examples):
            score = tf.cast(tf.strings.length(examples), tf.float32)
            return {"score": score, "alert": score}

    model = Model()
    path = str(tmp_path / "a model's")
    tf.saved_model.save(model, path, signatures={"serving_default": model.serve})
    code = sections(path=path)["How to load it"][1].text
    names = {"serialized_example": b"four"}
    exec(code, names)
    assert float(names["outputs"]["score"][0]) == 4


def test_both_formats_have_the_same_content():
    page = model_card.document(FACTS)
    for text in (document.to_html(page), document.to_markdown(page)):
        for part in ("1753", "20260313-1", "Fraud team", "CHANNEL=online", "&lt;b&gt;", "3.10.13"):
            assert part in text


def test_pictures_are_those_that_were_recorded():
    labels = np.repeat([0, 1], 50)
    scores = np.linspace(0.001, 0.999, 100)
    described = curves.describe(labels, scores, scores > 0.5)
    recorded = dataclasses.replace(
        FACTS, curves={"challenger": described}, importance={"AMOUNT": 0.5}
    )
    page = document.to_html(model_card.document(recorded))
    assert page.count("<figure>") == 4
    assert "<figure>" not in document.to_html(model_card.document(FACTS))

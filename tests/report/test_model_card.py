import dataclasses
import math
import re

import numpy as np
import pytest

from fraud.models.evaluation import curves, registry
from fraud.models.spec import Evaluation
from fraud.names import input_name
from fraud.pipeline.artifacts import Change
from fraud.pipeline.config import ModelCardText
from fraud.report import document, model_card
from fraud.report.document import Code, Table
from fraud.report.model_card import Facts

OVERALL = {
    "average_precision": 0.7,
    "roc_auc": 0.9,
    "precision_at_budget": 0.25,
    "recall_at_budget": 0.6,
    "false_positive_rate": 0.018,
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
    words = ModelCardText(
        owners=("Fraud team",), intended_use="Ours.", limits=("a", "b"), ethics=()
    )
    card = sections(words=dataclasses.asdict(words))
    assert card["Owners"][0].items == ("Fraud team",)
    assert card["Intended use"][0].text == "Ours."
    assert (card["Limits"][0].items, card["Ethics"][0].items) == (("a", "b"), ())
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
        "0.018",
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
    assert table(blocks, "setting")["alert budget"] == ("not set",)


def test_drops_that_were_not_judged_are_named():
    card = sections(changes={"roc_auc": Change(-0.1, None, None, None, unjudged=True)})
    blocks = card["Checks before the push"]
    assert table(blocks, "overall", "this model")["ROC AUC"][-1] == "not judged"
    why = "Drops were not judged, because there are fewer than 10 independent frauds"
    assert any(why in item for item in blocks[0].items)
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
    assert f"The champion was not judged: {problem}." in checks[2]


def test_without_metrics():
    card = sections(metrics={"overall": {}, "slices": {}}, validation={}, champion={})
    assert card["Metrics"][0].text == "No metrics were measured."


def test_data_without_time():
    blocks = sections(windows={}, as_of="")["Data"]
    assert table(blocks, "split")["train"] == ("20,000", "200", "1.000%")
    assert "recent" not in blocks[0].text  # there is no such split
    assert "recent only served to detect drift. No label" in sections()["Data"][0].text


def test_frauds_of_the_recent_window_are_unknown():
    card = sections(rows={"recent": 5}, positives={"recent": 0})
    assert table(card["Data"], "window")["recent"][3:] == ("–", "–")


def test_its_code_runs_unchanged(tmp_path):
    tf = pytest.importorskip("tensorflow")
    columns = {"TX_AMOUNT": tf.float32, "a b": tf.float32, "CHANNEL": tf.string}

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def serve(self, examples):
            spec = {name: tf.io.FixedLenFeature([], type_) for name, type_ in columns.items()}
            parsed = tf.io.parse_example(examples, spec)
            score = parsed["TX_AMOUNT"] + parsed["a b"]
            return {"score": score, "alert": score}

        @tf.function
        def predict(self, TX_AMOUNT, a_b, CHANNEL):  # noqa: N803
            score = TX_AMOUNT + a_b + tf.cast(tf.strings.length(CHANNEL), tf.float32)
            return {"score": score, "alert": score}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def explain(self, examples):
            return {"reason": examples, "contribution": examples}

    model = Model()
    path = str(tmp_path / "a model's")
    inputs = {
        input_name(name): tf.TensorSpec([None], type_, name=input_name(name))
        for name, type_ in columns.items()
    }
    signatures = {
        "serving_default": model.serve,
        "explain": model.explain,
        "predict": model.predict.get_concrete_function(**inputs),
    }
    tf.saved_model.save(model, path, signatures=signatures)
    loading = sections(path=path, numeric=("TX_AMOUNT", "a b"))["How to load it"]
    default, explain, predict = (block.text for block in loading if isinstance(block, Code))
    names = {}
    exec(default, names)
    assert float(names["outputs"]["score"][0]) == 2
    exec(explain, names)
    assert set(names["outputs"]) == {"reason", "contribution"}
    exec(predict, names := {})
    assert float(names["outputs"]["score"][0]) == 3
    assert table(loading, "column", "type") == {
        "TX_AMOUNT": ("float32", "TX_AMOUNT"),
        "a b": ("float32", "a_b"),
        "CHANNEL": ("string", "CHANNEL"),
    }


WITHOUT = {
    "windows": {},
    "as_of": "",
    "card": "",
    "alert_budget": "100 alerts per 2,000 rows",
}


def test_its_words_follow_the_data():
    with_cards = document.to_markdown(
        model_card.document(dataclasses.replace(FACTS, card="CUSTOMER_ID"))
    )
    assert "suspicious customers of a day" in with_cards
    assert "draws whole customers" in with_cards
    assert "Each customer is a value of CUSTOMER" in with_cards
    assert "held-out customers" in with_cards
    card = model_card.document(dataclasses.replace(FACTS, **WITHOUT))
    shown = document.to_markdown(card)
    said = shown.lower().replace("model cards", "").replace("budget transactions", "")
    for word in ("cards", "terminal", "bank", "customer", "transaction", "a day", "window"):
        assert word not in said, word


@pytest.mark.parametrize("with_time", [True, False])
def test_an_insurer_reads_of_its_policy_holders(with_time):
    of_days = ("card_precision_at_15", "expected_cost_saved") if with_time else ()
    overall = {**OVERALL, **dict.fromkeys(of_days, 0.5)}
    facts = dataclasses.replace(
        FACTS,
        **({"alert_budget": "15 policy holders a day"} if with_time else WITHOUT),
        metrics={"overall": overall, "slices": {}},
        definitions=registry.named_for(vars(Evaluation(alert_budget=15))),
    )
    page = model_card.document(dataclasses.replace(facts, card="policy_holder"))
    shown = document.to_markdown(page).lower()
    assert "policy holders" in shown and "value of policy" in shown
    unwanted = r"\bcards?\b" if with_time else r"\bcards?\b|transaction|a day"
    said = shown.replace("model card", "").replace("budget transactions", "")
    assert not re.findall(unwanted, said)


def test_a_column_without_values_is_not_among_those_it_learned_from():
    card = sections(numeric=("TX_AMOUNT", "REMARKS"), empty=("REMARKS",))
    rows = table(card["Features"], "kind", "columns")
    assert rows == {
        "numeric": ("1", "TX_AMOUNT"),
        "categorical": ("1", "CHANNEL"),
        "ignored: no value in train": ("1", "REMARKS"),
    }
    assert "Ignored, without any value in train: REMARKS." in card["Summary"][0].items
    # A caller may still send it, and `predict` needs it.
    assert "REMARKS" in table(card["How to load it"], "column", "type")
    assert "ignored" not in str(sections()["Features"])


def test_the_summary_says_what_matters_first():
    page = model_card.document(
        dataclasses.replace(FACTS, trained="2026-03-13 07:00", pushed="2026-03-13 07:05")
    )
    assert page.subtitle == (
        "Trained on 2026-03-13 07:00 by run 20260313-1 as of 2026-03-13, "
        "pushed on 2026-03-13 07:05."
    )
    first = page.sections[0]
    assert first.title == "Summary"
    text = " ".join(first.blocks[0].items)
    assert "Learned from 20,000 transactions, of which 200 were frauds." in text
    assert "average precision 0.700 (0.610–0.780), ROC AUC 0.900. Chance would reach 0.010" in text
    assert "find 60.0% of the frauds; 25.0% of the alerts are frauds, and 1.8% of the gen" in text
    assert "+0.019 compared with the model it replaced" in text or "+0.020" in text
    assert "Warning" not in text


def test_a_budget_that_covers_everything_is_a_warning():
    assert "evaluation.alert_budget" in " ".join(sections(threshold=0.0)["Summary"][0].items)


def test_slices_that_are_too_small_to_be_judged_are_named():
    slices = {
        "A=1": {"recall_gap": None, "false_positive_rate_gap": None},
        "B=2": {"recall_gap": 0.1},
    }
    card = sections(metrics={"overall": OVERALL, "slices": slices})
    assert card["Metrics"][-1].items == ("A=1: recall gap, false positive rate gap",)
    assert "judged by themselves: 1 slices" in " ".join(card["Summary"][0].items)


def test_counts_are_counts_and_measures_are_not():
    few = {**OVERALL, "true_positives": 1.0, "false_positives": 0.0, "average_precision": 1.0}
    blocks = sections(metrics={"overall": few, "slices": {}})["Checks before the push"]
    rows = table(blocks, "overall", "this model")
    assert (rows["true positives"][0], rows["false positives"][0]) == ("1", "0")
    assert rows["average precision"][0] == "1.0000"


def test_every_figure_is_explained():
    for metric in registry.METRICS:
        assert model_card.meaning(metric.name, "claim", "policy"), metric.name
    told = model_card.meaning("card_precision_at_100", "claim", "policy")
    assert told.startswith("Of the policies that analysts")
    explained = table(sections()["What the figures mean"], "figure")
    shown = {m.title for m in FACTS.definitions if m.name in OVERALL}
    assert shown | {"Brier", "recall gap"} <= explained.keys()


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


def test_it_says_what_a_sample_was_measured_on():
    labels, scores = np.repeat([0, 1], 50), np.linspace(0.001, 0.999, 100)

    def metrics_of(share: float) -> str:
        described = curves.describe(labels, scores, scores > 0.5, sample_share=share)
        facts = dataclasses.replace(FACTS, curves={"challenger": described})
        return document.to_markdown(model_card.document(facts))

    assert "measured on a sample of 12.5 % of the" in metrics_of(0.125)
    assert "on a sample" not in metrics_of(1.0)

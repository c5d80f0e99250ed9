"""A user's own data by configuration alone: other names, no entities, no timestamp."""

import csv
import gzip
import random
import re
from pathlib import Path

import pytest

from fraud.pipeline import artifacts

pytestmark = pytest.mark.e2e

CONFIG = """
dataset:
  timestamp: null
  amount: price
  label: is_fraud
  id: null
  entities: []
  numeric: [age of account]
  categorical: [shop type]
  slices: [shop type]
network: {epochs: 3, members: 1, towers: [[16]]}
evaluation: {min_average_precision: 0.02, min_roc_auc: 0.5, min_recall_at_budget: 0.0}
"""


def write_transactions(path):
    random.seed(4)
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["price", "age of account", "shop type", "is_fraud", "comment"])
        for _ in range(6000):
            fraud = random.random() < 0.05
            price = random.lognormvariate(5 if fraud else 3, 0.7)
            age = "" if random.random() < 0.1 else random.randint(0, 3000)
            shop = random.choice(["toys, games", 'the "best"', "food"])
            rows.writerow([f"{price:.2f}", age, shop, int(fraud), "two\nlines"])


def test_a_flat_file_without_time_and_entities(new_bank):
    bank = new_bank(CONFIG)
    data = bank.folder / "transactions.csv.gz"
    write_transactions(data)
    found = bank.run(data, None)
    assert found["outcome"] == "pushed", found["reasons"]
    assert found["as_of"] is None
    assert sum(found["rows"].values()) == 6000
    assert 900 < found["rows"]["eval"] < 1500
    overall = found["metrics"]["overall"]
    assert overall["roc_auc"] > 0.8
    # The budget is 100 alerts per 2,000 transactions, not for the whole file.
    alerts = overall["true_positives"] + overall["false_positives"]
    assert 0.03 < alerts / found["rows"]["eval"] < 0.08
    slices = {'shop type=the "best"', "shop type=toys, games", "shop type=food"}
    assert set(found["metrics"]["slices"]) == slices


def test_an_insurer_has_words_of_its_own_and_columns_without_values(new_bank):
    bank = new_bank(
        "dataset: {timestamp: null, amount: null, label: is_fraud, id: null, "
        "entities: [policy_holder], numeric: [remarks], "
        "categorical: [cause, police, make, agent], slices: []}\n"
        "network: {epochs: 3, members: 1, towers: [[16]]}\n"
        "evaluation: {min_average_precision: 0.1, min_roc_auc: 0.5, min_recall_at_budget: 0.0}\n"
    )
    data = bank.folder / "claims.csv"
    random.seed(5)
    with open(data, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["policy_holder", "cause", "police", "make", "agent", "remarks", "is_fraud"])
        for _ in range(3000):
            cause, police = random.choice(["theft", "fire", "hail"]), random.choice("yn")
            odd = cause == "theft" and police == "n"
            fraud = int(random.random() < (0.3 if odd else 0.02))
            # Equal rows are in the same window, so there must be many different ones.
            make, agent = random.randrange(9), random.randrange(30)
            rows.writerow([random.randrange(900), cause, police, make, agent, "", fraud])
    found = bank.run(data, None)
    assert found["outcome"] == "pushed", found["reasons"]
    assert found["metrics"]["overall"]["roc_auc"] > 0.75

    page = Path(found["model_card"])
    card = page.with_name(artifacts.CARD_TEXT).read_text(encoding="utf-8")
    ignored = next(line for line in card.splitlines() if "ignored" in line and "|" in line)
    assert "remarks" in ignored
    assert any("without any value in train: remarks" in note for note in found["notes"])
    report = (bank.root / "runs" / found["run_id"] / "report.html").read_text(encoding="utf-8")
    shown = [bank.call(*of).stdout for of in (("status",), ("explain-decision", found["run_id"]))]
    for text in (card, report, *shown, found["progress"]):
        assert text
        # What the columns are not called, our words and the program's options apart.
        said = re.sub(r"(?i)model.?cards?|card  |_card\w*|card_\w*|budget transactions", "", text)
        assert not re.findall(r"(?i)\bcards?\b|transactions? |\bbank\b|\ba day\b", said)

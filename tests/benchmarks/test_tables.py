"""The comparison on tables: how they are split, and which earlier results it uses again."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks.models import contestants, tables
from benchmarks.models.tables import NETWORK, kept_or_measured, read_table, report, version
from fraud.data.spec import Simulation
from fraud.data.writer import write_days
from fraud.pipeline import config
from fraud.pipeline.backtest.rows import FoldRows
from fraud.pipeline.runners import code

ROWS, FRAUDS = 200, 30
CONFIG = """
dataset:
  label: label
  timestamp: null
  amount: null
  id: null
  entities: []
  numeric: [income]
  categorical: [region]
features: {calendar: [], groups: []}
"""
BY_TIME = """
windows: {train_days: 8, eval_days: 7, label_delay_days: 3}
features:
  groups: []
"""


@pytest.fixture
def table(tmp_path: Path) -> tuple[config.Config, FoldRows]:
    """A table without timestamps, and its configuration."""
    random = np.random.default_rng(0)
    lines = ["label,income,region"]
    for number in range(ROWS):
        income = "" if number % 10 == 0 else f"{random.normal():.3f}"
        region = "" if number % 7 == 0 else f"{number % 3}"  # a category, although it is a number
        lines.append(f"{int(number < FRAUDS)},{income},{region}")
    (tmp_path / "people.csv").write_text("\n".join(lines))
    (tmp_path / "people.yaml").write_text(CONFIG)
    described = config.load(tmp_path / "people.yaml")
    return described, read_table(tmp_path / "people.csv", described)


def other_code(folder: Path, module: str) -> code.Sources:
    """This package's sources with another module of theirs."""
    package = folder / "fraud"
    if not package.exists():
        ignored = shutil.ignore_patterns("__pycache__", "sample", "web")
        shutil.copytree(code.PACKAGE, package, ignore=ignored)
    with open(package / module, "a", encoding="utf-8") as file:
        file.write("\nADDED = 1\n")
    return code.Sources(package)


def test_columns_have_the_types_of_their_roles(table):
    _, rows = table
    assert rows.columns["income"].dtype == np.float32
    assert np.isnan(rows.columns["income"][0])
    assert rows.columns["region"][:2].tolist() == [b"", b"1"]
    assert rows.labels.sum() == FRAUDS


def test_a_random_split_takes_a_fifth_of_each_label_and_no_row_twice(table):
    _, rows = table
    train, test = tables.split_at_random(rows, 0)
    assert (test.labels.size, test.labels.sum()) == (ROWS / 5, FRAUDS / 5)
    both = [*train.cards, *test.cards]  # row numbers, as the table has no entities
    assert sorted(both) == list(range(ROWS))
    for part in (train, test):
        assert part.labels.tolist() == [int(row < FRAUDS) for row in part.cards]
        assert part.columns["region"].tolist() == rows.columns["region"][part.cards].tolist()


def test_splits_differ_by_their_number_and_are_the_same_each_time(table, tmp_path):
    twice = [list(tables.splits(tmp_path / "people.yaml", 3)) for _ in range(2)]
    drawn = [[test.cards.tolist() for _, _, test in splits] for splits in twice]
    assert drawn[0] == drawn[1]
    assert len({tuple(rows) for rows in drawn[0]}) == 3


def test_a_table_with_time_is_split_once_and_trained_on_what_was_known_then(tmp_path):
    simulation = Simulation(days=25, customers=60, terminals=20, seed=1)
    write_days(simulation, str(tmp_path / "bank"))
    (tmp_path / "bank.yaml").write_text(BY_TIME)
    ((_, train, test),) = tables.splits(tmp_path / "bank.yaml", 4)
    days = [{int(second) // 86400 for second in part.timestamps} for part in (train, test)]
    last = max(folder.name for folder in (tmp_path / "bank").iterdir())
    first = min(days[1])
    # A week whose labels are known on the last day; before it, the delay and the train days.
    assert days[1] == set(range(first, first + 7))
    assert days[0] == set(range(first - 3 - 8, first - 3))
    known = date(1970, 1, 1) + timedelta(first + 6 + 3)
    assert last == f"date={known}"


def test_a_result_is_computed_once(table, tmp_path, monkeypatch):
    described, rows = table
    calls = []
    monkeypatch.setattr(tables, "measure", measured(calls))
    split = tables.split_at_random(rows, 0)
    place = tmp_path / "results" / f"{NETWORK}-0"
    first = kept_or_measured(place, NETWORK, described, *split)
    assert kept_or_measured(place, NETWORK, described, *split) == first
    assert calls == [NETWORK]
    assert first["version"] == version(NETWORK, described, *split)
    assert first["commit"].startswith(code.origin().commit)
    assert [path.name for path in place.parent.iterdir()] == [
        f"{NETWORK}-0-{first['version'][:12]}.json"
    ]


def test_a_result_of_other_code_is_not_used_and_that_is_said(table, tmp_path, monkeypatch, capfd):
    described, rows = table
    calls = []
    monkeypatch.setattr(tables, "measure", measured(calls))
    split = tables.split_at_random(rows, 0)
    before = kept_or_measured(tmp_path / "x-0", NETWORK, described, *split)
    assert "depends" not in capfd.readouterr().err
    with monkeypatch.context() as patch:
        changed = other_code(tmp_path, "models/network/training.py")
        patch.setattr(code, "_installed", lambda: changed)
        after = kept_or_measured(tmp_path / "x-0", NETWORK, described, *split)
        assert calls == [NETWORK, NETWORK]
        assert after["version"] != before["version"]
        assert "x-0: depends on something else than before" in capfd.readouterr().err
    # Whoever goes back to the older code has its result again.
    assert kept_or_measured(tmp_path / "x-0", NETWORK, described, *split) == before
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("module", "network", "others"),
    [
        ("models/network/architecture.py", True, False),
        ("models/preprocessing/edges.py", True, False),
        ("models/evaluation/metrics.py", True, True),
        ("pipeline/summary.py", False, False),
    ],
)
def test_what_changes_with_a_module(table, tmp_path, monkeypatch, module, network, others):
    described, rows = table
    models = (NETWORK, "LightGBM, tuned")
    before = [version(model, described, rows, rows) for model in models]
    changed = other_code(tmp_path, module)
    monkeypatch.setattr(code, "_installed", lambda: changed)
    after = [version(model, described, rows, rows) for model in models]
    assert [new != old for new, old in zip(after, before, strict=True)] == [network, others]


def test_what_changes_with_settings_libraries_and_rows(table, tmp_path, monkeypatch):
    described, rows = table
    models = (NETWORK, *tables.TABLE_CONTESTANTS)

    def versions(config=described, train=rows, test=rows):
        return {model: version(model, config, train, test) for model in models}

    def changed(**arguments):
        return {model for model, now in versions(**arguments).items() if now != before[model]}

    before = versions()
    assert len(set(before.values())) == len(models)
    assert changed() == set()

    more = dataclasses.replace(described.network, epochs=99)
    assert changed(config=dataclasses.replace(described, network=more)) == {NETWORK}

    make, settings = tables.TABLE_CONTESTANTS["random forest"]
    with monkeypatch.context() as patch:
        patch.setitem(tables.TABLE_CONTESTANTS, "random forest", (make, settings[:1]))
        assert changed() == {"random forest"}
    with monkeypatch.context() as patch:
        patch.setattr(contestants, "CROSS_VALIDATION", 5)
        assert changed() == set(models) - {NETWORK}
    with monkeypatch.context() as patch:
        (tmp_path / "libraries").write_text("xgboost==0.1")
        patch.setattr(tables, "LIBRARIES", tmp_path / "libraries")
        assert changed() == set(models) - {NETWORK}

    for name in ("income", "region"):
        values = rows.columns[name].copy()
        values[5] = values[6]
        other = dataclasses.replace(rows, columns={**rows.columns, name: values})
        assert changed(train=other) == set(models)
        assert changed(test=other) == set(models)
    labels = 1 - rows.labels
    assert changed(train=dataclasses.replace(rows, labels=labels)) == set(models)


def test_the_other_models_are_told_which_columns_are_categories(table, tmp_path, monkeypatch):
    described, rows = table
    monkeypatch.setattr(tables, "PYTHON", Path(sys.executable))
    train, test = tables.split_at_random(rows, 0)
    # A region that no train row has.
    test.columns["region"][0] = b"far away"
    scores, seconds = tables.fit_other("logistic regression", described, train, test, tmp_path)
    assert scores.shape == test.labels.shape
    assert ((scores > 0) & (scores < 1)).all()
    assert seconds > 0
    assert np.load(tmp_path / "categorical.npy").tolist() == [1]
    encoded = np.load(tmp_path / "test.npy")[:, 1]
    assert encoded[0] == 4  # after "", 0, 1 and 2 of the train rows
    assert set(encoded[1:]) <= {0, 1, 2, 3}


def test_a_comparison_from_end_to_end_uses_kept_results(table, tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(tables, "measure", measured(calls))
    monkeypatch.setattr(tables, "write_generated", lambda folder, only: None)
    arguments = ["tables", "--out", str(tmp_path / "out"), "--folder", str(tmp_path)]
    arguments += ["--splits", "2", "--models", NETWORK, "LightGBM, defaults"]
    monkeypatch.setattr(sys, "argv", arguments)
    tables.main()
    printed = capsys.readouterr().out
    assert calls == [NETWORK, "LightGBM, defaults"] * 2
    tables.main()
    assert len(calls) == 4
    assert capsys.readouterr().out == printed
    kept = json.loads((tmp_path / "out" / "tables.json").read_text())
    assert [len(kept["people"][model]) for model in (NETWORK, "LightGBM, defaults")] == [2, 2]
    assert all(run["version"] for runs in kept["people"].values() for run in runs)

    monkeypatch.setattr(sys, "argv", [*arguments, "--only", "poeple"])
    with pytest.raises(SystemExit) as stopped:
        tables.main()
    assert stopped.value.code == 2
    assert "no table poeple" in capsys.readouterr().err


def test_ranks_are_means_over_tables_and_equals_share_the_better_one():
    def runs(*precisions):
        return [{**dict.fromkeys(tables.METRICS, 0.5), "average_precision": p} for p in precisions]

    results = {
        "one": {"ours": runs(0.5, 0.7), "theirs": runs(0.2, 0.4), "third": runs(0.3, 0.3)},
        "two": {"ours": runs(0.1), "theirs": runs(0.3), "third": runs(0.3)},
    }
    lines = list(report(results))
    assert "| one | 0.600 | 0.300 | 0.300 |" in lines
    assert "| ours | 2.0 | 0.350 | 0.500 | 0.5000 | 0.500 | 0.5 |" in lines
    assert "| theirs | 1.5 | 0.300 | 0.500 | 0.5000 | 0.500 | 0.5 |" in lines


def measured(calls: list[str]):
    """Stands in for `measure`, and notes the models that it was called for."""

    def measure(model, config, train, test):
        calls.append(model)
        return dict.fromkeys(tables.METRICS, 0.25)

    return measure

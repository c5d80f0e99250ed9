"""The champion is judged on the inputs it was trained on, whatever the challenger reads."""

from __future__ import annotations

import pytest
from pyarrow import parquet

from tests.e2e.conftest import CONFIG, SAMPLE

pytestmark = pytest.mark.e2e

FIRST, LATER = "2026-03-13", "2026-03-20"

OWN = CONFIG.replace("paths: {schema: schema.pbtxt}", "").replace("drop: 0.5", "drop: 0.05")
RISK = "    - {families: [known_count, risk], windows: [7]}\n"
WEAKER = OWN.replace(RISK, "")
NEVER_BLESSED = OWN.replace("min_average_precision: 0.02", "min_average_precision: 1.0")


@pytest.fixture(scope="module")
def bank(new_bank):
    """A bank whose champion reads risk features."""
    bank = new_bank(OWN)
    assert bank.run(SAMPLE, FIRST)["outcome"] == "pushed"
    return bank


@pytest.fixture(scope="module")
def configured(bank):
    def run(config: str, data=SAMPLE) -> dict:
        (bank.folder / "fraud.yaml").write_text(config, encoding="utf-8")
        return bank.run(data, LATER)

    return run


@pytest.fixture(scope="module")
def alike(configured):
    """A challenger of the champion's own configuration, on the later eval window."""
    return configured(NEVER_BLESSED)


@pytest.fixture(scope="module")
def weaker(alike, configured):
    """A challenger that reads less, on the same eval window."""
    return configured(WEAKER)


def cached(summary: dict) -> set[str]:
    lines = summary["progress"].splitlines()
    return {line.split()[1] for line in lines if " cached" in line}


def test_the_champions_metrics_are_those_under_its_own_configuration(alike, weaker):
    want, got = alike["champion_metrics"], weaker["champion_metrics"]
    assert want["overall"]["example_count"] > 10_000
    assert set(got["slices"]) == set(want["slices"])
    assert got["overall"] == pytest.approx(want["overall"], abs=1e-6)
    for name, row in want["slices"].items():
        assert got["slices"][name] == pytest.approx(row, abs=1e-6)


def test_a_weaker_challenger_is_refused(bank, weaker):
    assert weaker["outcome"] == "not_blessed"
    assert any(
        "average_precision" in reason and "champion" in reason for reason in weaker["reasons"]
    )
    assert not any("champion" in note for note in weaker["notes"])
    assert len(bank.versions()) == 1


def test_the_same_run_again_is_cached_with_and_without_a_difference(weaker, configured):
    data_and_training = {"TransactionExampleGen", "StatisticsGen", "Transform", "Trainer"}
    assert cached(configured(WEAKER)) >= {*data_and_training, "Evaluator"}
    assert cached(configured(NEVER_BLESSED)) >= {*data_and_training, "Evaluator"}


def test_a_champion_whose_column_is_gone_is_not_judged_and_the_run_says_so(
    weaker, configured, tmp_path
):
    gone = "CUSTOMER_AGE_BAND"
    for file in SAMPLE.rglob("*.parquet"):
        copy = tmp_path / file.relative_to(SAMPLE)
        copy.parent.mkdir()
        parquet.write_table(parquet.read_table(file, partitioning=None).drop([gone]), copy)
    summary = configured(WEAKER.replace(f", {gone}", ""), tmp_path)
    assert summary["champion_metrics"] == {}
    begin = "champion not judged: its inputs cannot be computed: date=2026-"
    (note,) = [note for note in summary["notes"] if note.startswith(begin)]
    assert note.endswith(f"no column {gone!r}")

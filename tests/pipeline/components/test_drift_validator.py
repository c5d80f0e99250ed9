"""Drift from examples to anomalies: StatisticsGen and DistributionValidator with our executors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.components.distribution_validator import executor as stock
from tfx.proto import distribution_validator_pb2
from tfx.types.standard_artifacts import ExampleAnomalies, Examples, ExampleStatistics

from fraud.codec import to_json
from fraud.errors import BadInput
from fraud.pipeline import drift
from fraud.pipeline.components.batched_reading import StatisticsGenExecutor
from fraud.pipeline.components.daily_counts import COUNTS_BY_DAY, ToCount
from fraud.pipeline.components.drift_validator import (
    BASELINE,
    NOT_JUDGED,
    UNJUDGED,
    WHOLE,
    DistributionValidatorExecutor,
)
from fraud.pipeline.ingestion import example_writer
from fraud.time import UTC

ROWS = 150  # a day
TO_COUNT = ToCount(("AMOUNT", "CHANNEL"), "TIME", "CARD", UTC)
PAIRS = [["train", "train"], ["recent", "train"]]

Columns = dict[str, np.ndarray]
Change = Callable[[Columns, np.random.Generator], None]


def columns(first: int, days: int, seed: int) -> Columns:
    rng = np.random.default_rng(seed)
    rows = days * ROWS
    return {
        "TIME": (first + np.arange(rows) // ROWS) * 86_400 + rng.integers(0, 86_400, rows),
        "AMOUNT": rng.gamma(2, 20, rows),
        "CHANNEL": rng.choice(["chip", "online", "contactless"], rows, p=[0.3, 0.25, 0.45]),
        "CARD": rng.integers(0, 100, rows),
    }


def statistics(
    folder: Path,
    first: int,
    change: Change = lambda *_: None,
    to_count: ToCount | None = TO_COUNT,
) -> ExampleStatistics:
    """Of a train and a recent window that start on a day; `change` is made to the recent one."""
    given, result = Examples(), ExampleStatistics()
    given.uri, result.uri = str(folder / "examples"), str(folder / "statistics")
    given.split_names = json.dumps(["train", "recent"])
    for split, days, seed in (("train", 28, first), ("recent", 7, first + 1)):
        of_split = columns(first + (28 if split == "recent" else 0), days, seed)
        if split == "recent":
            change(of_split, np.random.default_rng(seed))
        path = folder / "examples" / f"Split-{split}" / "data_tfrecord-0.gz"
        path.parent.mkdir(parents=True)
        arrays = {n: pa.array(values, from_pandas=True) for n, values in of_split.items()}
        with example_writer.open_file(str(path)) as file:
            example_writer.write(file, arrays)
    properties = {} if to_count is None else {COUNTS_BY_DAY: to_json(to_count)}
    StatisticsGenExecutor().Do({"examples": [given]}, {"statistics": [result]}, properties)
    return result


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> ExampleStatistics:
    return statistics(tmp_path_factory.mktemp("baseline"), 20_000)


def properties(**thresholds: float) -> dict[str, object]:
    config = distribution_validator_pb2.DistributionValidatorConfig()
    for name, threshold in thresholds.items():
        feature = config.default_slice_config.feature.add()
        feature.path.step.append(name)
        feature.distribution_comparator.jensen_shannon_divergence.threshold = threshold
    return {
        "include_split_pairs": json.dumps(PAIRS),
        "distribution_validator_config": config,
    }


def validated(
    folder: Path,
    current: ExampleStatistics,
    baselines: list[ExampleStatistics],
    executor: type[stock.Executor] = DistributionValidatorExecutor,
    **thresholds: float,
) -> ExampleAnomalies:
    anomalies = ExampleAnomalies()
    anomalies.uri = str(folder / "anomalies")
    inputs = {"statistics": [current], "baseline_statistics": baselines}
    executor().Do(inputs, {"anomalies": [anomalies]}, properties(**thresholds))
    return anomalies


def recorded(anomalies: ExampleAnomalies, pair: str) -> anomalies_pb2.Anomalies:
    path = Path(anomalies.uri, f"SplitPair-{pair}", "SchemaDiff.pb")
    return anomalies_pb2.Anomalies.FromString(path.read_bytes())


def times(factor: float) -> Change:
    def change(of_split: Columns, _: np.random.Generator) -> None:
        of_split["AMOUNT"] = of_split["AMOUNT"] * factor

    return change


def half_zero(of_split: Columns, rng: np.random.Generator) -> None:
    of_split["AMOUNT"][rng.random(len(of_split["AMOUNT"])) < 0.5] = 0


def rewritten(of_split: Columns, rng: np.random.Generator) -> None:
    of_split["CHANNEL"][rng.random(len(of_split["CHANNEL"])) < 0.4] = "online"


@pytest.mark.parametrize(
    ("change", "column", "by_stock_missed"),
    [
        (times(2), "AMOUNT", True),
        (times(3), "AMOUNT", False),  # missed on the sample, whose amounts vary more
        (half_zero, "AMOUNT", True),
        (rewritten, "CHANNEL", True),
    ],
    ids=["amounts × 2", "amounts × 3", "half of the amounts 0", "40 % of CHANNEL rewritten"],
)
def test_changes_that_fixed_thresholds_miss_are_found(
    tmp_path: Path,
    baseline: ExampleStatistics,
    change: Change,
    column: str,
    by_stock_missed: bool,
) -> None:
    current = statistics(tmp_path, 20_035, change)
    by_stock = validated(
        tmp_path / "stock", current, [baseline], stock.Executor, AMOUNT=0.3, CHANNEL=0.3
    )
    missed = not recorded(by_stock, "recent_train").anomaly_info
    assert missed is by_stock_missed
    found = validated(tmp_path, current, [baseline])
    assert set(recorded(found, "recent_train").anomaly_info) == {column}
    assert not recorded(found, "train_train").anomaly_info
    assert found.get_json_value_custom_property("blessed") == {
        "train_train": 1,
        "recent_train": 0,
    }
    assert json.loads(found.split_names) == ["train_train", "recent_train"]


def test_an_anomaly_is_complete_for_tfdv_and_for_the_reader(
    tmp_path: Path, baseline: ExampleStatistics
) -> None:
    found = recorded(
        validated(tmp_path, statistics(tmp_path, 20_035, half_zero), [baseline]), "recent_train"
    )
    info = found.anomaly_info["AMOUNT"]
    assert info.severity == anomalies_pb2.AnomalyInfo.ERROR
    assert [r.short_description for r in info.reason] == [
        "drift of the zero rate",
        "drift of the distribution",
    ]
    assert "0.00% → 4" in info.reason[0].description
    assert info.reason[1].type == (
        anomalies_pb2.AnomalyInfo.COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH
    )
    assert "at most" in info.description
    measured = {skew.path.step[0]: skew.drift_measurements[0] for skew in found.drift_skew_info}
    assert set(measured) == {"AMOUNT", "CHANNEL"}
    assert measured["AMOUNT"].value > measured["AMOUNT"].threshold > 0
    assert measured["CHANNEL"].value < measured["CHANNEL"].threshold


def test_fewer_rows_are_an_anomaly_of_the_dataset(
    tmp_path: Path, baseline: ExampleStatistics
) -> None:
    def halved(of_split: Columns, _: np.random.Generator) -> None:
        of_split.update({name: values[::2] for name, values in of_split.items()})

    current = statistics(tmp_path, 20_035, halved)
    info = recorded(validated(tmp_path, current, [baseline]), "recent_train").dataset_anomaly_info
    assert info.path.step == [drift.ROWS]
    assert info.reason[0].description.startswith("150 → 75")
    allowed = validated(tmp_path / "allowed", current, [baseline], rows_per_day=1.0)
    assert not recorded(allowed, "recent_train").HasField("dataset_anomaly_info")


def test_without_a_baseline_nothing_is_judged(tmp_path: Path, baseline: ExampleStatistics) -> None:
    found = validated(tmp_path, baseline, [])
    assert found.get_string_custom_property(NOT_JUDGED) == "from other data yet"
    assert not found.get_string_custom_property(BASELINE)


def test_a_baseline_of_an_earlier_version_is_not_judged(
    tmp_path: Path, baseline: ExampleStatistics
) -> None:
    old = statistics(tmp_path, 20_000, to_count=None)
    found = validated(tmp_path, baseline, [old])
    assert "with counts by day" in found.get_string_custom_property(NOT_JUDGED)


def test_a_column_that_the_baseline_lacks_is_not_judged_and_recorded(
    tmp_path: Path, baseline: ExampleStatistics
) -> None:
    fewer = ToCount(("AMOUNT",), "TIME", "CARD", UTC)
    found = validated(tmp_path, baseline, [statistics(tmp_path, 20_000, to_count=fewer)])
    unjudged = json.loads(found.get_string_custom_property(UNJUDGED))
    assert unjudged == {pair: {"CHANNEL": "the baseline lacks it"} for pair in unjudged}
    assert set(unjudged) == {"train_train", "recent_train"}
    assert [m.path.step[0] for m in recorded(found, "recent_train").drift_skew_info] == ["AMOUNT"]


def test_a_window_that_was_not_counted_is_not_judged_and_recorded(
    tmp_path: Path, baseline: ExampleStatistics
) -> None:
    old = statistics(tmp_path, 20_000, to_count=None)
    found = validated(tmp_path, old, [baseline])
    unjudged = json.loads(found.get_string_custom_property(UNJUDGED))
    why = {WHOLE: "it has no counts by day, or no transactions"}
    assert unjudged == {"train_train": why, "recent_train": why}


def test_a_deleted_baseline_is_named_with_the_fix(
    tmp_path: Path, baseline: ExampleStatistics
) -> None:
    gone = ExampleStatistics()
    gone.uri, gone.split_names = str(tmp_path / "gone"), baseline.split_names
    with pytest.raises(BadInput, match=r"gone: .* deleted; .* data_gate\.reference_run"):
        validated(tmp_path, baseline, [gone])

import dataclasses
import json

import pytest

from fraud.features.spec import Dataset
from fraud.models.spec import Tuning
from fraud.pipeline.config import Config, WindowLengths
from fraud.pipeline.root import Root


@pytest.fixture
def upstream(tmp_path):
    """The compiled graph of a configuration: node → the nodes it waits for."""
    from fraud.pipeline.runners import compiled

    def compiled_upstream(config: Config) -> dict[str, list[str]]:
        compiled.write(config, Root(tmp_path / "root"), "transactions", tmp_path / "graph")
        outline = json.loads((tmp_path / "graph" / compiled.OUTLINE_FILE).read_text())
        return {node["id"]: node["upstream"] for node in outline["nodes"]}

    return compiled_upstream


def test_the_search_stands_before_the_training_and_behind_the_gate(upstream):
    nodes = upstream(dataclasses.replace(Config(), tuning=Tuning(enabled=True)))
    assert "Tuner" in nodes["Trainer"]
    assert {"DataGate", "Transform"} <= set(nodes["Tuner"])


def test_without_a_search_there_is_no_node_for_it(upstream):
    assert "Tuner" not in upstream(Config())


def test_nothing_waits_for_the_model_card(upstream):
    nodes = upstream(Config())
    assert list(nodes)[-1] == "ModelCardGen"
    assert {"DataGate", "Evaluator", "Pusher"} <= set(nodes["ModelCardGen"])
    assert not any("ModelCardGen" in waits for waits in nodes.values())


def test_the_inferred_schema_that_is_recorded_is_the_tolerant_one(tmp_path):
    from fraud.pipeline.components.schema_gen import SchemaGenExecutor
    from fraud.pipeline.graph import create_pipeline

    pipeline = create_pipeline(Config(), Root(tmp_path), "transactions")
    (schema_gen,) = (node for node in pipeline.components if node.id == "SchemaGen")
    assert schema_gen.executor_spec.executor_class is SchemaGenExecutor


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        (Config(), ["train", "eval", "recent"]),
        (Config(windows=WindowLengths(label_delay_days=0)), ["train", "eval"]),
        (Config(dataset=Dataset(timestamp=None)), ["train", "eval"]),
    ],
)
def test_every_window_that_decides_is_compared_with_earlier_data(tmp_path, config, windows):
    """The eval window, too: nobody may have looked at its days when they were recent."""
    from fraud.pipeline.graph import create_pipeline

    nodes = {n.id: n for n in create_pipeline(config, Root(tmp_path), "transactions").components}
    for validator in ("DistributionValidator", "ReferenceValidator"):
        pairs = json.loads(nodes[validator].exec_properties["include_split_pairs"])
        assert pairs == [[window, "train"] for window in windows]


def test_drift_is_judged_by_derived_thresholds_unless_configured():
    from fraud.pipeline.components.drift_validator import thresholds
    from fraud.pipeline.config.sections import DataGateSettings
    from fraud.pipeline.graph import drift_config, to_count

    def with_gate(**gate) -> Config:
        return dataclasses.replace(Config(), data_gate=DataGateSettings(**gate))

    assert thresholds(drift_config(Config())) == {}
    assert to_count(Config()).columns == ("TX_AMOUNT",)
    tokyo = dataclasses.replace(Config().dataset, timezone="Asia/Tokyo")
    assert to_count(dataclasses.replace(Config(), dataset=tokyo)).timezone == "Asia/Tokyo"
    everything = thresholds(drift_config(with_gate(max_drift=0.5)))
    assert everything == {"TX_AMOUNT": 0.5, "rows_per_day": 0.5}
    named = with_gate(drift_thresholds={"night": 0.25, "rows_per_day": 1.0})
    assert to_count(named).columns == ("TX_AMOUNT", "night")
    assert thresholds(drift_config(named)) == {"night": 0.25, "rows_per_day": 1.0}

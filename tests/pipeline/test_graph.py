import dataclasses
import json

import pytest

from fraud.models.spec import Tuning
from fraud.pipeline.config import Config
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

import json
from pathlib import Path

import pytest
from tfx.components.trainer import executor
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types.standard_artifacts import Examples, Model, ModelRun
from tfx.utils import path_utils

from fraud.models.entry_point import THRESHOLD_FILE
from fraud.models.specification import EXTRA
from fraud.pipeline.components.trainer import TrainerExecutor


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Runs the executor as if training had written a document."""

    def trained(document, as_of="2026-03-13") -> Model:
        model = Model()
        model.uri = str(tmp_path / "model")
        extra = Path(path_utils.serving_model_dir(model.uri)) / EXTRA

        def stock(self, input_dict, output_dict, exec_properties):
            extra.mkdir(parents=True)
            (extra / THRESHOLD_FILE).write_text(json.dumps(document))

        monkeypatch.setattr(executor.GenericExecutor, "Do", stock)
        context = BaseExecutor.Context(pipeline_run_id="20260313-1")
        outputs = {"model": [model], "model_run": [ModelRun()]}
        examples = Examples()
        examples.set_string_custom_property("as_of", as_of)
        TrainerExecutor(context).Do({"examples": [examples]}, outputs, {})
        return model

    return trained


def test_threshold_metrics_and_run_are_properties_of_the_model(train):
    model = train({"threshold": 0.25, "validation": {"brier": 0.01, "roc_auc": 1.0}})
    assert model.get_float_custom_property("threshold") == 0.25
    assert model.get_float_custom_property("brier") == 0.01
    assert model.get_float_custom_property("roc_auc") == 1.0
    assert model.get_string_custom_property("run_id") == "20260313-1"
    assert model.get_string_custom_property("as_of") == "2026-03-13"


def test_an_undefined_metric_has_no_property(train):
    model = train({"threshold": 0.0, "validation": {"average_precision": None}})
    assert model.get_float_custom_property("threshold") == 0.0
    assert not model.has_custom_property("average_precision")


def test_without_timestamps_there_is_no_as_of_day(train):
    model = train({"threshold": 0.0, "validation": {}}, as_of="")
    assert not model.has_custom_property("as_of")

import dataclasses
import json
from pathlib import Path

import pytest
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from fraud.codec import to_json
from fraud.models.entry_point import NETWORK_FILE, THRESHOLD_FILE
from fraud.models.spec import Evaluation, Network
from fraud.models.specification import EXTRA
from fraud.pipeline import artifacts, config
from fraud.pipeline.components import types
from fraud.pipeline.components.model_card_gen import ModelCardGen


@pytest.fixture
def card(tmp_path, monkeypatch):
    """Runs the component; the evaluation is a stand-in."""

    def card_of(pushed: int) -> types.ModelCard:
        def artifact(kind, **properties):
            new = kind()
            new.uri = str(tmp_path / new.type_name)
            Path(new.uri).mkdir()
            for name, content in properties.items():
                if isinstance(content, int):
                    new.set_int_custom_property(name, content)
                else:
                    new.set_string_custom_property(name, content)
            return new

        model = artifact(standard_artifacts.Model, run_id="20260313-1")
        extra = Path(path_utils.serving_model_dir(model.uri)) / EXTRA
        extra.mkdir(parents=True)
        trained = {"threshold": 0.25, "validation": {"brier": 0.01, "roc_auc": None}}
        (extra / THRESHOLD_FILE).write_text(json.dumps(trained))
        (extra / NETWORK_FILE).write_text(json.dumps(dataclasses.asdict(Network())))
        verdict = artifact(types.DataVerdict)
        (Path(verdict.uri) / artifacts.VERDICT_FILE).write_text(
            '{"passed": true, "anomalies": [], "notes": ["not judged: drift"], "empty": ["AGE"]}'
        )
        metrics = {"overall": {"average_precision": 0.5}, "slices": {}}
        evaluation = artifacts.Evaluation(metrics, {})
        monkeypatch.setattr(artifacts.Evaluation, "read", lambda artifact: evaluation)
        columns = {"numeric": ["TX_AMOUNT"], "categorical": [], "label": "TX_FRAUD"}
        inputs = {
            "examples": artifact(
                standard_artifacts.Examples,
                as_of="2026-03-13",
                windows='{"train": ["2026-02-12", "2026-02-21"]}',
                rows='{"train": 100}',
                positives='{"train": 3}',
            ),
            "verdict": verdict,
            "model": model,
            "evaluation": artifact(standard_artifacts.ModelEvaluation),
            "infra_blessing": artifact(
                standard_artifacts.InfraBlessing, answer='{"examples": 100, "seconds": 0.1}'
            ),
            "pushed_model": artifact(
                standard_artifacts.PushedModel,
                pushed=pushed,
                pushed_version="1753",
                pushed_destination="root/pushed/1753",
            ),
        }
        output = artifact(types.ModelCard)
        parameters = {
            "text": to_json(config.ModelCardText()),
            "columns": json.dumps({**columns, "timestamp": None, "card": None}),
            "evaluation_settings": to_json(Evaluation()),
            "alert_budget": "100 customers a day",
            "label_known": "7 days after its transaction",
        }
        component = ModelCardGen.EXECUTOR_SPEC.executor_class()
        component.Do({k: [v] for k, v in inputs.items()}, {"card": [output]}, parameters)
        return output

    return card_of


def test_a_pushed_model_gets_a_page_and_its_markdown(card):
    output = card(pushed=1)
    assert output.get_int_custom_property("written") == 1
    for name in (artifacts.CARD_PAGE, artifacts.CARD_TEXT):
        text = (Path(output.uri) / name).read_text(encoding="utf-8")
        for expected in ("1753", "20260313-1", "2026-02-12", "not judged: drift", "0.2500"):
            assert expected in text
        assert "any value in train: AGE" in text


def test_a_model_that_was_not_pushed_gets_none(card):
    output = card(pushed=0)
    assert output.get_int_custom_property("written") == 0
    assert list(Path(output.uri).iterdir()) == []

"""What the Evaluator is told to measure and require, compared with the text in `expected/`."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from fraud.features.spec import Dataset
from fraud.models.evaluation.eval_config import eval_config
from fraud.models.spec import Evaluation

EXPECTED = Path(__file__).with_name("expected")
LABEL_ONLY = Dataset(label="FRAUD", timestamp=None, entities=(), amount=None)


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("default", Dataset()),
        ("sliced", Dataset(slices=("CHANNEL", "BAND"))),
        ("label_only", LABEL_ONLY),
    ],
)
def test_eval_config_is_as_expected(name, dataset):
    text = text_format.MessageToString(eval_config(dataset, Evaluation()))
    assert text == (EXPECTED / f"{name}.txtpb").read_text()

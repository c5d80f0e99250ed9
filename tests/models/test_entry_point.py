import json
import math

import numpy as np

from fraud.codec import from_json
from fraud.features.spec import Dataset, Features
from fraud.models import entry_point
from fraud.models.network.training import Fitted
from fraud.models.spec import ResolvedNetwork
from fraud.models.specification import SPECIFICATION_FILE, InputSpecification


def test_quality_and_settings_are_written_and_undefined_metrics_are_null(tmp_path):
    spec = ResolvedNetwork(towers=((8, 4), (2,)), members=3)
    validation = {"brier": np.float64(0.5), "roc_auc": math.nan}
    fitted = Fitted(None, 0.25, validation, np.array([0.5]), spec)
    inputs = InputSpecification(Dataset(amount="SPENT"), Features(normal_days=9), 3)
    entry_point._write_extra(tmp_path, fitted, inputs)
    assert json.loads((tmp_path / entry_point.THRESHOLD_FILE).read_text()) == {
        "threshold": 0.25,
        "validation": {"brier": 0.5, "roc_auc": None},
    }
    assert from_json(ResolvedNetwork, (tmp_path / entry_point.NETWORK_FILE).read_text()) == spec
    text = (tmp_path / SPECIFICATION_FILE).read_text()
    assert from_json(InputSpecification, text) == inputs

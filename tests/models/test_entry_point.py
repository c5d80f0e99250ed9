import json
import math

import numpy as np

from fraud.codec import from_json
from fraud.models import entry_point
from fraud.models.network.training import Fitted
from fraud.models.spec import Network


def test_quality_and_settings_are_written_and_undefined_metrics_are_null(tmp_path):
    spec = Network(towers=((8, 4), (2,)))
    fitted = Fitted(None, 0.25, {"brier": np.float64(0.5), "roc_auc": math.nan})
    entry_point._write_extra(tmp_path, fitted, spec)
    assert json.loads((tmp_path / entry_point.THRESHOLD_FILE).read_text()) == {
        "threshold": 0.25,
        "validation": {"brier": 0.5, "roc_auc": None},
    }
    assert from_json(Network, (tmp_path / entry_point.NETWORK_FILE).read_text()) == spec

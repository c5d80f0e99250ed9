"""`fraud-pipeline state` on the sample."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fraud.pipeline.cli import main
from fraud.serving.state import open_state

SAMPLE = Path(__file__).parents[3] / "data" / "sample"
AS_OF = "2026-03-01"


@pytest.fixture
def state_of(tmp_path, capsys):
    """Runs an action of the command: (exit code, its JSON document or its message)."""

    def run(action: str, *options: str):
        common = ["--config", str(SAMPLE / "config.yaml"), "--root", str(tmp_path / "root")]
        data = ["--data", str(SAMPLE / "transactions")]
        code = main(["state", action, *common, *data, "--json", *options])
        output = capsys.readouterr()
        return code, json.loads(output.out) if output.out else output.err

    return run


def test_a_built_state_is_that_of_the_data(state_of, tmp_path):
    code, built = state_of("build", "--as-of", AS_OF)
    assert code == 0 and built["transactions"] > 1000
    assert built["days"] == ["2026-01-22", AS_OF], "37 days, one more, and the day itself"
    assert built["state"] == str(tmp_path / "root" / "state")
    code, checked = state_of("check", "--as-of", AS_OF)
    assert code == 0 and checked["same"] and checked["transactions"] > 100


def test_check_is_of_the_newest_day_that_both_have(state_of, capsys):
    state_of("build", "--as-of", AS_OF)
    code, checked = state_of("check")
    assert code == 0 and checked["same"] and checked["day"] == AS_OF
    assert checked["newest"].startswith(AS_OF)
    options = ["--config", str(SAMPLE / "config.yaml"), "--as-of", "2026-03-05"]
    location = ["--data", str(SAMPLE / "transactions"), "--state", checked["state"]]
    assert main(["state", "check", *options, *location]) == 1
    assert f"the newest transaction in the state is of {AS_OF} " in capsys.readouterr().out


def test_check_finds_what_differs(state_of, tmp_path):
    state_of("build", "--as-of", AS_OF)
    assert state_of("check", "--as-of", "2026-02-01")[0] == 2, "its history has expired"
    code, checked = state_of("check", "--as-of", "2026-03-02")
    assert code == 1 and checked["missing"] == checked["transactions"]
    # All labels are changed: only features that read labels differ.
    state = open_state(str(tmp_path / "root" / "state"))
    store = state._store
    keys = [key for key, _ in _all(store)]
    now = np.full(len(keys), np.datetime64("2030-01-01", "us"))
    store.label(keys, [1] * len(keys), now, now[0])
    state.close()
    code, checked = state_of("check", "--as-of", AS_OF)
    assert code == 1 and not checked["missing"]
    assert {"CUSTOMER_ID_risk_30d", "TERMINAL_ID_last_labels_30d"} <= checked["differing"].keys()
    assert "CUSTOMER_ID_count_30d" not in checked["differing"]


def test_a_state_may_have_entities_that_the_configuration_has_not(state_of, tmp_path):
    """Such as those of a version that is still pushed, or of the next one."""
    assert state_of("build", "--as-of", AS_OF)[0] == 0
    config = tmp_path / "config.yaml"
    written = (SAMPLE / "config.yaml").read_text()
    config.write_text(written.replace("[CUSTOMER_ID, TERMINAL_ID]", "[CUSTOMER_ID]"))
    code, checked = state_of("check", "--as-of", AS_OF, "--config", str(config))
    assert code == 0 and checked["same"]


def test_a_day_without_data_is_refused(state_of):
    code, message = state_of("build", "--as-of", "2030-01-01")
    assert code == 2 and "the as-of day 2030-01-01 is not among its days" in message
    code, message = state_of("check")
    assert code == 2 and "there is no state; build it" in message


def _all(store):
    from fraud.serving.state import lmdb_store

    start, batch = b"", True
    while batch:
        batch = lmdb_store.transactions_from(store._generation, start)
        yield from batch
        start = batch[-1][0] + b"\0" if batch else b""

"""The trace of a whole run, as a collector receives it."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import SAMPLE
from tests.fraud.test_tracing import attributes, collector

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
__all__ = ["collector"]  # a fixture


def test_a_run_is_a_span_with_a_span_for_each_node_that_ran(new_bank, collector, monkeypatch):
    for name, value in collector.environment.items():
        monkeypatch.setenv(name, value)
    bank = new_bank()
    done = bank.call("run", "--data", SAMPLE, "--as-of", "2026-03-20", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    (run,) = collector.named("run")
    assert attributes(run) == {"fraud.run": summary["run_id"], "fraud.as_of": "2026-03-20"}
    nodes = {span["name"]: span for span in collector.spans if span is not run}
    assert {*nodes} == {*summary["seconds"]} - {"loading TFX"}
    for span in nodes.values():
        assert (span["traceId"], span["parentSpanId"]) == (run["traceId"], run["spanId"])
    trainer = nodes["Trainer"]
    lasted = (int(trainer["endTimeUnixNano"]) - int(trainer["startTimeUnixNano"])) / 1e9
    assert 0 < lasted <= summary["seconds"]["Trainer"]

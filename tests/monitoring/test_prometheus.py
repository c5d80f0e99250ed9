"""Gauges that Prometheus's own parser reads back."""

from __future__ import annotations

from datetime import date

from prometheus_client.parser import text_string_to_metric_families

from fraud.monitoring.checks import Check, Kind, Observation, Verdict
from fraud.monitoring.prometheus import exposition

OBSERVATION = Observation(
    date(2026, 3, 21),
    100,
    (
        Check("recall", 0.5, (0.4, 0.6), 0.3, Verdict.OK, "", Kind.PERFORMANCE),
        Check('drift/A "quoted"\n', 2.0, None, 1.0, Verdict.ACT, "", Kind.DRIFT),
        Check("skew/x", None, None, None, Verdict.CANNOT_JUDGE, "no log", Kind.SKEW),
    ),
)


def samples(observation: Observation) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("check", "")): sample.value
        for family in text_string_to_metric_families(exposition(observation))
        for sample in family.samples
    }


def test_what_is_unknown_has_no_sample():
    found = samples(OBSERVATION)
    assert found == {
        ("fraud_check_value", "recall"): 0.5,
        ("fraud_check_low", "recall"): 0.4,
        ("fraud_check_high", "recall"): 0.6,
        ("fraud_check_threshold", "recall"): 0.3,
        ("fraud_check_verdict", "recall"): 0,
        ("fraud_check_value", 'drift/A "quoted"\n'): 2,
        ("fraud_check_threshold", 'drift/A "quoted"\n'): 1,
        ("fraud_check_verdict", 'drift/A "quoted"\n'): 2,
        ("fraud_check_verdict", "skew/x"): -1,
        ("fraud_monitored_version", ""): 100,
        ("fraud_monitored_day_seconds", ""): 1774051200,
    }


def test_without_anything_live_there_is_no_version():
    found = samples(Observation(date(2026, 3, 21), None, ()))
    assert found == {("fraud_monitored_day_seconds", ""): 1774051200}

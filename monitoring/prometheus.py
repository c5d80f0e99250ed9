"""The latest observation as gauges, in a file that `serve` and node_exporter show Prometheus."""

from __future__ import annotations

import calendar

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from fraud.monitoring.checks import Observation, Verdict

FILE = "fraud_monitoring.prom"

LEVELS = {Verdict.CANNOT_JUDGE: -1, Verdict.OK: 0, Verdict.WARN: 1, Verdict.ACT: 2}
"""The value of a verdict's gauge."""


def exposition(observation: Observation) -> str:
    """The observation in Prometheus's text format.

    What is unknown has no sample: a value of 0 would be a claim.
    """
    registry = CollectorRegistry()
    labels = ("check", "kind")
    value = Gauge("fraud_check_value", "What a check measured.", labels, registry=registry)
    low = Gauge("fraud_check_low", "Lower end of its 95 % interval.", labels, registry=registry)
    high = Gauge("fraud_check_high", "Upper end of its 95 % interval.", labels, registry=registry)
    limit = Gauge("fraud_check_threshold", "From where on it acts.", labels, registry=registry)
    verdict = Gauge(
        "fraud_check_verdict",
        "-1 cannot judge, 0 ok, 1 warn, 2 act.",
        labels,
        registry=registry,
    )
    for check in observation.checks:
        named = (check.name, check.kind.value)
        verdict.labels(*named).set(LEVELS[check.verdict])
        interval = check.interval or (None, None)
        for gauge, number in zip(
            (value, low, high, limit), (check.value, *interval, check.threshold), strict=True
        ):
            if number is not None:
                gauge.labels(*named).set(number)
    if observation.version is not None:
        live = Gauge("fraud_monitored_version", "The version that was live.", registry=registry)
        live.set(observation.version)
    day = Gauge(
        "fraud_monitored_day_seconds",
        "The last day that was looked at, as seconds since 1970 of its beginning.",
        registry=registry,
    )
    day.set(calendar.timegm(observation.as_of.timetuple()))
    return generate_latest(registry).decode()

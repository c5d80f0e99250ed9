"""What Prometheus reads at /metrics."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Where several workers collect their metrics. prometheus_client reads it when it is imported."""

_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0, 5.0)

REQUESTS = Counter(
    "fraud_requests",
    "Requests by protocol, method, and HTTP status or gRPC code.",
    ("protocol", "method", "code"),
)
SECONDS = Histogram(
    "fraud_request_seconds",
    "Seconds from the arrival of a request until its answer, by protocol and method.",
    ("protocol", "method"),
    buckets=_SECONDS,
)
IN_PROGRESS = Gauge(
    "fraud_requests_in_progress",
    "Requests that are being answered.",
    multiprocess_mode="livesum",
)
ROWS = Counter("fraud_scored_transactions", "Transactions scored, by model version.", ("version",))
ALERTS = Counter("fraud_alerts", "Transactions whose score is an alert, by version.", ("version",))
OUTCOMES = Counter(
    "fraud_transactions",
    "Raw transactions by what became of them: new, late, repeated, conflict, future, expired.",
    ("outcome",),
)
LABELS = Counter(
    "fraud_labels",
    "Labels by what became of them: new, repeated, corrected, unknown.",
    ("outcome",),
)
DROPPED_PREDICTIONS = Counter(
    "fraud_dropped_predictions", "Predictions that could not be logged; the log says why."
)
SHADOW_FAILURES = Counter(
    "fraud_missing_shadow_scores", "Transactions that lack the score of the other model."
)
STATE_NEWEST = Gauge(
    "fraud_state_newest_timestamp_seconds",
    "Time of the newest transaction in the state, at the start and then hourly; 0 if it is empty.",
    multiprocess_mode="livemax",
)
LIVE_VERSION = Gauge(
    "fraud_live_version",
    "The model version that answers; 0 before the first. While it changes, workers may differ.",
    multiprocess_mode="livemin",
)
SWAPS = Counter("fraud_version_changes", "Changes of the model version that answers.")
REFUSED_VERSIONS = Counter(
    "fraud_refused_versions", "Attempts to load a version that failed; the log says why."
)


def exposition(gauges: Path | None = None) -> bytes:
    """All metrics in Prometheus's text format; with several workers, those of all.

    Args:
      gauges: a file with more of them, in the same format and with other names, if it exists.
    """
    more = b""
    if gauges is not None:
        with suppress(OSError):  # nobody has written it yet
            more = gauges.read_bytes()
    if FOLDER_VARIABLE in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return generate_latest(registry) + more
    return generate_latest() + more

"""Writes what is made of other files here: `python deploy/observability/generate.py`.

    dashboards/*.json       Grafana's dashboards, from the panels below
    prometheus-rule.yaml    alerts.yaml, as Prometheus's operator reads it

See docs/runbooks.md for the alerts.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
SCORING = "method=~'.*(:score|:predict|/infer|/Predict|/ModelInfer)'"
VERDICTS = {"-1": "cannot judge", "0": "ok", "1": "warn", "2": "act"}
COLUMNS, WIDTH, HEIGHT = 2, 12, 8


@dataclass(frozen=True)
class Panel:
    """A panel of a dashboard.

    Attributes:
      title: its heading.
      queries: PromQL by the legend of its series.
      unit: Grafana's name of the unit.
      kind: Grafana's name of the kind of panel.
      text: what it tells, if the title does not.
    """

    title: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    text: str = ""


def rate(by: str, counter: str) -> str:
    """PromQL: the rate of a counter, by a label."""
    return f"sum by ({by}) (rate({counter}[$__rate_interval]))"


def of_kind(kind: str, title: str, text: str = "") -> Panel:
    """What the checks of a kind measured, with the limit of each."""
    queries = {
        "{{check}}": f"max by (check) (fraud_check_value{{kind='{kind}'}})",
        "limit of {{check}}": f"max by (check) (fraud_check_threshold{{kind='{kind}'}})",
    }
    return Panel(title, queries, text=text)


def verdicts(kinds: str, title: str, condition: str = "") -> Panel:
    """The verdicts of the checks of some kinds over time."""
    query = f"max by (check, kind) (fraud_check_verdict{{kind=~'{kinds}'}}){condition}"
    return Panel(title, {"{{kind}}: {{check}}": query}, "verdict", "state-timeline")


DASHBOARDS = {
    "service": [
        Panel(
            "Requests for scores",
            {"{{code}}": rate("code", f"fraud_requests_total{{{SCORING}}}")},
            "reqps",
            text="HTTP status or gRPC code; without probes and reads.",
        ),
        Panel(
            "Duration",
            {
                f"p{100 * quantile:g}": f"histogram_quantile({quantile}, "
                + rate("le", f"fraud_request_seconds_bucket{{{SCORING}}}")
                + ")"
                for quantile in (0.5, 0.95, 0.99)
            },
            "s",
        ),
        Panel(
            "Failed and refused",
            {
                name: f"sum(fraud:scoring_requests:rate5m{{code=~'{codes}'}})"
                " / sum(fraud:scoring_requests:rate5m) or vector(0)"
                for name, codes in (
                    ("failed", "5..|INTERNAL|UNKNOWN|UNAVAILABLE|DEADLINE_EXCEEDED"),
                    ("refused", "429|RESOURCE_EXHAUSTED"),
                )
            },
            "percentunit",
        ),
        Panel("Requests in progress", {"{{instance}}": "fraud_requests_in_progress"}),
        Panel("All requests", {"{{method}}": rate("method", "fraud_requests_total")}, "reqps"),
        Panel("Servers", {name: f"{name}(up{{job='fraud-serving'}})" for name in ("sum", "count")}),
    ],
    "model": [
        Panel("Version that answers", {"{{instance}}": "fraud_live_version"}, "none"),
        Panel(
            "Scored transactions",
            {"{{version}}": rate("version", "fraud_scored_transactions_total")},
            "cps",
        ),
        Panel(
            "Alerts",
            {
                "{{version}}": rate("version", "fraud_alerts_total")
                + " / "
                + rate("version", "fraud_scored_transactions_total")
            },
            "percentunit",
            text="Share of the transactions whose score is an alert.",
        ),
        Panel(
            "Refused versions, missing shadow scores",
            {
                "refused in an hour": "sum(increase(fraud_refused_versions_total[1h]))",
                "no shadow score, an hour": "sum(increase(fraud_missing_shadow_scores_total[1h]))",
            },
        ),
        Panel(
            "Average precision",
            {
                name: f"max(fraud_check_{what}{{check='average_precision'}})"
                for name, what in (
                    ("value", "value"),
                    ("95 % from", "low"),
                    ("95 % to", "high"),
                    ("acts below", "threshold"),
                )
            },
            "none",
            text="Of the days whose labels are known.",
        ),
        of_kind("performance", "Performance"),
        of_kind("estimate", "Estimated performance", "Of the days whose labels are not known yet."),
        of_kind("scores", "Scores and alerts", "Compared with the evaluation."),
        of_kind("harm", "Harm"),
        of_kind("age", "Age"),
    ],
    "data": [
        verdicts("data|freshness", "Data"),
        of_kind("drift", "Drift"),
        of_kind("skew", "Difference between scoring and training"),
        of_kind("freshness", "Freshness"),
        Panel(
            "Transactions by what became of them",
            {"{{outcome}}": rate("outcome", "fraud_transactions_total")},
            "cps",
            text="See docs/serving-state.md.",
        ),
        Panel(
            "Labels by what became of them",
            {"{{outcome}}": rate("outcome", "fraud_labels_total")},
            "cps",
        ),
        Panel(
            "Age of the state",
            {"newest transaction": "time() - max(fraud_state_newest_timestamp_seconds)"},
            "s",
        ),
        Panel(
            "Predictions that were not logged",
            {"in an hour": "sum(increase(fraud_dropped_predictions_total[1h]))"},
        ),
    ],
    "loop": [
        Panel(
            "Days since the beginning of the last day that was looked at",
            {"days": "(time() - max(fraud_monitored_day_seconds)) / 86400"},
            "d",
            "stat",
        ),
        verdicts(".*", "What asks for action", " == 2"),
        Panel(
            "Checks by verdict",
            {
                name: f"count(max by (check) (fraud_check_verdict) == {level}) or vector(0)"
                for level, name in VERDICTS.items()
            },
        ),
        verdicts("drift|scores|performance|harm|age", "Model"),
        Panel(
            "Versions",
            {
                "answers": "max(fraud_live_version)",
                "was looked at last": "max(fraud_monitored_version)",
            },
            "none",
        ),
        Panel("Changes", {"in a day": "max(increase(fraud_version_changes_total[1d]))"}),
        Panel(
            "The loop and the daily run",
            {
                "loops": "sum(kube_deployment_status_replicas_available"
                "{namespace='fraud', deployment='fraud-watch'})",
                "jobs": "sum(kube_job_status_active{namespace='fraud'})",
                "failed pods of runs": "sum(kube_job_status_failed"
                "{namespace='fraud', job_name=~'fraud-daily-.*'})",
            },
            text="Of kube-state-metrics.",
        ),
        Panel(
            "Free space of the volumes",
            {
                "{{persistentvolumeclaim}}": "kubelet_volume_stats_available_bytes"
                "{namespace='fraud'} / kubelet_volume_stats_capacity_bytes{namespace='fraud'}"
            },
            "percentunit",
            text="Of the kubelet.",
        ),
    ],
}


def panel_document(panel: Panel, number: int) -> dict[str, Any]:
    """A panel as Grafana reads it."""
    row, column = divmod(number, COLUMNS)
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.unit == "verdict":
        colors = ("text", "green", "orange", "red")
        options = {
            value: {"text": text, "color": color, "index": index}
            for index, ((value, text), color) in enumerate(
                zip(VERDICTS.items(), colors, strict=True)
            )
        }
        defaults = {"unit": "none", "mappings": [{"type": "value", "options": options}]}
    return {
        "id": number + 1,
        "title": panel.title,
        "description": panel.text,
        "type": panel.kind,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend}
            for index, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def dashboard_document(name: str) -> dict[str, Any]:
    """A dashboard as Grafana reads it."""
    variable = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }
    # A marker whenever the version that answers changes.
    changes = {
        "name": "Versions",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "enable": True,
        "iconColor": "blue",
        "expr": "max(changes(fraud_live_version[1m])) > 0",
        "titleFormat": "another version",
    }
    return {
        "uid": f"fraud-{name}",
        "title": f"Fraud: {name}",
        "tags": ["fraud"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": [variable]},
        "annotations": {"list": [changes]},
        "links": [{"type": "dashboards", "tags": ["fraud"], "title": "Fraud", "asDropdown": True}],
        "panels": [panel_document(panel, i) for i, panel in enumerate(DASHBOARDS[name])],
    }


def rule_document(alerts: str) -> str:
    """alerts.yaml as a resource of Prometheus's operator."""
    text = "".join(line for line in alerts.splitlines(True) if not line.startswith("#"))
    return (
        "# Made of alerts.yaml by generate.py.\n"
        "apiVersion: monitoring.coreos.com/v1\n"
        "kind: PrometheusRule\n"
        "metadata:\n"
        "  name: fraud\n"
        "spec:\n"
    ) + textwrap.indent(text, "  ")


def documents() -> dict[str, str]:
    """The files, by their paths here."""
    alerts = (FOLDER / "alerts.yaml").read_text(encoding="utf-8")
    made = {
        f"dashboards/{name}.json": json.dumps(dashboard_document(name), indent=2) + "\n"
        for name in DASHBOARDS
    }
    return {**made, "prometheus-rule.yaml": rule_document(alerts)}


if __name__ == "__main__":
    for path, text in documents().items():
        (FOLDER / path).parent.mkdir(exist_ok=True)
        (FOLDER / path).write_text(text, encoding="utf-8")

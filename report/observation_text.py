"""What the monitor saw, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from fraud.monitoring.checks import Check, Day, Kind, Observation, Verdict

WORDS = {
    Verdict.OK: "ok",
    Verdict.WARN: "warn",
    Verdict.ACT: "act",
    Verdict.CANNOT_JUDGE: "cannot judge",
}
_IN_FULL = (*(Kind.PERFORMANCE, Kind.HARM, Kind.ESTIMATE), Kind.SCORES, Kind.AGE, Kind.FRESHNESS)
"""Kinds whose checks are shown though they are ok, but for those of slices."""


def render(observation: Observation) -> str:
    """The checks by kind, the worst first, and the days."""
    version = observation.version
    live = "nothing is live" if version is None else f"version {version}"
    lines = [f"production as of {observation.as_of}: {live}, {WORDS[observation.verdict]}"]
    for kind in Kind:
        checks = [check for check in observation.checks if check.kind is kind]
        if checks:
            lines += ["", *_of_kind(kind, checks)]
    if observation.days:
        lines += ["", *_days(observation.days)]
    return "\n".join(lines)


def _of_kind(kind: Kind, checks: Sequence[Check]) -> list[str]:
    order = (Verdict.ACT, Verdict.WARN, Verdict.OK, Verdict.CANNOT_JUDGE)
    counts = [
        f"{count} {WORDS[verdict]}"
        for verdict in order
        if (count := sum(check.verdict is verdict for check in checks))
    ]
    lines = [f"  {kind.value:<12} {', '.join(counts)}"]
    shown = [
        check
        for check in checks
        if check.verdict in order[:2]
        or (kind in _IN_FULL and check.verdict is Verdict.OK and "=" not in check.subject)
    ]
    told: dict[str, list[Check]] = {}
    for check in checks:
        if check.verdict is Verdict.CANNOT_JUDGE and check.value is None:
            told.setdefault(check.detail, []).append(check)
    grouped = {id(check) for group in told.values() for check in group}
    shown += [c for c in checks if c.verdict is Verdict.CANNOT_JUDGE and c not in shown]
    shown = [check for check in shown if id(check) not in grouped]
    width = max((len(check.name) for check in shown), default=0)
    lines += [
        _line(check, width) for check in sorted(shown, key=lambda check: order.index(check.verdict))
    ]
    for why, group in told.items():
        names = [check.name for check in group]
        more = f" and {len(names) - 3} more" if len(names) > 4 else ""
        listed = ", ".join(names[:3] if more else names)
        lines.append(f"    cannot judge  {listed}{more}: {why}")
    return lines


def _line(check: Check, width: int) -> str:
    value = "–" if check.value is None else f"{check.value:.4g}"
    interval = ""
    if check.interval is not None:
        interval = "{:.4g} … {:.4g}".format(*check.interval)
    threshold = "" if check.threshold is None else f"limit {check.threshold:.4g}"
    line = (
        f"    {WORDS[check.verdict]:<12}  {check.name:<{width}} {value:>9}  {interval:<18}"
        f" {threshold:<14} {check.detail}"
    )
    return line.rstrip()


def _days(days: Sequence[Day]) -> list[str]:
    header = (
        "  day         transactions   scored  alerts  frauds   AP (estimated)      saved  broken"
    )
    lines = [header]
    for day in days:
        frauds = str(day.frauds) if day.labelled else "?"
        proved = "–" if day.average_precision is None else f"{day.average_precision:.3f}"
        estimate = day.estimated_average_precision
        probable = "" if estimate is None else f"({estimate:.3f})"
        saved = "–" if day.cost_saved is None else f"{day.cost_saved:,.0f}"
        lines.append(
            f"  {day.day}  {day.arrived:>12,} {day.scored:>8,} {day.alerts:>7,} {frauds:>7}   "
            f"{proved:>5} {probable:<9} {saved:>10}  {', '.join(day.broken)}".rstrip()
        )
    return lines

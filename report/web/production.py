"""Production over time, from what the monitor recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from markupsafe import Markup

from fraud.monitoring.checks import Check, Day, Kind, Observation, Verdict
from fraud.report import charts
from fraud.report.charts import Axis, Line, Point


def latest_by_day(observations: Iterable[Observation]) -> list[Observation]:
    """The last look at each day, by as-of day, given looks in the order in which they were made."""
    return sorted({seen.as_of: seen for seen in observations}.values(), key=lambda seen: seen.as_of)


def to_show(observation: Observation) -> list[Check]:
    """The checks that act or warn, the worst first."""
    order = (Verdict.ACT, Verdict.WARN)
    shown = [check for check in observation.checks if check.verdict in order]
    return sorted(shown, key=lambda check: order.index(check.verdict))


def unjudged(observation: Observation) -> dict[str, list[str]]:
    """Why checks could not be judged → their names; without those of slices.

    There are many of them after a push, when nothing has been scored by the new version yet.
    """
    found: dict[str, list[str]] = {}
    for check in observation.checks:
        if check.verdict is Verdict.CANNOT_JUDGE and "=" not in check.subject:
            found.setdefault(check.detail, []).append(check.name)
    return found


def day_axis(first: int, last: int, title: str) -> Axis:
    """An axis of days, numbered as `date.toordinal` does."""
    ticks = [
        (int(day), date.fromordinal(int(day)).strftime("%d %b"))
        for day in charts.round_values(first, last, 4)
    ]
    return Axis(title, first, last, ticks=ticks)


def over_time(observations: Sequence[Observation]) -> dict[str, Markup]:
    """Charts by title: performance, money, alerts and drift; empty before there are two days.

    Args:
      observations: see `latest_by_day`. What a later one says of a day, with more labels, counts.
    """
    days: dict[int, Day] = {}
    for seen in observations:
        days.update({day.day.toordinal(): day for day in seen.days if day.scored})
    if len(days) < 2:
        return {}
    x = day_axis(min(days), max(days), "day")
    shown = {"Average precision of what was scored": _performance(days, x)}
    saved = {at: day.cost_saved for at, day in days.items() if day.cost_saved is not None}
    if len(saved) > 1:
        low, high = min(0.0, *saved.values()), max(1.0, *saved.values())
        money = Axis("saved by alerts, less checks", low, high)
        shown["Money saved"] = _line("money saved by day", x, money, saved)
    rates = {at: 100 * day.alerts / day.scored for at, day in days.items()}
    top = max(1e-6, *rates.values()) * 1.2
    alerts = Axis("% of transactions", 0, top)
    shown["Alerts"] = _line("alerts by day, in percent of the transactions", x, alerts, rates)
    strains = {seen.as_of.toordinal(): strain for seen in observations if (strain := _strain(seen))}
    if len(strains) > 1:
        x = day_axis(min(strains), max(strains), "as-of day")
        axis = Axis("divergence / threshold", 0, max(1.5, *strains.values()))
        label = "largest drift of a column, relative to its threshold, by as-of day"
        begins = Line("drift begins", [(x.low, 1), (x.high, 1)], "aid")
        drawn = Line("largest of all columns", _points(strains), "s0", marks=len(strains) < 40)
        shown["Drift in production"] = charts.lines(label, x, axis, [drawn, begins])
    return shown


def _performance(days: Mapping[int, Day], x: Axis) -> Markup:
    drawn = []
    for place, (name, attribute) in enumerate(
        {"by labels": "average_precision", "estimate": "estimated_average_precision"}.items()
    ):
        values = {at: getattr(day, attribute) for at, day in days.items()}
        known = {at: value for at, value in values.items() if value is not None}
        if known:
            drawn.append(Line(name, _points(known), f"s{place}", marks=len(known) < 40))
    return charts.lines("average precision by day", x, Axis("average precision", 0, 1), drawn)


def _strain(observation: Observation) -> float:
    """The largest drift from the champion's days, relative to its threshold; 0 if not judged."""
    ratios = [
        check.value / check.threshold
        for check in observation.checks
        if check.kind is Kind.DRIFT
        and check.name.startswith("drift/")
        and check.value is not None
        and check.threshold
    ]
    return max(ratios, default=0.0)


def _line(label: str, x: Axis, y: Axis, values: Mapping[int, float]) -> Markup:
    return charts.lines(label, x, y, [Line("", _points(values), "s0", marks=len(values) < 40)])


def _points(values: Mapping[int, float]) -> list[Point]:
    return sorted(values.items())

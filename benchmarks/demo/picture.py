"""The picture of a replay: average precision and money of each policy, week by week, as SVG.

The file stands alone and follows the colours of whoever shows it; in the page, the same markup has
the page's colours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import accumulate

from markupsafe import Markup

from benchmarks.demo.policies import LOOP, NEVER
from benchmarks.demo.results import Result
from benchmarks.demo.story import Event
from fraud.report.charts import Axis, number, round_values

WIDTH, LEFT, RIGHT, TOP, PANEL, GAP = 860, 52, 18, 86, 190, 34
Scale = Callable[[float], float]
KINDS = ("s1", "s2", "s3")
"""Of the other policies; the loop is s0."""
STYLE = """
svg { --ground: #fff; --ink: #1c2128; --soft: #57606a; --line: #d8dee4; --tint: #f0f3f6;
  --bad: #b3261e; --c0: #0a5bb5; --c1: #b45309; --c2: #0f766e; --c3: #7c3aed;
  font: 12px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { --ground: #0d1117; --ink: #e6edf3; --soft: #9aa5b1; --line: #30363d; --tint: #21262d;
    --bad: #ff8a80; --c0: #6cb0ff; --c1: #f5a524; --c2: #4fd1c5; --c3: #c4a5ff; } }
"""
SHAPES = """
.story text { fill: var(--soft); font-size: 12px; }
.story .strong { fill: var(--ink); font-weight: 600; }
.story .ground { fill: var(--ground); }
.story .grid { stroke: var(--line); }
.story .band { fill: var(--tint); }
.story .lost { fill: var(--bad); fill-opacity: .25; }
.story .begin { stroke: var(--soft); stroke-dasharray: 3 3; }
.story .line { fill: none; stroke-width: 1.75; stroke: var(--c0); stroke-dasharray: none; }
.story .line.s0 { stroke-width: 3; }
.story .line.s1 { stroke: var(--c1); stroke-dasharray: 6 3; }
.story .line.s2 { stroke: var(--c2); stroke-dasharray: 2 2; }
.story .line.s3 { stroke: var(--c3); stroke-dasharray: 9 3 2 3; }
.story .training { fill: var(--c0); }
"""


def story(
    results: Sequence[Result], events: Sequence[Event], first: date, last: date, alone: bool = False
) -> Markup:
    """The picture.

    Args:
      results: of all policies, over the same weeks.
      events: what happened.
      first, last: the days of production.
      alone: whether it is a file of its own.
    """
    kinds = dict(
        zip((r.policy for r in results if r.policy != LOOP), KINDS, strict=False), **{LOOP: "s0"}
    )
    days = Axis("", 0, (last - first).days + 1)
    x = days.scale(LEFT, WIDTH - RIGHT)
    upper, lower = TOP, TOP + PANEL + GAP
    foot = lower + PANEL
    by_name = {r.policy: r for r in results}
    ground = '<rect class="ground" width="100%" height="100%"/>'
    parts = [Markup(ground), _bands(events, x, first, last, upper, foot)]
    precision = {r.policy: [week.average_precision for week in r.weeks] for r in results}
    low = min(min(of) for of in precision.values())
    high = max(max(of) for of in precision.values())
    parts.append(
        _panel(
            "Average precision, by week", precision, kinds, x, upper, 14, low - 0.02, high + 0.02
        )
    )
    if NEVER in by_name:
        base = [week.saved for week in by_name[NEVER].weeks]
        money = {
            r.policy: list(accumulate(w.saved - b for w, b in zip(r.weeks, base, strict=True)))
            for r in results
        }
        title = "Money saved so far, beyond what the model saves that is never retrained"
    else:
        money = {r.policy: list(accumulate(w.saved for w in r.weeks)) for r in results}
        title = "Money saved so far"
    amounts = [amount for of in money.values() for amount in of]
    least, most = min(0.0, *amounts), max(1.0, *amounts)
    parts.append(_panel(title, money, kinds, x, lower, lower - 10, least, most, is_end=True))
    for value in round_values(0, days.high, 12):
        parts.append(_text(f"{value:.0f}", x(value), foot + 16, "middle"))
    if LOOP in by_name:
        for day in by_name[LOOP].trained:
            at = x((day - first).days + 1)
            parts.append(
                Markup(
                    '<path class="training" d="M{:.1f},{:.1f} l5,9 h-10 z"><title>{}</title></path>'
                ).format(at, foot + 22, f"the loop trained as of {day}")
            )
        parts.append(_text("days · ▲ the loop trained", WIDTH - RIGHT, foot + 46, "end"))
    parts.append(_legend(kinds, foot + 46))
    style = Markup("<style>{}{}</style>").format(Markup(STYLE if alone else ""), Markup(SHAPES))
    head = Markup(' xmlns="http://www.w3.org/2000/svg" width="{}"').format(WIDTH) if alone else ""
    return Markup(
        '<svg{} class="story" role="img" viewBox="0 0 {} {}" aria-label="{}">{}{}</svg>'
    ).format(
        head,
        WIDTH,
        foot + 56,
        "Average precision by week and money saved so far, for each policy",
        style,
        Markup("").join(parts),
    )


def _bands(
    events: Sequence[Event], x: Scale, first: date, last: date, top: float, foot: float
) -> Markup:
    """When what happened: a line where a change begins, an area where a period lasts."""
    parts = []
    for place, event in enumerate(events):
        begin, end = x((event.first - first).days), x((event.last - first).days + 1)
        if event.last < last:
            parts.append(
                Markup(
                    '<rect class="{}" x="{:.1f}" y="{}" width="{:.1f}" height="{:.1f}"/>'
                ).format("lost" if event.checks else "band", begin, top, end - begin, foot - top)
            )
        else:
            parts.append(_straight("begin", begin, top, begin, foot))
        y = top - 8 - 15 * (place % 3)
        parts.append(_text(event.name, begin, y, "start", "strong"))
        parts.append(_straight("begin", begin, y + 3, begin, top))
    return Markup("").join(parts)


def _panel(
    title: str,
    drawn: Mapping[str, Sequence[float]],
    kinds: Mapping[str, str],
    x: Scale,
    top: float,
    above: float,
    low: float,
    high: float,
    is_end: bool = False,
) -> Markup:
    """Lines over the weeks.

    Args:
      title: above.
      drawn: policy → value of each week.
      kinds: policy → class.
      x: from days to positions.
      top: of the panel.
      above: where the title is.
      low, high: ends of the axis.
      is_end: whether a value is that of the end of the week, not of its middle.
    """
    y = Axis("", low, high).scale(top + PANEL, top)
    parts = [_text(title, LEFT, above, "start", "strong")]
    for value in round_values(low, high):
        parts.append(_straight("grid", LEFT, y(value), WIDTH - RIGHT, y(value)))
        parts.append(_text(number(value), LEFT - 6, y(value) + 4, "end"))
    for policy in sorted(drawn, key=lambda name: name == LOOP):
        values = drawn[policy]
        at = [7 * (i + (1 if is_end else 0.5)) for i in range(len(values))]
        points = list(zip(at, values, strict=True))
        if is_end:
            points = [(0, 0.0), *points]
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
        parts.append(
            Markup('<polyline class="line {}" points="{}"><title>{}</title></polyline>').format(
                kinds[policy], path, policy
            )
        )
    return Markup("").join(parts)


def _legend(kinds: Mapping[str, str], y: float) -> Markup:
    parts, left = [], float(LEFT)
    for policy, kind in sorted(kinds.items(), key=lambda item: item[1]):
        parts.append(
            Markup('<path class="line {}" d="M{:.1f},{:.1f} h26"/>').format(kind, left, y - 4)
        )
        parts.append(_text(policy, left + 32, y, "start", "strong" if policy == LOOP else ""))
        left += 62 + 7 * len(policy)
    return Markup("").join(parts)


def _straight(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        kind, x1, y1, x2, y2
    )


def _text(text: str, x: float, y: float, anchor: str, kind: str = "") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, text
    )

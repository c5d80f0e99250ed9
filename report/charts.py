"""Charts as SVG: plain markup that needs no script, follows the page's colours, and prints.

Every function returns one `<svg>` of the width `WIDTH`, about that of a phone; a page sets several
side by side. Colours are classes (`s0`, `s1`, …), and what colour tells, dashes or the legend tell
as well. Everything that is text in a chart is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 10, 34
_ROW = 22  # height of a row of names
_MOST_ROOM = 200  # for names beside a chart; the whole of a longer one is in its tooltip
_WIDE, _NARROW = 8.0, 6.7  # of a capital letter and of others, at most, in most fonts
_TAIL = 0.6  # the share from the end of a name, which tells names with the same beginning apart
_BASELINE = 4  # from the middle of a line of text to its baseline

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
      name: in the legend; empty for a line without entry.
      points: (x, y), in the order in which they are connected.
      kind: a class: "s0", "s1", … or "aid".
      marks: whether points are marked.
    """

    name: str
    points: Sequence[Point]
    kind: str = "s0"
    marks: bool = False


@dataclass(frozen=True)
class Estimate:
    """A value with an interval, in a row of its own.

    Attributes:
      name: of the row.
      value: None if it is undefined.
      low, high: the limits; None if unknown.
      kind: a class.
      absent: what is said in place of a value.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    kind: str = "s0"
    absent: str = "undefined"


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
      title: what it shows.
      low, high: its ends.
      log: whether it is logarithmic; then `low` is above 0.
      ticks: values and their names; None to choose round ones.
    """

    title: str
    low: float
    high: float
    log: bool = False
    ticks: Sequence[tuple[float, str]] | None = None

    def scale(self, first: float, last: float) -> Callable[[float], float]:
        """From values to positions between `first` and `last`; what is outside is moved to it."""
        of = math.log10 if self.log else float
        low, high = of(self.low), of(self.high)
        span = high - low or 1.0

        def position(value: float) -> float:
            share = (of(max(value, self.low) if self.log else value) - low) / span
            return first + min(max(share, 0.0), 1.0) * (last - first)

        return position

    def marks(self) -> list[tuple[float, str]]:
        """The values at which it is labelled."""
        if self.ticks is not None:
            return list(self.ticks)
        if self.log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            step = max(1, math.ceil(len(powers) / 5))
            return [(10.0**p, number(10.0**p)) for p in powers[::step]]
        return [(value, number(value)) for value in round_values(self.low, self.high)]


def number(value: float) -> str:
    """A number in few characters."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    if size >= 1e3:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def round_values(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` + 1 round values between two ends."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def lines(label: str, x: Axis, y: Axis, drawn: Sequence[Line]) -> Markup:
    """Lines over two axes, with a legend if they have names."""
    at_x, at_y = x.scale(_LEFT, WIDTH - _RIGHT), y.scale(HEIGHT - _BOTTOM, _TOP)
    parts = [_axes(x, y, at_x, at_y)]
    for line in drawn:
        points = [(at_x(a), at_y(b)) for a, b in line.points]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(line.kind, path))
        if line.marks:
            parts += [
                Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3">{}</circle>').format(
                    line.kind, a, b, _title(f"{line.name}: {number(v)}, {number(w)}")
                )
                for (a, b), (v, w) in zip(points, line.points, strict=True)
            ]
    return _svg(label, HEIGHT, parts) + legend({line.name: line.kind for line in drawn})


def bars(
    label: str, x: Axis, y: Axis, groups: Sequence[str], series: Mapping[str, Sequence[float]]
) -> Markup:
    """Upright bars, one group for each name, side by side for each series.

    Args:
      label: says what the chart shows.
      x, y: the axes; `x` only has a title.
      groups: names of the groups.
      series: name → a value for each group.
    """
    at_y = y.scale(HEIGHT - _BOTTOM, _TOP)
    width = (WIDTH - _LEFT - _RIGHT) / max(len(groups), 1)
    every = max(1, math.ceil(len(groups) * 38 / (WIDTH - _LEFT - _RIGHT)))
    middles = [(i + 0.5, name) for i, name in enumerate(groups) if i % every == 0]
    under = Axis(x.title, 0, max(len(groups), 1), ticks=middles)
    parts = [_axes(under, y, under.scale(_LEFT, WIDTH - _RIGHT), at_y, grid_x=False)]
    thick = width * 0.8 / max(len(series), 1)
    for place, (name, values) in enumerate(series.items()):
        for i, value in enumerate(values):
            top, foot = at_y(value), HEIGHT - _BOTTOM
            parts.append(
                Markup(
                    '<rect class="bar s{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                    "{}</rect>"
                ).format(
                    place,
                    _LEFT + i * width + width * 0.1 + place * thick,
                    top,
                    max(thick - 0.5, 0.5),
                    max(foot - top, 0),
                    _title(f"{groups[i]}, {name}: {number(value)}"),
                )
            )
    kinds = {name: f"s{place}" for place, name in enumerate(series)}
    return _svg(label, HEIGHT, parts) + legend(kinds, boxes=True)


def rows(
    label: str,
    names: Sequence[str],
    series: Mapping[str, Sequence[float]],
    form: Callable[[float], str] = number,
) -> Markup:
    """Lying bars, a row for each name, that begin at 0; of a single series, with their values."""
    left, most = _room(names), max((v for of in series.values() for v in of), default=0) or 1
    thick = 16 if len(series) == 1 else 6
    height = max(_ROW, thick * len(series) + 6)
    at = Axis("", 0, most).scale(left, WIDTH - (58 if len(series) == 1 else _RIGHT))
    parts = []
    for i, name in enumerate(names):
        top = i * height + 3
        parts.append(_name(name, left - 6, top + thick * len(series) / 2 + _BASELINE))
        for place, (of, values) in enumerate(series.items()):
            y = top + place * thick
            parts.append(
                Markup(
                    '<rect class="bar s{}" x="{}" y="{:.1f}" width="{:.1f}" height="{}">{}</rect>'
                ).format(
                    place,
                    left,
                    y,
                    max(at(values[i]) - left, 0.5),
                    thick - 1,
                    _title(f"{name}, {of}: {form(values[i])}"),
                )
            )
            if len(series) == 1:
                middle = y + thick / 2 + _BASELINE - 0.5
                parts.append(_text(form(values[i]), at(values[i]) + 4, middle, "start"))
    kinds = {name: f"s{place}" for place, name in enumerate(series)}
    return _svg(label, len(names) * height + 6, parts) + legend(kinds, boxes=True)


def estimates(
    label: str,
    axis: Axis,
    drawn: Sequence[Estimate],
    at_line: float | None = None,
    limits: Mapping[str, float] | None = None,
) -> Markup:
    """Values with their intervals, a row for each.

    Args:
      label: says what the chart shows.
      axis: of the values.
      drawn: the rows.
      at_line: where an upright line is drawn.
      limits: row → a value that is marked in it.
    """
    left, foot = _room([row.name for row in drawn]), len(drawn) * _ROW + 4
    at = axis.scale(left, WIDTH - _RIGHT)
    parts = _scale_below(axis, at, foot)
    if at_line is not None:
        parts.append(_straight("aid", at(at_line), 0, at(at_line), foot))
    for i, row in enumerate(drawn):
        y = i * _ROW + _ROW / 2
        parts.append(_name(row.name, left - 6, y + _BASELINE))
        if row.value is None:
            parts.append(_text(row.absent, left, y + _BASELINE, "start"))
            continue
        told = f"{row.name}: {row.value:.4g}"
        if row.low is not None and row.high is not None:
            told += f" ({row.low:.4g} … {row.high:.4g})"
            parts.append(_straight(f"range {row.kind}", at(row.low), y, at(row.high), y))
        parts.append(
            Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4">{}</circle>').format(
                row.kind, at(row.value), y, _title(told)
            )
        )
        if limits and row.name in limits:
            x = at(limits[row.name])
            parts.append(_straight("limit", x, y - 8, x, y + 8))
    return _svg(label, foot + 34, parts)


def spreads(label: str, axis: Axis, drawn: Mapping[str, Sequence[float]]) -> Markup:
    """Quantiles of several groups, a row for each.

    Args:
      label: says what the chart shows.
      axis: of the values.
      drawn: group → 11 deciles: the thin line is from the 10th to the 90th percentile, the thick
        one from the 30th to the 70th, and the circle is the median.
    """
    left, foot = 76, len(drawn) * _ROW + 4
    at = axis.scale(left, WIDTH - _RIGHT)
    parts = _scale_below(axis, at, foot)
    for i, (name, deciles) in enumerate(drawn.items()):
        y = i * _ROW + _ROW / 2
        parts.append(_name(name, left - 6, y + _BASELINE))
        told = f"{name}: median {deciles[5]:.4g}, 10 % {deciles[1]:.4g}, 90 % {deciles[9]:.4g}"
        parts += [
            _straight(f"range s{i}", at(deciles[1]), y, at(deciles[9]), y),
            _straight(f"range thick s{i}", at(deciles[3]), y, at(deciles[7]), y),
            Markup('<circle class="median s{}" cx="{:.1f}" cy="{:.1f}" r="4">{}</circle>').format(
                i, at(deciles[5]), y, _title(told)
            ),
        ]
    return _svg(label, foot + 34, parts)


def spans(label: str, axis: Axis, drawn: Sequence[tuple[str, float, float, str]]) -> Markup:
    """Stretches of time, a row for each: name, begin, end, and what to say about it."""
    left, foot = 76, len(drawn) * (_ROW + 4)
    at = axis.scale(left, WIDTH - _RIGHT)
    parts = _scale_below(axis, at, foot)
    for i, (name, begin, end, told) in enumerate(drawn):
        y = i * (_ROW + 4) + 3
        parts += [
            _name(name, left - 6, y + 9 + _BASELINE),
            Markup(
                '<rect class="bar s{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="18">{}</rect>'
            ).format(i, at(begin), y, max(at(end) - at(begin), 1), _title(f"{name}: {told}")),
        ]
    return _svg(label, foot + 34, parts)


def legend(kinds: Mapping[str, str], boxes: bool = False) -> Markup:
    """The names of series; empty for fewer than two."""
    named = {name: kind for name, kind in kinds.items() if name}
    if len(named) < 2:
        return Markup("")
    mark = (
        Markup('<rect class="bar {}" width="14" height="10" y="1"/>')
        if boxes
        else Markup('<path class="line {}" d="M0,6 H22"/>')
    )
    items = [
        Markup('<li><svg width="{}" height="12" aria-hidden="true">{}</svg> {}</li>').format(
            16 if boxes else 24, mark.format(kind), name
        )
        for name, kind in named.items()
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def _svg(label: str, height: float, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {:.0f}">{}</svg>'
    ).format(label, WIDTH, height, Markup("").join(parts))


def _axes(
    x: Axis,
    y: Axis,
    at_x: Callable[[float], float],
    at_y: Callable[[float], float],
    grid_x: bool = True,
) -> Markup:
    right, foot = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = []
    for value, name in y.marks():
        parts.append(_straight("grid", _LEFT, at_y(value), right, at_y(value)))
        parts.append(_text(name, _LEFT - 5, at_y(value) + _BASELINE, "end"))
    for value, name in x.marks():
        if grid_x:
            parts.append(_straight("grid", at_x(value), _TOP, at_x(value), foot))
        # A long name at the end of the axis would be cut off.
        at_end = at_x(value) + 3.2 * len(name) > WIDTH
        parts.append(
            _text(
                name, WIDTH - 1 if at_end else at_x(value), foot + 14, "end" if at_end else "middle"
            )
        )
    parts.append(_straight("axis", _LEFT, foot, right, foot))
    parts.append(_text(x.title, (_LEFT + right) / 2, HEIGHT - 5, "middle"))
    middle = (_TOP + foot) / 2
    parts.append(
        Markup(
            '<text x="11" y="{0:.1f}" text-anchor="middle" transform="rotate(-90 11 {0:.1f})">{1}'
            "</text>"
        ).format(middle, y.title)
    )
    return Markup("").join(parts)


def _scale_below(axis: Axis, at: Callable[[float], float], foot: float) -> list[Markup]:
    parts = []
    for value, name in axis.marks():
        parts.append(_straight("grid", at(value), 0, at(value), foot))
        parts.append(_text(name, at(value), foot + 13, "middle"))
    return [*parts, _text(axis.title, (at(axis.low) + at(axis.high)) / 2, foot + 29, "middle")]


def _length(text: str) -> float:
    """About how wide a text is, rather more."""
    return sum(_WIDE if letter.isupper() or letter in "=…%@" else _NARROW for letter in text)


def _room(names: Sequence[str]) -> float:
    """The width that names beside a chart need."""
    longest = max((_length(" ".join(name.split())) for name in names), default=0.0)
    return min(max(longest, 40.0), _MOST_ROOM) + 8


def _shortened(name: str, room: float) -> str:
    """A name that fits, without its middle if need be."""
    short = " ".join(name.split())
    if _length(short) <= room:
        return short
    kept = int(room / max(_length(short) / len(short), 1.0)) - 1
    tail = int(kept * _TAIL)
    while _length(f"{short[: kept - tail]}…{short[-tail:]}") > room and kept > 2:
        kept -= 1
        tail = int(kept * _TAIL)
    return f"{short[: kept - tail]}…{short[-tail:]}"


def _name(name: str, x: float, y: float) -> Markup:
    short = _shortened(name, x)
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="end">{}{}</text>').format(
        x, y, short, _title(name)
    )


def _text(text: str, x: float, y: float, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        x, y, anchor, text
    )


def _straight(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        kind, x1, y1, x2, y2
    )


def _title(text: str) -> Markup:
    return Markup("<title>{}</title>").format(text)

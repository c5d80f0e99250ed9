"""Charts: positions, ticks, and names that are only ever text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from fraud.report import charts
from fraud.report.charts import Axis, Estimate, Line

HOSTILE = "</svg><script>alert(1)</script>\n\"'&‮" + "x" * 200


def parsed(markup: str) -> ET.Element:
    return ET.fromstring(f"<figure>{markup}</figure>")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.07, [0, 0.02, 0.04, 0.06]),
        (-3, 12, [0, 5, 10]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert charts.round_values(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0"), (0.00012345, "0.000123"), (1500, "1,500"), (12_345, "12.3k"), (2e6, "2M")],
)
def test_numbers_are_short(value, expected):
    assert charts.number(value) == expected


def test_axes_put_values_where_they_belong_and_keep_the_rest_inside():
    at = Axis("", 0, 10).scale(100, 200)
    assert [at(v) for v in (0, 5, 10, 99, -1)] == [100, 150, 200, 200, 100]
    at = Axis("", 0.01, 1, log=True).scale(0, 2)
    assert at(0.1) == pytest.approx(1) and at(0) == 0
    assert [name for _, name in Axis("", 0.01, 1, log=True).marks()] == ["0.01", "0.1", "1"]


def test_lines_follow_their_points():
    drawn = charts.lines("l", Axis("x", 0, 1), Axis("y", 0, 1), [Line("a", [(0, 0), (1, 1)])])
    (line,) = re.findall(r'points="([^"]+)"', drawn)
    (x1, y1), (x2, y2) = (map(float, pair.split(",")) for pair in line.split())
    assert x1 < x2 and y1 > y2  # upwards on a screen


def test_bars_are_as_long_as_their_values():
    drawn = parsed(charts.rows("l", ["a", "b"], {"s": [1.0, 4.0]}))
    first, second = (float(bar.get("width")) for bar in drawn.iter("rect"))
    assert second == pytest.approx(4 * first, rel=0.01)


def test_an_undefined_estimate_says_so_and_intervals_have_their_ends():
    axis = Axis("x", 0, 1)
    drawn = charts.estimates("l", axis, [Estimate("a", None), Estimate("b", 0.5, 0.25, 0.75)])
    assert "undefined" in drawn and "b: 0.5 (0.25 … 0.75)" in drawn


def test_names_are_text_everywhere():
    axis, name = Axis(HOSTILE, 0, 1), HOSTILE
    drawn = [
        charts.lines(name, axis, axis, [Line(name, [(0, 0)], marks=True), Line("b", [(0, 1)])]),
        charts.bars(name, axis, axis, [name], {name: [1.0], "b": [0.5]}),
        charts.rows(name, [name], {name: [1.0], "b": [0.5]}),
        charts.estimates(name, axis, [Estimate(name, 0.5, 0.1, 0.9)], 0.5, {name: 0.2}),
        charts.spreads(name, axis, {name: [i / 10 for i in range(11)]}),
        charts.spans(name, axis, [(name, 0, 1, name)]),
    ]
    for markup in drawn:
        tags = {element.tag for element in parsed(markup).iter()}
        assert "script" not in tags and "<script" not in markup
        assert "&lt;script&gt;" in markup


def test_empty_charts_are_charts():
    axis = Axis("", 0, 1)
    for markup in (
        charts.rows("l", [], {"a": []}),
        charts.bars("l", axis, axis, [], {}),
        charts.estimates("l", axis, []),
    ):
        assert parsed(markup) is not None

import dataclasses
import math
from datetime import date

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from fraud import codec
from fraud.errors import BadInput


@dataclass(frozen=True, config=codec.STRICT)
class Part:
    size: float = Field(default=0.5, ge=0, lt=1)
    names: tuple[str, ...] = Field(default=("a",), min_length=1)


@dataclasses.dataclass(frozen=True)
class Whole:
    day: date
    parts: tuple[Part, ...] = ()
    by_name: dict[str, Part] = dataclasses.field(default_factory=dict)
    extra: Part | None = None


WHOLE = Whole(date(2018, 7, 31), (Part(0.25), Part(names=("ß", "c"))), {"x": Part()}, Part(0.75))


def test_what_is_written_is_read_back():
    assert codec.from_json(Whole, codec.to_json(WHOLE)) == WHOLE


def test_json_is_canonical():
    assert (
        codec.to_json({"b": 1, "a": (math.nan, math.inf, "ß")})
        == '{"a": [null, null, "ß"], "b": 1}'
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "day: missing"),
        ([1], "the document: expected keys and values, got [1]"),
        ({"parts": [{}, {"size": True}]}, "parts[1].size: expected a number, got True"),
        ({"parts": [{"size": 1}]}, "parts[0].size: 1 must be below 1"),
        ({"parts": [{"size": -1}]}, "parts[0].size: -1 is too small; the least is 0"),
        ({"parts": [{"size": math.nan}]}, "parts[0].size: nan is not a finite number"),
        ({"parts": [{"names": []}]}, "parts[0].names: [] has too few items; the least is 1"),
        ({"parts": [{"sizes": 1}]}, "parts[0].sizes: unknown key; did you mean 'size'?"),
        ({"by_name": {"x": {"sizes": 1}}}, "by_name.x.sizes: unknown key; did you mean 'size'?"),
        ({"extra": {"qqq": 1}}, "extra.qqq: unknown key; known are size, names"),
    ],
)
def test_a_mistake_is_named_by_its_key(values, message):
    if isinstance(values, dict) and values:
        values = {"day": "2018-07-31", **values}
    with pytest.raises(BadInput) as refused:
        codec.from_values(Whole, values)
    assert str(refused.value).startswith(message)


def test_text_that_is_no_json_is_bad_input():
    with pytest.raises(BadInput, match="the document: Invalid JSON"):
        codec.from_json(Whole, "{")


def test_keys_are_sorted_on_one_line_and_keep_their_order_for_people():
    assert codec.to_json({"b": 1, "a": 2}) == '{"a": 2, "b": 1}'
    assert codec.to_json({"b": 1, "a": 2}, indent=1) == '{\n "b": 1,\n "a": 2\n}'

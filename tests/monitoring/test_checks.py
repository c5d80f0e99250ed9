"""Observations survive JSON, whatever is in them."""

from __future__ import annotations

import math
from datetime import date

import pytest

from fraud.errors import BadInput
from fraud.monitoring.checks import Check, Kind, Observation, Verdict


def test_an_observation_is_read_as_it_was_written():
    observation = Observation(
        date(2026, 3, 21),
        1795953479,
        (
            Check("average_precision", 0.7, (0.6, 0.8), 0.5, Verdict.OK, "", Kind.PERFORMANCE),
            Check("rows", None, None, None, Verdict.CANNOT_JUDGE, "no log", Kind.FRESHNESS),
        ),
    )
    assert Observation.from_json(observation.to_json()) == observation
    assert Observation.from_json(observation.to_json(indent=2)) == observation


def test_what_is_not_a_number_becomes_nothing():
    check = Check("average_precision", math.nan, None, None, Verdict.CANNOT_JUDGE)
    read = Observation.from_json(Observation(date(2026, 3, 21), None, (check,)).to_json())
    assert read.checks[0].value is None


@pytest.mark.parametrize("text", ["", "{}", '{"as_of": "today", "version": 1, "checks": []}'])
def test_anything_else_is_refused(text):
    with pytest.raises(BadInput):
        Observation.from_json(text)


def test_the_subject_is_what_follows_the_slash():
    def named(name):
        return Check(name, 1.0, None, None, Verdict.OK)

    assert named("drift/TX_AMOUNT").subject == "TX_AMOUNT"
    assert named("rows").subject == ""

"""What the monitor saw, on the terminal."""

from __future__ import annotations

from datetime import date

from fraud.monitoring.checks import Check, Day, Kind, Observation, Verdict
from fraud.report.observation_text import render

OK, WARN, ACT, UNKNOWN = Verdict.OK, Verdict.WARN, Verdict.ACT, Verdict.CANNOT_JUDGE


def lines(*checks: Check, days: tuple[Day, ...] = ()) -> list[str]:
    return render(Observation(date(2026, 3, 21), 100, checks, days)).splitlines()


def test_the_worst_comes_first_and_what_is_ok_is_counted():
    shown = lines(
        Check("drift/A", 0.1, None, 0.2, OK, "", Kind.DRIFT),
        Check("drift/B", 0.3, None, 0.2, ACT, "median 1 → 2", Kind.DRIFT),
        Check("feature_drift/c", 0.3, None, 0.2, WARN, "", Kind.DRIFT),
    )
    assert shown[0] == "production as of 2026-03-21: version 100, act"
    assert shown[2].split() == ["drift", "1", "act,", "1", "warn,", "1", "ok"]
    assert shown[3].split() == ["act", "drift/B", "0.3", "limit", "0.2", "median", "1", "→", "2"]
    assert shown[4].split() == ["warn", "feature_drift/c", "0.3", "limit", "0.2"]
    assert len(shown) == 5


def test_performance_is_shown_though_it_is_ok_but_for_slices():
    shown = lines(
        Check("recall", 0.5, (0.4, 0.6), 0.3, OK, "", Kind.PERFORMANCE),
        Check("recall/CHANNEL=a", 0.5, (0.4, 0.6), 0.3, OK, "", Kind.PERFORMANCE),
    )
    assert len(shown) == 4
    assert shown[3].split() == ["ok", "recall", "0.5", "0.4", "…", "0.6", "limit", "0.3"]


def test_what_cannot_be_judged_is_told_once_for_each_reason():
    unknown = [Check(f"skew/{n}", None, None, None, UNKNOWN, "no log", Kind.SKEW) for n in range(9)]
    shown = lines(*unknown, Check("skew/z", 0.1, None, None, UNKNOWN, "few", Kind.SKEW))
    assert [line.split() for line in shown[3:]] == [
        ["cannot", "judge", "skew/z", "0.1", "few"],
        "cannot judge skew/0, skew/1, skew/2 and 6 more: no log".split(),
    ]


def test_days_say_what_is_known_of_each():
    days = (
        Day(date(2026, 3, 14), 100, 100, 5, ("A",), ("99",), 0.1, 100, 3, 0.8125, (0.7, 0.9)),
        Day(date(2026, 3, 21), 100, 90, 4, estimated_average_precision=0.5),
        Day(date(2026, 3, 22), 7),
    )
    shown = lines(days=days)
    assert shown[-3].split() == ["2026-03-14", "100", "100", "5", "3", "0.812", "–", "A"]
    assert shown[-2].split() == ["2026-03-21", "100", "90", "4", "?", "–", "(0.500)", "–"]
    assert shown[-1].split() == ["2026-03-22", "7", "0", "0", "?", "–", "–"]


def test_without_anything_live():
    observation = Observation(date(2026, 3, 21), None, ())
    assert render(observation) == ("production as of 2026-03-21: nothing is live, cannot judge")

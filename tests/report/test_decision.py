"""Decisions in words: the answer first, and every fact that led to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from fraud.pipeline.artifacts import (
    Anomaly,
    Change,
    Evaluation,
    ExamplesFacts,
    Push,
    ServingCheckResult,
    Verdict,
)
from fraud.pipeline.decisions import Demands, RunFacts, VersionFacts
from fraud.pipeline.lineage import Code
from fraud.report.decision import MOST_REASONS, render

THEN, LATER = datetime(2026, 3, 20, 9, 30), datetime(2026, 3, 27, 9, 30)
PUSHED = Push(True, "20", "/pushed/20", THEN, "pushed")
REFUSED = Push(False, None, None, THEN, "not_blessed")
EVALUATION = Evaluation(
    metrics={"overall": {"average_precision": 0.61, "roc_auc": 0.9, "recall_at_budget": 0.5}},
    champion={"overall": {"average_precision": 0.64, "roc_auc": 0.91, "recall_at_budget": 0.5}},
    failures=("overall: average_precision changes by -0.0300",),
    intervals={"overall": {"average_precision": (0.55, 0.67)}},
    changes={
        "average_precision": Change(-0.03, -0.07, 0.01, 0.97),
        "roc_auc": Change(-0.01, None, None, None),
    },
)
RUN = RunFacts(
    run_id="r2",
    data=ExamplesFacts(
        as_of="2026-03-20",
        windows={"train": ("2026-02-01", "2026-03-01")},
        rows={},
        positives={},
        history={},
        unlabelled={},
    ),
    code=Code("1.2", "0123456789abcdef", True, {}),
    last="ModelCardGen",
    gate_passed=True,
    verdict=Verdict(True, (), ("a note",)),
    demands=Demands({"average_precision": 0.5}, {"average_precision": 0.02, "roc_auc": 0.01}, 0.95),
    evaluation=EVALUATION,
    blessed=False,
    baseline="10",
    serving=ServingCheckResult(True, "", 100),
    push=REFUSED,
)


def test_a_refused_challenger():
    assert render(RUN).splitlines() == [
        "Run r2 as of 2026-03-20 pushed nothing: the Evaluator refused the challenger.",
        "  data        train 2026-02-01 … 2026-03-01",
        "  code        version 1.2, commit 0123456789ab and edits",
        "  data gate   passed",
        "    noted: a note",
        "  Evaluator   refused; compared with version 10 on the same examples",
        "    average precision 0.610 (0.550 … 0.670), at least 0.5",
        "      champion 0.640, change -0.030 (-0.070 … +0.010); a drop over 0.02 has probability "
        "0.970, at most 0.95",
        "    roc auc 0.900",
        "      champion 0.910, change -0.010; a drop over 0.01 has probability undefined, "
        "at most 0.95",
        "    refused: overall: average_precision changes by -0.0300",
        "  serving     passed: answered 100 examples",
        "  Pusher      not blessed",
    ]


def test_a_drop_that_was_not_judged_is_said_in_the_first_line_and_at_the_metric():
    few = {"average_precision": Change(-0.03, None, None, None, unjudged=True)}
    text = render(replace(RUN, push=PUSHED, evaluation=replace(EVALUATION, changes=few)))
    assert text.splitlines()[0] == (
        "Run r2 as of 2026-03-20 pushed version 20: every check was passed, but drops from the "
        "champion were not judged: there are fewer than 10 independent frauds."
    )
    assert "change -0.030; not judged: there are fewer than 10 independent frauds\n" in text


def outcome(facts: RunFacts) -> str:
    return render(facts).splitlines()[0].removeprefix("Run r2 as of 2026-03-20 ")


def test_the_first_line_is_the_answer():
    replay = replace(REFUSED, outcome="replay", reason="replay: as of 2026-03-20, and live …")
    assert outcome(replace(RUN, push=replay)) == f"pushed nothing: {replay.reason}."
    blessed = replace(RUN, blessed=True)
    assert outcome(blessed) == "pushed nothing: the challenger cannot be served."
    assert outcome(replace(RUN, push=PUSHED)) == "pushed version 20: every check was passed."
    cached = replace(RUN, push=PUSHED, pushed_by="r1")
    assert outcome(cached) == (
        "did not push again: its model had been pushed as version 20 by run r1."
    )
    stopped = RunFacts("r2", data=RUN.data, gate_passed=False)
    assert outcome(stopped) == "pushed nothing: the data gate refused its data."
    failed = replace(stopped, gate_passed=True, failed="Trainer", error="out of memory")
    assert outcome(failed) == "failed in Trainer: out of memory"
    running = RunFacts("r2", data=RUN.data, last="Transform")
    assert outcome(running) == "has not decided: it got to Transform."
    assert render(RunFacts("r2")) == "Run r2 has not decided: no results."


def test_what_was_accepted_is_said():
    replayed = replace(PUSHED, reason="replay: as of 14 March")
    text = render(replace(RUN, push=replayed))
    assert "  Pusher      pushed version 20, accepted on request: replay: as of 14 March" in text
    assert "every check" not in text.splitlines()[0]


def test_anomalies_are_named_and_many_are_counted():
    anomaly = Anomaly("COUNTRY", "Unexpected values", "", "error", "recent", "schema")
    many = Verdict(False, (anomaly,) * (MOST_REASONS + 2))
    lines = render(RunFacts("r2", gate_passed=False, verdict=many)).splitlines()
    assert lines.count("    recent: COUNTRY: Unexpected values") == MOST_REASONS
    assert lines[-1] == "    and 2 more"


@pytest.mark.parametrize(
    ("baseline", "problem", "said"),
    [
        ("10", "", "compared with version 10 on the same examples"),
        (None, "column X is gone", "not compared with the champion: column X is gone"),
        (None, "", "not compared with another model"),
    ],
)
def test_what_it_was_compared_with(baseline, problem, said):
    facts = replace(RUN, baseline=baseline, data=replace(RUN.data, champion_problem=problem))
    assert f"  Evaluator   refused; {said}" in render(facts).splitlines()


def test_what_was_deleted_is_said():
    facts = replace(RUN, verdict=None, evaluation=None, deleted=True)
    lines = render(facts).splitlines()
    assert lines[-1] == "  The details have been deleted with the run's artifacts."
    assert "  Evaluator   refused; compared with version 10 on the same examples" in lines


VERSION = VersionFacts(PUSHED, True, True, True, "10", None, replace(RUN, push=PUSHED))


def test_a_live_version():
    first, second, *_ = render(VERSION).splitlines()
    assert first == "Version 20 is live since 2026-03-20 09:30: run r2 pushed it."
    assert second == "It replaced version 10."
    assert "Nothing was live before." in render(replace(VERSION, replaced=None))


def test_a_version_that_was_replaced():
    following = replace(PUSHED, version="30", since=LATER)
    lines = render(replace(VERSION, is_live=False, is_kept=False, replaced_by=following))
    assert lines.splitlines()[:4] == [
        "Version 20 went live at 2026-03-20 09:30: run r2 pushed it.",
        "It was replaced at 2026-03-27 09:30 by version 30, which a run pushed.",
        "It replaced version 10.",
        "Its files have been deleted.",
    ]


def test_a_version_whose_folder_is_missing_and_the_one_that_is_live_instead():
    missing = render(replace(VERSION, is_live=False, is_there=False)).splitlines()
    assert missing[:3] == [
        "Version 20 went live at 2026-03-20 09:30: run r2 pushed it.",
        "It replaced version 10.",
        "It is not live: its folder is missing.",
    ]
    following = replace(PUSHED, version="30", since=LATER)
    again = render(replace(VERSION, replaced_by=following)).splitlines()
    assert again[0] == (
        "Version 20 is live again: run r2 pushed it, at 2026-03-20 09:30, and the files of version "
        "30, which replaced it at 2026-03-27 09:30, are gone."
    )


def test_a_rollback_says_who_when_and_why():
    back = Push(True, "40", "", LATER, "pushed", "too many alerts", "20", "30", "ann@bank")
    lines = render(replace(VERSION, release=back, replaced="30")).splitlines()
    assert lines[:3] == [
        "Version 40 is live since 2026-03-27 09:30: a rollback from 30 by ann@bank to the weights "
        "of version 20.",
        "Reason given: too many alerts",
        "It replaced version 30.",
    ]
    assert "Run r2 as of 2026-03-20 pushed version 20: every check was passed." in lines

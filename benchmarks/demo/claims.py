"""What the loop is to show, and whether it does: the figures of a replay beside what they must be.

The claims are those of docs/demo.md. Those about schedules need the weekly one among the policies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.demo.results import LoopResult, Result, days_of
from benchmarks.demo.story import BROKEN, NEW_FRAUD, QUIET, Event


@dataclass(frozen=True)
class Claim:
    """Something that a replay is to show.

    Attributes:
      text: what.
      figures: what it shows.
      holds: whether that is so.
    """

    text: str
    figures: str
    holds: bool


def claims(
    policies: Sequence[Result], events: Sequence[Event], noticed: LoopResult | None
) -> tuple[Claim, ...]:
    """The claims about a replay; none if the loop was not replayed.

    Args:
      policies: what each achieved.
      events: what happened; without any, models are compared by average precision instead of money.
      noticed: what the loop did.
    """
    by_name = {result.policy: result for result in policies}
    loop, weekly, never = (by_name.get(name) for name in ("loop", "weekly", "never"))
    if loop is None or noticed is None:
        return ()
    found = list(_of_events(loop, events, noticed))
    if not events:
        found += [
            *(_of_precision(loop, never, "higher than without retraining") if never else ()),
            *(
                _of_precision(loop, weekly, "no lower than with weekly retraining")
                if weekly
                else ()
            ),
        ]
    elif weekly:
        found.append(
            Claim(
                "the loop saves more money than weekly retraining",
                f"{loop.saved:,.0f} and {weekly.saved:,.0f}, "
                f"{(loop.saved - weekly.saved) / abs(weekly.saved):+.1%}",
                loop.saved > weekly.saved,
            )
        )
    if weekly:
        figures = f"{loop.trainings} and {weekly.trainings}"
        if events:
            fits = loop.trainings <= weekly.trainings
            found.append(Claim("with no more trainings", figures, fits))
        else:
            fits = loop.trainings < weekly.trainings
            found.append(Claim("with fewer trainings than weekly retraining", figures, fits))
    return tuple(found)


def _of_events(loop: Result, events: Sequence[Event], noticed: LoopResult) -> Iterator[Claim]:
    for seen in noticed.seen:
        yield Claim(
            f"{seen.event}: detected within {seen.bound} days",
            _after(seen.detected),
            seen.detected is not None and seen.detected <= seen.bound,
        )
    if broken := days_of(events, BROKEN):
        held = sum(day in noticed.held for day in broken)
        yield Claim(
            f"{BROKEN}: each of its days is held, no other is, and none is trained on",
            f"{held} of {len(broken)} days held, {len(noticed.held) - held} others; "
            f"{loop.trained_on_broken} trainings with them",
            held == len(broken) == len(noticed.held) and not loop.trained_on_broken,
        )
    if NEW_FRAUD in loop.repaired:
        after = loop.repaired[NEW_FRAUD]
        text = f"{NEW_FRAUD}: a model that has learnt it answers"
        yield Claim(text, _after(after), after is not None)
    if quiet := days_of(events, QUIET):
        most = math.ceil(len(quiet) / 7)
        yield Claim(
            f"{QUIET}: no more than one training a week",
            f"{noticed.trainings_in_quiet} in {len(quiet)} days; "
            f"a check asked on {noticed.alarms_in_quiet}",
            noticed.trainings_in_quiet <= most,
        )


def _of_precision(loop: Result, other: Result, wanted: str) -> Iterator[Claim]:
    """By the mean of the weeks, and by the last one."""
    compared = (
        ("mean of the weeks", loop.average_precision, other.average_precision),
        ("the last week", loop.weeks[-1].average_precision, other.weeks[-1].average_precision),
    )
    for name, ours, theirs in compared:
        holds = ours > theirs if wanted.startswith("higher") else ours >= theirs
        yield Claim(f"average precision, {name}: {wanted}", f"{ours:.4f} and {theirs:.4f}", holds)


def _after(days: int | None) -> str:
    return "never" if days is None else f"after {days} days"

"""The table, the page and the picture of a replay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from markupsafe import Markup

from benchmarks.demo import picture
from benchmarks.demo.claims import Claim, claims
from benchmarks.demo.results import Difference, LoopResult, Result
from benchmarks.demo.story import Event
from fraud.codec import to_json
from fraud.files import write_atomically
from fraud.report import charts
from fraud.report.charts import Axis, Line
from fraud.report.pages import render_page


@dataclass(frozen=True)
class Document:
    """All results of a replay, as they are in `results.json`.

    Attributes:
      name: of the bank.
      first, last: the days of production.
      events: what happened.
      policies: what each achieved.
      loop: what the loop noticed; None if it was not among them.
      differences: between the loop and each other policy; none without the loop.
      seconds: that all of it took, without trainings that were kept from an earlier replay.
    """

    name: str
    first: date
    last: date
    events: tuple[Event, ...]
    policies: tuple[Result, ...]
    loop: LoopResult | None
    differences: tuple[Difference, ...]
    seconds: int

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What the loop is to show, and whether it does."""
        return claims(self.policies, self.events, self.loop)


def table(of: Document) -> str:
    """The results as Markdown: of the policies and, if there were any, of the events."""
    lines = [
        "| policy | average precision | money saved | by all alerts | cards that alert a day "
        "| trainings | pushed | with broken days | CPU s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in of.policies:
        pushed = r.trainings - len(r.refused)
        lines.append(
            f"| {r.policy} | {r.average_precision:.3f} | {r.saved:,.0f} | {r.saved_by_alerts:,.0f} "
            f"| {r.cards_a_day:.0f} | {r.trainings} | {pushed} | {r.trained_on_broken} "
            f"| {r.cpu_seconds:.0f} |"
        )
    if of.loop and of.events:
        names = [r.policy for r in of.policies]
        repaired = "".join(f" repaired: {name} |" for name in names)
        lines += ["", f"| event | day | detected after | bound |{repaired}"]
        lines.append("|---|---:|---:|---:|" + "---:|" * len(names))
        for seen in of.loop.seen:
            event = next(event for event in of.events if event.name == seen.event)
            cells = [_days(r.repaired[event.name]) if event.is_learnt else "" for r in of.policies]
            lines.append(
                f"| {seen.event} | {(event.first - of.first).days + 1} | {_days(seen.detected)} "
                f"| {seen.bound} | " + " | ".join(cells) + " |"
            )
        lines += [
            "",
            f"held {', '.join(map(str, of.loop.held)) or 'never'}; false alarms on "
            f"{of.loop.false_alarms} days; {of.loop.trainings_in_quiet} trainings in the quiet "
            f"period; at most {of.loop.most_in_a_week} in seven days; "
            f"{len(of.loop.rolled_back)} rollbacks",
        ]
    if of.differences:
        lines += ["", "average precision of all days together, the loop's less another's:"]
        lines += [f"- {d.policy}: {_interval(d)}" for d in of.differences]
        lines += ["", "money saved, likewise:"]
        lines += [f"- {d.policy}: {_money(d)}" for d in of.differences]
    if of.claims:
        lines += ["", "| to be shown | shown | holds |", "|---|---|---|"]
        for claim in of.claims:
            holds = "yes" if claim.holds else "**no**"
            lines.append(f"| {claim.text} | {claim.figures} | {holds} |")
    return "\n".join(lines)


def _days(number: int | None) -> str:
    return "–" if number is None else str(number)


def _interval(of: Difference) -> str:
    if of.interval is None:
        return f"{of.average_precision:+.4f}, which may be chance"
    low, high = of.interval
    return f"{of.average_precision:+.4f} (95 % {low:+.4f} … {high:+.4f})"


def _money(of: Difference) -> str:
    low, high = of.saved_interval
    return f"{of.saved:+,.0f} (95 % {low:+,.0f} … {high:+,.0f})"


def write(folder: Path, of: Document) -> None:
    """Writes results, picture and page."""
    write_atomically(folder / "results.json", to_json(of, indent=1))
    drawn = picture.story(of.policies, of.events, of.first, of.last, alone=True)
    write_atomically(folder / "policies.svg", str(drawn))
    write_atomically(folder / "index.html", render(of))


def render(of: Document) -> str:
    """The page."""
    return render_page(
        "policies.html",
        of=of,
        picture=picture.story(of.policies, of.events, of.first, of.last),
        charts=figures(of),
        events={event.name: event for event in of.events},
    )


def figures(of: Document) -> dict[str, Markup]:
    """Charts by title."""
    weeks = len(of.policies[0].weeks)
    x = Axis("week", 1, max(weeks, 2))

    def drawn(attribute: str) -> list[Line]:
        return [
            Line(
                r.policy,
                [(i + 1, getattr(week, attribute)) for i, week in enumerate(r.weeks)],
                f"s{place}",
            )
            for place, r in enumerate(of.policies)
        ]

    saved = [week.saved for r in of.policies for week in r.weeks]
    trainings = [float(r.trainings) for r in of.policies]
    names = [r.policy for r in of.policies]
    return {
        "Average precision by week": charts.lines(
            "Average precision of what was scored, by week and policy",
            x,
            Axis("average precision", 0, 1),
            drawn("average_precision"),
        ),
        "Money saved by week": charts.lines(
            "Money saved by alerts, less checks, by week and policy",
            x,
            Axis("saved", min(0.0, *saved), max(1.0, *saved)),
            drawn("saved"),
        ),
        "Trainings": charts.rows("Trainings of each policy", names, {"trainings": trainings}),
        "CPU seconds": charts.rows(
            "CPU seconds of each policy", names, {"CPU s": [r.cpu_seconds for r in of.policies]}
        ),
    }

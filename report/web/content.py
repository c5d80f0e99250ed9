"""What the web page shows, read from ML Metadata and from the summaries of the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from markupsafe import Markup

from fraud.errors import BadInput
from fraud.monitoring.checks import Check, Observation, Verdict
from fraud.pipeline import artifacts, lineage, lineage_graph
from fraud.pipeline.artifacts import RunSummary
from fraud.pipeline.lineage_graph import Release
from fraud.pipeline.records import Records
from fraud.report import charts, run_report
from fraud.report.charts import Axis, Line
from fraud.report.figures import words
from fraud.report.web import production

PAGE = 50
"""Runs on one page of the list."""

CHARTED = 100
"""Finished runs, the latest, in the charts over time."""

ENDED = ("COMPLETE", "CACHED")


@dataclass(frozen=True)
class Run:
    """One line of the list of runs.

    Attributes:
      run_id: the run.
      outcome: in words.
      kind: "good", "bad" or "open".
      summary: None if it has not finished.
      before: the finished run before it, if it has finished itself.
    """

    run_id: str
    outcome: str
    kind: str
    summary: RunSummary | None = None
    before: str | None = None


@dataclass(frozen=True)
class Overview:
    """The first page.

    Attributes:
      live: the version in production; None if nothing is.
      runs: one page of the list, the latest first.
      page, pages: which one, from 1, and how many there are.
      total: the number of runs.
      progress: node → state of the run that has not finished; empty if there is none.
      alerts: what needs a person, the most urgent first.
      over_time: charts by title.
      observation: the monitor's last look at production; None before the first.
      checks: those of it that are not ok, the worst first.
      production: charts by title.
      releases: every version, the newest first.
    """

    live: Release | None
    runs: tuple[Run, ...]
    page: int
    pages: int
    total: int
    progress: Mapping[str, str] = field(default_factory=dict)
    alerts: tuple[str, ...] = ()
    over_time: Mapping[str, Markup] = field(default_factory=dict)
    observation: Observation | None = None
    checks: tuple[Check, ...] = ()
    production: Mapping[str, Markup] = field(default_factory=dict)
    releases: tuple[Release, ...] = ()


class Reader:
    """Reads a root; summaries of finished runs, which never change, are read once.

    Args:
      store: ML Metadata.
      records: the same, for lineage.
      root: a `fraud.pipeline.root.Root`.
    """

    def __init__(self, store: Any, records: Records, root: Any) -> None:
        self._store, self._records, self._root = store, records, root
        self._summaries: dict[str, RunSummary] = {}
        self._observations: dict[int, Observation] = {}

    def overview(self, page: int) -> Overview:
        """The first page, with one page of the list of runs."""
        known = lineage.runs(self._store)[::-1]
        pages = max(1, -(-len(known) // PAGE))
        page = min(max(page, 1), pages)
        start, stop = (page - 1) * PAGE, page * PAGE
        shown = [self._run(run_id) for run_id in known[start:stop]]
        for i, run in enumerate(shown):
            if run.summary is not None:
                older = (r for r in known[start + i + 1 : stop + PAGE] if self.summary(r))
                shown[i] = replace(run, before=next(older, None))
        recent = [s for s in map(self.summary, known[:CHARTED]) if s is not None][::-1]
        releases = lineage_graph.releases(self._records, self._root.pushed)[::-1]
        live = next((release for release in releases if release.is_live), None)
        seen = production.latest_by_day(self._observed())
        progress = {}
        if known and self.summary(known[0]) is None:
            nodes = lineage.nodes(self._store, known[0])
            progress = {node.name: node.state for node in nodes.values()}
            if "RUNNING" not in progress.values():
                progress = {}
        return Overview(
            live=live,
            runs=tuple(shown),
            page=page,
            pages=pages,
            total=len(known),
            progress=progress,
            alerts=tuple(_alerts(live, shown, recent, seen)),
            over_time=_over_time(recent),
            observation=seen[-1] if seen else None,
            checks=tuple(production.to_show(seen[-1])) if seen else (),
            production=production.over_time(seen),
            releases=releases,
        )

    def _observed(self) -> list[Observation]:
        """What the monitor saw, the latest looks, the first one first; each is read once."""
        found = []
        for artifact in lineage.observations(self._store)[-CHARTED:]:
            if artifact.id not in self._observations:
                try:
                    self._observations[artifact.id] = artifacts.observation(artifact)
                except (BadInput, OSError):
                    continue
            found.append(self._observations[artifact.id])
        return found

    def summary(self, run_id: str) -> RunSummary | None:
        """The summary of a run; None if it has not finished or cannot be read."""
        if run_id not in self._summaries:
            try:
                found = RunSummary.read(self._root.run(run_id))
            except BadInput:
                return None
            if found is None:
                return None
            self._summaries[run_id] = found
        return self._summaries[run_id]

    def _run(self, run_id: str) -> Run:
        summary = self.summary(run_id)
        if summary is not None:
            kind = "good" if summary.outcome == "pushed" else "bad"
            return Run(run_id, run_report.WORDS[summary.outcome], kind, summary)
        nodes = lineage.nodes(self._store, run_id).values()
        failed = [n.name for n in nodes if n.state in ("FAILED", "CANCELED")]
        running = [n.name for n in nodes if n.state == "RUNNING"]
        if running and not failed:
            return Run(run_id, f"running {', '.join(running)}", "open")
        return Run(run_id, f"failed in {failed[-1]}" if failed else "ended early", "bad")

    def run_page(self, run_id: str) -> str:
        """The report on a run."""
        folder = self._root.run(run_id)
        facts = run_report.read(self._store, self._root.pushed, folder, run_id)
        return run_report.render(facts)

    def compare(self, first: str, second: str) -> list[tuple[str, str, str, str]]:
        """What two finished runs measured: name, both values, and the difference.

        Raises:
          BadInput: one of them is unknown or has not finished.
        """
        found = [self.summary(run_id) for run_id in (first, second)]
        for run_id, summary in zip((first, second), found, strict=True):
            if summary is None:
                raise BadInput(f"{run_id}: no finished run")
        a, b = (summary for summary in found if summary is not None)
        rows = [("as of", a.as_of or "", b.as_of or "", "")]
        rows += [("outcome", run_report.WORDS[a.outcome], run_report.WORDS[b.outcome], "")]
        for split in a.rows.keys() | b.rows.keys():
            rows.append(_difference(f"{split}: transactions", a.rows.get(split), b.rows.get(split)))
        for name in dict.fromkeys([*a.metrics.get("overall", {}), *b.metrics.get("overall", {})]):
            values = (s.metrics.get("overall", {}).get(name) for s in (a, b))
            rows.append(_difference(words(name), *values))
        for of_slice in sorted({*a.metrics.get("slices", {}), *b.metrics.get("slices", {})}):
            for name in artifacts.HEADLINE:
                values = (s.metrics.get("slices", {}).get(of_slice, {}).get(name) for s in (a, b))
                rows.append(_difference(f"{of_slice}: {words(name)}", *values))
        rows.append(_difference("seconds", sum(a.seconds.values()), sum(b.seconds.values())))
        return rows


def _difference(name: str, first: float | None, second: float | None) -> tuple[str, str, str, str]:
    change = f"{second - first:+,.4g}" if first is not None and second is not None else ""
    a, b = ("–" if value is None else f"{value:,.6g}" for value in (first, second))
    return name, a, b, change


def _alerts(
    live: Release | None,
    runs: Sequence[Run],
    recent: Sequence[RunSummary],
    seen: Sequence[Observation],
) -> list[str]:
    """What needs a person."""
    told = []
    if seen:
        acting = [check.name for check in seen[-1].checks if check.verdict is Verdict.ACT]
        if acting:
            names = ", ".join(acting[:5]) + (" and others" if len(acting) > 5 else "")
            told.append(f"The monitor asks to act on {names}, as of {seen[-1].as_of}.")
    if live is None:
        told.append("Nothing is live.")
    if runs and runs[0].kind == "bad" and runs[0].summary is None:
        told.append(f"The latest run {runs[0].outcome}.")
    if recent:
        told += [f"Warning: {problem}" for problem in recent[-1].disagreements]
        if recent[-1].outcome == "gate_stopped":
            told += [f"The data gate stopped the latest run: {r}" for r in recent[-1].reasons[:3]]
    unpushed = 0
    for summary in reversed(recent):
        if summary.outcome == "pushed":
            break
        unpushed += 1
    if unpushed > 1:
        told.append(f"The latest {unpushed} runs pushed nothing.")
    return told


def _over_time(summaries: Sequence[RunSummary]) -> dict[str, Markup]:
    """Metrics and data by as-of day, of the finished runs."""
    dated = [(date.fromisoformat(s.as_of).toordinal(), s) for s in summaries if s.as_of]
    first, last = min((d for d, _ in dated), default=0), max((d for d, _ in dated), default=0)
    if first == last:
        return {}
    x = production.day_axis(first, last, "as-of day")
    shown = {}
    for metric in artifacts.HEADLINE:
        drawn = []
        for place, name in enumerate(("metrics", "champion_metrics")):
            points = [
                (day, of["overall"][metric])
                for day, s in dated
                if (of := getattr(s, name)).get("overall", {}).get(metric) is not None
            ]
            model = "challenger" if name == "metrics" else "champion"
            drawn.append(Line(model, sorted(points), f"s{place}", marks=len(points) < 40))
        title = words(metric)
        shown[title[0].upper() + title[1:]] = charts.lines(
            f"{words(metric)} by as-of day", x, Axis(words(metric), 0, 1), drawn
        )
    strains = sorted((day, max(s.drift.values())) for day, s in dated if s.drift)
    if strains:
        top = max(1.5, *(strain for _, strain in strains))
        shown["Drift"] = charts.lines(
            "largest divergence of a column, relative to its threshold, by as-of day",
            x,
            Axis("divergence / threshold", 0, top),
            [
                Line("largest of all columns", strains, "s0", marks=len(strains) < 40),
                Line("drift begins", [(first, 1), (last, 1)], "aid"),
            ],
        )
    return shown

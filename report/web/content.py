"""What the web page shows, read from ML Metadata and from the summaries of the runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from markupsafe import Markup

from fraud.codec import to_json
from fraud.errors import BadInput
from fraud.monitoring.alerts import Raised, raised_in
from fraud.monitoring.checks import Check, Observation, Verdict
from fraud.pipeline import artifacts, lineage, lineage_graph
from fraud.pipeline.artifacts import RunSummary
from fraud.pipeline.lineage_graph import Execution, Release
from fraud.pipeline.records import Records
from fraud.report import charts, run_report
from fraud.report.charts import Axis, Line
from fraud.report.figures import title, words
from fraud.report.web import production

LINEAGE = "/lineage?of="
"""What the addresses of lineages begin with."""

LONGEST_SETTING = 300
"""Characters."""

PAGE = 50
"""Runs on one page of the list."""

CHARTED = 100
"""Finished runs, the latest, in the charts over time."""

ALERTS = 20
"""Alerts on the page, the latest."""

SPLITS = ("train", "eval", "recent")


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

    @property
    def average_precision(self) -> float | None:
        """Of the challenger on all examples; None if it was not measured or is undefined."""
        measured = self.summary.metrics.get("overall", {}) if self.summary else {}
        return run_report.finite(measured.get("average_precision"))


@dataclass(frozen=True)
class Progress:
    """A run in progress.

    Attributes:
      run_id: the run.
      nodes: those that began, in their order.
      expected: how many the last finished run had that was not stopped; 0 if there is none.
    """

    run_id: str
    nodes: tuple[Execution, ...]
    expected: int

    @property
    def ended(self) -> int:
        """How many nodes have ended."""
        return sum(node.is_finished for node in self.nodes)


@dataclass(frozen=True)
class Overview:
    """The first page.

    Attributes:
      live: the version in production; None if nothing is.
      pushed_by: the run that pushed it; None if a rollback did.
      runs: one page of the list, the latest first.
      page, pages: which one, from 1, and how many there are.
      total: the number of runs.
      progress: of the run in progress; None if there is none.
      urgent: what needs a person, the most urgent first.
      alerts: what the loop told people, the latest first.
      over_time: charts by title.
      observation: the monitor's last look at production; None before the first.
      checks: those of it that act or warn, the worst first.
      unjudged: why others could not be judged → their names.
      production: charts by title.
      releases: every version, the newest first.
    """

    live: Release | None
    runs: tuple[Run, ...]
    page: int
    pages: int
    total: int
    pushed_by: Run | None = None
    progress: Progress | None = None
    urgent: tuple[str, ...] = ()
    alerts: tuple[Raised, ...] = ()
    over_time: Mapping[str, Markup] = field(default_factory=dict)
    observation: Observation | None = None
    checks: tuple[Check, ...] = ()
    unjudged: Mapping[str, Sequence[str]] = field(default_factory=dict)
    production: Mapping[str, Markup] = field(default_factory=dict)
    releases: tuple[Release, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two finished runs.

    Attributes:
      rows: what they measured: name, both values, and the difference.
      settings: those that differ: name, and both values.
    """

    rows: tuple[tuple[str, str, str, str], ...]
    settings: tuple[tuple[str, str, str], ...]


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
        shown = [self._run(run_id, run_id == known[0]) for run_id in known[start:stop]]
        for i, run in enumerate(shown):
            if run.summary is not None:
                older = (r for r in known[start + i + 1 : stop + PAGE] if self.summary(r))
                shown[i] = replace(run, before=next(older, None))
        recent = [s for s in map(self.summary, known[:CHARTED]) if s is not None][::-1]
        releases = lineage_graph.releases(self._records, self._root.pushed)[::-1]
        live = next((release for release in releases if release.is_live), None)
        seen = production.latest_by_day(self._observed())
        pushed_by = None
        if live and not live.restored:
            links = self._records.links_of_artifacts([live.artifact_id])
            # Later ones took the push from the cache.
            pushed = min(link.execution_id for link in links if link.is_output)
            _, run_id = self._records.places([pushed])[pushed]
            pushed_by = Run(run_id, "pushed", "good", self.summary(run_id))
        return Overview(
            live=live,
            runs=tuple(shown),
            page=page,
            pages=pages,
            total=len(known),
            pushed_by=pushed_by,
            progress=self._progress(known, recent),
            urgent=tuple(_urgent(live, shown if page == 1 else (), recent, seen)),
            alerts=tuple(raised_in(self._root.alerts)[:ALERTS]),
            over_time=_over_time(recent),
            observation=seen[-1] if seen else None,
            checks=tuple(production.to_show(seen[-1])) if seen else (),
            unjudged=production.unjudged(seen[-1]) if seen else {},
            production=production.over_time(seen),
            releases=releases,
        )

    def _progress(self, known: Sequence[str], recent: Sequence[RunSummary]) -> Progress | None:
        """Of the latest run, if it is running."""
        if not known or self._run(known[0], is_latest=True).kind != "open":
            return None
        whole = (len(s.seconds) - 1 for s in reversed(recent) if s.outcome != "gate_stopped")
        nodes = lineage_graph.executions_of_run(self._records, known[0])
        return Progress(known[0], nodes, next(whole, 0))  # one entry is no node: loading TFX

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

    def _run(self, run_id: str, is_latest: bool) -> Run:
        summary = self.summary(run_id)
        if summary is not None:
            kind = "good" if summary.outcome == "pushed" else "bad"
            return Run(run_id, run_report.WORDS[summary.outcome], kind, summary)
        nodes = lineage_graph.executions_of_run(self._records, run_id)
        failed = [n.node for n in nodes if n.state in ("FAILED", "CANCELED")]
        running = [n.node for n in nodes if n.state == "RUNNING"]
        if failed:
            return Run(run_id, f"failed in {failed[-1]}", "bad")
        # What killed processes leave is marked as running until the next run.
        alive = self._root.is_in_use()
        if running and alive is not False:
            return Run(run_id, f"running {', '.join(running)}", "open")
        if is_latest and alive:
            return Run(run_id, "between two nodes", "open")
        return Run(run_id, f"killed in {', '.join(running)}" if running else "ended early", "bad")

    def run_page(self, run_id: str) -> str:
        """The report on a run."""
        folder = self._root.run(run_id)
        facts = run_report.read(self._store, self._root.pushed, folder, run_id)
        return run_report.render(facts, link=LINEAGE)

    def compare(self, first: str, second: str) -> Comparison:
        """What two finished runs measured, and their settings.

        Raises:
          BadInput: one of them is unknown or has not finished.
        """
        for run_id in (first, second):  # which become the names of folders
            if not lineage_graph.is_run(self._records, run_id):
                raise BadInput(f"{run_id}: no such run")
        found = [self.summary(run_id) for run_id in (first, second)]
        for run_id, summary in zip((first, second), found, strict=True):
            if summary is None:
                raise BadInput(f"{run_id}: no finished run")
        a, b = (summary for summary in found if summary is not None)
        rows = [("as of", a.as_of or "", b.as_of or "", "")]
        rows += [("outcome", run_report.WORDS[a.outcome], run_report.WORDS[b.outcome], "")]
        for split in [split for split in SPLITS if split in a.rows or split in b.rows]:
            days = [" … ".join(s.windows.get(split, ())) for s in (a, b)]
            rows.append((f"{split}: days", days[0], days[1], ""))
            rows.append(_difference(f"{split}: transactions", a.rows.get(split), b.rows.get(split)))
        measured = [*a.metrics.get("overall", {}), *b.metrics.get("overall", {})]
        rest = [name for name in measured if name not in artifacts.HEADLINE]
        for name in dict.fromkeys([m for m in artifacts.HEADLINE if m in measured] + rest):
            values = (s.metrics.get("overall", {}).get(name) for s in (a, b))
            rows.append(_difference(words(name), *values))
        for of_slice in sorted({*a.metrics.get("slices", {}), *b.metrics.get("slices", {})}):
            for name in artifacts.HEADLINE:
                values = (s.metrics.get("slices", {}).get(of_slice, {}).get(name) for s in (a, b))
                rows.append(_difference(f"{of_slice}: {words(name)}", *values))
        seconds = [round(sum(s.seconds.values())) for s in (a, b)]
        rows.append(_difference("seconds", *seconds))
        return Comparison(tuple(rows), tuple(self._settings(first, second)))

    def _settings(self, first: str, second: str) -> list[tuple[str, str, str]]:
        """The settings of the nodes of two runs that differ."""
        found = []
        for run_id in (first, second):
            found.append(
                {
                    name: value
                    for execution in lineage_graph.executions_of_run(self._records, run_id)
                    for setting, content in execution.settings.items()
                    for name, value in _leaves(f"{execution.node}: {setting}", content)
                }
            )
        a, b = found
        names = sorted({name for name in a.keys() | b.keys() if a.get(name) != b.get(name)})
        return [(name, _short(a.get(name)), _short(b.get(name))) for name in names]


def _difference(name: str, first: float | None, second: float | None) -> tuple[str, str, str, str]:
    change = ""
    if first is not None and second is not None:
        is_count = first == int(first) and second == int(second)
        change = f"{second - first:+,.0f}" if is_count else f"{second - first:+,.4f}"
    return name, run_report.number(first), run_report.number(second), change


def _leaves(name: str, content: Any) -> Iterator[tuple[str, Any]]:
    """What a setting consists of, by name; also where it is JSON, as TFX keeps lists and mappings.

    A list of plain values is one of them.
    """
    if isinstance(content, str) and content[:1] in ("{", "["):
        with suppress(ValueError):
            content = json.loads(content)
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from _leaves(f"{name}.{key}", value)
    elif isinstance(content, list) and any(isinstance(value, dict) for value in content):
        for place, value in enumerate(content):
            yield from _leaves(f"{name}.{place}", value)
    else:
        yield name, content


def _short(setting: Any) -> str:
    """A setting in at most a line or two."""
    if setting is None:
        return "–"
    text = setting if isinstance(setting, str) else to_json(setting)
    return text if len(text) <= LONGEST_SETTING else f"{text[:LONGEST_SETTING]}…"


def _urgent(
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
            stopped = f"The data gate stopped run {recent[-1].run_id}"
            told += [f"{stopped}: {reason}" for reason in recent[-1].reasons[:3]]
    unpushed = 0
    for summary in reversed(recent):
        if summary.outcome == "pushed":
            break
        unpushed += 1
    if unpushed > 1:
        told.append(f"The latest {unpushed} finished runs pushed nothing.")
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
        shown[title(words(metric))] = charts.lines(
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

"""Why a version is live, or why a run pushed nothing, in words."""

from __future__ import annotations

from collections.abc import Iterator

from fraud.pipeline.artifacts import TOO_FEW_FRAUDS, Change, Push
from fraud.pipeline.decisions import Demands, RunFacts, VersionFacts

MOST_REASONS = 8
"""Of one kind; the others are counted."""


def render(facts: VersionFacts | RunFacts) -> str:
    """The facts as text: first the answer, then what led to it, in the order of the run."""
    if isinstance(facts, RunFacts):
        return "\n".join([_outcome(facts), *_chain(facts)])
    return "\n".join([*_release(facts), "", _outcome(facts.run), *_chain(facts.run)])


def _release(facts: VersionFacts) -> Iterator[str]:
    """Why a version went live, and whether it still is."""
    release, next_one = facts.release, facts.replaced_by
    name, since = f"Version {release.version}", f"{release.since:%Y-%m-%d %H:%M}"
    if facts.is_live and next_one:
        yield (
            f"{name} is live again: {_how(release, facts.run.run_id)}, at {since}, and the files "
            f"of version {next_one.version}, which replaced it at "
            f"{next_one.since:%Y-%m-%d %H:%M}, are gone."
        )
    elif facts.is_live:
        yield f"{name} is live since {since}: {_how(release, facts.run.run_id)}."
    else:
        yield f"{name} went live at {since}: {_how(release, facts.run.run_id)}."
        if next_one:
            yield (
                f"It was replaced at {next_one.since:%Y-%m-%d %H:%M} by version "
                f"{next_one.version}, {_how(next_one)}."
            )
    if release.restored:
        yield f"Reason given: {release.reason}"
    elif release.reason:
        yield f"Accepted on request: {release.reason}."
    yield f"It replaced version {facts.replaced}." if facts.replaced else "Nothing was live before."
    if not facts.is_kept:
        yield "Its files have been deleted."
    elif not facts.is_there:
        yield "It is not live: its folder is missing."


def _how(release: Push, run_id: str = "") -> str:
    """How a version came to be, as a part of a sentence."""
    if release.restored:
        return (
            f"a rollback from {release.replaced} by {release.user} to the weights of version "
            f"{release.restored}"
        )
    return f"run {run_id} pushed it" if run_id else "which a run pushed"


def _outcome(facts: RunFacts) -> str:
    """What became of a run and why, as a sentence."""
    as_of = f" as of {facts.data.as_of}" if facts.data and facts.data.as_of else ""
    run, push = f"Run {facts.run_id}{as_of}", facts.push
    if facts.failed:
        return f"{run} failed in {facts.failed}{f': {facts.error}' if facts.error else ''}"
    if facts.gate_passed is False:
        return f"{run} pushed nothing: the data gate refused its data."
    if push is None:
        return (
            f"{run} has not decided: {f'it got to {facts.last}' if facts.last else 'no results'}."
        )
    if facts.pushed_by:
        return (
            f"{run} did not push again: its model had been pushed as version {push.version} by run "
            f"{facts.pushed_by}."
        )
    if push.pushed:
        checks = "every check was passed"
        if facts.evaluation and any(of.unjudged for of in facts.evaluation.changes.values()):
            checks += f", but drops from the champion were not judged: {TOO_FEW_FRAUDS}"
        if push.reason:
            checks = f"accepted on request: {push.reason}"
        return f"{run} pushed version {push.version}: {checks}."
    if push.reason:
        return f"{run} pushed nothing: {push.reason}."
    refused = "the Evaluator refused the challenger"
    if facts.blessed:
        refused = "the challenger cannot be served"
    return f"{run} pushed nothing: {refused}."


def _chain(facts: RunFacts) -> Iterator[str]:
    """What led to the outcome, in the order of the run."""
    if facts.data:
        windows = sorted(facts.data.windows.items(), key=lambda item: item[1])
        spans = [f"{split} {first} … {last}" for split, (first, last) in windows]
        spans = spans or [f"{split} {rows:,} rows" for split, rows in facts.data.rows.items()]
        yield f"  data        {', '.join(spans)}"
    if code := facts.code:
        commit = f", commit {code.commit[:12]}{' and edits' if code.dirty else ''}"
        yield f"  code        version {code.version or 'unknown'}{commit if code.commit else ''}"
    if facts.gate_passed is not None:
        yield f"  data gate   {'passed' if facts.gate_passed else 'refused'}"
    if facts.verdict:
        yield from _list(str(anomaly) for anomaly in facts.verdict.anomalies)
        yield from _list(f"noted: {note}" for note in facts.verdict.notes)
    if facts.blessed is not None:
        yield f"  Evaluator   {'blessed' if facts.blessed else 'refused'}; {_against(facts)}"
    if facts.evaluation and facts.demands:
        yield from _measured(facts, facts.demands)
        missing = [f"no examples of slice {name}" for name in facts.evaluation.missing_slices]
        yield from _list(f"refused: {why}" for why in (*facts.evaluation.failures, *missing))
    if serving := facts.serving:
        answered = f"passed: answered {serving.examples} examples"
        yield f"  serving     {answered if serving.blessed else f'refused: {serving.reason}'}"
    if push := facts.push:
        result = f"pushed version {push.version}" if push.pushed else push.outcome.replace("_", " ")
        if push.pushed and push.reason:
            result += f", accepted on request: {push.reason}"
        elif push.reason:
            result += f": {push.reason}"
        yield f"  Pusher      {result}"
    if facts.deleted:
        yield "  The details have been deleted with the run's artifacts."


def _against(facts: RunFacts) -> str:
    """What the challenger was compared with."""
    if facts.baseline:
        return f"compared with version {facts.baseline} on the same examples"
    if facts.data and facts.data.champion_problem:
        return f"not compared with the champion: {facts.data.champion_problem}"
    return "not compared with another model"


def _measured(facts: RunFacts, demands: Demands) -> Iterator[str]:
    """The metrics with a limit: values, intervals, and the limits."""
    assert facts.evaluation
    own = facts.evaluation.metrics.get("overall", {})
    champion = facts.evaluation.champion.get("overall", {})
    intervals = facts.evaluation.intervals.get("overall", {})
    for metric in dict.fromkeys([*demands.minima, *demands.max_drops]):
        value = _number(own.get(metric))
        interval = intervals.get(metric)
        within = f" ({interval[0]:.3f} … {interval[1]:.3f})" if interval else ""
        least = f", at least {demands.minima[metric]:g}" if metric in demands.minima else ""
        yield f"    {metric.replace('_', ' ')} {value}{within}{least}"
        if champion:
            change = facts.evaluation.changes.get(metric, Change(None, None, None))
            before = _number(champion.get(metric))
            yield f"      champion {before}, {_changed(metric, change, demands)}"


def _changed(metric: str, change: Change, demands: Demands) -> str:
    """How a metric changed from the champion's, and what was allowed."""
    interval = "" if change.low is None else f" ({change.low:+.3f} … {change.high:+.3f})"
    text = f"change {_number(change.change, '+.3f')}{interval}"
    if change.unjudged:
        text += f"; not judged: {TOO_FEW_FRAUDS}"
    elif metric in demands.max_drops:
        highest = demands.max_drop_probability
        text += (
            f"; a drop over {demands.max_drops[metric]:g} has probability "
            f"{_number(change.drop_probability)}, at most {_number(highest, 'g')}"
        )
    return text


def _list(items: Iterator[str]) -> Iterator[str]:
    shown = list(items)
    yield from (f"    {item}" for item in shown[:MOST_REASONS])
    if len(shown) > MOST_REASONS:
        yield f"    and {len(shown) - MOST_REASONS} more"


def _number(number: float | None, form: str = ".3f") -> str:
    return "undefined" if number is None else format(number, form)

"""What the versions of the last weeks promised, and whether production keeps to it.

A version that was trained while the world changed is evaluated in the changed world. It promises
little, and keeps that, so a change is hidden from whoever judges it by its own promise alone. Here
it is judged by what the versions before it promised, too. All that is needed is in the observations
of earlier days, so these checks can be replayed like the decision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from fraud.monitoring.checks import Check, Kind, Observation, Verdict
from fraud.monitoring.inputs import unknown
from fraud.monitoring.journal import Journal
from fraud.monitoring.observe import ALL_VERSIONS, PROMISED
from fraud.monitoring.performance import Measured, deviation_of, judged
from fraud.monitoring.spec import Monitoring

_METRIC = "average_precision"
_KEPT = (_METRIC, "recall_at_budget")
RECENT = "recent versions"
"""The subject of the checks that judge by the promises of the versions of the last weeks."""


def of_journal(seen: Observation, journal: Journal, settings: Monitoring) -> Observation:
    """An observation with the checks that need earlier ones, which are in the loop's journal."""
    entries = journal.entries()
    live = [entry for entry in entries if entry.pushed == str(seen.version)]
    earlier = [entry.observation for entry in entries if entry.observation]
    return with_checks(seen, earlier, any(entry.is_urgent for entry in live), settings)


def with_checks(
    seen: Observation, earlier: Sequence[Observation], is_repaired: bool, settings: Monitoring
) -> Observation:
    """An observation with the checks that need earlier ones.

    Args:
      seen: of the as-of day.
      earlier: of other days; those that are not earlier, or older than `promise_days`, are ignored.
      is_repaired: whether the live version was trained for a change. Otherwise it knows as little
        of one as the versions before it, so what these scored counts until it has labels of its
        own.
      settings: thresholds.
    """
    first = seen.as_of - timedelta(days=settings.promise_days)
    recent = [of for of in earlier if first <= of.as_of < seen.as_of]
    found = [check for check in (_promised(seen, recent, settings),) if check]
    for metric in _KEPT:
        if promised := _pooled([*_promises([*recent, seen], metric)]):
            found.append(_kept(metric, seen, promised, is_repaired, settings))
    return replace(seen, checks=(*seen.checks, *found))


def _promises(observations: Sequence[Observation], metric: str = _METRIC) -> dict[Measured, None]:
    """The different promises that were recorded; a model that a rollback restored makes none."""
    found: dict[Measured, None] = {}
    for of in observations:
        for check in of.checks:
            if check.name == f"{metric}/{PROMISED}" and check.value is not None and check.interval:
                found[Measured(check.value, check.interval)] = None
    return found


def _pooled(promises: Sequence[Measured]) -> tuple[float, float] | None:
    """The mean of measurements and its standard deviation; None without any.

    Weights are inverse variances, as in a fixed-effect meta-analysis (Cochran, "Problems arising in
    the analysis of a series of similar experiments", 1937). The best promise of several would be
    one that chance was kind to.
    """
    weights = {p: 1 / max(deviation_of(p.interval), 1e-6) ** 2 for p in promises if p.interval}
    if not weights:
        return None
    total = sum(weights.values())
    return sum(p.value * w for p, w in weights.items()) / total, 1 / math.sqrt(total)


def _promised(
    seen: Observation, recent: Sequence[Observation], settings: Monitoring
) -> Check | None:
    """Whether the live version promises less than those before it did, beyond chance."""
    own = _promises([seen])
    others = _pooled([of for of in _promises(recent) if of not in own])
    if not own or others is None:
        return None
    (promise,) = own
    assert promise.interval is not None
    expected, deviation = others
    least = expected - settings.max_drop
    deviation = math.hypot(deviation, deviation_of(promise.interval))
    name = f"promised_{_METRIC}/{RECENT}"
    return judged(name, promise, least, deviation, settings, Verdict.ACT, expected)


def _kept(
    metric: str,
    seen: Observation,
    promised: tuple[float, float],
    is_repaired: bool,
    settings: Monitoring,
) -> Check:
    """Whether production is as good as the versions of the last weeks promised together."""
    name, by_name = f"{metric}/{RECENT}", {check.name: check for check in seen.checks}
    checks = [by_name.get(metric)]
    if not is_repaired:
        checks.append(by_name.get(f"{metric}/{ALL_VERSIONS}"))
    for check in checks:
        if check and check.value is not None and check.interval is not None:
            measured = Measured(check.value, check.interval)
            deviation = math.hypot(promised[1], deviation_of(check.interval))
            least = promised[0] - settings.max_drop
            return judged(name, measured, least, deviation, settings, Verdict.ACT, promised[0])
    return unknown(name, Kind.PERFORMANCE, "no labels of the live version's own days yet")

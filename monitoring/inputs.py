"""Checks of what arrives: rows, columns, their drift, and how features differ when scoring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fraud.features.spec import Dataset
from fraud.monitoring.checks import Check, Kind, Verdict
from fraud.monitoring.production import Live, Production, Scored, days_of_rows, floats
from fraud.monitoring.profiles import profile
from fraud.monitoring.spec import Monitoring
from fraud.pipeline import drift
from fraud.pipeline.drift import Measurement, Profile
from fraud.time import day_number

_RATES = (drift.MISSING, drift.ZERO, drift.UNSEEN)
"""The measures of a column that tell broken from changed: shares of the rows."""

_RELATIVE, _ABSOLUTE = 1e-5, 1e-6
"""How far float32 values that were computed in another order may be apart."""


@dataclass(frozen=True)
class Arrivals:
    """Checks of what arrived.

    Attributes:
      checks: of the as-of day, and of the recent days.
      broken: day → the columns that were broken on it; only days that have any.
    """

    checks: tuple[Check, ...]
    broken: Mapping[date, tuple[str, ...]]


def counted_columns(dataset: Dataset) -> tuple[str, ...]:
    """The columns whose drift is measured: those of the data that the model reads."""
    amount = (dataset.amount,) if dataset.amount else ()
    return tuple(dict.fromkeys((*amount, *dataset.numeric, *dataset.categorical)))


def arrivals(
    table: pa.Table,
    first: date,
    as_of: date,
    live: Live,
    dataset: Dataset,
    settings: Monitoring,
    configured: Mapping[str, float],
) -> Arrivals:
    """Whether the as-of day's data is broken, and whether the recent days have drifted.

    A broken day says nothing about the world, so drift is judged by the other days.

    Args:
      table: what arrived.
      first: the first day that is looked at, not after the recent days.
      as_of: the last day.
      live: what it is compared with.
      dataset: the columns.
      settings: windows and thresholds.
      configured: `data_gate.drift_thresholds`, and `max_drift` for the other columns.
    """
    last = day_number(as_of)
    recent = list(range(last - settings.recent_days + 1, last + 1))
    days = days_of_rows(table, dataset)
    columns = counted_columns(dataset)

    def counted(some: Sequence[int]) -> Profile:
        return profile(table, days, some, columns, dataset.card_entity)

    rows = np.array([(days == day).sum() for day in recent])
    checks = _freshness(rows, as_of, settings)
    if live.profile is None:
        why = "the live version has no counts by day of its train window"
        names = [f"data/{name}" for name in ("rows", *columns)]
        checks += [unknown(name, Kind.DATA, why) for name in names]
        checks += [unknown(f"drift/{name}", Kind.DRIFT, why) for name in columns]
        return Arrivals(tuple(checks), {})
    broken: dict[date, tuple[str, ...]] = {}
    for day in range(day_number(first), last + 1):
        if not (days == day).any():
            continue
        of = _of_day(counted([day]), live.profile, columns, settings, configured)
        lost = tuple(check.subject for check in of if check.verdict is Verdict.ACT)
        if lost:
            broken[as_of + timedelta(days=day - last)] = lost
        if day == last:
            checks += of
    if not rows[-1]:
        names = [f"data/{name}" for name in ("rows", *columns)]
        checks += [unknown(name, Kind.DATA, "no transactions") for name in names]
    sound = [
        day
        for day, of_day in zip(recent, rows, strict=True)
        if of_day and as_of + timedelta(days=day - last) not in broken
    ]
    baselines = {"drift": live.profile, "drift_from_reference": live.reference}
    for name, baseline in baselines.items():
        if baseline is None:
            continue
        if not sound:
            why = "every recent day is broken or missing"
            checks += [unknown(f"{name}/{column}", Kind.DRIFT, why) for column in columns]
            continue
        worst = Verdict.ACT if baseline is live.profile else Verdict.WARN
        measured = drift.compare(counted(sound), _with(baseline, columns), configured)
        checks += [_drift(f"{name}/{c}", _of(c, measured), worst) for c in columns]
    return Arrivals(tuple(checks), broken)


def _with(baseline: Profile, columns: Sequence[str]) -> Profile:
    """The counts of some columns, as far as there are any."""
    kept = {name: of for name, of in baseline.columns.items() if name in columns}
    return Profile(baseline.days, baseline.rows, baseline.cards, kept)


def _freshness(rows: NDArray[np.int64], as_of: date, settings: Monitoring) -> list[Check]:
    """Whether every recent day has transactions, given the rows of each, the as-of day last."""
    empty = [as_of - timedelta(days=len(rows) - 1 - int(i)) for i in np.flatnonzero(rows == 0)]
    stale = int(np.argmax(rows[::-1] > 0)) if rows.any() else len(rows)
    act = stale > settings.max_stale_days
    detail = f"newest transactions: {as_of - timedelta(days=stale)}"
    if not rows.any():
        detail = f"no transactions in {len(rows)} days"
    return [
        Check(
            "stale_days",
            float(stale),
            None,
            float(settings.max_stale_days + 1),
            Verdict.ACT if act else Verdict.OK,
            detail,
            Kind.FRESHNESS,
        ),
        Check(
            "missing_days",
            float(len(empty)),
            None,
            None,
            Verdict.WARN if empty else Verdict.OK,
            "no transactions: " + ", ".join(map(str, empty)) if empty else "",
            Kind.FRESHNESS,
        ),
    ]


def _of_day(
    now: Profile,
    baseline: Profile,
    columns: Sequence[str],
    settings: Monitoring,
    configured: Mapping[str, float],
) -> list[Check]:
    """Whether the rows and columns of one day are broken."""
    measured = drift.compare(now, _with(baseline, columns), configured)
    return [
        _rows(_of(drift.ROWS, measured), _are_fewer(now, baseline)),
        *(_broken(name, _of(name, measured), settings.broken_share) for name in columns),
    ]


def _of(column: str, measured: Iterable[Measurement]) -> list[Measurement]:
    return [m for m in measured if m.column == column]


def _are_fewer(now: Profile, baseline: Profile) -> bool:
    """Whether a day has fewer rows than the same weekday had; without one, than all days had."""
    same = baseline.rows[baseline.days % 7 == now.days[0] % 7]
    return bool(now.rows[0] < (same if len(same) else baseline.rows).mean())


def _rows(measured: list[Measurement], are_fewer: bool) -> Check:
    """Whether the day has as many rows as it should: far fewer are a day that is not complete."""
    of_day = next((m for m in measured if m.measure == drift.ROWS_OF_DAY), None)
    if of_day is None or of_day.unjudged:
        why = next((m.unjudged for m in measured if m.unjudged), "the data has no days")
        return unknown("data/rows", Kind.DATA, why)
    verdict = Verdict.OK
    if of_day.drifted:
        verdict = Verdict.ACT if are_fewer else Verdict.WARN
    return Check(
        "data/rows", of_day.value, None, of_day.threshold, verdict, of_day.change, Kind.DATA
    )


def _broken(column: str, measured: list[Measurement], broken_share: float) -> Check:
    """Whether a column is broken: too many rows lack it, or have 0 or an unknown category in it."""
    rates = [m for m in measured if m.measure in _RATES and not m.unjudged]
    name = f"data/{column}"
    if not rates:
        why = next((m.unjudged for m in measured if m.unjudged), "it was not counted")
        return unknown(name, Kind.DATA, why)
    # Values that became missing and values that became unknown are lost alike.
    lost = sum(m.value for m in rates if m.drifted)
    worst = max(rates, key=lambda m: m.value / max(m.threshold, 1e-9))
    threshold = max(broken_share, worst.threshold)
    verdict = Verdict.OK
    if lost:
        verdict = Verdict.ACT if lost > threshold else Verdict.WARN
    value = lost or worst.value
    told = "; ".join(f"{m.measure} {m.change}" for m in rates if m.drifted)
    return Check(name, value, None, threshold, verdict, told, Kind.DATA)


def _drift(name: str, measured: list[Measurement], worst: Verdict) -> Check:
    judged = [m for m in measured if not m.unjudged]
    if not judged:
        why = next((m.unjudged for m in measured), "it was not counted")
        return unknown(name, Kind.DRIFT, why)
    largest = max(judged, key=lambda m: m.value / max(m.threshold, 1e-9))
    return Check(
        name,
        largest.value,
        None,
        largest.threshold,
        worst if largest.drifted else Verdict.OK,
        f"{largest.measure}: {largest.change}",
        Kind.DRIFT,
    )


def feature_drift(
    production: Production, scored: Scored, live: Live, settings: Monitoring
) -> list[Check]:
    """Whether the features that were scored in the recent days have moved from training.

    Features change as their columns do, and those that look back over weeks vary too slowly for a
    month of days to show by how much; so their divergence is judged by convention, and only warns.
    """
    checks = []
    for name, shape in live.shapes.items():
        check = f"feature_drift/{name}"
        values = _feature(production, name, scored)
        if values is None:
            checks.append(unknown(check, Kind.DRIFT, "it is not in the prediction log"))
        elif len(values) < settings.min_rows:
            why = f"{len(values)} scored transactions; {settings.min_rows} are needed"
            checks.append(unknown(check, Kind.DRIFT, why))
        else:
            value = shape.divergence(values)
            threshold = settings.max_divergence
            verdict = Verdict.WARN if value > threshold else Verdict.OK
            checks.append(Check(check, value, None, threshold, verdict, "", Kind.DRIFT))
    return checks


def _feature(production: Production, name: str, scored: Scored) -> NDArray | None:
    features = production.predictions.features
    if name not in features.column_names:
        return None
    return floats(features[name])[scored.logged]


def skew(
    production: Production,
    scored: Scored,
    dataset: Dataset,
    features: Sequence[str],
    settings: Monitoring,
) -> list[Check]:
    """Whether what was scored is what arrived, and whether its features are those of training.

    Args:
      production: what arrived, what was scored, and what was computed again.
      scored: the rows of the as-of day that were scored by the live version.
      dataset: the columns.
      features: the features of the live version.
      settings: thresholds.
    """
    checks = []
    table, log = production.transactions, production.predictions
    for name in counted_columns(dataset):
        if name in production.unlogged or name not in log.transactions.column_names:
            why = "it is not in the prediction log, or hashed"
            checks.append(unknown(f"skew/{name}", Kind.SKEW, why))
            continue
        arrived = table[name].take(pa.array(scored.position))
        logged = log.transactions[name].take(pa.array(scored.logged))
        checks.append(_column_skew(name, arrived, logged, settings))
    again = production.recomputed
    if again is None or not len(scored):
        why = "no transactions of the day were scored by the live version"
        if len(scored):
            why = "the features were not computed again"
        return [*checks, *(unknown(f"skew/{name}", Kind.SKEW, why) for name in features)]
    assert dataset.id is not None
    ids = table[dataset.id].take(pa.array(scored.position)).combine_chunks()
    places = pc.index_in(ids.cast(pa.string()), again[dataset.id].combine_chunks().cast("string"))
    both = places.is_valid().to_numpy(zero_copy_only=False)
    rows = places.drop_null().to_numpy()
    for name in features:
        if name in production.unlogged or name not in log.features.column_names:
            why = "it is not in the prediction log"
            checks.append(unknown(f"skew/{name}", Kind.SKEW, why))
            continue
        online = floats(log.features[name])[scored.logged[both]]
        offline = floats(again[name])[rows]
        checks.append(_numbers_skew(name, online, offline, settings))
    return checks


def _column_skew(
    name: str, arrived: pa.ChunkedArray, logged: pa.ChunkedArray, settings: Monitoring
) -> Check:
    if pa.types.is_floating(arrived.type) or pa.types.is_floating(logged.type):
        return _numbers_skew(name, floats(logged), floats(arrived), settings)
    texts = [
        column.combine_chunks().cast(pa.string()).fill_null("") for column in (arrived, logged)
    ]
    differs = pc.not_equal(*texts).to_numpy(zero_copy_only=False)
    detail = ""
    if differs.any():
        row = int(np.argmax(differs))
        arrived_as, logged_as = (text[row].as_py() for text in texts)
        detail = f"such as {logged_as!r} when scored, {arrived_as!r} in the data"
    return _skew(name, differs, detail, settings)


def _numbers_skew(name: str, online: NDArray, offline: NDArray, settings: Monitoring) -> Check:
    differs = ~np.isclose(online, offline, _RELATIVE, _ABSOLUTE, equal_nan=True)
    detail = ""
    if differs.any():
        distance = np.abs(online - offline)[differs]
        one_side = int(np.isnan(distance).sum())
        known = distance[~np.isnan(distance)]
        parts = [f"by up to {known.max():.6g}"] if len(known) else []
        parts += [f"{one_side} only on one side"] if one_side else []
        detail = ", ".join(parts)
    return _skew(name, differs, detail, settings)


def _skew(name: str, differs: NDArray[np.bool_], detail: str, settings: Monitoring) -> Check:
    if len(differs) < settings.min_rows:
        why = f"{len(differs)} transactions to compare; {settings.min_rows} are needed"
        return unknown(f"skew/{name}", Kind.SKEW, why)
    value = float(differs.mean())
    verdict = Verdict.OK
    if value:
        verdict = Verdict.ACT if value > settings.max_skew else Verdict.WARN
    return Check(f"skew/{name}", value, None, settings.max_skew, verdict, detail, Kind.SKEW)


def coverage(
    table_days: NDArray[np.int64], scored: Scored, as_of: date, settings: Monitoring
) -> Check:
    """Whether the transactions of the as-of day were scored."""
    arrived = int((table_days == day_number(as_of)).sum())
    if not arrived:
        return unknown("scored", Kind.FRESHNESS, "no transactions arrived on the as-of day")
    share = float((scored.days == day_number(as_of)).sum() / arrived)
    verdict = Verdict.OK
    if share < settings.min_scored:
        verdict = Verdict.ACT if share < 0.5 else Verdict.WARN
    detail = f"{share:.1%} of {arrived:,} transactions are in the prediction log"
    return Check("scored", share, None, 0.5, verdict, detail, Kind.FRESHNESS)


def unknown(name: str, kind: Kind, why: str) -> Check:
    """A check that could not be made."""
    return Check(name, None, None, None, Verdict.CANNOT_JUDGE, why, kind)

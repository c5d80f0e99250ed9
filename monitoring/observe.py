"""One look at production: all checks, from arrays and tables, without TFX.

On the as-of day D, with a label delay of 7, 7 recent days and 7 labelled days::

    D-13 ── labelled ── D-7   D-6 ── unlabelled ── D
                              D-6 ──── recent ──── D

Inputs, scores and alerts are judged in the recent days, performance in the labelled ones, and
estimated in the unlabelled ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fraud.monitoring import inputs, performance
from fraud.monitoring.checks import Check, Day, Kind, Observation, Verdict
from fraud.monitoring.inputs import unknown
from fraud.monitoring.production import Live, Production, Scored, days_of_rows, floats, join
from fraud.monitoring.profiles import Shape, profile
from fraud.pipeline.config import Config
from fraud.pipeline.windows import Window, last_known_day
from fraud.time import EPOCH, day_number

PROMISED = "promised"
"""The subject of what the Evaluator measured of the live version."""
ALL_VERSIONS = "all versions"
"""The subject of checks of what every version scored, not the live one alone."""


def labelled_days(as_of: date, config: Config) -> Window:
    """The days in which performance is judged."""
    last = last_known_day(as_of, config.windows.label_delay_days)
    return Window(last - timedelta(days=config.monitoring.performance_days - 1), last)


def recent_days(as_of: date, config: Config) -> Window:
    """The days in which inputs, scores and alerts are judged."""
    return Window(as_of - timedelta(days=config.monitoring.recent_days - 1), as_of)


def observed_days(as_of: date, config: Config) -> Window:
    """All days that `observe` looks at."""
    first = min(labelled_days(as_of, config).first, recent_days(as_of, config).first)
    return Window(first, as_of)


def observe(production: Production, live: Live | None, config: Config, as_of: date) -> Observation:
    """Makes every check.

    Args:
      production: what had happened when the as-of day ended.
      live: the live version; None if nothing is live.
      config: the dataset, which has a timestamp, the features, windows, costs and thresholds.
      as_of: the last day.
    """
    settings, dataset = config.monitoring, config.dataset
    table = production.transactions
    if live is None:
        nothing = Check("model_age", None, None, None, Verdict.ACT, "nothing is live", Kind.AGE)
        return Observation(as_of, None, (nothing,))
    configured = dict(config.data_gate.drift_thresholds)
    if config.data_gate.max_drift is not None:
        columns = inputs.counted_columns(dataset)
        configured = dict.fromkeys(columns, config.data_gate.max_drift) | configured
    first = observed_days(as_of, config).first
    arrived = inputs.arrivals(table, first, as_of, live, dataset, settings, configured)
    days = days_of_rows(table, dataset)
    checks = [*arrived.checks, _labels(production, days, config, as_of)]
    why = _unscored(production, config)
    if why:
        scored = None
        checks += _unscored_checks(why, live, config)
    else:
        scored = join(production, dataset, live.aliases)
        checks.append(inputs.coverage(days, scored, as_of, settings))
        broken = {day_number(day) for day in arrived.broken}
        sound = scored.at(~np.isin(scored.days, sorted(broken)))
        checks += _today_checks(production, scored, live, config, as_of)
        checks += _scored_checks(production, sound, live, config, as_of)
    checks += _age_checks(table, days, live, config, as_of)
    return Observation(
        as_of,
        int(live.version),
        tuple(checks),
        _days(days, scored, production, arrived.broken, config, as_of),
    )


def live_of(
    version: str,
    train: pa.Table,
    evaluated: Production,
    features: Sequence[str],
    config: Config,
    as_of: date,
) -> Live:
    """What `observe` compares with, for a replay that has no artifacts.

    Args:
      version: a number, as text.
      train: the rows that the version was trained on, with their features.
      evaluated: transactions with labels, and what the version said of them before it went live.
      features: the names of the features.
      config: the dataset, the slices and the alert budget.
      as_of: the last day of the data that it came from.
    """
    dataset = config.dataset
    rows = join(evaluated, dataset, {*evaluated.predictions.version.tolist()})
    rows = rows.at(~np.isnan(rows.labels))
    days = days_of_rows(train, dataset)
    counted = range(int(days.min()), int(days.max()) + 1)
    columns = inputs.counted_columns(dataset)
    return Live(
        version=version,
        aliases=frozenset({version}),
        as_of=as_of,
        labels_until=EPOCH + timedelta(days=int(rows.days.max())),
        promise=performance.promised(
            rows,
            _slices(evaluated.transactions, rows, dataset.slices),
            config.evaluation.budget(dataset),
        ),
        profile=profile(train, days, counted, columns, dataset.card_entity),
        shapes={name: Shape.of(floats(train[name])) for name in features},
    )


def _labels(production: Production, days: NDArray[np.int64], config: Config, as_of: date) -> Check:
    """Whether every labelled day that has transactions has labels."""
    unknown_labels = production.transactions[config.dataset.label].is_null()
    known = ~unknown_labels.combine_chunks().to_numpy(zero_copy_only=False)
    without = [
        day
        for day in labelled_days(as_of, config)
        if (of_day := days == day_number(day)).any() and not known[of_day].any()
    ]
    allowed = config.monitoring.max_stale_days
    verdict = Verdict.OK
    if without:
        verdict = Verdict.ACT if len(without) > allowed else Verdict.WARN
    told = "no labels: " + ", ".join(map(str, without)) if without else ""
    detail = "; ".join(filter(None, (told, production.label_problem)))
    value, limit = float(len(without)), float(allowed + 1)
    return Check("unlabelled_days", value, None, limit, verdict, detail, Kind.FRESHNESS)


def _unscored(production: Production, config: Config) -> str:
    """Why nothing can be said of what was scored; "" if something can."""
    id_column = config.dataset.id
    if id_column is None:
        return "dataset.id is null: predictions and labels cannot be matched"
    if not len(production.predictions):
        return "the prediction log has no transaction of these days"
    logged = production.predictions.transactions.column_names
    if id_column in production.unlogged or id_column not in logged:
        return f"{id_column} is not in the prediction log, or hashed"
    return ""


def _unscored_checks(why: str, live: Live, config: Config) -> list[Check]:
    metrics = ("average_precision", "precision_at_budget", "recall_at_budget", "brier_skill")
    more = ("calibration", "card_precision_at_budget")
    return [
        unknown("scored", Kind.FRESHNESS, why),
        unknown("skew", Kind.SKEW, why),
        unknown("feature_drift", Kind.DRIFT, why),
        unknown("score_distribution", Kind.SCORES, why),
        unknown("alert_rate", Kind.SCORES, why),
        *(unknown(name, Kind.PERFORMANCE, why) for name in (*metrics, *more)),
        unknown("cost_saved_per_day", Kind.HARM, why),
        *(unknown(f"estimated_{name}", Kind.ESTIMATE, why) for name in metrics[:3]),
    ]


def _today_checks(
    production: Production, scored: Scored, live: Live, config: Config, as_of: date
) -> list[Check]:
    """Whether what was scored on the as-of day is what arrived, broken or not."""
    today = scored.at(scored.is_live).between(as_of, as_of)
    features = tuple(live.shapes)
    return inputs.skew(production, today, config.dataset, features, config.monitoring)


def _scored_checks(
    production: Production, scored: Scored, live: Live, config: Config, as_of: date
) -> list[Check]:
    """Checks of what was scored on days that were not broken.

    What a model says of broken data tells of the data.
    """
    settings, dataset = config.monitoring, config.dataset
    evaluation = config.evaluation
    by_live = scored.at(scored.is_live)
    recent, labels = recent_days(as_of, config), labelled_days(as_of, config)
    recent_rows = by_live.between(recent.first, recent.last)
    checks = inputs.feature_drift(production, recent_rows, live, settings)
    checks += performance.score_checks(recent_rows, live.promise, settings)

    def known(rows: Scored) -> Scored:
        within = rows.between(labels.first, labels.last)
        return within.at(~np.isnan(within.labels))

    labelled = known(by_live)
    budget, has_cards = evaluation.budget(dataset), dataset.card_entity is not None
    checks += performance.realized(
        labelled,
        _slices(production.transactions, labelled, dataset.slices),
        live.promise,
        evaluation,
        budget,
        has_cards,
        settings,
    )
    checks += _promised(live)
    everything = known(scored)
    if len(everything) > len(labelled):
        checks += _of_all(everything, live, config)
    unlabelled = by_live.between(labels.last + timedelta(days=1), as_of)
    checks += performance.estimated(unlabelled, labelled, live.promise, settings)
    return checks


def _promised(live: Live) -> list[Check]:
    """What the Evaluator measured of the live version, to compare later ones with."""
    found = []
    for metric in ("average_precision", "recall_at_budget"):
        name = f"{metric}/{PROMISED}"
        value, interval = live.promise.metrics.get(metric), live.promise.intervals.get(metric)
        if value is None or interval is None:
            found.append(unknown(name, Kind.PERFORMANCE, "the Evaluator gave no interval"))
            continue
        detail = "what the Evaluator measured"
        found.append(Check(name, value, interval, None, Verdict.OK, detail, Kind.PERFORMANCE))
    return found


def _of_all(everything: Scored, live: Live, config: Config) -> list[Check]:
    """How good production was, including versions that are not live any more: to warn at most."""
    promise = live.promise
    checks = performance.realized(
        everything,
        {},
        promise,
        config.evaluation,
        config.evaluation.budget(config.dataset),
        config.dataset.card_entity is not None,
        config.monitoring,
    )
    softened = {Verdict.ACT: Verdict.WARN}
    return [
        Check(
            f"{check.name}/{ALL_VERSIONS}",
            check.value,
            check.interval,
            check.threshold,
            softened.get(check.verdict, check.verdict),
            check.detail,
            check.kind,
        )
        for check in checks
    ]


def _slices(
    table: pa.Table, rows: Scored, columns: tuple[str, ...]
) -> dict[str, NDArray[np.bool_]]:
    """Slice, as "column=value" → which rows it consists of."""
    found = {}
    for name in columns:
        values = table[name].take(pa.array(rows.position)).cast(pa.string()).combine_chunks()
        for value in sorted(v for v in pc.unique(values).to_pylist() if v is not None):
            equal = pc.equal(values, value).fill_null(False)
            found[f"{name}={value}"] = equal.to_numpy(zero_copy_only=False)
    return found


def _age_checks(
    table: pa.Table, days: NDArray[np.int64], live: Live, config: Config, as_of: date
) -> list[Check]:
    """How old the model's data is, and how many frauds it has not seen."""
    settings = config.monitoring
    if live.as_of is None:
        age = unknown("model_age", Kind.AGE, "the as-of day of its data is not recorded")
    elif live.as_of > as_of:
        why = f"its data ends on {live.as_of}: it has learnt from days that are looked at"
        age = unknown("model_age", Kind.AGE, why)
    else:
        value, limit = (as_of - live.as_of).days, settings.max_age_days
        act = limit is not None and value >= limit
        age = Check(
            "model_age",
            float(value),
            None,
            None if limit is None else float(limit),
            Verdict.ACT if act else Verdict.OK,
            f"days since {live.as_of}, the last day of its data",
            Kind.AGE,
        )
    if live.labels_until is None:
        return [age, unknown("new_frauds", Kind.AGE, "the days of its labels are not recorded")]
    first = live.labels_until + timedelta(days=1)
    new = days >= day_number(first)
    frauds = float(np.nansum(floats(table[config.dataset.label])[new]))
    act = settings.new_frauds is not None and frauds >= settings.new_frauds
    covered = int(days.min(initial=day_number(as_of))) <= day_number(first)
    since = f"known frauds since {first}" if covered else "at least, in the days that were read"
    return [
        age,
        Check(
            "new_frauds",
            frauds,
            None,
            None if settings.new_frauds is None else float(settings.new_frauds),
            Verdict.ACT if act else Verdict.OK,
            since,
            Kind.AGE,
        ),
    ]


def _days(
    days: NDArray[np.int64],
    scored: Scored | None,
    production: Production,
    broken: Mapping[date, tuple[str, ...]],
    config: Config,
    as_of: date,
) -> tuple[Day, ...]:
    return tuple(
        _day(
            day,
            int((days == day_number(day)).sum()),
            scored.between(day, day) if scored is not None else None,
            production.predictions.version,
            broken.get(day, ()),
            config,
        )
        for day in observed_days(as_of, config)
    )


def _day(
    day: date,
    arrived: int,
    scored: Scored | None,
    versions: NDArray[np.str_],
    broken: tuple[str, ...],
    config: Config,
) -> Day:
    if scored is None or not len(scored):
        return Day(day, arrived, broken=broken)
    labelled = scored.at(~np.isnan(scored.labels))
    proved = performance.of_labels(labelled.labels, labelled.scores, labelled.alerts)
    estimate = performance.expected_confusion(scored.scores, scored.alerts)
    interval = None
    if not performance.too_few(labelled):
        interval = performance.measure(labelled)["average_precision"].interval
    return Day(
        day=day,
        arrived=arrived,
        scored=len(scored),
        alerts=int(scored.alerts.sum()),
        broken=broken,
        versions=tuple(np.unique(versions[scored.logged]).tolist()),
        mean_score=float(scored.scores.mean(dtype=np.float64)),
        labelled=len(labelled),
        frauds=int(labelled.labels.sum()),
        average_precision=_finite(proved["average_precision"]),
        interval=interval,
        precision=_finite(proved["precision_at_budget"]),
        recall=_finite(proved["recall_at_budget"]),
        cost_saved=performance.cost_saved(labelled, config.evaluation) if len(labelled) else None,
        estimated_average_precision=_finite(estimate["average_precision"]),
    )


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None

"""Checks of what was scored: scores and alerts, and how good they proved or probably are.

Where labels have arrived, metrics are those of `fraud.models.evaluation`, with intervals from a
bootstrap of whole cards, and are compared with what the Evaluator measured before the version went
live. Both are estimates from samples, so a drop is judged by its probability, with the two taken
for independent and normal.

Where labels have not arrived, metrics are estimated from the scores alone, as expectations of the
confusion matrix if the scores are probabilities (Kivimäki, Białek, Nurminen, Kuberski,
"Confidence-based estimators for predictive performance in model monitoring", 2024, arXiv
2407.08649; NannyML's documentation, "CBPE"). A score that has learnt another world than today's is
no such probability, and estimates too well. So the estimate is also made where labels have arrived,
and its error there is a check.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fraud.models.evaluation import bootstrap, curves, metrics
from fraud.models.evaluation.registry import MIN_FRAUD_CARDS
from fraud.models.spec import AlertBudget, Evaluation
from fraud.monitoring.checks import Check, Kind, Verdict
from fraud.monitoring.inputs import unknown
from fraud.monitoring.production import Intervals, Promise, Row, Scored
from fraud.monitoring.spec import Monitoring
from fraud.pipeline.drift import jensen_shannon

Interval = tuple[float, float]

REPLICATES = 400
"""Of the bootstrap; an end of an interval has a standard error of a tenth of its width."""

SIMULATIONS = 200
"""How often labels are drawn for the interval of an estimate."""

_MODEL = "scored"
_Z = NormalDist().inv_cdf(0.975)
_OF_ALL = ("average_precision", "precision_at_budget", "recall_at_budget")
"""The metrics whose drop is judged, for everything and for each slice."""
_ESTIMATED = _OF_ALL


@dataclass(frozen=True)
class Measured:
    """A metric and its 95 % interval; None where the rows cannot tell."""

    value: float
    interval: Interval | None


def measure(scored: Scored) -> dict[str, Measured]:
    """The metrics of labelled rows that have intervals, by name."""
    outputs = {_MODEL: bootstrap.Outputs(scored.scores, scored.alerts)}
    found = bootstrap.replicate(scored.labels, outputs, scored.cards, REPLICATES)
    return {
        name: Measured(float(found.values[_MODEL, name][0]), found.interval(name, _MODEL))
        for name in bootstrap.METRICS
    }


def realized(
    scored: Scored,
    slices: Mapping[str, NDArray[np.bool_]],
    promise: Promise,
    evaluation: Evaluation,
    budget: AlertBudget,
    has_cards: bool,
    settings: Monitoring,
) -> list[Check]:
    """How good the scores of the live version proved.

    Args:
      scored: labelled rows that it scored, [rows].
      slices: "column=value" → which of the rows it consists of, [rows].
      promise: what the Evaluator measured.
      evaluation: costs.
      budget: cards checked a day.
      has_cards: whether the data has cards.
      settings: thresholds.
    """
    few = too_few(scored)
    names = [*_OF_ALL, "brier_skill"]
    if few:
        names += ["calibration", *(["card_precision_at_budget"] if has_cards else [])]
        return [
            *(unknown(name, Kind.PERFORMANCE, few) for name in names),
            unknown("cost_saved_per_day", Kind.HARM, few),
        ]
    measured = measure(scored)
    # Promised days for each day that is judged; 1 if unknown.
    days = promise.days / len(np.unique(scored.days)) if promise.days else 1.0
    of_all = promise.metrics, promise.intervals, days, settings
    checks = [_dropped(name, measured[name], *of_all, Verdict.ACT) for name in _OF_ALL]
    checks.append(_dropped("brier_skill", measured["brier_skill"], *of_all, Verdict.WARN))
    checks.append(_calibration(scored, settings))
    checks.append(_cost(scored, evaluation))
    if has_cards:
        checks.append(_card_precision(scored, promise, budget, settings))
    for name, rows in slices.items():
        checks += _slice(name, scored.at(rows), promise, days, settings)
    return checks


def promised(
    evaluated: Scored, slices: Mapping[str, NDArray[np.bool_]], budget: AlertBudget
) -> Promise:
    """What the Evaluator would record of a model, for a replay that has none.

    Args:
      evaluated: labelled rows that it scored before it went live, [rows].
      slices: as in `realized`.
      budget: cards checked a day.
    """
    measured = measure(evaluated)
    of_slices = {name: measure(evaluated.at(rows)) for name, rows in slices.items()}
    labels, days = evaluated.labels, len(np.unique(evaluated.days))
    k = max(1, round(budget.cards(metrics.cards_a_day(evaluated.days, evaluated.cards))))
    precision = metrics.card_precision_at_k(
        labels, evaluated.scores, evaluated.days, evaluated.cards, k
    )
    counts = {
        "example_count": float(len(evaluated)),
        "true_positives": float(np.sum(evaluated.alerts & (labels == 1))),
        "false_positives": float(np.sum(evaluated.alerts & (labels == 0))),
        "card_precision_at_budget": precision,
    }
    return Promise(
        metrics={name: m.value for name, m in measured.items()} | counts,
        intervals=_intervals(measured),
        slices={name: {n: m.value for n, m in of.items()} for name, of in of_slices.items()},
        slice_intervals={name: _intervals(of) for name, of in of_slices.items()},
        score_counts=tuple(score_counts(evaluated.scores).tolist()),
        days=days,
    )


def _intervals(measured: Mapping[str, Measured]) -> Intervals:
    return {name: m.interval for name, m in measured.items() if m.interval is not None}


def too_few(scored: Scored) -> str:
    """Why rows cannot tell how good their scores are; "" if they can."""
    if not len(scored):
        return "no transaction that it scored has a label yet"
    cards = len(np.unique(scored.cards[scored.labels == 1]))
    if cards < MIN_FRAUD_CARDS:
        return f"{cards} independent frauds known; {MIN_FRAUD_CARDS} are needed"
    return ""


def _slice(
    name: str, scored: Scored, promise: Promise, days: float, settings: Monitoring
) -> list[Check]:
    named = [f"{metric}/{name}" for metric in _OF_ALL]
    if few := too_few(scored):
        return [unknown(check, Kind.PERFORMANCE, few) for check in named]
    measured = measure(scored)
    row, intervals = promise.slices.get(name, {}), promise.slice_intervals.get(name, {})
    return [
        _dropped(check, measured[metric], row, intervals, days, settings, Verdict.WARN)
        for check, metric in zip(named, _OF_ALL, strict=True)
    ]


def _dropped(
    name: str,
    measured: Measured,
    promised: Row,
    intervals: Intervals,
    days: float,
    settings: Monitoring,
    worst: Verdict,
) -> Check:
    """Whether a metric is further below its promised value than it may be, beyond chance.

    Chance is what it would be if nothing had changed, so the variance of what was measured is the
    promise's, for so many days: a score test (Rao, "Large sample tests of statistical hypotheses
    concerning several parameters", 1948). A new pattern of a few cards with many frauds each also
    raises the variance that is measured, and would hide itself.

    Args:
      name: of the check.
      measured: the metric.
      promised, intervals: what the Evaluator measured.
      days: days that it evaluated for each day that was measured.
      settings: thresholds.
      worst: the worst verdict.
    """
    metric = name.partition("/")[0]
    if math.isnan(measured.value):
        return unknown(name, Kind.PERFORMANCE, "nothing alerted, or no row has the label needed")
    expected, expected_interval = promised.get(metric), intervals.get(metric)
    if expected is None or expected_interval is None or measured.interval is None:
        why = "too few frauds for an interval"
        if expected is None or expected_interval is None:
            why = "the Evaluator's eval window had too few frauds for an interval"
        return Check(
            name,
            measured.value,
            measured.interval,
            None,
            Verdict.CANNOT_JUDGE,
            why,
            Kind.PERFORMANCE,
        )
    of_promise = deviation_of(expected_interval)
    by_chance = min(deviation_of(measured.interval), of_promise * math.sqrt(days))
    deviation = math.hypot(by_chance, of_promise)
    return judged(
        name, measured, expected - settings.max_drop, deviation, settings, worst, expected
    )


def judged(
    name: str,
    measured: Measured,
    least: float,
    deviation: float,
    settings: Monitoring,
    worst: Verdict,
    expected: float,
) -> Check:
    """The check whether a value is below the least one allowed, given its standard deviation."""
    normal = NormalDist()
    threshold = least - normal.inv_cdf(settings.act_probability) * deviation
    probability = normal.cdf((least - measured.value) / max(deviation, 1e-12))
    verdict = Verdict.OK
    if probability >= settings.act_probability:
        verdict = worst
    elif probability >= settings.warn_probability and worst is Verdict.ACT:
        verdict = Verdict.WARN
    detail = (
        f"{expected:.3f} in evaluation; probability of a drop of more than "
        f"{expected - least:.2g}: {probability:.2f}"
    )
    return Check(
        name, measured.value, measured.interval, threshold, verdict, detail, Kind.PERFORMANCE
    )


def deviation_of(interval: Interval) -> float:
    """The standard deviation of what has a 95 % interval, taken for normal."""
    return (interval[1] - interval[0]) / (2 * _Z)


def _calibration(scored: Scored, settings: Monitoring) -> Check:
    """Mean score / share of frauds, with an interval from the cards (delta method of a ratio)."""
    expected = np.bincount(scored.cards - scored.cards.min(), scored.scores)
    frauds = np.bincount(scored.cards - scored.cards.min(), scored.labels)
    value = float(expected.sum() / frauds.sum())
    spread = math.sqrt(np.sum((expected - value * frauds) ** 2)) / frauds.sum()
    interval = (max(0.0, value - _Z * spread), value + _Z * spread)
    error = metrics.expected_calibration_error(scored.labels, scored.scores.astype(np.float64))
    detail = f"mean score / share of frauds; expected calibration error {error:.4f}"
    verdict = _outside(interval, value, 1.0, settings.max_miscalibration)
    return Check(
        "calibration",
        value,
        interval,
        settings.max_miscalibration,
        verdict,
        detail,
        Kind.PERFORMANCE,
    )


def _outside(interval: Interval, value: float, expected: float, factor: float) -> Verdict:
    """Whether a ratio is more than a factor away from what it should be."""
    low, high = expected / factor, expected * factor
    if interval[0] > high or interval[1] < low:
        return Verdict.ACT
    return Verdict.OK if low <= value <= high else Verdict.WARN


def _cost(scored: Scored, evaluation: Evaluation) -> Check:
    """What acting on the alerts saved a day; to act if it certainly costs more than it saves."""
    days = len(np.unique(scored.days))
    value = cost_saved(scored, evaluation) / days
    frauds = scored.alerts & (scored.labels == 1)
    saved = evaluation.saved_share * np.bincount(
        scored.cards - scored.cards.min(), np.nan_to_num(scored.amounts) * frauds
    )
    checked = np.unique(np.stack([scored.days[scored.alerts], scored.cards[scored.alerts]]), axis=1)
    checks = np.bincount(checked[1] - scored.cards.min(), minlength=len(saved))
    by_card = saved - evaluation.check_cost * checks
    cards = len(np.unique(scored.cards))
    spread = math.sqrt(np.sum(by_card**2) - by_card.sum() ** 2 / cards) / days
    interval = (value - _Z * spread, value + _Z * spread)
    verdict = Verdict.OK
    if value < 0:
        verdict = Verdict.ACT if interval[1] < 0 else Verdict.WARN
    detail = "what alerts save, less what checking them costs"
    return Check("cost_saved_per_day", value, interval, 0.0, verdict, detail, Kind.HARM)


def cost_saved(scored: Scored, evaluation: Evaluation) -> float:
    """What acting on the alerts of labelled rows saved; see `metrics.expected_cost_saved`."""
    return metrics.expected_cost_saved(
        scored.labels,
        scored.alerts,
        scored.amounts,
        scored.days,
        scored.cards,
        evaluation.check_cost,
        evaluation.saved_share,
    )


def _card_precision(
    scored: Scored, promise: Promise, budget: AlertBudget, settings: Monitoring
) -> Check:
    """Card Precision@k; a card counts at most once, so that checks are nearly independent."""
    days = len(np.unique(scored.days))
    k = max(1, round(budget.cards(metrics.cards_a_day(scored.days, scored.cards))))
    value = metrics.card_precision_at_k(scored.labels, scored.scores, scored.days, scored.cards, k)
    measured = Measured(value, wilson(value, k * days))
    names = (name for name in promise.metrics if name.startswith("card_precision_at_"))
    expected = promise.metrics.get(next(names, ""))
    name = "card_precision_at_budget"
    if expected is None or not promise.days:
        why = "the Evaluator did not measure it"
        return Check(
            name, value, measured.interval, None, Verdict.CANNOT_JUDGE, why, Kind.PERFORMANCE
        )
    assert measured.interval is not None
    deviation = math.hypot(
        deviation_of(measured.interval), deviation_of(wilson(expected, k * promise.days))
    )
    least = expected - settings.max_drop
    return judged(name, measured, least, deviation, settings, Verdict.ACT, expected)


def wilson(share: float, n: int) -> Interval:
    """The 95 % interval of a share of n independent trials.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", Journal
    of the American Statistical Association 22 (1927).
    """
    z2 = _Z * _Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return middle - half, middle + half


def score_checks(scored: Scored, promise: Promise, settings: Monitoring) -> list[Check]:
    """Whether scores and alerts are distributed as they were in evaluation.

    Args:
      scored: rows of the recent days that the live version scored.
      promise: what the Evaluator measured.
      settings: thresholds.
    """
    names = ("score_distribution", "alert_rate")
    if len(scored) < settings.min_rows:
        why = f"it scored {len(scored)} transactions; {settings.min_rows} are needed"
        return [unknown(name, Kind.SCORES, why) for name in names]
    return [_distribution(scored, promise, settings), _alert_rate(scored, promise, settings)]


def _distribution(scored: Scored, promise: Promise, settings: Monitoring) -> Check:
    before = np.array(promise.score_counts, np.float64)
    if not before.sum():
        why = "the Evaluator's scores are not recorded"
        return unknown("score_distribution", Kind.SCORES, why)
    now = score_counts(scored.scores).astype(np.float64)
    p, q = now / now.sum(), before / before.sum()
    value, threshold = jensen_shannon(p, q), settings.max_divergence
    verdict = Verdict.OK
    if value > 0.4 * threshold:
        verdict = Verdict.ACT if value > threshold else Verdict.WARN
    worst = int(np.argmax(np.abs(p - q)))
    low, high = curves.EDGES[worst], curves.EDGES[worst + 1]
    detail = f"scores from {low:g} to {high:g}: {q[worst]:.1%} in evaluation, {p[worst]:.1%} now"
    return Check("score_distribution", value, None, threshold, verdict, detail, Kind.SCORES)


def score_counts(scores: NDArray) -> NDArray[np.int64]:
    """Scores by bin of `curves.EDGES`, [bins]."""
    bins = len(curves.EDGES) - 1
    index = np.searchsorted(curves.EDGES, scores.astype(np.float64), "right") - 1
    return np.bincount(np.clip(index, 0, bins - 1), minlength=bins)


def _alert_rate(scored: Scored, promise: Promise, settings: Monitoring) -> Check:
    value = float(scored.alerts.mean())
    cards = scored.cards - scored.cards.min()
    alerts, rows = np.bincount(cards, scored.alerts), np.bincount(cards)
    spread = math.sqrt(np.sum((alerts - value * rows) ** 2)) / len(scored)
    interval = (max(0.0, value - _Z * spread), value + _Z * spread)
    counts = [promise.metrics.get(name) for name in ("true_positives", "false_positives")]
    examples = promise.metrics.get("example_count")
    alerted = sum(count or 0.0 for count in counts)
    if not examples or None in counts or not alerted:
        why = "in evaluation nothing alerted, or it was not counted"
        return Check("alert_rate", value, interval, None, Verdict.CANNOT_JUDGE, why, Kind.SCORES)
    expected = alerted / examples
    verdict = _outside(interval, value, expected, settings.max_alert_factor)
    threshold = expected * settings.max_alert_factor
    detail = f"{expected:.3%} in evaluation"
    return Check("alert_rate", value, interval, threshold, verdict, detail, Kind.SCORES)


def expected_confusion(scores: NDArray, alerts: NDArray[np.bool_]) -> dict[str, float]:
    """The metrics that scores promise if they are probabilities; NaN without a denominator.

    Args:
      scores: float [n].
      alerts: bool [n].
    """
    probable = scores.astype(np.float64)
    frauds, caught = probable.sum(), probable[alerts].sum()
    order = np.argsort(-probable, kind="stable")
    ordered = probable[order]
    ends = np.flatnonzero(np.diff(ordered, append=-1.0))  # the last of equal scores
    found = np.cumsum(ordered)[ends]
    average = np.sum(np.diff(found, prepend=0.0) * found / (ends + 1))
    return {
        "average_precision": float(average / frauds) if frauds else math.nan,
        "precision_at_budget": float(caught / alerts.sum()) if alerts.any() else math.nan,
        "recall_at_budget": float(caught / frauds) if frauds else math.nan,
    }


def estimated(
    scored: Scored, labelled: Scored, promise: Promise, settings: Monitoring
) -> list[Check]:
    """How good the scores probably are where labels are not known yet.

    Args:
      scored: rows without labels that the live version scored.
      labelled: rows with labels that it scored.
      promise: what the Evaluator measured.
      settings: thresholds.
    """
    errors, checks = estimate_errors(labelled), []
    estimates = expected_confusion(scored.scores, scored.alerts)
    expecting = float(scored.scores.sum())
    intervals = _simulated(scored) if expecting >= MIN_FRAUD_CARDS else {}
    for metric in _ESTIMATED:
        name = f"estimated_{metric}"
        error = _estimate_error(metric, errors.get(metric), labelled, settings)
        checks.append(error)
        if not intervals:
            why = f"about {expecting:.0f} frauds expected; {MIN_FRAUD_CARDS} are needed"
            checks.append(unknown(name, Kind.ESTIMATE, why))
            continue
        value = estimates[metric]
        if math.isnan(value):
            checks.append(unknown(name, Kind.ESTIMATE, "nothing alerted"))
            continue
        interval, expected = intervals[metric], promise.metrics.get(metric)
        verdict, detail, least = Verdict.OK, "", None
        if expected is None:
            verdict, detail = Verdict.CANNOT_JUDGE, "the Evaluator did not measure it"
        elif error.verdict is Verdict.WARN:
            verdict = Verdict.CANNOT_JUDGE
            detail = f"where labels have arrived, the estimate was off by {error.value:+.3f}"
        else:
            least, detail = expected - settings.max_drop, f"{expected:.3f} in evaluation"
            verdict = Verdict.WARN if interval[1] < least else Verdict.OK
        checks.append(Check(name, value, interval, least, verdict, detail, Kind.ESTIMATE))
    return checks


def estimate_errors(labelled: Scored) -> dict[str, Measured]:
    """The estimate − what labels say, by metric; empty where these cannot tell."""
    if too_few(labelled):
        return {}
    estimates, proved = expected_confusion(labelled.scores, labelled.alerts), measure(labelled)
    errors = {}
    for name in _ESTIMATED:
        if not math.isnan(error := estimates[name] - proved[name].value):
            of = proved[name].interval
            interval = (estimates[name] - of[1], estimates[name] - of[0]) if of else None
            errors[name] = Measured(error, interval)
    return errors


def of_labels(labels: NDArray, scores: NDArray, alerts: NDArray[np.bool_]) -> dict[str, float]:
    """The metrics that are also estimated, by labels; NaN where one is undefined."""
    if not len(labels):
        return dict.fromkeys(_ESTIMATED, math.nan)
    return {
        "average_precision": metrics.average_precision(labels, scores),
        "precision_at_budget": metrics.precision_at_budget(labels, alerts),
        "recall_at_budget": metrics.recall_at_budget(labels, alerts),
    }


def _estimate_error(
    metric: str, error: Measured | None, labelled: Scored, settings: Monitoring
) -> Check:
    name = f"estimate_error/{metric}"
    if error is None:
        return unknown(name, Kind.ESTIMATE, too_few(labelled) or "nothing alerted")
    limit, of = settings.max_estimate_error, error.interval
    by_chance = of is None or of[0] <= 0 <= of[1]
    verdict = Verdict.WARN if abs(error.value) > limit and not by_chance else Verdict.OK
    detail = "estimate − what labels then said, on the days whose labels are known"
    return Check(name, error.value, of, limit, verdict, detail, Kind.ESTIMATE)


def _simulated(scored: Scored) -> dict[str, Interval]:
    """95 % intervals of the metrics if labels are drawn independently with the scores' odds."""
    random = np.random.default_rng(0)
    probable = scored.scores.astype(np.float64)
    order = np.argsort(-probable, kind="stable")
    probable, alerts = probable[order], scored.alerts[order]
    ends = np.flatnonzero(np.diff(probable, append=-1.0))  # the last of equal scores
    values = np.full((SIMULATIONS, len(_ESTIMATED)), np.nan)
    for row in values:
        drawn = random.random(len(probable)) < probable
        found = np.cumsum(drawn)[ends]
        if not found[-1]:
            continue
        average = np.sum(np.diff(found, prepend=0) * found / (ends + 1)) / found[-1]
        caught = drawn[alerts].sum()
        row[:] = average, caught / max(alerts.sum(), 1), caught / found[-1]
    limits = np.nanquantile(values, [0.025, 0.975], axis=0)
    return {
        name: (float(low), float(high)) for name, low, high in zip(_ESTIMATED, *limits, strict=True)
    }

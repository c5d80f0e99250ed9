"""All feature families, one function each.

A family is a function of an entity's `History` and a window in days. It returns one number per
query: a row of the history, or one to come. The formulas use: t, the time of the query, which they
call the row; w, the window; "past", the rows of the same entity in (t - w, t); "known", its earlier
rows whose labels became known in (t - w, t], in the order in which they did. Every formula ignores
missing amounts.

"Handbook" is Le Borgne et al., *Reproducible Machine Learning for Credit Card Fraud Detection -
Practical Handbook*, chapter 3, section 4. Relating an amount to the card's own history follows
Bahnsen et al., "Feature engineering strategies for credit card fraud detection", Expert Systems
with Applications 51 (2016).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fraud.features.history import UNIT, History
from fraud.features.spans import Floats


@dataclass(frozen=True)
class Family:
    """A feature family.

    Attributes:
      kind: "entity" reads no labels, "risk" reads known labels.
      compute: (history, window in days, **parameters) -> values, [queries].
      needs_amount: whether to omit the family if the dataset has no amount.
      parameters: the fields of `Features` to pass to `compute` by keyword.
    """

    kind: Literal["entity", "risk"]
    compute: Callable[..., NDArray]
    needs_amount: bool
    parameters: tuple[str, ...]


FAMILIES: dict[str, Family] = {}
CALENDAR: dict[str, Callable[[NDArray[np.datetime64]], NDArray]] = {}


def _family(kind: Literal["entity", "risk"], needs_amount: bool = False) -> Callable:
    """Registers the decorated function under its name without a trailing underscore."""

    def register(compute: Callable[..., NDArray]) -> Callable[..., NDArray]:
        parameters = tuple(
            name
            for name, parameter in inspect.signature(compute).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        )
        FAMILIES[compute.__name__.rstrip("_")] = Family(kind, compute, needs_amount, parameters)
        return compute

    return register


def _calendar(compute: Callable[[NDArray], NDArray]) -> Callable[[NDArray], NDArray]:
    """Registers the decorated function under its name."""
    CALENDAR[compute.__name__] = compute
    return compute


def _ratio(numerator: NDArray, denominator: NDArray) -> Floats:
    """Numerator / denominator, NaN where the denominator is not positive."""
    quotient = np.full(len(numerator), np.nan)
    return np.divide(numerator, denominator, out=quotient, where=denominator > 0)


# Calendar families: functions of the timestamp alone.


@_calendar
def hour(timestamps: NDArray[np.datetime64]) -> Floats:
    """Hours since midnight, with fractions, in [0, 24)."""
    return (timestamps - timestamps.astype("datetime64[D]")) / np.timedelta64(1, "h")


@_calendar
def weekday(timestamps: NDArray[np.datetime64]) -> NDArray:
    """0 on Monday, 6 on Sunday."""
    days = timestamps.astype("datetime64[D]").astype(np.int64)
    return (days + 3) % 7  # 1970-01-01 was a Thursday


@_calendar
def weekend(timestamps: NDArray[np.datetime64]) -> NDArray:
    """1 on Saturday and Sunday, else 0 (handbook: TX_DURING_WEEKEND)."""
    return weekday(timestamps) >= 5


@_calendar
def night(timestamps: NDArray[np.datetime64]) -> NDArray:
    """1 from 00:00 and before 07:00, else 0 (handbook: TX_DURING_NIGHT, hour <= 6)."""
    return hour(timestamps) < 7


# Entity families: functions of the past, without labels. As in the handbook, count, sum and mean
# include the row itself; the others describe the past or relate the row to it.


@_family("entity")
def count(history: History, window: int) -> NDArray:
    """|past| + 1 (handbook: CUSTOMER_ID_NB_TX_wDAY_WINDOW)."""
    return history.past(window).count + 1


@_family("entity", needs_amount=True)
def sum_(history: History, window: int) -> NDArray:
    """Sum of the amounts of the past and the row itself."""
    return (history.total_units.over(history.past(window)) + history.units) * UNIT


@_family("entity", needs_amount=True)
def mean(history: History, window: int) -> Floats:
    """Mean amount of the past and the row itself (handbook: ..._AVG_AMOUNT_wDAY_WINDOW)."""
    amounts = history.total_amounts.over(history.past(window)) + history.has_amount
    return _ratio(sum_(history, window), amounts)


@_family("entity", needs_amount=True)
def std(history: History, window: int) -> Floats:
    """Standard deviation of the amounts of the past; NaN for fewer than 2.

    sqrt(sum (amount - mean)^2 / (n - 1)).
    """
    past = history.past(window)
    freedom = history.total_amounts.over(past) - 1
    return np.sqrt(_ratio(history.squared_deviations(past), freedom)) * UNIT


@_family("entity", needs_amount=True)
def max_(history: History, window: int) -> Floats:
    """Largest amount of the past."""
    past = history.past(window)
    return history.order_statistics.smallest(history.total_amounts.over(past) - 1, past)


@_family("entity", needs_amount=True)
def median(history: History, window: int) -> Floats:
    """Median amount of the past; the lower of the two middle ones for an even number."""
    past = history.past(window)
    middle = (history.total_amounts.over(past) - 1) // 2
    return history.cached(
        ("median", window), lambda: history.order_statistics.smallest(middle, past)
    )


@_family("entity")
def since_last(history: History, window: int) -> Floats:
    """Days since the latest row of the past; NaN if the past is empty."""
    past = history.past(window)
    return history.days_since(history.time, past.last - 1, past.count > 0)


@_family("entity", needs_amount=True)
def amount_to_mean(history: History, window: int) -> Floats:
    """Amount / mean amount of the past; NaN unless the latter is positive."""
    past = history.past(window)
    amounts = history.total_amounts.over(past)
    return _ratio(history.amount, _ratio(history.total_units.over(past) * UNIT, amounts))


@_family("entity", needs_amount=True)
def amount_to_median(history: History, window: int) -> Floats:
    """Amount / `median`; NaN unless the latter is positive."""
    return _ratio(history.amount, median(history, window))


@_family("entity", needs_amount=True)
def amount_to_max(history: History, window: int) -> Floats:
    """Amount / `max`; NaN unless the latter is positive."""
    return _ratio(history.amount, max_(history, window))


@_family("entity", needs_amount=True)
def amount_z(history: History, window: int) -> Floats:
    """(amount - mean amount of the past) / `std`; NaN unless the latter is positive."""
    past = history.past(window)
    amounts = np.maximum(history.total_amounts.over(past), 1)
    mean_before = history.total_units.over(past) * UNIT / amounts
    return _ratio(history.amount - mean_before, std(history, window))


@_family("entity", needs_amount=True)
def high_count(history: History, window: int, *, normal_days: int, high_multiple: float) -> NDArray:
    """Number of amounts in the past above high_multiple x the `median` over normal_days.

    The median is the one at t; the count is 0 where there is none.
    """
    past = history.past(window)
    normal = median(history, normal_days)
    rank = history.cached(("high",), lambda: history.order_statistics.rank(high_multiple * normal))
    high = history.total_amounts.over(past) - history.order_statistics.count_below(rank, past)
    return np.where(np.isnan(normal), 0, high)


# Risk families: functions of the known labels of the past.


@_family("risk")
def known_count(history: History, window: int) -> NDArray:
    """|known| (handbook: TERMINAL_ID_NB_TX_wDAY_WINDOW)."""
    return history.known(window).count


@_family("risk")
def fraud_count(history: History, window: int) -> NDArray:
    """Number of frauds in known."""
    return history.total_frauds.over(history.known(window))


@_family("risk")
def risk(history: History, window: int) -> Floats:
    """Frauds in known / |known|, 0 if |known| is 0 (handbook: TERMINAL_ID_RISK_...)."""
    known = history.known(window)
    return history.total_frauds.over(known) / np.maximum(known.count, 1)


@_family("risk")
def smoothed_risk(
    history: History, window: int, *, prior_risk: float, prior_count: float
) -> Floats:
    """(frauds in known + prior_risk x prior_count) / (|known| + prior_count).

    The posterior mean of a Beta prior worth prior_count labels with a fraud share of prior_risk:
    one fraud in one known label is weaker evidence than ten in ten.
    """
    known = history.known(window)
    frauds = history.total_frauds.over(known)
    return (frauds + prior_risk * prior_count) / (known.count + prior_count)


@_family("risk", needs_amount=True)
def fraud_amount(history: History, window: int) -> Floats:
    """Mean amount of the frauds in known; NaN if there are none.

    Distinguishes a compromised entity, whose frauds have any amount, from one where a stolen card
    was used for a large payment.
    """
    known = history.known(window)
    return _ratio(
        history.total_fraud_units.over(known) * UNIT, history.total_fraud_amounts.over(known)
    )


@_family("risk")
def since_fraud(history: History, window: int) -> Floats:
    """Days since the latest fraud in known; NaN if there is none."""
    known = history.known(window)
    fraud = history.last_fraud[known.last]
    return history.days_since(history.labelled_time, fraud, fraud >= known.first)


@_family("risk")
def fraud_streak(history: History, window: int) -> NDArray:
    """Length of the unbroken run of frauds at the end of known."""
    known = history.known(window)
    return known.last - np.maximum(history.last_genuine[known.last] + 1, known.first)


@_family("risk")
def streak_age(history: History, window: int) -> Floats:
    """Days since the first fraud of `fraud_streak`; NaN if the streak is 0."""
    known = history.known(window)
    streak = fraud_streak(history, window)
    return history.days_since(history.labelled_time, known.last - streak, streak > 0)


@_family("risk")
def last_labels(history: History, window: int) -> Floats:
    """The latest known labels as a binary fraction: sum of label_i / 2^i, i = 1 ... 16.

    label_1 is the latest known label, label_2 the one before it, and so on; NaN if none is known.
    Each combination of the latest labels thus maps to an interval of its own.
    """
    known = history.known(window)
    unused = 16 - np.minimum(known.count, 16)
    bits = history.latest_frauds[known.last] >> unused << unused
    return np.where(known.count > 0, bits / 2.0**16, np.nan)

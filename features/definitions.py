"""Every feature family, one function each.

A family is a function of the past of an entity (`History`) and a window in days; it returns one
number per row, in the order of the sorted history. Formulas use: t, the row's time; w, the
window; d, the label delay; "past", the rows of the same entity in (t - w, t); "known", those in
(t - d - w, t - d] that have a label. Missing amounts are left out of every formula.

"Handbook" is Le Borgne et al., *Reproducible Machine Learning for Credit Card Fraud Detection -
Practical Handbook*, chapter 3, section 4. Relating an amount to the card's own history is after
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

from fraud.features.history import UNIT, Floats, History


@dataclass(frozen=True)
class Family:
    """A feature family.

    Attributes:
      kind: "entity" reads no label, "risk" reads known labels.
      compute: (history, window in days, its parameters) -> values, [rows].
      needs_amount: left out where the dataset has no amount.
      parameters: the fields of `Features` that it is given by keyword.
    """

    kind: Literal["entity", "risk"]
    compute: Callable[..., NDArray]
    needs_amount: bool
    parameters: tuple[str, ...]


FAMILIES: dict[str, Family] = {}
CALENDAR: dict[str, Callable[[NDArray[np.datetime64]], NDArray]] = {}


def _family(kind: Literal["entity", "risk"], needs_amount: bool = False) -> Callable:
    """Registers the decorated function under its own name, less a trailing underscore."""

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
    """Registers the decorated function under its own name."""
    CALENDAR[compute.__name__] = compute
    return compute


def _ratio(numerator: NDArray, denominator: NDArray) -> Floats:
    """Their quotient, NaN where the denominator is not above 0."""
    quotient = np.full(len(numerator), np.nan)
    return np.divide(numerator, denominator, out=quotient, where=denominator > 0)


# Calendar: what is read off the timestamp.


@_calendar
def hour(timestamps: NDArray[np.datetime64]) -> Floats:
    """Hours since midnight, with fraction, in [0, 24)."""
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
    """1 from 00:00 until before 07:00, else 0 (handbook: TX_DURING_NIGHT, hour <= 6)."""
    return hour(timestamps) < 7


# Entity: the past without labels. Count, sum and mean include the row itself, as the handbook's;
# the others say how the row relates to what was before it.


@_family("entity")
def count(history: History, window: int) -> NDArray:
    """|past| + 1 (handbook: CUSTOMER_ID_NB_TX_wDAY_WINDOW)."""
    return history.past(window).count + 1


@_family("entity", needs_amount=True)
def sum_(history: History, window: int) -> NDArray:
    """Sum of the amounts of the past and of the row itself."""
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
    return history.ranks.smallest(history.total_amounts.over(past) - 1, past)


@_family("entity", needs_amount=True)
def median(history: History, window: int) -> Floats:
    """Median amount of the past; of an even number the lower one."""
    past = history.past(window)
    middle = (history.total_amounts.over(past) - 1) // 2
    return history.once(("median", window), lambda: history.ranks.smallest(middle, past))


@_family("entity")
def since_last(history: History, window: int) -> Floats:
    """Days since the latest row of the past; NaN if the past is empty."""
    past = history.past(window)
    return history.days_since(history.time, past.last - 1, past.count > 0)


@_family("entity", needs_amount=True)
def amount_to_mean(history: History, window: int) -> Floats:
    """Amount / mean amount of the past; NaN unless that is above 0."""
    past = history.past(window)
    amounts = history.total_amounts.over(past)
    return _ratio(history.amount, _ratio(history.total_units.over(past) * UNIT, amounts))


@_family("entity", needs_amount=True)
def amount_to_median(history: History, window: int) -> Floats:
    """Amount / `median`; NaN unless that is above 0."""
    return _ratio(history.amount, median(history, window))


@_family("entity", needs_amount=True)
def amount_to_max(history: History, window: int) -> Floats:
    """Amount / `max`; NaN unless that is above 0."""
    return _ratio(history.amount, max_(history, window))


@_family("entity", needs_amount=True)
def amount_z(history: History, window: int) -> Floats:
    """(amount - mean amount of the past) / `std`; NaN unless that is above 0."""
    past = history.past(window)
    amounts = np.maximum(history.total_amounts.over(past), 1)
    mean_before = history.total_units.over(past) * UNIT / amounts
    return _ratio(history.amount - mean_before, std(history, window))


@_family("entity", needs_amount=True)
def high_count(history: History, window: int, *, normal_days: int, high_multiple: float) -> NDArray:
    """How many amounts of the past are high: above high_multiple x `median` of normal_days.

    What is high is judged by what is normal at t, and nothing is where that is unknown.
    """
    past = history.past(window)
    normal = median(history, normal_days)
    rank = history.once(("high",), lambda: history.ranks.rank(high_multiple * normal))
    high = history.total_amounts.over(past) - history.ranks.ranked_below(rank, past)
    return np.where(np.isnan(normal), 0, high)


# Risk: known labels of the past.


@_family("risk")
def known_count(history: History, window: int) -> NDArray:
    """|known| (handbook: TERMINAL_ID_NB_TX_wDAY_WINDOW)."""
    return history.known(window).count


@_family("risk")
def fraud_count(history: History, window: int) -> NDArray:
    """Frauds among known."""
    return history.total_frauds.over(history.known(window))


@_family("risk")
def risk(history: History, window: int) -> Floats:
    """Frauds among known / |known|, 0 where none is known (handbook: TERMINAL_ID_RISK_...)."""
    known = history.known(window)
    return history.total_frauds.over(known) / np.maximum(known.count, 1)


@_family("risk")
def smoothed_risk(
    history: History, window: int, *, prior_risk: float, prior_count: float
) -> Floats:
    """(frauds among known + prior_risk x prior_count) / (|known| + prior_count).

    The mean of a Beta distribution that begins with prior_count labels of risk prior_risk: one
    fraud among one known label says less than ten among ten.
    """
    known = history.known(window)
    frauds = history.total_frauds.over(known)
    return (frauds + prior_risk * prior_count) / (known.count + prior_count)


@_family("risk", needs_amount=True)
def fraud_amount(history: History, window: int) -> Floats:
    """Mean amount of the frauds among known; NaN if there are none.

    Tells an entity that is itself corrupt, whose frauds are of any amount, from one where a stolen
    card was used for a large one.
    """
    known = history.known(window)
    return _ratio(
        history.total_fraud_units.over(known) * UNIT, history.total_fraud_amounts.over(known)
    )


@_family("risk")
def since_fraud(history: History, window: int) -> Floats:
    """Days since the latest fraud among known; NaN if there is none."""
    known = history.known(window)
    fraud = history.last_fraud[known.last]
    return history.days_since(history.labelled_time, fraud, fraud >= known.first)


@_family("risk")
def fraud_streak(history: History, window: int) -> NDArray:
    """How many of the latest known labels are fraud without a genuine one between."""
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
    """The latest known labels in one number, 1/2 for the latest, 1/4 for the one before, ...

    sum over the i-th latest known label of label_i / 2^i, i = 1 ... 16; NaN if none is known. So
    every combination of the latest labels is an interval of its own.
    """
    known = history.known(window)
    value = np.where(known.count > 0, 0.0, np.nan)
    for i in range(1, 17):
        among = known.count >= i
        value[among] += history.fraud[known.last[among] - i] / 2.0**i
    return value

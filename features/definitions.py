"""Every feature family, one function each.

A family is a function of the past of an entity (`History`) and a window in days; it returns one
number per row, in the order of the sorted history. Formulas use: t, the row's time; w, the
window; d, the label delay; "past", the rows of the same entity in (t - w, t); "known", those in
(t - d - w, t - d] whose label is known.

The base families are those of Le Borgne et al., *Reproducible Machine Learning for Credit Card
Fraud Detection - Practical Handbook*, chapter 3, section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from features.history import UNIT, Floats, History


@dataclass(frozen=True)
class Family:
    """A feature family.

    Attributes:
      kind: "entity" reads no label, "risk" reads known labels.
      compute: (history, window in days) → values, [rows].
      needs_amount: left out where the dataset has no amount.
    """

    kind: Literal["entity", "risk"]
    compute: Callable[[History, int], NDArray]
    needs_amount: bool = False


FAMILIES: dict[str, Family] = {}
CALENDAR: dict[str, Callable[[NDArray[np.datetime64]], NDArray]] = {}


def _family(kind: Literal["entity", "risk"], needs_amount: bool = False) -> Callable:
    """Registers the decorated function under its own name, less a trailing underscore."""

    def register(compute: Callable[[History, int], NDArray]) -> Callable[[History, int], NDArray]:
        FAMILIES[compute.__name__.rstrip("_")] = Family(kind, compute, needs_amount)
        return compute

    return register


def _calendar(compute: Callable[[NDArray], NDArray]) -> Callable[[NDArray], NDArray]:
    """Registers the decorated function under its own name."""
    CALENDAR[compute.__name__] = compute
    return compute


# Calendar: what is read off the timestamp.


@_calendar
def weekend(timestamps: NDArray[np.datetime64]) -> NDArray:
    """1 on Saturday and Sunday, else 0 (handbook: TX_DURING_WEEKEND)."""
    days = timestamps.astype("datetime64[D]").astype(np.int64)
    return (days + 3) % 7 >= 5  # 1970-01-01 was a Thursday


@_calendar
def night(timestamps: NDArray[np.datetime64]) -> NDArray:
    """1 from 00:00 until before 07:00, else 0 (handbook: TX_DURING_NIGHT, hour ≤ 6)."""
    hours = timestamps.astype("datetime64[h]").astype(np.int64)
    return hours % 24 <= 6


# Entity: the past without labels. Count, sum and mean include the row itself, as the handbook's.


@_family("entity")
def count(history: History, window: int) -> NDArray:
    """|past| + 1 (handbook: CUSTOMER_ID_NB_TX_wDAY_WINDOW)."""
    return history.before(window).count + 1


@_family("entity", needs_amount=True)
def sum_(history: History, window: int) -> Floats:
    """Σ amount over the past and the row itself; missing amounts count as 0."""
    return (history.total("units", history.before(window)) + history.units) * UNIT


@_family("entity", needs_amount=True)
def mean(history: History, window: int) -> Floats:
    """Mean amount over the past and the row itself (handbook: …_AVG_AMOUNT_wDAY_WINDOW).

    Missing amounts are left out; NaN where all are missing."""
    amounts = history.total("has_amount", history.before(window)) + history.has_amount
    return np.divide(
        sum_(history, window), amounts, out=np.full(len(amounts), np.nan), where=amounts > 0
    )


# Risk: known labels of the past.


@_family("risk")
def known_count(history: History, window: int) -> NDArray:
    """|known| (handbook: TERMINAL_ID_NB_TX_wDAY_WINDOW)."""
    return history.total("labels", history.known(window))


@_family("risk")
def risk(history: History, window: int) -> Floats:
    """Frauds among known / |known|, 0 where nothing is known (handbook: TERMINAL_ID_RISK_…)."""
    known = history.known(window)
    return history.total("frauds", known) / np.maximum(history.total("labels", known), 1)

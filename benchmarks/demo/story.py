"""What happens to the simulated bank: 120 days with five events, from the project's own simulator.

The simulator draws the bank, the purchases and the frauds. Two of the events are its own drifts;
the others change one column of what it draws. They begin up to six days later in some banks than in
others, by the seed, so that no fixed schedule of trainings is lucky everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fraud.data.simulator import CHANNELS, CONTACTLESS, ONLINE, simulate
from fraud.data.spec import Drift, Simulation

if TYPE_CHECKING:
    import pyarrow as pa

DAYS = 120
"""Days of production that are replayed."""
HISTORY = 81
"""Days before them: 30 that features look back on, and what a first model needs, 51."""
START = date(2026, 1, 1)
FIRST = START + timedelta(days=HISTORY)
"""The first day of production; the first model is trained as of the day before."""
SHIFT = 1.6
"""Factor of the amounts after the shift."""
STOLEN = 15.0
"""Factor of the amounts of the new fraud: the simulator's cards are only tested, with up to 10."""
MOVES_A_DAY = 0.02
"""Share of the contactless payments that move online each day of the slow drift, up to `MOST`."""
MOST = 0.8


@dataclass(frozen=True)
class Event:
    """Something that happens, or a period in which nothing does.

    Attributes:
      name: a short name.
      told: what happens, as a sentence.
      first: the first day.
      last: the last day; that of the history if it lasts.
      checks: the names of the checks that can detect it, or their beginnings.
      bound: days from the first day until one of them must have asked for action.
      why: why not sooner.
      is_learnt: whether a model should be trained on it.
    """

    name: str
    told: str
    first: date
    last: date
    checks: tuple[str, ...] = ()
    bound: int = 0
    why: str = ""
    is_learnt: bool = False


NIGHTLY = 4
"""The simulator's number of the new fraud."""
NEW_FRAUD, BROKEN, QUIET, SHIFTED, SLOW = (
    "new fraud",
    "broken column",
    "quiet period",
    "shifted amounts",
    "slow drift",
)
PERFORMANCE = (
    *("average_precision", "precision_at_budget", "recall_at_budget", "calibration"),
    *("average_precision/recent versions", "recall_at_budget/recent versions"),
    "promised_average_precision/recent versions",
)


def events(seed: int) -> tuple[Event, ...]:
    """What happens to the bank of a seed, in order."""
    last = FIRST + timedelta(days=DAYS - 1)
    late = np.random.default_rng([seed, 14]).integers(0, 7, 4)

    def day(number: int) -> date:
        return FIRST + timedelta(days=int(number))

    new, lost, shifted, slow = day(8 + late[0]), day(40 + late[1]), day(66 + late[2]), day(76)
    slow += timedelta(days=int(late[3]))
    return (
        Event(
            NEW_FRAUD,
            "Stolen cards buy online at night, ten times each, for up to 150.",
            new,
            last,
            (*PERFORMANCE, "card_precision_at_budget", "score_distribution", "alert_rate"),
            14,
            "7 days until labels arrive, 7 that are judged together",
            True,
        ),
        Event(
            BROKEN,
            "For four days, COUNTRY arrives empty in half of the rows and as ?? in the others.",
            lost,
            lost + timedelta(days=3),
            ("data/COUNTRY",),
            0,
            "the day itself is looked at",
        ),
        Event(
            QUIET,
            "Nothing changes.",
            lost + timedelta(days=4),
            shifted - timedelta(days=1),
        ),
        Event(
            SHIFTED,
            f"All amounts are {SHIFT} times as large from one day to the next.",
            shifted,
            last,
            ("drift/TX_AMOUNT",),
            7,
            "7 days of input are judged together",
            True,
        ),
        Event(
            SLOW,
            "Contactless payments move online, 2 % of them more each day.",
            slow,
            last,
            ("drift/CHANNEL",),
            20,
            "13 days until a tenth of the payments have moved, and 7 that are judged together",
            True,
        ),
    )


def simulated(
    seed: int, customers: int, days: int, happening: Sequence[Event]
) -> Iterator[tuple[date, pa.Table]]:
    """Yields each day of history and production with its transactions.

    Args:
      seed: of the bank.
      customers: how many; there are twice as many terminals.
      days: from `START` on.
      happening: see `events`; what is not in it does not happen.
    """
    by_name = {event.name: event for event in happening}
    last = START + timedelta(days=days - 1)
    new = by_name.get(NEW_FRAUD)
    drifts = (Drift("new_fraud", new.first),) if new and new.first <= last else ()
    bank = Simulation(days, customers, 2 * customers, START, seed, drift=drifts)
    of_days: Iterator[tuple[date, pa.Table]] = simulate(bank)
    lost = by_name.get(BROKEN)
    if lost and lost.first <= last:
        broken = replace(bank, drift=(*drifts, Drift("broken_column", lost.first)))
        of_days = (
            (day, bad if lost.first <= day <= lost.last else good)
            for (day, good), (_, bad) in zip(of_days, simulate(broken), strict=True)
        )
    for day, table in of_days:
        if new and day >= new.first:
            is_new = table["TX_FRAUD_SCENARIO"].to_numpy() == NIGHTLY
            table = scaled(table, np.where(is_new, STOLEN, 1.0))
        if (shifted := by_name.get(SHIFTED)) and day >= shifted.first:
            table = scaled(table, SHIFT)
        if (slow := by_name.get(SLOW)) and day >= slow.first:
            share = min(MOST, MOVES_A_DAY * ((day - slow.first).days + 1))
            table = moved_online(table, share, np.random.default_rng([seed, day.toordinal()]))
        yield day, table


def scaled(table: pa.Table, factor: float | NDArray[np.float64]) -> pa.Table:
    """The transactions with amounts times a factor, of all or of each."""
    import pyarrow as pa

    amounts = (table["TX_AMOUNT"].to_numpy() * factor).round(2)
    return _with(table, "TX_AMOUNT", pa.array(amounts))


def moved_online(table: pa.Table, share: float, random: np.random.Generator) -> pa.Table:
    """The transactions with a share of the contactless payments made online instead."""
    import pyarrow as pa
    import pyarrow.compute as pc

    moves = pc.and_(
        pc.equal(table["CHANNEL"], CHANNELS[CONTACTLESS]),
        pa.chunked_array([random.random(len(table)) < share]),
    )
    return _with(table, "CHANNEL", pc.if_else(moves, CHANNELS[ONLINE], table["CHANNEL"]))


def _with(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)

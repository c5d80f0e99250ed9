"""Simulates card transactions, some of them fraudulent, day by day.

Based on chapter 3 of *Reproducible Machine Learning for Credit Card Fraud Detection, Practical
Handbook* (Le Borgne, Siblini, Lebichot, Bontempi): spending profiles, terminals within reach and
three fraud scenarios. The columns merchant category, channel, country and age band, and drift are
additions. Each day has its own random stream, so it does not depend on the number of days, and
only one day is in memory at a time.

    for day, table in simulate(Simulation(days=30, customers=500, terminals=1000)):
        ...
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial

import numpy as np
import pyarrow as pa

from fraud.data.population import (
    AGE_BANDS,
    CATEGORIES,
    Bools,
    Customers,
    Floats,
    Ints,
    Reach,
    Terminals,
    choose,
)
from fraud.data.spec import Simulation
from fraud.errors import BadInput
from fraud.time import SECONDS_PER_DAY

#: Scenario 1: amounts above this are fraud.
LARGE_AMOUNT = 220.0
#: Scenario 2: terminals compromised every day (2 of 10,000), and for how many days.
TERMINALS_A_DAY, TERMINAL_DAYS = (2, 10_000), 28
#: Scenario 3: customers compromised every day (3 of 5,000), and for how many days; the fraction of
#: their purchases that is fraud, and the factor of its amounts.
CUSTOMERS_A_DAY, CUSTOMER_DAYS = (3, 5_000), 14
STOLEN_PART, STOLEN_FACTOR = 1 / 3, 5.0

CHANNELS = ("contactless", "chip", "magstripe", "online", "mobile_wallet")
CONTACTLESS, ONLINE, MOBILE_WALLET = 0, 3, 4
#: Shares of contactless, chip and magstripe in payments that are not online.
PRESENT_SHARES = [0.55, 0.40, 0.05]

COUNTRIES = ("BE", "FR", "NL", "DE", "GB", "LU", "US", "??")
HOME, GARBAGE = 0, 7
#: Shares of the six countries after home in payments abroad.
ABROAD_SHARES = [0.30, 0.22, 0.16, 0.12, 0.10, 0.10]
#: Fraction of the payments made abroad with the card present, and online.
ABROAD_PRESENT, ABROAD_ONLINE = 0.02, 0.10
#: Frauds of scenario 3 are more often online and abroad, by these factors.
STOLEN_ONLINE, STOLEN_ABROAD = 2.0, 3.0

CATEGORY_NAMES = (*(category.name for category in CATEGORIES), "crypto_exchange")
CRYPTO = len(CATEGORIES)
AGE_NAMES = tuple(band.name for band in AGE_BANDS)
MISSING = -1

#: Drift new_fraud, scenario 4: cards tested every night (8 of 5,000), and payments per card.
TESTED_A_DAY, TESTS = (8, 5_000), 10
#: Drift amount_shift: Danish kroner to the euro.
KRONER = 7.46
#: Drift new_category: fractions of the terminals and of the contactless payments that change.
CRYPTO_TERMINALS, WALLET_PAYMENTS = 0.05, 0.40


class Stream(IntEnum):
    """The random streams. The numbers are part of the seeds: never change or reuse one."""

    CUSTOMERS = 0
    TERMINALS = 1
    PURCHASES = 2
    COMPROMISED_TERMINALS = 3
    COMPROMISED_CUSTOMERS = 4
    STOLEN_PURCHASES = 5
    CHANNELS = 6
    NEW_FRAUD = 7
    NEW_CATEGORY = 8
    NEW_CHANNEL = 9
    BROKEN_COLUMN = 10


@dataclass(frozen=True)
class World:
    """The population of a simulation."""

    simulation: Simulation
    customers: Customers
    terminals: Terminals
    reach: Reach
    reaches: Bools

    @classmethod
    def of(cls, simulation: Simulation) -> World:
        """Draws the population.

        Raises:
          BadInput: no customer has a terminal within reach, so nothing can be bought.
        """
        customers = Customers.drawn(simulation.customers, _rng(simulation, Stream.CUSTOMERS))
        terminals = Terminals.drawn(simulation.terminals, _rng(simulation, Stream.TERMINALS))
        reach = Reach(customers, terminals, simulation.radius)
        reaches = reach.any()
        if not reaches.any():
            raise BadInput(
                f"none of the {simulation.customers} customers has one of the "
                f"{simulation.terminals} terminals within reach; simulate more terminals"
            )
        return cls(simulation, customers, terminals, reach, reaches)


@dataclass(frozen=True)
class Purchases:
    """The transactions of one day, in order of time, one entry per transaction in every array.

    Attributes:
      second: seconds since midnight.
      customer, terminal: their numbers.
      amount: rounded to two decimals.
      scenario: the fraud scenario; 0 is genuine.
      category, channel, country: indices into the tuples of names above, or `MISSING`.
    """

    second: Ints
    customer: Ints
    terminal: Ints
    amount: Floats
    scenario: Ints
    category: Ints
    channel: Ints
    country: Ints

    def __len__(self) -> int:
        return len(self.second)


def simulate(simulation: Simulation) -> Iterator[tuple[dt.date, pa.Table]]:
    """Yields each day and its transactions in order of time; docs/data.md lists the columns.

    Raises:
      BadInput: no customer has a terminal within reach.
    """
    world = World.of(simulation)
    drifts = sorted(simulation.drift, key=lambda drift: list(_DRIFTS).index(drift.name))
    first_id = 0
    for index in range(simulation.days):
        day = simulation.start + dt.timedelta(days=index)
        purchases = _purchases(world, index)
        for drift in drifts:
            if day >= drift.start:
                purchases = _DRIFTS[drift.name](world, index, purchases)
        yield day, _table(world, index, first_id, purchases)
        first_id += len(purchases)


def compromised_terminals(world: World, index: int) -> Bools:
    """For each terminal, whether all purchases there on day `index` (from 0) are fraud."""
    rng = partial(_rng, world.simulation, Stream.COMPROMISED_TERMINALS)
    return _compromised(index, world.terminals.risk, TERMINALS_A_DAY, TERMINAL_DAYS, rng)


def compromised_customers(world: World, index: int) -> Bools:
    """For each customer, whether a third of the purchases on day `index` (from 0) is fraud."""
    rng = partial(_rng, world.simulation, Stream.COMPROMISED_CUSTOMERS)
    return _compromised(index, world.customers.risk, CUSTOMERS_A_DAY, CUSTOMER_DAYS, rng)


def due(index: int, population: int, rate: tuple[int, int]) -> int:
    """How many members of `population` are due on day `index` at a daily rate of (many, of).

    Fractions are spread evenly, starting on day 0: at 0.4 a day, one is due on days 0, 2, 5, 7, ….
    """
    many, of = rate
    until = [-(-days * population * many // of) for days in (index, index + 1)]  # rounded up
    return until[1] - until[0]


def _compromised(
    index: int,
    risk: Floats,
    rate: tuple[int, int],
    lasting: int,
    rng: Callable[[int], np.random.Generator],
) -> Bools:
    """Who was drawn in proportion to `risk` on day `index` or the `lasting` - 1 days before it."""
    compromised = np.zeros(len(risk), bool)
    for day in range(max(0, index - lasting + 1), index + 1):
        if count := due(day, len(risk), rate):
            compromised[rng(day).choice(len(risk), count, replace=False, p=risk)] = True
    return compromised


def _rng(simulation: Simulation, stream: Stream, index: int = 0) -> np.random.Generator:
    return np.random.default_rng([simulation.seed, stream, index])


def _purchases(world: World, index: int) -> Purchases:
    """The purchases of a day: the handbook's profiles and its three fraud scenarios."""
    rng = _rng(world.simulation, Stream.PURCHASES, index)
    customers = world.customers
    customer = np.repeat(np.arange(len(customers.x)), rng.poisson(customers.per_day))
    second = rng.normal(SECONDS_PER_DAY / 2, 20_000, len(customer)).astype(np.int64)
    mean = customers.mean_amount[customer]
    amount = rng.normal(mean, mean / 2)
    amount = np.where(amount < 0, rng.uniform(0, 2 * mean), amount).round(2)

    # As in the handbook, purchases outside the day or without a terminal are dropped.
    happens = (second > 0) & (second < SECONDS_PER_DAY) & world.reaches[customer]
    order = np.flatnonzero(happens)[np.argsort(second[happens], kind="stable")]
    second, customer, amount = second[order], customer[order], amount[order]
    terminal = world.reach.draw(customer, rng)

    scenario = np.where(amount > LARGE_AMOUNT, 1, 0)
    scenario[compromised_terminals(world, index)[terminal]] = 2
    thief = _rng(world.simulation, Stream.STOLEN_PURCHASES, index).random(len(order))
    stolen = compromised_customers(world, index)[customer] & (thief < STOLEN_PART)
    scenario[stolen] = 3
    amount[stolen] = (amount[stolen] * STOLEN_FACTOR).round(2)

    category = world.terminals.category[terminal]
    channel, country = _channels(category, stolen, _rng(world.simulation, Stream.CHANNELS, index))
    return Purchases(second, customer, terminal, amount, scenario, category, channel, country)


def _channels(category: Ints, stolen: Bools, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Draws the channel and the country of each purchase.

    Args:
      category: indices into `CATEGORIES`, [purchases].
      stolen: whether the purchase is a fraud of scenario 3, [purchases].
      rng: the random generator.

    Returns:
      Indices into `CHANNELS` and into `COUNTRIES`, [purchases] each.
    """
    if_online, how_present, if_abroad, where_abroad = rng.random((4, len(category)))
    online_part = np.array([category.online for category in CATEGORIES])[category]
    online = if_online < online_part * np.where(stolen, STOLEN_ONLINE, 1)
    abroad_part = np.where(online, ABROAD_ONLINE, ABROAD_PRESENT)
    abroad = if_abroad < abroad_part * np.where(stolen, STOLEN_ABROAD, 1)
    channel = np.where(online, ONLINE, choose(how_present, PRESENT_SHARES))
    country = np.where(abroad, 1 + choose(where_abroad, ABROAD_SHARES), HOME)
    return channel, country


def _new_fraud(world: World, index: int, purchases: Purchases) -> Purchases:
    """Stolen cards are tested at night: ten small online payments each, at any terminal."""
    rng = _rng(world.simulation, Stream.NEW_FRAUD, index)
    cards = due(index, len(world.customers.x), TESTED_A_DAY)
    customer = np.repeat(rng.choice(len(world.customers.x), cards, replace=False), TESTS)
    count = len(customer)
    night = rng.integers(1 * 3600, 5 * 3600, cards).repeat(TESTS) + rng.integers(0, 600, count)
    terminal = rng.integers(len(world.terminals.x), size=count)
    abroad = rng.random(count) < 0.5
    tests = Purchases(
        second=night,
        customer=customer,
        terminal=terminal,
        amount=rng.uniform(0.5, 10, count).round(2),
        scenario=np.full(count, 4),
        category=world.terminals.category[terminal],
        channel=np.full(count, ONLINE),
        country=np.where(abroad, 1 + choose(rng.random(count), ABROAD_SHARES), HOME),
    )
    both = {name: np.append(old, vars(tests)[name]) for name, old in vars(purchases).items()}
    order = np.argsort(both["second"], kind="stable")
    return Purchases(**{name: values[order] for name, values in both.items()})


def _amount_shift(world: World, index: int, purchases: Purchases) -> Purchases:
    """Amounts are recorded in another currency; the labels do not change."""
    return replace(purchases, amount=(purchases.amount * KRONER).round(2))


def _new_category(world: World, index: int, purchases: Purchases) -> Purchases:
    """Some terminals switch to a new trade for good, some contactless payments to a new channel."""
    terminals = _rng(world.simulation, Stream.NEW_CATEGORY).random(len(world.terminals.x))
    crypto = (terminals < CRYPTO_TERMINALS)[purchases.terminal]
    wallet = _rng(world.simulation, Stream.NEW_CHANNEL, index).random(len(purchases))
    wallet = (wallet < WALLET_PAYMENTS) & (purchases.channel == CONTACTLESS)
    return replace(
        purchases,
        category=np.where(crypto, CRYPTO, purchases.category),
        channel=np.where(wallet, MOBILE_WALLET, purchases.channel),
    )


def _broken_column(world: World, index: int, purchases: Purchases) -> Purchases:
    """COUNTRY is lost: missing or garbage in every row."""
    lost = _rng(world.simulation, Stream.BROKEN_COLUMN, index).random(len(purchases)) < 0.5
    return replace(purchases, country=np.where(lost, MISSING, GARBAGE))


#: The drifts of `fraud.data.spec.DRIFTS`, in the order in which they are applied.
_DRIFTS: dict[str, Callable[[World, int, Purchases], Purchases]] = {
    "new_fraud": _new_fraud,
    "amount_shift": _amount_shift,
    "new_category": _new_category,
    "broken_column": _broken_column,
}


def _table(world: World, index: int, first_id: int, purchases: Purchases) -> pa.Table:
    midnight = np.datetime64(world.simulation.start, "us") + np.timedelta64(index, "D")
    return pa.table(
        {
            "TRANSACTION_ID": np.arange(first_id, first_id + len(purchases)),
            "TX_DATETIME": midnight + purchases.second.astype("timedelta64[s]"),
            "CUSTOMER_ID": purchases.customer,
            "TERMINAL_ID": purchases.terminal,
            "TX_AMOUNT": purchases.amount,
            "TX_TIME_SECONDS": index * SECONDS_PER_DAY + purchases.second,
            "TX_TIME_DAYS": np.full(len(purchases), index),
            "MERCHANT_CATEGORY": _names(purchases.category, CATEGORY_NAMES),
            "CHANNEL": _names(purchases.channel, CHANNELS),
            "COUNTRY": _names(purchases.country, COUNTRIES),
            "CUSTOMER_AGE_BAND": _names(world.customers.age_band[purchases.customer], AGE_NAMES),
            "TX_FRAUD": (purchases.scenario > 0).astype(np.int64),
            "TX_FRAUD_SCENARIO": purchases.scenario,
        }
    )


def _names(codes: Ints, names: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, mask=codes == MISSING), pa.array(names)
    ).cast(pa.string())

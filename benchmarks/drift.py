"""Which changes of the data the drift check finds, and how often it is wrong.

    python -m benchmarks.drift [HANDBOOK] [--short] [--every N]

Judges each day as the product would: a run a day, with the default windows, compares its train, its
eval and its recent window with the train window of the champion, whose run was a week earlier, and
of the fixed reference, the first run. False alarms are the days on which unchanged data would have
been stopped: of the handbook's days if their folder is given, of a simulated bank, and of twenty
small banks of 100 cards, 2 % of which are replaced each week. Then every change begins on several
days of the simulated bank. Prints two Markdown tables.

The small banks are also judged with columns of many rare categories: `ZIPF` and `FLAT` have 2,000
and 3,000 by chance, `OWN` three for each card, and 5 % of `BURST` are categories that last for two
weeks. With --short, it counts false alarms with shorter windows instead, also of a bank of 500
cards with these columns.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fraud.pipeline.components.daily_counts import DailyCounts, ToCount, profile
from fraud.pipeline.drift import Cards, Categories, Column, Measurement, Numbers, Profile, compare
from fraud.time import UTC

DAYS, TRAIN, EVAL, DELAY, CHAMPION_AGE = 120, 30, 7, 7, 7
SHORT = ((30, 7), (30, 1), (20, 3), (14, 2), (14, 3), (10, 2), (10, 6), (7, 1))
"""Days of train and recent windows."""
AMOUNT, CHANNEL, CARD, TIME = "TX_AMOUNT", "CHANNEL", "CUSTOMER_ID", "TX_DATETIME"
RARE = ("ZIPF", "FLAT", "OWN", "BURST")
CATEGORICAL = ("MERCHANT_CATEGORY", CHANNEL, "COUNTRY", "CUSTOMER_AGE_BAND", *RARE)

Change = Callable[[pa.Table, np.random.Generator], pa.Table]


def read(folder: Path) -> pa.Table:
    """All transactions, in the form that examples have."""
    tables = [pq.read_table(path) for path in sorted(folder.glob("date=*/*.parquet"))]
    table = pa.concat_tables([t.select(columns_of(t)) for t in tables])
    for position, name in enumerate(table.column_names):
        column = table.column(name)
        if name == TIME:
            seconds = column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() // 1_000_000
            table = table.set_column(position, name, pa.array(seconds))
        elif name in CATEGORICAL:
            table = table.set_column(position, name, column.cast(pa.binary()))
    return table


def columns_of(table: pa.Table) -> list[str]:
    """The columns that are judged, and those that are needed for it."""
    return [c for c in (TIME, CARD, "TERMINAL_ID", AMOUNT, *CATEGORICAL) if c in table.column_names]


def counted(table: pa.Table) -> Bank:
    """What the pipeline's statistics contain about all days."""
    columns = [name for name in (AMOUNT, *CATEGORICAL) if name in table.column_names]
    settings = ToCount(tuple(columns), TIME, CARD, UTC)
    generator = DailyCounts(settings)
    counts = generator.create_accumulator()
    for batch in table.to_batches(8192):
        counts = generator.add_input(counts, batch)
    found = profile(generator.extract_output(counts))
    assert found is not None
    cards, card = np.unique(table.column(CARD).to_numpy(), return_inverse=True)
    day = table.column(TIME).to_numpy() // 86_400 - found.days[0]
    rows = np.bincount(card * len(found.days) + day, minlength=len(cards) * len(found.days))
    return Bank(found, cards.astype(np.uint64), rows.reshape(len(cards), -1))


@dataclass(frozen=True)
class Bank:
    """Counts of all days of a bank, from which those of any window are taken.

    Attributes:
      profile: the counts, whose sample of cards is ignored.
      hashes, rows: of every card, [cards], and its rows by day, [cards, days].
    """

    profile: Profile
    hashes: NDArray[np.uint64]
    rows: NDArray

    def window(self, first: int, last: int) -> Profile:
        """The days from the first to the last, counted from 0."""
        rows = self.rows[:, first : last + 1].sum(axis=1).astype(float)
        cards = Cards(self.hashes[rows > 0], rows[rows > 0], 1.0)
        return replace(self.profile.at(np.arange(first, last + 1)), cards=cards)


@dataclass(frozen=True)
class Day:
    """What a run finds on one day, counted from 0."""

    day: int
    measurements: list[Measurement]

    @property
    def drifted(self) -> list[Measurement]:
        """What would stop the run."""
        return [m for m in self.measurements if m.drifted]


def train_of(bank: Bank, as_of: int, train: int = TRAIN, delay: int = DELAY) -> Profile:
    """The train window of a run on a day."""
    last = as_of - EVAL - 2 * delay + 1
    return bank.window(last - train + 1, last)


def first_day(train: int, delay: int) -> int:
    """The first day on which a run has all its windows."""
    return train + EVAL + 2 * delay - 2


FIRST = first_day(TRAIN, DELAY)


def judged(
    bank: Bank,
    first: int = FIRST + 1,
    last: int | None = None,
    every: int = 1,
    train: int = TRAIN,
    delay: int = DELAY,
) -> Iterator[Day]:
    """A run on each day, or on every so many; the recent window is as long as the label delay."""
    earliest = first_day(train, delay)
    reference = train_of(bank, earliest, train, delay)
    for as_of in range(first, len(bank.profile.days) if last is None else last, every):
        champion = train_of(bank, max(earliest, as_of - CHAMPION_AGE), train, delay)
        windows = (
            bank.window(as_of - delay + 1, as_of),
            bank.window(as_of - delay - EVAL + 1, as_of - delay),
            train_of(bank, as_of, train, delay),
        )
        yield Day(
            as_of,
            [
                measurement
                for baseline in (champion, reference)
                for window in windows
                for measurement in compare(window, baseline, {})
            ],
        )


def spliced(bank: Bank, changed: Bank, day: int) -> Bank:
    """A bank that changes on a day, from what it is before and after."""
    before, after = bank.profile, changed.profile
    first, second = before.at(np.arange(day)), after.at(np.arange(day, len(after.days)))
    columns: dict[str, Column] = {}
    for name, a in first.columns.items():
        b = second.columns[name]
        missing = np.concatenate([a.missing, b.missing])
        if isinstance(a, Numbers) and isinstance(b, Numbers):
            columns[name] = Numbers(
                missing,
                np.concatenate([a.zeros, b.zeros]),
                [*a.edges, *b.edges],
                [*a.counts, *b.counts],
            )
        elif isinstance(a, Categories) and isinstance(b, Categories):
            columns[name] = Categories(
                missing,
                {
                    label: np.concatenate(
                        [
                            a.counts.get(label, np.zeros(len(first.days))),
                            b.counts.get(label, np.zeros(len(second.days))),
                        ]
                    )
                    for label in {**a.counts, **b.counts}
                },
            )
    rows = np.concatenate([first.rows, second.rows])
    return replace(bank, profile=replace(before, rows=rows, columns=columns))


def _chosen(table: pa.Table, share: float, random: np.random.Generator) -> pa.Array:
    return pa.array(random.random(table.num_rows) < share)


def _set(table: pa.Table, name: str, values: pa.ChunkedArray | pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def times(factor: float) -> Change:
    """Amounts multiplied."""
    return lambda table, _: _set(table, AMOUNT, pc.multiply(table.column(AMOUNT), factor))


def amounts(value: float | None, share: float) -> Change:
    """A share of the amounts replaced."""

    def change(table: pa.Table, random: np.random.Generator) -> pa.Table:
        new = pa.scalar(value, pa.float64())
        mask = _chosen(table, share, random)
        return _set(table, AMOUNT, pc.if_else(mask, new, table.column(AMOUNT)))

    return change


def channels(value: bytes, share: float) -> Change:
    """A share of CHANNEL rewritten to one category."""

    def change(table: pa.Table, random: np.random.Generator) -> pa.Table:
        mask = _chosen(table, share, random)
        return _set(table, CHANNEL, pc.if_else(mask, pa.scalar(value), table.column(CHANNEL)))

    return change


def volume(factor: float) -> Change:
    """Fewer rows, or rows that come twice."""

    def change(table: pa.Table, random: np.random.Generator) -> pa.Table:
        kept = table.filter(_chosen(table, min(factor, 1.0), random))
        return pa.concat_tables([kept] * max(1, int(factor)))

    return change


def closed(table: pa.Table, _: np.random.Generator) -> pa.Table:
    """The busiest terminal closes."""
    (busiest,) = pc.mode(table.column("TERMINAL_ID")).to_pylist()
    return table.filter(pc.not_equal(table.column("TERMINAL_ID"), busiest["mode"]))


def rising(weekly: float) -> Change:
    """Amounts that rise every week, from the end of the reference's train window on."""

    def change(table: pa.Table, _: np.random.Generator) -> pa.Table:
        seconds = table.column(TIME).to_numpy()
        weeks = np.maximum((seconds - seconds.min()) / 86_400 - TRAIN, 0) // 7
        return _set(table, AMOUNT, pc.multiply(table.column(AMOUNT), (1 + weekly) ** weeks))

    return change


CHANGES: dict[str, Change] = {
    **{f"amounts × {factor}": times(factor) for factor in (1.05, 1.1, 1.2, 1.5, 2, 3)},
    **{f"{share:.0%} of the amounts 0": amounts(0.0, share) for share in (0.01, 0.1, 0.5)},
    **{f"{share:.0%} of the amounts missing": amounts(None, share) for share in (0.01, 0.1, 0.5)},
    **{
        f"{share:.0%} of CHANNEL rewritten to online": channels(b"online", share)
        for share in (0.05, 0.1, 0.4)
    },
    **{
        f"a new CHANNEL with {share:.1%} of the rows": channels(b"wallet", share)
        for share in (0.001, 0.01, 0.05)
    },
    "half the rows": volume(0.5),
    "10% fewer rows": volume(0.9),
    "all rows twice": volume(2.0),
    "the busiest terminal closes": closed,
}


def small_bank(table: pa.Table, cards: NDArray, random: np.random.Generator) -> pa.Table:
    """100 cards at a time; each week, 2 % of them are replaced by others."""
    of_row = table.column(CARD).to_numpy()
    day = table.column(TIME).to_numpy() // 86_400
    day = day - day.min()
    since, until = np.zeros(len(cards)), np.full(len(cards), DAYS)
    waiting = list(range(100, len(cards)))
    active = list(range(100))
    for week in range(0, DAYS, 7):
        for _ in range(2):
            leaving = active.pop(int(random.integers(len(active))))
            joining = waiting.pop()
            until[leaving], since[joining] = week, week
            active.append(joining)
    since[waiting] = DAYS
    at = np.searchsorted(cards, of_row)
    mine = np.isin(of_row, cards)
    at = np.where(mine, at, 0)
    return table.filter(pa.array(mine & (since[at] <= day) & (day < until[at])))


def with_weekends(table: pa.Table, random: np.random.Generator) -> pa.Table:
    """Half the rows at weekends, with amounts a third higher."""
    weekday = (table.column(TIME).to_numpy() // 86_400 + 3) % 7
    higher = np.where(weekday >= 5, 1.3, 1.0)
    table = _set(table, AMOUNT, pc.multiply(table.column(AMOUNT), pa.array(higher)))
    return table.filter(pa.array((weekday < 5) | (random.random(table.num_rows) < 0.5)))


def some_cards(table: pa.Table, number: int, random: np.random.Generator) -> pa.Table:
    """A bank of fewer cards."""
    cards = random.permutation(np.unique(table.column(CARD).to_numpy()))[:number]
    return table.filter(pa.array(np.isin(table.column(CARD).to_numpy(), cards)))


def with_rare_categories(table: pa.Table, random: np.random.Generator) -> pa.Table:
    """Adds columns of many rare categories."""
    rows, card = table.num_rows, table.column(CARD).to_numpy()
    week = (table.column(TIME).to_numpy() // 86_400 + random.integers(0, 7, rows)) // 7
    columns = {"OWN": (3 * card + random.integers(0, 3, rows)) % 20_011}
    for name, size, power in (("ZIPF", 2000, 1.1), ("FLAT", 3000, 0.3)):
        shares = 1 / np.arange(1, size + 1) ** power
        columns[name] = random.choice(size, rows, p=shares / shares.sum())
    lasting, passing = random.integers(0, 20, rows), 100 + 50 * week + random.integers(0, 50, rows)
    columns["BURST"] = np.where(random.random(rows) < 0.05, passing, lasting)
    for name, numbers in columns.items():
        table = table.append_column(name, pa.array(numbers.astype("S"), pa.binary()))
    return table


def report_short_windows(name: str, bank: Bank, every: int) -> None:
    """Lines of the table of false alarms with shorter windows."""
    for train, delay in SHORT:
        days = list(judged(bank, first_day(train, delay) + 1, None, every, train, delay))
        wrong = [day for day in days if day.drifted]
        causes = sorted({f"{m.column} {m.measure}" for day in wrong for m in day.drifted})
        counts = f"{train} | {delay} | {len(days)} | {len(wrong)} | {', '.join(causes) or '–'}"
        print(f"| {name} | {counts} |", flush=True)


def alarms(bank: Bank, every: int) -> tuple[int, list[Day]]:
    """How many days were judged, and those that would have been stopped."""
    days = list(judged(bank, every=every))
    return len(days), [day for day in days if day.drifted]


def report_false_alarms(name: str, banks: Sequence[Bank], every: int = 1) -> None:
    """One line of the first table."""
    found = [alarms(bank, every) for bank in banks]
    judged_days, wrong = sum(n for n, _ in found), [d for _, days in found for d in days]
    causes = sorted({f"{m.column} {m.measure}" for day in wrong for m in day.drifted})
    rate = 60 * len(wrong) / judged_days
    rows = np.mean([bank.profile.rows.mean() for bank in banks])
    print(
        f"| {name} | {rows:,.0f} | {judged_days} | {len(wrong)} | {rate:.2f} "
        f"| {', '.join(causes) or '–'} |",
        flush=True,
    )


def report_change(name: str, table: pa.Table, bank: Bank, change: Change) -> None:
    """One line of the second table: begins the change on several days."""
    changed = counted(change(table, np.random.default_rng(0)))
    waits: list[int] = []
    causes: set[str] = set()
    starts = range(FIRST + 8, FIRST + 29, 3)
    for start in starts:
        for day in judged(spliced(bank, changed, start), start, start + 14):
            if day.drifted:
                waits.append(day.day - start + 1)
                causes.update(f"{m.column} {m.measure}" for m in day.drifted)
                break
    when = f"{np.median(waits):.0f}" if waits else "–"
    found, by = f"{len(waits) / len(starts):.0%}", ", ".join(sorted(causes)) or "–"
    print(f"| {name} | {found} | {when} | {by} |", flush=True)


def report_rising(name: str, table: pa.Table, weekly: float) -> None:
    """One line of the second table: amounts that rise, against each baseline alone."""
    bank = counted(rising(weekly)(table, np.random.default_rng(0)))
    found = [day for day in judged(bank) if day.drifted]
    when = f"{found[0].day - TRAIN + 1}" if found else "–"
    alone = [m for day in judged(bank) for m in day.measurements[: len(day.measurements) // 2]]
    by = "TX_AMOUNT distribution" + (
        "" if any(m.drifted for m in alone) else ", by the reference only"
    )
    print(f"| {name} | {'100%' if found else '0%'} | {when} | {by} |", flush=True)


def main() -> None:
    """Prints the tables."""
    from fraud.data.spec import Simulation
    from fraud.data.writer import write_days

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("handbook", nargs="?", type=Path, help="the folder of the handbook's days")
    parser.add_argument("--short", action="store_true", help="false alarms with shorter windows")
    parser.add_argument(
        "--every", type=int, default=1, help="judge small banks (--short: all) every so many days"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_days(Simulation(days=DAYS, customers=5000, terminals=10_000, seed=2), Path(folder))
        table = read(Path(folder))
    bank = counted(table)
    handbook = [counted(read(options.handbook))] if options.handbook else []
    random = np.random.default_rng(0)
    if options.short:
        print("| data | train days | recent days | days judged | false alarms | by |")
        print("|---|---:|---:|---:|---:|---|")
        rare = counted(with_rare_categories(some_cards(table, 500, random), random))
        weekends = counted(with_weekends(table, random))
        named = [("handbook", of) for of in handbook]
        named += [("simulated", bank), ("simulated, weekends differ", weekends)]
        for name, of in [*named, ("simulated, many rare categories", rare)]:
            report_short_windows(name, of, options.every)
        return
    cards = random.permutation(np.unique(table.column(CARD).to_numpy()))[: 20 * 140]
    small = [small_bank(table, np.sort(of_bank), random) for of_bank in cards.reshape(20, 140)]
    print("| data | rows a day | days judged | false alarms | in 60 days | by |")
    print("|---|---:|---:|---:|---:|---|")
    if handbook:
        report_false_alarms("handbook", handbook)
    report_false_alarms("simulated", [bank])
    report_false_alarms("20 banks of 100 cards", [counted(of) for of in small], options.every)
    of_rare = [counted(with_rare_categories(of, random)) for of in small]
    report_false_alarms("the same with many rare categories", of_rare, options.every)
    report_false_alarms("simulated, weekends differ", [counted(with_weekends(table, random))])
    print("\n| change | detected | after days (median) | by |\n|---|---:|---:|---|")
    for name, change in CHANGES.items():
        report_change(name, table, bank, change)
    for weekly in (0.01, 0.02):
        report_rising(f"amounts rise {weekly:.0%} a week", table, weekly)


if __name__ == "__main__":
    main()

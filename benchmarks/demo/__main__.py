"""Four ways to look after a model, side by side; `make demo`. See docs/demo.md.

    python -m benchmarks.demo
    python -m benchmarks.demo --data transactions --first 2018-06-01 --policies never weekly loop

Without data it simulates a bank of 120 days in which five things happen.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from fraud.errors import BadInput
from fraud.time import parse_day

if TYPE_CHECKING:
    from benchmarks.demo.bank import Bank
    from benchmarks.demo.page import Document
    from benchmarks.demo.results import Difference
    from benchmarks.demo.story import Event
    from fraud.pipeline.config import Config

FOLDER = Path(__file__).parent
LOOP_SETTINGS, BANK_SETTINGS = str(FOLDER / "loop.yaml"), str(FOLDER / "bank.yaml")
POLICIES = ("never", "weekly", "daily", "loop")


def main() -> int:
    """Replays, and writes results, picture and page."""
    options = parse()
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {line}", file=sys.stderr, flush=True)

    from benchmarks.demo import page, story
    from fraud.pipeline import config as configuration

    settings = [LOOP_SETTINGS] if options.data else [LOOP_SETTINGS, BANK_SETTINGS]
    config = configuration.load(*settings, *options.config)
    happening: Sequence[Event] = ()
    try:
        if options.data:
            bank, name = read(options.data, config), "data"
            first, last = options.first or bank.last - timedelta(days=59), bank.last
        else:
            happening, name = story.events(options.seed), f"seed-{options.seed}"
            first, last = story.FIRST, story.FIRST + timedelta(days=story.DAYS - 1)
            bank = simulate(options.seed, options.customers, happening, config)
        say(f"{len(bank.days):,} transactions with {len(bank.features)} features")
        document = replay(
            bank,
            options.policies,
            (first, last),
            happening,
            options.out / name,
            options.jobs,
            say,
        )
    except BadInput as error:
        print(f"benchmarks.demo: {error}", file=sys.stderr)
        return error.exit_code
    page.write(options.out / name, document)
    say(f"written: {options.out / name / 'index.html'}")
    print(page.table(document))
    return 0


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seed", type=int, default=0, help="of the simulated bank (default 0)")
    add("--customers", type=int, default=750, help="of the simulated bank (default 750)")
    add("--data", metavar="DIR", help="folders date=YYYY-MM-DD to replay instead, all labelled")
    add(
        "--first", type=parse_day, metavar="DAY", help="with --data: the first day that is replayed"
    )
    add("--policies", nargs="+", choices=POLICIES, default=POLICIES, help="all if not given")
    add("--config", action="append", default=[], metavar="FILE", help="what else is configured")
    add("--out", type=Path, default=Path("build/demo"), help="the folder (default build/demo)")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="trainings at once")
    return parser.parse_args()


def replay(
    bank: Bank,
    policies: Sequence[str],
    days: tuple[date, date],
    happening: Sequence[Event],
    folder: Path,
    jobs: int,
    say: Callable[[str], None],
) -> Document:
    """Replays policies over the same days.

    Args:
      bank: whose production it is.
      policies: some of `POLICIES`.
      days: the first and the last day.
      happening: what happens.
      folder: keeps trainings, and the root of the loop.
      jobs: how many trainings at once.
      say: shows progress.
    """
    from benchmarks.demo.page import Document
    from benchmarks.demo.policies import EVERY, LOOP, Replay
    from benchmarks.demo.results import difference, of_loop, result
    from benchmarks.demo.trainer import Trainer

    started, (first, last) = time.monotonic(), days
    trainer = Trainer(bank, folder / "models", jobs)
    replayed = Replay(bank, trainer, first, last)
    every = min((EVERY[policy] for policy in policies if EVERY[policy]), default=0)
    due = [first - timedelta(days=1), *replayed.due(every)]
    say(f"{len(due)} trainings that are known beforehand")
    trainer.train(
        [(day, (), bank.config.windows.eval_days) for day in due],
        lambda left: None if left % 5 else say(f"{left} left"),
    )
    courses = {}
    for policy in policies:
        say(f"policy: {policy}")
        if policy == LOOP:
            shutil.rmtree(folder / "root", ignore_errors=True)
            courses[policy] = replayed.loop(folder / "root", say)
        else:
            courses[policy] = replayed.scheduled(policy)
    trainer.close()
    differences: tuple[Difference, ...] = ()
    if loop := courses.get(LOOP):
        others = [course for course in courses.values() if course is not loop]
        differences = tuple(difference(bank, loop, other, first, last) for other in others)
    return Document(
        folder.name,
        first,
        last,
        tuple(happening),
        tuple(result(bank, course, first, last, happening) for course in courses.values()),
        of_loop(loop.entries, happening) if loop else None,
        differences,
        round(time.monotonic() - started),
    )


def simulate(seed: int, customers: int, happening: Sequence[Event], config: Config) -> Bank:
    """The simulated bank, up to the last day of production."""
    import pyarrow as pa

    from benchmarks.demo import story
    from benchmarks.demo.bank import Bank

    days = story.HISTORY + story.DAYS
    tables = [table for _, table in story.simulated(seed, customers, days, happening)]
    return Bank.of(pa.concat_tables(tables), config)


def read(data: str, config: Config) -> Bank:
    """A bank from folders of days, all of which are labelled.

    Raises:
      BadInput: names the file, row, column and fix.
    """
    from benchmarks.demo.bank import Bank
    from fraud.pipeline.backtest import rows
    from fraud.pipeline.ingestion.source import discover
    from fraud.pipeline.windows import Window, Windows

    source = discover(data, config.dataset)
    days = source.days
    whole = Windows(days[-1], None, Window(days[0], days[0]), Window(days[1], days[-1]), None)
    return Bank(rows.read(source, whole, config), config)


if __name__ == "__main__":
    sys.exit(main())

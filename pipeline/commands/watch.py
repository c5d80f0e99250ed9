"""`fraud-pipeline watch`: the closed loop."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from typing import TYPE_CHECKING

from fraud.errors import BadInput
from fraud.pipeline.commands import common
from fraud.pipeline.config import WindowLengths

if TYPE_CHECKING:
    from fraud.monitoring.alerts import Alerts
    from fraud.monitoring.loop import Heart, Loop
    from fraud.pipeline.commands.production_steps import ProductionSteps

_GRACE = 10.0
"""Seconds that alerts get to be delivered at the end; what is not, the next start delivers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Look after production: when a day has arrived, check its data, observe, decide, and\n"
        "train, push, verify or roll back. Start it again after a kill, and it goes on.\n"
        "See docs/loop.md.",
        "  fraud-pipeline watch --data transactions\n"
        "  fraud-pipeline watch --data transactions --root replayed --simulate --until 2018-07-31",
    )
    parser.add_argument(
        "--data", metavar="PATH", help="folders date=YYYY-MM-DD (default: paths.data)"
    )
    parser.add_argument(
        "--once", action="store_true", help="process what has arrived, and end; for cron"
    )
    parser.add_argument(
        "--simulate",
        action="store_true",
        help="replay the past, day by day, as fast as possible, in a root of its own; scores each "
        "day as a server would have",
    )
    parser.add_argument(
        "--from",
        dest="first",
        type=common.day,
        metavar="DAY",
        help="the first day (default: that after the live model's; without one, the newest day, "
        "with --simulate the first on which a model can be trained)",
    )
    parser.add_argument("--until", type=common.day, metavar="DAY", help="the last day")
    common.add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Watches until it is stopped, or no day is left.

    Raises:
      BadInput: the data has no days, or another loop looks after the root.
      FraudPipelineError: with `--once` or `--simulate`, a step that failed again and again.
    """
    from fraud.monitoring import loop

    is_simulated = arguments.simulate
    with looked_after(arguments, is_simulated) as (made, steps, heart, alerts):
        config, _ = common.config_and_root(arguments)
        first = arguments.first
        if first is None and is_simulated and not steps.live():
            first = _first_day(steps.days(), config.windows)
        loop.watch(
            made,
            config.loop,
            heart,
            alerts,
            first=first,
            once=arguments.once or is_simulated,
            until=arguments.until,
            is_simulated=is_simulated,
            stopping=_stop_on_signals(),
        )
    return 0


@contextmanager
def looked_after(
    arguments: argparse.Namespace, is_simulated: bool
) -> Iterator[tuple[Loop, ProductionSteps, Heart, Alerts]]:
    """The loop of a root, which no other process has meanwhile.

    Raises:
      BadInput: the data has no days, another loop looks after the root, or it is for replays.
    """
    from fraud.monitoring import loop
    from fraud.monitoring.alerts import Alerts, receivers
    from fraud.monitoring.decide import Lags
    from fraud.monitoring.journal import Journal
    from fraud.pipeline.commands.production_steps import ProductionSteps, check_purpose

    config, root = common.config_and_root(arguments)
    data = common.data_path(arguments, config)
    if config.dataset.timestamp is None:
        raise BadInput("dataset.timestamp is null: without days, there is nothing to wait for")
    folder = root.path / "loop"
    _log_plainly()
    with loop.alone(folder):
        check_purpose(root, is_simulated)
        options = [word for path in arguments.config for word in ("--config", path)]
        steps = ProductionSteps(config, root, data, options, is_simulated)
        steps.days()  # so that a wrong path is an error, and nothing to wait for
        to = () if is_simulated else receivers(config.alerts)
        alerts = Alerts(root.path / "alerts", to, config.alerts)
        heart = loop.Heart(folder / loop.STATE_FILE)
        lengths, judged = config.windows, config.monitoring.performance_days
        made = loop.Loop(
            Journal(folder),
            steps,
            config.loop,
            Lags.of(
                lengths.label_delay_days,
                lengths.eval_days,
                lengths.train_days,
                judged,
                config.loop.change_eval_days,
            ),
            config.monitoring,
            alerts,
            _say,
            heart.doing,
        )
        try:
            yield made, steps, heart, alerts
        finally:
            heart.close()
            alerts.close(_GRACE)


def _first_day(days: Sequence[date], lengths: WindowLengths) -> date | None:
    """The first day on which the windows of a run lie within the data."""
    if not days:
        return None
    needed = lengths.train_days + 2 * lengths.label_delay_days + lengths.eval_days
    return days[0] + timedelta(days=needed - 1)


def _log_plainly() -> None:
    """Lets alerts be lines like those of the loop, however TFX sets logging up."""
    log = logging.getLogger("fraud.monitoring")
    if not log.handlers:
        log.addHandler(logging.StreamHandler(sys.stderr))
        log.propagate = False


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _stop_on_signals() -> threading.Event:
    """Set by SIGTERM and SIGINT, so that a step that has begun is ended; twice, it is not."""
    stopping = threading.Event()

    def stop(number: int, _: object) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()
        print("stopping after this step; again to stop at once", file=sys.stderr, flush=True)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return stopping

"""`fraud-pipeline monitor`: look at production once, and record what was seen."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from datetime import date
from typing import TYPE_CHECKING

from fraud.codec import to_json
from fraud.errors import BadInput
from fraud.pipeline.commands import common
from fraud.text import plain

if TYPE_CHECKING:
    from fraud.monitoring.checks import Observation
    from fraud.monitoring.decide import Decision
    from fraud.pipeline.config import Config
    from fraud.pipeline.root import Root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Compare production with what the live version was trained on and promised: data, drift,\n"
        "training/serving skew, scores, alerts, and performance where labels have arrived.",
        "  fraud-pipeline monitor --data transactions --as-of 2018-07-31",
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="the transactions with the labels that have arrived (default: paths.data)",
    )
    parser.add_argument(
        "--as-of",
        type=common.day,
        metavar="DAY",
        help="look as if today were DAY (default: the last day of the data, so that missing days "
        "are only noticed if DAY is given)",
    )
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Looks, records and prints.

    Raises:
      BadInput: the data or the configuration is unusable.
      FraudPipelineError: see `fraud.pipeline.runners.monitor.look`.
    """
    from fraud import files
    from fraud.monitoring import prometheus, reading
    from fraud.pipeline import startup
    from fraud.pipeline.console import Console

    config, root = common.config_and_root(arguments)
    data = common.data_path(arguments, config)
    as_of = reading.as_of_day(data, config, arguments.as_of)

    console = Console()
    with console.waiting("loading TFX"), console.quiet():
        startup.import_tfx()
        from fraud.pipeline.runners import monitor
    observation = monitor.look(config, root, data, as_of, console)
    files.write_atomically(root.monitoring / prometheus.FILE, prometheus.exposition(observation))

    from fraud.report import observation_text

    decision = decided(config, root, observation)
    if arguments.json:
        document = {
            "as_of": str(observation.as_of),
            "version": observation.version,
            "decision": decision.action,
            "reasons": decision.reasons,
            "checks": observation.checks,
            "days": observation.days,
        }
        print(json.dumps(json.loads(to_json(document)), indent=1))
    else:
        told = [f"decision      {decision.action}", *(f"  {why}" for why in decision.reasons)]
        print("\n".join([observation_text.render(plain(observation)), "", *plain(told)]))
    return 0


def decided(config: Config, root: Root, observation: Observation) -> Decision:
    """What follows from an observation and what the loop did on earlier days.

    In a root that the loop does not look after, it is what it would decide if nothing had come of
    its earlier decisions.
    """
    from fraud.monitoring import journal
    from fraud.monitoring.decide import Lags, Past, decide
    from fraud.pipeline import artifacts, lineage

    windows = config.windows
    lags = Lags.of(
        windows.label_delay_days,
        windows.eval_days,
        windows.train_days,
        config.monitoring.performance_days,
        config.loop.change_eval_days,
    )
    if history := journal.history(root.path):
        return decide(observation, history, config.loop, lags)
    store = lineage.find_store(config.metadata, root)
    by_day: dict[date, Observation] = {}
    for artifact in lineage.observations(store) if store else ():
        with suppress(BadInput, OSError):  # of another version of this package, or lost
            seen = artifacts.observation(artifact)
            by_day[seen.as_of] = seen
    history = []
    for day in sorted(day for day in by_day if day < observation.as_of):
        history.append(Past(decide(by_day[day], history, config.loop, lags)))
    return decide(observation, history, config.loop, lags)

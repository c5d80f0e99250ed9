"""`fraud-pipeline monitor`: look at production once, and record what was seen."""

from __future__ import annotations

import argparse
import json

from fraud.pipeline.commands import common
from fraud.text import plain


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
    as_of = arguments.as_of or reading.last_day(data, config.dataset)

    console = Console()
    with console.waiting("loading TFX"), console.quiet():
        startup.import_tfx()
        from fraud.pipeline.runners import monitor
    observation = monitor.look(config, root, data, as_of, console)
    files.write_atomically(root.monitoring / prometheus.FILE, prometheus.exposition(observation))

    from fraud.report import observation_text

    if arguments.json:
        print(json.dumps(json.loads(observation.to_json()), indent=1))
    else:
        print(observation_text.render(plain(observation)))
    return 0

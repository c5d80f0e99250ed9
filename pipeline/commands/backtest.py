"""`fraud-pipeline backtest`: how well the model would have done, week by week."""

from __future__ import annotations

import argparse
import time
from datetime import datetime

from fraud.errors import BadInput
from fraud.pipeline.backtest import folds
from fraud.pipeline.backtest.result import Outcome, figure, is_handbook, render, summary
from fraud.pipeline.commands import common, track


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and options of the command."""
    common.example(
        parser,
        "Evaluate the model week by week as it would have been used: train, wait until labels are\n"
        "known, test, move on. The protocol is the Fraud Detection Handbook's: docs/backtest.md.",
        "  fraud-pipeline backtest --data transactions --first-test-day 2018-07-04 --folds 4",
    )
    parser.add_argument(
        "--data", metavar="PATH", help="folders date=YYYY-MM-DD/*.parquet|csv|csv.gz, or one file"
    )
    parser.add_argument(
        "--first-test-day", type=common.day, required=True, metavar="DAY", help="the first test day"
    )
    for option, default, meaning in (
        ("--folds", 4, "number of folds (default 4)"),
        ("--test-days", 7, "test days of each fold (default 7)"),
        ("--train-days", None, "train days (default: the configuration's, 30)"),
        (
            "--known-days",
            folds.KNOWN_DAYS,
            "a card is not tested if it had a fraud in the N days before the label delay, or one "
            "that became known since (default 7, the handbook's)",
        ),
        ("--seeds", 1, "models trained per fold, each with its own seed (default 1)"),
        ("--jobs", None, "folds that run at once (default: as many as cores and memory allow)"),
    ):
        parser.add_argument(
            option, type=common.positive_int, default=default, metavar="N", help=meaning
        )
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Checks everything that is cheap to check, then runs the backtest.

    Raises:
      FraudPipelineError: bad input, or a fold failed.
    """
    config, root = common.config_and_root(arguments)
    data = common.data_path(arguments, config)
    if config.dataset.timestamp is None:
        raise BadInput("dataset.timestamp: a backtest needs the time of each transaction; set it")
    windows = config.windows
    planned = folds.plan_folds(
        arguments.first_test_day,
        arguments.folds,
        test_days=arguments.test_days,
        train_days=arguments.train_days or windows.train_days,
        delay_days=windows.label_delay_days,
        known_days=arguments.known_days,
    )

    from fraud.codec import to_json
    from fraud.files import write_atomically
    from fraud.pipeline.backtest import processes, rows
    from fraud.pipeline.console import Console
    from fraud.pipeline.ingestion.source import discover

    source = discover(data, config.dataset)
    covered = rows.check_covered(source, planned, config)
    folder = root.path / "backtests" / f"{datetime.now():%Y-%m-%dT%H-%M-%S}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{root.path}: cannot use it as root: {error.strerror}") from None
    console, started = Console(), time.monotonic()
    with console.waiting("features"):
        table = rows.read(source, covered, config)
    console.say(f"  features   {table.num_rows:,} rows  {time.monotonic() - started:.0f} s")
    if unlabelled := rows.count_unlabelled(table, planned, config):
        console.say(f"  left out   {unlabelled:,} test rows whose label is not known yet")
    jobs = arguments.jobs or processes.jobs_that_fit(table, planned)
    seeds = [config.network.seed + i for i in range(arguments.seeds)]
    running = processes.run(table, planned, config, seeds, folder, jobs)
    outcomes: dict[int, Outcome] = {}
    while len(outcomes) < len(planned):
        with console.waiting(f"{len(planned) - len(outcomes)} folds left"):
            number, outcomes[number] = next(running)
        precision = outcomes[number].mean["average_precision"]
        console.say(
            f"  fold {number + 1:<5} {planned[number].test}  average precision "
            f"{figure(precision)}  {time.monotonic() - started:.0f} s"
        )
    running.close()
    result = summary(planned, [outcomes[i] for i in range(len(planned))])
    text = to_json(result, indent=1)
    write_atomically(folder / "result.json", text)
    published = is_handbook(rows.count_by_day(source))
    print(text if arguments.json else render(result, published))
    track.send_finished(config, root)
    return 0

"""`fraud-pipeline run`: run the graph once."""

from __future__ import annotations

import argparse
from dataclasses import replace

from fraud import files
from fraud.errors import BadInput, FraudPipelineError, StoppedByDataGate
from fraud.pipeline.commands import common, report, track
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Validate a window of transactions, train, compare with the champion, and push.",
        "  fraud-pipeline run --data transactions --as-of 2018-07-31\n\n"
        "exit codes: 0 completed (pushed or not), 1 failure, 2 bad input, 3 stopped by the gate",
    )
    parser.add_argument(
        "--data", metavar="PATH", help="folders date=YYYY-MM-DD/*.parquet|csv|csv.gz, or one file"
    )
    parser.add_argument(
        "--as-of",
        type=common.day,
        metavar="DAY",
        help="run as if today were DAY (default: the last day of the data)",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="search for better network settings first (see tuning.* in the configuration), train "
        "with them, and save them as a file for --config",
    )
    parser.add_argument(
        "--push-replays",
        action="store_true",
        help="push even if the as-of day is not later than that of the live model",
    )
    parser.add_argument(
        "--accept-unjudged-champion",
        action="store_true",
        help="push even if the model could not be compared with the live one",
    )
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Checks everything that is quick to check, then runs.

    Raises:
      BadInput: the data or the configuration is unusable.
      FraudPipelineError: see `fraud.pipeline.runners.local.run`.
    """
    config, root = common.config_and_root(arguments)
    try:
        return _run(arguments, config, root)
    except BadInput as error:
        from fraud.pipeline import refusals

        refusals.record(root, str(error))
        raise


def _run(arguments: argparse.Namespace, config: Config, root: Root) -> int:
    if arguments.tune:
        config = replace(config, tuning=replace(config.tuning, enabled=True))
    release = replace(
        config.release,
        push_replays=config.release.push_replays or arguments.push_replays,
        accept_unjudged_champion=config.release.accept_unjudged_champion
        or arguments.accept_unjudged_champion,
    )
    config = replace(config, release=release)
    data = common.data_path(arguments, config)
    if arguments.as_of and config.dataset.timestamp is None:
        raise BadInput(
            "--as-of: the data has no days, because dataset.timestamp is null; leave the option "
            "out, or name the column"
        )

    from fraud.pipeline.ingestion.source import plan_ingestion

    windows = plan_ingestion(data, config, arguments.as_of).windows

    _check_schema(config)

    from fraud.pipeline import lineage
    from fraud.pipeline.console import Console
    from fraud.pipeline.runners import local
    from fraud.report import terminal

    as_of = windows.as_of if windows else None
    try:
        summary = local.run(config, root, data, as_of, Console(), terminal.node_detail)
    except FraudPipelineError:
        track.send_finished(config, root)
        raise
    with Console().logging_to(root.log(summary.run_id)):
        store = lineage.find_store(config.metadata, root)
        page = report.write_of_finished(store, root, summary.run_id)
    track.send_finished(config, root)
    options, has_schema = common.options_given(arguments), config.paths.schema is not None
    common.show(arguments, summary, lambda shown: terminal.render(shown, options, has_schema, page))
    return StoppedByDataGate.exit_code if summary.outcome == "gate_stopped" else 0


def _check_schema(config: Config) -> None:
    """Checks the curated schema, if there is one, before TFX is loaded, which takes seconds.

    Raises:
      BadInput: it cannot be read, or gives a column another type than the configuration.
    """
    location = config.curated_schema
    if location is None or files.is_uri(location):
        return
    from fraud.models.columns import ModelColumns
    from fraud.pipeline import schemas

    columns = ModelColumns.of(config.dataset, config.features)
    try:
        schema = schemas.parsed(schemas.read(location))
    except BadInput as error:
        raise BadInput(f"{location}: {error}") from None
    for problem in schemas.contradictions(schema, columns.numeric, columns.categorical):
        raise BadInput(f"{location}: {problem}; correct one of them")

"""`fraud-pipeline state`: builds and checks what the server remembers of each entity."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from fraud.errors import BadInput
from fraud.pipeline.commands import common

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from fraud.features.spec import Dataset
    from fraud.models.specification import InputSpecification
    from fraud.pipeline.config import Config
    from fraud.pipeline.root import Root
    from fraud.serving.state import StateDefinition, Transactions

SAMPLE_ROWS = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Build what the server remembers of each customer, terminal, …, or check it.",
        "  fraud-pipeline state build --data transactions --as-of 2018-07-31\n"
        "  fraud-pipeline state check --data transactions",
    )
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    build = actions.add_parser("build", help="fill it with history", allow_abbrev=False)
    common.example(
        build,
        "Fill the state with the transactions and labels that were known when a day ended. It\n"
        "replaces the state in use at once, for running servers too, and keeps what they have\n"
        "recorded since that day.",
        "  fraud-pipeline state build --data transactions --as-of 2018-07-31",
    )
    check = actions.add_parser("check", help="compare it with the data", allow_abbrev=False)
    common.example(
        check,
        f"Compute the features of {SAMPLE_ROWS:,} transactions of a day, both from the state and\n"
        "from the data, and compare them.",
        "  fraud-pipeline state check --data transactions --as-of 2018-07-31\n\n"
        "exit codes: 0 they are the same, 1 they differ, 2 bad input",
    )
    for action in (build, check):
        common.add_config(action)
        common.add_json(action)
        action.add_argument("--data", metavar="PATH", help="the transactions (default: paths.data)")
        action.add_argument(
            "--as-of",
            type=common.day,
            metavar="DAY",
            help="the day, YYYY-MM-DD (default: the last day "
            + ("of data)" if action is build else "that both have)"),
        )
        common.add_state(action)
    build.add_argument(
        "--history-days",
        type=common.positive_int,
        default=0,
        metavar="N",
        help="keep at least so many days, for features that look back further than today's",
    )


def run(arguments: argparse.Namespace) -> int:
    """Builds or checks the state; returns the exit code.

    Raises:
      FraudPipelineError: the data or the state cannot be used.
    """
    config, root = common.config_and_root(arguments)
    location = common.state_location(arguments, root)
    if arguments.action == "build":
        document, code = build(arguments, config, root, location), 0
        text = _built(document)
    else:
        document = check(arguments, config, location)
        text, code = _checked(document), 0 if document["same"] else 1
    print(json.dumps(document, indent=1) if arguments.json else text)
    return code


def build(
    arguments: argparse.Namespace, config: Config, root: Root, location: str
) -> dict[str, Any]:
    """Builds the state; returns `state`, `days`, `transactions`, `carried_over`, the number of
    values of each entity as `entities`, and `seconds`.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from fraud.pipeline.ingestion import history
    from fraud.serving.state import rebuild_state
    from fraud.serving.state.build import columns_to_load, fill

    started = time.monotonic()
    models = [_inputs(config), *_pushed(root), *_challenger(config)]
    definition = _definition(models, arguments.history_days)
    dataset = _dataset(config, definition)
    recent = history.read(
        common.data_path(arguments, config),
        dataset,
        arguments.as_of,
        definition.kept_days,
        min(model.label_delay_days for model in models),
    )
    table = recent.table
    with rebuild_state(location, definition) as rebuild:
        labels = table[dataset.label].cast(pa.float64()).to_numpy().astype(np.float64)
        known = np.full(len(table), np.datetime64("NaT"), "datetime64[us]")
        if dataset.label_time:
            known = table[dataset.label_time].to_numpy().astype("datetime64[us]")
        part = columns_to_load(definition, _transactions(table, definition), labels, known)
        until = history.end_of(recent.days.last, dataset.timezone)
        carried = fill(rebuild, [part], until)
    return {
        "state": location,
        "days": [str(recent.days.first), str(recent.days.last)],
        "transactions": len(table),
        "carried_over": carried,
        "entities": {name: pc.count_distinct(table[name]).as_py() for name in definition.entities},
        "seconds": round(time.monotonic() - started, 1),
    }


def check(arguments: argparse.Namespace, config: Config, location: str) -> dict[str, Any]:
    """Compares features; returns `state`, the time of its `newest` transaction in the data's
    timezone (None if it is empty), `day`, `transactions` compared, how many of them the state does
    not have (`missing`) or with other values (`conflicting`), `differing`: column →
    number of `transactions` and `largest` difference (None if
    one of both is undefined), and whether all is the `same`.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from fraud.features.batch import add_features
    from fraud.pipeline.ingestion import history, values
    from fraud.serving.state import Outcome, open_state
    from fraud.time import day_number, local_times

    model = _inputs(config)
    state = open_state(location)
    try:
        state.check(model)
        newest = state.newest()
        if newest is not None:
            newest = local_times(np.array([newest]), model.dataset.timezone)[0]
        recent = history.read(
            common.data_path(arguments, config),
            _dataset(config, state.definition),
            arguments.as_of,
            state.definition.history_days,
            model.label_delay_days,
            latest=None if newest is None else newest.astype("datetime64[D]").item(),
        )
        dataset, table = model.dataset, recent.table
        state.check_kept(history.end_of(recent.days.last, dataset.timezone))
        days = values.days_of(table[dataset.timestamp].combine_chunks(), dataset.timezone)
        of_day = np.flatnonzero(days == day_number(recent.days.last))
        generator = np.random.default_rng(0)
        chosen = generator.choice(of_day, min(SAMPLE_ROWS, len(of_day)), replace=False)
        mask = np.zeros(len(table), bool)
        mask[chosen] = True
        sample = table.filter(pa.array(mask))
        # The entities of the sample, with all of their rows.
        related = np.zeros(len(table), bool)
        for entity in dataset.entities:
            related |= pc.is_in(table[entity], value_set=sample[entity]).to_numpy()
        batch = add_features(
            table.filter(pa.array(related)), dataset, model.features, model.label_delay_days
        ).filter(pa.array(mask[related]))
        seen = state.read(_transactions(sample, state.definition))
    finally:
        state.close()
    differing = {}
    for name, online in seen.features(model).items():
        offline = batch[name].to_numpy()
        wrong = ~np.isclose(online, offline, rtol=1e-6, atol=1e-6, equal_nan=True)
        if wrong.any():
            # NaN, where only one of them is undefined, is infinitely far.
            distance = np.nan_to_num(np.abs(online - offline)[wrong], nan=np.inf)
            largest = float(distance.max()) if np.isfinite(distance).all() else None
            differing[name] = {"transactions": int(wrong.sum()), "largest": largest}
    conflicting = sum(outcome is Outcome.CONFLICT for outcome in seen.outcomes)
    missing = sum(outcome not in (Outcome.CONFLICT, Outcome.REPEATED) for outcome in seen.outcomes)
    missing *= dataset.id is not None  # without ids nobody can tell
    return {
        "state": location,
        "newest": None if newest is None else str(newest.astype("datetime64[s]")),
        "day": str(recent.days.last),
        "transactions": len(sample),
        "missing": missing,
        "conflicting": conflicting,
        "differing": differing,
        "same": not (missing or conflicting or differing),
    }


def _inputs(config: Config) -> InputSpecification:
    from fraud.models.specification import InputSpecification

    return InputSpecification(config.dataset, config.features, config.windows.label_delay_days)


def _pushed(root: Root) -> list[InputSpecification]:
    """The inputs of the pushed versions, any of which may be served."""
    from fraud.models.specification import InputSpecification

    found = []
    for path in sorted(root.pushed.glob("[!.]*")):
        try:
            found.append(InputSpecification.read(path))
        except BadInput:
            continue  # the server will refuse it, and say why
    return found


def _challenger(config: Config) -> list[InputSpecification]:
    """The inputs of the challenger, if there is one.

    Raises:
      BadInput: it does not record them.
    """
    from pathlib import Path

    from fraud.models.specification import InputSpecification

    model = config.serving.challenger.model
    return [InputSpecification.read(Path(model))] if model else []


def _definition(models: list[InputSpecification], history_days: int) -> StateDefinition:
    """What the first model needs, and those of the others that are of the same data."""
    from fraud.serving.state import StateDefinition

    first = StateDefinition.of(models[0])
    same = [models[0]]
    for model in models[1:]:
        if model.dataset.timestamp and first.same_data(StateDefinition.of(model)):
            same.append(model)
    return StateDefinition.of(*same, history_days=history_days)


def _dataset(config: Config, definition: StateDefinition) -> Dataset:
    import dataclasses

    return dataclasses.replace(config.dataset, entities=definition.entities)


def _transactions(table: pa.Table, definition: StateDefinition) -> Transactions:
    import pyarrow as pa

    from fraud.serving.state import Transactions

    amounts: np.ndarray | None = None
    if definition.amount:
        amounts = table[definition.amount].cast(pa.float64()).to_numpy()
    return Transactions(
        timestamps=table[definition.timestamp].to_numpy(),
        amounts=amounts,
        entities={name: table[name] for name in definition.entities},
        ids=table[definition.id] if definition.id else None,
    )


def _built(document: dict[str, Any]) -> str:
    first, last = document["days"]
    entities = ", ".join(f"{count:,} {name}" for name, count in document["entities"].items())
    carried = document["carried_over"]
    since = f"\n{carried:,} transactions recorded since then are kept" if carried else ""
    return (
        f"{document['transactions']:,} transactions of {first} … {last} ({entities}) in "
        f"{document['seconds']} s{since}\n{document['state']} is in use"
    )


def _checked(document: dict[str, Any]) -> str:
    lines = [f"{document['transactions']:,} transactions of {document['day']} compared"]
    if document["same"]:
        return f"{lines[0]}: features from the state are those from the data"
    for problem in ("missing", "conflicting"):
        if document[problem]:
            lines.append(f"{document[problem]:,} {problem} in the state")
    for name, difference in document["differing"].items():
        largest = difference["largest"]
        size = "some are undefined" if largest is None else f"by up to {largest:.6g}"
        lines.append(f"{name}: {difference['transactions']:,} differ, {size}")
    if document["missing"] and document["newest"]:
        newest = document["newest"].replace("T", " ")
        lines.append(f"the newest transaction in the state is of {newest}")
    lines.append("rebuild it: fraud-pipeline state build")
    return "\n".join(lines)

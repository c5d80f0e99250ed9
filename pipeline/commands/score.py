"""`fraud-pipeline score`: score a file of transactions with the live version."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fraud.errors import BadInput, FraudPipelineError
from fraud.pipeline.commands import common
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root

if TYPE_CHECKING:
    import pyarrow as pa

    from fraud.models.specification import InputSpecification
    from fraud.pipeline.ingestion.to_score import ScoringPlan

EXAMPLE = """\
  fraud-pipeline score today.parquet --out scored.parquet --history transactions
  fraud-pipeline score today.csv --out scored.parquet --explain

With --history, features are computed from those files as a run would compute them. Without, they
are computed from the server's state, as the server would if each transaction were the next one;
nothing is recorded in it.

If the configuration names a runner of Beam other than DirectRunner, it does the work, unless
features come from the state. The folder of --out must then be shared with its workers.
"""

_STATE_ROWS = 2000
"""Transactions whose histories are read from the state at once."""

_GROUP_ROWS = 1 << 20
"""Rows of a row group of the output, but for the last one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Score transactions with the live version, and write a Parquet file of the scores.",
        EXAMPLE,
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="transactions: Parquet or CSV, or a folder of such files")
    add("--out", required=True, type=Path, metavar="FILE", help="the Parquet file to write")
    add("--history", metavar="DIR", help="earlier transactions with their labels, as of `run`")
    common.add_state(parser)
    add("--explain", action="store_true", help="add the reasons of alerts; takes longer")
    common.add_config(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Scores the file; returns the exit code.

    Raises:
      BadInput: nothing is live, the input cannot be used, or features need a history.
    """
    config, root = common.config_and_root(arguments)
    version = live_version(config, root)
    _make_place(arguments.out)
    for source in filter(None, (arguments.file, arguments.history)):
        _check_is_no_input(arguments.out, source)

    started = time.monotonic()
    done = _score(arguments, config, root, root.pushed / version)
    seconds = {} if done.read is None else {"features": done.read - started}
    seconds["total"] = time.monotonic() - started
    if arguments.json:
        document = {
            "out": str(arguments.out),
            "version": version,
            "transactions": done.transactions,
            "alerts": done.alerts,
            "note": done.note,
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
        }
        print(json.dumps(document))
    else:
        print(
            f"{arguments.out}: {done.transactions:,} transactions scored by version {version}, "
            f"{done.alerts:,} alerts, in {seconds['total']:.0f} s"
        )
        if done.note:
            print(f"  note    {done.note}")
    return 0


@dataclass(frozen=True)
class _Done:
    """What was scored.

    Attributes:
      transactions, alerts: their numbers.
      note: what is missing of the history; empty if nothing is.
      read: when all features were known, by the monotonic clock; None if there was no such moment.
    """

    transactions: int
    alerts: int
    note: str
    read: float | None


def _score(arguments: argparse.Namespace, config: Config, root: Root, folder: Path) -> _Done:
    """Scores the file by the model in a folder.

    Raises:
      BadInput: see `run`.
      FraudPipelineError: the job on the configured runner of Beam failed.
    """
    from fraud import files
    from fraud.features.batch import feature_names
    from fraud.models.specification import InputSpecification
    from fraud.pipeline.ingestion import reader, to_score
    from fraud.serving.batch import score_table, with_scores
    from fraud.serving.models import LoadedModel

    inputs = InputSpecification.read(folder)
    features = feature_names(inputs.features, inputs.dataset)
    data = files.resolve(arguments.file)
    past = files.resolve(arguments.history) if arguments.history and features else ""
    is_for_beam = config.beam.runner not in (None, "DirectRunner")
    if is_for_beam and (past or not features):  # with a state, it is few transactions
        if past:
            plan = to_score.plan_with_history(data, past, inputs)
        else:
            plan = to_score.plan(data, inputs.dataset)
        if any(map(reader.count_rows, plan.scored.files)):
            return _score_on_beam(arguments, config, folder, plan, inputs)
    note = ""
    with _counting("reading") as progress:
        if past:
            table, note = to_score.read_with_history(data, past, inputs, progress)
        else:
            table = to_score.read(data, inputs.dataset, progress)
            if features:
                table = _with_state(common.state_location(arguments, root), table, inputs)
    read = time.monotonic()
    model = LoadedModel(folder)
    try:
        with _counting("scoring") as progress:
            scored = score_table(model, table, arguments.explain, progress)
    finally:
        model.close()
    _write(iter([with_scores(table, scored, features)]), arguments.out)
    alerts = sum(scored["prediction_alert"].to_pylist())
    return _Done(len(scored), alerts, note, read)


def _score_on_beam(
    arguments: argparse.Namespace,
    config: Config,
    folder: Path,
    plan: ScoringPlan,
    inputs: InputSpecification,
) -> _Done:
    """Scores transactions by the configured runner of Beam.

    Raises:
      BadInput: a transaction cannot be used.
      FraudPipelineError: the job failed.
    """
    from pyarrow import parquet

    from fraud.pipeline.commands.backup import tidy_at_sigterm
    from fraud.pipeline.console import Console

    out = arguments.out.resolve()
    console = Console()
    with tidy_at_sigterm(), _temporary_folder(out) as directory:
        with console.quiet(), console.waiting(f"scoring on {config.beam.runner}"):
            import apache_beam as beam

            from fraud.pipeline.ingestion import partitions, scoring

            settings = scoring.settings(
                plan, inputs, str(directory), folder.resolve(), arguments.explain
            )
            try:
                with beam.Pipeline(argv=config.beam.arguments) as pipeline:
                    scoring.run(pipeline, plan, settings)
            except FraudPipelineError:
                raise
            except Exception as error:
                if bad_input := partitions.bad_input_in(error):
                    raise bad_input from None
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise FraudPipelineError(
                    f"scoring on {config.beam.runner} failed: {reason}\nNothing was written. Its "
                    "log says more; fix the cause and run the same command again."
                ) from error
            parts = scoring.parts(str(directory))
        _write((parquet.read_table(part.path) for part in parts), out)
    rows, alerts = sum(part.rows for part in parts), sum(part.alerts for part in parts)
    return _Done(rows, alerts, plan.note, None)


@contextmanager
def _temporary_folder(out: Path) -> Iterator[Path]:
    """A hidden folder beside the output, where workers on other machines can write as well."""
    import shutil
    import uuid

    folder = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        folder.mkdir()
    except OSError as error:
        raise BadInput(f"--out {out}: cannot be written: {error.strerror}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def live_version(config: Config, root: Root) -> str:
    """The live version.

    Raises:
      BadInput: nothing is live.
    """
    from fraud.pipeline import lineage

    store = lineage.find_store(config.metadata, root)
    champion = store and next(lineage.champions(store, root.pushed), None)
    if not champion:
        raise BadInput(f"nothing is live in {root.path}; push a model first: fraud-pipeline run")
    return champion.version


def _with_state(location: str, table: pa.Table, inputs: InputSpecification) -> pa.Table:
    """The transactions with features from the server's state.

    Raises:
      BadInput: there is no state, or it cannot serve the model.
    """
    import pyarrow as pa

    from fraud.features.batch import feature_names
    from fraud.serving.state import Transactions, open_state

    try:
        state = open_state(location)
        state.check(inputs)
    except BadInput as error:
        raise BadInput(f"{error}; or give earlier transactions: --history DIR") from None
    dataset = inputs.dataset
    assert dataset.timestamp is not None
    parts = []
    try:
        for start in range(0, len(table), _STATE_ROWS):
            rows = table.slice(start, _STATE_ROWS)
            amounts = rows[dataset.amount].to_numpy() if dataset.amount else None
            seen = state.read(
                Transactions(
                    timestamps=rows[dataset.timestamp].to_numpy(),
                    amounts=amounts,
                    entities={name: rows[name] for name in dataset.entities},
                    ids=rows[dataset.id] if dataset.id else None,
                )
            )
            parts.append(pa.table(seen.features(inputs)))
    finally:
        state.close()
    if not parts:
        names = feature_names(inputs.features, dataset)
        parts = [pa.table({name: pa.nulls(0, pa.float32()) for name in names})]
    features = pa.concat_tables(parts)
    for name in features.column_names:
        table = table.append_column(name, features[name])
    return table


def _make_place(out: Path) -> None:
    """Makes the folder of the output.

    Raises:
      BadInput: nothing can be written there.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {out}: cannot be written: {error.strerror}") from None
    if out.is_dir():
        raise BadInput(f"--out {out}: is a folder; name the file to write")


def _check_is_no_input(out: Path, source: str) -> None:
    """Checks that the output replaces no file of an input.

    Raises:
      BadInput: it would.
    """
    from fraud.files import is_uri

    if is_uri(source) or not out.exists():
        return
    place, written = Path(source).resolve(), out.resolve()
    if place == written or place in written.parents:
        raise BadInput(f"--out {out}: is one of the files of {source}; name another file")


def _write(tables: Iterator[pa.Table], out: Path) -> None:
    """Writes one or more tables with the same columns; the file appears once it is whole.

    Their rows are grouped as if they were one, whatever their sizes.
    """
    import errno
    import os

    import pyarrow as pa
    from pyarrow import parquet

    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    pending = next(tables)
    try:
        with parquet.ParquetWriter(temporary, pending.schema) as writer:
            for table in tables:
                pending = pa.concat_tables([pending, table])
                while len(pending) >= _GROUP_ROWS:
                    writer.write_table(pending.slice(0, _GROUP_ROWS))
                    pending = pending.slice(_GROUP_ROWS)
            writer.write_table(pending, _GROUP_ROWS)
        os.replace(temporary, out)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BadInput(f"--out {out}: cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _counting(doing: str) -> Iterator[Callable[[int], None]]:
    """On a terminal, shows how many rows are done, in a line that disappears at the end."""
    if not sys.stderr.isatty():
        yield lambda rows: None
        return

    def show(rows: int) -> None:
        print(f"\r  … {doing}  {rows:,} transactions\x1b[K", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)

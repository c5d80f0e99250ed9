"""`fraud-pipeline score`: score a file of transactions with the live version."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fraud.errors import BadInput
from fraud.pipeline.commands import common
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root

if TYPE_CHECKING:
    import pyarrow as pa

    from fraud.models.specification import InputSpecification

EXAMPLE = """\
  fraud-pipeline score today.parquet --out scored.parquet --history transactions
  fraud-pipeline score today.csv --out scored.parquet --explain

With --history, features are computed from those files as a run would compute them. Without, they
are computed from the server's state, as the server would if each transaction were the next one;
nothing is recorded in it.
"""

_STATE_ROWS = 2000
"""Transactions whose histories are read from the state at once."""


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

    from fraud import files
    from fraud.features.batch import feature_names
    from fraud.models.specification import InputSpecification
    from fraud.pipeline.ingestion import to_score
    from fraud.serving.batch import score_table
    from fraud.serving.models import LoadedModel

    folder, started = root.pushed / version, time.monotonic()
    inputs = InputSpecification.read(folder)
    data = files.resolve(arguments.file)
    note = ""
    with _counting("reading") as progress:
        if not feature_names(inputs.features, inputs.dataset):
            table = to_score.read(data, inputs.dataset, progress)
        elif arguments.history:
            past = files.resolve(arguments.history)
            table, note = to_score.read_with_history(data, past, inputs, progress)
        else:
            table = to_score.read(data, inputs.dataset, progress)
            table = _with_state(common.state_location(arguments, root), table, inputs)
    read = time.monotonic()
    model = LoadedModel(folder)
    try:
        with _counting("scoring") as progress:
            scored = score_table(model, table, arguments.explain, progress)
    finally:
        model.close()
    _write(table, scored, feature_names(inputs.features, inputs.dataset), arguments.out)
    seconds = {"features": read - started, "total": time.monotonic() - started}
    alerts = sum(scored["prediction_alert"].to_pylist())
    if arguments.json:
        document = {
            "out": str(arguments.out),
            "version": version,
            "transactions": len(scored),
            "alerts": alerts,
            "note": note,
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
        }
        print(json.dumps(document))
    else:
        print(
            f"{arguments.out}: {len(scored):,} transactions scored by version {version}, "
            f"{alerts:,} alerts, in {seconds['total']:.0f} s"
        )
        if note:
            print(f"  note    {note}")
    return 0


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


def _write(table: pa.Table, scored: pa.Table, features: tuple[str, ...], out: Path) -> None:
    """Writes transactions and scores, with times in UTC; the file appears once it is whole."""
    import errno
    import os

    import pyarrow as pa
    from pyarrow import parquet

    columns = [name for name in table.column_names if name not in features]
    for name in scored.column_names:
        if name in columns:
            raise BadInput(f"dataset: column {name!r} has the name of a column that is added")
    both = table.select(columns)
    for index, field in enumerate(both.schema):
        if pa.types.is_timestamp(field.type):
            in_utc = both[field.name].cast(pa.timestamp("us", "UTC"))
            both = both.set_column(index, field.name, in_utc)
    for name in scored.column_names:
        both = both.append_column(name, scored[name])
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        parquet.write_table(both, temporary)
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

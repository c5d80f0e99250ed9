"""`fraud-pipeline schema`: the curated schema, compared with the data of the last run."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path

from fraud.errors import BadInput
from fraud.features.batch import feature_names
from fraud.files import is_uri, write_atomically
from fraud.models.columns import ModelColumns
from fraud.models.specification import INPUTS_COLUMN
from fraud.pipeline.artifacts import statistics_files
from fraud.pipeline.commands import common
from fraud.pipeline.config import Config
from fraud.pipeline.console import Console
from fraud.pipeline.root import Root
from fraud.pipeline.windows import LABELLED_SPLITS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command and its options."""
    common.example(
        parser,
        "Print the curated schema, or compare it with the data of the last run, or update it so\n"
        "that this data is accepted. Review the change like code.",
        "  fraud-pipeline schema --diff\n  fraud-pipeline schema --update",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--diff", action="store_true", help="show what --update would change")
    what.add_argument("--update", action="store_true", help="write the change into the schema file")
    common.add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints, compares or updates.

    Raises:
      BadInput: no schema is configured, it cannot be read, or there has been no run yet.
    """
    config, root = common.config_and_root(arguments)
    location = config.schema_location
    if location is None:
        raise BadInput(
            "no curated schema is configured: set paths.schema in the configuration to the file "
            "that should hold it, then `fraud-pipeline schema --update` writes it"
        )
    if is_uri(location):
        raise BadInput(f"paths.schema: {location} is a URI; this command needs a local file")
    path = Path(location)
    if not (arguments.diff or arguments.update):
        print(_read(path), end="")
        return 0
    if arguments.update and config.paths.schema is None:
        raise BadInput(
            f"{path}: this schema comes with the program and is not yours to change; set "
            "paths.schema in a configuration to a file of your own, and name it by --config"
        )
    before = _read(path) if path.exists() else ""
    with Console().quiet():
        _check_same_columns(config, root)
        after = updated(before, config, root, path)
    changes = difflib.unified_diff(
        before.splitlines(), after.splitlines(), str(path), "the last run's data", lineterm=""
    )
    shown = "\n".join(changes)
    print(shown or f"{path}: the data of the last run fits the schema")
    if arguments.update and shown:
        if path.exists() and _read(path) != before:
            raise BadInput(f"{path}: edited meanwhile; update it again")
        is_windows = path.exists() and b"\r\n" in path.read_bytes()
        write_atomically(path, after.replace("\n", "\r\n") if is_windows else after)
        print(
            f"\n{path} is updated; review it, then run again: "
            f"fraud-pipeline run{common.options_given(arguments)}"
            f"{'' if config.paths.data else ' --data PATH'}"
        )
    return 0


def updated(before: str, config: Config, root: Root, path: Path) -> str:
    """The schema changed as little as makes the last run's data valid; inferred if there was none.

    Columns that it does not know yet get the tolerance of an inferred schema.

    Args:
      before: the curated schema as text, "" if there is none.
      config: names the label, whose column is judged only in windows whose labels are known.
      root: where the last run is.
      path: the schema's file, for messages.

    Raises:
      BadInput: the schema cannot be parsed or changed in place, or there has been no run.
    """
    files, label = _last_statistics(config, root), config.dataset.label
    derived = set(feature_names(config.features, config.dataset))
    columns = ModelColumns.of(config.dataset, config.features)
    import tensorflow_data_validation as tfdv
    from google.protobuf import text_format

    from fraud.pipeline import schemas

    try:
        schema = schemas.parsed(before) if before else None
        for split, file in files.items():
            statistics = tfdv.load_stats_binary(str(file))
            earlier = schema
            if earlier is None:
                schema = tfdv.infer_schema(statistics, infer_feature_shape=False)
            else:
                schema = tfdv.update_schema(earlier, statistics)
            reviewed = {feature.name for feature in earlier.feature} if earlier else set()
            inferred = {feature.name for feature in schema.feature} - reviewed
            numeric, categorical = inferred & {*columns.numeric}, inferred & {*columns.categorical}
            schema = schemas.typed(schema, numeric, categorical)
            schemas.list_categories(schema, statistics, categorical)
            for feature in schema.feature:
                if feature.name in inferred & derived:  # it is missing where it is undefined
                    feature.presence.ClearField("min_fraction")
            schemas.tolerate(schema, inferred)
            if split not in LABELLED_SPLITS and label in reviewed:
                tfdv.get_feature(schema, label).CopyFrom(tfdv.get_feature(earlier, label))
        if before:
            return schemas.edited(before, schema)
        return text_format.MessageToString(schema, as_utf8=True)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def _check_same_columns(config: Config, root: Root) -> None:
    """Checks that the last run had the columns of this configuration.

    Raises:
      BadInput: it had others, so it was made with another configuration.
    """
    import tensorflow_data_validation as tfdv

    statistics = tfdv.load_stats_binary(str(_last_statistics(config, root)["train"]))
    described = {feature.path.step[0] for feature in statistics.datasets[0].features}
    described -= {name for name in described if name.startswith(INPUTS_COLUMN)}
    wanted = {*config.dataset.columns, *feature_names(config.features, config.dataset)}
    differ = [
        f"{what}: {', '.join(sorted(names)[:5])}{', …' if len(names) > 5 else ''}"
        for what, names in (("only there", described - wanted), ("only here", wanted - described))
        if names
    ]
    if differ:
        raise BadInput(
            f"the last run in {root.path} had other columns than this configuration "
            f"({'; '.join(differ)}); give the --config and --root of that run, or run again"
        )


def _last_statistics(config: Config, root: Root) -> dict[str, Path]:
    from fraud.pipeline import lineage

    store = lineage.find_store(config.metadata, root)
    if store is not None:
        for run_id in reversed(lineage.runs(store)):
            statistics = lineage.artifacts_of_run(store, run_id, "ExampleStatistics")
            if statistics and lineage.is_kept(statistics[-1]):
                return statistics_files(statistics[-1])
    raise BadInput(
        f"{root.path}: no run has described any data yet; `fraud-pipeline run` does, and the data "
        "gate then says whether it fits"
    )


def _read(path: Path) -> str:
    from fraud.pipeline import schemas

    try:
        return schemas.read(path)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None

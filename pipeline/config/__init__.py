"""The configuration: one frozen dataclass tree, read from YAML files.

Every default is in these dataclasses (and in the ones of `fraud.features.spec` and `fraud.models.spec` that
they hold). A file names only what differs. Whatever is wrong with a file is said in one message
with the key, the value and the fix, before any work is done.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from fraud.errors import BadInput
from fraud.features.spec import Dataset, Features
from fraud.models.spec import Evaluation, Network, Tuning

STORES = ("sqlite", "mysql")

PACKAGED_SCHEMA = Path(str(resources.files("fraud.schema") / "schema.pbtxt"))

T = TypeVar("T")


@dataclass(frozen=True)
class WindowLengths:
    """Lengths in days of the windows that `fraud.pipeline.windows` derives from the as-of day.

    Attributes:
      train_days, eval_days: of the windows whose labels are known.
      label_delay_days: days until a transaction's label may be used.
      max_empty_days: days without a single transaction that are tolerated in each window.
      hash_eval_percent: where the data has no timestamp, the share of rows that become eval.
    """

    train_days: int = 30
    eval_days: int = 7
    label_delay_days: int = 7
    max_empty_days: int = 0
    hash_eval_percent: int = 20


@dataclass(frozen=True)
class DataGate:
    """What stops a run before anything is trained.

    Attributes:
      severity: anomalies of this severity or above stop the run: "error" or "warning".
      max_drift: Jensen-Shannon divergence in [0, 1] of a column's distribution (recent and train
        against the champion's train) above which it is an anomaly. It holds for the columns of
        the data that the model reads: amount, numeric and categorical ones.
      drift_thresholds: column or feature → its own threshold. Features are judged only if named
        here: TFDV approximates the divergence by histograms, and for a feature that is nearly
        always 0 (the risk of a terminal) chance alone moves it far.
    """

    severity: str = "error"
    max_drift: float = 0.3
    drift_thresholds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelCard:
    """What the card of each pushed model says that no run can find out.

    Attributes:
      owners: who answers for the model: names, addresses.
      intended_use: what it is for, and what not.
      limits: where not to rely on it.
      ethics: whom it may harm, and what is done about it.
    """

    owners: tuple[str, ...] = ()
    intended_use: str = (
        "To rank card transactions by how likely they are fraud, so that analysts check the most "
        "suspicious cards of a day first. A person decides what happens to a card; the score alone "
        "should refuse nobody."
    )
    limits: tuple[str, ...] = (
        "It knows the kinds of fraud of its train window; a new kind is found only as far as it "
        "resembles them.",
        "Fraud that nobody noticed counts as genuine, in training and in these figures.",
        "The threshold fits the train window's number of cards and transactions: where they grow, "
        "so do the alerts.",
        "Scores are for customers and terminals of the bank whose data it learned from.",
    )
    ethics: tuple[str, ...] = (
        "A false alert burdens a genuine customer. Compare the figures of the slices; a group "
        "whose genuine transactions alert more often carries more of that burden.",
        "A column can stand for a protected trait or for where people live. Leave such columns "
        "out, or make slices of them.",
        "A score is no proof. Whoever is refused something should hear the reason and be able to "
        "object.",
    )


@dataclass(frozen=True)
class Paths:
    """Where things lie. Relative paths in a file are relative to that file.

    Attributes:
      data: day folders `date=YYYY-MM-DD/*.parquet|csv|csv.gz`, or one file; `--data` goes before.
      root: everything a run leaves; `--root` goes before.
      schema: the curated schema. None: the packaged one for the built-in dataset and features, and
        for any other the schema inferred from the train window, which the verdict then says.
    """

    data: str | None = None
    root: str = "fraud-root"
    schema: str | None = None


@dataclass(frozen=True)
class Metadata:
    """Where ML Metadata is kept.

    Attributes:
      store: "sqlite" (a file in the root) or "mysql" (MariaDB too). On a server nodes of a run may
        be at work side by side. One database belongs to one root.
      host, port, database, user: of the server. The database is created
        if it does not exist. The password comes from the environment: FRAUD_METADATA_PASSWORD.
    """

    store: str = "sqlite"
    host: str = "localhost"
    port: int = 3306
    database: str = "fraud_metadata"
    user: str = "fraud"


@dataclass(frozen=True)
class Beam:
    """Where the nodes that read all rows do their work.

    Attributes:
      runner: a Beam runner: DirectRunner, PrismRunner, FlinkRunner, SparkRunner, DataflowRunner, …
        None: in the node's own process.
      options: further options of Beam, as on its command line: `--parallelism=8`.
    """

    runner: str | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """Everything that a run depends on, besides the data and the code."""

    dataset: Dataset = Dataset()
    windows: WindowLengths = WindowLengths()
    features: Features = Features()
    data_gate: DataGate = field(default_factory=DataGate)
    network: Network = Network()
    tuning: Tuning = Tuning()
    evaluation: Evaluation = Evaluation()
    model_card: ModelCard = ModelCard()
    paths: Paths = Paths()
    metadata: Metadata = Metadata()
    beam: Beam = Beam()

    @property
    def curated_schema(self) -> Path | None:
        """The schema file that data is validated against, or None for an inferred one."""
        if self.paths.schema is not None:
            return Path(self.paths.schema)
        built_in = Config()
        if (self.dataset, self.features) == (built_in.dataset, built_in.features):
            return PACKAGED_SCHEMA
        return None


def load(*paths: str | Path) -> Config:
    """Reads a configuration; no file gives the built-in defaults.

    Args:
      paths: files; of two that name the same key the later one counts.

    Raises:
      BadInput: a file cannot be read, or something in it is wrong.
    """
    merged: dict[str, Any] = {}
    for path in map(Path, paths):
        try:
            merged = _merged(merged, _read(path))
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from None
    config = from_dict(Config, merged)
    try:
        check(config)
    except BadInput as error:
        raise BadInput(f"{', '.join(map(str, paths))}: {error}") from None
    return config


def _read(path: Path) -> dict[str, Any]:
    """One file's keys and values, of the right names and types, its paths relative to it."""
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise BadInput(f"cannot read the configuration: {reason}") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f"line {where.line + 1}: " if where else ""
        raise BadInput(f"{line}not valid YAML: {getattr(error, 'problem', error)}") from None
    from_dict(Config, document)  # so that what is wrong is said of this file
    paths = document.get("paths") or {}
    document["paths"] = {k: v and str(path.parent / v) for k, v in paths.items()}
    return document


def _merged(first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """Nested keys and values of both; `then` goes before."""
    both = {**first, **then}
    for key in first.keys() & then.keys():
        if isinstance(first[key], dict) and isinstance(then[key], dict):
            both[key] = _merged(first[key], then[key])
    return both


def check(config: Config) -> None:
    """Checks what types alone cannot.

    Raises:
      BadInput: naming key, value and fix.
    """
    from fraud import features

    dataset, windows, gate = config.dataset, config.windows, config.data_gate
    network, evaluation = config.network, config.evaluation
    if config.metadata.store not in STORES:
        raise BadInput(
            f"metadata.store: {config.metadata.store!r} is not one of {', '.join(STORES)}"
        )
    _between("metadata.port", config.metadata.port, 0, 65535)
    for option in config.beam.options:
        if not option.startswith("--") or option.startswith("--runner"):
            raise BadInput(
                f"beam.options: {option!r}; write options as --name=value, and the runner as "
                "beam.runner"
            )
    if config.beam.options and config.beam.runner is None:
        raise BadInput("beam.options: they need a beam.runner; DirectRunner is the local one")
    _at_least("windows.train_days", windows.train_days, 1)
    _at_least("windows.eval_days", windows.eval_days, 1)
    _at_least("windows.label_delay_days", windows.label_delay_days, 0)
    _at_least("windows.max_empty_days", windows.max_empty_days, 0)
    _between("windows.hash_eval_percent", windows.hash_eval_percent, 1, 99)
    if gate.severity not in ("error", "warning"):
        raise BadInput(f"data_gate.severity: {gate.severity!r} is not one of error, warning")
    _between("data_gate.max_drift", gate.max_drift, 0, 1)
    for column, threshold in gate.drift_thresholds.items():
        _between(f"data_gate.drift_thresholds.{column}", threshold, 0, 1)
    _check_network("network", network)
    _at_least("tuning.trials", config.tuning.trials, 1)
    for name, values in config.tuning.choices.items():
        for value in values:
            _check_network("tuning", dataclasses.replace(network, **{name: value}))
    _at_least("evaluation.alert_budget", evaluation.alert_budget, 1)
    for name in ("average_precision", "roc_auc", "recall_at_budget"):
        _between(f"evaluation.min_{name}", getattr(evaluation, f"min_{name}"), 0, 1)
        drop = f"max_{name}_drop"
        _between(f"evaluation.{drop}", getattr(evaluation, drop), 0, 1)
    for name in ("max_slice_recall_gap", "max_slice_fpr_gap", "saved_share"):
        _between(f"evaluation.{name}", getattr(evaluation, name), 0, 1)
    _at_least("evaluation.min_slice_examples", evaluation.min_slice_examples, 1)
    _at_least("evaluation.check_cost", evaluation.check_cost, 0)
    features.check(config.features, dataset)
    drifting = {*dataset.columns} - {dataset.id, dataset.timestamp, dataset.label}
    known = drifting | {*features.feature_names(config.features, dataset)}
    for column in gate.drift_thresholds:
        if column not in known:
            raise BadInput(
                f"data_gate.drift_thresholds: {column!r} is no column of dataset and no feature"
            )
    roles = {"timestamp", "amount", "label", "id", "card"}
    single = [(role, getattr(dataset, role)) for role in roles if getattr(dataset, role)]
    lists = [(r, c) for r in ("entities", "numeric", "categorical") for c in getattr(dataset, r)]
    seen: dict[str, str] = {}
    for role, column in [*single, *lists]:
        if role == "card":
            continue
        if column in seen:
            raise BadInput(
                f"dataset.{role}: column {column!r} is already dataset.{seen[column]}; "
                "a column has one role"
            )
        seen[column] = role
    named: dict[str, str] = {}
    for column in (c for c in (dataset.amount, *dataset.numeric, *dataset.categorical) if c):
        other = named.setdefault(re.sub(r"[^A-Za-z0-9_]", "_", column), column)
        if other != column:
            raise BadInput(
                f"dataset: {other!r} and {column!r} are one name where the model is served, which "
                "allows only letters, digits and _; rename one"
            )
    if dataset.card and dataset.card not in dataset.entities:
        raise BadInput(f"dataset.card: {dataset.card!r} is not in dataset.entities")
    for column in dataset.slices:
        if column in (dataset.label, dataset.id, dataset.timestamp, dataset.amount):
            raise BadInput(f"dataset.slices: {column!r} has a value per row; name a category")
    if not (
        dataset.amount
        or dataset.numeric
        or dataset.categorical
        or features.feature_names(config.features, dataset)
    ):
        raise BadInput(
            "dataset: nothing to learn from; name an amount, numeric or categorical columns"
        )


def _check_network(at: str, network: Network) -> None:
    for name in ("bins", "embedding_dim", "vocabulary_size", "oov_buckets", "batch_size", "epochs"):
        _at_least(f"{at}.{name}", getattr(network, name), 1)
    _at_least(f"{at}.patience", network.patience, 1)
    _at_least(f"{at}.towers", len(network.towers), 1)
    for units in (units for tower in network.towers for units in tower):
        _at_least(f"{at}.towers", units, 1)
    _between(f"{at}.dropout", network.dropout, 0, 0.99)
    _between(f"{at}.ema_momentum", network.ema_momentum, 0, 1)
    _between(f"{at}.validation_percent", network.validation_percent, 1, 50)
    if network.focal_gamma != 0:  # below 1 the gradient of a score that is sure is infinite
        _at_least(f"{at}.focal_gamma", network.focal_gamma, 1)
    for name in ("learning_rate", "positive_weight"):
        if not getattr(network, name) > 0:
            raise BadInput(f"{at}.{name}: {getattr(network, name)} must be above 0")
    _at_least(f"{at}.weight_decay", network.weight_decay, 0)


def from_dict(kind: type[T], document: Any, at: str = "") -> T:
    """Makes a dataclass of `kind` out of plain YAML values.

    Raises:
      BadInput: an unknown key or a wrong type, named by its dotted key.
    """
    if not isinstance(document, dict):
        raise BadInput(f"{at or 'the document'}: expected keys and values, got {document!r}")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    values = {}
    for key, value in document.items():
        name = f"{at}.{key}" if at else str(key)
        if key not in known:
            import difflib

            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise BadInput(f"{name}: unknown key; {hint}")
        values[key] = _coerce(hints[key], value, name)
    return kind(**values)


def to_json(value: Any) -> str:
    """Canonical JSON of a dataclass tree, to hand to a component."""
    return json.dumps(dataclasses.asdict(value), sort_keys=True)


def _coerce(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), {} if value is None else value, name)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = [a for a in arguments if a is not type(None)]
        return _coerce(inner, value, name)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise BadInput(f"{name}: expected a list, got {value!r}")
        return tuple(_coerce(arguments[0], v, f"{name}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise BadInput(f"{name}: expected keys and values, got {value!r}")
        return {str(k): _coerce(arguments[1], v, f"{name}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        raise BadInput(f"{name}: expected {words[hint]}, got {value!r}")
    return value


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise BadInput(f"{name}: {value} is too small; the least is {least}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise BadInput(f"{name}: {value} is out of range; use {low} to {high}")

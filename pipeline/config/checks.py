"""Rules that involve more than one key of the configuration."""

from __future__ import annotations

from fraud.errors import BadInput
from fraud.features.spec import Dataset
from fraud.names import check_column, input_name
from fraud.pipeline.config.sections import Beam, Config, Metadata
from fraud.time import TIME_UNITS, check_timezone


def check(config: Config) -> None:
    """Checks what the types and ranges of single keys cannot express.

    Raises:
      BadInput: naming key, value and fix.
    """
    from fraud.features.batch import check_features, feature_names
    from fraud.pipeline.drift import ROWS

    _check_beam(config.beam)
    try:
        check_timezone(config.dataset.timezone)
    except BadInput as error:
        raise BadInput(f"dataset.timezone: {error}") from None
    _check_formats(config.dataset)
    _check_tls(config.metadata)
    if 0 < config.network.focal_gamma < 1:  # the gradient of a certain score would be infinite
        raise BadInput(
            f"network.focal_gamma: {config.network.focal_gamma} is too small; the least is 1, and "
            "0 means plain cross-entropy"
        )
    check_features(config.features, config.dataset)
    dataset = config.dataset
    generated = feature_names(config.features, dataset)
    _check_columns(dataset, generated)
    can_drift = {*dataset.columns, *generated} - {dataset.id, dataset.timestamp}
    can_drift -= {dataset.label, dataset.label_time}
    for column in config.data_gate.drift_thresholds:
        if column not in (*can_drift, ROWS):
            raise BadInput(
                f"data_gate.drift_thresholds: {column!r} is no column of dataset, no feature and "
                f"not {ROWS}"
            )
    config.alerts.check()
    warn, act = config.monitoring.warn_probability, config.monitoring.act_probability
    if warn > act:
        raise BadInput(
            f"monitoring.warn_probability: {warn} is above monitoring.act_probability, {act}; "
            "lower it, or nothing would ever warn"
        )
    log = config.serving.prediction_log
    log.check(dataset)
    for name in log.drop:
        if name not in (*dataset.columns, *generated):
            raise BadInput(
                f"serving.prediction_log.drop: {name!r} is no column of dataset and no feature"
            )


def _check_beam(beam: Beam) -> None:
    for option in beam.options:
        if not option.startswith("--") or option.startswith("--runner"):
            raise BadInput(
                f"beam.options: {option!r}; write options as --name=value, and the runner as "
                "beam.runner"
            )
    if beam.options and beam.runner is None:
        raise BadInput("beam.options: they need a beam.runner; DirectRunner is the local one")


def _check_formats(dataset: Dataset) -> None:
    try:
        "a".encode(dataset.csv_encoding)  # unlike codecs.lookup, it refuses hex, bz2 and the like
    except (LookupError, ValueError):
        raise BadInput(
            f"dataset.csv_encoding: {dataset.csv_encoding!r} is no encoding that Python "
            "knows, such as utf-8 or cp1252"
        ) from None
    if dataset.csv_delimiter == dataset.csv_decimal:
        raise BadInput(
            f"dataset.csv_delimiter: {dataset.csv_delimiter!r} is the decimal mark, too; correct "
            "one of them"
        )
    if dataset.label_values and len(set(dataset.label_values)) == 1:
        raise BadInput("dataset.label_values: give genuine and fraud different spellings")
    if dataset.time_format is not None:
        if dataset.timestamp is None:
            raise BadInput("dataset.time_format: it needs dataset.timestamp; set that")
        if "%" not in dataset.time_format and dataset.time_format not in TIME_UNITS:
            raise BadInput(
                f"dataset.time_format: {dataset.time_format!r} has no directive such as %Y, and is "
                f"none of {', '.join(TIME_UNITS)}"
            )


def _check_tls(metadata: Metadata) -> None:
    if (metadata.tls_certificate is None) != (metadata.tls_key is None):
        raise BadInput("metadata.tls_certificate and metadata.tls_key: give both, or neither")
    if metadata.tls_certificate and not metadata.tls_ca:
        raise BadInput("metadata.tls_certificate: give metadata.tls_ca, too, to know the server by")
    if metadata.tls_ca and metadata.host == "localhost":
        raise BadInput(
            "metadata.host: localhost is reached through a socket, without TLS; name the server as "
            "its certificate does"
        )


def _check_name(role: str, column: str) -> None:
    try:
        check_column(column)
    except BadInput as error:
        raise BadInput(f"dataset.{role}: {error}") from None


def _check_columns(dataset: Dataset, generated: tuple[str, ...]) -> None:
    """Checks the roles and names of the columns, given the names of the `generated` features."""
    roles: dict[str, str] = {}
    single = ("timestamp", "amount", "label", "label_time", "id")
    for role in (*single, "entities", "numeric", "categorical"):
        value = getattr(dataset, role)
        for column in (value,) if isinstance(value, str) else value or ():
            _check_name(role, column)
            # An entity may also be read as a category, if the model shall know its values by name.
            if column in roles and (roles[column], role) != ("entities", "categorical"):
                raise BadInput(
                    f"dataset.{role}: column {column!r} is already dataset.{roles[column]}; "
                    "a column has one role"
                )
            roles[column] = role
    for column in dataset.columns:
        if column in generated:
            role = roles.get(column, "slices")
            raise BadInput(
                f"dataset.{role}: column {column!r} has the name of the generated feature "
                f"{column!r}; rename the column, or remove the feature from features"
            )
    inputs: dict[str, str] = {}
    for column in (c for c in (dataset.amount, *dataset.numeric, *dataset.categorical) if c):
        other = inputs.setdefault(input_name(column), column)
        if other != column:
            raise BadInput(
                f"dataset: {other!r} and {column!r} are both {input_name(column)!r} where the "
                "model is served, which allows only letters, digits and _; rename one"
            )
    if dataset.label_time and not dataset.timestamp:
        raise BadInput("dataset.label_time: it needs dataset.timestamp; set that, or remove this")
    for column in dataset.slices:
        _check_name("slices", column)
    if dataset.card and dataset.card not in dataset.entities:
        raise BadInput(f"dataset.card: {dataset.card!r} is not in dataset.entities")
    for column in dataset.slices:
        if column in {getattr(dataset, role) for role in single}:
            raise BadInput(f"dataset.slices: {column!r} has a value per row; name a category")
    if not (dataset.amount or dataset.numeric or dataset.categorical or generated):
        raise BadInput(
            "dataset: nothing to learn from; name an amount, numeric or categorical columns"
        )

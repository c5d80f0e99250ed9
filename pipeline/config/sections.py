"""The sections of the configuration: every key with its type, range, default and meaning."""

from __future__ import annotations

import os
from dataclasses import field
from datetime import date
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from fraud import files
from fraud.codec import STRICT, Count, Share
from fraud.features.spec import Dataset, Features
from fraud.models.spec import Evaluation, Network, Tuning
from fraud.monitoring.policy import AlertSettings, LoopSettings
from fraud.monitoring.spec import Monitoring
from fraud.serving.spec import Serving

if TYPE_CHECKING:
    from fraud.models.specification import InputSpecification

PACKAGED_SCHEMA = str(resources.files("fraud.schema") / "schema.pbtxt")


@dataclass(frozen=True, config=STRICT)
class WindowLengths:
    """Lengths of the windows that a run derives from the as-of day."""

    train_days: Count = 30
    """Length of the train window, in days."""
    eval_days: Count = 7
    """Length of the eval window, in days."""
    label_delay_days: NonNegativeInt = 7
    """Days until the label of a transaction may be used."""
    max_empty_days: NonNegativeInt = 0
    """Days without any transaction tolerated in each window."""
    excluded_days: tuple[date, ...] = ()
    """Days whose transactions are neither trained nor evaluated on, because their data is broken;
    features of other days still look back on them."""
    hash_eval_percent: Annotated[int, Field(ge=1, le=99)] = 20
    """Percentage of rows assigned to eval if the data has no timestamp."""


@dataclass(frozen=True, config=STRICT)
class DataGateSettings:
    """The anomalies that stop a run before anything is trained."""

    severity: Literal["error", "warning"] = "error"
    """Lowest severity of an anomaly that stops the run."""
    empty_columns: Literal["ignore", "refuse"] = "ignore"
    """What to do if a column or feature that the model reads has no value at all in the train
    window: `ignore` it, which the run notes, or `refuse` the data."""
    max_drift: Share | None = None
    """Threshold of every drift measure of every column; null derives each threshold from how much
    the days and weeks of the baseline vary."""
    drift_thresholds: dict[str, Share] = field(default_factory=dict)
    """Thresholds by column or feature, for each of its drift measures, or of `rows_per_day`; 1
    allows any change, and features are checked for drift only if named here."""
    reference_run: str | None = None
    """The run whose train window is the fixed reference for drift; null means the run that pushed
    the first model of the root."""


@dataclass(frozen=True, config=STRICT)
class ReleaseSettings:
    """What may be pushed although something speaks against it; the push records that."""

    push_replays: bool = False
    """Push a blessed model even if its as-of day is not later than the live one's;
    `--push-replays` turns it on for one run."""
    accept_unjudged_champion: bool = False
    """Push a blessed model even if it could not be compared with the live one;
    `--accept-unjudged-champion` turns it on for one run."""
    probation: bool = False
    """Do not push a model that may be pushed: the loop tries it in the shadow first."""


@dataclass(frozen=True, config=STRICT)
class ModelCardText:
    """The parts of a pushed model's card that no run can find out."""

    owners: tuple[str, ...] = ()
    """People or teams responsible for the model, with addresses."""
    intended_use: str | None = None
    """What the model is for, and what it is not for; null means a text that suits the dataset."""
    limits: tuple[str, ...] | None = None
    """Situations in which the model should not be relied on; null as before."""
    ethics: tuple[str, ...] | None = None
    """Who may be harmed by the model, and what is done about it; null as before."""


@dataclass(frozen=True, config=STRICT)
class Paths:
    """Locations; a relative path in a file is relative to that file, and `~` is the home folder."""

    data: str | None = None
    """Day folders `date=YYYY-MM-DD/*.parquet|csv|csv.gz`, or one file; `--data` overrides it."""
    root: str = "fraud-root"
    """Folder for everything that runs produce, local or mounted; `--root` overrides it."""
    schema: str | None = None
    """Curated schema file; while it does not exist, a run infers the schema from its train window
    and writes it there for review; null means the packaged one for the built-in dataset and
    features, and otherwise a schema inferred by each run."""


@dataclass(frozen=True, config=STRICT)
class Metadata:
    """The ML Metadata store; each root needs a database of its own."""

    store: Literal["sqlite", "mysql"] = "sqlite"
    """`sqlite` is a file in the root; `mysql` (or MariaDB) is a server, which lets nodes of a run
    work in parallel."""
    host: str = "localhost"
    """Host name of the server."""
    port: Annotated[int, Field(ge=0, le=65535)] = 3306
    """Port of the server."""
    database: str = "fraud_metadata"
    """Name of the database, which is created if it does not exist."""
    user: str = "fraud"
    """User name; the password comes from the environment variable `FRAUD_METADATA_PASSWORD`."""
    tls_ca: str | None = None
    """File with the certificates (PEM) of authorities, one of which must have signed the server's;
    null means no TLS; a relative path is relative to the configuration file."""
    tls_certificate: str | None = None
    """File with this client's certificate (PEM), if the server asks for one."""
    tls_key: str | None = None
    """File with the key of that certificate (PEM), without a passphrase."""


TLS_FILES = {"tls_ca", "tls_certificate", "tls_key"}
"""The keys of `Metadata` that are paths."""


@dataclass(frozen=True, config=STRICT)
class Tracking:
    """Where finished runs are sent, for people who compare experiments in MLflow."""

    uri: str | None = None
    """MLflow's tracking server; null means the environment variable `MLFLOW_TRACKING_URI`, and
    without that, nothing is sent; user and password come from MLflow's own variables."""
    experiment: str = "fraud"
    """Name of the experiment."""
    model: str = "fraud"
    """Name of the registered model, whose alias `champion` is the version in production."""


@dataclass(frozen=True, config=STRICT)
class Beam:
    """Where the nodes that read all rows run, and batch scoring."""

    runner: str | None = None
    """Beam runner, such as DirectRunner, PrismRunner, FlinkRunner, SparkRunner or DataflowRunner;
    null means the process of the node itself."""
    options: tuple[str, ...] = ()
    """Further options as on Beam's command line, as `--parallelism=8`."""

    @property
    def arguments(self) -> list[str]:
        """Beam's command line; empty to run in the process of each node.

        Given any argument, TFX builds a package of itself for the workers at each node.
        """
        return [] if self.runner is None else [f"--runner={self.runner}", *self.options]


@dataclass(frozen=True, config=STRICT)
class Config:
    """Everything a run depends on, apart from the data and the code."""

    dataset: Dataset = Dataset()
    windows: WindowLengths = WindowLengths()
    features: Features = Features()
    data_gate: DataGateSettings = field(default_factory=DataGateSettings)
    network: Network = Network()
    tuning: Tuning = Tuning()
    evaluation: Evaluation = Evaluation()
    release: ReleaseSettings = ReleaseSettings()
    model_card: ModelCardText = ModelCardText()
    serving: Serving = field(default_factory=Serving)
    loop: LoopSettings = LoopSettings()
    alerts: AlertSettings = AlertSettings()
    monitoring: Monitoring = Monitoring()
    paths: Paths = Paths()
    metadata: Metadata = Metadata()
    tracking: Tracking = Tracking()
    beam: Beam = Beam()

    @property
    def inputs(self) -> InputSpecification:
        """What the inputs of a model trained by this configuration are computed from."""
        from fraud.models.specification import InputSpecification

        return InputSpecification(self.dataset, self.features, self.windows.label_delay_days)

    @property
    def curated_schema(self) -> str | None:
        """Path or URI of the schema that data is validated against.

        None if it is inferred, as it is while its file does not exist.
        """
        location = self.schema_location
        # Files give absolute paths; a relative one is that of the copy next to a compiled graph.
        if location is None or files.is_uri(location) or not os.path.isabs(location):
            return location
        return location if os.path.exists(location) else None

    @property
    def schema_location(self) -> str | None:
        """Path or URI where the curated schema is, or will be; None if there is to be none."""
        if self.paths.schema is not None:
            return self.paths.schema
        if (self.dataset, self.features) == (Dataset(), Features()):
            return PACKAGED_SCHEMA
        return None

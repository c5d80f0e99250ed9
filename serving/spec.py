"""How models are served: the configuration that `serving` reads."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import Field, PositiveFloat
from pydantic.dataclasses import dataclass

from fraud.codec import STRICT, Count
from fraud.errors import BadInput
from fraud.features.spec import Dataset


@dataclass(frozen=True, config=STRICT)
class PredictionLogSettings:
    """What the server records of every transaction that it scores; see docs/prediction-log.md."""

    enabled: bool = True
    """Whether predictions are logged."""
    flush_seconds: PositiveFloat = 1.0
    """Seconds between writes to disk: what is lost at most when the server is killed."""
    file_seconds: PositiveFloat = 600.0
    """Seconds that a Parquet file covers; only then can others read it."""
    file_rows: Count = 50_000
    """Predictions after which a Parquet file is written early; bounds the memory that takes."""
    pending_rows: Count = 20_000
    """Predictions that wait in memory at most, if the disk is slow; those beyond are not logged,
    and counted."""
    retention_days: Count | None = 180
    """Days after scoring at which predictions are deleted; null keeps them."""
    drop: tuple[str, ...] = ()
    """Columns and features that are not logged; not the timestamp."""
    hash: tuple[str, ...] = ()
    """Identifiers and categorical columns that are logged as HMAC-SHA256; the key comes from the
    environment variable `FRAUD_PREDICTION_LOG_KEY`."""

    def check(self, dataset: Dataset) -> None:
        """Checks that the settings fit a dataset.

        Raises:
          BadInput: a column that is to be hashed or dropped is not one that can be.
        """
        names = (dataset.id, *dataset.entities, *dataset.categorical, *dataset.slices)
        for name in self.hash:
            if name not in names:
                raise BadInput(
                    f"serving.prediction_log.hash: {name!r} is no identifier and no categorical "
                    "column of dataset"
                )
        if dataset.timestamp and dataset.timestamp in self.drop:
            raise BadInput(
                f"serving.prediction_log.drop: {dataset.timestamp!r} tells the day of a "
                "prediction; keep it"
            )


@dataclass(frozen=True, config=STRICT)
class ChallengerSettings:
    """A second model that scores live transactions beside the live version."""

    model: str | None = None
    """Folder of a SavedModel, such as that of a run that pushed nothing; null means no challenger;
    a relative path is relative to the configuration file."""
    canary_percent: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Percentage of the cards that the challenger answers, chosen by a hash of the card; for the
    others its score is only logged."""


@dataclass(frozen=True, config=STRICT)
class Limits:
    """What the server takes at most."""

    body_bytes: Count = 16 << 20
    """Bytes of a request; beyond, it is refused with 413."""
    batch_rows: Count = 10_000
    """Transactions of a request; beyond, it is refused with 413."""
    concurrent_requests: Count = 256
    """Requests that a worker answers at a time; beyond, they are refused with 429."""
    timeout_seconds: PositiveFloat = 10.0
    """Seconds until a request that is not answered yet is refused with 504."""
    shutdown_seconds: PositiveFloat = 20.0
    """Seconds that requests get to be answered when the server is stopped."""


@dataclass(frozen=True, config=STRICT)
class Serving:
    """What the server does besides scoring."""

    max_latency_ms: PositiveFloat = 500.0
    """Milliseconds that ServingCheck allows for a raw transaction, as the median of single requests
    on the machine of the run; a model that takes longer is not pushed."""
    prediction_log: PredictionLogSettings = field(default_factory=PredictionLogSettings)
    challenger: ChallengerSettings = field(default_factory=ChallengerSettings)
    limits: Limits = field(default_factory=Limits)

"""The columns of a dataset and the features computed from them: configuration shared by features,
models and pipeline.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass

from fraud.codec import STRICT, Count


@dataclass(frozen=True, config=STRICT)
class Dataset:
    """The columns of the transactions and the role of each."""

    timestamp: str | None = "TX_DATETIME"
    """Time of the transaction; null if the data has none, in which case rows are split by a hash
    and there are no time-based features."""
    amount: str | None = "TX_AMOUNT"
    """Amount of the transaction, in one currency; null if the data has none, in which case there
    are no amount-based features."""
    label: str = "TX_FRAUD"
    """Label: 1 for fraud, 0 for genuine."""
    id: str | None = "TRANSACTION_ID"
    """Unique identifier of the transaction; null skips the uniqueness check."""
    entities: tuple[str, ...] = ("CUSTOMER_ID", "TERMINAL_ID")
    """Parties to a transaction, such as customer, terminal, account or device; analysts check the
    first one, unless `card` names another."""
    card: str | None = None
    """Entity that the alert budget counts; null means the first of `entities`."""
    numeric: tuple[str, ...] = ()
    """Other numeric columns that the model reads."""
    categorical: tuple[str, ...] = ()
    """Other columns that the model reads as categories; an entity may be among them, so that the
    model also knows its most frequent values by name."""
    slices: tuple[str, ...] = ()
    """Columns whose values are each evaluated separately."""
    timezone: str = "UTC"
    """IANA name of the timezone, such as Europe/Berlin, that defines days, nights and weekends, and
    to which timestamps without an offset belong."""
    label_time: str | None = None
    """Moment at which the label became known, empty while it is not, which replaces the label delay
    row by row; null means that every label is known after `windows.label_delay_days`."""

    time_format: str | None = None
    """How `timestamp` and `label_time` are written where it is not as ISO 8601 or as a number since
    1970: with the directives of strptime, such as `%d.%m.%Y %H:%M`, or as a number of `minutes`,
    `hours` or `days` since the data begins."""
    label_values: tuple[str, str] | None = None
    """The spelling of genuine and of fraud in the label's column, in this order, such as `[N, Y]`;
    null means 0 and 1."""
    csv_delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """Character between the fields of CSV files."""
    csv_decimal: Literal[".", ","] = "."
    """Decimal mark of the numbers in CSV files."""
    csv_encoding: str = "utf-8"
    """Encoding of CSV files, as Python names it, such as `cp1252`."""

    @property
    def card_entity(self) -> str | None:
        """The entity an alert is about, or None if the data has no entities."""
        return self.card or (self.entities[0] if self.entities else None)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read from the input, label included, each once, in a fixed order."""
        named = [self.id, self.timestamp, *self.entities, self.card, self.amount]
        named += [*self.numeric, *self.categorical, *self.slices, self.label, self.label_time]
        return tuple(dict.fromkeys(name for name in named if name))


CARD = "card"
"""In `FeatureGroup.entities`: whichever entity is `Dataset.card_entity`."""


@dataclass(frozen=True, config=STRICT)
class FeatureGroup:
    """Families of features computed for entities over windows."""

    families: tuple[str, ...] = ()
    """Names of feature families; see docs/features.md."""
    windows: tuple[Count, ...] = (1, 7, 30)
    """Window lengths in days."""
    entities: tuple[str, ...] | None = None
    """Entities to compute the features for; the word `card` stands for the entity that the alert
    budget counts, and null means all of `dataset.entities`."""


@dataclass(frozen=True, config=STRICT)
class Features:
    """The point-in-time features to compute."""

    calendar: tuple[str, ...] = ("weekend", "night")
    """Features derived from the timestamp alone."""
    groups: tuple[FeatureGroup, ...] = (
        FeatureGroup(("count", "mean", "high_count"), entities=(CARD,)),
        FeatureGroup(
            ("amount_to_mean", "amount_to_median", "amount_to_max", "amount_z"), (30,), (CARD,)
        ),
        FeatureGroup(("known_count", "risk"), (1, 7, 30)),
        FeatureGroup(("fraud_amount",), (7, 30)),
        FeatureGroup(("fraud_streak", "streak_age", "last_labels"), (30,)),
    )
    """Features derived from the history of the entities: a list of `families`, `windows` (days) and
    `entities`."""
    normal_days: Count = 30
    """Days of history that define an entity's normal amount for `high_count`."""
    high_multiple: NonNegativeFloat = 3.0
    """Multiple of the entity's normal amount above which an amount is high."""
    prior_risk: NonNegativeFloat = 0.01
    """Fraud rate that `smoothed_risk` assumes in the absence of known labels."""
    prior_count: PositiveFloat = 10.0
    """Weight of that assumption, as a number of known labels."""
    max_label_delay_days: Count = 90
    """With `dataset.label_time`: labels that took longer do not count in risk features; bounds how
    far back transactions are read."""

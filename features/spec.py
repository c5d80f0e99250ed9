"""What a dataset and its features are: the part of the configuration that features, models and
pipeline all read.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """The columns of the user's transactions.

    Attributes:
      timestamp: when the transaction happened. None: the data has no time; rows are then split by
        a hash and no time-based feature exists.
      amount: what was spent, in one currency. None: no amount-based feature exists.
      label: 1 for fraud, 0 for genuine.
      id: unique per transaction. None: uniqueness is not checked.
      entities: who or what takes part (customer, terminal, account, device, …). The first one is
        the card that analysts check, unless `card` names another.
      card: the entity that the alert budget counts. None: the first of `entities`.
      numeric: other numeric columns the model reads.
      categorical: other columns the model reads as categories.
      slices: columns whose every value is judged by itself in evaluation.
    """

    timestamp: str | None = "TX_DATETIME"
    amount: str | None = "TX_AMOUNT"
    label: str = "TX_FRAUD"
    id: str | None = "TRANSACTION_ID"
    entities: tuple[str, ...] = ("CUSTOMER_ID", "TERMINAL_ID")
    card: str | None = None
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()

    @property
    def card_entity(self) -> str | None:
        """The entity an alert is about, or None where the data has no entities."""
        return self.card or (self.entities[0] if self.entities else None)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read from the input, label included, each once, in a fixed order."""
        named = [self.id, self.timestamp, *self.entities, self.card, self.amount]
        named += [*self.numeric, *self.categorical, *self.slices, self.label]
        return tuple(dict.fromkeys(name for name in named if name))


CARD = "card"
"""In `FeatureGroup.entities`: whichever entity is `Dataset.card_entity`."""


@dataclass(frozen=True)
class FeatureGroup:
    """Families of features computed for entities over windows.

    Attributes:
      families: names of definitions in this package.
      windows: lengths in days.
      entities: for which entities; the word "card" stands for the entity that the alert budget
        counts. None means all of `dataset.entities`.
    """

    families: tuple[str, ...] = ()
    windows: tuple[int, ...] = (1, 7, 30)
    entities: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Features:
    """Which point-in-time features are made.

    Attributes:
      calendar: what is read off the timestamp.
      groups: what is read off the past of the entities.
      normal_days: how long a past `high_count` takes for an entity's normal behaviour.
      high_multiple: an amount is high above so many times the entity's normal amount.
      prior_risk: the share of frauds that `smoothed_risk` expects where nothing is known.
      prior_count: how many known labels that expectation is worth.
    """

    calendar: tuple[str, ...] = ("weekend", "night")
    groups: tuple[FeatureGroup, ...] = (
        FeatureGroup(("count", "mean", "high_count"), entities=(CARD,)),
        FeatureGroup(
            ("amount_to_mean", "amount_to_median", "amount_to_max", "amount_z"), (30,), (CARD,)
        ),
        FeatureGroup(("known_count", "risk"), (1, 7, 30)),
        FeatureGroup(("fraud_amount",), (7, 30)),
        FeatureGroup(("fraud_streak", "streak_age", "last_labels"), (30,)),
    )
    normal_days: int = 30
    high_multiple: float = 3.0
    prior_risk: float = 0.01
    prior_count: float = 10.0

"""What a state remembers, and which models it can serve."""

from __future__ import annotations

from dataclasses import dataclass

from fraud.errors import BadInput
from fraud.features.batch import history_days
from fraud.models.specification import InputSpecification

SLACK_DAYS = 1
"""Rows are kept for this much longer than features look back, so that a transaction that comes up
to this late still has its whole history."""


_ROLES = ("timestamp", "amount", "label", "label_time", "id")


@dataclass(frozen=True)
class StateDefinition:
    """What a state remembers of each transaction, and for how long.

    It has no features: rows are remembered as they came, so one state serves models with different
    features.

    Attributes:
      timestamp, amount, label, label_time, id: the columns of the data, as in `Dataset`.
      entities: the columns whose values have a history.
      history_days: how many days features may look back.
    """

    timestamp: str
    amount: str | None
    label: str
    label_time: str | None
    id: str | None
    entities: tuple[str, ...]
    history_days: int

    @classmethod
    def of(cls, *models: InputSpecification, history_days: int = 0) -> StateDefinition:
        """The state that these models need.

        Args:
          models: at least one. They agree on the columns of the data; entities and days may differ.
          history_days: the least number of days to remember.

        Raises:
          BadInput: the data has no timestamp, or the models disagree.
        """
        dataset = models[0].dataset
        if dataset.timestamp is None:
            raise BadInput(
                "dataset.timestamp is null: without times there are no histories, and no state"
            )
        days = [history_days, *(_history_days(model) for model in models)]
        definition = cls(
            timestamp=dataset.timestamp,
            amount=dataset.amount,
            label=dataset.label,
            label_time=dataset.label_time,
            id=dataset.id,
            entities=tuple(dict.fromkeys(e for model in models for e in model.dataset.entities)),
            history_days=max(days),
        )
        for model in models:
            definition.check(model)
        return definition

    @property
    def kept_days(self) -> int:
        """For how many days before the newest transaction rows are kept."""
        return self.history_days + SLACK_DAYS

    def same_data(self, other: StateDefinition) -> bool:
        """Whether both are of the same columns, but for entities."""
        return all(getattr(self, role) == getattr(other, role) for role in _ROLES)

    def check(self, model: InputSpecification) -> None:
        """Checks that this state has all that a model's features are computed from.

        Raises:
          BadInput: it has not; says what is missing and how to rebuild the state.
        """
        dataset = model.dataset
        if dataset.timestamp is None:
            return
        rebuild = "rebuild it: fraud-pipeline state build"
        for role in _ROLES:
            ours, theirs = getattr(self, role), getattr(dataset, role)
            if ours != theirs:
                raise BadInput(
                    f"the state has dataset.{role} {ours}, but the model {theirs}; {rebuild}"
                )
        for entity in dataset.entities:
            if entity not in self.entities:
                raise BadInput(f"the state has no histories of {entity}; {rebuild}")
        if (needed := _history_days(model)) > self.history_days:
            raise BadInput(
                f"the model's features look back {needed} days, but the state is of "
                f"{self.history_days} days; {rebuild}"
            )


def _history_days(model: InputSpecification) -> int:
    return history_days(model.features, model.dataset, model.label_delay_days)

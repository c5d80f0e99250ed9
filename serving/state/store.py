"""What a store of the state has to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fraud.errors import BadInput, FraudPipelineError
from fraud.serving.state.definition import StateDefinition
from fraud.serving.state.rows import LabelOutcome


@dataclass(frozen=True)
class Entry:
    """A transaction as it is stored.

    Attributes:
      key: of its identifier.
      head: what is stored of it, of dtype HEAD.
      entities: its keys in the order of `StateDefinition.entities`, NO_KEY where it has none.
    """

    key: bytes
    head: bytes
    entities: tuple[bytes, ...]

    @property
    def stored(self) -> bytes:
        """The transaction under its key."""
        return self.head + b"".join(self.entities)


class StateReplaced(Exception):
    """The state was replaced by one with another definition, which is now the store's."""


@contextmanager
def vanished() -> Iterator[None]:
    """Says of a state that was there and is gone that this is no fault of the request.

    Raises:
      FraudPipelineError: it is gone.
    """
    try:
        yield
    except BadInput as error:
        raise FraudPipelineError(str(error)) from None


class StateStore(Protocol):
    """Durable storage of transactions by identifier, and of their rows by entity.

    Any number of threads and processes may use a store at once. What a call did is durable when it
    returns, and a call that fails did nothing. When the state is replaced by a rebuilt one, the
    store goes on with that.
    """

    @property
    def definition(self) -> StateDefinition:
        """What the state remembers."""
        ...

    def newest(self) -> int:
        """The time of the newest transaction as it is stored; 0 if there is none."""
        ...

    def exchange(
        self,
        definition: StateDefinition,
        entries: Sequence[Entry],
        choose: Callable[[int], Sequence[bool]] | None,
    ) -> tuple[list[bytes | None], NDArray]:
        """Records transactions; atomic, so that of two transactions one sees the other.

        Args:
          definition: the one that the entries were made for.
          entries: the transactions.
          choose: which of them to record, unless their keys are already there, given `newest`, [n];
            None to record none. It may be called more than once.

        Returns:
          `Entry.stored` of those that had been recorded before, by an earlier entry of this call
          too, else None, [n]; and the rows that the entities of all entries had before the call, of
          dtype STORED, those of an entity next to each other.

        Raises:
          StateReplaced: the definition is no longer the store's. Nothing is recorded.
        """
        ...

    def label(
        self,
        keys: Sequence[bytes],
        labels: Sequence[int],
        known: NDArray[np.datetime64],
        now: np.datetime64,
    ) -> list[LabelOutcome]:
        """Records labels, by `rows.labelled`, of transactions and in the rows of their entities.

        Where `known` is NaT, labels become known `now`.
        """
        ...

    def expire(self, before: int) -> int:
        """Forgets transactions well before a time, as it is stored; returns how many.

        Those in the hour before it may stay. May take long, but never blocks others for long.
        """
        ...

    def close(self) -> None:
        """Releases the store."""
        ...

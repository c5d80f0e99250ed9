"""What the server remembers of each entity to compute its features. See docs/serving-state.md.

`State` is what the scorer uses; `StateStore` is what it stores in: LMDB in a folder, or Redis.
"""

from pathlib import Path

from fraud.errors import BadInput
from fraud.files import is_uri
from fraud.serving.state.definition import StateDefinition
from fraud.serving.state.rows import LabelOutcome, Labels, Outcome, Transactions
from fraud.serving.state.state import Seen, State
from fraud.serving.state.store import StateStore

__all__ = [
    "LabelOutcome",
    "Labels",
    "Outcome",
    "Seen",
    "State",
    "StateDefinition",
    "StateStore",
    "Transactions",
    "create_state",
    "open_state",
]


def open_state(location: str) -> State:
    """Opens a state.

    Args:
      location: a folder, such as `Root.state`; or the URL of a Redis or Valkey server.

    Raises:
      BadInput: there is none; says how to build it.
    """
    return State(_store(location, None))


def create_state(location: str, definition: StateDefinition) -> State:
    """Opens a state; makes an empty one if there is none. For a state of history, build it.

    Args:
      location: see `open_state`.
      definition: of a new state, as `StateDefinition.of(*models)`.
    """
    return State(_store(location, definition))


def _store(location: str, create: StateDefinition | None) -> StateStore:
    if is_uri(location):
        raise BadInput(f"{location}: not a folder")
    from fraud.serving.state.lmdb_store import LmdbStore

    if create is None:
        return LmdbStore(Path(location))
    return LmdbStore.create(Path(location), create)

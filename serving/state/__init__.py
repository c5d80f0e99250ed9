"""What the server remembers of each entity to compute its features. See docs/serving-state.md.

`State` is what the scorer uses; `StateStore` is what it stores in: LMDB in a folder, or Redis.
"""

from contextlib import AbstractContextManager
from pathlib import Path

from fraud.errors import BadInput
from fraud.files import is_uri
from fraud.serving.state.build import Rebuild
from fraud.serving.state.definition import StateDefinition
from fraud.serving.state.rows import LabelOutcome, Labels, Outcome, Transactions
from fraud.serving.state.state import Seen, State
from fraud.serving.state.store import StateStore

__all__ = [
    "LabelOutcome",
    "Labels",
    "Outcome",
    "Rebuild",
    "Seen",
    "State",
    "StateDefinition",
    "StateStore",
    "Transactions",
    "check_location",
    "copy_state",
    "create_state",
    "is_server",
    "open_state",
    "rebuild_state",
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


def check_location(location: str) -> None:
    """Checks what can be known of a location without going there.

    Raises:
      BadInput: it is neither a folder nor the URL of a Redis server, or contains a password.
    """
    if is_server(location):
        from fraud.serving.state.redis_store import connect

        connect(location).close()


def copy_state(folder: Path, target: Path) -> None:
    """Copies the state of a folder, as of one moment; servers go on using it.

    Args:
      folder: the state.
      target: a folder that does not exist.

    Raises:
      BadInput, FraudPipelineError: see `lmdb_store.copy`.
    """
    from fraud.serving.state import lmdb_store

    lmdb_store.copy(folder, target)


def rebuild_state(location: str, definition: StateDefinition) -> AbstractContextManager[Rebuild]:
    """A new generation of a state, for `build.fill`; removed at the end unless put into use.

    Args:
      location: see `open_state`.
      definition: what it is to remember.

    Raises:
      BadInput: the location cannot be used, or another process is rebuilding the state.
    """
    if is_server(location):
        from fraud.serving.state import redis_store

        return redis_store.rebuilding(location, definition)
    from fraud.serving.state.lmdb_build import rebuilding

    return rebuilding(Path(location), definition)


def _store(location: str, create: StateDefinition | None) -> StateStore:
    if is_server(location):
        from fraud.serving.state.redis_store import RedisStore

        return RedisStore(location) if create is None else RedisStore.create(location, create)
    from fraud.serving.state.lmdb_store import LmdbStore

    folder = Path(location)
    return LmdbStore(folder) if create is None else LmdbStore.create(folder, create)


def is_server(location: str) -> bool:
    """Whether a location is the URL of a Redis server rather than a folder.

    Raises:
      BadInput: it is another URL.
    """
    if location.startswith(("redis://", "rediss://", "unix://")):
        return True
    if is_uri(location):
        raise BadInput(f"{location}: neither a folder nor the URL of a Redis server, redis://…")
    return False

"""The state on a Redis or Valkey server, for several servers of the model.

::

    fraud-state:current                  the number of the generation in use
    fraud-state:2:definition             what it remembers, as JSON
    fraud-state:2:newest                 time of its newest transaction
    fraud-state:2:t:KEY                  a transaction: `Entry.stored`
    fraud-state:2:e:KEY                  the rows of an entity: a hash of transaction → head
    fraud-state:2:journal                the transactions that changed while a state is being built

Each call is one script, which the server runs atomically. Transactions and rows expire by
themselves; `expire` removes old rows of entities that go on. What survives the death or the loss of
power of the Redis server is a matter of its own persistence (`appendonly`, `appendfsync`).
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import redis
from numpy.typing import NDArray

from fraud.codec import from_json, to_json
from fraud.errors import BadInput, FraudPipelineError
from fraud.serving.state import rows
from fraud.serving.state.build import Change, Loaded, as_bytes, batches
from fraud.serving.state.definition import StateDefinition
from fraud.serving.state.rows import LabelOutcome
from fraud.serving.state.store import Entry, StateReplaced, vanished
from fraud.time import MICROSECONDS_PER_DAY

PASSWORD = "FRAUD_REDIS_PASSWORD"
"""The environment variable of the server's password."""

PREFIX = "fraud-state"

_HEAD_BYTES = rows.HEAD.itemsize
_TIMEOUT_SECONDS = 5.0
_LOCK_SECONDS = 7200
_MOVED = b"moved"

_EXCHANGE = """
-- KEYS: current, newest, journal, journaling; transactions; entities
-- ARGV: generation, number of transactions, number of entities, kept (ms);
--       per transaction: stored (or ""), id of its rows, its entities as "1,7", its time
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return "moved" end
local transactions, entities = tonumber(ARGV[2]), tonumber(ARGV[3])
local histories, before = {}, {}
for i = 1, entities do
  histories[i] = table.concat(redis.call("HVALS", KEYS[4 + transactions + i]))
end
local journaling = redis.call("EXISTS", KEYS[4]) == 1
local newest = redis.call("GET", KEYS[2]) or ""
for i = 1, transactions do
  local key, at = KEYS[4 + i], 4 + 4 * (i - 1)
  local stored = ARGV[at + 1]
  before[i] = redis.call("GET", key)
  if not before[i] and stored ~= "" then
    redis.call("SET", key, stored, "PX", ARGV[4])
    for entity in string.gmatch(ARGV[at + 3], "%d+") do
      local entity_key = KEYS[4 + transactions + entity]
      redis.call("HSET", entity_key, ARGV[at + 2], string.sub(stored, 1, HEAD_BYTES))
      redis.call("PEXPIRE", entity_key, ARGV[4])
    end
    if journaling then redis.call("SADD", KEYS[3], key) end
    if newest < ARGV[at + 4] then
      newest = ARGV[at + 4]
      redis.call("SET", KEYS[2], newest)
    end
  end
end
return {histories, before}
""".replace("HEAD_BYTES", str(_HEAD_BYTES))

_REPLACE = """
-- KEYS: current, journal, journaling; per change: transaction; entities
-- ARGV: generation, number of changes; per change: stored, what is to be stored, id of its rows,
--       its entities as "1,7"
-- Returns for each change whether it was made; it is not if the transaction has changed since.
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return "moved" end
local changes, made = tonumber(ARGV[2]), {}
local journaling = redis.call("EXISTS", KEYS[3]) == 1
for i = 1, changes do
  local key, at = KEYS[3 + i], 2 + 4 * (i - 1)
  made[i] = 0
  if redis.call("GET", key) == ARGV[at + 1] then
    redis.call("SET", key, ARGV[at + 2], "KEEPTTL")
    for entity in string.gmatch(ARGV[at + 4], "%d+") do
      local head = string.sub(ARGV[at + 2], 1, HEAD_BYTES)
      redis.call("HSET", KEYS[3 + changes + entity], ARGV[at + 3], head)
    end
    if journaling then redis.call("SADD", KEYS[2], key) end
    made[i] = 1
  end
end
return made
""".replace("HEAD_BYTES", str(_HEAD_BYTES))

_USE = """
-- KEYS: current, journal; ARGV: old generation (or ""), new generation
if (redis.call("GET", KEYS[1]) or "") ~= ARGV[1] then return "moved" end
if redis.call("SCARD", KEYS[2]) > 0 then return "changed" end
redis.call("SET", KEYS[1], ARGV[2])
return "used"
"""


class _Names:
    """The keys of one generation."""

    def __init__(self, generation: str):
        self.generation = generation
        self.definition = f"{PREFIX}:{generation}:definition"
        self.newest = f"{PREFIX}:{generation}:newest"
        self.journal = f"{PREFIX}:{generation}:journal"
        self.journaling = f"{PREFIX}:{generation}:journaling"
        self._transaction = f"{PREFIX}:{generation}:t:".encode()
        self._entity = f"{PREFIX}:{generation}:e:".encode()

    def transaction(self, key: bytes) -> bytes:
        return self._transaction + key

    def entity(self, key: bytes) -> bytes:
        return self._entity + key

    def transactions(self) -> bytes:
        return self._transaction + b"*"

    def entities(self) -> bytes:
        return self._entity + b"*"

    def all(self) -> str:
        return f"{PREFIX}:{self.generation}:*"

    def key_of(self, transaction: bytes) -> bytes:
        return transaction[len(self._transaction) :]


CURRENT = f"{PREFIX}:current"
_GENERATIONS = f"{PREFIX}:generations"


def connect(url: str) -> Any:  # its own hints allow text, which only some clients get
    """A client of the server at a URL such as redis://host:6379/0 or rediss://… (TLS).

    The password is that of the environment.

    Raises:
      BadInput: the URL is not one, or contains a password.
    """
    parts = urlsplit(url)
    if parts.password:
        raise BadInput(
            f"{_shown(url)}: contains a password, which others can see; set {PASSWORD} instead"
        )
    try:
        return redis.Redis.from_url(
            url,
            password=os.environ.get(PASSWORD),
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            health_check_interval=30,
        )
    except ValueError as error:
        raise BadInput(f"{_shown(url)}: {error}") from None


class RedisStore:
    """A `StateStore` on a Redis or Valkey server. A cluster will not do."""

    def __init__(self, url: str):
        """Connects to the server.

        Raises:
          BadInput: there is no state, or the server may forget some of it.
          FraudPipelineError: the server cannot be reached.
        """
        self._url = _shown(url)
        self._client = connect(url)
        self._exchange = self._client.register_script(_EXCHANGE)
        self._replace = self._client.register_script(_REPLACE)
        self._lock = threading.Lock()
        with self._reached():
            _check_forgets_nothing(self._client, url)
            self._names, self._definition = self._current()

    @classmethod
    def create(cls, url: str, definition: StateDefinition) -> RedisStore:
        """Makes an empty state, unless there is one, and opens it.

        Raises:
          FraudPipelineError: the server cannot be reached.
        """
        client = connect(url)
        with reached(url):
            if client.get(CURRENT) is None:
                names = new_generation(client, definition)
                if not client.set(CURRENT, names.generation, nx=True):
                    client.delete(names.definition)
        client.close()
        return cls(url)

    @property
    def definition(self) -> StateDefinition:
        """See `StateStore`."""
        return self._definition

    def newest(self) -> int:
        """See `StateStore`."""
        while True:
            names = self._names
            with self._reached():
                current, newest = self._client.mget([CURRENT, names.newest])
            if current == names.generation.encode():
                return int(newest or 0)
            self._reopen(names)

    def exchange(
        self,
        definition: StateDefinition,
        entries: Sequence[Entry],
        choose: Callable[[int], Sequence[bool]] | None,
    ) -> tuple[list[bytes | None], NDArray]:
        """See `StateStore`."""
        chosen = [False] * len(entries) if choose is None else choose(self.newest())
        entities = sorted({key for entry in entries for key in entry.entities} - {rows.NO_KEY})
        number = {key: i for i, key in enumerate(entities, 1)}
        while True:
            with self._lock:
                names = self._names
                if definition != self._definition:
                    raise StateReplaced
            kept = definition.kept_days * MICROSECONDS_PER_DAY
            arguments: list[Any] = [
                names.generation,
                len(entries),
                len(entities),
                kept // 1000,
            ]
            for entry, record in zip(entries, chosen, strict=True):
                arguments += [entry.stored if record else b"", entry.key[:8]]
                arguments += [_numbers(entry.stored, number), _sortable(rows.time_of(entry.head))]
            keys: list[Any] = [CURRENT, names.newest, names.journal, names.journaling]
            keys += [names.transaction(entry.key) for entry in entries]
            keys += [names.entity(key) for key in entities]
            with self._reached():
                result = self._exchange(keys=keys, args=arguments)
            if result != _MOVED:
                break
            self._reopen(names)
        histories, before = result
        stored = np.empty(sum(map(len, histories)) // _HEAD_BYTES, rows.STORED)
        heads = np.frombuffer(b"".join(histories), rows.HEAD)
        lengths = [len(history) // _HEAD_BYTES for history in histories]
        stored["key"] = np.repeat(np.array(entities, stored["key"].dtype), lengths)
        for name in rows.HEAD.names or ():
            stored[name] = heads[name]
        return before, stored

    def label(
        self,
        keys: Sequence[bytes],
        labels: Sequence[int],
        known: NDArray[np.datetime64],
        now: np.datetime64,
    ) -> list[LabelOutcome]:
        """See `StateStore`."""
        outcomes: dict[int, LabelOutcome] = {}
        waiting = list(range(len(keys)))
        while waiting:
            with self._lock:
                names = self._names
            with self._reached():
                wanted = [CURRENT, *(names.transaction(keys[row]) for row in waiting)]
                current, *stored = self._client.mget(wanted)
            if current != names.generation.encode():
                self._reopen(names)
                continue
            changes, changing, seen = [], [], set()
            for row, before in zip(waiting, stored, strict=True):
                if keys[row] in seen:
                    continue  # a second label of a transaction waits for the first
                seen.add(keys[row])
                if before is None:
                    outcomes[row] = LabelOutcome.UNKNOWN
                    continue
                head = before[:_HEAD_BYTES]
                try:
                    outcome, labelled = rows.labelled(head, labels[row], known[row], now)
                except BadInput as error:
                    raise BadInput(f"row {row}: {error}") from None
                if labelled == head:
                    outcomes[row] = outcome
                else:
                    changes.append((keys[row], before, labelled + before[_HEAD_BYTES:]))
                    changing.append((row, outcome))
            made = self._change(names, changes)
            for (row, outcome), done in zip(changing, made, strict=True):
                if done:
                    outcomes[row] = outcome
            waiting = [row for row in waiting if row not in outcomes]
        return [outcomes[row] for row in range(len(keys))]

    def expire(self, before: int) -> int:
        """See `StateStore`; transactions expire by themselves, so only rows are counted."""
        names, expired = self._names, 0
        with self._reached():
            for some in batches(self._client.scan_iter(names.entities(), count=1000), 200):
                pipeline = self._client.pipeline(transaction=False)
                for key in some:
                    pipeline.hgetall(key)
                old = [
                    (key, [field for field, head in held.items() if rows.time_of(head) < before])
                    for key, held in zip(some, pipeline.execute(), strict=True)
                ]
                for key, fields in old:
                    if fields:
                        pipeline.hdel(key, *fields)
                        expired += len(fields)
                pipeline.execute()
        return expired

    def close(self) -> None:
        """See `StateStore`."""
        self._client.close()

    def _change(self, names: _Names, changes: list[tuple[bytes, bytes, bytes]]) -> list[int]:
        """Replaces (key, stored, what is to be stored); returns which were."""
        if not changes:
            return []
        entities = sorted({key for _, stored, _ in changes for key in rows.entities_of(stored)})
        number = {key: i for i, key in enumerate(entities, 1)}
        arguments: list[Any] = [names.generation, len(changes)]
        for key, before, after in changes:
            arguments += [before, after, key[:8], _numbers(before, number)]
        keys: list[Any] = [CURRENT, names.journal, names.journaling]
        keys += [names.transaction(key) for key, _, _ in changes]
        keys += [names.entity(key) for key in entities]
        with self._reached():
            made = self._replace(keys=keys, args=arguments)
        if made == _MOVED:
            self._reopen(names)
            return [0] * len(changes)
        return made

    def _current(self) -> tuple[_Names, StateDefinition]:
        generation = self._client.get(CURRENT)
        if generation is None:
            raise BadInput(f"{self._url}: there is no state; build it: fraud-pipeline state build")
        names = _Names(generation.decode())
        return names, from_json(StateDefinition, self._client.get(names.definition) or b"")

    def _reopen(self, moved: _Names) -> None:
        with self._lock, self._reached(), vanished():
            if self._names is moved:
                self._names, self._definition = self._current()

    def _reached(self) -> Any:
        return reached(self._url)


@contextmanager
def reached(url: str) -> Iterator[None]:
    """Explains the errors of the server.

    Raises:
      FraudPipelineError: it cannot be reached, or refuses.
    """
    try:
        yield
    except redis.RedisError as error:
        raise FraudPipelineError(f"{_shown(url)}: the state's server: {error}") from None


class RedisRebuild:
    """A `Rebuild` on a server."""

    def __init__(self, client: Any, names: _Names, definition: StateDefinition):
        self.definition = definition
        self.current: StateDefinition | None = None
        self._client, self._new = client, names
        self._old: _Names | None = None
        if (generation := client.get(CURRENT)) is not None:
            self._old = _Names(generation.decode())
            self.current = from_json(StateDefinition, client.get(self._old.definition) or b"")
        self._newest = 0
        self._kept = definition.kept_days * MICROSECONDS_PER_DAY

    def load(self, loaded: Loaded) -> None:
        """See `Rebuild`."""
        self._newest = int(loaded.heads["time"].max(initial=0))
        for part in batches(zip(as_bytes(loaded.keys), loaded.stored, strict=True), 5000):
            pipeline = self._client.pipeline(transaction=False)
            for key, stored in part:
                pipeline.set(self._new.transaction(key), stored, px=self._left(stored))
            pipeline.execute()
        entity_rows = loaded.entity_rows
        keys = as_bytes(np.ascontiguousarray(entity_rows["key"]))
        fields = as_bytes(np.ascontiguousarray(entity_rows["id"]))
        heads = np.ascontiguousarray(entity_rows[list(rows.HEAD.names or ())])
        values = as_bytes(heads.astype(rows.HEAD))
        items = zip(keys, fields, values, strict=True)
        by_entity = itertools.groupby(items, key=lambda item: item[0])
        named = (
            (self._new.entity(key), [each for _, *pair in group for each in pair])
            for key, group in by_entity
        )
        for some in batches(named, 200):
            pipeline = self._client.pipeline(transaction=False)
            for key, group in some:
                pipeline.hset(key, items=group)
                pipeline.pexpire(key, self._kept // 1000)
            pipeline.execute()
        self._client.set(self._new.newest, _sortable(self._newest))

    def changes(self) -> Iterator[list[Change]]:
        """See `Rebuild`."""
        if self._old is None:
            return
        self._client.delete(self._old.journal)
        self._client.set(self._old.journaling, 1, ex=_LOCK_SECONDS)
        found = self._client.scan_iter(self._old.transactions(), count=5000)
        for keys in batches(found, 5000):
            yield self._read(self._old, keys)

    def stored(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Rebuild`."""
        return self._client.mget([self._new.transaction(key) for key in keys]) if keys else []

    def put(self, changes: Sequence[Change]) -> None:
        """See `Rebuild`."""
        for part in batches(changes, 5000):
            pipeline = self._client.pipeline(transaction=False)
            for key, stored in part:
                self._newest = max(self._newest, rows.time_of(stored))
                pipeline.set(self._new.transaction(key), stored, px=self._left(stored))
                for entity in rows.entities_of(stored):
                    name = self._new.entity(entity)
                    pipeline.hset(name, key[:8], stored[:_HEAD_BYTES])
                    pipeline.pexpire(name, self._kept // 1000)
            pipeline.execute()
        self._client.set(self._new.newest, _sortable(self._newest))

    @contextmanager
    def replacing(self) -> Iterator[Iterable[list[Change]]]:
        """See `Rebuild`. Others go on recording until the switch."""
        yield self._last_changes()

    def _left(self, stored: bytes) -> int:
        """How long a transaction is still kept, in milliseconds."""
        return max(self._kept - (self._newest - rows.time_of(stored)), 1000) // 1000

    def _last_changes(self) -> Iterator[list[Change]]:
        """What has changed, until nothing has at the moment of the switch."""
        old = self._old or _Names("")
        use = self._client.register_script(_USE)
        generations = [old.generation, self._new.generation]
        while (result := use(keys=[CURRENT, old.journal], args=generations)) == b"changed":
            yield self._read(old, self._client.spop(old.journal, 1000))
        if result == _MOVED:
            raise BadInput("the state was replaced by another build meanwhile; build it again")

    def _read(self, old: _Names, keys: Sequence[bytes]) -> list[Change]:
        found = zip(keys, self._client.mget(keys) if keys else [], strict=True)
        return [(old.key_of(key), stored) for key, stored in found if stored is not None]


@contextmanager
def rebuilding(url: str, definition: StateDefinition) -> Iterator[RedisRebuild]:
    """A new generation, which is removed at the end unless it was put into use.

    Raises:
      BadInput: another process is building the state, or the server may forget some of it.
      FraudPipelineError: the server cannot be reached.
    """
    client = connect(url)
    with reached(url):
        lock = client.lock(f"{PREFIX}:building", timeout=_LOCK_SECONDS, blocking=False)
        _check_forgets_nothing(client, url)
        if not lock.acquire():
            raise BadInput(
                f"{_shown(url)}: another process is building the state; wait for it, or, if it was "
                f"killed, delete the key {PREFIX}:building"
            )
        try:
            new = new_generation(client, definition)
            before = client.get(CURRENT)
            try:
                yield RedisRebuild(client, new, definition)
            finally:
                used = (client.get(CURRENT) or b"").decode()
                for generation in {new.generation, (before or b"").decode()} - {used, ""}:
                    for keys in batches(client.scan_iter(_Names(generation).all()), 1000):
                        client.unlink(*keys)
                if used:
                    client.delete(_Names(used).journaling, _Names(used).journal)
        finally:
            lock.release()
            client.close()


def _check_forgets_nothing(client: Any, url: str) -> None:
    """Checks that the server refuses what has no room, rather than to forget what was there.

    Features would then be wrong, and nobody would know.

    Raises:
      BadInput: it does not.
    """
    with suppress(redis.ResponseError):  # who may not ask cannot know
        memory = client.info("memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory") and policy != "noeviction":
            raise BadInput(
                f"{_shown(url)}: with maxmemory-policy {policy}, the server forgets parts of the "
                "state when its memory is full; set maxmemory-policy noeviction"
            )


def new_generation(client: Any, definition: StateDefinition) -> _Names:
    """Makes an empty generation, which is not yet in use."""
    names = _Names(str(client.incr(_GENERATIONS)))
    client.set(names.definition, to_json(definition))
    return names


def _numbers(stored: bytes, number: dict[bytes, int]) -> str:
    """The entities of a transaction, as the scripts read them."""
    return ",".join(str(number[key]) for key in rows.entities_of(stored))


def _sortable(time: int) -> str:
    """A time as text that sorts like it. Lua's numbers could not hold it exactly."""
    return f"{time:019d}"


def _shown(url: str) -> str:
    """A URL without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:…@{host}"))

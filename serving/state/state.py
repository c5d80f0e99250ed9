"""The state as the scorer sees it: transactions in, features out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from fraud.errors import BadInput, FraudPipelineError
from fraud.features.batch import feature_names
from fraud.features.online import EntityRows, online_features
from fraud.models.specification import InputSpecification
from fraud.serving.state import rows
from fraud.serving.state.definition import SLACK_DAYS, StateDefinition
from fraud.serving.state.rows import LabelOutcome, Labels, Outcome, Transactions
from fraud.serving.state.store import Entry, StateReplaced, StateStore
from fraud.time import MICROSECONDS_PER_DAY

AHEAD = np.timedelta64(1, "h")
"""How far ahead of the clock a transaction may be."""


@dataclass(frozen=True)
class Seen:
    """Transactions, and what the state remembered of their entities just before them.

    Attributes:
      outcomes: what became of each transaction, [n].
    """

    outcomes: tuple[Outcome, ...]
    _timestamps: NDArray[np.datetime64]
    _amounts: NDArray[np.float64]
    _rows: EntityRows
    _check: Callable[[InputSpecification], None]

    def features(self, model: InputSpecification) -> dict[str, NDArray[np.float32]]:
        """The derived columns of a model: name → values, [n] each; NaN where undefined.

        Any number of models, such as champion and challenger, may be asked for theirs. The names
        are those of `fraud.features.batch.feature_names`, and so are the values.

        Raises:
          FraudPipelineError: the state, which may have been rebuilt since `State.check`, cannot
            serve the model.
        """
        self._check(model)
        return online_features(
            model.features,
            model.dataset,
            model.label_delay_days,
            self._timestamps,
            self._amounts,
            self._rows,
        )


class State:
    """What the server remembers of each entity. Thread-safe.

    ::

        state = open_state(location)
        state.check(model)
        seen = state.record(transactions)   # durable from here on
        columns = seen.features(model)
        state.label(labels)
    """

    def __init__(
        self,
        store: StateStore,
        clock: Callable[[], np.datetime64] = lambda: np.datetime64(time.time_ns() // 1000, "us"),
    ):
        """Uses an open store; the clock tells what is in the future, in UTC."""
        self._store = store
        self._clock = clock
        self._served = _Served(store.definition)

    @property
    def definition(self) -> StateDefinition:
        """What the state remembers."""
        return self._store.definition

    def newest(self) -> np.datetime64 | None:
        """The time of the newest transaction, in UTC; None if there is none."""
        return rows.time_or_none(self._store.newest())

    def check(self, model: InputSpecification) -> None:
        """Checks that the state can serve a model; ask when a version is loaded.

        Raises:
          BadInput: it cannot; the message says why, and what to do.
          FraudPipelineError: it cannot be used now.
        """
        self._refresh().check(model)

    def check_kept(self, moment: np.datetime64) -> None:
        """Checks that the whole history of transactions before a moment, in UTC, is still kept.

        Raises:
          BadInput: the state has gone on too far.
        """
        behind = self._store.newest() - rows.stored_time(moment)
        if behind > SLACK_DAYS * MICROSECONDS_PER_DAY:
            raise BadInput(
                f"the state has transactions {behind / MICROSECONDS_PER_DAY:.1f} days after that "
                "day, and may have forgotten what it depends on; choose a later day"
            )

    def record(self, transactions: Transactions, model: InputSpecification | None = None) -> Seen:
        """Records transactions, atomically and durably, and returns what preceded them.

        Args:
          transactions: with all entities of the definition.
          model: whose features will be asked for, if any.

        Each transaction sees those with an earlier time, of the same call too, wherever it is in
        the order; none with the same time. See `Outcome` for those that are not recorded.

        Raises:
          BadInput: a timestamp is missing, an amount too large or an entity's column absent.
            Nothing is recorded.
          FraudPipelineError: the state was rebuilt and can no longer serve the model. Nothing is
            recorded.
        """
        return self._exchange(transactions, record=True, model=model)

    def read(self, transactions: Transactions) -> Seen:
        """As `record`, but records nothing: transactions do not see others of the same call.

        Entities that are not asked for may be absent.
        """
        return self._exchange(transactions, record=False, model=None)

    def label(self, labels: Labels) -> list[LabelOutcome]:
        """Records labels, atomically and durably; returns what became of each.

        Repeating a call changes nothing. A label counts in features from `known_at` on where the
        data has label times, and otherwise once a model's label delay is over, as in batch.

        Raises:
          BadInput: a label is neither 0 nor 1, or became known before its transaction or in the
            future. Nothing is recorded.
        """
        values = np.asarray(labels.labels)
        wrong = ~np.isin(values, (0, 1))
        if wrong.any():
            row = int(wrong.argmax())
            raise BadInput(f"row {row}: the label is {values[row]}; it must be 1 or 0")
        known = np.full(len(values), np.datetime64("NaT"), "datetime64[us]")
        if labels.known_at is not None:
            known = np.asarray(labels.known_at).astype("datetime64[us]")
        ahead = known > self._clock() + AHEAD  # false where NaT
        if ahead.any():
            row = int(ahead.argmax())
            raise BadInput(f"row {row}: the label became known at {known[row]}, in the future")
        keys = rows.keys_of("", labels.ids)
        return self._store.label(keys, values.astype(int).tolist(), known, self._clock())

    def expire(self) -> int:
        """Forgets what is too old for any feature; returns the number of transactions.

        Call it from time to time, such as once an hour, in a thread of its own.
        """
        kept = self.definition.kept_days * MICROSECONDS_PER_DAY
        return self._store.expire(self._store.newest() - kept)

    def close(self) -> None:
        """Releases the store."""
        self._store.close()

    def _exchange(
        self, transactions: Transactions, record: bool, model: InputSpecification | None
    ) -> Seen:
        heads = rows.heads(transactions)
        keys = self._keys(transactions)
        while True:
            served = self._served
            if served.definition is not self.definition:
                served = self._served = _Served(self.definition)
            try:
                if model is not None:
                    served.check(model)
            except FraudPipelineError:
                if self._refresh() is served.definition:
                    raise
                continue
            with suppress(StateReplaced):
                return self._exchange_keyed(transactions, heads, keys, record, served)

    def _refresh(self) -> StateDefinition:
        """What the state remembers, even if it was rebuilt since the last call of the store."""
        self._store.newest()
        return self._store.definition

    def _exchange_keyed(
        self,
        transactions: Transactions,
        heads: NDArray,
        keys: list[bytes],
        record: bool,
        served: _Served,
    ) -> Seen:
        definition = served.definition
        columns = {
            entity: _entity_keys(transactions, entity, required=record)
            for entity in definition.entities
        }
        of_rows = zip(*columns.values(), strict=True) if columns else [()] * len(keys)
        entries = [
            Entry(key, head, entities)
            for key, head, entities in zip(keys, _split(heads), of_rows, strict=True)
        ]
        planned: list[Outcome] = []

        def choose(newest: int) -> list[bool]:
            planned[:] = self._planned(heads, definition, newest)
            return [outcome.recorded for outcome in planned]

        before, stored = self._store.exchange(definition, entries, choose if record else None)
        if not record:
            choose(self._store.newest())
        outcomes = tuple(map(_outcome, entries, planned, before))
        new = np.array([record and outcome.recorded for outcome in outcomes], bool)
        remembered = _entity_rows(columns, stored, heads, new)
        amounts = heads["amount"].astype(np.float64)
        return Seen(outcomes, rows.times_of(heads), amounts, remembered, served.check)

    def _keys(self, transactions: Transactions) -> list[bytes]:
        if transactions.ids is None:
            return [os.urandom(rows.KEY_BYTES) for _ in range(len(transactions))]
        keys = rows.keys_of("", transactions.ids)
        return [os.urandom(rows.KEY_BYTES) if key == rows.NO_KEY else key for key in keys]

    def _planned(self, heads: NDArray, definition: StateDefinition, newest: int) -> list[Outcome]:
        """The outcomes of transactions that were not recorded before, [n]."""
        latest = rows.stored_time(self._clock() + AHEAD)
        times = heads["time"].astype(np.int64)
        outcomes = []
        for moment in times.tolist():
            if moment > latest:
                outcomes.append(Outcome.FUTURE)
            elif moment < newest - definition.kept_days * MICROSECONDS_PER_DAY:
                outcomes.append(Outcome.EXPIRED)
            elif moment < newest - SLACK_DAYS * MICROSECONDS_PER_DAY:
                outcomes.append(Outcome.LATE)
            else:
                outcomes.append(Outcome.NEW)
        return outcomes


class _Served:
    """The models that a definition was found to serve, so that each is checked once.

    A state may be rebuilt while it is in use, by a configuration that has forgotten a model.
    """

    def __init__(self, definition: StateDefinition):
        self.definition = definition
        # By identity, as comparing them takes long; they are kept, so that no other gets the id.
        self._models: dict[int, InputSpecification] = {}

    def check(self, model: InputSpecification) -> None:
        """Checks that the state can serve a model.

        Raises:
          FraudPipelineError: it cannot.
        """
        if id(model) not in self._models:
            try:
                if feature_names(model.features, model.dataset):
                    self.definition.check(model)
            except BadInput as error:
                raise FraudPipelineError(str(error)) from None
            self._models[id(model)] = model


def _entity_keys(transactions: Transactions, entity: str, required: bool) -> list[bytes]:
    if entity not in transactions.entities:
        if not required:
            return [rows.NO_KEY] * len(transactions)
        raise BadInput(f"no column {entity}; every transaction needs one, be it empty")
    return rows.keys_of(entity, transactions.entities[entity])


def _split(heads: NDArray) -> list[bytes]:
    size, block = heads.itemsize, heads.tobytes()
    return [block[start : start + size] for start in range(0, len(block), size)]


def _outcome(entry: Entry, planned: Outcome, before: bytes | None) -> Outcome:
    """What became of a transaction, given what was stored under its key before."""
    if before is None:
        return planned
    size = rows.HEAD.itemsize
    mine, theirs = (np.frombuffer(head, rows.HEAD) for head in (entry.head, before[:size]))
    same = np.array_equal(mine["amount"], theirs["amount"], equal_nan=True)
    same = same and mine["time"] == theirs["time"] and entry.stored[size:] == before[size:]
    return Outcome.REPEATED if same else Outcome.CONFLICT


def _entity_rows(
    columns: Mapping[str, list[bytes]], stored: NDArray, heads: NDArray, new: NDArray[np.bool_]
) -> EntityRows:
    """What is remembered of the entities of some transactions: what was stored, and new rows.

    Args:
      columns: entity → its keys, NO_KEY where missing, [n] each.
      stored: of all entities, of dtype STORED; those of a key are adjacent.
      heads: of the transactions, of dtype HEAD, [n].
      new: which of them are newly stored, [n].
    """
    codes = {key: code for code, key in enumerate(dict.fromkeys(chain(*columns.values())))}
    codes[rows.NO_KEY] = -1
    query_keys = {
        entity: np.array([codes[key] for key in keys], np.int64) for entity, keys in columns.items()
    }
    key = stored["key"]
    is_first = np.ones(len(key), bool)
    is_first[1:] = key[1:] != key[:-1]
    first = np.flatnonzero(is_first)
    lengths = np.diff(np.append(first, len(key)))
    # numpy cuts off trailing zeros of bytes.
    named = [codes[name.ljust(rows.KEY_BYTES, b"\0")] for name in key[first].tolist()]
    added = np.tile(heads[new], len(columns))  # of no rows where the data has no entities
    return EntityRows(
        np.concatenate(
            [np.repeat(np.array(named, np.int64), lengths), *(k[new] for k in query_keys.values())]
        ),
        np.concatenate([rows.times_of(stored), rows.times_of(added)]),
        np.concatenate([stored["amount"], added["amount"]]),
        np.concatenate([rows.labels_of(stored), rows.labels_of(added)]),
        np.concatenate([rows.known_of(stored), rows.known_of(added)]),
        query_keys,
    )

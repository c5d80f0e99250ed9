"""Raw transactions in, decisions out; independent of how they are transported."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fraud.errors import BadInput, FraudPipelineError
from fraud.features.batch import feature_names
from fraud.models.columns import ModelColumns
from fraud.models.specification import InputSpecification
from fraud.serving import metrics
from fraud.serving.errors import NotReady
from fraud.serving.log_writer import LogWriter, Scored
from fraud.serving.state import LabelOutcome, Outcome, Seen, State
from fraud.serving.transactions import (
    RawTransactions,
    other_entities,
    parse_labels,
    parse_transactions,
)

_WAITING_JOBS = 100
"""Requests whose shadow scores are waited for at most; those beyond have none."""

_REMEMBERED_IDS = 20_000
"""Transactions that a client sends again after so many others are logged again."""

_log = logging.getLogger(__name__)


class Scores(Protocol):
    """What a model says about transactions: fraud probabilities, and which are alerts, [n] each."""

    @property
    def score(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def alert(self) -> NDArray[np.bool_]: ...  # noqa: D102


class Explanations(Protocol):
    """Scores, and the columns that raised them most, strongest first, [n][k]."""

    @property
    def scores(self) -> Scores: ...  # noqa: D102
    @property
    def columns(self) -> list[list[str]]: ...  # noqa: D102
    @property
    def contributions(self) -> NDArray[np.float32]: ...  # noqa: D102


class Model(Protocol):
    """A loaded version, as `fraud.serving.models.LoadedModel` is one."""

    @property
    def version(self) -> str: ...  # noqa: D102
    @property
    def specification(self) -> InputSpecification | None: ...  # noqa: D102
    @property
    def columns(self) -> ModelColumns: ...  # noqa: D102
    def score(self, columns: Mapping[str, np.ndarray]) -> Scores: ...  # noqa: D102
    def explain(self, columns: Mapping[str, np.ndarray]) -> Explanations: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Challenger:
    """A second model beside the live version.

    Attributes:
      model: it.
      canary_percent: the percentage of the cards that it answers.
    """

    model: Model
    canary_percent: float = 0.0

    def answers(self, transactions: RawTransactions) -> NDArray[np.bool_]:
        """Which transactions it answers, [n]: those of some cards, always the same ones.

        Without cards, of some transactions by their id.
        """
        dataset = transactions.dataset
        by = dataset.card_entity or dataset.id
        if by is None or not self.canary_percent:
            return np.zeros(len(transactions), bool)
        shares = [_share(name or "") for name in transactions.texts[by]]
        return np.array(shares) < self.canary_percent / 100


def _at_once(function: Callable[[], None]) -> None:
    function()


class Scorer:
    """Scores raw transactions and takes labels. Thread-safe.

    A transaction is recorded in the state, durably, before it is answered. If a client does not get
    the answer and sends it again, it is recognised by its id and scored as of its own time.

    Attributes:
      shadow_failures: transactions that the challenger, or the live version in its place, should
        have scored as well, and did not.

    Args:
      state: of the entities; None if the data has no timestamp, hence no features.
      log: where predictions are logged; None for nowhere.
      challenger: a second model; None for none.
    """

    def __init__(
        self,
        state: State | None,
        log: LogWriter | None = None,
        challenger: Challenger | None = None,
    ) -> None:
        self._state, self._log = state, log
        self.shadow_failures = 0
        self._challenger: Challenger | None = None
        self._shadows: ThreadPoolExecutor | None = None
        if challenger is not None:
            self.challenge(challenger)
        self._places = threading.Semaphore(_WAITING_JOBS)
        self._logged = _Logged()

    def challenge(self, challenger: Challenger) -> None:
        """Begins to use a challenger, while requests go on; once at most."""
        self._shadows = ThreadPoolExecutor(1, "shadow")
        self._challenger = challenger  # last, as it tells requests that the rest is there

    def check(self, model: Model) -> None:
        """Checks that transactions can be scored by a version; ask when it is loaded.

        Raises:
          BadInput: says why not.
          NotReady: the state cannot be used now.
        """
        specification = _specification(model)
        if feature_names(specification.features, specification.dataset):
            if self._state is None:
                raise BadInput("the model's features need a state; see fraud-pipeline state build")
            with available():
                self._state.check(specification)

    def warm_up(self, model: Model) -> None:
        """Scores a transaction that is not recorded, so that the first one takes no longer.

        Raises:
          BadInput: the model's inputs cannot be computed.
          NotReady: the state cannot be used now.
        """
        dataset = _specification(model).dataset
        row = dict.fromkeys(dataset.columns)
        row |= dict.fromkeys(filter(None, (dataset.id, *dataset.entities)), "0")
        if dataset.timestamp:
            row[dataset.timestamp] = "2000-01-01T00:00:00Z"
        raw = parse_transactions([row], dataset)
        seen = None
        if self._state is not None and dataset.timestamp is not None:
            with available():
                seen = self._state.read(raw.for_state())
        _answer(model, [row], seen, np.ones(1, bool), explain=False, raw=raw)

    def score(
        self,
        model: Model,
        rows: Any,
        explain: bool = False,
        later: Callable[[Callable[[], None]], object] = _at_once,
    ) -> list[dict[str, Any]]:
        """Scores transactions.

        Args:
          model: the live version, which has passed `check`.
          rows: the decoded JSON, a list of objects.
          explain: whether to give reasons.
          later: is given what may wait until the client has its answer, and calls it then.

        Returns:
          For each, in the same order: `id`, `score`, `alert`, `version`, `outcome` and, if asked
          for, `reasons`.

        Raises:
          BadInput: naming index, field and fix. Nothing was recorded.
          NotReady: the state cannot be used now.
        """
        started = time.perf_counter()
        raw = parse_transactions(rows, _specification(model).dataset)
        if not len(raw):
            return []
        seen = self._record(model, raw, rows)
        by_challenger = np.zeros(len(raw), bool)
        if self._challenger is not None:
            by_challenger = self._challenger.answers(raw)
        answers: list[_Answer] = []
        if by_challenger.any() and self._challenger is not None:
            try:
                answer = _answer(self._challenger.model, rows, seen, by_challenger, explain)
                answers.append(answer)
            except Exception:  # the live version answers instead
                _log.exception("the challenger could not answer")
                self._lacks_shadow(int(by_challenger.sum()))
                by_challenger[:] = False
        if not by_challenger.all():
            answers.append(_answer(model, rows, seen, ~by_challenger, explain, raw))
        milliseconds = (time.perf_counter() - started) * 1000
        outcomes = _outcomes(seen, len(raw))
        self._finish(model, rows, seen, answers, outcomes, milliseconds, later)
        results: list[dict[str, Any]] = [{}] * len(raw)
        for answer in answers:
            positions = np.flatnonzero(answer.mask).tolist()
            for row, result in zip(positions, answer.results(), strict=True):
                results[row] = {**result, "outcome": str(outcomes[row])}
        return results

    def label(self, model: Model, rows: Any) -> dict[str, int]:
        """Records labels, durably.

        Args:
          model: the live version.
          rows: the decoded JSON, a list of objects.

        Returns:
          How many were `new`, `repeated`, `corrected` and `unknown`.

        Raises:
          BadInput: naming index, field and fix. Nothing was recorded.
          NotReady: the state cannot be used now.
        """
        dataset = _specification(model).dataset
        if self._state is None or dataset.id is None:
            raise BadInput("labels: the data has no timestamp or no id, so labels have no use")
        labels = parse_labels(rows, dataset)
        try:
            with available():
                outcomes = self._state.label(labels) if labels.ids else []
        except BadInput as error:
            raise BadInput(_of_label(str(error))) from None
        counts = Counter(outcome.value for outcome in outcomes)
        return {outcome.value: counts[outcome.value] for outcome in LabelOutcome}

    def close(self) -> None:
        """Waits for the shadow scores and writes the log. Call it once no more requests come."""
        if self._shadows is not None:
            self._shadows.shutdown()
        if self._log is not None:
            self._log.close()

    def _record(self, model: Model, raw: RawTransactions, rows: Any) -> Seen | None:
        state, known = self._state, raw.dataset.entities
        if state is None or raw.dataset.timestamp is None:
            return None
        with available():
            while True:
                definition = state.definition
                others = [name for name in definition.entities if name not in known]
                transactions = raw.for_state(other_entities(rows, others))
                try:
                    return state.record(transactions, model.specification)
                except BadInput:
                    if state.definition is definition:
                        raise
                    # It was rebuilt meanwhile, with other entities.

    def _finish(
        self,
        model: Model,
        rows: Any,
        seen: Seen | None,
        answers: list[_Answer],
        outcomes: NDArray[np.str_],
        milliseconds: float,
        later: Callable[[Callable[[], None]], object],
    ) -> None:
        """Logs the answers, with shadow scores if there is a challenger.

        No client waits for the challenger. The live version is asked at once, since it may be
        unloaded later.
        """
        for answer in answers:
            if self._challenger is None or self._shadows is None:
                later(partial(self._write, answer, None, outcomes, milliseconds))
            elif answer.model is self._challenger.model:
                shadow = self._shadow(model, rows, seen, answer)
                self._write(answer, shadow, outcomes, milliseconds)
            elif self._places.acquire(blocking=False):
                self._shadows.submit(
                    self._finish_later,
                    self._challenger.model,
                    rows,
                    seen,
                    answer,
                    outcomes,
                    milliseconds,
                )
            else:
                self._lacks_shadow(len(answer.score))
                self._write(answer, None, outcomes, milliseconds)

    def _finish_later(
        self,
        challenger: Model,
        rows: Any,
        seen: Seen | None,
        answer: _Answer,
        outcomes: NDArray[np.str_],
        milliseconds: float,
    ) -> None:
        try:
            shadow = self._shadow(challenger, rows, seen, answer)
            self._write(answer, shadow, outcomes, milliseconds)
        except Exception:
            _log.exception("predictions could not be logged")
        finally:
            self._places.release()

    def _shadow(
        self, other: Model, rows: Any, seen: Seen | None, answer: _Answer
    ) -> _Answer | None:
        """What another model says about what was answered; None if it fails."""
        try:
            return _answer(other, rows, seen, answer.mask, explain=False)
        except Exception as error:
            _log.warning("version %s gave no shadow score: %s", other.version, error)
            self._lacks_shadow(len(answer.score))
            return None

    def _lacks_shadow(self, rows: int) -> None:
        self.shadow_failures += rows
        metrics.SHADOW_FAILURES.inc(rows)

    def _write(
        self,
        answer: _Answer,
        shadow: _Answer | None,
        outcomes: NDArray[np.str_],
        milliseconds: float,
    ) -> None:
        if self._log is None:
            return
        of_answer = outcomes[answer.mask]
        keep = self._logged.add(answer.raw, of_answer == Outcome.REPEATED.value)
        if not keep.any():
            return
        scored = Scored(
            columns=answer.raw.columns,
            feature_names=answer.feature_names,
            features=answer.features,
            version=answer.model.version,
            scores=answer.score,
            alerts=answer.alert,
            outcomes=of_answer,
            latency_ms=milliseconds,
            canary=self._challenger is not None and answer.model is self._challenger.model,
            shadow_version=shadow.model.version if shadow else None,
            shadow_scores=shadow.score if shadow else None,
        )
        self._log.append(scored if keep.all() else _only(scored, keep))


class _Logged:
    """The ids of the transactions that this process logged last."""

    def __init__(self) -> None:
        # A dict would look through the places of all that were deleted to find its first: 15 µs.
        self._ids: OrderedDict[str | None, None] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, raw: RawTransactions, repeated: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which transactions are to be logged, [n]; they count as logged then.

        All but the repeated ones that were: the first answer to others may have been lost, as when
        a server is killed after it recorded a transaction.
        """
        if raw.dataset.id is None:
            return np.ones(len(raw), bool)
        keep = []
        with self._lock:
            for id_, again in zip(raw.texts[raw.dataset.id], repeated.tolist(), strict=True):
                keep.append(not again or id_ not in self._ids)
                self._ids[id_] = None
            for _ in range(len(self._ids) - _REMEMBERED_IDS):
                self._ids.popitem(last=False)
        return np.array(keep)


@dataclass(frozen=True)
class _Answer:
    """What one model says about some transactions of a request.

    Attributes:
      model: it.
      mask: which of the request, [request].
      raw: those transactions, [n].
      columns: all of the model's inputs, [n] each.
      feature_names: its derived inputs.
      score, alert: [n].
      explanations: if asked for.
    """

    model: Model
    mask: NDArray[np.bool_]
    raw: RawTransactions
    columns: dict[str, NDArray]
    feature_names: tuple[str, ...]
    score: NDArray[np.float32]
    alert: NDArray[np.bool_]
    explanations: Explanations | None

    @property
    def features(self) -> NDArray[np.float32]:
        """Its derived inputs, [n, features]."""
        listed = [self.columns[name] for name in self.feature_names]
        return np.stack(listed, axis=1) if listed else np.empty((len(self.score), 0), np.float32)

    def results(self) -> list[dict[str, Any]]:
        results = [
            {"id": id_, "score": score, "alert": alert, "version": self.model.version}
            for id_, score, alert in zip(
                self.raw.ids, self.score.tolist(), self.alert.tolist(), strict=True
            )
        ]
        if self.explanations is not None:
            for row, result in enumerate(results):
                result["reasons"] = self._reasons(self.explanations, row)
        return results

    def _reasons(self, explanations: Explanations, row: int) -> list[dict[str, Any]]:
        return [
            {
                "column": name,
                "value": _json_value(self.columns[name][row]),
                "contribution": contribution,
            }
            for name, contribution in zip(
                explanations.columns[row], explanations.contributions[row].tolist(), strict=True
            )
        ]


def _answer(
    model: Model,
    rows: Any,
    seen: Seen | None,
    mask: NDArray[np.bool_],
    explain: bool,
    raw: RawTransactions | None = None,
) -> _Answer:
    """Scores the transactions of a request that are in the mask; `raw` is of all of them."""
    specification = _specification(model)
    if raw is None:
        raw = parse_transactions(rows, specification.dataset)
    columns = raw.inputs()
    names = feature_names(specification.features, specification.dataset)
    if names:
        if seen is None:
            raise BadInput("the model's features need a state")
        columns |= seen.features(specification)
    if not mask.all():
        columns = {name: values[mask] for name, values in columns.items()}
        raw = raw.only(mask)
    explanations = model.explain(columns) if explain else None
    scores = explanations.scores if explanations else model.score(columns)
    return _Answer(model, mask, raw, columns, names, scores.score, scores.alert, explanations)


def _only(scored: Scored, keep: NDArray[np.bool_]) -> Scored:
    mask = pa.array(keep)
    shadow_scores = scored.shadow_scores
    return replace(
        scored,
        columns={name: column.filter(mask) for name, column in scored.columns.items()},
        features=scored.features[keep],
        scores=scored.scores[keep],
        alerts=scored.alerts[keep],
        outcomes=scored.outcomes[keep],
        shadow_scores=None if shadow_scores is None else shadow_scores[keep],
    )


@contextmanager
def available() -> Iterator[None]:
    """Around calls of the state.

    Raises:
      NotReady: the state cannot be used now, which is no fault of the request.
    """
    try:
        yield
    except BadInput:
        raise
    except FraudPipelineError as error:
        raise NotReady(f"the state cannot be used now: {error}") from error


def _specification(model: Model) -> InputSpecification:
    if model.specification is None:
        raise BadInput(
            f"version {model.version} does not record what its inputs are computed from; train it "
            "again, or send ready-made features"
        )
    return model.specification


def _outcomes(seen: Seen | None, count: int) -> NDArray[np.str_]:
    outcomes = seen.outcomes if seen is not None else [Outcome.NEW] * count
    return np.array([outcome.value for outcome in outcomes])


def _share(name: str) -> float:
    """A number in [0, 1) that depends on a name alone, evenly distributed."""
    hashed = hashlib.blake2b(name.encode(), digest_size=8, person=b"canary").digest()
    return int.from_bytes(hashed, "big") / 2**64


def _json_value(value: Any) -> Any:
    """A model's input as JSON: a number, text, or null where missing."""
    if isinstance(value, bytes):
        return value.decode() or None
    number = float(value)
    return None if np.isnan(number) else number


def _of_label(message: str) -> str:
    """A message about row 3 of the state's labels as one about labels[3]."""
    row, _, problem = message.removeprefix("row ").partition(": ")
    return f"labels[{row}].known_at: {problem}" if row.isdigit() else message

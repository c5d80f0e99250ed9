"""The routes for raw transactions and labels, for `fraud.serving.server.serve`."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from fraud.errors import BadInput, FraudPipelineError
from fraud.files import digest
from fraud.serving import metrics
from fraud.serving.api import documents
from fraud.serving.api.rest import VERSION_HEADER, json_response
from fraud.serving.api.values import parse_json
from fraud.serving.errors import NotReady, TooLarge
from fraud.serving.inference import Inference, check_explained
from fraud.serving.log_writer import LogWriter, key_of
from fraud.serving.logs import log
from fraud.serving.models import LoadedModel
from fraud.serving.scorer import Challenger, Scorer, available
from fraud.serving.server import Service
from fraud.serving.spec import Serving
from fraud.serving.state import State, StateDefinition, check_location, create_state, is_server
from fraud.serving.versions import SECONDS_TO_RETRY

_ROWS_AT_ONCE = 16
"""Up to so many rows scoring is shorter than what it takes to hand it to another thread."""
_THREADS_OF_SERVER = 16
_SECONDS_BETWEEN_TIDYING = 3600.0


@dataclass(frozen=True)
class ScoringService:
    """A `ServiceContext` of the server: raw transactions in, decisions out.

    Attributes:
      state: where the state is; a folder, or the URL of a server. Without one, an empty state is
        made once the first version is loaded.
      predictions: the folder of the prediction log.
      settings: the configuration's section `serving`.
    """

    state: str
    predictions: Path
    settings: Serving

    @asynccontextmanager
    async def __call__(self, inference: Inference) -> AsyncIterator[Service]:
        """The service, as long as the server runs.

        Raises:
          BadInput: the challenger cannot be loaded, the key of the log is missing, or the state is
            neither in a folder nor at the URL of a server.
        """
        key_of(self.settings.prediction_log)
        check_location(self.state)
        challenger = self._challenger()
        scoring = _Scoring(self, challenger)
        # One that is on another machine may keep threads waiting.
        count = _THREADS_OF_SERVER if is_server(self.state) else 2
        threads = ThreadPoolExecutor(count, thread_name_prefix="transactions")
        tidying = threading.Thread(target=scoring.tidy, name="expiry", daemon=True)
        tidying.start()
        try:
            yield Service([_router(inference, scoring, threads)], scoring.check)
        finally:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, threads.shutdown)
            await loop.run_in_executor(None, scoring.close)

    def _challenger(self) -> Challenger | None:
        """The configured challenger, loaded.

        Raises:
          BadInput: it cannot be loaded.
        """
        settings = self.settings.challenger
        if settings.model is None:
            return None
        folder = Path(settings.model)
        try:
            model = LoadedModel(folder)
            model.warm_up()
        except FraudPipelineError as error:
            raise BadInput(f"serving.challenger.model: {error}") from None
        if model.specification is None:
            raise BadInput(f"serving.challenger.model: {folder} does not record its inputs")
        # Folders of artifacts all have the same name.
        model.version = f"challenger-{digest(folder)[:8]}"
        log(
            logging.INFO,
            "challenger",
            version=model.version,
            folder=str(folder),
            canary_percent=settings.canary_percent,
        )
        return Challenger(model, settings.canary_percent)


class _Scoring:
    """The scorer, which is made when the first version is loaded and says what the data is."""

    def __init__(self, service: ScoringService, challenger: Challenger | None) -> None:
        self._service, self._challenger = service, challenger
        self._lock = threading.Lock()
        self._scorer: Scorer | None = None
        self._state: State | None = None
        self._closing = threading.Event()
        self._retrying: threading.Thread | None = None

    @property
    def scorer(self) -> Scorer:
        """The scorer.

        Raises:
          BadInput: no version that is loaded can score raw transactions.
        """
        if self._scorer is None:
            raise BadInput("the live model does not record what its inputs are computed from")
        return self._scorer

    @property
    def waits(self) -> bool:
        """Whether calls of the state wait for another server, as nothing else should meanwhile."""
        return is_server(self._service.state)

    def check(self, model: LoadedModel) -> None:
        """Checks that the state can serve a version before it answers.

        A version that does not record its inputs may still answer requests with ready-made ones,
        where no version before it scored raw transactions.

        Raises:
          BadInput: it cannot.
          NotReady: the state cannot be used now.
        """
        if model.specification is None:
            if self._scorer is not None:
                self._scorer.check(model)  # says why not
            return
        with self._lock:
            if self._scorer is None:
                self._scorer = self._create(model)
        self._scorer.check(model)
        self._scorer.warm_up(model)

    def tidy(self) -> None:
        """Lets old transactions expire from time to time, until the end."""
        while not self._closing.wait(_SECONDS_BETWEEN_TIDYING):
            if self._state is not None:
                try:
                    started = time.monotonic()
                    count = self._state.expire()
                    seconds = round(time.monotonic() - started, 1)
                    self._report(self._state)
                    log(logging.INFO, "expired", transactions=count, seconds=seconds)
                except Exception as error:
                    log(logging.ERROR, "old transactions did not expire", exc_info=error)

    def close(self) -> None:
        """Writes the log and releases the state, after the last request."""
        self._closing.set()
        if self._retrying is not None:
            self._retrying.join()
        if self._scorer is not None:
            self._scorer.close()
        if self._state is not None:
            self._state.close()
        if self._challenger is not None:
            self._challenger.model.close()

    def _report(self, state: State) -> None:
        """Says how far the state reaches, and loudly if it is empty."""
        newest = state.newest()
        metrics.STATE_NEWEST.set(
            0 if newest is None else newest.astype("datetime64[s]").astype(int)
        )
        if newest is None:
            log(
                logging.WARNING,
                "the state is empty: features are those of somebody who has no history; build "
                "it with fraud-pipeline state build, or --data",
                state=self._service.state,
            )
        else:
            log(logging.INFO, "state", state=self._service.state, newest=f"{newest}Z")

    def _create(self, model: LoadedModel) -> Scorer:
        assert model.specification is not None
        dataset, settings = model.specification.dataset, self._service.settings
        if dataset.timestamp is not None:
            definition = StateDefinition.of(model.specification)
            other = self._challenger.model.specification if self._challenger else None
            if (
                other is not None
                and other.dataset.timestamp is not None
                and definition.same_data(StateDefinition.of(other))  # else it is left out below
            ):
                definition = StateDefinition.of(model.specification, other)
            if self._state is not None:  # of an attempt that failed
                self._state.close()
                self._state = None
            with available():
                self._state = create_state(self._service.state, definition)
                self._report(self._state)
        challenger = self._challenger
        if challenger is not None:
            try:
                Scorer(self._state).check(challenger.model)
            except BadInput as error:  # which is no reason for the live version not to answer
                challenger = None
                message = f"serving.challenger.model: {error}"
                log(logging.ERROR, "the challenger is left out", error=message)
        log_writer = None
        if settings.prediction_log.enabled:
            log_writer = LogWriter(self._service.predictions, settings.prediction_log, dataset)
        scorer = Scorer(self._state, log_writer, challenger)
        if self._challenger is not None and challenger is None:
            self._retrying = threading.Thread(
                target=self._retry, args=(scorer, self._challenger), daemon=True, name="challenger"
            )
            self._retrying.start()
        return scorer

    def _retry(self, scorer: Scorer, challenger: Challenger) -> None:
        """Tries again to use a challenger that the state cannot serve, until it is rebuilt."""
        while not self._closing.wait(SECONDS_TO_RETRY):
            try:
                scorer.check(challenger.model)
                scorer.warm_up(challenger.model)
            except (BadInput, NotReady):
                continue
            except Exception as error:
                log(logging.ERROR, "the challenger stays out", exc_info=error)
                return
            scorer.challenge(challenger)
            version = challenger.model.version
            log(logging.INFO, "the challenger is used from now on", version=version)
            return


def _router(inference: Inference, scoring: _Scoring, threads: ThreadPoolExecutor) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["Transactions"])

    def is_quick(rows: int) -> bool:
        return rows <= _ROWS_AT_ONCE and not scoring.waits

    def rows_of(document: dict[str, Any], field: str, *others: str) -> list[Any]:
        if unknown := sorted(document.keys() - {field, *others}):
            raise BadInput(f"{unknown[0][:100]}: unknown field; send {field}")
        rows = document.get(field)
        if not isinstance(rows, list):
            raise BadInput(f"{field}: expected a list of objects")
        if len(rows) > (most := inference.limits.batch_rows):
            raise TooLarge(f"{len(rows)} {field}; send at most {most} in a request")
        return rows

    @router.post("/transactions:score", **SCORE)
    async def score(request: Request) -> Response:
        """Records transactions and scores them, with features from what happened before them."""
        document = parse_json(await request.body())
        rows = rows_of(document, "transactions", "explain")
        explain = document.get("explain", False)
        if not isinstance(explain, bool):
            raise BadInput("explain: expected true or false")
        if explain:
            check_explained(len(rows))
        # Called once the event loop has sent the answer.
        later = asyncio.get_running_loop().call_soon
        with inference.versions.lease() as model:
            scorer = scoring.scorer
            if is_quick(len(rows) * (_ROWS_AT_ONCE if explain else 1)):
                results = scorer.score(model, rows, explain, later)
            else:
                results = await inference.in_thread(
                    threads, model, scorer.score, model, rows, explain
                )
        later(_count, results)
        versions = {result["version"] for result in results} or {model.version}
        # The challenger may have answered some of them: each result says by which version it is.
        headers = {VERSION_HEADER: versions.pop()} if len(versions) == 1 else {}
        return json_response({"results": results}, headers)

    @router.post("/labels", **LABELS)
    async def label(request: Request) -> Response:
        """Records what transactions turned out to be."""
        rows = rows_of(parse_json(await request.body()), "labels")
        with inference.versions.lease() as model:
            scorer = scoring.scorer
            if is_quick(len(rows)):
                counts = scorer.label(model, rows)
            else:
                counts = await inference.in_thread(threads, model, scorer.label, model, rows)
        for outcome, count in counts.items():
            metrics.LABELS.labels(outcome).inc(count)
        return json_response(counts)

    return router


def _count(results: list[dict[str, Any]]) -> None:
    """Counts answers in the metrics."""
    for result in results:
        metrics.ROWS.labels(result["version"]).inc()
        metrics.OUTCOMES.labels(result["outcome"]).inc()
        if result["alert"]:
            metrics.ALERTS.labels(result["version"]).inc()


_VALUE = {"type": ["string", "number", "boolean", "null"]}
_ID = {"type": ["string", "integer"]}
_TRANSACTION = {
    "TRANSACTION_ID": 1,
    "TX_DATETIME": "2026-03-22T08:15:00Z",
    "CUSTOMER_ID": 42,
    "TERMINAL_ID": 7,
    "TX_AMOUNT": 99.5,
}
SCORE: dict[str, Any] = {
    "responses": documents.answered(
        "A result for each transaction, in the order of the request.",
        documents.described(
            {
                "results": {
                    "type": "array",
                    "items": documents.described(
                        {
                            "id": {**_VALUE, "description": "As it was sent."},
                            "score": {
                                "type": "number",
                                "description": "The probability of fraud.",
                            },
                            "alert": {
                                "type": "boolean",
                                "description": "Whether it is within the alert budget.",
                            },
                            "version": {"type": "string"},
                            "outcome": {
                                "enum": [
                                    *("new", "late", "repeated", "conflict", "future", "expired")
                                ]
                            },
                            "reasons": {
                                "type": "array",
                                "items": documents.described(
                                    {
                                        "column": {"type": "string"},
                                        "value": _VALUE,
                                        "contribution": {"type": "number"},
                                    },
                                    *("column", "value", "contribution"),
                                ),
                            },
                        },
                        *("id", "score", "alert", "version", "outcome"),
                    ),
                }
            },
            "results",
        ),
    ),
    "openapi_extra": documents.body(
        documents.described(
            {
                "transactions": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": _VALUE,
                        "description": "The columns of the dataset.",
                    },
                },
                "explain": {"type": "boolean", "default": False},
            },
            "transactions",
        ),
        {"transactions": [_TRANSACTION], "explain": True},
    ),
}
LABELS: dict[str, Any] = {
    "responses": documents.answered(
        "How many labels were new, repeated, corrections, or of unknown transactions.",
        documents.described(
            {name: {"type": "integer"} for name in ("new", "repeated", "corrected", "unknown")},
            *("new", "repeated", "corrected", "unknown"),
        ),
    ),
    "openapi_extra": documents.body(
        documents.described(
            {
                "labels": {
                    "type": "array",
                    "items": documents.described(
                        {
                            "id": _ID,
                            "label": {"enum": [0, 1]},
                            "known_at": {"type": ["string", "integer", "null"]},
                        },
                        *("id", "label"),
                    ),
                }
            },
            "labels",
        ),
        {"labels": [{"id": 1, "label": 1}]},
    ),
}

"""What every HTTP request passes before anything else sees it."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from typing import Any

import anyio
import orjson

from fraud.serving import metrics
from fraud.serving.errors import DeadlineExceeded, RequestRefused, TooLarge, refusal
from fraud.serving.inference import Inference
from fraud.serving.logs import log
from fraud.serving.settings import Role, Tokens

REQUEST_ID = "x-request-id"

_OPEN = ("/v2/health/", "/healthz", "/readyz")
"""Paths that need no token, for load balancers and Kubernetes."""
_SAFE_ID = re.compile(r"[\x21-\x7e]{1,128}")


def request_id(given: str | None) -> str:
    """The id that a client gave its request, if it is short and printable; else a new one."""
    return given if given and _SAFE_ID.fullmatch(given) else uuid.uuid4().hex


class Guard:
    """ASGI middleware: request ids, tokens, limits, deadlines, metrics and the log.

    Args:
      app: what answers.
      inference: has the limits, and counts the requests.
      tokens: who may send what.
    """

    def __init__(self, app: Any, inference: Inference, tokens: Tokens) -> None:
        self._app, self._inference, self._tokens = app, inference, tokens
        self._limits = inference.limits

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])  # of repeated ones, the last
        identifier = request_id(headers.get(REQUEST_ID.encode(), b"").decode("latin-1"))
        scope["request_id"] = identifier
        status = 0

        async def answer(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (REQUEST_ID.encode(), identifier.encode()),
                ]
            await send(message)

        problem = ""
        try:
            await self._answer(scope, receive, answer, headers)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            problem = str(error)
            if not isinstance(error, RequestRefused):
                log(logging.ERROR, "request failed", exc_info=error, request_id=identifier)
            if not status:
                await answer_error(answer, error)
        finally:
            self._record(scope, identifier, status, time.perf_counter() - started, problem)

    async def _answer(
        self, scope: Any, receive: Any, send: Any, headers: dict[bytes, bytes]
    ) -> None:
        path, method = scope["path"], scope["method"]
        if path.startswith(_OPEN):
            await self._app(scope, receive, send)
            return
        token = headers.get(b"authorization")
        self._tokens.check(token.decode("latin-1") if token else None, _role(path, method))
        if method not in ("POST", "PUT", "PATCH"):
            await self._app(scope, receive, send)
            return
        most = self._limits.body_bytes
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            raise TooLarge(f"the request has {int(length)} bytes; the most is {most}")
        received = 0

        async def bounded() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise TooLarge(f"the request has more than {most} bytes, which is the limit")
            return message

        with self._inference.admission():
            try:
                with anyio.fail_after(self._limits.timeout_seconds):
                    await self._app(scope, bounded, send)
            except TimeoutError:
                raise DeadlineExceeded(
                    f"no answer within {self._limits.timeout_seconds:g} s; try again"
                ) from None

    def _record(
        self, scope: Any, identifier: str, status: int, seconds: float, problem: str
    ) -> None:
        path = scope["path"]
        route = scope.get("route")
        name = getattr(route, "path", None) or (path if path.startswith(_OPEN) else "other")
        metrics.REQUESTS.labels("http", name, str(status)).inc()
        metrics.SECONDS.labels("http", name).observe(seconds)
        if path.startswith(_OPEN) or path == "/metrics":
            return
        fields = {"error": problem} if problem else scope.get("problem") or {}
        client = scope.get("client")
        log(
            logging.INFO,
            "request",
            request_id=identifier,
            protocol="http",
            method=f"{scope['method']} {path[:200]}",
            status=status,
            ms=round(seconds * 1000, 3),
            client=client[0] if client else None,
            **fields,
        )


async def answer_error(send: Any, error: Exception) -> None:
    """Sends an error as the answer."""
    status, _, message = refusal(error)
    headers = [(b"content-type", b"application/json")]
    if status == 429:
        headers.append((b"retry-after", b"1"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 413:  # the rest of the body would be taken for the next request
        headers.append((b"connection", b"close"))
    body = orjson.dumps({"error": message})
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _role(path: str, method: str) -> Role | None:
    """The role that a request needs; None if any will do."""
    if method not in ("POST", "PUT", "PATCH", "DELETE"):
        return None
    if path == "/v1/labels":
        return "label"
    if path.endswith((":predict", "/infer", ":score")):
        return "score"
    return "admin"

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

from fraud.errors import BadInput
from fraud.serving import metrics
from fraud.serving.errors import (
    Busy,
    DeadlineExceeded,
    Forbidden,
    TooLarge,
    refusal,
    retry_headers,
)
from fraud.serving.inference import Inference
from fraud.serving.logs import log
from fraud.serving.settings import Role, Tokens

REQUEST_ID = "x-request-id"

_OPEN = frozenset({"/v2/health/live", "/v2/health/ready", "/healthz", "/readyz"})
"""Paths that need no token, for load balancers and Kubernetes."""
_BODIES_AT_ONCE = 16
"""So many bodies of the largest size may be incomplete at a time, or more of smaller ones."""
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
        self._bytes_received = 0

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
            if refusal(error)[0] == 500:
                log(logging.ERROR, "request failed", exc_info=error, request_id=identifier)
            if not status:
                await answer_error(answer, error)
        finally:
            # Later, because the event loop sends the answer only once nothing else is to be done.
            asyncio.get_running_loop().call_soon(
                self._record, scope, identifier, status, time.perf_counter() - started, problem
            )

    async def _answer(
        self, scope: Any, receive: Any, send: Any, headers: dict[bytes, bytes]
    ) -> None:
        path, method = scope["path"], scope["method"]
        if path in _OPEN:
            await self._app(scope, receive, send)
            return
        token = headers.get(b"authorization")
        self._tokens.check(token.decode("latin-1") if token else None, _role(path, method))
        if method not in ("POST", "PUT", "PATCH"):
            await self._app(scope, receive, send)
            return
        if not self._tokens.roles and _is_of_another_site(headers):
            raise Forbidden("a page of another site may not send this; use tokens, or no browser")
        most = self._limits.body_bytes
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            raise TooLarge(f"the request has {int(length)} bytes; the most is {most}")
        try:
            with anyio.fail_after(self._limits.timeout_seconds):
                # Before the request takes a place: who sends slowly takes none.
                body = await self._body(receive)
                with self._inference.admission():
                    await self._app(scope, _replay(body, receive), send)
        except TimeoutError:
            raise DeadlineExceeded(
                f"no answer within {self._limits.timeout_seconds:g} s; try again"
            ) from None

    async def _body(self, receive: Any) -> bytes:
        """The body of a request.

        Raises:
          TooLarge: it is.
          Busy: those that are being received take too much memory.
          BadInput: the client went away.
        """
        parts, received = [], 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise BadInput("the client went away before its request was complete")
                part = message.get("body", b"")
                parts.append(part)
                received += len(part)
                self._bytes_received += len(part)
                if received > self._limits.body_bytes:
                    raise TooLarge(
                        f"the request has more than {self._limits.body_bytes} bytes, which is the "
                        "limit"
                    )
                if self._bytes_received > _BODIES_AT_ONCE * self._limits.body_bytes:
                    raise Busy("too many large requests are being received; try again")
                if not message.get("more_body", False):
                    return b"".join(parts)
        finally:
            self._bytes_received -= received

    def _record(
        self, scope: Any, identifier: str, status: int, seconds: float, problem: str
    ) -> None:
        path = scope["path"]
        route = scope.get("route")
        name = getattr(route, "path", None) or "other"
        metrics.REQUESTS.labels("http", name, str(status)).inc()
        metrics.SECONDS.labels("http", name).observe(seconds)
        if path in _OPEN or path == "/metrics":
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


def _is_of_another_site(headers: dict[bytes, bytes]) -> bool:
    """Whether a browser sends a request for a page that did not come from here.

    Any page may let its reader's browser send requests to this machine, which no token holds up.
    """
    origin = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2] != headers.get(b"host")


def _replay(body: bytes, receive: Any) -> Any:
    """What ASGI calls `receive`, of a request whose body has been received."""
    rest = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Any:
        return rest.pop() if rest else await receive()

    return replay


async def answer_error(send: Any, error: Exception) -> None:
    """Sends an error as the answer."""
    status, _, message = refusal(error)
    headers = [(b"content-type", b"application/json")]
    headers += [(name.encode(), value.encode()) for name, value in retry_headers(status).items()]
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

"""The application: routes, and who may do what.

Everything is read-only, except a rollback, which needs a token and a reason. Requests for other
hosts are refused, so a page of somebody else cannot reach this one by a name of theirs that leads
here (DNS rebinding), and no page may embed it or run a script in it.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from fraud.errors import BadInput, FraudPipelineError
from fraud.pipeline import lineage_graph
from fraud.pipeline.records import Records
from fraud.report import lineage_picture
from fraud.report.pages import render_page
from fraud.report.web.content import LINEAGE, Reader

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)

REFRESH_SECONDS = 5
"""How often the first page is loaded again while a run is running."""


def create_app(
    reader: Reader,
    records: Records,
    root: Any,
    hosts: Sequence[str],
    tensorboard: str | None,
    token: str | None,
    roll_back: Callable[[str, str], str],
) -> FastAPI:
    """Creates the application.

    Args:
      reader: reads the root.
      records: the lineage of the root.
      root: a `fraud.pipeline.root.Root`.
      hosts: the host names that requests may be for.
      tensorboard: the address of TensorBoard; None if it was not started.
      token: what a rollback must be confirmed with; None forbids rollbacks.
      roll_back: (version, reason) → the new version.
    """
    app = FastAPI(title="fraud-pipeline", docs_url=None, redoc_url=None, openapi_url=None)
    lock = threading.Lock()  # ML Metadata's client is not made for several threads

    @app.middleware("http")
    async def protect(request: Request, call_next: Any) -> Response:
        # Starlette's TrustedHostMiddleware does not know addresses of IPv6.
        if _host(request.headers.get("host", "")) in hosts:
            response = await call_next(request)
        else:
            response = PlainTextResponse("This page is not for that host", 400)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-store"
        return response

    @app.exception_handler(FraudPipelineError)
    def refused(request: Request, error: FraudPipelineError) -> HTMLResponse:
        status = 404 if isinstance(error, BadInput) and request.method == "GET" else 400
        return HTMLResponse(render_page("problem.html", problem=str(error)), status)

    @app.exception_handler(RequestValidationError)
    def not_understood(request: Request, error: RequestValidationError) -> HTMLResponse:
        wrong = "; ".join(f"{of['loc'][-1]}: {of['msg']}" for of in error.errors())
        return HTMLResponse(render_page("problem.html", problem=wrong), 400)

    @app.exception_handler(HTTPException)
    def not_there(request: Request, error: HTTPException) -> HTMLResponse:
        return HTMLResponse(
            render_page("problem.html", problem=error.detail), error.status_code, error.headers
        )

    @app.get("/", response_class=HTMLResponse)
    def overview(page: int = 1) -> HTMLResponse:
        with lock:
            found = reader.overview(page)
        text = render_page(
            "overview.html", found=found, root=root.path, tensorboard=tensorboard, may=bool(token)
        )
        headers = {"Refresh": str(REFRESH_SECONDS)} if found.progress and page == 1 else {}
        return HTMLResponse(text, headers=headers)

    @app.get("/runs/{run_id}", response_class=HTMLResponse)
    def run(run_id: str) -> HTMLResponse:
        with lock:
            if not lineage_graph.is_run(records, run_id):
                raise BadInput(f"{run_id}: no such run")
            return HTMLResponse(reader.run_page(run_id))

    @app.get("/compare", response_class=HTMLResponse)
    def compare(a: str, b: str) -> HTMLResponse:
        with lock:
            found = reader.compare(a, b)
        return HTMLResponse(render_page("compare.html", a=a, b=b, found=found))

    @app.get("/lineage", response_class=HTMLResponse)
    def lineage(of: str = "") -> HTMLResponse:
        with lock:
            found = lineage_graph.find(records, root.pushed, of or None)
        return HTMLResponse(lineage_picture.to_html(found, link=LINEAGE))

    @app.post("/rollback")
    async def rollback(request: Request) -> RedirectResponse:
        body = await request.body()
        form = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
        if not token or not hmac.compare_digest(form.get("token", "").encode(), token.encode()):
            raise FraudPipelineError("the token is not right; nothing was rolled back")
        version, reason = form.get("version", ""), form.get("reason", "")

        def locked() -> None:
            with lock:
                roll_back(version, reason)

        await run_in_threadpool(locked)
        return RedirectResponse("/", status_code=303)

    return app


def _host(header: str) -> str | None:
    """The host of a Host header, without its port; None if there is none."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None

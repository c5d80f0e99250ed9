"""Traces by OpenTelemetry, for whoever names a collector in OTEL_EXPORTER_OTLP_ENDPOINT.

Without that variable nothing is imported or measured. The extra `otel` has what this needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from fraud.errors import BadInput

VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
PARENT = "TRACEPARENT"
"""The span that a process belongs to, as W3C's header `traceparent`."""
_NOT_TRACED = "healthz,readyz,v2/health/.*,metrics"


@contextmanager
def span(name: str, attributes: Mapping[str, str]) -> Iterator[None]:
    """A span around what is done within; of the span around it, or of that in TRACEPARENT.

    Raises:
      BadInput: traces are asked for, but the extra is not installed.
    """
    provider = _provider()
    if provider is None:
        yield
        return
    from opentelemetry import trace
    from opentelemetry.propagate import extract

    context = None  # that of this process
    if not trace.get_current_span().get_span_context().is_valid:
        context = extract({"traceparent": os.environ.get(PARENT, "")})
    tracer = provider.get_tracer(__name__)
    with tracer.start_as_current_span(name, context, attributes=attributes):
        yield


def traced(app: Any) -> Any:
    """An ASGI application whose requests are spans, of the span that a client names.

    Raises:
      BadInput: traces are asked for, but the extra is not installed.
    """
    provider = _provider()
    if provider is None:
        return app
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.util.http import parse_excluded_urls

    return OpenTelemetryMiddleware(
        app,
        excluded_urls=parse_excluded_urls(_NOT_TRACED),
        exclude_spans=["receive", "send"],
        tracer_provider=provider,
    )


def send() -> None:
    """Sends the spans that have ended, for a process that ends without its exit handlers."""
    if provider := _provider():
        provider.force_flush()


@cache
def _provider() -> Any:
    if not os.environ.get(VARIABLE):
        return None
    try:
        from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation import asgi
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise BadInput(
            f"{VARIABLE}: {error.name} is not installed; pip install 'fraud-pipeline[otel]'"
        ) from None
    del asgi
    name = os.environ.get("OTEL_SERVICE_NAME", "fraud-pipeline")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider

"""What a request can be refused for, and how HTTP and gRPC say so."""

from __future__ import annotations

from fraud.errors import BadInput, FraudPipelineError


class RequestRefused(FraudPipelineError):
    """A request that is not answered. The message says why and what to do.

    Attributes:
      http_status: the status of an HTTP response.
      grpc_code: the name of a member of `grpc.StatusCode`.
    """

    http_status = 500
    grpc_code = "INTERNAL"


class TooLarge(RequestRefused):
    """More bytes or rows than the limits allow."""

    http_status, grpc_code = 413, "INVALID_ARGUMENT"


class Unauthenticated(RequestRefused):
    """No token, or one that is not known."""

    http_status, grpc_code = 401, "UNAUTHENTICATED"


class Forbidden(RequestRefused):
    """The token is not of the role that the request needs."""

    http_status, grpc_code = 403, "PERMISSION_DENIED"


class NotFound(RequestRefused):
    """There is no such model, version or signature."""

    http_status, grpc_code = 404, "NOT_FOUND"


class Busy(RequestRefused):
    """As many requests as the limits allow are being answered already."""

    http_status, grpc_code = 429, "RESOURCE_EXHAUSTED"


class NotReady(RequestRefused):
    """The server cannot answer yet, or not now, or not any more."""

    http_status, grpc_code = 503, "UNAVAILABLE"


class DeadlineExceeded(RequestRefused):
    """The answer was not ready in time."""

    http_status, grpc_code = 504, "DEADLINE_EXCEEDED"


def retry_headers(status: int) -> dict[str, str]:
    """The HTTP headers that say when to try again, for statuses that pass."""
    return {"retry-after": "1"} if status in (429, 503) else {}


def refusal(error: Exception) -> tuple[int, str, str]:
    """HTTP status, name of gRPC's code, and message for an exception.

    A status of 500 means that the exception is not the client's doing and belongs into the log.
    """
    message = str(error).encode(errors="backslashreplace").decode()  # of lone surrogates
    if isinstance(error, RequestRefused):
        return error.http_status, error.grpc_code, message
    if isinstance(error, BadInput):
        return 400, "INVALID_ARGUMENT", message
    return 500, "INTERNAL", "the server failed; its log says why, under the id of this request"

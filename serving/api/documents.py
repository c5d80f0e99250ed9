"""What the OpenAPI document says about bodies, which FastAPI neither reads nor writes here."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {**_TEXT, "description": "What is wrong, and what to do."}},
}


def answered(description: str, schema: dict[str, Any], status: int = 200) -> dict[int | str, Any]:
    """The entry of `responses` for a JSON answer."""
    return {
        status: {"description": description, "content": {"application/json": {"schema": schema}}}
    }


def body(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    """`openapi_extra` for a JSON body."""
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def described(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """The schema of an object."""
    return {"type": "object", "required": list(required), "properties": properties}


REFUSALS: dict[int | str, Any] = {
    status: entry
    for code, description in {
        400: "Malformed, missing, mistyped, infinite or absurd; the error names the field.",
        401: "No token, or one that is not known.",
        403: "The token is of another role.",
        404: "No such model, version or signature.",
        405: "This path has other methods.",
        413: "Too many bytes or transactions.",
        422: "Not used: what cannot be read is 400.",
        429: "Too many requests at a time; the header Retry-After says when to try again.",
        500: "The server failed; its log says why.",
        503: "No version is loaded yet.",
        504: "The answer was not ready in time.",
    }.items()
    for status, entry in answered(description, _ERROR, code).items()
}

_VALUE: dict[str, Any] = {
    "anyOf": [
        {"type": "number"},
        _TEXT,
        {"type": "null"},
        described({"b64": {**_TEXT, "format": "byte"}}, "b64"),
    ]
}
_ROW = {"anyOf": [_VALUE, {"type": "object", "additionalProperties": _VALUE}]}
_COLUMN = {"type": "array", "items": _VALUE}

STATUS = answered(
    "The versions, the newest first.",
    described(
        {
            "model_version_status": {
                "type": "array",
                "items": described(
                    {
                        "version": _TEXT,
                        "state": {"enum": ["LOADING", "AVAILABLE", "UNLOADING", "END"]},
                        "status": described({"error_code": _TEXT, "error_message": _TEXT}),
                    },
                    *("version", "state", "status"),
                ),
            }
        },
        "model_version_status",
    ),
)
METADATA = answered(
    "Signatures by name.",
    described({"model_spec": {"type": "object"}, "metadata": {"type": "object"}}, "metadata"),
)
PREDICT: dict[str, Any] = {
    "responses": answered(
        "`predictions`, one per instance, or `outputs`, a list per output.",
        described({"predictions": {"type": "array"}, "outputs": {}}),
    ),
    "openapi_extra": body(
        described(
            {
                "signature_name": {**_TEXT, "description": "serving_default unless given."},
                "instances": {"type": "array", "items": _ROW, "minItems": 1},
                "inputs": {"anyOf": [_COLUMN, {"type": "object", "additionalProperties": _COLUMN}]},
            }
        ),
        {"signature_name": "predict", "inputs": {"TX_AMOUNT": [12.5], "CHANNEL": ["online"]}},
    ),
}

LIVE = answered("It answers.", described({"live": {"type": "boolean"}}, "live"))
_READY = described(
    {"ready": {"type": "boolean"}, "version": {"type": ["string", "null"]}}, "ready", "version"
)
READY = {**answered("Ready.", _READY), **answered("Not ready.", _READY, 503)}
SERVER = answered("Name and version.", described({"name": _TEXT, "version": _TEXT}, "name"))
_TENSOR = {
    "name": _TEXT,
    "datatype": _TEXT,
    "shape": {"type": "array", "items": {"type": "integer"}},
}
MODEL = answered(
    "Inputs and outputs.",
    described(
        {
            "name": _TEXT,
            "versions": {"type": "array", "items": _TEXT},
            "platform": _TEXT,
            "inputs": {"type": "array", "items": described(_TENSOR, *_TENSOR)},
            "outputs": {"type": "array", "items": described(_TENSOR, *_TENSOR)},
        },
        *("name", "inputs", "outputs"),
    ),
)
INFER: dict[str, Any] = {
    "responses": answered(
        "The outputs.",
        described(
            {
                "model_name": _TEXT,
                "model_version": _TEXT,
                "id": _TEXT,
                "outputs": {"type": "array", "items": described(_TENSOR, *_TENSOR)},
            },
            *("model_name", "outputs"),
        ),
    ),
    "openapi_extra": body(
        described(
            {
                "id": _TEXT,
                "parameters": {"type": "object"},
                "inputs": {
                    "type": "array",
                    "items": described({**_TENSOR, "data": {"type": "array"}}, *_TENSOR),
                },
                "outputs": {"type": "array", "items": described({"name": _TEXT}, "name")},
            },
            "inputs",
        ),
        {"inputs": [{"name": "TX_AMOUNT", "shape": [1], "datatype": "FP32", "data": [12.5]}]},
    ),
}
METRICS: dict[int | str, Any] = {
    200: {"description": "Prometheus's text format.", "content": {"text/plain": {"schema": _TEXT}}}
}

VERSION: dict[str, Any] = {
    "parameters": [
        {
            "name": "version",
            "in": "path",
            "required": True,
            "description": "A version, such as 1795498294.",
            "schema": {**_TEXT, "pattern": "^[0-9]{1,19}$"},
        }
    ]
}
"""`openapi_extra` of a path with a version."""


def of_version(operation: dict[str, Any]) -> dict[str, Any]:
    """The same operation for a path with a version."""
    return {**operation, "openapi_extra": {**operation["openapi_extra"], **VERSION}}

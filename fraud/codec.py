"""Conversion between typed objects and JSON.

An object is a dataclass, plain or pydantic, of tuples, mappings, dates, text, numbers and further
dataclasses. Reading is strict: a wrong type is an error, never converted.
"""

from __future__ import annotations

import difflib
import json
import typing
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import pydantic_core
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from fraud.errors import BadInput

T = TypeVar("T")

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


def _join_lines(schema: dict[str, Any]) -> None:
    for field in schema["properties"].values():
        if "description" in field:
            field["description"] = field["description"].replace("\n", " ")


STRICT = ConfigDict(
    strict=True,
    extra="forbid",
    allow_inf_nan=False,
    use_attribute_docstrings=True,
    json_schema_extra=_join_lines,
)
"""How every class of the configuration is validated and described: a key by its docstring."""

_PROBLEMS = {
    "bool_type": "expected true or false, got {value!r}",
    "dataclass_type": "expected keys and values, got {value!r}",
    "dict_type": "expected keys and values, got {value!r}",
    "float_type": "expected a number, got {value!r}",
    "int_from_float": "expected a whole number, got {value!r}",
    "int_type": "expected a whole number, got {value!r}",
    "string_type": "expected text, got {value!r}",
    "tuple_type": "expected a list, got {value!r}",
    "greater_than_equal": "{value} is too small; the least is {ge}",
    "less_than_equal": "{value} is too large; the most is {le}",
    "greater_than": "{value} must be above {gt}",
    "less_than": "{value} must be below {lt}",
    "too_short": "{value!r} has too few items; the least is {min_length}",
    "finite_number": "{value} is not a finite number",
    "missing": "missing; it has no default",
    "value_error": "{error}",
}


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON, in which a number that is not finite becomes null.

    On one line, it is canonical: keys are sorted. Indented, keys keep their order, for people.
    """
    plain = json.loads(pydantic_core.to_json(value, inf_nan_mode="null"))
    return json.dumps(
        plain, sort_keys=indent is None, indent=indent, allow_nan=False, ensure_ascii=False
    )


def from_json(kind: type[T], text: str | bytes) -> T:
    """Reads the output of `to_json`.

    Raises:
      BadInput: the text is not JSON, or not of this kind.
    """
    try:
        return _adapter(typing.cast(typing.Hashable, kind)).validate_json(text, strict=True)
    except ValidationError as error:
        raise BadInput(_explained(kind, error.errors()[0])) from None


def from_values(kind: type[T], document: Any) -> T:
    """Makes an object from plain values, such as those of a YAML file.

    Raises:
      BadInput: an unknown key, a wrong type or a value out of range, named by its dotted key.
    """
    # Through JSON, where strict validation accepts lists as tuples and mappings as objects.
    try:
        text = json.dumps(document, default=str, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        character = error.object[error.start]
        raise BadInput(f"the document: {character!r} is not a character; remove it") from None
    except (ValueError, RecursionError):
        raise BadInput("the document: a value contains itself; write it out") from None
    return from_json(kind, text)


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _explained(kind: Any, error: ErrorDetails) -> str:
    """One validation error as "key: what is wrong; what to do"."""
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error["loc"]).lstrip(".")
    return f"{key or 'the document'}: {_problem(kind, error, error.get('ctx', {}))}"


def _problem(kind: Any, error: ErrorDetails, context: dict[str, Any]) -> str:
    type_, where, value = error["type"], error["loc"], error["input"]
    if type_ == "unexpected_keyword_argument":
        known = list(_schema_at(kind, where[:-1])["properties"])
        close = difflib.get_close_matches(str(where[-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        return f"unknown key; {hint}"
    if type_ == "literal_error":
        choices = context["expected"].replace(" or ", ", ").replace("'", "")
        return f"{value!r} is not one of {choices}"
    if type_ in ("greater_than_equal", "less_than_equal"):
        schema = _schema_at(kind, where)
        if {"minimum", "maximum"} <= schema.keys():
            return f"{value} is out of range; use {schema['minimum']} to {schema['maximum']}"
    return _PROBLEMS.get(type_, "{msg}, got {value!r}").format(
        value=value, msg=error["msg"], **context
    )


def _schema_at(kind: Any, where: tuple[int | str, ...]) -> dict[str, Any]:
    """The JSON Schema of the value at a place within an object of a kind."""
    whole = schema = _adapter(kind).json_schema()
    for part in (None, *where):
        if isinstance(part, int):
            schema = schema["items"]
        elif part is not None:
            schema = schema.get("properties", {}).get(part) or schema["additionalProperties"]
        for choice in schema.get("anyOf", ()):  # of a value that may also be null
            if choice.get("type") != "null":
                schema = choice
        if "$ref" in schema:
            schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema

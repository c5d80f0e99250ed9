"""JSON bodies, and the values in them as arrays."""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from fraud.errors import BadInput

_LONGEST_SHOWN = 60
_DEEPEST = 100
_LARGEST_SEARCHED = 1 << 20
_LARGEST = sys.float_info.max


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
      BadInput: the body is no JSON object; names the field if a number is NaN or infinite.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        _refuse_odd_numbers(body)
        raise BadInput(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadInput("the body is not a JSON object: send {…}")
    return document


def numbers(name: str, values: Sequence[Any], type_: np.dtype) -> np.ndarray:
    """Numbers of a JSON list as an array; null is NaN, where the type has it.

    Raises:
      BadInput: a value is no such number; names the field and its place.
    """
    if type_.kind == "f":
        _check_types(name, values, {float, int, type(None)}, "a number")
        try:
            wide = np.array(values, np.float64)  # NaN for None
        except OverflowError:
            raise BadInput(f"{name}: a number is out of range") from None
        too_large = np.abs(wide) > np.finfo(type_).max
        if too_large.any():
            index = int(np.argmax(too_large))
            raise BadInput(f"{name}[{index}]: {shown(values[index])} is out of range")
        return wide.astype(type_)
    if type_.kind == "b":
        _check_types(name, values, {bool}, "true or false")
        return np.array(values, type_)
    _check_types(name, values, {int}, "a whole number")
    limits = np.iinfo(type_)
    for index, value in enumerate(values):
        if not limits.min <= value <= limits.max:
            raise BadInput(f"{name}[{index}]: {shown(value)} is out of range")
    return np.array(values, type_)


def texts(name: str, values: Sequence[Any]) -> np.ndarray:
    """Texts of a JSON list as an array of `bytes`; `{"b64": …}` is binary, null is empty.

    Raises:
      BadInput: a value is neither; names the field and its place.
    """
    array = np.empty(len(values), object)
    for index, value in enumerate(values):
        if isinstance(value, str):
            array[index] = _encoded(f"{name}[{index}]", value)
        elif value is None:
            array[index] = b""
        elif isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
            try:
                array[index] = base64.b64decode(value["b64"], validate=True)
            except (binascii.Error, ValueError):
                raise BadInput(f"{name}[{index}]: not in base64") from None
        else:
            raise BadInput(f"{name}[{index}]: expected text, got {shown(value)}")
    return array


def plain(array: np.ndarray, is_binary: bool = False) -> Any:
    """An array as JSON values: what is not finite is null, and bytes are text.

    Args:
      array: numbers, or `bytes`.
      is_binary: whether bytes are written in base64, as `{"b64": …}`.
    """
    if array.dtype != object:
        values = array.tolist()
        return values if array.dtype.kind != "f" or np.isfinite(array).all() else _finite(values)
    if array.ndim > 1:
        return [plain(row, is_binary) for row in array]
    if is_binary:
        return [{"b64": base64.b64encode(value).decode()} for value in array]
    return [value.decode(errors="replace") for value in array]


def shown(value: Any) -> str:
    """A value for a message: short, on one line."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def _check_types(name: str, values: Sequence[Any], allowed: set[type], kind: str) -> None:
    if {*map(type, values)} <= allowed:
        return
    index = next(i for i, value in enumerate(values) if type(value) not in allowed)
    raise BadInput(f"{name}[{index}]: expected {kind}, got {shown(values[index])}")


def _finite(values: Any) -> Any:
    if isinstance(values, list):
        return [_finite(value) for value in values]
    return values if abs(values) < float("inf") else None


def _encoded(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{name}: contains half a character (a lone surrogate)") from None


class _Constant(str):
    """NaN or an infinity in a document that is otherwise JSON."""


def _refuse_odd_numbers(body: bytes) -> None:
    """Names the field that is NaN or beyond all range, if that is all that is wrong with a body.

    Not in a huge one: that would take seconds, in which nothing else is answered.
    """
    if len(body) > _LARGEST_SEARCHED:
        return
    try:
        document = json.loads(body, parse_constant=_Constant)
    except (ValueError, RecursionError):
        return
    _look_for_odd_numbers(document, "")


def _look_for_odd_numbers(value: Any, path: str, depth: int = 0) -> None:
    if isinstance(value, _Constant):
        raise BadInput(f"{path}: {value} is not JSON; send null for what is not known")
    if isinstance(value, (int, float)) and not abs(value) <= _LARGEST:
        raise BadInput(f"{path}: this number is out of range")
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            _look_for_odd_numbers(item, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _look_for_odd_numbers(item, f"{path}[{index}]", depth + 1)

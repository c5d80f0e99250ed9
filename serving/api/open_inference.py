"""The Open Inference Protocol (version 2 of KServe's): tensors in JSON, as bytes and in messages.

A request names the signature in the parameter `signature_name`; the default is `predict`, whose
inputs have the names of columns.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from fraud.errors import BadInput
from fraud.serving.api.tensorflow_serving import array_of
from fraud.serving.api.values import numbers, parse_json, plain, shown, texts
from fraud.serving.inference import Answer, check_names, check_rows
from fraud.serving.session import Function, TensorInfo
from fraud.serving.settings import MODEL

SIGNATURE_PARAMETER = "signature_name"
DEFAULT_SIGNATURE = "predict"
PLATFORM = "tensorflow_savedmodel"
EXTENSIONS = ["binary_tensor_data"]

HEADER_LENGTH = "inference-header-content-length"
"""The HTTP header with the length of the JSON part of a body that goes on with bytes."""

_BYTES = "BYTES"
_TYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(bool),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    _BYTES: np.dtype(object),
}
_NAMES = {type_: name for name, type_ in _TYPES.items()}
_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    _BYTES: "bytes_contents",
}
_LENGTH = struct.Struct("<I")


def tensor_metadata(tensors: Mapping[str, TensorInfo]) -> list[dict[str, Any]]:
    """Names, types and shapes of a signature's inputs or outputs."""
    return [
        {"name": name, "datatype": _NAMES[info.numpy_type], "shape": list(info.shape or (-1,))}
        for name, info in tensors.items()
    ]


# JSON, with or without bytes after it


def read_http(body: bytes, header_length: str | None) -> tuple[dict[str, Any], bytes]:
    """The JSON part of a body, and the bytes after it.

    Args:
      body: of the request.
      header_length: the header of this name.

    Raises:
      BadInput: the header does not fit the body, or the body is no JSON object.
    """
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit()) or int(header_length) > length:
            raise BadInput(f"Inference-Header-Content-Length: {shown(header_length)} does not fit")
        length = int(header_length)
    document = parse_json(body[:length])
    _check_kind("id", document.get("id", ""), str)
    for key in ("inputs", "outputs"):
        for index, item in enumerate(_check_kind(key, document.get(key, []), list)):
            where = f"{key}[{index}]"
            _check_kind(where, item, dict)
            _check_kind(f"{where}.name", item.get("name"), str)
            _check_kind(f"{where}.parameters", item.get("parameters", {}), dict)
    _check_kind("parameters", document.get("parameters", {}), dict)
    return document, body[length:]


def signature_of(parameters: Mapping[str, Any]) -> str:
    """The signature that the parameters of a request name.

    Raises:
      BadInput: its name is no text.
    """
    name = parameters.get(SIGNATURE_PARAMETER, DEFAULT_SIGNATURE)
    return _check_kind(f"parameters.{SIGNATURE_PARAMETER}", name, str)


def arrays_of_http(
    document: Mapping[str, Any], binary: bytes, function: Function, most_rows: int
) -> dict[str, np.ndarray]:
    """The inputs in a request.

    Raises:
      BadInput: one is malformed, or of another signature; names it.
      TooLarge: one has more than `most_rows` values.
    """
    arrays: dict[str, np.ndarray] = {}
    place = 0
    check_names(function, [item["name"] for item in document.get("inputs", [])])
    for item in document.get("inputs", []):
        name = item["name"]
        size = item.get("parameters", {}).get("binary_data_size")
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(binary) - place:
                raise BadInput(
                    f"{name[:100]}: binary_data_size {shown(size)} does not fit the body"
                )
            content, place = binary[place : place + size], place + size
            array = _from_bytes(name, item.get("datatype"), content, most_rows)
        else:
            array = _from_list(name, item, function.inputs[name], most_rows)
        _add(arrays, name, array, item.get("shape"))
    if place != len(binary):
        raise BadInput("the body is longer than its tensors")
    return arrays


def http_answer(answer: Answer, document: Mapping[str, Any]) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON part if bytes follow it.

    Raises:
      BadInput: the request asks for an output that there is not.
    """
    everything_binary = document.get("parameters", {}).get("binary_data_output", False) is True
    wanted = {
        item["name"]: item.get("parameters", {}).get("binary_data", everything_binary) is True
        for item in document.get("outputs", [])
    } or dict.fromkeys(answer.outputs, everything_binary)
    outputs, parts = [], []
    for name, is_binary in wanted.items():
        array = _output(answer, name)
        tensor = {
            "name": name,
            "datatype": _NAMES[array.dtype],
            "shape": list(array.shape),
        }
        if is_binary:
            parts.append(to_bytes(array))
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            tensor["data"] = plain(array.ravel())
        outputs.append(tensor)
    head = {"model_name": MODEL, "model_version": answer.version, "outputs": outputs}
    if "id" in document:
        head["id"] = document["id"]
    text = orjson.dumps(head)
    return b"".join([text, *parts]), len(text) if parts else None


# Messages


def parameters_of(message: Any) -> dict[str, Any]:
    """The parameters of a message."""
    found = {}
    for name, parameter in message.parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        found[name] = getattr(parameter, kind) if kind else None
    return found


def arrays_of_message(request: Any, most_rows: int) -> dict[str, np.ndarray]:
    """The inputs in a ModelInferRequest.

    Raises:
      BadInput: one is malformed; names it.
      TooLarge: one has more than `most_rows` values.
    """
    arrays: dict[str, np.ndarray] = {}
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadInput(f"raw_input_contents: {len(raw)} for {len(request.inputs)} inputs")
    for index, tensor in enumerate(request.inputs):
        if raw:
            array = _from_bytes(tensor.name, tensor.datatype, raw[index], most_rows)
        else:
            type_ = _type(tensor.name, tensor.datatype)
            if tensor.datatype not in _CONTENTS:
                raise BadInput(f"{tensor.name}: {tensor.datatype} belongs in raw_input_contents")
            values = getattr(tensor.contents, _CONTENTS[tensor.datatype])
            check_rows(len(values), most_rows)
            values = list(values)
            if type_.kind == "O":
                array = np.empty(len(values), object)
                array[:] = values
            elif type_.kind == "f":  # NaN stays
                array = np.array(values, type_)
            else:
                array = numbers(tensor.name, values, type_)
        _add(arrays, tensor.name, array, list(tensor.shape))
    return arrays


def fill_response(response: Any, answer: Answer, request: Any) -> None:
    """Fills a ModelInferResponse, as raw bytes if the request had them.

    Raises:
      BadInput: the request asks for an output that there is not.
    """
    response.model_name, response.model_version = MODEL, answer.version
    response.id = request.id
    for name in [output.name for output in request.outputs] or list(answer.outputs):
        array = _output(answer, name)
        datatype = _NAMES[array.dtype]
        tensor = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if request.raw_input_contents:
            response.raw_output_contents.append(to_bytes(array))
        else:
            getattr(tensor.contents, _CONTENTS[datatype]).extend(array.ravel().tolist())


def to_bytes(array: np.ndarray) -> bytes:
    """A tensor as bytes, little-endian; each text is preceded by its length."""
    if array.dtype == object:
        return b"".join(_LENGTH.pack(len(value)) + value for value in array.ravel())
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _from_bytes(name: str, datatype: Any, content: bytes, most_rows: int) -> np.ndarray:
    type_ = _type(name, datatype)
    if type_.kind != "O":
        if len(content) % type_.itemsize:
            raise BadInput(f"{name[:100]}: {len(content)} bytes are no whole number of {datatype}")
        return np.frombuffer(content, type_.newbyteorder("<")).astype(type_, copy=False)
    values: list[bytes] = []
    place = 0
    while place < len(content):
        end = place + _LENGTH.size
        if end > len(content):
            raise BadInput(f"{name[:100]}: the text {len(values)} is cut short")
        (length,) = _LENGTH.unpack_from(content, place)
        place = end + length
        if place > len(content):
            raise BadInput(f"{name[:100]}: the text {len(values)} is cut short")
        values.append(content[end:place])
        check_rows(len(values), most_rows)
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _from_list(name: str, item: Mapping[str, Any], info: TensorInfo, most_rows: int) -> np.ndarray:
    type_ = _type(name, item.get("datatype"))
    data = _flat(name, item.get("data"))
    check_rows(len(data), most_rows)
    if info.numpy_type == type_:
        return array_of(name, data, info)
    return texts(name, data) if type_.kind == "O" else numbers(name, data, type_)


def _flat(name: str, data: Any) -> list[Any]:
    """The values of a list, which may be nested as the tensor is: [n], or [n, 1]."""
    _check_kind(f"{name[:100]}.data", data, list)
    if any(isinstance(row, list) for row in data):
        if not all(isinstance(row, list) for row in data):
            raise BadInput(f"{name[:100]}.data: lists and values side by side")
        return [value for row in data for value in row]
    return data


def _add(arrays: dict[str, np.ndarray], name: str, array: np.ndarray, shape: Any) -> None:
    if name in arrays:
        raise BadInput(f"{name[:100]}: occurs twice")
    if (
        not isinstance(shape, Sequence)
        or len(shape) > 2
        or not all(type(size) is int and 0 <= size <= 1 << 31 for size in shape)
    ):
        raise BadInput(f"{name[:100]}.shape: expected [n], got {shown(shape)}")
    if int(np.prod([int(size) for size in shape])) != array.size:
        raise BadInput(f"{name[:100]}: {array.size} values do not make the shape {list(shape)}")
    arrays[name] = array.reshape(tuple(shape))


def _type(name: str, datatype: Any) -> np.dtype:
    if not isinstance(datatype, str) or datatype not in _TYPES:
        known = ", ".join(_TYPES)
        raise BadInput(f"{name[:100]}.datatype: {shown(datatype)} is none of {known}")
    return _TYPES[datatype]


def _output(answer: Answer, name: str) -> np.ndarray:
    if name not in answer.outputs:
        known = ", ".join(answer.outputs)
        raise BadInput(f"outputs: no output {name[:100]!r}; there are {known}")
    return answer.outputs[name]


def _check_kind(where: str, value: Any, kind: type) -> Any:
    names: dict[type, str] = {str: "text", list: "a list", dict: "an object"}
    if not isinstance(value, kind):
        raise BadInput(f"{where[:200]}: expected {names[kind]}, got {shown(value)}")
    return value

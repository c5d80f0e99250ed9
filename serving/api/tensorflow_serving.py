"""The bodies of TensorFlow Serving's REST protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fraud.errors import BadInput
from fraud.serving.api.values import numbers, plain, shown, texts
from fraud.serving.inference import Answer, check_rows
from fraud.serving.protos import (
    DataType,
    SignatureDef,
    get_model_metadata_pb2,
    get_model_status_pb2,
)
from fraud.serving.session import Function, TensorInfo
from fraud.serving.settings import MODEL
from fraud.serving.versions import VersionStatus

_KEYS = {"signature_name", "instances", "inputs"}
_INVALID_ARGUMENT = 3  # of google.rpc.Code
_PREDICT_METHOD = "tensorflow/serving/predict"


def signature_of(document: Mapping[str, Any]) -> str:
    """The signature that a request names; "" for the default.

    Raises:
      BadInput: it is no text.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise BadInput(f"signature_name: expected text, got {shown(name)}")
    return name


def inputs_of(
    document: Mapping[str, Any], function: Function, most_rows: int
) -> dict[str, np.ndarray]:
    """The inputs in a request, of either format.

    Raises:
      BadInput: the request is malformed; names the field.
      TooLarge: it has more than `most_rows` transactions.
    """
    if unknown := sorted(document.keys() - _KEYS):
        raise BadInput(f"{unknown[0][:100]}: unknown key; known are {', '.join(sorted(_KEYS))}")
    if ("instances" in document) == ("inputs" in document):
        raise BadInput('send either "instances", a list with one item per transaction, or "inputs"')
    if "inputs" in document:
        columns = document["inputs"]
        if not isinstance(columns, dict):
            columns = {_only_input(function, "inputs"): columns}
    else:
        columns = _columns(document["instances"], function, most_rows)
    arrays = {}
    for name, values in columns.items():
        if not isinstance(values, list):
            raise BadInput(f"{name[:100]}: expected a list, got {shown(values)}")
        check_rows(len(values), most_rows)
        info = function.inputs.get(name)
        # What is wrong with an unknown name is said by the check of all names.
        arrays[name] = array_of(name, values, info) if info else np.zeros(0)
    return arrays


def array_of(name: str, values: list[Any], info: TensorInfo) -> np.ndarray:
    """A JSON list as an array of an input's type.

    Raises:
      BadInput: a value has another type; names the input and the place.
    """
    if info.is_text:
        return texts(name, values)
    return numbers(name, values, info.numpy_type)


def answer_of(answer: Answer, by_row: bool) -> dict[str, Any]:
    """The answer to a request that came row by row, or column by column."""
    columns = {
        name: plain(array, name.endswith("_bytes")) for name, array in answer.outputs.items()
    }
    if len(columns) == 1:
        [only] = columns.values()
        return {"predictions" if by_row else "outputs": only}
    if not by_row:
        return {"outputs": columns}
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return {"predictions": [dict(zip(names, row, strict=True)) for row in rows]}


def status_message(
    statuses: list[VersionStatus],
) -> get_model_status_pb2.GetModelStatusResponse:
    """How the versions are doing."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for status in statuses:
        one = response.model_version_status.add(version=int(status.version))
        one.state = get_model_status_pb2.ModelVersionStatus.State.Value(status.state)
        one.status.error_code = _INVALID_ARGUMENT if status.error else 0
        one.status.error_message = status.error
    return response


def metadata_message(
    version: str, functions: Mapping[str, Function]
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """The signatures of a version."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = MODEL
    response.model_spec.version.value = int(version)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, function in functions.items():
        signature: SignatureDef = signatures.signature_def[name]
        signature.method_name = _PREDICT_METHOD
        for side, tensors in (("inputs", function.inputs), ("outputs", function.outputs)):
            for key, tensor in tensors.items():
                info = getattr(signature, side)[key]
                info.name, info.dtype = tensor.name, tensor.type
                info.tensor_shape.unknown_rank = tensor.shape is None
                for size in tensor.shape or ():
                    info.tensor_shape.dim.add(size=size)
    response.metadata["signature_def"].Pack(signatures)
    return response


def status_document(statuses: list[VersionStatus]) -> dict[str, Any]:
    """`status_message` as JSON, as TensorFlow Serving writes it."""
    return {
        "model_version_status": [
            {
                "version": status.version,
                "state": status.state,
                "status": {
                    "error_code": "INVALID_ARGUMENT" if status.error else "OK",
                    "error_message": status.error,
                },
            }
            for status in statuses
        ]
    }


def metadata_document(version: str, functions: Mapping[str, Function]) -> dict[str, Any]:
    """`metadata_message` as JSON, as TensorFlow Serving writes it."""
    signatures = {
        name: {
            "inputs": {key: _info_document(tensor) for key, tensor in function.inputs.items()},
            "outputs": {key: _info_document(tensor) for key, tensor in function.outputs.items()},
            "method_name": _PREDICT_METHOD,
            "defaults": {},
        }
        for name, function in functions.items()
    }
    return {
        "model_spec": {"name": MODEL, "signature_name": "", "version": version},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


def _info_document(tensor: TensorInfo) -> dict[str, Any]:
    sizes = [{"size": str(size), "name": ""} for size in tensor.shape or ()]
    return {
        "name": tensor.name,
        "dtype": DataType.Name(tensor.type),
        "tensor_shape": {"dim": sizes, "unknown_rank": tensor.shape is None},
    }


def _columns(instances: Any, function: Function, most_rows: int) -> dict[str, list[Any]]:
    """Rows as columns."""
    if not isinstance(instances, list):
        raise BadInput(f"instances: expected a list, got {shown(instances)}")
    check_rows(len(instances), most_rows)
    if not any(isinstance(row, dict) and row.keys() != {"b64"} for row in instances):
        return {_only_input(function, "instances"): instances}
    columns: dict[str, list[Any]] = {name: [] for name in function.inputs}
    for index, row in enumerate(instances):
        if not isinstance(row, dict):
            raise BadInput(f"instances[{index}]: expected an object, got {shown(row)}")
        if row.keys() != columns.keys():
            for name in sorted(row.keys() - columns.keys()):
                raise BadInput(f"instances[{index}].{name[:100]}: no input of this signature")
            for name in sorted(columns.keys() - row.keys()):
                raise BadInput(f"instances[{index}].{name}: missing")
        for name, values in columns.items():
            values.append(row[name])
    return columns


def _only_input(function: Function, key: str) -> str:
    if len(function.inputs) != 1:
        raise BadInput(
            f"{key}: this signature has {len(function.inputs)} inputs, so each must be named: send "
            'objects such as {"TX_AMOUNT": 12.5, …}'
        )
    return next(iter(function.inputs))

"""TensorProto messages and numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from fraud.errors import BadInput
from fraud.serving.protos import TensorProto
from fraud.serving.session import NUMPY_TYPES, STRING

MOST_VALUES = 1 << 24
"""The most values of a tensor: a shape alone, without values, could claim any number of them."""

_FIELDS = {
    1: "float_val",
    2: "double_val",
    3: "int_val",
    4: "int_val",
    5: "int_val",
    6: "int_val",
    STRING: "string_val",
    9: "int64_val",
    10: "bool_val",
    17: "int_val",
    22: "uint32_val",
    23: "uint64_val",
}


def from_tensor_proto(name: str, tensor: TensorProto, most_values: int = MOST_VALUES) -> np.ndarray:
    """The array in a message; text and bytes as `bytes` objects.

    Args:
      name: of the tensor, for messages.
      tensor: the message.
      most_values: the most values that are taken, whatever the content: one value may stand for
        all.

    Raises:
      BadInput: type, shape and content do not match; names the tensor.
    """
    type_ = NUMPY_TYPES.get(tensor.dtype)
    if type_ is None:
        raise BadInput(f"{name}: tensors of type {tensor.dtype} are not supported")
    if tensor.tensor_shape.unknown_rank:
        raise BadInput(f"{name}: the shape is missing")
    shape = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
    count = 1
    for size in shape:
        if size < 0:
            raise BadInput(f"{name}: the shape {list(shape)} has a negative size")
        count *= size
    if count > most_values:
        raise BadInput(
            f"{name}: the shape {list(shape)} is too large; send at most {most_values} values"
        )
    if tensor.tensor_content:
        if type_.kind == "O":
            raise BadInput(f"{name}: text belongs in string_val, not in tensor_content")
        if len(tensor.tensor_content) != count * type_.itemsize:
            raise BadInput(
                f"{name}: {len(tensor.tensor_content)} bytes of content do not make the shape "
                f"{list(shape)}"
            )
        return np.frombuffer(tensor.tensor_content, type_).reshape(shape)
    if tensor.dtype not in _FIELDS:
        raise BadInput(f"{name}: values of this type belong in tensor_content")
    given: Any = getattr(tensor, _FIELDS[tensor.dtype])
    if type_.kind == "O":
        values = np.empty(len(given), object)
        values[:] = given
    else:
        values = np.array(given, np.float64 if type_.kind == "f" else None)
        if type_.kind in "iu" and values.size:
            limits = np.iinfo(type_)
            if values.min() < limits.min or values.max() > limits.max:
                raise BadInput(f"{name}: a value is out of the range of its type")
        values = values.astype(type_)
    if values.size == 1 and count != 1:  # one value stands for all
        values = np.full(count, values[0], type_)
    if values.size != count:
        raise BadInput(f"{name}: {values.size} values do not make the shape {list(shape)}")
    return values.reshape(shape)


def to_tensor_proto(array: np.ndarray, type_: int) -> TensorProto:
    """A message with the values of an array."""
    tensor = TensorProto(dtype=type_)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.dtype == object:
        tensor.string_val.extend(array.ravel().tolist())
    elif type_ == 1:  # the field that clients in other languages read
        tensor.float_val.extend(array.ravel().tolist())
    else:
        tensor.tensor_content = np.ascontiguousarray(array).tobytes()
    return tensor

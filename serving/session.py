"""SavedModels, loaded and called through TensorFlow's C API.

TensorFlow's Python loader holds the interpreter's lock for seconds, during which a server in the
same process cannot answer, and leaves memory behind. The C API, which TensorFlow Serving's own
loader is built on as well, needs the lock for neither loading nor calling and frees everything.
See docs/adr/0024-models-are-loaded-through-the-c-api.md.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fraud.errors import FraudPipelineError
from fraud.serving.protos import ConfigProto, MetaGraphDef, SignatureDef

STRING = 7
"""TensorFlow's number of the type of text and bytes."""

NUMPY_TYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.float64),
    3: np.dtype(np.int32),
    4: np.dtype(np.uint8),
    5: np.dtype(np.int16),
    6: np.dtype(np.int8),
    STRING: np.dtype(object),
    9: np.dtype(np.int64),
    10: np.dtype(bool),
    17: np.dtype(np.uint16),
    19: np.dtype(np.float16),
    22: np.dtype(np.uint32),
    23: np.dtype(np.uint64),
}
"""TensorFlow's numbers of the types that signatures may have, and numpy's types. Text and bytes are
arrays of `bytes` objects."""

SERVE = b"serve"
"""The tag of the graph that servers load."""

_SIGNATURE_DEF = 5
"""The number of this field in a MetaGraphDef."""
_STRING_BYTES = 24
_SPARE = 16
"""Sets of tensors that a function keeps; as many as are used at a time, but for rare peaks."""
_INVALID_ARGUMENT = 3
# RunOptions: run in the calling thread, which spares small graphs the changes of threads.
_IN_CALLING_THREAD = b"\x18" + b"\xff" * 9 + b"\x01"


class ModelError(FraudPipelineError):
    """TensorFlow could not load or run a model."""


class InvalidInput(FraudPipelineError):
    """TensorFlow refused the values or shapes of the inputs."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a signature.

    Attributes:
      name: in the graph, such as `serving_default_examples:0`.
      type: TensorFlow's number of the type.
      shape: -1 for what varies; None if unknown.
    """

    name: str
    type: int
    shape: tuple[int, ...] | None

    @property
    def numpy_type(self) -> np.dtype:
        """`object` for text and bytes."""
        return NUMPY_TYPES[self.type]

    @property
    def is_text(self) -> bool:
        """Whether the values are text or bytes."""
        return self.type == STRING


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    )


class Session:
    """A loaded SavedModel. Calls from several threads at once are safe.

    Args:
      directory: the SavedModel.
      threads: how many threads a call may use for one operation.

    Attributes:
      signatures: inputs and outputs by signature, as the SavedModel describes them.

    Raises:
      ModelError: it cannot be loaded.
    """

    def __init__(self, directory: Path, threads: int = 1) -> None:
        library = _library()
        self._library = library
        self._session: Any = None
        self._functions: list[Function] = []
        self._graph = library.TF_NewGraph()
        self._run_options = library.TF_NewBufferFromString(
            _IN_CALLING_THREAD, len(_IN_CALLING_THREAD)
        )
        config = ConfigProto(
            intra_op_parallelism_threads=threads,
            inter_op_parallelism_threads=threads,
            use_per_session_threads=True,
            device_count={"GPU": 0},
            # A call of a function within the graph takes as long as a dozen small operations.
            graph_options={"optimizer_options": {"do_function_inlining": True}},
        ).SerializeToString()
        options = library.TF_NewSessionOptions()
        meta_graph = library.TF_NewBuffer()
        try:
            with _Status(library, f"{directory}: cannot be loaded") as status:
                library.TF_SetConfig(options, config, len(config), status)
            with _Status(library, f"{directory}: cannot be loaded") as status:
                self._session = library.TF_LoadSessionFromSavedModel(
                    options,
                    None,
                    str(directory).encode(),
                    (ctypes.c_char_p * 1)(SERVE),
                    1,
                    self._graph,
                    meta_graph,
                    status,
                )
            self.signatures = _signatures(meta_graph)
        except BaseException:
            self.close()
            raise
        finally:
            library.TF_DeleteBuffer(meta_graph)
            library.TF_DeleteSessionOptions(options)

    def function(self, signature: str) -> Function:
        """A signature as a function.

        Raises:
          ModelError: there is none of this name, or it has types that are not supported.
        """
        if signature not in self.signatures:
            raise ModelError(f"the model has no signature {signature!r}")
        function = Function(self, *self.signatures[signature])
        self._functions.append(function)
        return function

    def close(self) -> None:
        """Frees the model. No call may be running, and none may follow."""
        library = self._library
        while self._functions:
            self._functions.pop().close()
        if self._session:
            with _Status(library, "closing a model") as status:
                library.TF_CloseSession(self._session, status)
            with _Status(library, "deleting a model") as status:
                library.TF_DeleteSession(self._session, status)
            self._session = None
        if self._graph:
            library.TF_DeleteGraph(self._graph)
            library.TF_DeleteBuffer(self._run_options)
            self._graph = None

    def output(self, name: str) -> _Output:
        """A tensor of the graph, for example `serving_default_examples:0`."""
        operation, _, index = name.partition(":")
        pointer = self._library.TF_GraphOperationByName(self._graph, operation.encode())
        if not pointer:
            raise ModelError(f"the graph has no operation {operation!r}")
        return _Output(pointer, int(index or 0))

    def run(self, inputs: Any, values: Any, outputs: Any) -> Any:
        """Runs the graph; all three are arrays of ctypes, as is the result."""
        results = (ctypes.c_void_p * len(outputs))()
        with _Status(self._library, "") as status:
            self._library.TF_SessionRun(
                self._session,
                self._run_options,
                inputs,
                values,
                len(inputs),
                outputs,
                results,
                len(outputs),
                None,
                0,
                None,
                status,
            )
        return results


class Function:
    """A signature of a loaded model: arrays by input name → arrays by output name.

    Attributes:
      inputs, outputs: by name.
    """

    def __init__(
        self, session: Session, inputs: dict[str, TensorInfo], outputs: dict[str, TensorInfo]
    ) -> None:
        for name, tensor in {**inputs, **outputs}.items():
            if tensor.type not in NUMPY_TYPES:
                raise ModelError(f"{name}: tensors of type {tensor.type} are not supported")
        self.inputs, self.outputs = inputs, outputs
        self._session = session
        self._library = _library()
        self._types = {name: NUMPY_TYPES[tensor.type] for name, tensor in inputs.items()}
        # Of single transactions. Making them anew takes as long as running the graph.
        self._spare: list[_Tensors] = []
        self._inputs = (_Output * len(inputs))(*(session.output(t.name) for t in inputs.values()))
        self._outputs = (_Output * len(outputs))(
            *(session.output(t.name) for t in outputs.values())
        )

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Calls the signature.

        Args:
          **inputs: every input, of its type; arrays of text hold `bytes`.

        Raises:
          InvalidInput: TensorFlow refuses the inputs, for example because of their shapes.
          ModelError: anything else that goes wrong in the graph.
        """
        arrays = [np.asarray(inputs[name], type_) for name, type_ in self._types.items()]
        tensors = self._tensors_of(arrays)
        results: Sequence[Any] = ()
        try:
            results = self._session.run(self._inputs, tensors.values, self._outputs)
            return {
                name: _to_array(self._library, tensor)
                for name, tensor in zip(self.outputs, results, strict=True)
            }
        finally:
            for tensor in results:
                if tensor:
                    self._library.TF_DeleteTensor(tensor)
            if tensors.are_of_one and len(self._spare) < _SPARE:
                self._spare.append(tensors)
            else:
                tensors.free()

    def close(self) -> None:
        """Frees the tensors that are kept. No call may be running, and none may follow."""
        while self._spare:
            self._spare.pop().free()

    def _tensors_of(self, arrays: list[np.ndarray]) -> _Tensors:
        if all(array.shape == (1,) for array in arrays):
            try:
                spare = self._spare.pop()
            except IndexError:
                pass
            else:
                try:
                    spare.fill(arrays)
                except BaseException:
                    spare.free()
                    raise
                return spare
        return _Tensors(self._library, arrays, [tensor.type for tensor in self.inputs.values()])


class _Tensors:
    """Tensors of TensorFlow with copies of arrays.

    Attributes:
      values: their addresses.
      are_of_one: whether each has one value, in one dimension.

    Args:
      library: the C API.
      arrays: the values; text and bytes as `bytes` objects.
      types: TensorFlow's numbers of their types.
    """

    def __init__(self, library: Any, arrays: list[np.ndarray], types: list[int]) -> None:
        self._library = library
        self.values = (ctypes.c_void_p * len(arrays))()
        self.are_of_one = all(array.shape == (1,) for array in arrays)
        self._texts: dict[int, int] = {}
        self._numbers: dict[int, np.ndarray] = {}
        shapes: dict[tuple[int, ...], Any] = {}
        for index, (array, type_) in enumerate(zip(arrays, types, strict=True)):
            shape = shapes.get(array.shape)
            if shape is None:
                shape = shapes[array.shape] = (ctypes.c_int64 * array.ndim)(*array.shape)
            size = array.size * (_STRING_BYTES if type_ == STRING else array.itemsize)
            tensor = library.TF_AllocateTensor(type_, shape, array.ndim, size)
            self.values[index] = tensor
            data = library.TF_TensorData(tensor)
            if type_ == STRING:
                for place in range(data, data + size, _STRING_BYTES):
                    library.TF_StringInit(place)
                self._texts[index] = data
            elif size:
                content: Any = (ctypes.c_char * size).from_address(data)
                self._numbers[index] = np.frombuffer(content, array.dtype).reshape(array.shape)
        self._sizes = {index: arrays[index].size for index in self._texts}
        try:
            self.fill(arrays)
        except BaseException:
            self.free()
            raise

    def fill(self, arrays: list[np.ndarray]) -> None:
        """Copies arrays of the same shapes and types into the tensors."""
        for index, content in self._numbers.items():
            content[...] = arrays[index]
        for index, data in self._texts.items():
            for place, value in enumerate(arrays[index].ravel()):
                self._library.TF_StringCopy(data + place * _STRING_BYTES, value, len(value))

    def free(self) -> None:
        """Frees the tensors."""
        for index, data in self._texts.items():
            for place in range(self._sizes[index]):
                self._library.TF_StringDealloc(data + place * _STRING_BYTES)
        for tensor in self.values:
            self._library.TF_DeleteTensor(tensor)


class _Status:
    """A TF_Status that becomes an exception at the end of the block."""

    def __init__(self, library: Any, doing: str) -> None:
        self._library, self._doing = library, doing

    def __enter__(self) -> Any:
        self._status = self._library.TF_NewStatus()
        return self._status

    def __exit__(self, *_: object) -> None:
        code = self._library.TF_GetCode(self._status)
        message = self._library.TF_Message(self._status).decode(errors="replace") if code else ""
        self._library.TF_DeleteStatus(self._status)
        if code:
            text = f"{self._doing}: {message}".removeprefix(": ")
            raise InvalidInput(text) if code == _INVALID_ARGUMENT else ModelError(text)


def _signatures(
    meta_graph: Any,
) -> dict[str, tuple[dict[str, TensorInfo], dict[str, TensorInfo]]]:
    buffer = meta_graph.contents
    # Not the graph, which takes 10 ms during which no request is answered.
    message = MetaGraphDef.FromString(
        fields_of(ctypes.string_at(buffer.data, buffer.length), _SIGNATURE_DEF)
    )
    return {
        name: (_infos(signature, "inputs"), _infos(signature, "outputs"))
        for name, signature in message.signature_def.items()
        if signature.inputs or signature.outputs
        if not name.startswith("__")
    }


def fields_of(message: bytes, number: int) -> bytes:
    """One field of a serialized protobuf message, without the others; all of it if it repeats.

    See https://protobuf.dev/programming-guides/encoding. Groups, which are no longer used, are not
    supported.
    """
    kept, at = [], 0
    while at < len(message):
        begin = at
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(message, at)
        elif kind == 2:
            length, at = _varint(message, at)
            at += length
        else:
            at += {1: 8, 5: 4}[kind]
        if tag >> 3 == number:
            kept.append(message[begin:at])
    return b"".join(kept)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number in the encoding of protobuf, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _infos(signature: SignatureDef, side: str) -> dict[str, TensorInfo]:
    infos: Mapping[str, Any] = getattr(signature, side)
    return {
        name: TensorInfo(
            info.name,
            info.dtype,
            None
            if info.tensor_shape.unknown_rank
            else tuple(dimension.size for dimension in info.tensor_shape.dim),
        )
        for name, info in sorted(infos.items())
    }


def _to_array(library: Any, tensor: Any) -> np.ndarray:
    """A copy of a tensor."""
    shape = tuple(library.TF_Dim(tensor, axis) for axis in range(library.TF_NumDims(tensor)))
    type_ = NUMPY_TYPES[library.TF_TensorType(tensor)]
    array = np.empty(shape, type_)
    data = library.TF_TensorData(tensor)
    if type_.kind == "O":
        flat = array.reshape(-1)
        for index in range(array.size):
            place = data + index * _STRING_BYTES
            flat[index] = ctypes.string_at(
                library.TF_StringGetDataPointer(place), library.TF_StringGetSize(place)
            )
    elif array.nbytes:
        ctypes.memmove(array.ctypes.data, data, array.nbytes)
    return array


_POINTER, _INT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
_TEXT = ctypes.c_char_p
_SLOW: dict[str, tuple[Any, list[Any]]] = {
    "TF_LoadSessionFromSavedModel": (
        _POINTER,
        [_POINTER, _POINTER, _TEXT, _POINTER, _INT, _POINTER, _POINTER, _POINTER],
    ),
    "TF_SessionRun": (
        None,
        [
            *(_POINTER, _POINTER, _POINTER, _POINTER, _INT, _POINTER, _POINTER, _INT),
            *(_POINTER, _INT, _POINTER, _POINTER),
        ],
    ),
    "TF_CloseSession": (None, [_POINTER, _POINTER]),
    "TF_DeleteSession": (None, [_POINTER, _POINTER]),
    "TF_DeleteGraph": (None, [_POINTER]),
}
"""Functions of the C API during which other threads of Python go on: result and arguments."""
_QUICK: dict[str, tuple[Any, list[Any]]] = {
    "TF_NewStatus": (_POINTER, []),
    "TF_GetCode": (_INT, [_POINTER]),
    "TF_Message": (_TEXT, [_POINTER]),
    "TF_DeleteStatus": (None, [_POINTER]),
    "TF_NewGraph": (_POINTER, []),
    "TF_NewBuffer": (ctypes.POINTER(_Buffer), []),
    "TF_NewBufferFromString": (ctypes.POINTER(_Buffer), [_TEXT, _SIZE]),
    "TF_DeleteBuffer": (None, [ctypes.POINTER(_Buffer)]),
    "TF_NewSessionOptions": (_POINTER, []),
    "TF_SetConfig": (None, [_POINTER, _TEXT, _SIZE, _POINTER]),
    "TF_DeleteSessionOptions": (None, [_POINTER]),
    "TF_GraphOperationByName": (_POINTER, [_POINTER, _TEXT]),
    "TF_AllocateTensor": (_POINTER, [_INT, _POINTER, _INT, _SIZE]),
    "TF_DeleteTensor": (None, [_POINTER]),
    "TF_TensorData": (_POINTER, [_POINTER]),
    "TF_TensorType": (_INT, [_POINTER]),
    "TF_NumDims": (_INT, [_POINTER]),
    "TF_Dim": (ctypes.c_int64, [_POINTER, _INT]),
    "TF_StringInit": (None, [_POINTER]),
    "TF_StringCopy": (None, [_POINTER, _TEXT, _SIZE]),
    "TF_StringDealloc": (None, [_POINTER]),
    "TF_StringGetDataPointer": (_POINTER, [_POINTER]),
    "TF_StringGetSize": (_SIZE, [_POINTER]),
}
"""Functions that take less time than handing over the interpreter's lock."""


class _Library:
    """The functions of the C API as attributes."""

    def __init__(self, path: Path) -> None:
        for open_, functions in ((ctypes.CDLL, _SLOW), (ctypes.PyDLL, _QUICK)):
            library = open_(str(path))
            for name, (result, arguments) in functions.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
                setattr(self, name, function)


@lru_cache(1)
def _library() -> Any:
    """TensorFlow's C API.

    Raises:
      FraudPipelineError: TensorFlow is not installed, or not as expected.
    """
    found = importlib.util.find_spec("tensorflow")
    if found is None or found.origin is None:
        raise FraudPipelineError("TensorFlow is not installed; run make setup")
    name = "libtensorflow_cc.2.dylib" if sys.platform == "darwin" else "libtensorflow_cc.so.2"
    path = Path(found.origin).parent / name
    # Errors that matter are raised; those that are only logged are about GPUs.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # oneDNN makes a single transaction a quarter slower, and batches of 100 no faster.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    try:
        return _Library(path)
    except (OSError, AttributeError) as error:
        raise FraudPipelineError(f"{path}: TensorFlow's library cannot be used: {error}") from None
